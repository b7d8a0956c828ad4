//! Invariant: no two guards cover the same block at the same time, and of two that want one, who came first gets it
//! first.

use std::ops::Range;

use parking_lot::{Condvar, Mutex};

/// Who changes which blocks at this moment, and who waits for them.
#[derive(Default)]
pub(super) struct RangeLocks {
    queue: Mutex<Queue>,
    released: Condvar,
}

#[derive(Default)]
struct Queue {
    next_id: u64,
    /// In the order of arrival: holders, and those that wait for one before them.
    entries: Vec<(u64, Range<u64>)>,
}

/// The right to change some blocks. Given back when it is dropped.
pub(super) struct RangeGuard<'a> {
    locks: &'a RangeLocks,
    id: u64,
}

impl Queue {
    fn enter(&mut self, blocks: Range<u64>) -> u64 {
        self.next_id += 1;
        self.entries.push((self.next_id, blocks));
        self.next_id
    }

    /// Whether somebody who came before `id` wants one of its blocks.
    fn must_wait(&self, id: u64) -> bool {
        let Some(at) = self.entries.iter().position(|(other, _)| *other == id) else {
            return false;
        };
        let blocks = &self.entries[at].1;
        self.entries[..at].iter().any(|(_, b)| overlap(b, blocks))
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

impl RangeLocks {
    /// Waits until `blocks` are free, and takes them.
    pub(super) fn lock(&self, blocks: Range<u64>) -> RangeGuard<'_> {
        let mut queue = self.queue.lock();
        let id = queue.enter(blocks);
        while queue.must_wait(id) {
            self.released.wait(&mut queue);
        }
        RangeGuard { locks: self, id }
    }

    /// Takes `blocks` if they are free and nobody waits for one of them.
    pub(super) fn try_lock(&self, blocks: Range<u64>) -> Option<RangeGuard<'_>> {
        let mut queue = self.queue.lock();
        if queue.entries.iter().any(|(_, b)| overlap(b, &blocks)) {
            return None;
        }
        let id = queue.enter(blocks);
        Some(RangeGuard { locks: self, id })
    }
}

impl Drop for RangeGuard<'_> {
    fn drop(&mut self) {
        let mut queue = self.locks.queue.lock();
        queue.entries.retain(|(id, _)| *id != self.id);
        if !queue.entries.is_empty() {
            self.locks.released.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn blocks_of_others_are_free_and_those_that_are_held_or_awaited_are_not() {
        let locks = RangeLocks::default();
        let low = locks.lock(0..10);
        let high = locks.try_lock(10..u64::MAX).unwrap();
        assert!(locks.try_lock(9..11).is_none());
        drop(low);
        let low = locks.try_lock(0..5).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| drop(locks.lock(3..20)));
            while locks.queue.lock().entries.len() < 3 {
                std::thread::yield_now();
            }
            // Free, but somebody waits for it already.
            assert!(locks.try_lock(7..8).is_none());
            drop((low, high));
            waits.join().unwrap();
        });
        drop(locks.try_lock(0..u64::MAX).unwrap());
    }

    #[test]
    fn nobody_changes_a_block_that_another_holds() {
        const BLOCKS: u64 = 12;
        let locks = RangeLocks::default();
        let holders: Vec<_> = (0..BLOCKS).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (locks, holders) = (&locks, &holders);
                scope.spawn(move || {
                    for round in 0..2000_u64 {
                        let start = (round * 5 + thread * 3) % BLOCKS;
                        let end = (start + 1 + round % 4).min(BLOCKS);
                        let guard = if round % 3 == 0 {
                            locks.try_lock(start..end)
                        } else {
                            Some(locks.lock(start..end))
                        };
                        if guard.is_some() {
                            let mine = &holders[start as usize..end as usize];
                            assert!(mine.iter().all(|h| h.fetch_add(1, Ordering::SeqCst) == 0));
                            for holder in mine {
                                holder.fetch_sub(1, Ordering::SeqCst);
                            }
                        }
                    }
                });
            }
        });
        assert!(locks.queue.lock().entries.is_empty());
    }
}
