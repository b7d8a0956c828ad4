//! Invariant: whatever a test starts or mounts through this module is gone when its guard is dropped.
//!
//! The demo appliance (tests/appliance), and the machine that boots it through `vmtorrent launch`.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;

/// What the helpers give: the error says what was being done.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// Offset of the appliance's file system in its image, bytes.
pub const FILE_SYSTEM_OFFSET: u64 = 1 << 20;

/// Whether this machine can boot the appliance; if not, says so, and fails where a skip is not allowed.
///
/// # Errors
/// When something is missing and `VMTORRENT_REQUIRE` is set.
pub fn can_boot() -> Outcome<bool> {
    let missing = if !geteuid().is_root() {
        "root"
    } else if !Path::new("/dev/fuse").exists() {
        "/dev/fuse"
    } else if !runs("qemu-system-x86_64") {
        "qemu-system-x86_64"
    } else if !runs("debootstrap") {
        "debootstrap"
    } else {
        return Ok(true);
    };
    if std::env::var_os("VMTORRENT_REQUIRE").is_some() {
        return Err(format!("{missing} is missing, and VMTORRENT_REQUIRE forbids to skip").into());
    }
    eprintln!("skipped: {missing} is missing");
    Ok(false)
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

/// The `vmtorrent` command: `$VMTORRENT_BIN`, or the one that cargo put beside the tests.
///
/// # Errors
/// When it has not been built.
pub fn binary() -> Outcome<PathBuf> {
    let path = match std::env::var_os("VMTORRENT_BIN") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?
            .ancestors()
            .nth(2)
            .map(|profile| profile.join("vmtorrent"))
            .unwrap_or_default(),
    };
    if path.is_file() {
        return Ok(path);
    }
    Err(format!(
        "{} is missing: cargo build -p vmtorrent-cli",
        path.display()
    )
    .into())
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

/// A `vmtorrent ... --json` process: its events come from [`Self::wait_event`]. Killed when dropped.
#[derive(Debug)]
pub struct Service {
    child: Child,
    events: Receiver<Value>,
    seen: Vec<Value>,
    log: PathBuf,
}

impl Service {
    /// Starts it, with its stderr going to the file `log`.
    ///
    /// # Errors
    /// When the program can't be started.
    pub fn start(command: &mut Command, log: &Path) -> Outcome<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(log)?)
            .spawn()
            .map_err(|e| format!("{command:?}: {e}"))?;
        let stdout = child.stdout.take().ok_or("no pipe for stdout")?;
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            events,
            seen: Vec::new(),
            log: log.to_owned(),
        })
    }

    /// The next event of that name.
    ///
    /// # Errors
    /// When it does not come in time or the process ends before.
    pub fn wait_event(&mut self, name: &str, patience: Duration) -> Outcome<Value> {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => {
                    self.seen.push(event.clone());
                    if event["event"] == name {
                        return Ok(event);
                    }
                }
                Err(error) => return Err(self.failure(&format!("no event {name}: {error}"))),
            }
        }
    }

    /// The last event of that name so far.
    pub fn last_event(&mut self, name: &str) -> Option<Value> {
        self.seen.extend(self.events.try_iter());
        self.seen.iter().rfind(|e| e["event"] == name).cloned()
    }

    /// Its exit status, once it has ended.
    ///
    /// # Errors
    /// When it still runs after that time.
    pub fn wait(&mut self, patience: Duration) -> Outcome<ExitStatus> {
        let end = Instant::now() + patience;
        // A child's end has no event in std that a timeout could be put on.
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(self.failure("it did not end"))
    }

    /// Ends it as a power cut would: no handler runs.
    ///
    /// # Errors
    /// When the process can't be waited for.
    pub fn kill(&mut self) -> Outcome<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// An error that shows the end of the log.
    #[must_use]
    pub fn failure(&self, what: &str) -> Box<dyn Error> {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log[log.len().saturating_sub(4096)..]).into_owned();
        format!("{what}; {} ends with: {log}", self.log.display()).into()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // A tidy end first, so that launch unmounts; it had its chance when the test failed.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
                let _ = kill_process(pid, Signal::TERM);
            }
            if self.wait(Duration::from_secs(15)).is_err() {
                let _ = self.kill();
            }
        }
    }
}

/// The appliance as a running machine: `vmtorrent launch ... -- qemu-system-x86_64 ...`.
#[derive(Debug)]
pub struct Machine {
    /// The launch.
    pub launch: Service,
    console: Receiver<String>,
    printed: String,
    pidfile: PathBuf,
    mount: PathBuf,
    // Its path has to be short, so it does not live in the work directory.
    _sockets: tempfile::TempDir,
}

impl Machine {
    /// Boots it. `launch` is the launch command up to its `--`, without `--mount`, which this adds; `work` is a
    /// directory of its own for this boot; with `stay` the guest does not power off by itself.
    ///
    /// # Errors
    /// When something can't be started.
    pub fn boot(mut launch: Command, work: &Path, stay: bool) -> Outcome<Self> {
        let sockets = tempfile::tempdir()?;
        let socket = sockets.path().join("console");
        let listener = UnixListener::bind(&socket)?;
        let (sender, console) = mpsc::channel();
        let log = work.join("console.log");
        thread::spawn(move || {
            let Ok((mut connection, _)) = listener.accept() else {
                return;
            };
            let mut buffer = [0; 4096];
            let mut all = Vec::new();
            while let Ok(n @ 1..) = connection.read(&mut buffer) {
                all.extend_from_slice(&buffer[..n]);
                // For whoever looks into a failure; the test itself reads the channel.
                let _ = fs::write(&log, &all);
                let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });

        let mount = work.join("mnt");
        fs::create_dir(&mount)?;
        let pidfile = work.join("qemu.pid");
        launch.arg("--mount").arg(&mount).arg("--json").arg("--");
        launch.args(["qemu-system-x86_64", "-machine", "q35,accel=tcg"]);
        launch.args(["-cpu", "max", "-smp", "2", "-m", "512"]);
        launch.args([
            "-nographic",
            "-monitor",
            "none",
            "-nic",
            "none",
            "-no-reboot",
        ]);
        launch
            .arg("-serial")
            .arg(format!("unix:{}", socket.display()));
        launch.arg("-pidfile").arg(&pidfile);
        launch.args([
            "-drive",
            "file={disk},format=raw,if=virtio,cache=none,aio=native,rerror=stop,werror=stop",
        ]);
        if stay {
            launch.args(["-smbios", "type=1,serial=vmtorrent.stay"]);
        }
        let launch = Service::start(&mut launch, &work.join("launch.log"))?;
        Ok(Self {
            launch,
            console,
            printed: String::new(),
            pidfile,
            mount,
            _sockets: sockets,
        })
    }

    /// The first line on the guest's console that begins with `start`, once it is complete.
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
            match self.console.recv_timeout(left) {
                Ok(text) => self.printed.push_str(&text),
                Err(error) => {
                    let tail = self.printed.lines().rev().take(15).collect::<Vec<_>>();
                    let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
                    let what = format!("no line {start:?} ({error}) after:\n{tail}\n");
                    return Err(self.launch.failure(&what));
                }
            }
        }
    }

    /// Kills the launch and QEMU with SIGKILL, in this order: nothing is flushed by anyone.
    ///
    /// # Errors
    /// When the launch can't be waited for, or QEMU is not there to be killed.
    pub fn kill(&mut self) -> Outcome<()> {
        self.launch.kill()?;
        if !kill_qemu(&self.pidfile) {
            return Err("QEMU was gone before it was killed".into());
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        kill_qemu(&self.pidfile);
        // A launch whose VMM has ended ends by itself; the mount goes last.
        let _ = self.launch.wait(Duration::from_secs(15));
        let _ = self.launch.kill();
        if is_mounted(&self.mount) {
            let _ = Command::new("umount").arg("-l").arg(&self.mount).status();
        }
    }
}

/// Kills the QEMU that wrote this file, if the process of that id still is that one.
fn kill_qemu(pidfile: &Path) -> bool {
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
