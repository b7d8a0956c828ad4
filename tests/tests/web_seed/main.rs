//! Images come from web servers (BEP 19): from a real nginx, and from servers that do what none should.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

mod faults;
mod honest;
mod hostile;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use vmtorrent_tests::{Daemon, Host, Reference, assert_same, publish, seed};

const PATIENCE: Duration = Duration::from_secs(120);

/// An image below `www`, its .torrent file, and a host that launches it.
struct Web {
    dir: TempDir,
    image: Reference,
    host: Host,
}

impl Web {
    fn new(bytes: usize, number: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = Reference::new(bytes, number);
        std::fs::create_dir(dir.path().join("www")).unwrap();
        let web = Self {
            host: Host::new(dir.path(), "host"),
            image,
            dir,
        };
        web.image.write_to(&web.file());
        publish(&web.file(), &web.torrent(), &[]);
        web
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the web server serves.
    fn root(&self) -> PathBuf {
        self.path("www")
    }

    fn file(&self) -> PathBuf {
        self.root().join("disk.img")
    }

    fn torrent(&self) -> PathBuf {
        self.path("disk.torrent")
    }

    /// A peer that has the image, whatever becomes of what the web server has.
    fn peer(&self, options: &[&str]) -> Daemon {
        let own = self.path("peer");
        std::fs::create_dir(&own).unwrap();
        self.image.write_to(&own.join("disk.img"));
        seed(&self.torrent(), &own, options)
    }

    fn disk(&self) -> PathBuf {
        self.host.mount().join("disk.img")
    }

    fn assert_read(&self, what: &str) {
        assert_same(&self.disk(), self.image.bytes(), what);
    }

    /// Reads so many bytes at the beginning of the guest's disk.
    fn read_first(&self, bytes: usize) -> Vec<u8> {
        use std::io::Read;
        let mut buffer = vec![0; bytes];
        let mut file = std::fs::File::open(self.disk()).unwrap();
        file.read_exact(&mut buffer).unwrap();
        buffer
    }
}

fn wait_complete(daemon: &Daemon) {
    daemon.wait_for("all of the image", PATIENCE, |event| {
        event["event"] == "progress" && event["present_bytes"] == event["image_bytes"]
    });
}

fn number(event: &Value, key: &str) -> u64 {
    vmtorrent_tests::number(event, key)
}

/// Asserts that what was fetched came of web servers alone, each byte once.
fn assert_all_from_the_web(done: &Value, image: &Reference) {
    assert_eq!(
        number(done, "fetched_bytes"),
        image.distinct_bytes(),
        "{done}"
    );
    assert_eq!(
        number(done, "web_seed_bytes"),
        image.distinct_bytes(),
        "{done}"
    );
    assert_eq!(number(done, "wasted_bytes"), 0, "{done}");
}
