//! Invariant: a file written here is found whole under its name or not at all, whenever the power goes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Makes a directory and those above it that are absent, so that their names survive a loss of power.
pub(crate) fn create_directories(path: &Path) -> io::Result<()> {
    let absent: Vec<&Path> = path.ancestors().take_while(|p| !p.exists()).collect();
    std::fs::create_dir_all(path)?;
    for made in absent {
        match made.parent() {
            Some(parent) if parent != Path::new("") => sync_directory(parent)?,
            Some(_) => sync_directory(Path::new("."))?,
            None => {}
        }
    }
    Ok(())
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(path)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Replaces the content of `directory/name`.
pub(crate) fn replace_file(
    directory: &Path,
    name: impl AsRef<OsStr>,
    content: &[u8],
) -> io::Result<()> {
    let name = name.as_ref();
    let temporary = temporary(directory, name);
    let replaced = File::create(&temporary).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()?;
        drop(file);
        std::fs::rename(&temporary, directory.join(name))
    });
    if replaced.is_err() {
        // It would take space where there is none.
        let _ = std::fs::remove_file(&temporary);
    }
    replaced?;
    sync_directory(directory)
}

/// Fails where [`replace_file`] would, as far as can be told before.
pub(crate) fn check_place(directory: &Path, name: impl AsRef<OsStr>) -> io::Result<()> {
    let name = name.as_ref();
    if directory.join(name).is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let temporary = temporary(directory, name);
    File::create(&temporary)?;
    std::fs::remove_file(&temporary)
}

fn temporary(directory: &Path, name: &OsStr) -> PathBuf {
    let mut temporary = name.to_owned();
    temporary.push(".new");
    directory.join(temporary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_leaves_nothing_beside_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let taken = directory.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        assert!(replace_file(directory.path(), "taken", b"x").is_err());
        assert!(check_place(directory.path(), "taken").is_err());
        assert!(check_place(&taken.join("absent"), "a").is_err());
        check_place(directory.path(), "free").unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
