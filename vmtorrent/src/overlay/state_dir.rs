//! Invariant: while a `StateDirectory` lives, nobody else uses the directory, and all in it belongs to one image.
//!
//! ```text
//! lock             held for life; its line is the holder's process id
//! state.json       which image, which cache, which peers: a StateRecord
//! image.torrent    the .torrent file
//! overlay/N.data, overlay/N.map    what the guest wrote to file N of the image
//! overlay/N.lost   the disk lost writes to file N
//! files/           the VMM's own files
//! ```

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::LazyOverlay;
use crate::durable;
use crate::image::Image;
use crate::lock_file::LockFile;
use crate::{Error, ErrorKind, Result};

const VERSION: u32 = 1;
const LOCK: &str = "lock";
const RECORD: &str = "state.json";
const TORRENT: &str = "image.torrent";
const OVERLAYS: &str = "overlay";
const FILES: &str = "files";

/// What stands in `state.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateRecord {
    /// Of the format: 1.
    pub(crate) version: u32,
    /// The image's, in hexadecimal.
    pub(crate) info_hash: String,
    /// The image's.
    pub(crate) name: String,
    /// The cache directory that held the pristine copy last.
    #[serde(default)]
    pub(crate) cache: Option<PathBuf>,
    /// What the session knows of peers.
    #[serde(default)]
    pub(crate) peers: serde_json::Value,
    /// URLs of web seeds that were named.
    #[serde(default)]
    pub(crate) web_seeds: Vec<String>,
}

/// The directory in which one appliance keeps what belongs to it alone.
#[derive(Debug)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    record: Mutex<StateRecord>,
    file_lengths: Vec<u64>,
    overlays: Mutex<HashMap<usize, Weak<LazyOverlay>>>,
    _lock: LockFile,
    /// Removed after everything else is closed.
    _temporary: Option<TempDir>,
}

impl StateDirectory {
    /// Opens the state of `image` in `path`, making the directory when it is absent.
    ///
    /// # Errors
    /// `InUse` when a process holds it; `InvalidInput` when it belongs to another image, or is not empty and
    /// not a state directory; `Corrupt` when `state.json` is unreadable.
    pub(crate) fn open(path: &Path, image: &Image) -> Result<Self> {
        Self::open_or_make(path, image, None)
    }

    /// Makes a state directory that is removed when it is dropped, below `parent` or else the system's
    /// directory of temporary files.
    pub(crate) fn ephemeral(parent: Option<&Path>, image: &Image) -> Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
        let temporary = tempfile::Builder::new()
            .prefix("vmtorrent-state-")
            .tempdir_in(&parent)
            .map_err(|e| {
                let parent = parent.display();
                Error::io(format!("making a temporary state directory in {parent}"), e)
            })?;
        let path = temporary.path().to_path_buf();
        Self::open_or_make(&path, image, Some(temporary))
    }

    /// Opens a state directory that is there, and its image; `parse` reads the .torrent file.
    ///
    /// # Errors
    /// `NotFound` when it is not a state directory; else as [`open`](Self::open), and those of `parse`.
    pub(crate) fn open_existing(
        path: &Path,
        parse: impl FnOnce(Bytes) -> Result<Image>,
    ) -> Result<(Self, Image)> {
        let record = path.join(RECORD);
        match fs::metadata(&record) {
            Ok(found) if found.is_file() => {}
            Err(e)
                if !matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(Error::io(format!("looking at {}", record.display()), e));
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "{} is not a state directory: it holds no {RECORD}; name the directory that the \
                         launch had as its option `state`",
                        path.display()
                    ),
                ));
            }
        }
        let lock = Self::lock(path)?;
        let torrent = path.join(TORRENT);
        let bytes = fs::read(&torrent)
            .map_err(|e| Error::io(format!("reading {}", torrent.display()), e))?;
        let image = parse(bytes.into())?;
        let record = Self::read_record(path)?.unwrap_or_else(|| new_record(&image));
        check_image(path, &record, &image)?;
        let directory = Self::assemble(path, &image, record, lock, None);
        Ok((directory, image))
    }

    fn open_or_make(path: &Path, image: &Image, temporary: Option<TempDir>) -> Result<Self> {
        let failed = |e| Error::io(format!("making the state directory {}", path.display()), e);
        durable::create_directories(path).map_err(failed)?;
        refuse_foreign(path)?;
        let lock = Self::lock(path)?;
        let record = match Self::read_record(path)? {
            Some(record) => {
                check_image(path, &record, image)?;
                record
            }
            None => new_record(image),
        };
        for name in [OVERLAYS, FILES] {
            durable::create_directories(&path.join(name)).map_err(failed)?;
        }
        let torrent = path.join(TORRENT);
        if !fs::read(&torrent).is_ok_and(|found| found == image.torrent_bytes()[..]) {
            durable::replace_file(path, TORRENT, image.torrent_bytes()).map_err(failed)?;
        }
        let directory = Self::assemble(path, image, record, lock, temporary);
        if !path.join(RECORD).exists() {
            directory.write_record(&directory.record.lock())?;
        }
        Ok(directory)
    }

    fn assemble(
        path: &Path,
        image: &Image,
        record: StateRecord,
        lock: LockFile,
        temporary: Option<TempDir>,
    ) -> Self {
        Self {
            path: path.to_path_buf(),
            record: Mutex::new(record),
            file_lengths: image.files().iter().map(|f| f.length).collect(),
            overlays: Mutex::default(),
            _lock: lock,
            _temporary: temporary,
        }
    }

    fn lock(path: &Path) -> Result<LockFile> {
        let lock_path = path.join(LOCK);
        let failed = |e| Error::io(format!("locking {}", lock_path.display()), e);
        let Some(lock) = LockFile::try_acquire(&lock_path).map_err(failed)? else {
            let holder = match LockFile::announced(&lock_path) {
                Ok(Some(pid)) => format!("process {pid}"),
                _ => "another process".to_owned(),
            };
            return Err(Error::new(
                ErrorKind::InUse,
                format!(
                    "the state directory {} is in use by {holder}: end that, or name another directory \
                     with the option `state`",
                    path.display()
                ),
            ));
        };
        lock.announce(&std::process::id().to_string())
            .map_err(failed)?;
        Ok(lock)
    }

    fn read_record(path: &Path) -> Result<Option<StateRecord>> {
        let file = path.join(RECORD);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(format!("reading {}", file.display()), e)),
        };
        let unreadable = |e| {
            let context = format!(
                "{} is unreadable: restore it from a backup, or name another directory with the option `state`",
                file.display()
            );
            Error::with_source(ErrorKind::Corrupt, context, e)
        };
        let record: StateRecord = serde_json::from_slice(&text).map_err(unreadable)?;
        if record.version != VERSION {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "{} has version {}, this program knows version {VERSION}: use the program that wrote it, \
                     or name another directory with the option `state`",
                    file.display(),
                    record.version
                ),
            ));
        }
        Ok(Some(record))
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the VMM's own files.
    pub(crate) fn files_dir(&self) -> PathBuf {
        self.path.join(FILES)
    }

    /// What stands in `state.json`.
    pub(crate) fn record(&self) -> StateRecord {
        self.record.lock().clone()
    }

    /// Notes, durably, where the pristine copy is, what is known of peers, and which web seeds were named.
    pub(crate) fn note(
        &self,
        cache: Option<&Path>,
        peers: serde_json::Value,
        web_seeds: Vec<String>,
    ) -> Result<()> {
        let mut record = self.record.lock();
        let changed = StateRecord {
            cache: cache.map(Path::to_path_buf),
            peers,
            web_seeds,
            ..record.clone()
        };
        if changed != *record {
            self.write_record(&changed)?;
            *record = changed;
        }
        Ok(())
    }

    fn write_record(&self, record: &StateRecord) -> Result<()> {
        let failed = |e| {
            let file = self.path.join(RECORD);
            Error::io(format!("writing {}", file.display()), e)
        };
        let mut text = serde_json::to_vec_pretty(record).map_err(|e| failed(e.into()))?;
        text.push(b'\n');
        durable::replace_file(&self.path, RECORD, &text).map_err(failed)
    }

    /// The overlay of a file of the image, by its number. Everyone who asks gets the same one.
    ///
    /// # Errors
    /// `InvalidInput` when the image has no such file; else those of [`LazyOverlay::open`].
    pub(crate) fn overlay(&self, file_index: usize) -> Result<Arc<LazyOverlay>> {
        let Some(&length) = self.file_lengths.get(file_index) else {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "the image has {} files, none of them is number {file_index}",
                    self.file_lengths.len()
                ),
            ));
        };
        let mut overlays = self.overlays.lock();
        if let Some(open) = overlays.get(&file_index).and_then(Weak::upgrade) {
            return Ok(open);
        }
        let directory = self.path.join(OVERLAYS);
        let overlay = Arc::new(LazyOverlay::open(
            &directory,
            &file_index.to_string(),
            length,
        )?);
        overlays.insert(file_index, Arc::downgrade(&overlay));
        Ok(overlay)
    }
}

fn new_record(image: &Image) -> StateRecord {
    StateRecord {
        version: VERSION,
        info_hash: image.info_hash().to_string(),
        name: image.name().to_owned(),
        cache: None,
        peers: serde_json::Value::Null,
        web_seeds: Vec::new(),
    }
}

fn check_image(path: &Path, record: &StateRecord, image: &Image) -> Result<()> {
    let expected = image.info_hash().to_string();
    if record.info_hash == expected {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!(
            "the state directory {} belongs to the image {} ({}), not to {} ({expected}): name another \
             directory with the option `state`",
            path.display(),
            record.name,
            record.info_hash,
            image.name(),
        ),
    ))
}

/// Refuses a directory with files that are not ours, before anything is written into it.
fn refuse_foreign(path: &Path) -> Result<()> {
    let failed = |e| Error::io(format!("reading the directory {}", path.display()), e);
    if path.join(RECORD).exists() {
        return Ok(());
    }
    // Without a record it is new, or a first launch was killed half way.
    let ours = [LOCK, TORRENT, OVERLAYS, FILES, "lost+found"];
    for entry in fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let is_ours = name.to_str().is_some_and(|name| {
            ours.contains(&name.strip_suffix(".new").unwrap_or(name)) || name == "state.json.new"
        });
        if !is_ours {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "{} is not empty and not a state directory (it holds {}): name an empty or a new \
                     directory with the option `state`",
                    path.display(),
                    name.display()
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::{StateDirectory, WriteOutcome, state_dir::StateRecord};
    use crate::test_image::image_of;

    #[test]
    fn a_second_opener_is_told_the_process_and_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let image = image_of(&[1; 100], 16384);
        let first = StateDirectory::open(dir.path(), &image).unwrap();
        let error = StateDirectory::open(dir.path(), &image).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        let text = error.to_string();
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        assert!(text.contains(&dir.path().display().to_string()), "{text}");
        assert!(text.contains("the option `state`"), "{text}");
        drop(first);
        StateDirectory::open(dir.path(), &image).unwrap();
    }

    #[test]
    fn state_and_overlays_come_back_and_one_overlay_is_shared() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/on/the/way");
        let image = image_of(&[1; 10_000], 16384);
        let state = StateDirectory::open(&path, &image).unwrap();
        let peers = serde_json::json!(["127.0.0.1:9"]);
        let web_seeds = vec!["http://w.example/".to_owned()];
        state
            .note(Some(Path::new("/c")), peers.clone(), web_seeds.clone())
            .unwrap();
        assert_eq!(state.path(), path);
        assert!(state.files_dir().is_dir());
        let overlay = state.overlay(0).unwrap();
        assert!(Arc::ptr_eq(&overlay, &state.overlay(0).unwrap()));
        assert_eq!(
            state.overlay(1).err().unwrap().kind(),
            ErrorKind::InvalidInput
        );
        let written = overlay.write(4096, &[7; 4096], &[]).unwrap();
        assert_eq!(written, WriteOutcome::Done);
        overlay.flush().unwrap();
        drop((overlay, state));

        let (state, found) = StateDirectory::open_existing(&path, |bytes| {
            assert_eq!(bytes, image.torrent_bytes());
            Ok(image.clone())
        })
        .unwrap();
        assert_eq!(found.info_hash(), image.info_hash());
        let record: StateRecord = state.record();
        assert_eq!(record.peers, peers);
        assert_eq!(record.web_seeds, web_seeds);
        assert_eq!(record.cache.as_deref(), Some(Path::new("/c")));
        assert_eq!(state.overlay(0).unwrap().data_blocks(), 1);
    }

    #[test]
    fn foreign_directories_and_other_images_are_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let image = image_of(&[1; 100], 16384);
        fs::write(dir.path().join("thesis.tex"), "precious").unwrap();
        let error = StateDirectory::open(dir.path(), &image).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("thesis.tex"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let error = StateDirectory::open_existing(dir.path(), |_| unreachable!()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);

        let dir = tempfile::tempdir().unwrap();
        drop(StateDirectory::open(dir.path(), &image).unwrap());
        let other = image_of(&[2; 100], 16384);
        let error = StateDirectory::open(dir.path(), &other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        for hash in [image.info_hash(), other.info_hash()] {
            assert!(error.to_string().contains(&hash.to_string()), "{error}");
        }
        fs::write(dir.path().join(RECORD), "{").unwrap();
        let error = StateDirectory::open(dir.path(), &image).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_first_launch_that_was_killed_half_way_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let image = image_of(&[1; 100], 16384);
        drop(StateDirectory::open(dir.path(), &image).unwrap());
        fs::rename(dir.path().join(RECORD), dir.path().join("state.json.new")).unwrap();
        StateDirectory::open(dir.path(), &image).unwrap();
    }

    #[test]
    fn an_ephemeral_state_is_gone_afterwards() {
        let parent = tempfile::tempdir().unwrap();
        let image = image_of(&[1; 100], 16384);
        let state = StateDirectory::ephemeral(Some(parent.path()), &image).unwrap();
        let path = state.path().to_path_buf();
        assert!(path.join(RECORD).is_file());
        drop(state);
        assert!(!path.exists());
    }
}
