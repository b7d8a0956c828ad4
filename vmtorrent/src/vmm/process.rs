//! Invariant: a machine never outlives its [`Process`], and whatever was set up for it is taken back before its end is
//! told.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::console::{Console, ConsoleLog};
use super::plan::{ConsoleSource, Plan};
use super::supervisor::{Message, Supervisor};
use crate::error::{Error, ErrorKind, Result};

/// What becomes of the VMM's standard input and output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// They are ours: a person types at the console, and sees it.
    Inherit,
    /// As before, but what it prints goes to our standard error.
    Stderr,
    /// Nothing is typed; output and errors can be read through [`Process::console`]. The process is in a group of its
    /// own, so that an interrupt from the terminal does not reach it.
    #[default]
    Piped,
}

/// How a plan is carried out.
#[derive(Clone, Copy, Debug)]
pub struct ProcessOptions {
    /// Standard input and output of the machine's command. The commands of set-up and tear-down read nothing, and what
    /// they print is told when they fail.
    pub output: Output,
    /// Starts the machine's command; for a caller that has to change something of its own meanwhile.
    pub spawn: fn(&mut Command) -> io::Result<Child>,
}

impl Default for ProcessOptions {
    fn default() -> Self {
        Self {
            output: Output::default(),
            spawn: Command::spawn,
        }
    }
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// The exit status of the machine's command; `None` when it was asked to end before it ran.
    pub status: Option<ExitStatus>,
    /// What could not be taken back, with the remedy: a machine that is still known to the VMM, for example.
    pub left: Vec<String>,
    /// The end of what the machine's command itself printed, at most 2000 bytes: why it failed, if it did. Only with
    /// [`Output::Piped`]; a console on standard output is part of it.
    pub said: String,
}

/// How far it is.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    SettingUp,
    Running {
        id: u32,
    },
    Ended(Ended),
    /// It never ran, or can't be waited for.
    Failed {
        kind: ErrorKind,
        text: String,
    },
}

/// A VMM that carries out a [`Plan`].
///
/// A thread of its own sets up, waits and cleans up, so no executor is needed, and no signal handler. All calls may be
/// made from any thread and any executor. Dropping it kills the machine and waits until what was set up is taken back: with
/// a VMM that has tear-down commands that may take seconds. [`stop`](Self::stop) first, where waiting hurts.
#[derive(Debug)]
pub struct Process {
    messages: Sender<Message>,
    phase: watch::Receiver<Phase>,
    console: Option<Arc<ConsoleLog>>,
    thread: Option<JoinHandle<()>>,
}

impl Process {
    /// Begins: writes the plan's files, runs its set-up, then its command. [`started`](Self::started) tells how that went.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when the system gives no thread.
    pub fn spawn(plan: Plan, options: ProcessOptions) -> Result<Self> {
        let readable = match plan.console {
            ConsoleSource::File(_) => true,
            ConsoleSource::Stdio | ConsoleSource::None => options.output == Output::Piped,
        };
        let console = readable.then(ConsoleLog::new);
        let (phase_sender, phase) = watch::channel(Phase::SettingUp);
        let (messages, supervisor) = Supervisor::new(plan, options, phase_sender, console.clone());
        let thread = std::thread::Builder::new().name("vmtorrent-vmm".to_owned());
        let thread = thread.spawn(move || supervisor.run());
        Ok(Self {
            messages,
            phase,
            console,
            thread: Some(thread.map_err(|e| Error::io("start a thread for the VMM", e))?),
        })
    }

    /// Waits until the machine's command runs. Dropping the future loses nothing.
    ///
    /// # Errors
    /// What stood in the way: [`ErrorKind::NotFound`] and [`ErrorKind::PermissionDenied`] when a program is not there or
    /// can't be run, [`ErrorKind::Io`] when a set-up command failed (with what it printed), [`ErrorKind::Closed`] when it
    /// was stopped before. What was set up is taken back by then.
    pub async fn started(&self) -> Result<()> {
        match self
            .until(|phase| !matches!(phase, Phase::SettingUp))
            .await?
        {
            Phase::Ended(Ended { status: None, .. }) => {
                let text = "the VMM was stopped before it ran: start it again";
                Err(Error::new(ErrorKind::Closed, text))
            }
            _ => Ok(()),
        }
    }

    /// The process id of the machine's command while it runs.
    pub fn id(&self) -> Option<u32> {
        match *self.phase.borrow() {
            Phase::Running { id } => Some(id),
            _ => None,
        }
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// Those of [`started`](Self::started).
    pub fn try_wait(&self) -> Result<Option<Ended>> {
        match &*self.phase.borrow() {
            Phase::Ended(ended) => Ok(Some(ended.clone())),
            Phase::Failed { kind, text } => Err(Error::new(*kind, text.clone())),
            Phase::SettingUp | Phase::Running { .. } => Ok(None),
        }
    }

    /// Waits for the machine's end and for what is done after it. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Those of [`started`](Self::started).
    pub async fn wait(&self) -> Result<Ended> {
        let phase = self.until(|phase| matches!(phase, Phase::Ended(_))).await?;
        match phase {
            Phase::Ended(ended) => Ok(ended),
            Phase::SettingUp | Phase::Running { .. } | Phase::Failed { .. } => Err(gone()),
        }
    }

    /// Asks the machine to end in the VMM's way (SIGTERM, or the guest's power button), kills it when it takes longer than
    /// the plan's grace, and waits as [`wait`](Self::wait) does. Dropping the future takes nothing back.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait).
    pub async fn stop(&self) -> Result<Ended> {
        // Without a receiver it has ended.
        let _ = self.messages.send(Message::Stop);
        self.wait().await
    }

    /// Kills it at once and waits as [`wait`](Self::wait) does.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait).
    pub async fn kill(&self) -> Result<Ended> {
        let _ = self.messages.send(Message::Kill);
        self.wait().await
    }

    /// A reader of the guest's console from its first output on. `None` when the VMM gives us none: with
    /// [`Output::Inherit`] and [`Output::Stderr`] it prints elsewhere.
    pub fn console(&self) -> Option<Console> {
        self.console.as_ref().map(ConsoleLog::reader)
    }

    /// Waits for such a phase, or for the failure.
    async fn until(&self, wanted: impl Fn(&Phase) -> bool) -> Result<Phase> {
        let mut phase = self.phase.clone();
        let reached = phase
            .wait_for(|phase| wanted(phase) || matches!(phase, Phase::Failed { .. }))
            .await;
        match reached.map(|phase| phase.clone()) {
            Ok(Phase::Failed { kind, text }) => Err(Error::new(kind, text)),
            Ok(phase) => Ok(phase),
            Err(_) => Err(gone()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Kill);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the VMM panicked: report this");
        }
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Io, "the thread of the VMM is gone: report this")
}
