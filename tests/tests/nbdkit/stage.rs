//! A plugin that was built for the test, and what it serves: from a directory, of a seed, at a socket.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use vmtorrent_tests::appliance::Outcome;
use vmtorrent_tests::c_library::repository;
use vmtorrent_tests::{CLibrary, Daemon, Reference, publish, require, seed};

use super::{LENGTH, PATIENCE};

/// The plugin, and an image to be served.
pub(super) struct Stage {
    dir: TempDir,
    pub(super) plugin: PathBuf,
    pub(super) image: Reference,
    pub(super) torrent: PathBuf,
}

/// The programs that serve and the clients that look.
pub(super) fn can_serve() -> bool {
    let programs = ["nbdkit", "nbdinfo", "nbdcopy", "qemu-img", "qemu-io"];
    let missing = |program: &&str| Command::new(program).arg("--version").output().is_err();
    let header = Path::new("/usr/include/nbdkit-plugin.h").is_file();
    let missing = programs.into_iter().find(missing);
    let missing = missing.or((!header).then_some("nbdkit-plugin.h"));
    require(missing.is_none(), missing.unwrap_or_default())
}

/// Whether a socket is there and does not listen yet: for a moment nobody can connect to it then (the column of flags
/// in /proc/net/unix, in which `__SO_ACCEPTCON` is 0x10000).
fn is_bound_only(socket: &Path) -> bool {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let path = socket.display().to_string();
    let mut ours = sockets.lines().filter(|line| line.ends_with(&path));
    ours.any(|line| line.split_whitespace().nth(3) == Some("00000000"))
}

/// Waits until a server listens there.
pub(super) fn wait_for_socket(server: &Daemon, socket: &Path) {
    let begin = Instant::now();
    while !socket.exists() || is_bound_only(socket) {
        server.assert_running();
        assert!(begin.elapsed() < PATIENCE, "nbdkit does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Stage {
    pub(super) fn new() -> Option<Self> {
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

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn seed(&self) -> Daemon {
        seed(&self.torrent, &self.path("data"), &[])
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.path("socket")
    }

    pub(super) fn uri(&self) -> String {
        self.uri_of("")
    }

    pub(super) fn uri_of(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket().display())
    }

    /// `nbdkit` with the plugin, so far that parameters may follow.
    pub(super) fn nbdkit(&self, options: &[&str]) -> Command {
        let mut command = Command::new("nbdkit");
        command.current_dir(self.dir.path()).args(options);
        command.arg("-U").arg(self.socket()).arg(&self.plugin);
        command
    }

    /// Parameters of a host of its own that knows no peer.
    pub(super) fn alone(&self, torrent: &Path) -> Vec<String> {
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
    pub(super) fn serve(&self, parameters: &[String]) -> Daemon {
        let mut command = self.nbdkit(&["-f"]);
        command.args(parameters);
        let daemon = Daemon::spawn(command, &[]);
        wait_for_socket(&daemon, &self.socket());
        daemon
    }

    /// The usual one: its only peer is `source`.
    pub(super) fn serve_from(&self, source: &Daemon, more: &[&str]) -> Daemon {
        let mut parameters = self.alone(&self.torrent);
        parameters.push(format!("peer={}", source.listen()));
        parameters.extend(more.iter().map(|&p| p.to_owned()));
        self.serve(&parameters)
    }

    /// Ends a server in order: it must say nothing of it.
    pub(super) fn end(&self, mut server: Daemon) {
        server.signal(Signal::TERM);
        let status = server.wait_exit(PATIENCE);
        assert!(status.success(), "{status}: {}", server.stderr());
        assert_eq!(server.stderr(), "");
        let _ = fs::remove_file(self.socket());
    }

    /// Runs commands of `qemu-io`; its output.
    pub(super) fn io(&self, commands: &[&str]) -> Outcome<String> {
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
