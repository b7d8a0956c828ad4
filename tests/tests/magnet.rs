//! A machine starts from a magnet link alone, through the real command and the kernel.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use vmtorrent_tests::{Daemon, Host, Reference, assert_same, command, fuse, seed};

const PATIENCE: Duration = Duration::from_secs(90);

/// Publishes an image in many pieces, so that its info dictionary is longer than one piece of ut_metadata, and gives
/// the link that the command prints.
fn publish_for_link(image: &Path, torrent: &Path) -> String {
    let output = command()
        .arg("publish")
        .arg(image)
        .arg("-o")
        .arg(torrent)
        .args(["--piece-size", "16K"])
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    let link = told.lines().find(|line| line.starts_with("magnet:?"));
    link.unwrap_or_else(|| panic!("no link in {told}"))
        .to_owned()
}

fn link(seed: &Daemon) -> String {
    seed.wait_event("ready")["magnet"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn wait_complete(daemon: &Daemon) {
    daemon.wait_for("all of the image", PATIENCE, |event| {
        event["event"] == "progress" && event["present_bytes"] == event["image_bytes"]
    });
}

#[test]
fn a_launch_by_link_shows_the_image_and_a_later_one_needs_no_peer() {
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = Reference::new((20 << 20) + 99, 21);
    image.write_to(&dir.path().join("disk.img"));
    let torrent = dir.path().join("disk.torrent");
    let bare = publish_for_link(&dir.path().join("disk.img"), &torrent);
    let source = seed(&torrent, dir.path(), &[]);
    let full = link(&source);
    assert!(full.starts_with(&bare), "{full}");
    assert!(
        full.contains(&format!("x.pe={}", source.listen())),
        "{full}"
    );

    let host = Host::new(dir.path(), "host");
    let launch = host.launch(Path::new(&full)).fill("full").start();
    let ready = launch.wait_event("ready");
    assert_eq!(ready["info_hash"], source.wait_event("ready")["info_hash"]);
    let disk = host.mount().join("disk.img");
    assert_same(&disk, image.bytes(), "by the full link");
    wait_complete(&launch);
    launch.stop();

    // The bare link and a peer that is named beside it, on another host.
    let other = Host::new(dir.path(), "other");
    let launch = other
        .launch(Path::new(&bare))
        .peer(&source.listen())
        .fill("none")
        .start();
    let shown = other.mount().join("disk.img");
    assert_same(&shown, image.bytes(), "by the bare link");
    launch.stop();
    source.stop();

    // Nobody is there any more, and nobody is named: what was fetched is enough.
    let launch = host.launch(Path::new(&bare)).fill("none").start();
    assert_same(&disk, image.bytes(), "without peers");
    assert_eq!(launch.stop()["fetched_bytes"], 0);
}

#[test]
fn peers_of_a_link_are_found_through_its_tracker() {
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = Reference::new(8 << 20, 22);
    image.write_to(&dir.path().join("disk.img"));
    let torrent = dir.path().join("disk.torrent");
    publish_for_link(&dir.path().join("disk.img"), &torrent);
    let source = seed(&torrent, dir.path(), &["--tracker", "127.0.0.1:0"]);
    let full = link(&source);
    let (rest, _peer) = full.split_once("&x.pe=").unwrap();
    assert!(rest.contains("&tr="), "{full}");

    let host = Host::new(dir.path(), "host");
    let launch = host
        .launch(Path::new(rest))
        .discovery()
        .fill("none")
        .start();
    let disk = host.mount().join("disk.img");
    assert_same(&disk, image.bytes(), "through the tracker");
    launch.stop();
    source.stop();
}
