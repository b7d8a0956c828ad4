//! Invariant: who is being killed waits for missing data no longer than about two seconds.
//!
//! The kernel lets nobody go whose request is with us, not even by SIGKILL, and what it tells of interruptions does not
//! reach us (fuser answers FUSE_INTERRUPT by itself). So a thread looks after those who wait: once a second, and only
//! while there are any.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;

/// How often those who wait are looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// The requests of one mount that wait, and for whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiters {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<u64, Waiter>,
    last: u64,
    /// Whether a thread looks after them.
    watched: bool,
    watcher: Option<JoinHandle<()>>,
    /// Nobody is looked after any more.
    ended: bool,
}

#[derive(Debug)]
struct Waiter {
    thread: u32,
    /// Whether it has been there for a period: only then it is looked at.
    old: bool,
    killed: oneshot::Sender<()>,
}

/// One request that waits; it is forgotten with this.
pub(super) struct Waiting {
    waiters: Waiters,
    number: u64,
    killed: oneshot::Receiver<()>,
}

impl Waiters {
    /// Notes that a request of a thread waits. The number is that of the thread as this process sees it, 0 for one
    /// that it does not see.
    pub fn enter(&self, thread: u32) -> Waiting {
        let (sender, killed) = oneshot::channel();
        let mut state = self.shared.state.lock();
        state.last += 1;
        let number = state.last;
        if thread != 0 {
            let waiter = Waiter {
                thread,
                old: false,
                killed: sender,
            };
            state.waiting.insert(number, waiter);
            self.watch(&mut state);
        }
        Waiting {
            waiters: self.clone(),
            number,
            killed,
        }
    }

    /// Sees to it that a thread looks after those who wait.
    fn watch(&self, state: &mut State) {
        if state.watched || state.ended || !cfg!(target_os = "linux") {
            return;
        }
        // It has said that it ends, and needs the lock no more.
        join(state.watcher.take());
        let shared = Arc::clone(&self.shared);
        let watcher = thread::Builder::new().name("vmtorrent-waits".to_owned());
        // Without a thread nothing is worse than without this module.
        state.watcher = watcher
            .spawn(move || {
                crate::leave_signals_to_others();
                shared.look_after();
            })
            .ok();
        state.watched = state.watcher.is_some();
    }

    /// Looks after nobody any more: its thread has ended when this returns.
    pub fn end(&self) {
        let mut state = self.shared.state.lock();
        state.ended = true;
        let watcher = state.watcher.take();
        drop(state);
        self.shared.ended.notify_all();
        join(watcher);
    }
}

impl Shared {
    /// Lets those go who are being killed, until nobody has waited for a period.
    fn look_after(&self) {
        let mut state = self.state.lock();
        loop {
            if !state.ended {
                self.ended.wait_for(&mut state, PERIOD);
            }
            if state.waiting.is_empty() || state.ended {
                state.watched = false;
                return;
            }
            let threads = state.waiting.iter_mut().filter_map(|(number, waiter)| {
                let old = std::mem::replace(&mut waiter.old, true);
                old.then_some((*number, waiter.thread))
            });
            let threads: Vec<_> = threads.collect();
            // Nobody waits for the lock while /proc is read.
            let killed = MutexGuard::unlocked(&mut state, || {
                let killed = threads.iter().filter(|(_, thread)| is_dying(*thread));
                killed.map(|(number, _)| *number).collect::<Vec<_>>()
            });
            for number in killed {
                if let Some(waiter) = state.waiting.remove(&number) {
                    // Its answer may have come just now.
                    let _ = waiter.killed.send(());
                }
            }
        }
    }
}

impl Waiting {
    /// Ends when the one who waits is being killed, if that can be told.
    pub async fn killed(&mut self) {
        if (&mut self.killed).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waiters
            .shared
            .state
            .lock()
            .waiting
            .remove(&self.number);
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread {
        // It has nothing to say.
        let _ = thread.join();
    }
}

/// Whether a thread can't return from the kernel any more, by what proc(5) tells of it.
fn is_dying(thread: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{thread}/stat")).is_ok_and(|stat| tells_death(&stat))
}

/// Reads a line of `/proc/PID/stat`: death is a SIGKILL that is pending (any signal that ends a process sends it to all
/// of its threads) or was the end. Who is gone already is not seen here: its data may be another's to have.
fn tells_death(stat: &str) -> bool {
    const KILL: u64 = 9;
    // The name may hold anything, parentheses too. Behind it comes field 3.
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest);
    let field = |number: usize| {
        let text = fields?.split_ascii_whitespace().nth(number - 3)?;
        text.parse::<u64>().ok()
    };
    let pending = field(31).unwrap_or(0);
    pending & (1 << (KILL - 1)) != 0 || field(52) == Some(KILL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pending: u64, status: u64) -> String {
        let mut fields = vec!["0".to_owned(); 49];
        fields[31 - 4] = pending.to_string();
        fields[52 - 4] = status.to_string();
        format!("123 (a) S (b) R {}\n", fields.join(" "))
    }

    #[test]
    fn death_is_told_from_life_and_from_being_stopped() {
        assert!(!tells_death(&stat(0, 0)));
        assert!(tells_death(&stat(1 << 8, 0)));
        assert!(tells_death(&stat(0, 9)));
        // Other signals wait to be handled, it was stopped, or a debugger looks at it; it ends by itself.
        assert!(!tells_death(&stat(1 << 14, 0)));
        for status in [15, 19, 5 | 0x80, 6 << 8 | 5, 1 << 8] {
            assert!(!tells_death(&stat(0, status)));
        }
        assert!(!tells_death(""));
        assert!(!is_dying(std::process::id()));
    }
}
