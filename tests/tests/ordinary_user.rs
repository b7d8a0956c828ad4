//! A launch by an ordinary user: it mounts through `fusermount3`.
//!
//! The tests run in a mount namespace with a FUSE device that everybody may open, as it is on most systems.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use vmtorrent_tests::{Daemon, Reference, command, fuse, publish, require, seed};

const PATIENCE: Duration = Duration::from_secs(30);
const NOBODY: u32 = 65_534;

/// Makes the namespace, then becomes what it is given.
const NAMESPACE: &str =
    "mknod \"$0\" c 10 229 && chmod 666 \"$0\" && mount --bind \"$0\" /dev/fuse && exec \"$@\"";
const AS_NOBODY: [&str; 5] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all",
];

/// A host of a user who is nobody in particular.
struct User {
    folder: TempDir,
    torrent: PathBuf,
    image: Reference,
    source: Daemon,
}

impl User {
    fn new() -> Option<Self> {
        let helper = Command::new("fusermount3").arg("-V").output().is_ok();
        let root = rustix::process::geteuid().is_root();
        if !fuse() || !require(helper && root, "fusermount3, and root to become another") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let binary = PathBuf::from(command().get_program());
        fs::copy(binary, folder.path().join("vmtorrent")).unwrap();
        let original = folder.path().join("disk.img");
        let image = Reference::new(1 << 20, 9);
        image.write_to(&original);
        let torrent = folder.path().join("disk.torrent");
        publish(&original, &torrent, &[]);
        let source = seed(&torrent, folder.path(), &[]);
        let home = folder.path().join("home");
        for directory in ["", "mnt"] {
            fs::create_dir(home.join(directory)).unwrap();
            chown(home.join(directory), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Some(Self {
            folder,
            torrent,
            image,
            source,
        })
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn disk(&self) -> PathBuf {
        self.home().join("mnt/disk.img")
    }

    /// Launches in a new namespace. The process id is that of the launch itself.
    fn launch(&self, options: &[&str]) -> Daemon {
        let device = self.folder.path().join("fuse");
        let _ = fs::remove_file(&device);
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation=private", "sh", "-c", NAMESPACE])
            .arg(device)
            .args(AS_NOBODY)
            .arg(self.folder.path().join("vmtorrent"))
            .arg("launch")
            .arg(&self.torrent)
            .args(["--json", "--no-discovery", "--listen", "127.0.0.1:0"])
            .args(options);
        for directory in ["mnt", "cache", "state"] {
            let option = if directory == "mnt" {
                "mount"
            } else {
                directory
            };
            command
                .arg(format!("--{option}"))
                .arg(self.home().join(directory));
        }
        let daemon = Daemon::spawn(command, &[]);
        daemon.wait_event("ready");
        daemon
    }
}

/// A command in the namespace of a launch, as its user.
fn inside(launch: &Daemon, script: &str, path: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command
        .args(["--mount", "--target", &launch.pid().to_string()])
        .args(AS_NOBODY)
        .args(["sh", "-c", script])
        .arg(path)
        .stdin(Stdio::null());
    command
}

fn run(launch: &Daemon, script: &str, path: &Path) -> Output {
    inside(launch, script, path).output().unwrap()
}

#[track_caller]
fn succeed(launch: &Daemon, script: &str, path: &Path) -> String {
    let output = run(launch, script, path);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_ordinary_user_launches_uses_ends_and_launches_again() {
    let Some(user) = User::new() else {
        return;
    };
    let peer = user.source.listen();
    let launch = user.launch(&["--peer", &peer]);
    let disk = user.disk();
    let status = fs::read_to_string(format!("/proc/{}/status", launch.pid())).unwrap();
    for line in [
        "Uid:\t65534\t65534\t65534\t65534",
        "CapEff:\t0000000000000000",
    ] {
        assert!(status.contains(line), "{status}");
    }
    let original = user.folder.path().join("disk.img");
    let compare = format!("cmp \"$0\" {}", original.display());
    succeed(&launch, &compare, &disk);
    let table = succeed(&launch, "cat /proc/self/mountinfo", &disk);
    let directory = user.home().join("mnt");
    let ours = |line: &&str| line.contains(directory.to_str().unwrap());
    let line = table.lines().find(ours).unwrap();
    assert!(
        line.contains("user_id=65534") && line.contains("nosuid,nodev"),
        "{line}"
    );
    succeed(
        &launch,
        "printf changed | dd of=\"$0\" conv=notrunc,fsync status=none",
        &disk,
    );
    succeed(
        &launch,
        "echo own > \"$0.log\" && mv \"$0.log\" \"$0.old\" && chmod 600 \"$0.old\"",
        &disk,
    );
    // Permission bits hold for who is not root.
    succeed(&launch, "chmod 400 \"$0\"", &disk);
    assert!(!run(&launch, "echo x >> \"$0\"", &disk).status.success());
    succeed(&launch, "chmod 600 \"$0\"", &disk);
    // Nobody else gets in, not even root.
    let root = Command::new("nsenter")
        .args(["--mount", "--target", &launch.pid().to_string(), "cat"])
        .arg(&disk)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .status();
    assert!(!root.unwrap().success());
    launch.stop();

    let launch = user.launch(&["--peer", &peer]);
    let text = succeed(&launch, "head -c 7 \"$0\" && cat \"$0.old\"", &disk);
    assert_eq!(text, "changedown\n");
    let tail = succeed(&launch, "tail -c +8 \"$0\" | cksum", &disk);
    let right = Command::new("sh")
        .args(["-c", "tail -c +8 \"$0\" | cksum"])
        .arg(&original)
        .output()
        .unwrap();
    assert_eq!(tail.as_bytes(), right.stdout);
    launch.stop();
    assert_eq!(fs::read(&original).unwrap(), user.image.bytes());
}

#[test]
fn an_ordinary_users_launch_ends_in_time_though_it_is_in_use() {
    let Some(user) = User::new() else {
        return;
    };
    let mut launch = user.launch(&["--read-timeout", "0"]);
    let disk = user.disk();
    // One waits for data that nobody has, one has a file open and does nothing.
    let mut waits = inside(&launch, "cat \"$0\"", &disk);
    let mut waits = waits.stderr(Stdio::null()).spawn().unwrap();
    let mut lingers = inside(&launch, "exec 3<\"$0\"; echo open; exec sleep 1000", &disk);
    let mut lingers = lingers.stdout(Stdio::piped()).spawn().unwrap();
    let mut told = [0; 4];
    let said = lingers.stdout.as_mut().unwrap();
    std::io::Read::read_exact(said, &mut told).unwrap();
    let stalled = |event: &serde_json::Value| event["stall_seconds"].as_f64() > Some(0.0);
    launch.wait_for("a read that waits", PATIENCE, stalled);
    let begin = Instant::now();
    launch.signal(Signal::TERM);
    let status = launch.wait_exit(PATIENCE);
    assert!(status.success(), "{status}: {}", launch.stderr());
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert!(!waits.wait().unwrap().success());
    lingers.kill().unwrap();
    lingers.wait().unwrap();
    let _ = File::open(&disk).unwrap_err();
}
