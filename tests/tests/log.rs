//! The log tells machines apart, holds no secrets, and does not fill a disk.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use vmtorrent_tests::{Host, Reference, fuse, publish, require, seed, unmount};

struct Stage {
    dir: TempDir,
    torrent: PathBuf,
    host: Host,
}

impl Stage {
    fn new(length: usize, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let original = dir.path().join("disk.img");
        Reference::new(length, 5).write_to(&original);
        let torrent = dir.path().join("disk.torrent");
        publish(&original, &torrent, options);
        let host = Host::new(dir.path(), "host");
        Self { dir, torrent, host }
    }
}

fn read_all(path: &Path) {
    std::fs::read(path).unwrap();
}

#[test]
fn info_tells_start_readiness_completion_and_end_by_image_and_appliance() {
    if !fuse() {
        return;
    }
    let stage = Stage::new(1 << 20, &[]);
    let source = seed(&stage.torrent, stage.dir.path(), &[]);
    let launch = stage
        .host
        .launch(&stage.torrent)
        .peer(&source.listen())
        .fill("none")
        .option("--log", "info")
        .option("--log-format", "json")
        .start();
    read_all(&stage.host.mount().join("disk.img"));
    launch.wait_stderr("the image is complete");
    let mut launch = launch;
    launch.signal(rustix::process::Signal::TERM);
    assert!(launch.wait_exit(Duration::from_secs(30)).success());
    let log = launch.stderr();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let find = |message: &str| {
        let found = lines.iter().find(|l| l["message"] == message);
        found.unwrap_or_else(|| panic!("no {message:?} in:\n{log}"))
    };
    let messages = [
        "a session has started",
        "in the swarm",
        "ready",
        "the image is complete",
        "has ended",
        "a session has ended",
    ];
    for message in messages {
        assert_eq!(find(message)["level"], "INFO");
    }
    let image = json!({"name": "swarm", "image": "disk.img"});
    let machine = json!({"name": "machine", "appliance": "state"});
    assert_eq!(find("in the swarm")["spans"], json!([image]));
    assert_eq!(find("the image is complete")["spans"], json!([image]));
    assert_eq!(find("ready")["spans"], json!([image, machine]));
    assert_eq!(find("has ended")["spans"], json!([image, machine]));
    // Nothing went wrong, and peers come and go at a lower level.
    assert!(lines.iter().all(|l| l["level"] == "INFO"), "{log}");
    assert!(lines.len() < 12, "{log}");
    source.stop();
}

/// A tracker that refuses everybody, and a web server that has no .torrent file.
fn refusing_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let body = "d14:failure reason4:soone";
            let _ = write!(
                stream,
                "HTTP/1.0 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    address.to_string()
}

#[test]
fn nothing_that_may_be_a_secret_of_a_url_is_logged_even_at_trace() {
    if !fuse() {
        return;
    }
    let tracker = refusing_server();
    let url = format!("http://user:secret1@{tracker}/secret2/announce?passkey=secret3");
    let stage = Stage::new(300_000, &["--tracker", &url]);
    let source = seed(&stage.torrent, stage.dir.path(), &["--log", "trace"]);
    let launch = stage
        .host
        .launch(&stage.torrent)
        .peer(&source.listen())
        .discovery()
        .option("--log", "trace")
        .start();
    read_all(&stage.host.mount().join("disk.img"));
    for daemon in [&source, &launch] {
        daemon.wait_stderr("the tracker refuses");
        daemon.wait_stderr("Request(");
    }
    for (who, log) in [("seed", source.stderr()), ("launch", launch.stderr())] {
        assert!(!log.contains("secret"), "{who}: {log}");
        assert!(
            log.contains("TRACE") && log.contains("Request("),
            "{who} traces messages: {log}"
        );
        assert!(
            log.lines().all(|l| l.len() < 600),
            "{who}: a block is cut short"
        );
    }
    launch.stop();
    source.stop();
    let command = |words: &[&str]| {
        let output = vmtorrent_tests::command().args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let url = format!("http://user:secret1@{tracker}/disk.torrent?passkey=secret3");
    let message = command(&["--log", "trace", "launch", &url]);
    assert!(
        message.contains("disk.torrent?...") && !message.contains("secret"),
        "{message}"
    );
}

#[test]
fn a_filter_that_cannot_be_read_is_refused() {
    for filter in ["loud", "vmtorrent=loud", ""] {
        let mut command = vmtorrent_tests::command();
        let output = command
            .args(["launch", "x.torrent", "--log", filter])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{filter}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            message.contains("--log") && message.contains("debug"),
            "{message}"
        );
    }
}

/// A file system of a few bytes; gone with its guard.
struct Small(PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

#[test]
fn a_full_cache_is_told_once_and_not_for_each_piece() {
    if !fuse() {
        return;
    }
    let stage = Stage::new(16 << 20, &[]);
    let cache = stage.host.cache();
    std::fs::create_dir(&cache).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "vmtorrent-test"])
        .arg(&cache)
        .output();
    if !require(
        mounted.is_ok_and(|o| o.status.success()),
        "the right to mount a tmpfs",
    ) {
        return;
    }
    let small = Small(cache);
    let source = seed(&stage.torrent, stage.dir.path(), &[]);
    let launch = stage
        .host
        .launch(&stage.torrent)
        .peer(&source.listen())
        .fill("full")
        .option("--log", "info")
        .start();
    let mut seen = launch.event_count();
    while !launch.stderr().contains("can't grow") {
        launch.next_event(&mut seen);
    }
    // Time for more lines, if there were any to come.
    for _ in 0..4 {
        launch.next_event(&mut seen);
    }
    let log = launch.stderr();
    let lines = |what: &str| log.lines().filter(|l| l.contains(what)).count();
    // Once in the log, and once for the person, each perhaps again when something went and came.
    assert!((2..=6).contains(&lines("can't grow")), "{log}");
    assert_eq!(lines("can't be stored"), 0, "{log}");
    assert!(log.contains("WARN") && log.contains("--max-disk"), "{log}");
    launch.stop();
    source.stop();
    drop(small);
}
