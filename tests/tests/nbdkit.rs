//! `ffi/examples/nbdkit-vmtorrent-plugin.c`: a disk of a swarm over NBD, as nbdkit's clients and QEMU see it.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;
use vmtorrent::image::default_piece_size;
use vmtorrent_tests::appliance::{self, Console, Outcome, kill_qemu, qemu, run, sha256};
use vmtorrent_tests::c_library::repository;
use vmtorrent_tests::{CLibrary, Daemon, PIECE, Reference, assert_same, publish, require, seed};

const PATIENCE: Duration = Duration::from_secs(60);
const BOOT: Duration = Duration::from_secs(300);
const LENGTH: usize = 32 * PIECE + 512;
const NOBODY: u32 = 65_534;

/// The plugin, and an image to be served.
struct Stage {
    dir: TempDir,
    plugin: PathBuf,
    image: Reference,
    torrent: PathBuf,
}

fn can_serve() -> bool {
    let programs = ["nbdkit", "nbdinfo", "nbdcopy", "qemu-img", "qemu-io"];
    let missing = |program: &&str| Command::new(program).arg("--version").output().is_err();
    let header = Path::new("/usr/include/nbdkit-plugin.h").is_file();
    let missing = programs.into_iter().find(missing);
    let missing = missing.or((!header).then_some("nbdkit-plugin.h"));
    require(missing.is_none(), missing.unwrap_or_default())
}

impl Stage {
    fn new() -> Option<Self> {
        if !can_serve() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        // Another user may look into it.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let library = CLibrary::find()?.copy_to(dir.path());
        let plugin = dir.path().join("nbdkit-vmtorrent-plugin.so");
        let source = repository("ffi/examples/nbdkit-vmtorrent-plugin.c");
        library.compile(&source, &plugin, &["-shared", "-fPIC"]);
        let image = Reference::new(LENGTH, 11);
        fs::create_dir(dir.path().join("data")).unwrap();
        let original = dir.path().join("data/disk.img");
        image.write_to(&original);
        let torrent = dir.path().join("disk.torrent");
        publish(&original, &torrent, &[]);
        Some(Self {
            dir,
            plugin,
            image,
            torrent,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn seed(&self) -> Daemon {
        seed(&self.torrent, &self.path("data"), &[])
    }

    fn socket(&self) -> PathBuf {
        self.path("socket")
    }

    fn uri(&self) -> String {
        self.uri_of("")
    }

    fn uri_of(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket().display())
    }

    /// `nbdkit` with the plugin, so far that parameters may follow.
    fn nbdkit(&self, options: &[&str]) -> Command {
        let mut command = Command::new("nbdkit");
        command.current_dir(self.dir.path()).args(options);
        command.arg("-U").arg(self.socket()).arg(&self.plugin);
        command
    }

    /// Parameters of a host of its own that knows no peer.
    fn alone(&self, torrent: &Path) -> Vec<String> {
        let torrent = torrent.display().to_string();
        [
            &*torrent,
            "state=state",
            "cache=cache",
            "listen=127.0.0.1:0",
            "discovery=false",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// A server in the foreground.
    fn serve(&self, parameters: &[String]) -> Daemon {
        let mut command = self.nbdkit(&["-f"]);
        command.args(parameters);
        let daemon = Daemon::spawn(command, &[]);
        self.wait_for_socket(|| daemon.assert_running());
        daemon
    }

    /// The usual one: its only peer is `source`.
    fn serve_from(&self, source: &Daemon, more: &[&str]) -> Daemon {
        let mut parameters = self.alone(&self.torrent);
        parameters.push(format!("peer={}", source.listen()));
        parameters.extend(more.iter().map(|&p| p.to_owned()));
        self.serve(&parameters)
    }

    fn wait_for_socket(&self, check: impl Fn()) {
        let begin = Instant::now();
        while !self.socket().exists() {
            check();
            assert!(begin.elapsed() < PATIENCE, "nbdkit does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends a server in order: it must say nothing of it.
    fn end(&self, mut server: Daemon) {
        server.signal(Signal::TERM);
        let status = server.wait_exit(PATIENCE);
        assert!(status.success(), "{status}: {}", server.stderr());
        assert_eq!(server.stderr(), "");
        let _ = fs::remove_file(self.socket());
    }

    /// Runs commands of `qemu-io`; its output.
    fn io(&self, commands: &[&str]) -> Outcome<String> {
        let mut command = Command::new("qemu-io");
        command.args(["-f", "raw", "-d", "unmap", "-t", "none"]);
        for text in commands {
            command.args(["-c", text]);
        }
        let output = command.arg(self.uri()).stdin(Stdio::null()).output()?;
        // Some failures end it with status 0.
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if !output.status.success() || told.contains("failed") {
            return Err(told.into());
        }
        Ok(told)
    }
}

fn json(command: &mut Command) -> Value {
    serde_json::from_str(&run(command).unwrap()).unwrap()
}

/// Where holes are, as (offset, length) in order, neighbours put together.
fn holes(extents: &Value, is_hole: impl Fn(&Value) -> bool, start: &str) -> Vec<(u64, u64)> {
    let mut found: Vec<(u64, u64)> = Vec::new();
    for extent in extents.as_array().unwrap().iter().filter(|e| is_hole(e)) {
        let (at, length) = (
            extent[start].as_u64().unwrap(),
            extent["length"].as_u64().unwrap(),
        );
        match found.last_mut() {
            Some(last) if last.0 + last.1 == at => last.1 += length,
            _ => found.push((at, length)),
        }
    }
    found
}

/// What nbdinfo and qemu-img say of holes; they must agree.
fn holes_of(uri: &str) -> Vec<(u64, u64)> {
    let map = json(Command::new("nbdinfo").args(["--map", "--json", uri]));
    let by_nbdinfo = holes(&map, |e| e["type"] == 3, "offset");
    let map = json(Command::new("qemu-img").args(["map", "-f", "raw", "--output=json", uri]));
    let by_qemu = holes(&map, |e| e["zero"] == true && e["data"] == false, "start");
    assert_eq!(
        by_nbdinfo, by_qemu,
        "nbdinfo and qemu-img tell of other holes"
    );
    by_nbdinfo
}

#[test]
fn clients_see_the_size_the_holes_and_the_bytes() {
    let Some(stage) = Stage::new() else { return };
    let source = stage.seed();
    let server = stage.serve_from(&source, &["fill=none"]);
    let uri = stage.uri();

    let info = json(Command::new("nbdinfo").args(["--json", &uri]));
    let export = &info["exports"][0];
    assert_eq!(export["export-size"], LENGTH, "{info}");
    assert_eq!(export["is_read_only"], false, "{info}");
    for able in [
        "multi_conn",
        "flush",
        "trim",
        "zero",
        "fast_zero",
        "fua",
        "cache",
        "df",
    ] {
        assert_eq!(export[format!("can_{able}")], true, "can_{able}: {info}");
    }
    assert_eq!(export["block_size_minimum"], 1, "{info}");
    assert_eq!(export["block_size_preferred"], 4096, "{info}");
    let contexts = export["contexts"].as_array().unwrap();
    assert!(contexts.contains(&"base:allocation".into()), "{info}");

    // Known from the hashes: nothing has been downloaded yet.
    let piece = PIECE as u64;
    let zeros = [(5 * piece, 2 * piece), (21 * piece, 2 * piece)];
    assert_eq!(holes_of(&uri), zeros);

    let copy = stage.path("copy.img");
    run(Command::new("nbdcopy").arg(&uri).arg(&copy)).unwrap();
    assert_same(&copy, stage.image.bytes(), "copied by nbdcopy");
    assert_eq!(holes_of(&uri), zeros, "after all was downloaded");

    let original = stage.path("data/disk.img");
    let compare = |a: &Path, format: &str| {
        let formats = ["compare", "-f", format, "-F", "raw"];
        run(Command::new("qemu-img").args(formats).arg(a).arg(&uri)).unwrap();
    };
    compare(&original, "raw");
    let converted = stage.path("copy.qcow2");
    let convert = ["convert", "-f", "raw", "-O", "qcow2", &uri];
    run(Command::new("qemu-img").args(convert).arg(&converted)).unwrap();
    compare(&converted, "qcow2");
    stage.end(server);
}

#[test]
fn what_clients_write_zero_and_trim_is_there_and_outlives_the_server() {
    let Some(stage) = Stage::new() else { return };
    let source = stage.seed();
    let mut server = stage.serve_from(&source, &["fill=none"]);
    let piece = PIECE as u64;
    let mut expected = stage.image.bytes().to_vec();
    let written = [
        // Whole blocks, with FUA.
        "write -f -P 0x5a 8192 8192".to_owned(),
        // Parts of blocks, of which the rest has to be fetched.
        "write -P 0x11 70000 512".to_owned(),
        format!("write -P 0x22 {} 512", 32 * piece),
        // Zeros: a hole, whether they may be trimmed or not; and across the edges of blocks.
        format!("write -z {} {piece}", 2 * piece),
        format!("write -z -u {} {piece}", 8 * piece),
        format!("write -z {} 10000", 10 * piece + 100),
        format!("discard {} {piece}", 13 * piece),
        "flush".to_owned(),
    ];
    expected[8192..16384].fill(0x5a);
    expected[70_000..70_512].fill(0x11);
    expected[32 * PIECE..].fill(0x22);
    for at in [2, 8, 13] {
        expected[at * PIECE..(at + 1) * PIECE].fill(0);
    }
    expected[10 * PIECE + 100..10 * PIECE + 10_100].fill(0);
    let written = written.each_ref().map(String::as_str);
    stage.io(&written).unwrap();

    let is_there = |when: &str| {
        let copy = stage.path("copy.img");
        let _ = fs::remove_file(&copy);
        run(Command::new("nbdcopy").arg(stage.uri()).arg(&copy)).unwrap();
        assert_same(&copy, &expected, when);
        let holes = holes_of(&stage.uri());
        for at in [2, 8, 13] {
            let whole = |&(start, length): &(u64, u64)| {
                start <= at * piece && start + length >= (at + 1) * piece
            };
            assert!(
                holes.iter().any(whole),
                "{when}: piece {at} is no hole: {holes:?}"
            );
        }
    };
    is_there("at once");

    // What was flushed is there after a kill, too.
    server.kill();
    drop(server);
    fs::remove_file(stage.socket()).unwrap();
    let server = stage.serve_from(&source, &["fill=none"]);
    is_there("after kill -9");
    stage.end(server);
    let server = stage.serve_from(&source, &[]);
    is_there("after an orderly end");
    stage.end(server);
}

#[test]
fn in_the_background_relative_names_mean_where_it_was_started() {
    let Some(stage) = Stage::new() else { return };
    let source = stage.seed();
    let mut command = stage.nbdkit(&["-P", "pid"]);
    command.args(stage.alone(Path::new("disk.torrent")));
    command.arg(format!("peer={}", source.listen()));
    // It goes on in a child, whose ends of our pipes would keep us waiting.
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    // The child writes its number when it listens.
    let begin = Instant::now();
    let pid = loop {
        let text = fs::read_to_string(stage.path("pid")).unwrap_or_default();
        if let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) {
            break pid;
        }
        assert!(begin.elapsed() < PATIENCE, "nbdkit does not listen");
        std::thread::sleep(Duration::from_millis(10));
    };
    let there = stage.io(&["write -P 7 0 4096", "read -P 7 0 4096", "read 65536 4096"]);
    kill_process(pid, Signal::TERM).unwrap();
    there.unwrap();
    let begin = Instant::now();
    while test_kill_process(pid).is_ok() {
        assert!(begin.elapsed() < PATIENCE, "nbdkit does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(stage.path("state/state.json").is_file());
    assert!(stage.path("cache").is_dir());
}

#[test]
fn a_read_that_waits_holds_up_neither_the_end_nor_other_reads() {
    let Some(stage) = Stage::new() else { return };
    // Nobody has the image.
    let mut parameters = stage.alone(&stage.torrent);
    parameters.push("read-timeout=0".to_owned());
    let mut server = stage.serve(&parameters);
    let mut waiting = Command::new("qemu-io");
    waiting
        .args(["-f", "raw", "-c", "read 0 4096"])
        .arg(stage.uri());
    let mut gone = waiting
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut waiting = waiting
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Zeros are there without anybody.
    stage
        .io(&[&format!("read -P 0 {} 65536", 5 * PIECE)])
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    // A client that goes is noticed.
    gone.kill().unwrap();
    gone.wait().unwrap();
    server.wait_stderr("aborting sleep");
    assert!(
        waiting.try_wait().unwrap().is_none(),
        "the other read does not wait"
    );

    let begin = Instant::now();
    server.signal(Signal::TERM);
    let status = server.wait_exit(PATIENCE);
    assert!(status.success(), "{status}: {}", server.stderr());
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
    waiting.wait().unwrap();
}

#[test]
fn a_read_that_failed_gives_the_client_an_error_and_nbdkit_the_reason() {
    let Some(stage) = Stage::new() else { return };
    let mut parameters = stage.alone(&stage.torrent);
    parameters.push("read-timeout=0.2".to_owned());
    let server = stage.serve(&parameters);
    let error = stage.io(&["read 0 4096"]).unwrap_err().to_string();
    assert!(error.contains("Input/output error"), "{error}");
    server.wait_stderr("a read at 0 got no data in time");
    // It goes on.
    stage
        .io(&["write -P 7 0 4096", "read -P 7 0 4096"])
        .unwrap();
    server.end();
}

#[test]
fn each_file_of_an_image_is_an_export() {
    let Some(mut stage) = Stage::new() else {
        return;
    };
    let files = stage.path("data/set");
    fs::create_dir_all(files.join("disks")).unwrap();
    let small = Reference::new(3 * PIECE, 5);
    stage.image.write_to(&files.join("disks/root.img"));
    small.write_to(&files.join("disks/swap.img"));
    stage.torrent = stage.path("set.torrent");
    publish(&files, &stage.torrent, &[]);
    let source = stage.seed();
    let copy = stage.path("copy.img");
    let copied = |uri: String| {
        let _ = fs::remove_file(&copy);
        run(Command::new("nbdcopy").arg(uri).arg(&copy)).map(|_| ())
    };

    let server = stage.serve_from(&source, &[]);
    let list = json(Command::new("nbdinfo").args(["--list", "--json", &stage.uri()]));
    let exports = list["exports"].as_array().unwrap();
    let sizes = exports.iter().map(|e| {
        (
            e["export-name"].as_str().unwrap(),
            e["export-size"].as_u64(),
        )
    });
    let sizes: Vec<_> = sizes.collect();
    assert_eq!(
        sizes,
        [
            ("disks/root.img", Some(LENGTH as u64)),
            ("disks/swap.img", Some(3 * PIECE as u64))
        ]
    );
    copied(stage.uri_of("disks/swap.img")).unwrap();
    assert_same(&copy, small.bytes(), "by its name");
    copied(stage.uri()).unwrap();
    assert_same(&copy, stage.image.bytes(), "the largest file");
    assert!(copied(stage.uri_of("disks/none.img")).is_err());
    let told = server.stderr();
    assert!(told.contains("disks/none.img"), "{told}");
    server.end();
    let _ = fs::remove_file(stage.socket());

    // One that was named is the only one.
    let server = stage.serve_from(&source, &["file=disks/swap.img"]);
    copied(stage.uri()).unwrap();
    assert_same(&copy, small.bytes(), "the file that was named");
    stage.end(server);
}

#[test]
fn wrong_parameters_are_told_with_their_remedy() {
    let Some(stage) = Stage::new() else { return };
    let torrent = stage.torrent.display().to_string();
    for (parameters, told) in [
        (vec![], "source is missing"),
        (vec!["none.torrent"], "none.torrent"),
        (vec![&*torrent, "fill=some"], "write none, idle or full"),
        (vec![&*torrent, "spin=fast"], "spin"),
        (vec![&*torrent, "peer=here"], "192.0.2.7:6881"),
        (vec![&*torrent, &*torrent], "one source only"),
        (
            vec![
                &*torrent,
                "file=other.img",
                "ephemeral=true",
                "cache=c",
                "listen=127.0.0.1:0",
                "discovery=false",
            ],
            "other.img",
        ),
    ] {
        let output = stage
            .nbdkit(&["-f"])
            .args(&parameters)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{parameters:?}");
        assert!(stderr.contains(told), "{parameters:?}: {stderr}");
        let _ = fs::remove_file(stage.socket());
    }

    let about = run(Command::new("nbdkit")
        .arg("--dump-plugin")
        .arg(&stage.plugin))
    .unwrap();
    for line in [
        "name=vmtorrent",
        "thread_model=parallel",
        "vmtorrent_abi=1",
        "vmtorrent_option_read-timeout=Sec",
    ] {
        assert!(
            about.lines().any(|l| l.starts_with(line)),
            "{line}: {about}"
        );
    }
    let version = concat!("vmtorrent_version=", env!("CARGO_PKG_VERSION"));
    assert!(about.lines().any(|l| l == version), "{about}");
    let help = run(Command::new("nbdkit").arg("--help").arg(&stage.plugin)).unwrap();
    assert!(help.contains("KEY=VALUE"), "{help}");
}

/// A QEMU and an nbdkit of nobody, who sees no FUSE.
struct Machine {
    server: Daemon,
    vmm: Daemon,
    console: Console,
    pidfile: PathBuf,
}

impl Machine {
    fn boot(stage: &Stage, work: &Path, parameters: &[String]) -> Outcome<Self> {
        fs::create_dir(work)?;
        chown(work, Some(NOBODY), Some(NOBODY))?;
        let as_nobody = |program: &str| {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--inh-caps=-all",
            ]);
            command.arg(program).current_dir(work);
            command
        };
        let socket = work.join("socket");
        let mut nbdkit = as_nobody("nbdkit");
        nbdkit
            .arg("-f")
            .arg("-U")
            .arg(&socket)
            .arg(&stage.plugin)
            .args(parameters);
        let server = Daemon::spawn(nbdkit, &[]);
        let begin = Instant::now();
        while !socket.exists() {
            server.assert_running();
            if begin.elapsed() > PATIENCE {
                return Err("nbdkit does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let console = Console::listen(work.join("console.log"))?;
        let console_socket = console.socket();
        for path in [
            console_socket,
            console_socket.parent().unwrap_or(console_socket),
        ] {
            chown(path, Some(NOBODY), Some(NOBODY))?;
        }
        let pidfile = work.join("qemu.pid");
        let drive = format!(
            "file=nbd+unix:///?socket={},format=raw,if=virtio,cache=none,discard=unmap,rerror=stop,werror=stop",
            socket.display()
        );
        let words = qemu(&console, &pidfile, &drive, false);
        let mut vmm = as_nobody("qemu-system-x86_64");
        vmm.args(&words[1..]);
        Ok(Self {
            server,
            vmm: Daemon::spawn(vmm, &[]),
            console,
            pidfile,
        })
    }

    fn wait_line(&mut self, start: &str) -> Outcome<String> {
        let line = self.console.wait_line(start, BOOT);
        line.map_err(|e| {
            format!(
                "{e}\nnbdkit: {}\nqemu: {}",
                self.server.stderr(),
                self.vmm.stderr()
            )
            .into()
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        kill_qemu(&self.pidfile);
    }
}

#[test]
fn qemu_boots_the_appliance_as_an_ordinary_user_and_without_fuse() -> Outcome<()> {
    if !can_serve() || !appliance::can_boot_without_fuse() {
        return Ok(());
    }
    let Some(stage) = Stage::new() else {
        return Ok(());
    };
    let image = appliance::image()?;
    let original = sha256(&image)?;
    let torrent = stage.path("appliance.torrent");
    let piece = default_piece_size(fs::metadata(&image)?.len()).to_string();
    publish(&image, &torrent, &["--piece-size", &piece]);
    let source = seed(&torrent, &appliance::directory(), &[]);
    let home = stage.path("home");
    fs::create_dir(&home)?;
    chown(&home, Some(NOBODY), Some(NOBODY))?;
    let mut parameters = stage.alone(&torrent);
    parameters.retain(|p| !p.starts_with("state=") && !p.starts_with("cache="));
    parameters.push(format!("state={}", home.join("state").display()));
    parameters.push(format!("cache={}", home.join("cache").display()));
    parameters.push(format!("peer={}", source.listen()));
    parameters.push("fill=none".to_owned());

    for (boot, data) in [(1, "none"), (2, "ok")] {
        let mut machine = Machine::boot(&stage, &stage.path(&format!("boot{boot}")), &parameters)?;
        let line = machine.wait_line("VMTORRENT-DEMO-BOOT")?;
        assert_eq!(line, format!("VMTORRENT-DEMO-BOOT n={boot} data={data}"));
        let server = format!("/proc/{}", machine.server.pid());
        let status = fs::read_to_string(format!("{server}/status"))?;
        let uids = status
            .lines()
            .find(|l| l.starts_with("Uid:"))
            .unwrap_or_default();
        assert_eq!(uids.split_whitespace().nth(2), Some("65534"), "{uids}");
        for descriptor in fs::read_dir(format!("{server}/fd"))? {
            let target = fs::read_link(descriptor?.path()).unwrap_or_default();
            assert_ne!(target, Path::new("/dev/fuse"), "it uses FUSE");
        }
        let line = machine.wait_line("VMTORRENT-DEMO-READY")?;
        assert!(line.contains("page=ok"), "{line}");
        let status = machine.vmm.wait_exit(BOOT);
        assert!(status.success(), "{}", machine.vmm.stderr());
        machine.server.signal(Signal::TERM);
        let status = machine.server.wait_exit(PATIENCE);
        assert!(status.success(), "{}", machine.server.stderr());
        assert_eq!(machine.server.stderr(), "");
    }
    assert_eq!(sha256(&image)?, original, "the original was written to");
    Ok(())
}
