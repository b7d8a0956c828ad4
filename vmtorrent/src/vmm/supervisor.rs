//! Invariant: what was done is undone in reverse order, and undoing is not interrupted.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use tokio::sync::watch;

use super::console::ConsoleLog;
use super::console_reader::ConsoleReader;
use super::desk::{Asked, Desk, Message, Running, TOLD, Woken, command, own_group, spawn_error};
use super::plan::{ConsoleSource, Plan, Step};
use super::process::{Ended, Output, Phase, ProcessOptions};
use crate::error::{Error, Result};

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
        let (sender, desk) = Desk::new();
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
    fn start(&mut self, done: &mut Done) -> Result<(Running, Option<ConsoleReader>)> {
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
                    ConsoleReader::pipe(pipe, vec![self.said.clone()])?;
                }
                Some(ConsoleReader::file(
                    path.clone(),
                    log.clone(),
                    self.options.output,
                )?)
            }
            (Some(log), _, Some(pipe)) => Some(ConsoleReader::pipe(
                pipe,
                vec![log.clone(), self.said.clone()],
            )?),
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
