//! Invariant: from [`Signals::catch`] on, no signal that asks for an end kills the process: each is handed out.

use std::process::ExitCode;

use crate::failure::Failure;

/// A signal that asked for an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caught(u8);

impl Caught {
    /// The exit status by which shells know that a signal ended a command: 128 + its number.
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(128 + self.0)
    }
}

/// The signals SIGINT, SIGTERM and SIGHUP; the last only if it was not ignored at the start (`nohup`).
#[cfg(unix)]
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    /// Starts to catch; needs a tokio runtime.
    pub fn catch() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let signal =
            |kind| signal(kind).map_err(|e| Failure::new(format!("signals can't be caught: {e}")));
        let hangup = if hangup_is_ignored() {
            None
        } else {
            Some(signal(SignalKind::hangup())?)
        };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup,
        })
    }

    /// The next signal. Dropping the future loses none.
    pub async fn next(&mut self) -> Caught {
        let hangup = async {
            match &mut self.hangup {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        let number = tokio::select! {
            _ = self.interrupt.recv() => rustix::process::Signal::INT,
            _ = self.terminate.recv() => rustix::process::Signal::TERM,
            _ = hangup => rustix::process::Signal::HUP,
        };
        Caught(number.as_raw() as u8)
    }
}

/// Only Linux tells without unsafe code; elsewhere a hangup is left to its default.
#[cfg(unix)]
fn hangup_is_ignored() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return true;
    };
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_none_or(|mask| mask & 1 != 0)
}

/// Ctrl-C.
#[cfg(not(unix))]
pub struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// Starts to catch; needs a tokio runtime.
    pub fn catch() -> Result<Self, Failure> {
        Ok(Self)
    }

    /// The next signal.
    pub async fn next(&mut self) -> Caught {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        Caught(2)
    }
}
