//! Invariant: what is read here is only a hint: any content gives at most [`MAX_PEERS`] addresses to try, and none an
//! error.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::durable::replace_file;

/// Most addresses that are kept.
pub(crate) const MAX_PEERS: usize = 64;
/// Most bytes that are read.
const MAX_BYTES: u64 = 16 * 1024;
const NAME: &str = "peers";

/// The peers of an image that are remembered from one run to the next: `CACHE/INFO-HASH/peers`, an address a line.
#[derive(Debug)]
pub(crate) struct PeersFile {
    directory: PathBuf,
    written: Vec<SocketAddr>,
}

impl PeersFile {
    /// The file of a cache entry.
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            written: Vec::new(),
        }
    }

    /// The remembered addresses. Lines that are none are passed over.
    pub(crate) fn read(&self) -> Vec<SocketAddr> {
        let read = || {
            let mut bytes = Vec::new();
            let file = File::open(self.directory.join(NAME))?;
            file.take(MAX_BYTES).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let addresses = text.lines().filter_map(|line| line.trim().parse().ok());
        addresses.take(MAX_PEERS).collect()
    }

    /// Replaces the addresses, if they are others than before. An empty list changes nothing: old addresses are
    /// better than none.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn write(&mut self, peers: &[SocketAddr]) -> io::Result<()> {
        let mut peers: Vec<SocketAddr> = peers.iter().take(MAX_PEERS).copied().collect();
        peers.sort_unstable();
        if peers.is_empty() || peers == self.written {
            return Ok(());
        }
        let lines: String = peers.iter().map(|p| format!("{p}\n")).collect();
        replace_file(&self.directory, NAME, lines.as_bytes())?;
        self.written = peers;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_and_garbage_gives_what_is_good_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = PeersFile::new(dir.path());
        assert_eq!(file.read(), []);
        let peers: Vec<SocketAddr> = vec![
            "192.0.2.1:6881".parse().unwrap(),
            "[2001:db8::1]:1".parse().unwrap(),
        ];
        file.write(&peers).unwrap();
        assert_eq!(PeersFile::new(dir.path()).read(), peers);
        file.write(&[]).unwrap();
        assert_eq!(file.read(), peers);

        let path = dir.path().join(NAME);
        std::fs::write(
            &path,
            b"\xff\xfe\n 192.0.2.1:6881 \r\nname:80\n1.2.3.4:99999\n\n",
        )
        .unwrap();
        assert_eq!(file.read(), peers[..1]);
        let many: String = (1..60_000).map(|p| format!("10.0.0.1:{p}\n")).collect();
        std::fs::write(&path, many).unwrap();
        assert_eq!(file.read().len(), MAX_PEERS);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(file.read(), []);
        assert!(file.write(&peers[..1]).is_err());
    }

    #[test]
    fn the_same_addresses_are_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = PeersFile::new(dir.path());
        let a: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let b: SocketAddr = "192.0.2.2:2".parse().unwrap();
        file.write(&[a, b]).unwrap();
        std::fs::remove_file(dir.path().join(NAME)).unwrap();
        file.write(&[b, a]).unwrap();
        assert_eq!(file.read(), []);
        file.write(&[a]).unwrap();
        assert_eq!(file.read(), [a]);
    }
}
