//! Invariant: every task ends: with its work, with `EIO` when the mount is shut, or with `EINTR` when nobody is left whom
//! its work is for.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::waiters::Waiters;
use crate::Errno;

/// Runs the requests that have to wait, until the mount is shut.
#[derive(Clone, Debug)]
pub(super) struct Tasks {
    runtime: Handle,
    shut: watch::Sender<bool>,
    waiters: Waiters,
}

impl Tasks {
    pub fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            shut: watch::Sender::new(false),
            waiters: Waiters::default(),
        }
    }

    /// Ends all waiting requests with an error, now and from now on.
    pub fn shut(&self) {
        self.shut.send_replace(true);
    }

    /// As [`shut`](Self::shut); what looks after those who wait has ended too when this returns.
    pub fn end(&self) {
        self.shut();
        self.waiters.end();
    }

    /// Runs `work`, then `reply` with its result. A panic in `work` drops the reply, which answers `EIO`.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Errno>> + Send + 'static,
        reply: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        let mut shut = self.shut.subscribe();
        self.runtime.spawn(async move {
            let result = tokio::select! {
                biased;
                result = work => result,
                _ = shut.wait_for(|shut| *shut) => Err(Errno::EIO),
            };
            reply(result);
        });
    }

    /// Runs `work` for a thread that waits for it, then `reply`; if the thread is killed meanwhile the work is given up.
    pub fn spawn_for<T: Send + 'static>(
        &self,
        thread: u32,
        work: impl Future<Output = Result<T, Errno>> + Send + 'static,
        reply: impl FnOnce(Result<T, Errno>) + Send + 'static,
    ) {
        let mut waiting = self.waiters.enter(thread);
        let work = async move {
            tokio::select! {
                biased;
                result = work => result,
                () = waiting.killed() => Err(Errno::EINTR),
            }
        };
        self.spawn(work, reply);
    }
}
