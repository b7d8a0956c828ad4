//! Profiles: recorded, kept, published, and put to use.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use vmtorrent_tests::{Host, Random, assert_same, command, fuse, publish, seed};

const BLOCK: u64 = 16 << 10;
const BLOCKS: u64 = (32 << 20) / BLOCK;

/// Places at which a guest reads, in this order, none twice.
fn places() -> Vec<u64> {
    (0..200).map(|n| (n * 389 + 7) % BLOCKS).collect()
}

/// Reads blocks one after the other with a little time in between, as a guest does.
fn read(disk: &Path, image: &[u8], places: &[u64]) {
    let file = File::open(disk).unwrap();
    let mut buffer = vec![0; BLOCK as usize];
    for place in places {
        let offset = place * BLOCK;
        file.read_exact_at(&mut buffer, offset).unwrap();
        let right = &image[offset as usize..][..buffer.len()];
        assert!(buffer == right, "wrong bytes at block {place}");
    }
}

fn profile(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The blocks of the only file, by their mean time.
fn blocks(profile: &Value) -> Vec<u64> {
    let accesses = profile["files"][0]["accesses"].as_array().unwrap();
    accesses.iter().map(|a| a[0].as_u64().unwrap()).collect()
}

fn bytes(event: &Value, key: &str) -> u64 {
    event[key]
        .as_u64()
        .unwrap_or_else(|| panic!("no {key} in {event}"))
}

/// An image without zeros and duplicates, its .torrent file and a seed.
struct Scene {
    dir: tempfile::TempDir,
    image: Vec<u8>,
    torrent: std::path::PathBuf,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut random = Random::new(4);
        let image = random.bytes((BLOCKS * BLOCK) as usize);
        let original = dir.path().join("disk.img");
        std::fs::write(&original, &image).unwrap();
        let torrent = dir.path().join("disk.torrent");
        publish(&original, &torrent, &["--piece-size", "16K"]);
        Self {
            dir,
            image,
            torrent,
        }
    }

    fn original(&self) -> std::path::PathBuf {
        self.dir.path().join("disk.img")
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().unwrap()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "it never came to be that {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_run_is_recorded_while_it_lasts_and_a_killed_launch_leaves_it() {
    if !fuse() {
        return;
    }
    let scene = Scene::new();
    let source = seed(&scene.torrent, scene.dir.path(), &[]);
    let host = Host::new(scene.dir.path(), "host");
    let recorded = scene.path("run.json");
    let launch = host
        .launch(&scene.torrent)
        .peer(&source.listen())
        .fill("none")
        .option("--record", &recorded)
        .start();
    // It is there at once, so that a place where it can't be is found out at once.
    assert_eq!(blocks(&profile(&recorded)), [0_u64; 0]);
    let disk = host.mount().join("disk.img");
    let places = places();
    read(&disk, &scene.image, &places);
    // Read again, which is no news, and not by the block.
    read(&disk, &scene.image, &places[..50]);
    wait_until("all was recorded", || {
        blocks(&profile(&recorded)).len() == places.len()
    });
    launch.kill_9();
    let run = profile(&recorded);
    assert_eq!(blocks(&run), places);
    assert_eq!(run["runs"], 1);
    // The cache keeps it too, and the next launch expects all of it.
    let launch = host
        .launch(&scene.torrent)
        .peer(&source.listen())
        .fill("none")
        .start();
    read(&disk, &scene.image, &places);
    let done = launch.stop();
    assert_eq!(
        bytes(&done, "expected_reads"),
        places.len() as u64,
        "{done}"
    );
    source.stop();
}

#[test]
fn what_a_profile_foretells_is_there_before_it_is_read_and_nothing_else_is_fetched() {
    if !fuse() {
        return;
    }
    let scene = Scene::new();
    let source = seed(&scene.torrent, scene.dir.path(), &[]);
    let recorded = scene.path("run.json");
    let first = Host::new(scene.dir.path(), "first");
    let launch = first
        .launch(&scene.torrent)
        .peer(&source.listen())
        .fill("none")
        .option("--record", &recorded)
        .start();
    let places = places();
    read(&first.mount().join("disk.img"), &scene.image, &places);
    launch.stop();

    let foretold = places.len() as u64 * BLOCK;
    // Once named, once put into the .torrent file by its publisher.
    let with_it = scene.path("with-it.torrent");
    let at = recorded.to_str().unwrap();
    publish(
        &scene.original(),
        &with_it,
        &["--piece-size", "16K", "--profile", at],
    );
    for (name, torrent, options) in [
        ("named", &scene.torrent, vec!["--profile", at]),
        ("published", &with_it, vec![]),
    ] {
        let host = Host::new(scene.dir.path(), name);
        let mut launch = host.launch(torrent).peer(&source.listen()).fill("none");
        for pair in options.chunks(2) {
            launch = launch.option(pair[0], pair[1]);
        }
        let launch = launch.start();
        // Nobody reads anything yet.
        launch.wait_for("the profile's blocks", Duration::from_secs(30), |event| {
            event["profile_bytes"].as_u64() == Some(foretold)
        });
        let disk = host.mount().join("disk.img");
        read(&disk, &scene.image, &places);
        let done = launch.stop();
        assert_eq!(bytes(&done, "fetched_bytes"), foretold, "{name}: {done}");
        assert_eq!(bytes(&done, "stalls"), 0, "{name}: {done}");
        assert_eq!(bytes(&done, "first_reads"), places.len() as u64, "{name}");
        assert_eq!(
            bytes(&done, "expected_reads"),
            places.len() as u64,
            "{name}"
        );
    }
    source.stop();
}

#[test]
fn a_host_keeps_what_its_launches_read_unless_it_is_told_not_to() {
    if !fuse() {
        return;
    }
    let scene = Scene::new();
    let source = seed(&scene.torrent, scene.dir.path(), &[]);
    let host = Host::new(scene.dir.path(), "host");
    let places = places();
    let launch = |auto: &str| {
        let launch = host.launch(&scene.torrent).peer(&source.listen());
        launch.fill("none").option("--auto-profile", auto).start()
    };
    let kept = host.cache().join("profiles");
    // The copy goes, the profiles stay.
    let forget = || {
        for entry in std::fs::read_dir(host.cache()).unwrap() {
            let path = entry.unwrap().path();
            if path != kept && path.is_dir() {
                std::fs::remove_dir_all(path).unwrap();
            }
        }
    };
    let disk = host.mount().join("disk.img");
    for (auto, foretold) in [
        ("off", 0),
        ("on", 0),
        ("off", 0),
        ("on", places.len() as u64),
    ] {
        let launch = launch(auto);
        if foretold > 0 {
            launch.wait_for("the profile's blocks", Duration::from_secs(30), |event| {
                event["profile_bytes"].as_u64() == Some(foretold * BLOCK)
            });
        }
        read(&disk, &scene.image, &places);
        let done = launch.stop();
        assert_eq!(bytes(&done, "expected_reads"), foretold, "{auto}: {done}");
        forget();
    }
    source.stop();
}

#[test]
fn a_profile_that_is_none_is_refused_by_name_before_anything_is_begun() {
    let scene = Scene::new();
    let bad = scene.path("bad.json");
    let text = |text: &str| std::fs::write(&bad, text).unwrap();
    let other = r#"{"format":"vmtorrent profile","version":1,"info_hash":"0000000000000000000000000000000000000000",
        "name":"other.img","runs":1,"block_bytes":16384,"files":[{"path":["other.img"],"length":5,"accesses":[]}]}"#;
    for (content, why) in [
        ("", "no whole profile"),
        (r#"{"format":"vmtorrent prof"#, "no whole profile"),
        (
            &other.replace("\"version\":1", "\"version\":7"),
            "version 7",
        ),
        (
            &other.replace("\"accesses\":[]", "\"accesses\":[[-1,1,0,0,0,0,null]]"),
            "no whole profile",
        ),
        (
            &other.replace("\"accesses\":[]", "\"accesses\":[[0,1,NaN,0,0,0,null]]"),
            "no whole profile",
        ),
        (
            &other.replace("\"accesses\":[]", "\"accesses\":[[9,1,0,0,0,0,null]]"),
            "behind the end",
        ),
        (other, "another image"),
    ] {
        text(content);
        let mount = scene.path("mount");
        let _ = std::fs::create_dir(&mount);
        let state = scene.path("state");
        let cache = scene.path("cache");
        let ended = run(&[
            "launch",
            scene.torrent.to_str().unwrap(),
            "--state",
            state.to_str().unwrap(),
            "--cache",
            cache.to_str().unwrap(),
            "--mount",
            mount.to_str().unwrap(),
            "--no-discovery",
            "--profile",
            bad.to_str().unwrap(),
        ]);
        let message = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{message}");
        assert!(message.contains(why), "{why}: {message}");
    }
}

#[test]
fn a_profile_of_something_else_never_shows_a_wrong_byte() {
    if !fuse() {
        return;
    }
    let scene = Scene::new();
    let source = seed(&scene.torrent, scene.dir.path(), &[]);
    // Of the same place and length, with times and counts of nothing.
    let mut accesses = Vec::new();
    for block in (0..BLOCKS).rev() {
        accesses.push(serde_json::json!([
            block,
            1,
            1e12,
            0.0,
            1,
            2_000_000_000_000_u64,
            7
        ]));
    }
    let lies = serde_json::json!({
        "format": "vmtorrent profile", "version": 1, "info_hash": "00".repeat(20), "name": "disk.img",
        "runs": 1, "block_bytes": BLOCK,
        "files": [{"path": ["disk.img"], "length": BLOCKS * BLOCK, "accesses": accesses}],
    });
    let path = scene.path("lies.json");
    std::fs::write(&path, lies.to_string()).unwrap();
    let host = Host::new(scene.dir.path(), "host");
    let launch = host
        .launch(&scene.torrent)
        .peer(&source.listen())
        .fill("none")
        .option("--profile", &path)
        .start();
    let disk = host.mount().join("disk.img");
    read(&disk, &scene.image, &places());
    assert_same(&disk, &scene.image, "with a profile of lies");
    launch.stop();
    source.stop();
}
