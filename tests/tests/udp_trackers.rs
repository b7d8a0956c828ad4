//! Peers find each other through UDP trackers: opentracker, and our own.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use vmtorrent_tests::{Host, PIECE, Reference, assert_same, command, fuse, require, seed};

/// A port that was free a moment ago, for TCP and UDP: the torrent names the tracker before there is one.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address.port();
        }
    }
}

/// Publishes, and gives the info-hash as it is told.
fn publish(image: &Path, torrent: &Path, tracker: &str) -> String {
    let output = command()
        .arg("publish")
        .arg(image)
        .arg("-o")
        .arg(torrent)
        .args(["--tracker", tracker])
        .args(["--piece-size", &PIECE.to_string()])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let (_, hash) = told.split_once("info-hash ").unwrap();
    hash.trim().to_owned()
}

/// A tracker that ends with the test.
struct OpenTracker(Child);

impl OpenTracker {
    /// Debian's build tracks only the images that are listed.
    fn start(directory: &Path, port: u16, info_hash: &str) -> Option<Self> {
        let installed = Command::new("opentracker")
            .arg("-h")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok();
        if !require(installed, "opentracker") {
            return None;
        }
        std::fs::create_dir(directory).unwrap();
        std::fs::write(directory.join("list"), format!("{info_hash}\n")).unwrap();
        // Started by root it goes on as another user.
        std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
        let port = port.to_string();
        let child = Command::new("opentracker")
            .args([
                "-i",
                "127.0.0.1",
                "-p",
                &port,
                "-P",
                &port,
                "-d",
                ".",
                "-w",
                "list",
            ])
            .current_dir(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self(child))
    }
}

impl Drop for OpenTracker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_launch_finds_its_seed_through_opentracker_over_udp() {
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("disk.img");
    let image = Reference::new((1 << 20) + 5, 81);
    image.write_to(&original);
    let torrent = dir.path().join("disk.torrent");
    let port = free_port();
    let info_hash = publish(
        &original,
        &torrent,
        &format!("udp://127.0.0.1:{port}/announce"),
    );
    let Some(_tracker) = OpenTracker::start(&dir.path().join("tracker"), port, &info_hash) else {
        return;
    };
    let source = seed(&torrent, dir.path(), &[]);
    let host = Host::new(dir.path(), "host");
    let launched = host.launch(&torrent).discovery().start();
    let when = "through opentracker";
    assert_same(&host.mount().join("disk.img"), image.bytes(), when);
    launched.stop();
    source.stop();
}

#[test]
fn a_launch_finds_its_seed_through_our_own_tracker_over_udp() {
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("disk.img");
    let image = Reference::new((1 << 20) + 5, 82);
    image.write_to(&original);
    let torrent = dir.path().join("disk.torrent");
    let tracker = format!("127.0.0.1:{}", free_port());
    publish(&original, &torrent, &format!("udp://{tracker}/announce"));
    let source = seed(&torrent, dir.path(), &["--tracker", &tracker]);
    let host = Host::new(dir.path(), "host");
    let launched = host.launch(&torrent).discovery().start();
    let when = "through our own tracker";
    assert_same(&host.mount().join("disk.img"), image.bytes(), when);
    launched.stop();
    source.stop();
}
