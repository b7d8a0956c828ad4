//! Other people's BitTorrent clients, run as they are.
//!
//! Invariant: a client finds peers only where its [`Job`] says (all else, LSD and port mapping too, is off), keeps all of
//! its state in the directory that the job names, and is ended by its process id.

mod aria2;
mod foreign;
mod librqbit;
mod libtorrent;
mod qbittorrent;
mod transmission;

use std::path::{Path, PathBuf};

pub use aria2::Aria2;
pub use foreign::{Foreign, Progress};
pub use librqbit::Librqbit;
pub use libtorrent::Libtorrent;
pub use qbittorrent::Qbittorrent;
pub use transmission::Transmission;

use crate::Node;

/// What a client shall do.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// .torrent files or magnet links.
    pub sources: Vec<String>,
    /// Holds the images under their names, whole, in part or not at all.
    pub directory: PathBuf,
    /// For what the client keeps of its own. It must exist.
    pub state: PathBuf,
    /// Addresses to connect to, where [`Client::dials`].
    pub peers: Vec<String>,
    /// Bytes per second.
    pub upload_limit: Option<u64>,
    /// Talk to nobody in the clear, where the client knows encryption (MSE) at all.
    pub encrypted_only: bool,
    /// Exchange peers with peers; libtorrent and qBittorrent only.
    pub pex: bool,
    /// Be a node of the DHT that begins with this one; libtorrent only.
    pub dht: Option<String>,
    /// Speak uTP in place of TCP; libtorrent only.
    pub utp_only: bool,
}

impl Job {
    /// Serves what `directory` holds of a source and fetches the rest.
    pub fn new(sources: &[&Path], directory: &Path, state: &Path) -> Self {
        Self {
            sources: sources
                .iter()
                .map(|s| s.to_str().unwrap().to_owned())
                .collect(),
            directory: directory.to_owned(),
            state: state.to_owned(),
            ..Self::default()
        }
    }
}

/// A BitTorrent client that is not ours.
pub trait Client: Sync {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// Whether it is here; a test that needs it is skipped otherwise.
    ///
    /// # Panics
    /// If it is not and `VMTORRENT_REQUIRE` is set.
    fn is_here(&self) -> bool;

    /// Whether it can be told the address of a peer; others need a tracker.
    fn dials(&self) -> bool;

    /// Makes a .torrent file of what lies at `path`. One that can't gets ours.
    ///
    /// # Panics
    /// If it fails.
    fn make_torrent(&self, path: &Path, torrent: &Path) {
        crate::publish(path, torrent, &[]);
    }

    /// Starts it on a host, and waits until it listens and knows what it has.
    ///
    /// # Panics
    /// If it does not get that far.
    fn start(&self, node: &Node, job: &Job) -> Foreign;
}

/// Whether a program is on the path.
fn program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}
