//! Writing out the mutable image as the guest left it.
//!
//! Invariant: the output appears under its name only when it is complete.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use vmtorrent_platform::{Errno, PositionedFile, SeekTarget};

use crate::appliance::Appliance;
use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::options::{ApplianceOptions, Fill, SessionOptions, State};
use crate::overlay::StateDirectory;
use crate::session::Session;

/// How much is read and written at once, bytes.
const CHUNK: u64 = 1 << 20;

/// How an [`export`] goes about data that is not here.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// How long one read waits for data that must still be fetched; `None`: for ever. Default 60 s.
    pub read_timeout: Option<Duration>,
    /// The cache directory, if it is not the one that the last launch used.
    pub cache: Option<PathBuf>,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            read_timeout: Some(Duration::from_secs(60)),
            cache: None,
        }
    }
}

/// Writes the image of a state directory, with everything that the guest wrote and flushed, to `output`: a
/// file, or a directory for an image of several files. Gives the bytes of data written; holes stay holes.
///
/// What neither the state nor the cache holds is fetched from the swarm, from the peers and trackers
/// that the last launch knew.
///
/// # Errors
/// [`ErrorKind::NotFound`] when `state` is no state directory, [`ErrorKind::InUse`] when its appliance runs or
/// `output` exists, [`ErrorKind::TimedOut`] when missing data does not come.
pub async fn export(state: &Path, output: &Path, options: ExportOptions) -> Result<u64> {
    export_in(state, output, options, |_| {}).await
}

/// As [`export`]; `started` gets the session that it needs, for who wants to know when its threads have ended, also
/// when the export is given up half way.
///
/// # Errors
/// Those of [`export`].
pub async fn export_in(
    state: &Path,
    output: &Path,
    options: ExportOptions,
    started: impl FnOnce(&Session),
) -> Result<u64> {
    refuse_existing(output)?;
    // Read what the state says, then let it go: the launch below takes it again.
    let (image, record) = {
        let (directory, image) = StateDirectory::open_existing(state, Image::from_bytes)?;
        (image, directory.record())
    };
    let peers = record.peers.as_array().into_iter().flatten();
    let peers = peers.filter_map(|p| p.as_str()?.parse().ok()).collect();
    let web_seeds = record
        .web_seeds
        .iter()
        .filter_map(|url| url.parse().ok())
        .collect();
    let session = Session::start(SessionOptions {
        cache: options.cache.or(record.cache),
        // What an export reads is no run of a guest.
        profile_exchange: false,
        ..SessionOptions::default()
    })
    .await?;
    started(&session);
    let appliance = session
        .launch(
            image,
            ApplianceOptions {
                state: State::Directory(state.to_owned()),
                peers,
                web_seeds,
                fill: Fill::None,
                auto_profile: false,
                read_timeout: options.read_timeout,
                ..ApplianceOptions::default()
            },
        )
        .await?;
    let written = write_out(&appliance, output, session.shared().handle()).await;
    let ended = appliance.shutdown().await;
    let closed = session.shutdown().await;
    // The first failure explains the others.
    let written = written?;
    ended?;
    closed?;
    Ok(written)
}

impl Appliance {
    /// As [`export`], of an appliance that runs: writes its files as they are while they are read. What its guest has
    /// not written to the disk yet is not among it, and what it writes meanwhile may be or not: a VMM that has ended, or
    /// is paused, leaves a whole image.
    ///
    /// # Errors
    /// [`ErrorKind::InUse`] when `output` exists, [`ErrorKind::TimedOut`] when missing data does not come, and those of
    /// the file system.
    pub async fn export(&self, output: &Path) -> Result<u64> {
        refuse_existing(output)?;
        write_out(self, output, self.runtime()).await
    }
}

fn refuse_existing(output: &Path) -> Result<()> {
    if output.exists() {
        let text = format!(
            "{} exists: remove it, or choose another name",
            output.display()
        );
        return Err(Error::new(ErrorKind::InUse, text));
    }
    Ok(())
}

/// Waits for the disk in a thread of the session, not in one of the caller's executor.
async fn blocking<T: Send + 'static>(
    runtime: &Handle,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match runtime.spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(crate::session::ended(error)),
    }
}

async fn write_out(appliance: &Appliance, output: &Path, runtime: &Handle) -> Result<u64> {
    let mut name = output.file_name().map(ToOwned::to_owned).ok_or_else(|| {
        let text = format!("{} names no file: give the output a name", output.display());
        Error::new(ErrorKind::InvalidInput, text)
    })?;
    name.push(format!(".{}.partial", std::process::id()));
    let partial = output.with_file_name(name);
    let _removed_at_the_end = Leftover(&partial);
    let bytes = write_all(appliance, &partial, runtime).await?;
    let (from, to) = (partial.clone(), output.to_owned());
    blocking(runtime, move || {
        let parent = match to.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        fs::rename(&from, &to)
            .and_then(|()| durable::sync_directory(parent))
            .map_err(|e| {
                let (from, to) = (from.display(), to.display());
                Error::io(format!("renaming {from} to {to}"), e)
            })
    })
    .await?;
    Ok(bytes)
}

/// What an export that did not end well leaves behind, also when it is given up half way.
struct Leftover<'a>(&'a Path);

impl Drop for Leftover<'_> {
    fn drop(&mut self) {
        // After a good end it has another name, and there is nothing to remove.
        let _ = if self.0.is_dir() {
            fs::remove_dir_all(self.0)
        } else {
            fs::remove_file(self.0)
        };
    }
}

async fn write_all(appliance: &Appliance, partial: &Path, runtime: &Handle) -> Result<u64> {
    let image = appliance.image();
    let mut bytes = 0;
    let mut directories = BTreeSet::new();
    for (index, file) in image.files().iter().enumerate().filter(|(_, f)| !f.padding) {
        let mut path = partial.to_owned();
        if !image.is_single_file() {
            path.extend(&file.path);
        }
        if path.starts_with(partial) && path != partial {
            directories.extend(path.parent().map(Path::to_path_buf));
        }
        bytes += write_file(appliance, index, path, runtime).await?;
    }
    blocking(runtime, move || {
        for directory in directories {
            durable::sync_directory(&directory)
                .map_err(|e| Error::io(format!("syncing {}", directory.display()), e))?;
        }
        Ok(())
    })
    .await?;
    Ok(bytes)
}

/// Makes a file, and the directories above it that are absent.
fn make_file(path: &Path, length: u64) -> std::io::Result<PositionedFile> {
    if let Some(parent) = path.parent() {
        durable::create_directories(parent)?;
    }
    let file = File::options().write(true).create_new(true).open(path)?;
    let file = PositionedFile::new(file);
    file.set_len(length)?;
    Ok(file)
}

async fn write_file(
    appliance: &Appliance,
    index: usize,
    path: PathBuf,
    runtime: &Handle,
) -> Result<u64> {
    let shown = path.display().to_string();
    let failed = |e| Error::io(format!("writing {shown}"), e);
    // For what runs in another thread.
    let on_disk = |work: Box<dyn FnOnce() -> std::io::Result<()> + Send>| {
        let shown = shown.clone();
        blocking(runtime, move || {
            work().map_err(|e| Error::io(format!("writing {shown}"), e))
        })
    };
    let disk = appliance.block_file(index)?;
    let length = disk.len();
    let out = {
        let shown = shown.clone();
        let make =
            move || make_file(&path, length).map_err(|e| Error::io(format!("writing {shown}"), e));
        Arc::new(blocking(runtime, make).await?)
    };
    let mut at = 0;
    let mut bytes = 0;
    while at < length {
        at = match disk.seek(at, SeekTarget::Data) {
            Ok(data) => data,
            Err(Errno::ENXIO) => break,
            Err(errno) => return Err(failed(errno.into())),
        };
        let end = disk
            .seek(at, SeekTarget::Hole)
            .map_err(|e| failed(e.into()))?;
        while at < end {
            let data = appliance
                .read_at(index, at, (end - at).min(CHUNK) as usize)
                .await?;
            if data.is_empty() {
                break;
            }
            let (from, length) = (at, data.len() as u64);
            let out = out.clone();
            on_disk(Box::new(move || out.write_all_at(&data, from))).await?;
            at += length;
            bytes += length;
        }
    }
    on_disk(Box::new(move || out.sync_data())).await?;
    Ok(bytes)
}
