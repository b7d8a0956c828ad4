//! `vmtorrent launch -- VMM`: the process that uses the disk, and how both end.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use vmtorrent_tests::{Daemon, Host, Launch, Reference, fuse, publish, seed};

const PATIENCE: Duration = Duration::from_secs(30);

struct Stage {
    dir: TempDir,
    torrent: PathBuf,
    source: Daemon,
    host: Host,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let original = dir.path().join("disk.img");
        Reference::new(1 << 20, 7).write_to(&original);
        let torrent = dir.path().join("disk.torrent");
        publish(&original, &torrent, &[]);
        let source = seed(&torrent, dir.path(), &[]);
        let host = Host::new(dir.path(), "host");
        Self {
            dir,
            torrent,
            source,
            host,
        }
    }

    fn launch(&self, script: &str) -> Launch {
        self.host
            .launch(&self.torrent)
            .peer(&self.source.listen())
            .vmm(&["sh", "-c", script, "sh", "{disk}", "in={disk},at={dir}"])
    }

    /// Runs a script as the VMM until it ends by itself.
    fn status_of(&self, script: &str) -> (Option<i32>, String) {
        let mut launch = self.launch(script).spawn();
        let status = launch.wait_exit(PATIENCE);
        launch.latest("done");
        assert!(
            !self.host.mount().join("disk.img").exists(),
            "still mounted"
        );
        (status.code(), launch.stderr())
    }
}

#[test]
fn the_vmm_gets_the_disk_and_its_status_becomes_ours() {
    if !fuse() {
        return;
    }
    let stage = Stage::new();
    let original = stage.dir.path().join("disk.img");
    let compare = format!(
        "cmp \"$1\" {} || exit 1; echo \"$2\"; exit 7",
        original.display()
    );
    let (status, stderr) = stage.status_of(&compare);
    assert_eq!(status, Some(7), "{stderr}");
    // With --json its stdout is our stderr.
    let mount = stage.host.mount();
    let words = format!("in={0}/disk.img,at={0}", mount.display());
    assert!(stderr.contains(&words), "{stderr}");

    assert_eq!(stage.status_of("exit 0").0, Some(0));
    assert_eq!(stage.status_of("kill -KILL $$").0, Some(128 + 9));
}

#[test]
fn the_vmm_gets_the_limit_of_open_files_that_we_were_given() {
    if !fuse() {
        return;
    }
    let stage = Stage::new();
    let tell = "echo \"soft $(ulimit -Sn), hard $(ulimit -Hn)\"";
    let mut launch = stage.launch(tell).descriptors("900:4000").spawn();
    assert_eq!(launch.wait_exit(PATIENCE).code(), Some(0));
    let stderr = launch.stderr();
    assert!(stderr.contains("soft 900, hard 4000"), "{stderr}");
}

#[test]
fn a_signal_ends_the_vmm_first_and_its_last_writes_are_kept() {
    if !fuse() {
        return;
    }
    let stage = Stage::new();
    let mut launch = stage
        .launch(
            "trap 'printf last | dd of=\"$1\" bs=1 seek=5000 conv=notrunc status=none; exit 0' TERM; \
             echo trapped; while :; do sleep 0.05; done",
        )
        .start();
    launch.wait_stderr("trapped");
    launch.signal(Signal::TERM);
    assert_eq!(launch.wait_exit(PATIENCE).code(), Some(128 + 15));
    launch.latest("done");
    let (status, stderr) =
        stage.status_of("test \"$(dd if=\"$1\" bs=1 skip=5000 count=4)\" = last");
    assert_eq!(status, Some(0), "{stderr}");
}

#[test]
fn a_vmm_that_ignores_the_first_signal_is_killed_at_the_second() {
    if !fuse() {
        return;
    }
    let stage = Stage::new();
    // Its grace is not waited for.
    let script = "trap 'echo ignored' TERM; echo trapped; while :; do sleep 0.05; done";
    let preset = format!("[vmm.deaf]\ngrace = 600\nrun = [\"sh\", \"-c\", \"{script}\"]\n");
    let file = stage.dir.path().join("deaf.toml");
    std::fs::write(&file, preset).unwrap();
    let mut launch = stage
        .host
        .launch(&stage.torrent)
        .peer(&stage.source.listen())
        .option("--vmm", "deaf")
        .option("--vmm-file", &file)
        .env("XDG_RUNTIME_DIR", stage.dir.path())
        .env("XDG_CONFIG_HOME", stage.dir.path().join("config"))
        .start();
    launch.wait_stderr("trapped");
    launch.signal(Signal::TERM);
    launch.wait_stderr("ignored");
    launch.signal(Signal::TERM);
    assert_eq!(launch.wait_exit(PATIENCE).code(), Some(128 + 15));
    assert!(!stage.host.mount().join("disk.img").exists());
}
