//! Invariant: a process is signalled only while it was not waited for, so its id can't be another's.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::plan::{Argv, Step};
use crate::error::{Error, ErrorKind, Result};

/// How long one command before or after the VMM may run.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// Between two tries of a step.
const RETRY: Duration = Duration::from_secs(1);

/// How often a process is looked at elsewhere than on Unix.
const LOOK: Duration = Duration::from_millis(50);

/// What a failed command's output is shortened to, bytes.
pub(super) const TOLD: u64 = 2000;

/// What the supervisor is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// End the machine in order.
    Stop,
    /// End it at once.
    Kill,
    /// The process with this number has ended, but was not waited for.
    #[cfg_attr(not(unix), expect(dead_code, reason = "processes are asked there"))]
    Exited(u64),
}

/// What it was asked for, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    Nothing,
    Stop,
    Kill,
}

/// What ended a wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Woken {
    Ended,
    Asked,
    Late,
}

/// A process that was started and not waited for.
pub(super) struct Running {
    pub(super) child: Child,
    number: u64,
    #[cfg(unix)]
    group: bool,
}

impl Running {
    /// SIGTERM, where there is such a thing.
    pub(super) fn terminate(&mut self, name: &str) {
        #[cfg(unix)]
        {
            use rustix::process::{Pid, Signal, kill_process};
            if let Some(pid) = Pid::from_raw(self.child.id() as i32)
                && let Err(e) = kill_process(pid, Signal::TERM)
            {
                tracing::warn!("SIGTERM to the VMM {name}: {e}");
            }
        }
        #[cfg(not(unix))]
        self.kill(name);
    }

    /// Tells whether it is the first of a group of its own.
    pub(super) fn leads_group(&mut self, leads: bool) {
        #[cfg(unix)]
        {
            self.group = leads;
        }
        #[cfg(not(unix))]
        let _ = leads;
    }

    /// Kills it, and all of its group if that is its own.
    pub(super) fn kill(&mut self, name: &str) {
        #[cfg(unix)]
        if self.group {
            use rustix::process::{Pid, Signal, kill_process_group};
            if let Some(pid) = Pid::from_raw(self.child.id() as i32)
                && kill_process_group(pid, Signal::KILL).is_ok()
            {
                return;
            }
        }
        if let Err(e) = self.child.kill() {
            tracing::warn!("ending {name}: {e}");
        }
    }
}

impl Drop for Running {
    /// On the way of an error: nothing is left to run.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill("the VMM");
            if let Err(e) = self.child.wait() {
                tracing::warn!("wait for the VMM: {e}");
            }
        }
    }
}

/// Where messages arrive, and processes are waited for.
pub(super) struct Desk {
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    pub(super) asked: Asked,
    exited: Vec<u64>,
    numbers: u64,
}

impl Desk {
    /// An empty one, and where it is sent what is asked.
    pub(super) fn new() -> (Sender<Message>, Self) {
        let (sender, receiver) = mpsc::channel();
        let desk = Self {
            sender: sender.clone(),
            receiver,
            asked: Asked::Nothing,
            exited: Vec::new(),
            numbers: 0,
        };
        (sender, desk)
    }

    /// Runs a step as often as its tries allow. What is asked beyond `heeded` breaks it off, and that is an error.
    pub(super) fn step(&mut self, step: &Step, heeded: Asked) -> Result<()> {
        let mut tried = 1;
        loop {
            match self.run_once(&step.argv, heeded) {
                Ok(()) => return Ok(()),
                Err(e) if tried >= step.tries || e.kind() != ErrorKind::Io => return Err(e),
                Err(e) => tracing::debug!("{e}; tried again"),
            }
            tried += 1;
            let until = Instant::now() + RETRY;
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                self.receive(left);
            }
        }
    }

    fn run_once(&mut self, argv: &Argv, heeded: Asked) -> Result<()> {
        tracing::debug!("{argv}");
        let failed = |e| spawn_error(argv, e);
        // A pipe could be kept open by a service that the command starts.
        let mut said = tempfile::tempfile().map_err(|e| Error::io("make a temporary file", e))?;
        let mut command = command(argv);
        command.stdin(Stdio::null());
        command.stdout(said.try_clone().map_err(failed)?);
        command.stderr(said.try_clone().map_err(failed)?);
        // Ctrl-C at the terminal ends the machine, not what cleans up after it.
        own_group(&mut command);
        let mut running = self.watch(command.spawn().map_err(failed)?)?;
        running.leads_group(true);
        let woken = self.wait(&mut running, Some(Instant::now() + STEP_LIMIT), heeded);
        if woken != Woken::Ended {
            running.kill(&argv.name());
            self.wait(&mut running, None, Asked::Kill);
        }
        let status = running.child.wait();
        let status = status.map_err(|e| Error::io(format!("wait for {}", argv.name()), e))?;
        let how = match woken {
            Woken::Ended if status.success() => return Ok(()),
            Woken::Ended => format!("failed ({status})"),
            Woken::Asked => "was broken off".to_owned(),
            Woken::Late => format!("took longer than {} s and was killed", STEP_LIMIT.as_secs()),
        };
        let kind = match woken {
            Woken::Asked => ErrorKind::Closed,
            Woken::Late => ErrorKind::TimedOut,
            Woken::Ended => ErrorKind::Io,
        };
        let said = tail(&mut said).unwrap_or_default();
        let said = match said.trim() {
            "" => "it printed nothing".to_owned(),
            said => format!("it printed: {said}"),
        };
        Err(Error::new(kind, format!("{argv} {how}; {said}")))
    }

    /// Has the end of a process noted.
    pub(super) fn watch(&mut self, child: Child) -> Result<Running> {
        self.numbers += 1;
        let number = self.numbers;
        let running = Running {
            child,
            number,
            #[cfg(unix)]
            group: false,
        };
        #[cfg(unix)]
        {
            let id = running.child.id();
            let sender = self.sender.clone();
            let thread = std::thread::Builder::new().name("vmtorrent-wait".to_owned());
            let waiting = thread.spawn(move || {
                wait_without_reaping(id);
                // The desk is there until all that it watches has ended.
                let _ = sender.send(Message::Exited(number));
            });
            waiting.map_err(|e| Error::io("start a thread for the VMM", e))?;
        }
        Ok(running)
    }

    /// Waits for its end, for the deadline, or for something that is asked beyond `heeded`.
    pub(super) fn wait(
        &mut self,
        running: &mut Running,
        deadline: Option<Instant>,
        heeded: Asked,
    ) -> Woken {
        loop {
            // What came is noted before it is looked for: nothing wakes us for it again.
            let asked = self.look();
            if let Some(at) = self
                .exited
                .iter()
                .position(|number| *number == running.number)
            {
                self.exited.swap_remove(at);
                return Woken::Ended;
            }
            #[cfg(not(unix))]
            if !matches!(running.child.try_wait(), Ok(None)) {
                return Woken::Ended;
            }
            if asked > heeded {
                return Woken::Asked;
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Woken::Late;
            }
            let longest = if cfg!(unix) {
                Duration::from_secs(3600)
            } else {
                LOOK
            };
            self.receive(deadline.map_or(longest, |deadline| longest.min(deadline - now)));
        }
    }

    /// What was asked so far.
    pub(super) fn look(&mut self) -> Asked {
        while let Ok(message) = self.receiver.try_recv() {
            self.note(message);
        }
        self.asked
    }

    fn receive(&mut self, longest: Duration) {
        match self.receiver.recv_timeout(longest) {
            Ok(message) => self.note(message),
            // We hold a sender ourselves.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }

    fn note(&mut self, message: Message) {
        match message {
            Message::Stop => self.asked = self.asked.max(Asked::Stop),
            Message::Kill => self.asked = Asked::Kill,
            Message::Exited(number) => self.exited.push(number),
        }
    }
}

/// Until the child has ended; its id stays its own.
#[cfg(unix)]
fn wait_without_reaping(id: u32) {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    let Some(pid) = Pid::from_raw(id as i32) else {
        return;
    };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while matches!(
        waitid(WaitId::Pid(pid), options),
        Err(rustix::io::Errno::INTR)
    ) {}
}

pub(super) fn command(argv: &Argv) -> Command {
    let mut command = Command::new(argv.program());
    command.args(argv.arguments());
    // This thread leaves them to others.
    vmtorrent_platform::take_all_signals(&mut command);
    command
}

/// Puts it out of reach of the terminal's interrupts.
pub(super) fn own_group(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(not(unix))]
    let _ = command;
}

pub(super) fn spawn_error(argv: &Argv, error: io::Error) -> Error {
    let name = argv.name();
    let (kind, text) = match error.kind() {
        io::ErrorKind::NotFound => (
            ErrorKind::NotFound,
            format!("the VMM {name} was not found: install it, or check the name"),
        ),
        io::ErrorKind::PermissionDenied => (
            ErrorKind::PermissionDenied,
            format!(
                "the VMM {name} can't be started: {error}; make it executable, or name another"
            ),
        ),
        _ => return Error::io(format!("the VMM {name} can't be started"), error),
    };
    Error::new(kind, text)
}

/// The end of what a command printed.
fn tail(file: &mut fs::File) -> io::Result<String> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(TOLD)))?;
    let mut bytes = Vec::new();
    file.take(TOLD).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
