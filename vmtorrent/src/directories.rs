//! Where things are kept when nobody says: the XDG base directories, or the system's equivalent.

use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};

/// The directory of the pristine copies.
pub(crate) fn cache() -> Result<PathBuf> {
    directories::BaseDirs::new()
        .map(|d| d.cache_dir().join("vmtorrent"))
        .ok_or_else(|| no_home("cache directory", "cache"))
}

/// The directory that holds the state of one appliance.
pub(crate) fn state(name: &str) -> Result<PathBuf> {
    directories::BaseDirs::new()
        .map(|d| {
            d.state_dir()
                .unwrap_or_else(|| d.data_local_dir())
                .join("vmtorrent")
                .join(name)
        })
        .ok_or_else(|| no_home("state directory", "state"))
}

/// The directory of what a user configures.
#[cfg(feature = "vmm")]
pub(crate) fn config() -> Option<PathBuf> {
    directories::BaseDirs::new().map(|d| d.config_dir().join("vmtorrent"))
}

fn no_home(what: &str, option: &str) -> Error {
    let text = format!(
        "no home directory is known to put the {what} in: set HOME, or name it with the option `{option}`"
    );
    Error::new(ErrorKind::NotFound, text)
}
