//! Waiting in the caller's thread.
//!
//! Invariant: nothing is needed of that thread: no runtime, no stack of our own, no thread-local state.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

struct Parked {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// When waiting ends: a moment, or never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

/// What stands for no deadline at all.
pub const VMT_FOREVER: u64 = u64::MAX;

impl Deadline {
    pub(crate) const NEVER: Self = Self(None);

    /// In so many milliseconds.
    pub(crate) fn after(milliseconds: u64) -> Self {
        if milliseconds == VMT_FOREVER {
            return Self::NEVER;
        }
        Self(Instant::now().checked_add(Duration::from_millis(milliseconds)))
    }

    /// How long it is until then, at most a day: who waits longer looks again.
    pub(crate) fn left(self) -> Duration {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        self.0.map_or(DAY, |at| {
            at.saturating_duration_since(Instant::now()).min(DAY)
        })
    }

    pub(crate) fn has_passed(self) -> bool {
        self.0.is_some_and(|at| at <= Instant::now())
    }
}

/// Runs a future to its end.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Some(output) = poll_until(future.as_mut(), Deadline::NEVER) {
            return output;
        }
    }
}

/// Runs a future to its end or until the deadline; it is looked at once at least.
pub(crate) fn block_on_until<F: Future>(future: F, deadline: Deadline) -> Option<F::Output> {
    poll_until(pin!(future), deadline)
}

fn poll_until<F: Future>(
    mut future: std::pin::Pin<&mut F>,
    deadline: Deadline,
) -> Option<F::Output> {
    let parked = Arc::new(Parked {
        thread: std::thread::current(),
        woken: AtomicBool::new(false),
    });
    let waker = Waker::from(parked.clone());
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        // Others may unpark this thread too.
        while !parked.woken.swap(false, Ordering::Acquire) {
            if deadline.has_passed() {
                return None;
            }
            std::thread::park_timeout(deadline.left());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_another_thread_and_gives_up_at_the_deadline() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            sender.send(7).unwrap();
        });
        assert_eq!(block_on(receiver), Ok(7));
        other.join().unwrap();
        let never = std::future::pending::<()>();
        assert_eq!(block_on_until(never, Deadline::after(10)), None);
        assert_eq!(block_on_until(async { 1 }, Deadline::after(0)), Some(1));
        assert!(!Deadline::after(VMT_FOREVER).has_passed());
    }
}
