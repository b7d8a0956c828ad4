//! Invariant: whatever a test starts or mounts through this module is gone when its guard is dropped.
//!
//! The demo appliance (tests/appliance), and the machine that boots it through `vmtorrent launch`.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::{Daemon, require};

/// What the helpers give: the error says what was being done.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// Offset of the appliance's file system in its image, bytes.
pub const FILE_SYSTEM_OFFSET: u64 = 1 << 20;

/// Whether this machine can boot the appliance; says so when it can't.
///
/// # Panics
/// If something is missing and `VMTORRENT_REQUIRE` is set.
pub fn can_boot() -> bool {
    crate::fuse() && can_boot_without_fuse()
}

/// The same where FUSE has no part in it.
///
/// # Panics
/// If something is missing and `VMTORRENT_REQUIRE` is set.
pub fn can_boot_without_fuse() -> bool {
    require(geteuid().is_root(), "root")
        && ["qemu-system-x86_64", "debootstrap"]
            .iter()
            .all(|program| require(runs(program), program))
}

fn runs(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

/// The directory that caches the appliance: `$VMTORRENT_DEMO_DIR`, or `.demo` in the repository.
#[must_use]
pub fn directory() -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    match std::env::var_os("VMTORRENT_DEMO_DIR") {
        // The name is relative to where make ran, not to where cargo starts the tests.
        Some(name) => repository.join(name),
        None => repository.join(".demo"),
    }
}

/// The appliance's image, made first when it is not cached yet (a minute, and Debian packages).
///
/// # Errors
/// When it can't be made.
pub fn image() -> Outcome<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("appliance/build.sh");
    run(Command::new(script).arg(directory()))?;
    Ok(fs::canonicalize(directory().join("appliance.img"))?)
}

/// Runs a command to its end and gives its stdout.
///
/// # Errors
/// When it can't be started or fails; the error holds its stderr.
pub fn run(command: &mut Command) -> Outcome<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} ended with {}: {stderr}", output.status).into())
}

/// The SHA-256 of a file, as hexadecimal digits.
///
/// # Errors
/// When the file can't be read.
pub fn sha256(path: &Path) -> Outcome<String> {
    let line = run(Command::new("sha256sum").arg(path))?;
    Ok(line.split(' ').next().unwrap_or_default().to_owned())
}

/// What a guest prints on its serial console.
pub struct Console {
    received: Receiver<String>,
    printed: String,
    socket: PathBuf,
    // Its path has to be short, so it does not live in the work directory.
    _sockets: tempfile::TempDir,
}

impl Console {
    /// Listens for a VMM's serial port. All that comes is kept in the file `log` too, for whoever looks into a failure.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn listen(log: PathBuf) -> Outcome<Self> {
        let sockets = tempfile::tempdir()?;
        let socket = sockets.path().join("console");
        let listener = UnixListener::bind(&socket)?;
        let (sender, received) = mpsc::channel();
        thread::spawn(move || {
            let Ok((mut connection, _)) = listener.accept() else {
                return;
            };
            let mut buffer = [0; 4096];
            let mut all = Vec::new();
            while let Ok(n @ 1..) = connection.read(&mut buffer) {
                all.extend_from_slice(&buffer[..n]);
                // The test itself reads the channel.
                let _ = fs::write(&log, &all);
                let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            received,
            printed: String::new(),
            socket,
            _sockets: sockets,
        })
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The first line that begins with `start`, once it is complete.
    ///
    /// # Errors
    /// When it does not come in time; the error holds the console's end.
    pub fn wait_line(&mut self, start: &str, patience: Duration) -> Outcome<String> {
        let end = Instant::now() + patience;
        loop {
            let complete = self.printed.rfind('\n').unwrap_or(0);
            let lines = self.printed[..complete].lines().map(str::trim);
            if let Some(line) = lines.into_iter().find(|line| line.starts_with(start)) {
                return Ok(line.to_owned());
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.received.recv_timeout(left) {
                Ok(text) => self.printed.push_str(&text),
                Err(error) => {
                    let tail = self.printed.lines().rev().take(15).collect::<Vec<_>>();
                    let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
                    return Err(format!("no line {start:?} ({error}) after:\n{tail}").into());
                }
            }
        }
    }
}

/// QEMU's command line for the appliance; with `stay` the guest does not power off by itself.
#[must_use]
pub fn qemu(console: &Console, pidfile: &Path, drive: &str, stay: bool) -> Vec<OsString> {
    let mut words = [
        "qemu-system-x86_64",
        "-machine",
        "q35,accel=tcg",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "512",
        "-nographic",
        "-monitor",
        "none",
        "-nic",
        "none",
        "-no-reboot",
        "-serial",
    ]
    .map(OsString::from)
    .to_vec();
    words.push(format!("unix:{}", console.socket().display()).into());
    words.extend(["-pidfile".into(), pidfile.into()]);
    words.extend(["-drive".into(), drive.into()]);
    if stay {
        words.extend(["-smbios", "type=1,serial=vmtorrent.stay"].map(OsString::from));
    }
    words
}

/// The appliance as a running machine: `vmtorrent launch ... -- qemu-system-x86_64 ...`.
pub struct Machine {
    /// The launch.
    pub launch: Daemon,
    console: Console,
    pidfile: PathBuf,
}

impl Machine {
    /// Boots it. `launch` is the launch command up to its `--`, without `--mount`, which this adds; `work` is a
    /// directory of its own for this boot; with `stay` the guest does not power off by itself.
    ///
    /// # Errors
    /// When something can't be started.
    pub fn boot(mut launch: Command, work: &Path, stay: bool) -> Outcome<Self> {
        let console = Console::listen(work.join("console.log"))?;
        let mount = work.join("mnt");
        fs::create_dir(&mount)?;
        let pidfile = work.join("qemu.pid");
        launch.arg("--mount").arg(&mount).arg("--json").arg("--");
        let drive =
            "file={disk},format=raw,if=virtio,cache=none,aio=native,rerror=stop,werror=stop";
        launch.args(qemu(&console, &pidfile, drive, stay));
        let launch = Daemon::spawn(launch, &[&mount]);
        Ok(Self {
            launch,
            console,
            pidfile,
        })
    }

    /// The first line on the guest's console that begins with `start`, once it is complete.
    ///
    /// # Errors
    /// When it does not come in time; the error holds the console's end.
    pub fn wait_line(&mut self, start: &str, patience: Duration) -> Outcome<String> {
        let line = self.console.wait_line(start, patience);
        line.map_err(|e| format!("{e}\nlaunch says: {}", self.launch.stderr()).into())
    }

    /// Kills the launch and QEMU with SIGKILL, in this order: nothing is flushed by anyone.
    ///
    /// # Errors
    /// When QEMU is not there to be killed.
    ///
    /// # Panics
    /// If the launch has ended by itself.
    pub fn kill(&mut self) -> Outcome<()> {
        self.launch.kill();
        if !kill_qemu(&self.pidfile) {
            return Err("QEMU was gone before it was killed".into());
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The launch, and its mount with it, end when it is dropped, after this.
        kill_qemu(&self.pidfile);
    }
}

/// Kills the QEMU that wrote this file, if the process of that id still is that one.
pub fn kill_qemu(pidfile: &Path) -> bool {
    let Some(id) = fs::read_to_string(pidfile)
        .ok()
        .and_then(|text| text.trim().parse().ok())
    else {
        return false;
    };
    let arguments = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    let ours = String::from_utf8_lossy(&arguments).contains(&*pidfile.to_string_lossy());
    let Some(pid) = Pid::from_raw(id).filter(|_| ours) else {
        return false;
    };
    kill_process(pid, Signal::KILL).is_ok()
}

/// Whether something is mounted there, be its server alive or not.
#[must_use]
pub fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let path = path.to_string_lossy();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(&path))
}
