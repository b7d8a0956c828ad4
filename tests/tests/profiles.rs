//! Profiles: recorded, kept, published, and put to use.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use vmtorrent_tests::{Scene, assert_same, command, fuse, number};

const BLOCK: u64 = Scene::BLOCK;

fn profile(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The blocks of the only file, by their mean time.
fn blocks(profile: &Value) -> Vec<u64> {
    let accesses = profile["files"][0]["accesses"].as_array().unwrap();
    accesses.iter().map(|a| a[0].as_u64().unwrap()).collect()
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
    let source = scene.seed(scene.torrent(), &[]);
    let host = scene.host("host");
    let recorded = scene.path("run.json");
    let launch = host
        .launch(scene.torrent())
        .peer(&source.listen())
        .fill("none")
        .option("--record", &recorded)
        .start();
    // It is there at once, so that a place where it can't be is found out at once.
    assert_eq!(blocks(&profile(&recorded)), [0_u64; 0]);
    let places = Scene::places();
    scene.read(&host, &places);
    // Read again, which is no news, and not by the block.
    scene.read(&host, &places[..50]);
    wait_until("all was recorded", || {
        blocks(&profile(&recorded)).len() == places.len()
    });
    launch.kill_9();
    let run = profile(&recorded);
    assert_eq!(blocks(&run), places);
    assert_eq!(run["runs"], 1);
    // The cache keeps it too, and the next launch expects all of it.
    let launch = host
        .launch(scene.torrent())
        .peer(&source.listen())
        .fill("none")
        .start();
    scene.read(&host, &places);
    let done = launch.stop();
    assert_eq!(
        number(&done, "expected_reads"),
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
    let recorded = scene.record();
    let source = scene.seed(scene.torrent(), &[]);
    let places = Scene::places();
    let foretold = places.len() as u64 * BLOCK;
    // Once named, once put into the .torrent file by its publisher.
    let with_it = scene.publish_with(&recorded);
    let at = recorded.to_str().unwrap();
    for (name, torrent, options) in [
        ("named", scene.torrent(), vec!["--profile", at]),
        ("published", &with_it, vec![]),
    ] {
        let host = scene.host(name);
        let again = scene.path("again.json");
        let mut launch = host.launch(torrent).peer(&source.listen()).fill("none");
        launch = launch.option("--record", &again);
        for pair in options.chunks(2) {
            launch = launch.option(pair[0], pair[1]);
        }
        let launch = launch.start();
        // Nobody reads anything yet.
        launch.wait_for("the profile's blocks", Duration::from_secs(30), |event| {
            event["profile_bytes"].as_u64() == Some(foretold)
        });
        scene.read(&host, &places);
        let done = launch.stop();
        assert_eq!(number(&done, "fetched_bytes"), foretold, "{name}: {done}");
        assert_eq!(number(&done, "stalls"), 0, "{name}: {done}");
        assert_eq!(number(&done, "first_reads"), places.len() as u64, "{name}");
        assert_eq!(
            number(&done, "expected_reads"),
            places.len() as u64,
            "{name}"
        );
        // What was there before it was read is noted as well as what was waited for, with what it holds.
        let run = profile(&again);
        assert_eq!(blocks(&run), places, "{name}");
        for access in run["files"][0]["accesses"].as_array().unwrap() {
            let from = (access[0].as_u64().unwrap() * BLOCK) as usize;
            let content = &scene.image()[from..from + BLOCK as usize];
            assert_eq!(access[6], crc32c::crc32c(content), "{name}: {access}");
        }
    }
    source.stop();
}

#[test]
fn a_host_keeps_what_its_launches_read_unless_it_is_told_not_to() {
    if !fuse() {
        return;
    }
    let scene = Scene::new();
    let source = scene.seed(scene.torrent(), &[]);
    let host = scene.host("host");
    let places = Scene::places();
    let launch = |auto: &str| {
        let launch = host.launch(scene.torrent()).peer(&source.listen());
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
        scene.read(&host, &places);
        let done = launch.stop();
        assert_eq!(number(&done, "expected_reads"), foretold, "{auto}: {done}");
        forget();
    }
    source.stop();
}

#[test]
fn what_a_file_holds_stays_when_the_launch_that_was_to_record_there_fails() {
    let scene = Scene::new();
    let recorded = scene.path("run.json");
    std::fs::write(&recorded, "an earlier run").unwrap();
    let mut launch = scene
        .host("host")
        .launch(scene.torrent())
        .option("--record", &recorded)
        // It finds that out last.
        .option("--trace", "/dev/full")
        .spawn();
    let ended = launch.wait_exit(Duration::from_secs(30));
    assert_eq!(ended.code(), Some(1), "{}", launch.stderr());
    assert_eq!(std::fs::read(&recorded).unwrap(), b"an earlier run");
    let beside = std::fs::read_dir(recorded.parent().unwrap()).unwrap();
    let names: Vec<_> = beside.map(|entry| entry.unwrap().file_name()).collect();
    assert!(
        !names.iter().any(|name| name == "run.json.new"),
        "{names:?}"
    );
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
            scene.torrent().to_str().unwrap(),
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
        // What is no profile is named by its path, one of another image by both images.
        let named = match why {
            "another image" => "(0000000000000000000000000000000000000000)",
            _ => bad.to_str().unwrap(),
        };
        for part in [why, named, "record"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!message.contains("it helps"), "{message}");
    }
}

#[test]
fn a_profile_of_something_else_never_shows_a_wrong_byte() {
    if !fuse() {
        return;
    }
    let scene = Scene::new();
    let source = scene.seed(scene.torrent(), &[]);
    // Of the same place and length, with times and counts of nothing.
    let mut accesses = Vec::new();
    for block in (0..Scene::BLOCKS).rev() {
        accesses.push(serde_json::json!([
            block,
            2,
            1e12,
            0.0,
            1,
            2_000_000_000_000_u64,
            7
        ]));
    }
    let lies = serde_json::json!({
        "format": "vmtorrent profile", "version": 1, "info_hash": "00".repeat(20), "name": "disk.img",
        "runs": 2, "block_bytes": BLOCK,
        "files": [{"path": ["disk.img"], "length": Scene::BLOCKS * BLOCK, "accesses": accesses}],
    });
    let path = scene.path("lies.json");
    std::fs::write(&path, lies.to_string()).unwrap();
    let host = scene.host("host");
    let launch = host
        .launch(scene.torrent())
        .peer(&source.listen())
        .fill("none")
        .option("--profile", &path)
        .start();
    scene.read(&host, &Scene::places());
    assert_same(&Scene::disk(&host), scene.image(), "with a profile of lies");
    launch.stop();
    source.stop();
}
