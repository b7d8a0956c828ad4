//! Invariant: `used` is what the members' files take on the disk, as far as they have told, and what they are about
//! to write.

use std::sync::atomic::{AtomicU64, Ordering};

/// How much pristine copies may take on the disk together.
#[derive(Debug)]
pub(crate) struct DiskBudget {
    limit: u64,
    used: AtomicU64,
}

impl DiskBudget {
    /// `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
        }
    }

    /// The limit, bytes.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> u64 {
        self.limit.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Whether more is used than the limit allows.
    pub(super) fn is_exceeded(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.limit
    }

    /// Takes `bytes`, if they are left.
    pub(super) fn try_take(&self, bytes: u64) -> bool {
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit)
            });
        taken.is_ok()
    }

    /// A member takes `before` no more but `now`.
    pub(super) fn change(&self, before: u64, now: u64) {
        let update = |used: u64| Some(used.saturating_sub(before).saturating_add(now));
        let _ = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back_and_no_more_than_the_limit_is_taken() {
        let budget = DiskBudget::new(100);
        assert!(budget.try_take(60) && !budget.try_take(41));
        budget.change(60, 90);
        assert_eq!((budget.left(), budget.is_exceeded()), (10, false));
        budget.change(0, 20);
        assert_eq!((budget.left(), budget.is_exceeded()), (0, true));
        budget.change(110, 0);
        assert!(budget.try_take(100));
        assert!(!budget.try_take(u64::MAX));
    }
}
