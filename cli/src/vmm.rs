//! The VMM of a launch, and `vmtorrent vmm`: which VMMs are known, and what they run.
//!
//! Invariant: what `vmm show` prints is what `launch` would run for the same values.

mod list;
mod show;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use clap::ValueHint;
use serde::Serialize;
use tempfile::TempDir;
use vmtorrent::Appliance;
use vmtorrent::vmm::{Ended, Output, Plan, Presets, Process, ProcessOptions, Values};

use crate::failure::Failure;
use crate::open_files;
use crate::signals::Signals;
use crate::units;

const SHOW: &str = "\
It prints the commands in the order in which `launch --vmm NAME` runs them, quoted for a shell, and the files that are
written before. {work} and what lies below it is made for each launch.";

/// What can be asked about VMMs.
#[derive(Debug, clap::Subcommand)]
pub enum VmmCommand {
    /// Tell which VMMs `launch --vmm` knows
    List(ListArgs),
    /// Print what a VMM would run
    #[command(after_help = SHOW)]
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Take the VMMs of this TOML file too
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub vmm_file: Option<PathBuf>,
    /// Print one JSON object instead
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The VMM
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Path of the disk, for the example
    #[arg(long, value_name = "PATH", default_value = "/mnt/vmtorrent/disk.img", value_hint = ValueHint::FilePath)]
    pub disk: PathBuf,
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Print one JSON object instead
    #[arg(long)]
    pub json: bool,
    /// Words to be put behind the command line that runs the machine
    #[arg(last = true, value_name = "ARGS")]
    pub extra: Vec<OsString>,
}

/// Options of the machine that `launch --vmm` and `vmm show` share.
#[derive(Debug, Default, PartialEq, clap::Args)]
pub struct MachineArgs {
    /// Take the VMMs of this TOML file too
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub vmm_file: Option<PathBuf>,
    /// Memory of the machine, whole MiB [default: 1G]
    #[arg(long, value_name = "SIZE", value_parser = units::memory)]
    pub memory: Option<u64>,
    /// Processors of the machine [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cpus: Option<u32>,
    /// What the VMM calls the machine [default: the image's name]
    #[arg(long, value_name = "NAME")]
    pub vmm_name: Option<String>,
    /// Format of the disk: raw, qcow2, vmdk, vdi, vhd or vhdx [default: by the end of its name, else raw]
    #[arg(long, value_name = "FORMAT")]
    pub disk_format: Option<String>,
    /// Set a variable of the VMM; may be repeated
    #[arg(long, value_name = "VARIABLE=VALUE", value_parser = setting)]
    pub vmm_set: Vec<(String, String)>,
}

impl MachineArgs {
    fn apply(&self, values: &mut Values) {
        if let Some(memory) = self.memory {
            values.memory = memory;
        }
        if let Some(cpus) = self.cpus {
            values.cpus = cpus;
        }
        if let Some(name) = &self.vmm_name {
            values.name.clone_from(name);
        }
        if let Some(format) = &self.disk_format {
            values.format.clone_from(format);
        }
        values.set.extend(self.vmm_set.iter().cloned());
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = parts.ok_or("write a variable and its value, such as accel=tcg")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Does what is asked about VMMs.
pub fn run(command: VmmCommand) -> Result<ExitCode, Failure> {
    match command {
        VmmCommand::List(args) => list::run(&args),
        VmmCommand::Show(args) => show::run(&args),
    }
}

/// What a launch starts on its disk.
#[derive(Debug, Default)]
pub struct Choice {
    /// A known VMM.
    pub name: Option<String>,
    /// Its machine.
    pub machine: MachineArgs,
    /// What stands behind `--`: the whole command line, or more words for the known VMM.
    pub words: Vec<OsString>,
}

impl Choice {
    /// Whether nothing is started.
    pub fn is_none(&self) -> bool {
        self.name.is_none() && self.words.is_empty()
    }

    /// Refuses what can be refused before anything is begun.
    pub fn check(&self) -> Result<(), Failure> {
        match &self.name {
            Some(name) => {
                Presets::for_user(self.machine.vmm_file.as_deref())?.get(name)?;
                Ok(())
            }
            None if self.machine == MachineArgs::default() => Ok(()),
            None => Err(Failure::new(
                "--memory, --cpus, --disk-format and --vmm-... are for a VMM that is known by its name: add --vmm NAME, \
                 or write them behind -- as your VMM wants them",
            )),
        }
    }
}

/// The running VMM, and the directory of its files.
pub struct Vmm {
    process: Process,
    // Behind the process: it is removed last.
    _work: TempDir,
}

impl Vmm {
    /// Begins to start what was chosen on the appliance's disk. Its stdio is ours, except that with `stdout_to_stderr`
    /// what it prints on stdout goes to our stderr.
    pub fn begin(
        choice: &Choice,
        appliance: &Appliance,
        stdout_to_stderr: bool,
    ) -> Result<Self, Failure> {
        let work = work_directory()?;
        let mut values = Values::for_appliance(appliance, work.path())?;
        let plan = match &choice.name {
            None => Plan::command(&choice.words, &values)?,
            Some(name) => {
                choice.machine.apply(&mut values);
                values.extra.clone_from(&choice.words);
                Presets::for_user(choice.machine.vmm_file.as_deref())?
                    .get(name)?
                    .plan(&values)?
            }
        };
        let options = ProcessOptions {
            output: if stdout_to_stderr {
                Output::Stderr
            } else {
                Output::Inherit
            },
            spawn: |command| open_files::as_given(|| command.spawn()),
        };
        Ok(Self {
            process: Process::spawn(plan, options)?,
            _work: work,
        })
    }

    /// Waits until it runs. Dropping the future loses nothing.
    pub async fn started(&self) -> Result<(), Failure> {
        Ok(self.process.started().await?)
    }

    /// Waits for its end. Dropping the future loses nothing.
    pub async fn wait(&self) -> Result<Ended, Failure> {
        Ok(self.process.wait().await?)
    }

    /// Asks it to end, and makes it when its time is up or at the next signal.
    pub async fn stop(&self, signals: &mut Signals) -> Result<Ended, Failure> {
        tokio::select! {
            ended = self.process.stop() => return Ok(ended?),
            _ = signals.next() => {}
        }
        Ok(self.process.kill().await?)
    }
}

/// A directory with a short path, for sockets, that only this user can enter.
fn work_directory() -> Result<TempDir, Failure> {
    let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let base = base.filter(|dir| dir.is_absolute() && dir.is_dir());
    let base = base.unwrap_or_else(std::env::temp_dir);
    let made = tempfile::Builder::new()
        .prefix("vmtorrent-vmm-")
        .tempdir_in(&base);
    made.map_err(|e| {
        Failure::new(format!(
            "can't make a directory for the VMM's files in {}: {e}; set TMPDIR to another",
            base.display()
        ))
    })
}

/// Prints what was asked for, as one JSON object or as a text for people.
fn tell(json: bool, object: &impl Serialize, text: &str) -> Result<ExitCode, Failure> {
    let mut stdout = io::stdout().lock();
    let written = if json {
        serde_json::to_writer(&mut stdout, object)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(stdout))
    } else {
        write!(stdout, "{text}")
    };
    match written.and_then(|()| stdout.flush()) {
        // A reader that saw enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => written
            .map(|()| ExitCode::SUCCESS)
            .map_err(|e| Failure::new(format!("cannot print: {e}; check where stdout goes"))),
    }
}

/// Where a program would be found, as the system looks for it.
fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let directories = std::env::var_os("PATH")?;
    let mut candidates = std::env::split_paths(&directories).map(|dir| dir.join(program));
    candidates.find(|path| path.is_file())
}

/// The VMM's status as ours: its own, or 128 + N when signal N ended it.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return ExitCode::from(128_u8.saturating_add(signal as u8));
    }
    match status.code().map(u8::try_from) {
        Some(Ok(code)) => ExitCode::from(code),
        _ => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn the_end_by_a_signal_becomes_128_and_its_number() {
        use std::os::unix::process::ExitStatusExt;
        for (raw, code) in [(0, 0), (7 << 8, 7), (9, 137), (15, 143)] {
            assert_eq!(
                exit_code(ExitStatus::from_raw(raw)),
                ExitCode::from(code),
                "{raw}"
            );
        }
    }

    #[test]
    fn a_setting_has_a_name_and_its_value_may_hold_anything() {
        assert_eq!(
            setting("a=b=c").unwrap(),
            ("a".to_owned(), "b=c".to_owned())
        );
        assert_eq!(setting("a=").unwrap(), ("a".to_owned(), String::new()));
        for bad in ["a", "=b", ""] {
            assert!(setting(bad).unwrap_err().contains("accel=tcg"), "{bad}");
        }
    }
}
