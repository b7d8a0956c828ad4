//! Something that many threads use until one takes it away.
//!
//! Invariant: a value is taken out only when nobody uses it and nobody can begin to; who is let in finds it there.
//! Each way in or out costs one atomic operation.

use std::ops::Deref;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::sync::{AtomicUsize, Cell, Condvar, Mutex, Ordering};

/// Set in `users` from the moment on from which nobody is let in.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// The value and its users.
pub(crate) struct Gate<T> {
    /// How many are inside, and whether it is closed.
    users: AtomicUsize,
    value: Cell<Option<T>>,
    /// Held by who waits for the last user, and by that one when it tells.
    idle: Mutex<()>,
    left: Condvar,
}

// SAFETY: users share the value, hence `Sync`; it may be taken out by another thread than the one that made it, hence
// `Send`.
unsafe impl<T: Send + Sync> Sync for Gate<T> {}

impl<T> Gate<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            users: AtomicUsize::new(0),
            value: Cell::new(Some(value)),
            idle: Mutex::new(()),
            left: Condvar::new(),
        }
    }

    /// Lets one in, unless the gate is closed.
    pub(crate) fn enter(&self) -> Option<Inside<'_, T>> {
        self.count_in().then(|| Inside { gate: self })
    }

    /// As [`enter`](Self::enter), for who stays longer than this call.
    pub(crate) fn enter_for_long(self: &Arc<Self>) -> Option<InsideForLong<T>> {
        self.count_in()
            .then(|| InsideForLong { gate: self.clone() })
    }

    /// Lets nobody in from now on. False if it was so before.
    pub(crate) fn close(&self) -> bool {
        self.users.fetch_or(CLOSED, Ordering::AcqRel) & CLOSED == 0
    }

    /// Takes the value out of a closed gate, once all have left; `None` when they have not after the time that `left`
    /// gives, or when it was taken out before.
    pub(crate) fn take(&self, mut left: impl FnMut() -> Duration) -> Option<T> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let users = self.users.load(Ordering::Acquire);
            if users == CLOSED {
                // SAFETY: nobody is inside or will be: `count_in` looks at the value only when it was not closed. The
                // lock keeps others out who want to take it.
                return self.value.with_mut(|value| unsafe { (*value).take() });
            }
            let time = left();
            if users & CLOSED == 0 || time.is_zero() {
                return None;
            }
            let waited = self.left.wait_timeout(idle, time);
            idle = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn count_in(&self) -> bool {
        let before = self.users.fetch_add(1, Ordering::AcqRel);
        if before & CLOSED != 0 {
            self.count_out();
            return false;
        }
        true
    }

    fn count_out(&self) {
        let before = self.users.fetch_sub(1, Ordering::AcqRel);
        if before == CLOSED + 1 {
            // With the lock, so that it does not fall between another's look and its waiting.
            let _idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            self.left.notify_all();
        }
    }

    /// The value, for who is inside.
    fn look(&self) -> &T {
        self.value.with(|value| {
            // SAFETY: it is taken out only when nobody is inside, and whoever calls this is.
            let value = unsafe { &*value };
            match value {
                Some(value) => value,
                None => unreachable!("taken out while somebody is inside"),
            }
        })
    }
}

/// The right to use the value.
pub(crate) struct Inside<'a, T> {
    gate: &'a Gate<T>,
}

impl<T> Deref for Inside<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.gate.look()
    }
}

impl<T> Drop for Inside<'_, T> {
    fn drop(&mut self) {
        self.gate.count_out();
    }
}

/// The right to use the value for as long as one likes.
pub(crate) struct InsideForLong<T> {
    gate: Arc<Gate<T>>,
}

impl<T> Deref for InsideForLong<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.gate.look()
    }
}

impl<T> Drop for InsideForLong<T> {
    fn drop(&mut self) {
        self.gate.count_out();
    }
}
