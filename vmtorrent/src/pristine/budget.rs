//! Invariant: `used` is what the members' files take on the disk, as far as they have told, and what they are about
//! to write.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Pristine;

/// How much pristine copies may take on the disk together.
pub(crate) struct DiskBudget {
    limit: u64,
    used: AtomicU64,
    members: Mutex<Vec<Member>>,
}

/// A copy of which pieces may go for another's.
#[derive(Clone)]
struct Member {
    pristine: Weak<Pristine>,
    /// Has its swarm look at what went.
    tell: Arc<dyn Fn() + Send + Sync>,
}

/// A copy that others may ask for room.
pub(super) struct Other {
    pub(super) pristine: Arc<Pristine>,
    /// To be called after pieces of it went.
    pub(super) tell: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for DiskBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskBudget")
            .field("limit", &self.limit)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

impl DiskBudget {
    /// `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
            members: Mutex::default(),
        }
    }

    /// From now on pieces of a copy may go for those of others; `tell` is called after each.
    pub(super) fn join(&self, pristine: &Arc<Pristine>, tell: Arc<dyn Fn() + Send + Sync>) {
        let member = Member {
            pristine: Arc::downgrade(pristine),
            tell,
        };
        let mut members = self.members.lock();
        members.retain(|m| m.pristine.strong_count() > 0);
        members.push(member);
    }

    /// The members but one, those that take most first.
    pub(super) fn others(&self, but: &Pristine) -> Vec<Other> {
        let members = self.members.lock().clone();
        let mut others: Vec<Other> = members
            .into_iter()
            .filter_map(|member| {
                Some(Other {
                    pristine: member.pristine.upgrade()?,
                    tell: member.tell,
                })
            })
            .filter(|other| !std::ptr::eq(Arc::as_ptr(&other.pristine), but))
            .collect();
        others.sort_by_cached_key(|other| std::cmp::Reverse(other.pristine.taken()));
        others
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
