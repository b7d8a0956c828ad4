//! Invariant: a file written here is found whole under its name, or not at all.

use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::failure::Failure;

/// Writes a file in one step, in the place of one that may be there.
pub fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let written = || {
        let mut file = beside(path)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)
    };
    written().map(drop).map_err(|e| failed(path, &e))
}

/// Fails where [`write()`] would, as far as can be told before.
pub fn check(path: &Path) -> Result<(), Failure> {
    if path.is_dir() {
        return Err(failed(path, &io::ErrorKind::IsADirectory.into()));
    }
    beside(path).map(drop).map_err(|e| failed(path, &e))
}

/// A file in the same directory, which goes unless it gets its name.
fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As for any file: the umask takes away what it should.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(directory)
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            "make its directory, or name another"
        }
        io::ErrorKind::IsADirectory => "name a file",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space",
        _ => "check its directory, or name another",
    };
    Failure::new(format!(
        "cannot write {}: {error}; {remedy}",
        path.display()
    ))
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
                message.contains("absent/a.svg") && message.contains("directory"),
                "{message}"
            );
        }
        let message = check(directory.path()).unwrap_err().to_string();
        assert!(message.contains("name a file"), "{message}");
    }
}
