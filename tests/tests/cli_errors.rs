//! Every wrong input ends in a message that names the thing and the remedy, and in a status that is not zero.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use vmtorrent_tests::{Daemon, Host, Reference, command, fuse, publish, require, seed};

const FAILED: i32 = 1;
const USAGE: i32 = 2;

/// Runs a command that must fail with `status`, and whose message must hold one word of each group.
#[track_caller]
fn fails(command: Command, status: i32, groups: &[&[&str]]) {
    let shown = format!("{command:?}");
    let mut process = Daemon::spawn(command, &[]);
    let code = process.wait_exit(Duration::from_secs(30)).code();
    let message = process.stderr();
    assert_eq!(code, Some(status), "{shown}: {message}");
    assert_eq!(process.event_count(), 0, "{shown} prints events");
    let start = if status == USAGE {
        "error: "
    } else {
        "vmtorrent: "
    };
    assert!(
        message.lines().any(|line| line.starts_with(start)),
        "{shown}: {message}"
    );
    assert!(!message.contains("panicked"), "{shown}: {message}");
    for group in groups {
        assert!(
            group.iter().any(|word| message.contains(word)),
            "{shown}: none of {group:?} in: {message}"
        );
    }
}

fn vmtorrent<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = command();
    command.args(words);
    command
}

/// A published image, nothing running.
struct Stage {
    dir: TempDir,
    torrent: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Reference::new(300_000, 3).write_to(&dir.path().join("disk.img"));
        let torrent = dir.path().join("disk.torrent");
        publish(&dir.path().join("disk.img"), &torrent, &[]);
        Self { dir, torrent }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `vmtorrent launch` below this directory, with these options behind the source.
    fn launch<S: AsRef<OsStr>>(&self, options: impl IntoIterator<Item = S>) -> Command {
        let mut command = command();
        command
            .arg("launch")
            .arg(&self.torrent)
            .args(["--json", "--no-discovery", "--listen", "127.0.0.1:0"])
            .env("XDG_CACHE_HOME", self.path("xdg-cache"))
            .env("XDG_STATE_HOME", self.path("xdg-state"))
            .args(options);
        command
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn files_that_do_not_exist_are_named() {
    let stage = Stage::new();
    let absent = stage.path("absent");
    let absent = text(&absent);
    let remedy: &[&str] = &["check", "does not exist", "No such file"];
    fails(
        vmtorrent(["publish", absent, "-o", text(&stage.path("x.torrent"))]),
        FAILED,
        &[&[absent], remedy],
    );
    assert!(!stage.path("x.torrent").exists());
    fails(vmtorrent(["launch", absent]), FAILED, &[&[absent], remedy]);
    fails(
        vmtorrent(["seed", absent, "--data", text(stage.dir.path())]),
        FAILED,
        &[&[absent], remedy],
    );
    fails(
        vmtorrent([
            "export",
            "--state",
            absent,
            "-o",
            text(&stage.path("out.img")),
        ]),
        FAILED,
        &[&[absent], &["option `state`"]],
    );
}

#[test]
fn a_torrent_that_is_none_is_refused() {
    let stage = Stage::new();
    let bad = stage.path("bad.torrent");
    let good = std::fs::read(&stage.torrent).unwrap();
    for content in [
        b"".as_slice(),
        b"<html>404</html>",
        b"d4:infod6:lengthi-1eee",
        &good[..good.len() - 9],
    ] {
        std::fs::write(&bad, content).unwrap();
        for mut command in [
            vmtorrent(["launch", text(&bad)]),
            vmtorrent(["seed", text(&bad), "--data", "."]),
        ] {
            command.args(["--listen", "127.0.0.1:0"]);
            fails(command, FAILED, &[&["bad.torrent"], &["torrent"]]);
        }
    }
    fails(
        vmtorrent([
            "launch",
            "--no-lsd",
            "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567",
        ]),
        FAILED,
        &[&["magnet"], &["nobody"], &["option `peer`"], &[".torrent"]],
    );
    for (link, why) in [
        ("magnet:?dn=disk.img", "xt is missing"),
        ("magnet:?xt=urn:btih:0123", "40 hexadecimal digits"),
        (
            "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567&x.pe=here",
            "192.0.2.7:6881",
        ),
    ] {
        fails(vmtorrent(["launch", link]), FAILED, &[&["magnet"], &[why]]);
    }
    // Nobody listens on that port, and the deadline is short.
    let mut search = vmtorrent([
        "launch",
        "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567&x.pe=127.0.0.1:1",
    ]);
    search.args(["--no-lsd", "--metadata-timeout", "1"]);
    search.args(["--listen", "127.0.0.1:0"]);
    fails(
        search,
        FAILED,
        &[&["0 of 1 peers answered"], &["option `peer`"]],
    );
}

#[test]
fn published_data_that_is_absent_or_of_another_length_is_named() {
    let stage = Stage::new();
    let elsewhere = stage.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let data = elsewhere.join("disk.img");
    let words = [
        "seed",
        text(&stage.torrent),
        "--data",
        text(&elsewhere),
        "--listen",
        "127.0.0.1:0",
    ];
    fails(vmtorrent(words), FAILED, &[&[text(&data)]]);
    std::fs::write(&data, b"short").unwrap();
    fails(
        vmtorrent(words),
        FAILED,
        &[&[text(&data)], &["300000", "300,000"]],
    );
}

#[test]
fn a_port_in_use_is_named() {
    let stage = Stage::new();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let remedy: &[&str] = &["another", "--listen", "--tracker"];
    for option in ["--listen", "--tracker"] {
        let words = [
            "seed",
            text(&stage.torrent),
            "--data",
            text(stage.dir.path()),
            option,
            &address,
        ];
        fails(vmtorrent(words), FAILED, &[&[&address], remedy]);
    }
    let words = ["launch", text(&stage.torrent), "--listen", &address];
    fails(vmtorrent(words), FAILED, &[&[&address], remedy]);
}

#[test]
fn a_mount_point_that_is_absent_no_directory_or_not_empty_is_named() {
    if !fuse() {
        return;
    }
    let stage = Stage::new();
    let absent = stage.path("absent");
    fails(
        stage.launch(["--mount", text(&absent)]),
        FAILED,
        &[
            &[text(&absent)],
            &["mkdir", "make", "create", "existing", "check"],
        ],
    );
    let file = stage.path("disk.img");
    fails(
        stage.launch(["--mount", text(&file)]),
        FAILED,
        &[&[text(&file)], &["directory"]],
    );
    let full = stage.path("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("precious"), b"data").unwrap();
    fails(
        stage.launch(["--mount", text(&full)]),
        FAILED,
        &[&[text(&full)], &["empty"]],
    );
    assert_eq!(std::fs::read(full.join("precious")).unwrap(), b"data");
}

#[test]
fn a_mount_point_and_a_state_in_use_are_refused_and_the_holder_is_left_alone() {
    if !fuse() {
        return;
    }
    let stage = Stage::new();
    let source = seed(&stage.torrent, stage.dir.path(), &[]);
    let mount = stage.path("mnt");
    let other = stage.path("other");
    std::fs::create_dir(&mount).unwrap();
    std::fs::create_dir(&other).unwrap();
    let options = ["--mount", text(&mount), "--peer", &source.listen()];
    let holder = Daemon::spawn(stage.launch(options), &[&mount]);
    holder.wait_event("ready");

    // The state has a name of its own: that of the image.
    fails(
        stage.launch(["--mount", text(&other)]),
        FAILED,
        &[&[&holder.pid().to_string()], &["option `state`"], &["disk"]],
    );
    fails(
        stage.launch(["--mount", text(&mount), "--ephemeral"]),
        FAILED,
        &[&[text(&mount)], &["busy", "in use", "mounted", "empty"]],
    );
    // It must be ended before it can be exported.
    let state = std::fs::read_dir(stage.path("xdg-state").join("vmtorrent"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let out = stage.path("out.img");
    fails(
        vmtorrent(["export", "--state", text(&state), "-o", text(&out)]),
        FAILED,
        &[&[&holder.pid().to_string()]],
    );
    assert!(!out.exists());

    let image = Reference::new(300_000, 3);
    vmtorrent_tests::assert_same(&mount.join("disk.img"), image.bytes(), "the holder's");
    holder.stop();
}

#[test]
fn a_state_of_another_image_is_refused() {
    if !fuse() {
        return;
    }
    let stage = Stage::new();
    let source = seed(&stage.torrent, stage.dir.path(), &[]);
    let host = Host::new(stage.dir.path(), "host");
    let first = host.launch(&stage.torrent).peer(&source.listen()).start();
    let here = first.wait_event("ready")["info_hash"].clone();
    first.stop();

    Reference::new(300_000, 4).write_to(&stage.path("disk.img"));
    let torrent = stage.path("other.torrent");
    publish(&stage.path("disk.img"), &torrent, &[]);
    let mut second = host.launch(&torrent).spawn();
    let status = second.wait_exit(Duration::from_secs(30));
    assert_eq!(status.code(), Some(FAILED));
    let message = second.stderr();
    for word in [
        here.as_str().unwrap(),
        text(&host.state()),
        "option `state`",
    ] {
        assert!(message.contains(word), "no {word} in: {message}");
    }
}

#[test]
fn a_vmm_that_does_not_exist_is_named_and_nothing_stays_mounted() {
    if !fuse() {
        return;
    }
    let stage = Stage::new();
    let host = Host::new(stage.dir.path(), "host");
    let mut launch = host
        .launch(&stage.torrent)
        .vmm(&["no-such-vmm", "{disk}"])
        .spawn();
    assert_eq!(
        launch.wait_exit(Duration::from_secs(30)).code(),
        Some(FAILED)
    );
    let message = launch.stderr();
    assert!(
        message.contains("no-such-vmm") && message.contains("install"),
        "{message}"
    );
    assert!(!host.mount().join("disk.img").exists(), "still mounted");
}

#[test]
fn values_that_are_none_are_wrong_usage_with_an_example() {
    for (words, value, example) in [
        ("launch a.torrent --upload-limit fast", "fast", "100mbit"),
        ("launch a.torrent --download-limit 0", "0", "no limit"),
        (
            "launch a.torrent --peer localhost",
            "localhost",
            "192.0.2.7:6881",
        ),
        ("launch a.torrent --fill some", "some", "idle"),
        (
            "launch a.torrent --read-timeout soon",
            "soon",
            "--read-timeout",
        ),
        (
            "seed a.torrent --data . --listen 6881",
            "6881",
            "192.0.2.7:6881",
        ),
        ("publish a -o b --piece-size 64Q", "64Q", "64K"),
    ] {
        let command = vmtorrent(words.split_whitespace());
        fails(command, USAGE, &[&[value], &[example]]);
    }
}

#[test]
fn a_piece_size_that_bittorrent_can_not_have_is_refused() {
    let stage = Stage::new();
    let image = stage.path("disk.img");
    let out = stage.path("x.torrent");
    let words = [
        "publish",
        text(&image),
        "-o",
        text(&out),
        "--piece-size",
        "1000",
    ];
    fails(vmtorrent(words), FAILED, &[&["1000"], &["16"]]);
    assert!(!out.exists());
}

#[test]
fn a_tracker_that_is_no_url_is_refused() {
    let stage = Stage::new();
    let image = stage.path("disk.img");
    let out = stage.path("x.torrent");
    for (option, url) in [
        ("--tracker", "nowhere"),
        ("--web-seed", "ftp://host.example/disk.img"),
    ] {
        let words = ["publish", text(&image), "-o", text(&out), option, url];
        fails(vmtorrent(words), FAILED, &[&[url], &["http"]]);
        assert!(!out.exists());
    }
}

#[test]
fn an_output_that_can_not_be_written_is_named() {
    let stage = Stage::new();
    let image = stage.path("disk.img");
    let out = stage.path("absent/x.torrent");
    let words = ["publish", text(&image), "-o", text(&out)];
    fails(vmtorrent(words), FAILED, &[&[text(&out)]]);
}

#[test]
fn a_machine_without_fuse_is_told_so() {
    let root = rustix::process::geteuid().is_root();
    if !require(root, "root (to hide /dev/fuse)") {
        return;
    }
    let stage = Stage::new();
    let mount = stage.path("mnt");
    std::fs::create_dir(&mount).unwrap();
    let launch = stage.launch(["--mount", text(&mount)]);
    let mut hidden = Command::new("unshare");
    hidden
        .args(["--mount", "sh", "-c"])
        .arg("mount -t tmpfs tmpfs /dev && exec \"$@\"")
        .arg("sh")
        .arg(launch.get_program())
        .args(launch.get_args())
        .envs(launch.get_envs().filter_map(|(k, v)| Some((k, v?))));
    fails(
        hidden,
        FAILED,
        &[&["/dev/fuse", "FUSE"], &["install", "modprobe", "load"]],
    );
}

#[test]
fn a_directory_without_permission_is_named() {
    let stage = Stage::new();
    let locked = stage.path("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, PermissionsExt::from_mode(0o500)).unwrap();
    let state = locked.join("state");
    let mount = stage.path("mnt");
    std::fs::create_dir(&mount).unwrap();
    let launch = stage.launch(["--state", text(&state), "--mount", text(&mount)]);
    // Root without capabilities is bound by permissions as everybody is.
    let mut bound = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        bound.args(["--bounding-set=-all", "--inh-caps=-all"]);
    }
    bound
        .arg(launch.get_program())
        .args(launch.get_args())
        .envs(launch.get_envs().filter_map(|(k, v)| Some((k, v?))));
    fails(
        bound,
        FAILED,
        &[&[text(&locked)], &["permission", "Permission"]],
    );
}
