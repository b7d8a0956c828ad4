//! Invariant: what a guest reads is compared with what was published, each time.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use vmtorrent_tests::scripted_peer::{
    Connection, Content, ScriptedPeer, parse_address, parse_info_hash,
};
use vmtorrent_tests::{Daemon, Host, PIECE, Reference, fuse, memory, publish, seed};

/// What one hostile peer may cost in memory at most: buffers of both directions, a longest message, and slack of the
/// allocator in a development build.
pub const PEER_MEMORY: u64 = 6 << 20;

/// How long an honest peer lets a request wait: so that hostile ones, which answer at once, are asked too.
pub const DELAY: Duration = Duration::from_millis(4);

/// A published image.
pub struct Scene {
    dir: TempDir,
    torrent: PathBuf,
    image: Arc<Reference>,
    pub content: Content,
}

impl Scene {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = Arc::new(Reference::new((6 << 20) + 1_234, 66));
        let disk = dir.path().join("disk.img");
        image.write_to(&disk);
        let torrent = dir.path().join("disk.torrent");
        publish(&disk, &torrent, &[]);
        let content = Content::new(Arc::clone(&image));
        Self {
            dir,
            torrent,
            image,
            content,
        }
    }

    /// A scene in which a guest can be launched; `None` where there is no FUSE.
    pub fn with_guests() -> Option<Self> {
        fuse().then(Self::new)
    }

    /// A peer that serves everything.
    pub fn honest(&self) -> ScriptedPeer {
        ScriptedPeer::honest(&self.content, DELAY)
    }

    /// `vmtorrent seed` on the image.
    pub fn seed(&self) -> Seed {
        Seed {
            daemon: seed(&self.torrent, self.dir.path(), &[]),
        }
    }

    /// `vmtorrent launch` with these peers, which fetches only what is read; waits until it has connected to all.
    pub fn launch(&self, peers: &[&ScriptedPeer]) -> Guest {
        let host = Host::new(self.dir.path(), "host");
        let launch = host.launch(&self.torrent).fill("none");
        let launch = launch.option("--read-timeout", "30");
        let launch = peers
            .iter()
            .fold(launch, |launch, peer| launch.peer(&peer.address()));
        let daemon = launch.start();
        let file = File::open(host.mount().join("disk.img")).unwrap();
        for peer in peers {
            peer.tally().wait(ScriptedPeer::BEGUN, 1);
        }
        Guest {
            daemon,
            file: Some(file),
            image: Arc::clone(&self.image),
        }
    }
}

/// A process under test.
pub trait Process {
    fn daemon(&self) -> &Daemon;

    /// Where peers connect.
    fn listen(&self) -> SocketAddr {
        parse_address(&self.daemon().listen())
    }

    fn info_hash(&self) -> [u8; 20] {
        let ready = self.daemon().wait_event("ready");
        parse_info_hash(ready["info_hash"].as_str().unwrap())
    }

    /// A connection to it after the handshakes; `number` tells peers apart.
    fn connect(&self, number: u32) -> Connection {
        Connection::greet(self.listen(), self.info_hash(), number).unwrap()
    }

    /// Runs `attack`, and asserts that it did not cost more memory than `bound` bytes at any moment.
    fn bounded<T>(&self, bound: u64, attack: impl FnOnce() -> T) -> T {
        let pid = self.daemon().pid();
        let before = memory::resident(pid);
        memory::reset_peak(pid);
        let result = attack();
        let grown = memory::peak(pid).saturating_sub(before);
        eprintln!("memory grew by {} KiB", grown >> 10);
        assert!(
            grown <= bound,
            "memory grew by {} KiB, more than {} KiB",
            grown >> 10,
            bound >> 10
        );
        result
    }
}

/// Nothing that a peer does may make a thread panic, or the process end.
fn end(daemon: Daemon) {
    let said = daemon.stderr();
    assert!(!said.contains("panicked"), "{said}");
    daemon.stop();
}

/// A `vmtorrent launch`, and its disk as the guest sees it.
pub struct Guest {
    daemon: Daemon,
    file: Option<File>,
    image: Arc<Reference>,
}

impl Process for Guest {
    fn daemon(&self) -> &Daemon {
        &self.daemon
    }
}

impl Guest {
    /// Reads one piece.
    pub fn read(&self, piece: usize) {
        let start = piece * PIECE;
        let end = (start + PIECE).min(self.image.bytes().len());
        let mut found = vec![0; end - start];
        self.file
            .as_ref()
            .unwrap()
            .read_exact_at(&mut found, start as u64)
            .unwrap_or_else(|e| panic!("piece {piece}: {e}; it says: {}", self.daemon.stderr()));
        let right = found == self.image.bytes()[start..end];
        assert!(right, "piece {piece} is not as published");
    }

    /// Reads every third piece. So nothing is read ahead, and much stays missing: who has everything leaves its peers,
    /// and rightly so.
    pub fn read_many(&self) {
        for piece in (0..self.image.bytes().len() / PIECE).step_by(3) {
            self.read(piece);
        }
    }

    /// Ends it and looks whether anything panicked.
    pub fn end(mut self) {
        self.file = None;
        end(self.daemon);
    }
}

/// A `vmtorrent seed`.
pub struct Seed {
    daemon: Daemon,
}

impl Process for Seed {
    fn daemon(&self) -> &Daemon {
        &self.daemon
    }
}

impl Seed {
    /// Ends it and looks whether anything panicked.
    pub fn end(self) {
        end(self.daemon);
    }
}
