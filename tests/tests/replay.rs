//! What `launch --trace` writes is what was read, and `replay` reads it again.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use vmtorrent_tests::{Host, PIECE, Reference, command, fuse, publish, seed};

/// A published image.
struct Stage {
    dir: TempDir,
    image: Reference,
    torrent: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = Reference::new(40 * PIECE + 1_000, 5);
        let original = dir.path().join("disk.img");
        image.write_to(&original);
        let torrent = dir.path().join("disk.torrent");
        publish(&original, &torrent, &[]);
        Self {
            dir,
            image,
            torrent,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn replay(&self, trace: &str) -> Command {
        let path = self.path("test.trace");
        fs::write(&path, trace).unwrap();
        replay(&path, &self.path("disk.img"))
    }
}

fn replay(trace: &Path, disk: &Path) -> Command {
    let mut command = command();
    command.arg("replay").arg(trace).arg("--disk").arg(disk);
    command
}

/// Thinking time, offset and length of all reads of a trace.
fn reads(trace: &Path) -> Vec<(u64, u64, u64)> {
    let text = fs::read_to_string(trace).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let read = |line: &str| {
        let numbers: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
        assert_eq!(numbers.len(), 3, "{line}");
        (numbers[0], numbers[1], numbers[2])
    };
    lines.map(read).collect()
}

fn message(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_trace_holds_the_reads_of_the_image_in_guest_time_and_a_replay_asks_for_the_same() {
    if !fuse() {
        return;
    }
    let stage = Stage::new();
    let piece = PIECE as u64;
    // Slow, so that waiting shows.
    let source = seed(&stage.torrent, stage.dir.path(), &["--upload-limit", "96K"]);
    let host = Host::new(stage.dir.path(), "traced");
    let trace = stage.path("guest.trace");
    fs::write(&trace, "an older one").unwrap();
    let began = Instant::now();
    let launch = host
        .launch(&stage.torrent)
        .peer(&source.listen())
        .fill("none")
        .option("--trace", &trace)
        .start();
    let disk = File::options()
        .read(true)
        .write(true)
        .open(host.mount().join("disk.img"))
        .unwrap();
    let end = stage.image.bytes().len() as u64;
    let read = |offset: u64, length: usize| {
        let mut buffer = vec![0; length];
        let count = disk.read_at(&mut buffer, offset).unwrap();
        let from = offset as usize;
        assert!(buffer[..count] == stage.image.bytes()[from..from + count]);
        count as u64
    };
    read(20 * piece + 512, 4096);
    // Here now.
    read(20 * piece + 512, 1024);
    read(3 * piece, 8192);
    // Zeros, which nobody has to send.
    read(5 * piece, 512);
    // What the guest wrote is its own.
    let own = stage.image.bytes()[30 * PIECE..][..4096].to_vec();
    disk.write_all_at(&own, 30 * piece).unwrap();
    read(30 * piece, 4096);
    assert_eq!(read(end - 100, 4096), 100);
    let wall = began.elapsed().as_secs_f64();
    drop(disk);
    let done = launch.stop();

    let found = reads(&trace);
    let places: Vec<_> = found.iter().map(|r| (r.1, r.2)).collect();
    let expected = [
        (20 * piece + 512, 4096),
        (20 * piece + 512, 1024),
        (3 * piece, 8192),
        (5 * piece, 512),
        (end - 100, 100),
    ];
    assert_eq!(places, expected);
    let thought = found.iter().map(|r| r.0).sum::<u64>() as f64 / 1e6;
    let stalled = done["stall_seconds"].as_f64().unwrap();
    assert!(stalled > 0.5, "it hardly waited: {stalled} s");
    // The last of the waits is behind the last arrival.
    assert!(
        thought + stalled <= wall,
        "{thought} s of thinking and {stalled} s of waiting in {wall} s"
    );
    source.stop();

    let source = seed(&stage.torrent, stage.dir.path(), &[]);
    let host = Host::new(stage.dir.path(), "replayed");
    let trace = trace.to_str().unwrap();
    let vmtorrent = command().get_program().to_str().unwrap().to_owned();
    let mut launch = host
        .launch(&stage.torrent)
        .peer(&source.listen())
        .fill("none")
        .vmm(&[&vmtorrent, "replay", trace, "--disk", "{disk}", "--json"])
        .start();
    assert!(launch.wait_exit(Duration::from_secs(60)).success());
    let again = launch.latest("done");
    for field in ["distinct_read_bytes", "stalls"] {
        assert_eq!(again[field], done[field], "{field}");
    }
    let told = launch.stderr();
    let report = told.lines().find(|line| line.starts_with('{')).unwrap();
    let report: Value = serde_json::from_str(report).unwrap();
    assert_eq!(report["reads"], found.len());
    assert_eq!(report["bytes"], found.iter().map(|r| r.2).sum::<u64>());
    assert!(report["wall_seconds"].as_f64().unwrap() >= thought);
    source.stop();
}

#[test]
fn a_replay_tells_what_it_read_and_how_long_that_took() {
    let stage = Stage::new();
    let trace = "# a comment\n20000 4096 4096\n0 7 100000\n40000 512 512\n";
    let output = stage
        .replay(trace)
        .args(["--json", "--speed", "2"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["event"], "done");
    assert_eq!(
        (&report["reads"], &report["bytes"]),
        (&3.into(), &104_608.into())
    );
    let number = |field: &str| report[field].as_f64().unwrap();
    assert!((number("guest_seconds") - 0.03).abs() < 1e-6);
    assert!(number("wall_seconds") >= 0.03 + number("read_seconds") - 0.001);
    assert!(number("p50_ms") <= number("p99_ms") && number("p99_ms") <= number("max_ms"));
    // One of the three reads took most of all reading.
    assert!(number("read_seconds") <= 3.0 * number("max_ms") / 1000.0 + 1e-6);

    let output = stage.replay(trace).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("the guest thought 0.060 s"), "{text}");
}

#[test]
fn a_trace_that_is_none_is_refused_with_its_line_before_anything_is_read() {
    let stage = Stage::new();
    let end = stage.image.bytes().len();
    let behind = format!("0 0 512\n5 {end} 1\n");
    for (trace, expected) in [
        // An hour of thinking would show that it had begun.
        (
            "3600000000 0 512\n1 two 3\n",
            &["line 2", "\"two\"", "think_us offset length"][..],
        ),
        ("0 0\n", &["line 1", "think_us offset length"]),
        ("\n\n0 0 0\n", &["line 3", "0 bytes"]),
        (&behind, &["line 2", "behind the disk", &end.to_string()]),
        ("# nothing else\n", &["no read"]),
        ("", &["no read"]),
    ] {
        let output = stage.replay(trace).output().unwrap();
        let text = message(&output);
        assert_eq!(output.status.code(), Some(1), "{trace}: {text}");
        for word in expected.iter().chain(&["vmtorrent: ", "test.trace"]) {
            assert!(text.contains(word), "{trace}: {text} lacks {word}");
        }
        assert!(
            output.stdout.is_empty() && !text.contains("panicked"),
            "{text}"
        );
    }
    let absent = stage.path("absent");
    let trace = stage.path("test.trace");
    fs::write(&trace, "0 0 1").unwrap();
    for mut command in [
        replay(&absent, &stage.path("disk.img")),
        replay(&trace, &absent),
    ] {
        let output = command.output().unwrap();
        let text = message(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(absent.to_str().unwrap()), "{text}");
    }
}

#[test]
fn a_trace_that_cannot_be_written_is_named_and_nothing_is_launched() {
    if !fuse() {
        return;
    }
    let stage = Stage::new();
    let host = Host::new(stage.dir.path(), "host");
    for path in [stage.path("absent/guest.trace"), PathBuf::from("/dev/full")] {
        let mut launch = host.launch(&stage.torrent).option("--trace", &path).spawn();
        assert_eq!(launch.wait_exit(Duration::from_secs(30)).code(), Some(1));
        let text = launch.stderr();
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        assert_eq!(launch.event_count(), 0);
    }
}
