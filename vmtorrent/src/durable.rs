//! Invariant: a file written here is found whole under its name or not at all, whenever the power goes.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

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
    let mut temporary = name.to_owned();
    temporary.push(".new");
    let temporary = directory.join(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&temporary, directory.join(name))?;
    sync_directory(directory)
}
