//! Profiles from peer to peer, through the real command: who has none gets one of a seed or of another launch.

use std::path::Path;
use std::time::Duration;

use vmtorrent_tests::{Daemon, Scene, fuse, number};

const BLOCK: u64 = Scene::BLOCK;
const PATIENCE: Duration = Duration::from_secs(60);
/// Blocks of the shortest run that is given to peers (`vmtorrent/src/profile/kept.rs`).
const LEAST_BLOCKS: usize = 64;

fn wait_profile_bytes(launch: &Daemon, wanted: impl Fn(u64) -> bool) {
    launch.wait_for("blocks that a profile foretold", PATIENCE, |event| {
        event["profile_bytes"].as_u64().is_some_and(&wanted)
    });
}

#[test]
fn a_launch_by_magnet_link_gets_the_profile_of_the_seed_unless_either_is_told_not_to() {
    if !fuse() {
        return;
    }
    let scene = Scene::new();
    let torrent = scene.publish_with(&scene.record());
    let places = Scene::places();
    let foretold = places.len() as u64 * BLOCK;
    const OFF: &str = "--no-profile-exchange";
    for (name, at_seed, at_launch) in [
        ("both", None, None),
        ("not-the-seed", Some(OFF), None),
        ("not-the-launch", None, Some(OFF)),
    ] {
        let options: Vec<&str> = at_seed.into_iter().collect();
        let source = scene.seed(&torrent, &options);
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
        scene.read(&host, &places);
        let done = launch.stop();
        let (profile, expected) = if exchanged {
            (foretold, places.len() as u64)
        } else {
            (0, 0)
        };
        assert_eq!(number(&done, "profile_bytes"), profile, "{name}: {done}");
        assert_eq!(number(&done, "expected_reads"), expected, "{name}: {done}");
        if exchanged {
            assert_eq!(number(&done, "stalls"), 0, "{name}: {done}");
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
    let source = scene.seed(scene.torrent(), &[]);
    // A run is given once it has so many blocks, and a peer takes one only: with no more of them it gets all or none yet.
    let places = &Scene::places()[..LEAST_BLOCKS];
    let ahead = scene.host("ahead");
    let first = ahead
        .launch(scene.torrent())
        .peer(&source.listen())
        .fill("none")
        .start();
    let behind = scene.host("behind");
    let second = behind
        .launch(scene.torrent())
        .peer(&source.listen())
        .peer(&first.listen())
        .fill("none")
        .start();
    // It is connected before there is anything to give.
    second.wait_for("two peers", PATIENCE, |event| {
        event["peers"].as_u64() == Some(2)
    });
    let (begun, rest) = places.split_at(30);
    scene.read(&behind, begun);
    scene.read(&ahead, places);
    wait_profile_bytes(&second, |bytes| bytes > 0);
    let most = (places.len() - begun.len()) as u64 * BLOCK;
    // Whatever read-ahead guessed right is fetched by it.
    second.wait_for("all that was foretold", PATIENCE, |event| {
        event["fetched_bytes"].as_u64() >= Some(places.len() as u64 * BLOCK)
    });
    scene.read(&behind, rest);
    let done = second.stop();
    assert!(number(&done, "profile_bytes") <= most, "{done}");
    assert_eq!(number(&done, "expected_reads"), rest.len() as u64, "{done}");
    assert_eq!(number(&first.stop(), "profile_bytes"), 0);
    source.stop();
}
