//! `--allow-other`: a VMM that runs as another user opens the image.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use vmtorrent_tests::{Daemon, Host, Reference, fuse, publish, require, seed};

/// Runs something as the user nobody.
fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program);
    command
}

/// Whether tests can run as another user here.
fn can_change_user() -> bool {
    let root = rustix::process::geteuid().is_root();
    let setpriv = Command::new("setpriv").arg("--version").output();
    require(root && setpriv.is_ok(), "root and setpriv") && fuse()
}

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

struct Stage {
    dir: TempDir,
    torrent: PathBuf,
    source: Daemon,
    host: Host,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        open_to_all(dir.path());
        let original = dir.path().join("disk.img");
        Reference::new(300_000, 2).write_to(&original);
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
}

#[test]
fn another_user_is_let_in_only_when_asked_for_and_as_far_as_permissions_go() {
    if !can_change_user() {
        return;
    }
    let stage = Stage::new();
    let disk = stage.host.mount().join("disk.img");
    let launch = || {
        stage
            .host
            .launch(&stage.torrent)
            .peer(&stage.source.listen())
    };
    let read = |path: &Path| as_nobody(Path::new("cat")).arg(path).output().unwrap();
    let write = |path: &Path| {
        let mut dd = as_nobody(Path::new("dd"));
        dd.args(["if=/dev/zero", "bs=4096", "count=1", "conv=notrunc"]);
        dd.arg(format!("of={}", path.display()))
            .output()
            .unwrap()
            .status
            .success()
    };

    let closed = launch().start();
    assert!(!read(&disk).status.success(), "nobody was let in");
    closed.stop();

    let open = launch().flag("--allow-other").start();
    let found = read(&disk);
    assert!(found.status.success(), "{found:?}");
    assert!(found.stdout == Reference::new(300_000, 2).bytes());
    assert!(!write(&disk), "the file belongs to root");
    std::fs::set_permissions(&disk, Permissions::from_mode(0o666)).unwrap();
    assert!(write(&disk));
    open.stop();
    stage.source.stop();
}

#[test]
fn an_ordinary_user_is_told_what_allow_other_needs() {
    let configured = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    let allowed = configured.lines().any(|l| l.trim() == "user_allow_other");
    let helper = Command::new("fusermount3").arg("--version").output();
    if !can_change_user()
        || !require(helper.is_ok(), "fusermount3")
        || !require(!allowed, "a fuse.conf without user_allow_other")
    {
        return;
    }
    let stage = Stage::new();
    // Where tests are built, nobody else may be able to look.
    let binary = stage.dir.path().join("vmtorrent");
    std::fs::copy(vmtorrent_tests::command().get_program(), &binary).unwrap();
    let home = stage.dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
    let mount = home.join("mnt");
    std::fs::create_dir(&mount).unwrap();
    std::os::unix::fs::chown(&mount, Some(65534), Some(65534)).unwrap();
    // With a FUSE device that ordinary users may open, as most systems have it, in a mount namespace.
    let device = stage.dir.path().join("fuse");
    let as_user = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation=private", "sh", "-c"]);
        command
            .arg(r#"mount --bind "$0" /dev/fuse && exec "$@""#)
            .arg(&device);
        command.args([
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ]);
        command.args(arguments);
        command
    };
    let made = Command::new("mknod")
        .args(["-m", "666"])
        .arg(&device)
        .args(["c", "10", "229"])
        .output();
    let opens = made.is_ok_and(|o| o.status.success())
        && as_user(&["sh", "-c", ": <>/dev/fuse"])
            .output()
            .is_ok_and(|o| o.status.success());
    if !require(opens, "a namespace with a FUSE device for all") {
        return;
    }
    let launch = |options: &[&str]| {
        let mut command = as_user(&[]);
        command.arg(&binary);
        command
            .arg("launch")
            .arg(&stage.torrent)
            .arg("--mount")
            .arg(&mount);
        command.args(["--json", "--no-discovery", "--listen", "127.0.0.1:0"]);
        command
            .arg("--peer")
            .arg(stage.source.listen())
            .args(options);
        command
            .env("HOME", &home)
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_STATE_HOME");
        Daemon::spawn(command, &[&mount])
    };
    let mut refused = launch(&["--allow-other"]);
    let status = refused.wait_exit(std::time::Duration::from_secs(30));
    let message = refused.stderr();
    assert_eq!(status.code(), Some(1), "{message}");
    assert!(
        message.contains("user_allow_other in /etc/fuse.conf"),
        "{message}"
    );
    // Without it the same user mounts.
    let plain = launch(&[]);
    plain.wait_event("ready");
    plain.stop();
    stage.source.stop();
}
