//! libtorrent, the most widespread engine, understands us and we understand it.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use vmtorrent_tests::{
    Daemon, Host, PIECE, Random, Reference, assert_same, fuse, publish, require, seed,
};

const PATIENCE: Duration = Duration::from_secs(90);

/// Debian's own Python: python3-libtorrent is built for that one.
fn python() -> Command {
    Command::new("/usr/bin/python3")
}

fn libtorrent() -> bool {
    let found = python()
        .args(["-c", "import libtorrent"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    require(found, "python3-libtorrent")
}

fn peer_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/libtorrent_peer.py")
}

fn run_peer(torrent: &Path, directory: &Path, peer: Option<&str>) -> Daemon {
    let mut command = python();
    command
        .arg(peer_script())
        .arg("run")
        .arg(torrent)
        .arg(directory);
    if let Some(peer) = peer {
        command.args(["--peer", peer]);
    }
    let daemon = Daemon::spawn(command, &[]);
    daemon.wait_event("ready");
    daemon
}

fn wait_complete(daemon: &Daemon) {
    daemon.wait_for("all of the image", PATIENCE, |event| {
        event["event"] == "progress" && event["present_bytes"] == event["image_bytes"]
    });
}

/// A directory with files that share pieces, one of them empty.
fn several_files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    std::fs::create_dir_all(directory.join("sub")).unwrap();
    let mut random = Random::new(17);
    let files: Vec<_> = [
        ("a.img", 5 * PIECE + 77),
        ("b.empty", 0),
        ("sub/c.img", 9 * PIECE),
        ("z.small", 3),
    ]
    .map(|(name, size)| (PathBuf::from(name), random.bytes(size)))
    .into();
    for (name, content) in &files {
        std::fs::write(directory.join(name), content).unwrap();
    }
    files
}

#[test]
fn libtorrent_downloads_what_we_publish_and_seed() {
    if !libtorrent() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = Reference::new((12 << 20) + 99, 12);
    image.write_to(&dir.path().join("disk.img"));
    let files = several_files(&dir.path().join("appliance"));

    for name in ["disk.img", "appliance"] {
        let torrent = dir.path().join(name).with_extension("torrent");
        publish(&dir.path().join(name), &torrent, &[]);
        let source = seed(&torrent, dir.path(), &[]);
        let target = dir.path().join("downloaded");
        std::fs::create_dir_all(&target).unwrap();
        let peer = run_peer(&torrent, &target, Some(&source.listen()));
        assert_eq!(
            peer.wait_event("ready")["info_hash"],
            source.wait_event("ready")["info_hash"]
        );
        wait_complete(&peer);
        peer.stop();
        source.stop();
    }
    let downloaded = dir.path().join("downloaded");
    assert_same(
        &downloaded.join("disk.img"),
        image.bytes(),
        "libtorrent's copy",
    );
    for (name, content) in files {
        let copy = downloaded.join("appliance").join(name);
        assert_same(&copy, &content, "libtorrent's copy");
    }
}

#[test]
fn we_launch_from_what_libtorrent_made_and_seeds() {
    if !libtorrent() || !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = Reference::new((12 << 20) + 99, 13);
    image.write_to(&dir.path().join("disk.img"));
    let files = several_files(&dir.path().join("appliance"));

    for name in ["disk.img", "appliance"] {
        let torrent = dir.path().join(name).with_extension("torrent");
        let made = python()
            .arg(peer_script())
            .arg("make")
            .arg(dir.path().join(name))
            .arg(&torrent)
            .status()
            .unwrap();
        assert!(made.success(), "libtorrent makes no torrent of {name}");
        let peer = run_peer(&torrent, dir.path(), None);
        let host = Host::new(dir.path(), &format!("host-{name}"));
        let launch = host
            .launch(&torrent)
            .peer(&peer.listen())
            .fill("full")
            .start();
        let ready = launch.wait_event("ready");
        let shown = Path::new(ready["dir"].as_str().unwrap());
        assert_eq!(ready["info_hash"], peer.wait_event("ready")["info_hash"]);
        wait_complete(&launch);
        if name == "disk.img" {
            assert_same(&shown.join(name), image.bytes(), "our mount");
        } else {
            for (file, content) in &files {
                assert_same(&shown.join(file), content, "our mount");
            }
        }
        let done = launch.stop();
        assert_eq!(done["wasted_bytes"], 0);
        peer.stop();
    }
}
