//! Invariant: who tells of something waits for nobody, and it is heard: by whoever is inside before it leaves, or by who is
//! called for it afterwards.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// A lock for those who may wait, and a bell for those who must not: a guest's read, of data that is here, would else wait for
/// whoever is inside, which on a busy host may itself wait for a processor.
#[derive(Debug)]
pub(super) struct Gate<T> {
    inner: Mutex<T>,
    told: AtomicBool,
    /// Calls somebody who goes in.
    news: Arc<Notify>,
}

/// Somebody is inside. It leaves first, and only then looks whether anybody told of something: fields are dropped in their order.
pub(super) struct Entered<'a, T> {
    guard: MutexGuard<'a, T>,
    _look: LookBack<'a>,
}

/// Calls somebody if something was told and not heard.
struct LookBack<'a> {
    told: &'a AtomicBool,
    news: &'a Notify,
}

impl<T> Gate<T> {
    /// `news` has somebody go in, soon.
    pub(super) fn new(inner: T, news: Arc<Notify>) -> Self {
        Self {
            inner: Mutex::new(inner),
            told: AtomicBool::new(false),
            news,
        }
    }

    /// Waits until nobody is inside, and goes in.
    pub(super) fn lock(&self) -> Entered<'_, T> {
        self.entered(self.inner.lock())
    }

    /// Tells of something, and goes in if nobody is inside.
    pub(super) fn tell(&self) -> Option<Entered<'_, T>> {
        // A swap, like the one of who leaves: of the two, one sees what the other did. Either this one was first, and it is
        // heard; or the lock was let go before it, and is free below or somebody else's, who leaves later.
        self.told.swap(true, Ordering::AcqRel);
        self.inner.try_lock().map(|guard| self.entered(guard))
    }

    /// Whether anybody told of something since this was asked last.
    pub(super) fn heard(&self) -> bool {
        self.told.swap(false, Ordering::AcqRel)
    }

    fn entered<'a>(&'a self, guard: MutexGuard<'a, T>) -> Entered<'a, T> {
        Entered {
            guard,
            _look: LookBack {
                told: &self.told,
                news: &self.news,
            },
        }
    }
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Entered<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl Drop for LookBack<'_> {
    fn drop(&mut self) {
        if self.told.fetch_or(false, Ordering::AcqRel) {
            self.news.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::AtomicU32;
    use std::task::{Context, Waker};

    use super::*;

    fn gate() -> (Gate<u32>, Arc<Notify>) {
        let news = Arc::new(Notify::new());
        (Gate::new(0, news.clone()), news)
    }

    fn is_called(news: &Notify) -> bool {
        let mut called = pin!(news.notified());
        let mut context = Context::from_waker(Waker::noop());
        called.as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn who_tells_goes_in_if_nobody_is_there() {
        let (gate, news) = gate();
        assert!(!gate.heard());
        let inside = gate.tell().expect("nobody is inside");
        assert!(gate.heard());
        drop(inside);
        assert!(!is_called(&news), "it was heard");
    }

    #[test]
    fn what_was_told_while_somebody_is_inside_is_heard_there_or_calls_somebody() {
        let (gate, news) = gate();
        let inside = gate.lock();
        assert!(gate.tell().is_none());
        assert!(gate.heard());
        drop(inside);
        assert!(!is_called(&news));

        let inside = gate.lock();
        assert!(gate.tell().is_none());
        drop(inside);
        assert!(is_called(&news), "who was inside did not ask");
        assert!(gate.heard());
    }

    #[test]
    fn nothing_that_is_told_is_lost() {
        let (gate, news) = gate();
        let told = AtomicU32::new(0);
        // What the last who asked saw of `told`.
        let ask = |inside: &mut Entered<'_, u32>| {
            if gate.heard() {
                **inside = told.load(Ordering::SeqCst);
            }
        };
        for _ in 0..2_000 {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    told.fetch_add(1, Ordering::SeqCst);
                    if let Some(mut inside) = gate.tell() {
                        ask(&mut inside);
                    }
                });
                // One who asks, and one who does not.
                ask(&mut gate.lock());
                drop(gate.lock());
            });
            if is_called(&news) {
                ask(&mut gate.lock());
            }
            assert_eq!(*gate.lock(), told.load(Ordering::SeqCst));
        }
    }
}
