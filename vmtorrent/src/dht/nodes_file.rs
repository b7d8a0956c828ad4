//! Invariant: what is read here is only a hint: any content gives at most [`MAX_NODES`] addresses to try, and none an
//! error.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::durable::replace_file;

/// Most addresses that are kept.
const MAX_NODES: usize = 100;
/// Most bytes that are read.
const MAX_BYTES: u64 = 16 * 1024;
const NAME: &str = "dht-nodes";

/// The nodes that a later session begins with: `CACHE/dht-nodes`, an address a line.
#[derive(Clone, Debug)]
pub(super) struct NodesFile {
    cache: PathBuf,
}

impl NodesFile {
    pub(super) fn new(cache: &Path) -> Self {
        Self {
            cache: cache.to_owned(),
        }
    }

    pub(super) fn exists(&self) -> bool {
        self.cache.join(NAME).is_file()
    }

    /// The remembered addresses. Lines that are none are passed over.
    pub(super) fn read(&self) -> Vec<SocketAddr> {
        let read = || {
            let mut bytes = Vec::new();
            let file = File::open(self.cache.join(NAME))?;
            file.take(MAX_BYTES).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let addresses = text.lines().filter_map(|line| line.trim().parse().ok());
        addresses.take(MAX_NODES).collect()
    }

    /// Replaces the addresses. An empty list changes nothing: old addresses are better than none.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn write(&self, nodes: &[SocketAddr]) -> io::Result<()> {
        if nodes.is_empty() {
            return Ok(());
        }
        let lines = nodes.iter().take(MAX_NODES).map(|n| format!("{n}\n"));
        let lines: String = lines.collect();
        std::fs::create_dir_all(&self.cache)?;
        replace_file(&self.cache, NAME, lines.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_and_garbage_gives_what_is_good_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = NodesFile::new(&dir.path().join("made"));
        assert_eq!(file.read(), []);
        let nodes: Vec<SocketAddr> = vec![
            "192.0.2.1:6881".parse().unwrap(),
            "[2001:db8::1]:1".parse().unwrap(),
        ];
        file.write(&nodes).unwrap();
        file.write(&[]).unwrap();
        assert_eq!(file.read(), nodes);
        let path = dir.path().join("made").join(NAME);
        std::fs::write(&path, b"\xff\n 192.0.2.1:6881 \nname:80\n1.2.3.4:99999\n").unwrap();
        assert_eq!(file.read(), nodes[..1]);
        let many: String = (1..60_000).map(|p| format!("10.0.0.1:{p}\n")).collect();
        std::fs::write(&path, many).unwrap();
        assert_eq!(file.read().len(), MAX_NODES);
    }
}
