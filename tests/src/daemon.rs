//! Invariant: no process and no mount outlives its [`Daemon`], however the test ends.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest wait for something that normally takes a second or so: machines may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running process that prints one JSON event a line on stdout.
pub struct Daemon {
    child: Child,
    log: Arc<Log>,
    mounts: Vec<PathBuf>,
    status: Option<ExitStatus>,
    leaves_mount: bool,
    /// What a test that fails is told first.
    name: String,
    log_file: Option<(PathBuf, &'static [&'static str])>,
}

/// What it has printed so far.
#[derive(Default)]
struct Log {
    entries: Mutex<Entries>,
    changed: Condvar,
}

#[derive(Default)]
struct Entries {
    events: Vec<Value>,
    /// A line that was no JSON object.
    bad: Option<String>,
    stderr: String,
    /// Pipes that are open; at 0 the process and those that it started have ended.
    open: u8,
}

impl Daemon {
    /// Starts a process; `mounts` are taken away when it is dropped.
    ///
    /// # Panics
    /// If it can't be started.
    pub fn spawn(mut command: Command, mounts: &[&Path]) -> Self {
        let name = Path::new(command.get_program()).file_name();
        let name = name.unwrap_or_default().to_string_lossy().into_owned();
        let first = command.get_args().next().unwrap_or_default();
        let name = format!("{name} {}", first.to_string_lossy());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let log = Arc::new(Log::default());
        log.entries().open = 2;
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let events = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                events.update(|entries| match serde_json::from_str(&line) {
                    Ok(event @ Value::Object(_)) => entries.events.push(event),
                    _ => entries.bad = Some(line),
                });
            }
            events.update(|entries| entries.open -= 1);
        });
        let messages = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut stderr = stderr;
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut buffer) {
                messages.update(|e| e.stderr += &String::from_utf8_lossy(&buffer[..n]));
            }
            messages.update(|entries| entries.open -= 1);
        });
        Self {
            child,
            log,
            mounts: mounts.iter().map(|m| m.to_path_buf()).collect(),
            status: None,
            leaves_mount: false,
            name,
            log_file: None,
        }
    }

    /// Names a file to which it logs instead of stderr: a test that fails shows its last lines that hold one of
    /// these words.
    pub fn logs_to(&mut self, file: &Path, words: &'static [&'static str]) {
        self.log_file = Some((file.to_owned(), words));
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the first event of that name.
    ///
    /// # Panics
    /// If it does not come, with what the process said instead.
    pub fn wait_event(&self, name: &str) -> Value {
        self.wait_for(name, PATIENCE, |event| event["event"] == name)
    }

    /// Waits for the first event that fulfils `wanted`; `what` names it in the message.
    ///
    /// # Panics
    /// If it does not come in time or the process ends before.
    pub fn wait_for(
        &self,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut seen = 0;
        let deadline = Instant::now() + patience;
        loop {
            let event = self.next_until(&mut seen, what, deadline);
            if wanted(&event) {
                return event;
            }
        }
    }

    /// Waits for the event behind the first `seen` ones and counts it as seen.
    ///
    /// # Panics
    /// If none comes.
    pub fn next_event(&self, seen: &mut usize) -> Value {
        self.next_until(seen, "another event", Instant::now() + PATIENCE)
    }

    /// Number of events so far, the start for [`next_event`](Self::next_event) when only later ones matter.
    pub fn event_count(&self) -> usize {
        self.log.entries().events.len()
    }

    /// The latest event of that name.
    ///
    /// # Panics
    /// If there was none.
    pub fn latest(&self, name: &str) -> Value {
        let entries = self.log.entries();
        let latest = entries.events.iter().rev().find(|e| e["event"] == name);
        latest
            .unwrap_or_else(|| panic!("no {name} event: {}", entries.told()))
            .clone()
    }

    /// Where peers connect, as its `ready` event says.
    ///
    /// # Panics
    /// If it does not get ready.
    pub fn listen(&self) -> String {
        self.wait_event("ready")["listen"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// What it wrote on stderr so far.
    pub fn stderr(&self) -> String {
        self.log.entries().stderr.clone()
    }

    /// Waits until it has written `text` on stderr.
    ///
    /// # Panics
    /// If it ends or time passes without that.
    pub fn wait_stderr(&self, text: &str) {
        let entries = self.log.entries();
        let (entries, _) = self
            .log
            .changed
            .wait_timeout_while(entries, PATIENCE, |e| {
                e.open > 0 && !e.stderr.contains(text)
            })
            .unwrap();
        assert!(
            entries.stderr.contains(text),
            "it does not say {text:?}: {}",
            entries.told()
        );
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If it has been waited for already.
    pub fn signal(&self, signal: Signal) {
        assert_eq!(self.status, None, "it has ended");
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn wait_exit(&mut self, patience: Duration) -> ExitStatus {
        if let Some(status) = self.status {
            return status;
        }
        let entries = self.log.entries();
        let (entries, timeout) = self
            .log
            .changed
            .wait_timeout_while(entries, patience, |e| e.open > 0)
            .unwrap();
        assert!(
            !timeout.timed_out(),
            "it does not end within {patience:?}: {}",
            entries.told()
        );
        drop(entries);
        let status = self.child.wait().unwrap();
        self.status = Some(status);
        status
    }

    /// Ends it as a user would (SIGTERM), and gives its `done` event.
    ///
    /// # Panics
    /// If it fails, or does not end.
    pub fn stop(mut self) -> Value {
        self.signal(Signal::TERM);
        let status = self.wait_exit(PATIENCE);
        assert!(status.success(), "{status}: {}", self.told());
        self.latest("done")
    }

    /// Ends it (SIGTERM), whatever it says of that.
    ///
    /// # Panics
    /// If it has ended before, or does not end.
    pub fn end(mut self) {
        self.assert_running();
        self.signal(Signal::TERM);
        self.wait_exit(PATIENCE);
    }

    /// Asserts that it has not ended.
    ///
    /// # Panics
    /// If it has, with what it said.
    pub fn assert_running(&self) {
        assert!(
            self.log.entries().open > 0,
            "{} has ended by itself: {}",
            self.name,
            self.told()
        );
    }

    /// Kills it (SIGKILL); its mounts stay until it is dropped.
    ///
    /// # Panics
    /// If it has ended before.
    pub fn kill(&mut self) {
        assert!(
            self.child.try_wait().unwrap().is_none(),
            "it has ended by itself: {}",
            self.told()
        );
        let _ = self.child.kill();
        self.status = self.child.wait().ok();
    }

    /// Kills it (SIGKILL) and takes its mounts away.
    ///
    /// # Panics
    /// If it has ended before.
    pub fn kill_9(mut self) {
        self.kill();
    }

    /// Kills it (SIGKILL) and leaves its dead mount, as a real kill does: the next launch there has to take it away.
    ///
    /// # Panics
    /// If it has ended before.
    pub fn kill_9_and_leave_the_mount(mut self) {
        self.kill();
        self.leaves_mount = true;
    }

    fn told(&self) -> String {
        self.log.entries().told()
    }

    fn next_until(&self, seen: &mut usize, what: &str, deadline: Instant) -> Value {
        let entries = self.log.entries();
        let patience = deadline.saturating_duration_since(Instant::now());
        let (entries, timeout) = self
            .log
            .changed
            .wait_timeout_while(entries, patience, |e| {
                e.events.len() <= *seen && e.open > 0 && e.bad.is_none()
            })
            .unwrap();
        if let Some(line) = &entries.bad {
            panic!("no JSON object on stdout: {line:?}");
        }
        if let Some(event) = entries.events.get(*seen) {
            *seen += 1;
            return event.clone();
        }
        let why = if timeout.timed_out() {
            "not in time"
        } else {
            "it ended"
        };
        panic!("waiting for {what}: {why}: {}", entries.told());
    }

    fn clean_up(&mut self) {
        if self.status.is_none() {
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
        if self.leaves_mount {
            return;
        }
        // Temporary mount points are known from the event only.
        let ready = {
            let entries = self.log.entries();
            let ready = entries.events.iter().find(|e| e["event"] == "ready");
            ready.and_then(|e| Some(PathBuf::from(e["dir"].as_str()?)))
        };
        for mount in std::mem::take(&mut self.mounts).into_iter().chain(ready) {
            unmount(&mount);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What went wrong may stand on either side of a connection.
            let mut log = String::new();
            if let Some((file, words)) = &self.log_file {
                log = std::fs::read_to_string(file).unwrap_or_default();
                let chosen = |line: &&str| words.iter().any(|word| line.contains(word));
                log = log.lines().filter(chosen).collect::<Vec<_>>().join("\n");
            }
            let told = self.told();
            eprintln!("--- {}: {}\n{}", self.name, tail(&told), tail(&log));
        }
        self.clean_up();
    }
}

impl Log {
    /// A test that failed with the lock held still cleans up.
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Entries)) {
        change(&mut self.entries());
        self.changed.notify_all();
    }
}

impl Entries {
    fn told(&self) -> String {
        let last = self.events.last().map(ToString::to_string);
        format!(
            "last event {}, stderr:\n{}",
            last.as_deref().unwrap_or("none"),
            self.stderr
        )
    }
}

/// The last lines of a text, not too many.
fn tail(text: &str) -> &str {
    const LINES: usize = 60;
    let start = text.trim_end().rmatch_indices('\n').nth(LINES - 1);
    &text[start.map_or(0, |(at, _)| at + 1)..]
}

/// Starts `vmtorrent seed` on a free loopback port and waits until it is ready.
///
/// # Panics
/// If it does not get ready.
pub fn seed(torrent: &Path, data: &Path, options: &[&str]) -> Daemon {
    start_seed(crate::command(), "127.0.0.1:0", torrent, data, options)
}

/// The same on a host of a test network, with its decisions logged.
///
/// # Panics
/// If it does not get ready.
pub fn seed_on(node: &crate::Node, torrent: &Path, data: &Path, options: &[&str]) -> Daemon {
    let mut command = crate::command();
    command.env("RUST_LOG", crate::LOG);
    node.run(|| start_seed(command, &node.at(0), torrent, data, options))
}

fn start_seed(
    mut command: Command,
    listen: &str,
    torrent: &Path,
    data: &Path,
    options: &[&str],
) -> Daemon {
    command
        .arg("seed")
        .arg(torrent)
        .arg("--data")
        .arg(data)
        .args(["--json", "--no-lsd", "--listen", listen])
        .args(options);
    // Not the user's, which other tests have too.
    if options.contains(&"--dht-bootstrap") {
        command.env("XDG_CACHE_HOME", data.join(".cache"));
    } else {
        command.arg("--no-dht");
    }
    let daemon = Daemon::spawn(command, &[]);
    daemon.wait_event("ready");
    daemon
}

/// Takes a mount away at once, if there is one.
pub fn unmount(directory: &Path) {
    if rustix::mount::unmount(directory, UnmountFlags::DETACH).is_err() {
        let _ = Command::new("fusermount3")
            .args(["-u", "-z", "-q"])
            .arg(directory)
            .stderr(Stdio::null())
            .status();
    }
}
