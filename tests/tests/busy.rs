//! What becomes of those who use a mount when they, or it, come to an end in the middle of something.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::Signal;
use vmtorrent_tests::conformance::{disk, image};
use vmtorrent_tests::{Daemon, Host, MemoryMount, Reference, fuse, publish};

/// Longer than anything takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(30);

fn memory_mount() -> MemoryMount {
    MemoryMount::start(env!("CARGO_BIN_EXE_memory_volume"), &image(), None)
}

/// Runs `work` in a thread; the result must come in time.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(PATIENCE).unwrap()
}

/// The end of a process, which must come in time.
fn end_of(mut child: Child) -> ExitStatus {
    in_time(move || child.wait().unwrap())
}

fn dd(file: &Path, words: &[&str]) -> Child {
    let mut command = Command::new("dd");
    command.args(words).arg("status=none");
    if words.iter().all(|word| !word.starts_with("of=")) {
        command
            .arg(format!("of={}", file.display()))
            .arg("conv=notrunc");
    } else {
        command.arg(format!("if={}", file.display()));
    }
    command.stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn who_is_killed_while_it_waits_goes_away_and_the_others_go_on() {
    if !fuse() {
        return;
    }
    let mount = memory_mount();
    mount.ask("hold 0 65536");
    let path = mount.directory().join("disk");
    let reader = path.clone();
    let survivor = std::thread::spawn(move || {
        let mut found = vec![0; 1000];
        File::open(reader)
            .unwrap()
            .read_exact_at(&mut found, 0)
            .unwrap();
        found
    });
    // Plainly and past the page cache, where the kernel waits in other ways; for reading, and for the rest of a block
    // that is written in part.
    let ways: [&[&str]; 3] = [
        &["of=/dev/null", "bs=4096", "count=1"],
        &["of=/dev/null", "bs=4096", "count=1", "iflag=direct"],
        &["if=/dev/zero", "bs=100", "count=1"],
    ];
    let killed: Vec<_> = ways.iter().map(|words| dd(&path, words)).collect();
    mount.ask("wait 4");
    let begin = Instant::now();
    for mut child in killed {
        child.kill().unwrap();
        assert_eq!(end_of(child).signal(), Some(9));
    }
    assert!(begin.elapsed() < Duration::from_secs(10));
    // Only who was killed was sent away.
    assert_eq!(mount.ask("waiting"), 1);
    mount.ask("release");
    assert_eq!(survivor.join().unwrap(), disk()[..1000]);
    // Nothing of the write has reached the file.
    let mut found = vec![0; 1000];
    File::open(&path)
        .unwrap()
        .read_exact_at(&mut found, 0)
        .unwrap();
    assert_eq!(found, disk()[..1000]);
}

#[test]
fn who_is_only_stopped_or_signalled_goes_on_waiting() {
    if !fuse() {
        return;
    }
    let mount = memory_mount();
    mount.ask("hold 0 65536");
    let path = mount.directory().join("disk");
    // It handles the signal, and gets its data nevertheless.
    let script = "trap : USR1; exec 3<\"$0\"; head -c 100 <&3 | cksum";
    let reader = Command::new("sh")
        .args(["-c", script])
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    mount.ask("wait 1");
    let pid = rustix::process::Pid::from_child(&reader);
    for signal in [Signal::USR1, Signal::STOP] {
        rustix::process::kill_process(pid, signal).unwrap();
    }
    // The others' end shows that those who wait have been looked at meanwhile.
    let mut other = dd(&path, &["of=/dev/null", "bs=4096", "count=1"]);
    mount.ask("wait 2");
    other.kill().unwrap();
    end_of(other);
    assert_eq!(mount.ask("waiting"), 1);
    rustix::process::kill_process(pid, Signal::CONT).unwrap();
    mount.ask("release");
    let output = in_time(move || reader.wait_with_output().unwrap());
    let expected = Command::new("sh")
        .args(["-c", "head -c 100 \"$0\" | cksum"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, expected.stdout);
}

#[test]
fn a_server_that_ends_while_files_are_open_and_mapped_leaves_nobody_waiting() {
    if !fuse() {
        return;
    }
    let mut mount = memory_mount();
    mount.ask("hold 0 65536");
    let directory = mount.directory();
    let path = directory.join("disk");
    let open = File::options().read(true).write(true).open(&path).unwrap();
    let direct = File::options()
        .read(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(&path)
        .unwrap();
    let waiting: Vec<_> = (0..20)
        .map(|at| {
            dd(
                &path,
                &[
                    "of=/dev/null",
                    "bs=4096",
                    "count=1",
                    &format!("skip={}", at % 16),
                ],
            )
        })
        .collect();
    mount.ask("wait 20");
    // A shell that stands in the directory uses it too.
    let mut lingers = Command::new("sleep")
        .arg("1000")
        .current_dir(&directory)
        .spawn()
        .unwrap();
    let begin = Instant::now();
    in_time(move || mount.end());
    assert!(begin.elapsed() < Duration::from_secs(10));
    for child in waiting {
        assert_eq!(
            end_of(child).code(),
            Some(1),
            "a read that waited gets an error"
        );
    }
    for file in [open, direct] {
        in_time(move || file.read_at(&mut [0; 4096], 70_000)).unwrap_err();
    }
    lingers.kill().unwrap();
    lingers.wait().unwrap();
}

/// An image of which nothing can be had: its seed is gone.
fn launch_without_peers(folder: &Path) -> (Host, Daemon) {
    let original = folder.join("disk.img");
    Reference::new(1 << 20, 7).write_to(&original);
    let torrent = folder.join("disk.torrent");
    publish(&original, &torrent, &[]);
    let host = Host::new(folder, "host");
    let launch = host.launch(&torrent).option("--read-timeout", "0").start();
    (host, launch)
}

#[test]
fn a_launch_that_is_told_to_end_while_reads_wait_ends_in_order() {
    if !fuse() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (host, mut launch) = launch_without_peers(folder.path());
    let disk = host.mount().join("disk.img");
    let written = File::options().write(true).open(&disk).unwrap();
    written.write_all_at(&[7; 4096], 8192).unwrap();
    // The pieces between are zeros or another's likeness.
    let waiting: Vec<_> = (0..16)
        .filter(|at| !matches!(at, 5 | 6 | 11))
        .map(|at| {
            let skip = format!("skip={}", 16 * at);
            let direct = if at % 2 == 0 {
                "iflag=direct"
            } else {
                "iflag=fullblock"
            };
            dd(
                &disk,
                &["of=/dev/null", "bs=4096", "count=1", &skip, direct],
            )
        })
        .collect();
    let stalled = |event: &serde_json::Value| event["stall_seconds"].as_f64() > Some(0.0);
    launch.wait_for("a read that waits", PATIENCE, stalled);
    let begin = Instant::now();
    launch.signal(Signal::TERM);
    assert!(launch.wait_exit(PATIENCE).success());
    assert!(begin.elapsed() < Duration::from_secs(10));
    launch.latest("done");
    assert!(!disk.exists(), "still mounted");
    for child in waiting {
        assert_eq!(
            end_of(child).code(),
            Some(1),
            "a read that waited gets an error"
        );
    }
    drop(written);
    // What was written before is there again.
    let launch = host
        .launch(&folder.path().join("disk.torrent"))
        .option("--read-timeout", "1")
        .start();
    let mut found = [0; 4096];
    File::open(&disk)
        .unwrap()
        .read_exact_at(&mut found, 8192)
        .unwrap();
    assert_eq!(found, [7; 4096]);
    launch.stop();
}

#[test]
fn a_vmm_that_is_killed_while_it_waits_ends_the_launch() {
    if !fuse() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let original = folder.path().join("disk.img");
    Reference::new(1 << 20, 7).write_to(&original);
    let torrent = folder.path().join("disk.torrent");
    publish(&original, &torrent, &[]);
    let host = Host::new(folder.path(), "host");
    let mut launch = host
        .launch(&torrent)
        .option("--read-timeout", "0")
        .vmm(&["sh", "-c", "echo $$; exec cat {disk}"])
        .start();
    let stalled = |event: &serde_json::Value| event["stall_seconds"].as_f64() > Some(0.0);
    launch.wait_for("a read that waits", PATIENCE, stalled);
    let begin = Instant::now();
    let pid: i32 = loop {
        let told = launch.stderr();
        let whole = told.rfind('\n').map_or("", |end| &told[..end]);
        if let Some(pid) = whole.lines().find_map(|line| line.parse().ok()) {
            break pid;
        }
        assert!(begin.elapsed() < PATIENCE, "no number: {told}");
        std::thread::sleep(Duration::from_millis(10));
    };
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(launch.wait_exit(PATIENCE).code(), Some(128 + 9));
    assert!(!host.mount().join("disk.img").exists(), "still mounted");
}
