//! Invariant: one process writes to `data` and `have` of a cache entry, the one that holds its lock; every other
//! one works in a directory of its own, which is removed with it or by a later holder of the lock.
//!
//! ```text
//! CACHE/INFO-HASH/lock               held for life; its line is "PID ADDRESS:PORT"
//!                 image.torrent
//!                 have               see HaveFile
//!                 data/...           the files of the image, sparse
//!                 follower-PID-N/    lock, data/...
//! ```

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::lock_file::LockFile;
use crate::{Error, Result};

const LOCK: &str = "lock";
const FOLLOWER_PREFIX: &str = "follower-";
/// How often a follower looks for the holder's port, and how long it waits in between.
const PORT_LOOKS: u32 = 50;
const PORT_PAUSE: Duration = Duration::from_millis(10);

/// Where a store keeps its files, and by what right.
pub(super) enum Home {
    /// The cache entry itself.
    Leader(
        #[cfg_attr(
            not(test),
            expect(dead_code, reason = "held for the lock, which ends with it")
        )]
        LockFile,
    ),
    /// A directory beside it.
    Follower(FollowerDirectory),
    /// Files that someone published; they are never written.
    Published,
}

/// A directory that is removed when it is dropped. Its lock tells others that its process lives.
pub(super) struct FollowerDirectory {
    path: PathBuf,
    _lock: LockFile,
}

impl FollowerDirectory {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for FollowerDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a private copy was not removed");
        }
    }
}

/// Takes the lock of a cache entry, or else makes a follower's directory and finds the holder's address.
pub(super) fn settle(
    entry: &Path,
    address: Option<SocketAddr>,
) -> Result<(Home, Option<SocketAddr>)> {
    let lock_path = entry.join(LOCK);
    let failed = |e| Error::io(format!("locking {}", lock_path.display()), e);
    let mut last = None;
    // A holder that just died, or that just came and has not said its address yet, is given some time. Its
    // line counts when it is read twice: the first time it may be that of the holder before.
    for look in 0..PORT_LOOKS {
        if let Some(lock) = LockFile::try_acquire(&lock_path).map_err(failed)? {
            announce(&lock, address).map_err(failed)?;
            remove_stale_followers(entry);
            return Ok((Home::Leader(lock), None));
        }
        let line = LockFile::announced(&lock_path).map_err(failed)?;
        let leader = line.as_deref().and_then(parse_address);
        if leader.is_some() && line == last {
            return Ok((Home::Follower(make_follower(entry)?), leader));
        }
        last = line;
        if look + 1 < PORT_LOOKS {
            thread::sleep(PORT_PAUSE);
        }
    }
    Ok((Home::Follower(make_follower(entry)?), None))
}

/// Writes the line of the lock.
pub(super) fn announce(lock: &LockFile, address: Option<SocketAddr>) -> io::Result<()> {
    let pid = std::process::id();
    match address {
        Some(address) => lock.announce(&format!("{pid} {address}")),
        None => lock.announce(&pid.to_string()),
    }
}

fn parse_address(line: &str) -> Option<SocketAddr> {
    let (_, address) = line.split_once(' ')?;
    address.parse().ok()
}

fn make_follower(entry: &Path) -> Result<FollowerDirectory> {
    let failed = |e| Error::io(format!("making a private copy in {}", entry.display()), e);
    let pid = std::process::id();
    for n in 0..u32::MAX {
        let path = entry.join(format!("{FOLLOWER_PREFIX}{pid}-{n}"));
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(e) => return Err(failed(e)),
        }
        // A new holder of the entry's lock may take it for a stale one before it is locked, and remove it.
        let lock_path = path.join(LOCK);
        match LockFile::try_acquire(&lock_path) {
            Ok(Some(lock)) if lock_path.exists() => {
                return Ok(FollowerDirectory { path, _lock: lock });
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Err(failed(io::ErrorKind::AlreadyExists.into()))
}

/// Removes what followers left behind that were killed.
fn remove_stale_followers(entry: &Path) {
    let Ok(entries) = fs::read_dir(entry) else {
        return;
    };
    for found in entries.flatten() {
        let is_follower = found
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(FOLLOWER_PREFIX));
        if !is_follower {
            continue;
        }
        let path = found.path();
        if let Ok(Some(_lock)) = LockFile::try_acquire(&path.join(LOCK))
            && let Err(error) = fs::remove_dir_all(&path)
        {
            tracing::warn!(path = %path.display(), %error, "a stale private copy was not removed");
        }
    }
}
