//! Profiles from peer to peer, through the real command: who has none gets one of a seed or of another launch.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use vmtorrent_tests::{Daemon, Host, Random, fuse, publish, seed};

const BLOCK: u64 = 16 << 10;
const BLOCKS: u64 = (32 << 20) / BLOCK;
const PATIENCE: Duration = Duration::from_secs(60);

/// Places at which a guest reads, in this order, none twice.
fn places() -> Vec<u64> {
    (0..200).map(|n| (n * 389 + 7) % BLOCKS).collect()
}

fn read(host: &Host, image: &[u8], places: &[u64]) {
    let file = File::open(host.mount().join("disk.img")).unwrap();
    let mut buffer = vec![0; BLOCK as usize];
    for place in places {
        let offset = place * BLOCK;
        file.read_exact_at(&mut buffer, offset).unwrap();
        let right = &image[offset as usize..][..buffer.len()];
        assert!(buffer == right, "wrong bytes at block {place}");
    }
}

fn bytes(event: &Value, key: &str) -> u64 {
    event[key]
        .as_u64()
        .unwrap_or_else(|| panic!("no {key} in {event}"))
}

fn wait_profile_bytes(launch: &Daemon, wanted: impl Fn(u64) -> bool) {
    launch.wait_for("blocks that a profile foretold", PATIENCE, |event| {
        event["profile_bytes"].as_u64().is_some_and(&wanted)
    });
}

/// An image without zeros and duplicates, and its .torrent file.
struct Scene {
    dir: tempfile::TempDir,
    image: Vec<u8>,
    torrent: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = Random::new(9).bytes((BLOCKS * BLOCK) as usize);
        std::fs::write(dir.path().join("disk.img"), &image).unwrap();
        let torrent = dir.path().join("disk.torrent");
        publish(
            &dir.path().join("disk.img"),
            &torrent,
            &["--piece-size", "16K"],
        );
        Self {
            dir,
            image,
            torrent,
        }
    }

    fn host(&self, name: &str) -> Host {
        Host::new(self.dir.path(), name)
    }

    /// The same image, with what a launch read of it in the .torrent file.
    fn publish_with_profile(&self) -> PathBuf {
        let source = seed(&self.torrent, self.dir.path(), &[]);
        let recorded = self.dir.path().join("run.json");
        let host = self.host("recorder");
        let launch = host
            .launch(&self.torrent)
            .peer(&source.listen())
            .fill("none")
            .option("--record", &recorded)
            .start();
        read(&host, &self.image, &places());
        launch.stop();
        source.stop();
        let torrent = self.dir.path().join("with-profile.torrent");
        publish(
            &self.dir.path().join("disk.img"),
            &torrent,
            &[
                "--piece-size",
                "16K",
                "--profile",
                recorded.to_str().unwrap(),
            ],
        );
        torrent
    }
}

#[test]
fn a_launch_by_magnet_link_gets_the_profile_of_the_seed_unless_either_is_told_not_to() {
    if !fuse() {
        return;
    }
    let scene = Scene::new();
    let torrent = scene.publish_with_profile();
    let places = places();
    let foretold = places.len() as u64 * BLOCK;
    const OFF: &str = "--no-profile-exchange";
    for (name, at_seed, at_launch) in [
        ("both", None, None),
        ("not-the-seed", Some(OFF), None),
        ("not-the-launch", None, Some(OFF)),
    ] {
        let options: Vec<&str> = at_seed.into_iter().collect();
        let source = seed(&torrent, scene.dir.path(), &options);
        let link = source.wait_event("ready")["magnet"]
            .as_str()
            .unwrap()
            .to_owned();
        let host = scene.host(name);
        let mut launch = host.launch(Path::new(&link)).fill("none");
        if let Some(off) = at_launch {
            launch = launch.flag(off);
        }
        let launch = launch.start();
        let exchanged = at_seed.or(at_launch).is_none();
        if exchanged {
            // Nobody reads anything yet.
            wait_profile_bytes(&launch, |bytes| bytes == foretold);
        }
        read(&host, &scene.image, &places);
        let done = launch.stop();
        let (profile, expected) = if exchanged {
            (foretold, places.len() as u64)
        } else {
            (0, 0)
        };
        assert_eq!(bytes(&done, "profile_bytes"), profile, "{name}: {done}");
        assert_eq!(bytes(&done, "expected_reads"), expected, "{name}: {done}");
        if exchanged {
            assert_eq!(bytes(&done, "stalls"), 0, "{name}: {done}");
        }
        source.stop();
    }
}

#[test]
fn a_launch_whose_guest_runs_already_gets_what_another_guest_read_and_does_not_fetch_the_rest() {
    if !fuse() {
        return;
    }
    let scene = Scene::new();
    let source = seed(&scene.torrent, scene.dir.path(), &[]);
    let places = places();
    let ahead = scene.host("ahead");
    let first = ahead
        .launch(&scene.torrent)
        .peer(&source.listen())
        .fill("none")
        .start();
    let behind = scene.host("behind");
    let second = behind
        .launch(&scene.torrent)
        .peer(&source.listen())
        .peer(&first.listen())
        .fill("none")
        .start();
    // It is connected before there is anything to give.
    second.wait_for("two peers", PATIENCE, |event| {
        event["peers"].as_u64() == Some(2)
    });
    let (begun, rest) = places.split_at(30);
    read(&behind, &scene.image, begun);
    read(&ahead, &scene.image, &places);
    wait_profile_bytes(&second, |bytes| bytes > 0);
    let most = (places.len() - begun.len()) as u64 * BLOCK;
    // Whatever read-ahead guessed right is fetched by it.
    second.wait_for("all that was foretold", PATIENCE, |event| {
        event["fetched_bytes"].as_u64() >= Some(places.len() as u64 * BLOCK)
    });
    read(&behind, &scene.image, rest);
    let done = second.stop();
    assert!(bytes(&done, "profile_bytes") <= most, "{done}");
    assert_eq!(bytes(&done, "expected_reads"), rest.len() as u64, "{done}");
    assert_eq!(bytes(&first.stop(), "profile_bytes"), 0);
    source.stop();
}
