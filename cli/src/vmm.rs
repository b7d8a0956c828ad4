//! Invariant: the process never outlives its [`Vmm`]: a VMM without its disk is of no use to anyone.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::failure::Failure;
use crate::open_files;
use crate::signals::Signals;

/// How long a VMM may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

/// The running VMM.
pub struct Vmm {
    child: Child,
    name: String,
}

impl Vmm {
    /// Starts `command` with `{disk}` and `{dir}` replaced in its arguments. Its stdio is ours, except that with
    /// `stdout_to_stderr` what it prints on stdout goes to our stderr.
    pub fn start(
        command: &[OsString],
        disk: &Path,
        dir: &Path,
        stdout_to_stderr: bool,
    ) -> Result<Self, Failure> {
        let mut words = command.iter().map(|word| fill_in(word, disk, dir));
        let program = words
            .next()
            .ok_or_else(|| Failure::new("no VMM: write its name and arguments behind --"))?;
        let name = program.to_string_lossy().into_owned();
        let mut process = Command::new(program);
        process.args(words).kill_on_drop(true);
        if stdout_to_stderr {
            process.stdout(Stdio::from(io::stderr()));
        }
        let child = open_files::as_given(|| process.spawn()).map_err(|e| {
            Failure::new(match e.kind() {
                io::ErrorKind::NotFound => format!(
                    "the VMM {name} was not found: install it, or check the name behind --"
                ),
                io::ErrorKind::PermissionDenied => format!(
                    "the VMM {name} can't be started: {e}; make it executable, or name another behind --"
                ),
                _ => format!("the VMM {name} can't be started: {e}"),
            })
        })?;
        Ok(Self { child, name })
    }

    /// Waits for its end. Dropping the future loses nothing.
    pub async fn wait(&mut self) -> Result<ExitStatus, Failure> {
        self.child
            .wait()
            .await
            .map_err(|e| Failure::new(format!("waiting for the VMM {}: {e}", self.name)))
    }

    /// Asks it to end, and makes it after 10 seconds or at the next signal.
    pub async fn stop(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        self.ask_to_end();
        tokio::select! {
            status = self.child.wait() => return status.map(|_| ()).map_err(|e| self.failure(&e)),
            () = tokio::time::sleep(GRACE) => {}
            _ = signals.next() => {}
        }
        tracing::warn!("the VMM {} does not end by itself: killed", self.name);
        self.child.kill().await.map_err(|e| self.failure(&e))
    }

    #[cfg(unix)]
    fn ask_to_end(&mut self) {
        use rustix::process::{Pid, Signal, kill_process};
        // The pid is gone once the process was waited for, so no other process can be hit.
        let pid = self.child.id().and_then(|id| Pid::from_raw(id as i32));
        if let Some(pid) = pid
            && let Err(e) = kill_process(pid, Signal::TERM)
        {
            tracing::warn!("SIGTERM to the VMM {}: {e}", self.name);
        }
    }

    #[cfg(not(unix))]
    fn ask_to_end(&mut self) {
        if let Err(e) = self.child.start_kill() {
            tracing::warn!("ending the VMM {}: {e}", self.name);
        }
    }

    fn failure(&self, cause: &io::Error) -> Failure {
        Failure::new(format!("ending the VMM {}: {cause}", self.name))
    }
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

/// Replaces `{disk}` and `{dir}`. An argument that is not Unicode is passed as it is.
fn fill_in(word: &OsStr, disk: &Path, dir: &Path) -> OsString {
    let Some(mut rest) = word.to_str() else {
        return word.to_owned();
    };
    let mut filled = OsString::new();
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        filled.push(before);
        rest = if let Some(after) = from.strip_prefix("{disk}") {
            filled.push(disk);
            after
        } else if let Some(after) = from.strip_prefix("{dir}") {
            filled.push(dir);
            after
        } else {
            filled.push("{");
            &from[1..]
        };
    }
    filled.push(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_in_anywhere_and_only_once() {
        let filled = |word: &str| {
            fill_in(OsStr::new(word), Path::new("/m/{dir}.img"), Path::new("/m"))
                .into_string()
                .unwrap()
        };
        assert_eq!(filled("{disk}"), "/m/{dir}.img");
        assert_eq!(
            filled("file={disk},format=raw"),
            "file=/m/{dir}.img,format=raw"
        );
        assert_eq!(filled("{dir}/{dir}"), "/m//m");
        assert_eq!(filled("{{disk}}"), "{/m/{dir}.img}");
        assert_eq!(filled("{\"a\":{}} {dis"), "{\"a\":{}} {dis");
    }

    #[cfg(unix)]
    #[test]
    fn a_path_need_not_be_unicode() {
        use std::os::unix::ffi::OsStrExt;
        let disk = OsStr::from_bytes(b"/m/\xff");
        let filled = fill_in(
            OsStr::new("file={disk},x"),
            Path::new(disk),
            Path::new("/m"),
        );
        assert_eq!(filled.as_bytes(), b"file=/m/\xff,x");
    }

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
}
