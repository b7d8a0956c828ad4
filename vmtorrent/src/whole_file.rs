//! Files that a user named and that are made at once: a profile, a report, a picture.
//!
//! Invariant: a file written here is found whole under its name, or not at all.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use crate::durable;
use crate::error::{Error, Result};

/// Writes a file in one step, in the place of one that may be there.
///
/// # Errors
/// Those of the file system, naming the path.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    let written = place(path).and_then(|(at, name)| durable::replace_file(at, name, content));
    written.map_err(|e| failed(path, e))
}

/// Fails where [`write()`] would, as far as can be told before; what `path` holds stays.
///
/// # Errors
/// Those of the file system, naming the path.
pub(crate) fn check(path: &Path) -> Result<()> {
    let checked = place(path).and_then(|(at, name)| durable::check_place(at, name));
    checked.map_err(|e| failed(path, e))
}

/// The directory and the name of a file.
fn place(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match path.file_name() {
        Some(name) => Ok((directory, name)),
        None => Err(io::ErrorKind::IsADirectory.into()),
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            "make its directory, or name another"
        }
        io::ErrorKind::IsADirectory => "name a file",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space",
        _ => "check its directory, or name another",
    };
    let what = format!("cannot write {}; {remedy}", path.display());
    Error::io(what, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_in_one_step_and_nothing_stays_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.svg");
        check(&path).unwrap();
        assert!(!path.exists());
        for text in ["first", "second"] {
            write(&path, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn where_nothing_can_be_written_the_place_and_the_remedy_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("absent/a.svg");
        for message in [
            check(&absent).unwrap_err().to_string(),
            write(&absent, b"x").unwrap_err().to_string(),
        ] {
            assert!(
                message.contains("absent/a.svg") && message.contains("make its directory"),
                "{message}"
            );
        }
        for no_file in [directory.path(), Path::new("/")] {
            let message = check(no_file).unwrap_err().to_string();
            assert!(message.contains("name a file"), "{message}");
        }
    }
}
