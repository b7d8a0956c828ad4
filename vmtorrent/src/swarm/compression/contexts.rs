//! Invariant: there are never more than `most` contexts, each is used by one thread at a time, and few wait for one.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Working memory of zstd that is used again and again: making it takes longer than a block.
pub(super) struct Contexts<C> {
    state: Mutex<State<C>>,
    freed: Condvar,
    most: usize,
    patience: Duration,
}

struct State<C> {
    idle: Vec<C>,
    made: usize,
    waiting: usize,
}

/// Threads that may wait for each context, and for how long: a block takes 0.1 ms.
const WAITING: usize = 4;
const LONGEST_WAIT: Duration = Duration::from_millis(10);

impl<C> Contexts<C> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            state: Mutex::new(State {
                idle: Vec::new(),
                made: 0,
                waiting: 0,
            }),
            freed: Condvar::new(),
            most,
            patience: LONGEST_WAIT,
        }
    }

    /// Uses one; `None` when all are in use and enough wait for them, or there is no memory for another.
    pub(super) fn with<T>(
        &self,
        make: impl FnOnce() -> Option<C>,
        work: impl FnOnce(&mut C) -> T,
    ) -> Option<T> {
        let mut context = self.take(make)?;
        let result = work(&mut context);
        self.state.lock().idle.push(context);
        self.freed.notify_one();
        Some(result)
    }

    fn take(&self, make: impl FnOnce() -> Option<C>) -> Option<C> {
        let mut state = self.state.lock();
        loop {
            if let Some(context) = state.idle.pop() {
                return Some(context);
            }
            if state.made < self.most {
                let context = make()?;
                state.made += 1;
                return Some(context);
            }
            if state.waiting >= self.most.saturating_mul(WAITING) {
                return None;
            }
            state.waiting += 1;
            let waited = self.freed.wait_for(&mut state, self.patience);
            state.waiting -= 1;
            if waited.timed_out() {
                return state.idle.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_used_again_and_are_bounded() {
        let mut contexts = Contexts::new(2);
        contexts.patience = Duration::ZERO;
        let mut made = 0;
        let mut make = || {
            made += 1;
            Some(made)
        };
        assert_eq!(contexts.with(&mut make, |c| *c), Some(1));
        assert_eq!(contexts.with(&mut make, |c| *c), Some(1));
        let nested = contexts.with(&mut make, |_| {
            contexts.with(
                || Some(2),
                |second| {
                    assert_eq!(*second, 2);
                    contexts.with(|| Some(3), |_| ())
                },
            )
        });
        assert_eq!(nested, Some(Some(None)), "the third has to do without");
    }

    #[test]
    fn a_few_wait_for_a_context_and_more_do_without() {
        let mut contexts = Contexts::new(1);
        contexts.patience = Duration::from_secs(60);
        let one = || contexts.with(|| Some(()), |()| ());
        std::thread::scope(|scope| {
            let served = contexts.with(
                || Some(()),
                |()| {
                    let waiting: Vec<_> = (0..WAITING).map(|_| scope.spawn(one)).collect();
                    while contexts.state.lock().waiting < WAITING {
                        std::thread::yield_now();
                    }
                    assert_eq!(one(), None, "one more than may wait");
                    waiting
                },
            );
            for waiting in served.unwrap() {
                assert_eq!(waiting.join().unwrap(), Some(()));
            }
        });
        assert_eq!(contexts.state.lock().made, 1);
    }

    #[test]
    fn one_that_could_not_be_made_does_not_count() {
        let contexts = Contexts::new(1);
        assert_eq!(contexts.with(|| None::<()>, |()| ()), None);
        assert_eq!(contexts.with(|| Some(()), |()| ()), Some(()));
    }
}
