//! Invariant: a process is signalled only while it was not waited for, so its id can't be another's; what was done is
//! undone in reverse order, and undoing is not interrupted.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::console::ConsoleLog;
use super::plan::{Argv, ConsoleSource, Plan, Step};
use super::process::{Ended, Output, Phase, ProcessOptions};
use crate::error::{Error, ErrorKind, Result};

/// How long one command before or after the VMM may run.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// Between two tries of a step.
const RETRY: Duration = Duration::from_secs(1);

/// How long the console may take to end behind its process: something else may hold the pipe.
const CONSOLE_REST: Duration = Duration::from_secs(1);

/// How often a console's file is looked at, and elsewhere than on Unix a process.
const LOOK: Duration = Duration::from_millis(50);

/// What a failed command's output is shortened to, bytes.
const TOLD: u64 = 2000;

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
enum Asked {
    Nothing,
    Stop,
    Kill,
}

/// What ended a wait.
#[derive(Debug, PartialEq, Eq)]
enum Woken {
    Ended,
    Asked,
    Late,
}

/// Carries out one plan on its thread.
pub(super) struct Supervisor {
    plan: Plan,
    options: ProcessOptions,
    phase: watch::Sender<Phase>,
    console: Option<Arc<ConsoleLog>>,
    /// What the machine's command itself printed, if that is not seen elsewhere.
    said: Arc<ConsoleLog>,
    desk: Desk,
}

impl Supervisor {
    pub(super) fn new(
        plan: Plan,
        options: ProcessOptions,
        phase: watch::Sender<Phase>,
        console: Option<Arc<ConsoleLog>>,
    ) -> (Sender<Message>, Self) {
        let (sender, receiver) = mpsc::channel();
        let desk = Desk {
            sender: sender.clone(),
            receiver,
            asked: Asked::Nothing,
            exited: Vec::new(),
            numbers: 0,
        };
        let supervisor = Self {
            plan,
            options,
            phase,
            console,
            said: ConsoleLog::new(),
            desk,
        };
        (sender, supervisor)
    }

    /// From the files to the last step of the clean-up.
    pub(super) fn run(mut self) {
        vmtorrent_platform::leave_signals_to_others();
        let mut done = Done::default();
        let ran = self.carry_out(&mut done);
        if let Some(console) = &self.console {
            console.end();
        }
        let left = self.clean_up(&done);
        let phase = match ran {
            Ok(status) => Phase::Ended(Ended {
                status,
                left,
                said: self.said.tail(TOLD as usize),
            }),
            Err(error) => Phase::Failed {
                kind: error.kind(),
                text: left.iter().fold(error.to_string(), |text, left| {
                    format!("{text}. Also: {left}")
                }),
            },
        };
        self.phase.send_replace(phase);
    }

    fn carry_out(&mut self, done: &mut Done) -> Result<Option<ExitStatus>> {
        for directory in &self.plan.directories {
            fs::create_dir_all(directory)
                .map_err(|e| Error::io(format!("make {} for the VMM", directory.display()), e))?;
        }
        for file in &self.plan.files {
            done.files.push(file.path.clone());
            fs::write(&file.path, &file.text)
                .map_err(|e| Error::io(format!("write {} for the VMM", file.path.display()), e))?;
        }
        for one in &self.plan.setup {
            if self.desk.look() > Asked::Nothing {
                return Ok(None);
            }
            // Not broken off: nobody could tell then whether there is something to take back.
            self.desk.step(&one.step, Asked::Kill)?;
            done.setup += 1;
        }
        if self.desk.look() > Asked::Nothing {
            return Ok(None);
        }
        let (mut machine, reader) = self.start(done)?;
        self.phase.send_replace(Phase::Running {
            id: machine.child.id(),
        });
        let status = self.attend(&mut machine);
        if let Some(reader) = reader {
            reader.finish();
        }
        status.map(Some)
    }

    /// Starts the machine's command.
    fn start(&mut self, done: &mut Done) -> Result<(Running, Option<Reader>)> {
        let run = &self.plan.run;
        let mut command = command(run);
        let failed = |e| spawn_error(run, e);
        let mut pipe = None;
        match self.options.output {
            Output::Inherit => {}
            Output::Stderr => {
                command.stdout(Stdio::from(io::stderr()));
            }
            Output::Piped => {
                let (reader, writer) = io::pipe().map_err(failed)?;
                command.stdin(Stdio::null());
                command
                    .stdout(writer.try_clone().map_err(failed)?)
                    .stderr(writer);
                own_group(&mut command);
                pipe = Some(reader);
            }
        }
        let child = (self.options.spawn)(&mut command).map_err(failed)?;
        // It holds our ends of the pipe.
        drop(command);
        done.ran = true;
        let mut machine = self.desk.watch(child)?;
        machine.leads_group(self.options.output == Output::Piped);
        let reader = match (&self.console, &self.plan.console, pipe) {
            (Some(log), ConsoleSource::File(path), pipe) => {
                if let Some(pipe) = pipe {
                    Reader::pipe(pipe, vec![self.said.clone()])?;
                }
                Some(Reader::file(
                    path.clone(),
                    log.clone(),
                    self.options.output,
                )?)
            }
            (Some(log), _, Some(pipe)) => {
                Some(Reader::pipe(pipe, vec![log.clone(), self.said.clone()])?)
            }
            _ => None,
        };
        Ok((machine, reader))
    }

    /// Waits for the machine's end, and brings it about when asked.
    fn attend(&mut self, machine: &mut Running) -> Result<ExitStatus> {
        let vmm = self.plan.vmm.clone();
        let mut heeded = Asked::Nothing;
        let mut deadline = None;
        loop {
            match self.desk.wait(machine, deadline, heeded) {
                Woken::Ended => {
                    return machine
                        .child
                        .wait()
                        .map_err(|e| Error::io(format!("wait for the VMM {vmm}"), e));
                }
                Woken::Asked if self.desk.asked == Asked::Stop => {
                    heeded = Asked::Stop;
                    self.ask_to_end(machine);
                    deadline = Some(Instant::now() + self.plan.grace);
                }
                Woken::Asked => {
                    heeded = Asked::Kill;
                    deadline = None;
                    machine.kill(&vmm);
                }
                Woken::Late => {
                    tracing::warn!("the VMM {vmm} does not end by itself: killed");
                    heeded = Asked::Kill;
                    deadline = None;
                    machine.kill(&vmm);
                }
            }
        }
    }

    /// By the plan's command, or else by SIGTERM.
    fn ask_to_end(&mut self, machine: &mut Running) {
        if let Some(stop) = &self.plan.stop {
            match self.desk.step(stop, Asked::Stop) {
                Ok(()) => return,
                Err(e) => tracing::warn!("{e}; the VMM's own process is asked to end instead"),
            }
        }
        machine.terminate(&self.plan.vmm);
    }

    /// Takes back what was done; gives what could not be.
    fn clean_up(&mut self, done: &Done) -> Vec<String> {
        let mut left = Vec::new();
        let mut steps: Vec<&Step> = Vec::new();
        if done.ran {
            steps.extend(&self.plan.teardown);
        }
        let set_up = self.plan.setup[..done.setup].iter().rev();
        steps.extend(set_up.flat_map(|one| &one.undo));
        for step in steps {
            match self.desk.step(step, Asked::Kill) {
                Ok(()) => {}
                Err(e) if step.may_fail => tracing::debug!("{e}"),
                Err(e) => left.push(format!("{e}; run it by hand: {}", step.argv)),
            }
        }
        for path in &done.files {
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    left.push(format!("{} stays: {e}; remove it by hand", path.display()));
                }
                _ => {}
            }
        }
        left
    }
}

/// How far a plan was carried out.
#[derive(Default)]
struct Done {
    files: Vec<PathBuf>,
    /// Steps of the set-up.
    setup: usize,
    ran: bool,
}

/// A process that was started and not waited for.
struct Running {
    child: Child,
    number: u64,
    #[cfg(unix)]
    group: bool,
}

impl Running {
    /// SIGTERM, where there is such a thing.
    fn terminate(&mut self, name: &str) {
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
    fn leads_group(&mut self, leads: bool) {
        #[cfg(unix)]
        {
            self.group = leads;
        }
        #[cfg(not(unix))]
        let _ = leads;
    }

    /// Kills it, and all of its group if that is its own.
    fn kill(&mut self, name: &str) {
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
struct Desk {
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    asked: Asked,
    exited: Vec<u64>,
    numbers: u64,
}

impl Desk {
    /// Runs a step as often as its tries allow. What is asked beyond `heeded` breaks it off, and that is an error.
    fn step(&mut self, step: &Step, heeded: Asked) -> Result<()> {
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
    fn watch(&mut self, child: Child) -> Result<Running> {
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
    fn wait(&mut self, running: &mut Running, deadline: Option<Instant>, heeded: Asked) -> Woken {
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
    fn look(&mut self) -> Asked {
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

fn command(argv: &Argv) -> Command {
    let mut command = Command::new(argv.program());
    command.args(argv.arguments());
    // This thread leaves them to others.
    vmtorrent_platform::take_all_signals(&mut command);
    command
}

/// Puts it out of reach of the terminal's interrupts.
fn own_group(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(not(unix))]
    let _ = command;
}

fn spawn_error(argv: &Argv, error: io::Error) -> Error {
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

/// The thread that reads a console.
struct Reader {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Reader {
    /// Of a pipe.
    fn pipe(mut pipe: io::PipeReader, logs: Vec<Arc<ConsoleLog>>) -> Result<Self> {
        Self::start(move |_| {
            let mut buffer = [0; 8192];
            loop {
                match pipe.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(n) => {
                        for log in &logs {
                            log.push(&buffer[..n]);
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => {
                        tracing::warn!("reading the VMM's output: {e}");
                        return;
                    }
                }
            }
        })
    }

    /// Of a file that the VMM writes; a person sees it too.
    fn file(path: PathBuf, log: Arc<ConsoleLog>, output: Output) -> Result<Self> {
        Self::start(move |ended| {
            let mut at = 0;
            loop {
                // Asked before, so that what was written until then is read.
                let last = ended.load(Ordering::Acquire);
                match read_on(&path, &mut at) {
                    Ok(bytes) if !bytes.is_empty() => {
                        log.push(&bytes);
                        // Whoever closed our output does not want it.
                        let _ = match output {
                            Output::Inherit => io::stdout()
                                .write_all(&bytes)
                                .and_then(|()| io::stdout().flush()),
                            Output::Stderr => io::stderr().write_all(&bytes),
                            Output::Piped => Ok(()),
                        };
                    }
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => {
                        tracing::warn!("reading the console in {}: {e}", path.display());
                        return;
                    }
                }
                if last {
                    return;
                }
                std::thread::sleep(LOOK);
            }
        })
    }

    fn start(read: impl FnOnce(&AtomicBool) + Send + 'static) -> Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let told = ended.clone();
        let thread = std::thread::Builder::new().name("vmtorrent-console".to_owned());
        let thread = thread.spawn(move || read(&told));
        Ok(Self {
            ended,
            thread: thread.map_err(|e| Error::io("start a thread for the console", e))?,
        })
    }

    /// Lets it read what is left. One that something else still writes to is left alone.
    fn finish(self) {
        self.ended.store(true, Ordering::Release);
        let until = Instant::now() + CONSOLE_REST;
        while !self.thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What stands in a file behind a place, at most a MiB.
fn read_on(path: &Path, at: &mut u64) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    file.seek(SeekFrom::Start(*at))?;
    let mut bytes = Vec::new();
    file.take(1 << 20).read_to_end(&mut bytes)?;
    *at += bytes.len() as u64;
    Ok(bytes)
}
