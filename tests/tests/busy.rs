//! What becomes of those who use a mount when they, or it, come to an end in the middle of something.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::Signal;
use vmtorrent_tests::conformance::{DEEP, disk, image};
use vmtorrent_tests::{Daemon, Host, MemoryMount, Reference, fuse, publish, seed};

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
    let pid = launch.stderr().lines().find_map(|line| line.parse().ok());
    let pid = rustix::process::Pid::from_raw(pid.unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(launch.wait_exit(PATIENCE).code(), Some(128 + 9));
    assert!(!host.mount().join("disk.img").exists(), "still mounted");
}

#[test]
fn a_full_state_directory_refuses_what_needs_room_and_goes_on_when_there_is_some() {
    use rustix::mount::{MountFlags, mount};
    if !fuse() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let published = folder.path().join("appliance");
    for (path, content) in image() {
        let path = published.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let torrent = folder.path().join("appliance.torrent");
    publish(&published, &torrent, &[]);
    let source = seed(&torrent, folder.path(), &[]);
    let host = Host::new(folder.path(), "host");
    std::fs::create_dir(host.state()).unwrap();
    mount(
        "tmpfs",
        host.state(),
        "tmpfs",
        MountFlags::empty(),
        c"size=4m",
    )
    .unwrap();
    let tmpfs = Unmounting(host.state());
    let launch = host.launch(&torrent).peer(&source.listen()).start();
    let open = |name: &str| {
        let mut how = File::options();
        how.read(true).write(true).create(true).truncate(false);
        how.open(host.mount().join(name)).unwrap()
    };
    let full = |result: std::io::Result<()>| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
    };
    let (disk_file, own) = (open("disk"), open("own"));
    disk_file.write_all_at(&[5; 8192], 4096).unwrap();
    disk_file.sync_all().unwrap();
    let ballast = host.state().join("ballast");
    let mut fills = File::create(&ballast).unwrap();
    // In small pieces, so that no room is left.
    full((0..2000).try_for_each(|_| fills.write_all(&[1; 4096])));
    full(own.write_all_at(&[1; 65_536], 0));
    full(disk_file.write_all_at(&[6; 65_536], 20 << 20));
    // What is there is read and written over.
    let mut found = [0; 8192];
    disk_file.read_exact_at(&mut found, 4096).unwrap();
    assert_eq!(found, [5; 8192]);
    disk_file.write_all_at(&[7; 8192], 4096).unwrap();
    let mut found = [0; 4096];
    disk_file.read_exact_at(&mut found, 65_536).unwrap();
    assert_eq!(found, disk()[65_536..][..4096]);
    assert_eq!(std::fs::read(host.mount().join("vm/deep")).unwrap(), DEEP);
    std::fs::remove_file(ballast).unwrap();
    own.write_all_at(&[1; 65_536], 0).unwrap();
    disk_file.write_all_at(&[8; 65_536], 1 << 20).unwrap();
    disk_file.sync_all().unwrap();
    let mut found = [0; 65_536];
    disk_file.read_exact_at(&mut found, 1 << 20).unwrap();
    assert_eq!(found, [8; 65_536]);
    drop((disk_file, own));
    launch.stop();
    drop(tmpfs);
}

/// A mount that is taken away.
struct Unmounting(std::path::PathBuf);

impl Drop for Unmounting {
    fn drop(&mut self) {
        vmtorrent_tests::unmount(&self.0);
    }
}
