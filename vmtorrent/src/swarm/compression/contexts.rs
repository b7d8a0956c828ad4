//! Invariant: there are never more than `most` contexts, and each is used by one thread at a time.

use parking_lot::Mutex;

/// Working memory of zstd that is used again and again: making it takes longer than a block.
pub(super) struct Contexts<C> {
    state: Mutex<State<C>>,
    most: usize,
}

struct State<C> {
    idle: Vec<C>,
    made: usize,
}

impl<C> Contexts<C> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            state: Mutex::new(State {
                idle: Vec::new(),
                made: 0,
            }),
            most,
        }
    }

    /// Uses one; `None` when all are in use, or there is no memory for another.
    pub(super) fn with<T>(
        &self,
        make: impl FnOnce() -> Option<C>,
        work: impl FnOnce(&mut C) -> T,
    ) -> Option<T> {
        let mut context = self.take(make)?;
        let result = work(&mut context);
        self.state.lock().idle.push(context);
        Some(result)
    }

    fn take(&self, make: impl FnOnce() -> Option<C>) -> Option<C> {
        let mut state = self.state.lock();
        if let Some(context) = state.idle.pop() {
            return Some(context);
        }
        if state.made >= self.most {
            return None;
        }
        let context = make()?;
        state.made += 1;
        Some(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_used_again_and_are_bounded() {
        let contexts = Contexts::new(2);
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
    fn one_that_could_not_be_made_does_not_count() {
        let contexts = Contexts::new(1);
        assert_eq!(contexts.with(|| None::<()>, |()| ()), None);
        assert_eq!(contexts.with(|| Some(()), |()| ()), Some(()));
    }
}
