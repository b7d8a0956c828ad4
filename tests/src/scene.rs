//! Invariant: a guest reads the same places in the same order wherever it runs, and each is a piece of its own.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Daemon, Host, Random, publish, seed};

/// An image without zeros and duplicates in pieces of one block, its .torrent file, and a guest that reads it at
/// [`places`](Scene::places): what the tests of profiles play on.
pub struct Scene {
    dir: TempDir,
    image: Vec<u8>,
    torrent: PathBuf,
}

impl Scene {
    /// Bytes of a block, and of a piece.
    pub const BLOCK: u64 = 16 << 10;
    /// Blocks of the image.
    pub const BLOCKS: u64 = (32 << 20) / Self::BLOCK;

    /// Makes and publishes the image.
    #[expect(clippy::new_without_default, reason = "it writes files")]
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let scene = Self {
            image: Random::new(4).bytes((Self::BLOCKS * Self::BLOCK) as usize),
            torrent: dir.path().join("disk.torrent"),
            dir,
        };
        std::fs::write(scene.path("disk.img"), &scene.image).unwrap();
        scene.publish(&scene.torrent, &[]);
        scene
    }

    /// What the image holds.
    pub fn image(&self) -> &[u8] {
        &self.image
    }

    /// Its .torrent file.
    pub fn torrent(&self) -> &Path {
        &self.torrent
    }

    /// A name in the directory of the scene, which goes at the end.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Places at which the guest reads, in this order, none twice.
    pub fn places() -> Vec<u64> {
        (0..200).map(|n| (n * 389 + 7) % Self::BLOCKS).collect()
    }

    /// Seeds the image.
    pub fn seed(&self, torrent: &Path, options: &[&str]) -> Daemon {
        seed(torrent, self.dir.path(), options)
    }

    /// A host that launches it.
    pub fn host(&self, name: &str) -> Host {
        Host::new(self.dir.path(), name)
    }

    /// Reads blocks of a host's disk one after the other, as a guest does: they must be those of the image.
    pub fn read(&self, host: &Host, places: &[u64]) {
        let file = File::open(Self::disk(host)).unwrap();
        let mut buffer = vec![0; Self::BLOCK as usize];
        for place in places {
            let offset = place * Self::BLOCK;
            file.read_exact_at(&mut buffer, offset).unwrap();
            let right = &self.image[offset as usize..][..buffer.len()];
            assert!(buffer == right, "wrong bytes at block {place}");
        }
    }

    /// The disk of a host that runs it.
    pub fn disk(host: &Host) -> PathBuf {
        host.mount().join("disk.img")
    }

    /// Launches it once from a seed, and gives the profile of what its guest read.
    pub fn record(&self) -> PathBuf {
        let source = self.seed(&self.torrent, &[]);
        let recorded = self.path("run.json");
        let host = self.host("recorder");
        let launch = host
            .launch(&self.torrent)
            .peer(&source.listen())
            .fill("none")
            .option("--record", &recorded)
            .start();
        self.read(&host, &Self::places());
        launch.stop();
        source.stop();
        recorded
    }

    /// The same image with a profile in its .torrent file.
    pub fn publish_with(&self, profile: &Path) -> PathBuf {
        let torrent = self.path("with-profile.torrent");
        self.publish(&torrent, &["--profile", profile.to_str().unwrap()]);
        torrent
    }

    fn publish(&self, torrent: &Path, options: &[&str]) {
        let options = [&["--piece-size", "16K"], options].concat();
        publish(&self.path("disk.img"), torrent, &options);
    }
}

/// A number of an event.
pub fn number(event: &serde_json::Value, key: &str) -> u64 {
    event[key]
        .as_u64()
        .unwrap_or_else(|| panic!("no {key} in {event}"))
}
