//! Invariant: the files come sorted by path, are regular files with UTF-8 names, and are what they were when they were listed.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use vmtorrent_platform::PositionedFile;

use crate::{Error, ErrorKind, Result};

/// Most extents that are kept of one file; what lies behind them counts as data.
#[cfg(unix)]
const MAX_EXTENTS: usize = 1 << 20;
/// Deepest directory that is read.
const MAX_DEPTH: usize = 32;

/// A file to publish.
#[derive(Debug)]
pub(super) struct TreeFile {
    /// Where it is.
    pub(super) location: PathBuf,
    /// Its path in the image.
    pub(super) path: Vec<String>,
    /// Bytes.
    pub(super) length: u64,
    /// The parts that are not known to be zeros, in order.
    pub(super) data: Vec<Range<u64>>,
    modified: Option<SystemTime>,
}

impl TreeFile {
    fn new(location: PathBuf, path: Vec<String>) -> Result<Self> {
        let file = open(&location)?;
        let metadata = metadata(&file, &location)?;
        let length = metadata.len();
        Ok(Self {
            data: data_extents(&file, length),
            location,
            path,
            length,
            modified: metadata.modified().ok(),
        })
    }

    /// Opens the file again, if it is still the one that was listed.
    pub(super) fn open(&self) -> Result<PositionedFile> {
        let file = open(&self.location)?;
        let metadata = metadata(&file, &self.location)?;
        if metadata.len() != self.length || metadata.modified().ok() != self.modified {
            return Err(self.changed());
        }
        Ok(PositionedFile::new(file))
    }

    /// Whether a part of the file holds data, as far as the file system tells.
    pub(super) fn has_data(&self, range: &Range<u64>) -> bool {
        let next = self.data.partition_point(|d| d.end <= range.start);
        self.data.get(next).is_some_and(|d| d.start < range.end)
    }

    /// The error that the file is not what it was.
    pub(super) fn changed(&self) -> Error {
        Error::new(
            ErrorKind::InUse,
            format!(
                "{} changed while it was published; stop what writes to it and publish again",
                self.location.display()
            ),
        )
    }

    /// The error that the file can't be read.
    pub(super) fn unreadable(&self, e: io::Error) -> Error {
        unreadable(&self.location, e)
    }
}

/// The one file, or all files below the directory, at `root`, which stands in the image as `name`.
pub(super) fn list(root: &Path, name: &str) -> Result<(Vec<TreeFile>, bool)> {
    let metadata = std::fs::metadata(root).map_err(|e| unreadable(root, e))?;
    if !metadata.is_dir() {
        let file = TreeFile::new(root.into(), vec![name.to_owned()])?;
        return Ok((vec![file], true));
    }
    let mut found = Vec::new();
    walk(root, &mut Vec::new(), &mut found)?;
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    let files = found
        .into_iter()
        .map(|(path, location)| TreeFile::new(location, path))
        .collect::<Result<_>>()?;
    Ok((files, false))
}

fn walk(
    directory: &Path,
    path: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, PathBuf)>,
) -> Result<()> {
    if path.len() == MAX_DEPTH {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "{} lies more than {MAX_DEPTH} directories deep; publish a flatter directory",
                directory.display()
            ),
        ));
    }
    for entry in std::fs::read_dir(directory).map_err(|e| unreadable(directory, e))? {
        let entry = entry.map_err(|e| unreadable(directory, e))?;
        let location = entry.path();
        let kind = entry.file_type().map_err(|e| unreadable(&location, e))?;
        let name = entry
            .file_name()
            .into_string()
            .ok()
            // A backslash is a separator elsewhere, so that no reader takes such a name.
            .filter(|name| !name.contains('\\'))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidInput,
                    format!(
                        "the name of {} is not UTF-8 or holds a backslash; rename it",
                        location.display()
                    ),
                )
            })?;
        path.push(name);
        if kind.is_dir() {
            walk(&location, path, found)?;
        } else if kind.is_file() {
            found.push((path.clone(), location));
        } else {
            return Err(irregular(&location));
        }
        path.pop();
    }
    Ok(())
}

fn open(location: &Path) -> Result<File> {
    let mut options = File::options();
    options.read(true);
    // A name that became a pipe since it was listed must not hold us up.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        rustix::fs::OFlags::NONBLOCK.bits().cast_signed(),
    );
    options.open(location).map_err(|e| unreadable(location, e))
}

fn metadata(file: &File, location: &Path) -> Result<Metadata> {
    let metadata = file.metadata().map_err(|e| unreadable(location, e))?;
    if !metadata.is_file() {
        return Err(irregular(location));
    }
    Ok(metadata)
}

fn irregular(location: &Path) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!(
            "{} is a symbolic link, a device or another special file; an image holds regular files only: \
             copy its content or take it away",
            location.display()
        ),
    )
}

fn unreadable(location: &Path, e: io::Error) -> Error {
    Error::io(
        format!(
            "cannot read {}; check the name and its permissions",
            location.display()
        ),
        e,
    )
}

/// The parts of a file that are not holes; all of it where the file system can't tell.
#[cfg(unix)]
fn data_extents(file: &File, length: u64) -> Vec<Range<u64>> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;

    let mut extents = Vec::new();
    let mut at = 0;
    while at < length && extents.len() < MAX_EXTENTS {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => return extents,
            Err(_) => break,
        };
        let end = seek(file, SeekFrom::Hole(start)).unwrap_or(length);
        if start >= length || end <= start {
            break;
        }
        extents.push(start..end.min(length));
        at = end;
    }
    if at < length {
        extents.push(at..length);
    }
    extents
}

#[cfg(not(unix))]
fn data_extents(_: &File, length: u64) -> Vec<Range<u64>> {
    vec![0..length]
}
