//! Invariant: the same files and options give the same bytes, on every machine and at every time.

use std::convert::Infallible;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use url::Url;

use super::metainfo::{PIECE_SIZES, PROFILE_KEY};
use super::tree::{self, TreeFile};
use super::{BLOCK_LENGTH, Geometry, Image, hasher};
use crate::bencode::{Encoder, Node};
use crate::profile::Profile;
use crate::{Error, ErrorKind, Result};

/// How an image is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishOptions {
    /// Name of the file or directory in the image; `None`: its name on disk.
    pub name: Option<String>,
    /// Bytes of a piece, a multiple of 16 KiB up to 128 MiB; `None`: [`default_piece_size`].
    pub piece_size: Option<u32>,
    /// Trackers (http, https or udp) in the order in which peers try them.
    pub trackers: Vec<String>,
    /// Web servers (http or https) that hold the same files.
    pub web_seeds: Vec<String>,
    /// Whether peers may come from the trackers only (BEP 27).
    pub private: bool,
}

/// A finished .torrent file.
#[derive(Clone, Debug)]
pub struct Published {
    /// The file's content.
    pub torrent: Bytes,
    /// What it describes.
    pub image: Image,
}

impl Published {
    /// Puts a profile of earlier runs into the .torrent file, beside the description of the image, whose info-hash stays
    /// as it is: whoever launches it then has fetched ahead what those runs read.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is of another image, or larger than [`Profile::MAX_ATTACHED`] as a text.
    pub fn with_profile(self, profile: &Profile) -> Result<Self> {
        let text = Profile::for_image(&self.image, profile)?.to_json();
        if text.len() > Profile::MAX_ATTACHED {
            return Err(invalid(format!(
                "the profile has {} bytes as a text and a .torrent file takes at most {}; merge fewer runs, or shorter ones",
                text.len(),
                Profile::MAX_ATTACHED
            )));
        }
        let torrent = Bytes::from(Encoder::encode(|e| {
            // Keys stand in order, and this one behind all others that are written here.
            let entries = Node::parse(&self.torrent)
                .ok()
                .and_then(|n| n.as_dictionary());
            for (key, value) in entries.into_iter().flatten() {
                if key != PROFILE_KEY.as_bytes() {
                    e.string(key).raw(value.raw());
                }
            }
            e.string(PROFILE_KEY).string(text);
        }));
        let image = Image::from_bytes(torrent.clone())?;
        debug_assert_eq!(image.info_hash(), self.image.info_hash());
        Ok(Self { torrent, image })
    }

    /// Writes the .torrent file in one step: at no time is there half a file at `path`.
    ///
    /// # Errors
    /// Those of the file system, naming the path.
    pub fn write_to(&self, path: &Path) -> Result<()> {
        let failed = |e| {
            Error::io(
                format!(
                    "cannot write {}; check that its directory exists, is writable and has space",
                    path.display()
                ),
                e,
            )
        };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".vmtorrent-").suffix(".tmp");
        // The usual mode of a new file, cut by the umask.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut file = builder.tempfile_in(directory).map_err(failed)?;
        file.write_all(&self.torrent).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(path).map_err(|e| failed(e.error))?;
        Ok(())
    }
}

/// Pieces that an image has at most by default. The engine of rqbit refuses bitfields of few more (131,960).
const DEFAULT_PIECES: u64 = 131_072;

/// The piece size for an image of `total` bytes: 16 KiB up to 2 GiB, then doubling so that there are
/// at most 131,072 pieces (at 128 MiB it ends).
///
/// A piece is what a guest's read waits for at least, since nothing smaller can be verified: small ones make the boot
/// fast, and their number is what bounds the size of the .torrent file (20 bytes each).
pub fn default_piece_size(total: u64) -> u32 {
    let mut size = BLOCK_LENGTH;
    while total.div_ceil(u64::from(size)) > DEFAULT_PIECES && size < *PIECE_SIZES.end() {
        size *= 2;
    }
    size
}

/// Makes a .torrent file of the file or directory at `path`. Blocks and uses all cores.
///
/// The files of a directory come sorted by name, and empty directories are left out. A link is followed
/// at `path` itself, but refused inside the directory.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for options that make no sense and for what an image can't hold
/// (nothing at all, links, devices, names that are not UTF-8), [`ErrorKind::InUse`] when a file
/// changed meanwhile, and those of the file system.
pub fn publish(path: &Path, options: &PublishOptions) -> Result<Published> {
    publish_with_progress(path, options, |_, _| {})
}

/// Like [`publish`]; calls `progress` on this thread with the bytes done and the bytes in all.
///
/// # Errors
/// Those of [`publish`].
pub fn publish_with_progress(
    path: &Path,
    options: &PublishOptions,
    mut progress: impl FnMut(u64, u64),
) -> Result<Published> {
    let never = |done, total| -> ControlFlow<Infallible> {
        progress(done, total);
        ControlFlow::Continue(())
    };
    match publish_until(path, options, never)? {
        ControlFlow::Continue(published) => Ok(published),
    }
}

/// Like [`publish_with_progress`], but `progress` may give it up: `None` then.
///
/// # Errors
/// Those of [`publish`].
pub fn publish_unless(
    path: &Path,
    options: &PublishOptions,
    progress: impl FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Option<Published>> {
    Ok(publish_until(path, options, progress)?.continue_value())
}

fn publish_until<B>(
    path: &Path,
    options: &PublishOptions,
    mut progress: impl FnMut(u64, u64) -> ControlFlow<B>,
) -> Result<ControlFlow<B, Published>> {
    let trackers = check_urls("tracker", &options.trackers, &["http", "https", "udp"])?;
    let web_seeds = check_urls("web seed", &options.web_seeds, &["http", "https"])?;
    let name = match &options.name {
        Some(name) => name.clone(),
        None => name_on_disk(path)?,
    };
    if matches!(name.as_str(), "" | "." | "..")
        || name.contains(['/', '\\', '\0'])
        || name.len() > 255
    {
        return Err(invalid(format!(
            "the name {name:?} can't be that of a file; give a plain name of at most 255 bytes"
        )));
    }
    if let Some(size) = options.piece_size
        && !(PIECE_SIZES.contains(&size) && size.is_multiple_of(BLOCK_LENGTH))
    {
        return Err(invalid(format!(
            "the piece size {size} is no multiple of 16 KiB between 16 KiB and 128 MiB; choose such a one"
        )));
    }

    let (files, single_file) = tree::list(path, &name)?;
    let total = files
        .iter()
        .try_fold(0_u64, |sum, file| sum.checked_add(file.length))
        .filter(|total| *total > 0)
        .ok_or_else(|| {
            invalid(format!(
                "{} holds no bytes to publish; name a file or directory with content",
                path.display()
            ))
        })?;
    let piece_size = options
        .piece_size
        .unwrap_or_else(|| default_piece_size(total));
    let geometry = Geometry::new(total, piece_size).ok_or_else(|| {
        invalid(format!(
            "pieces of {piece_size} bytes are too small for {}; choose larger ones",
            path.display()
        ))
    })?;
    let mut given_up = None;
    let hashes = hasher::hash_pieces(&files, &geometry, &mut |done, total| {
        given_up = progress(done, total).break_value();
        given_up.is_none()
    })?;
    if let Some(given_up) = given_up {
        return Ok(ControlFlow::Break(given_up));
    }

    let info = info(
        &files,
        single_file,
        &name,
        &geometry,
        &hashes,
        options.private,
    );
    let torrent = Bytes::from(Encoder::encode(|e| {
        write_sources(e, &trackers, &info, &web_seeds);
    }));
    // Read back what others will read: a limit that they apply is met here first.
    let image = Image::from_bytes(torrent.clone()).map_err(|e| {
        invalid(format!(
            "{} can't be published so: {}",
            path.display(),
            e.context()
        ))
    })?;
    Ok(ControlFlow::Continue(Published { torrent, image }))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

fn check_urls(what: &str, urls: &[String], schemes: &[&str]) -> Result<Vec<String>> {
    urls.iter()
        .map(|text| match Url::parse(text.trim()) {
            Ok(url) if schemes.contains(&url.scheme()) && url.has_host() => Ok(url.to_string()),
            _ => Err(invalid(format!(
                "the {what} {text:?} is no URL of a kind that works here; give one that begins with {}://",
                schemes.join(":// or ")
            ))),
        })
        .collect()
}

fn name_on_disk(path: &Path) -> Result<String> {
    let unnamed = |why: &str| {
        invalid(format!(
            "{} {why}; give the image a name of its own",
            path.display()
        ))
    };
    let name = match path.file_name() {
        Some(name) => name.to_owned(),
        // `.` and `..` have a name only once they are resolved.
        None => path
            .canonicalize()
            .map_err(|e| Error::io(format!("cannot read {}; check the name", path.display()), e))?
            .file_name()
            .ok_or_else(|| unnamed("has no name"))?
            .to_owned(),
    };
    name.into_string()
        .map_err(|_| unnamed("has a name that is not UTF-8"))
}

fn info(
    files: &[TreeFile],
    single_file: bool,
    name: &str,
    geometry: &Geometry,
    hashes: &[[u8; 20]],
    private: bool,
) -> Vec<u8> {
    Encoder::encode(|e| {
        if !single_file {
            e.string("files").list(|e| {
                for file in files {
                    e.dictionary(|e| {
                        e.string("length").integer(file.length);
                        e.string("path").list(|e| {
                            for name in &file.path {
                                e.string(name);
                            }
                        });
                    });
                }
            });
        }
        if let [file] = files
            && single_file
        {
            e.string("length").integer(file.length);
        }
        e.string("name").string(name);
        e.string("piece length")
            .integer(geometry.nominal_piece_length().into());
        e.string("pieces").string(hashes.as_flattened());
        if private {
            e.string("private").integer(1);
        }
    })
}

fn write_sources(e: &mut Encoder, trackers: &[String], info: &[u8], web_seeds: &[String]) {
    if let Some(first) = trackers.first() {
        e.string("announce").string(first);
    }
    if trackers.len() > 1 {
        e.string("announce-list").list(|e| {
            for tracker in trackers {
                e.list(|e| {
                    e.string(tracker);
                });
            }
        });
    }
    e.string("created by").string("vmtorrent");
    e.string("info").raw(info);
    if !web_seeds.is_empty() {
        e.string("url-list").list(|e| {
            for url in web_seeds {
                e.string(url);
            }
        });
    }
}

#[cfg(test)]
#[cfg(unix)]
#[path = "publish_tests.rs"]
mod tests;
