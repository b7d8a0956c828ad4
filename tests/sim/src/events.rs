//! Invariant: what happens at one host comes out in the order of its time, and of its order where that is the same.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::moment::{NEVER, Nanos};

/// What will happen at one host.
#[derive(Debug)]
pub struct Events<T> {
    queue: BinaryHeap<Reverse<(Nanos, u64, u32)>>,
    /// Kept apart, so that the heap moves little.
    what: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Events<T> {
    fn default() -> Self {
        Self {
            queue: BinaryHeap::new(),
            what: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Events<T> {
    /// Something will happen; no two have one time and one order.
    pub fn push(&mut self, at: Nanos, order: u64, what: T) {
        let place = match self.free.pop() {
            Some(place) => {
                self.what[place as usize] = Some(what);
                place
            }
            None => {
                self.what.push(Some(what));
                self.what.len() as u32 - 1
            }
        };
        self.queue.push(Reverse((at, order, place)));
    }

    /// When the next one happens.
    pub fn next(&self) -> Nanos {
        self.queue.peek().map_or(NEVER, |Reverse((at, ..))| *at)
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<T> {
        let Reverse((_, _, place)) = self.queue.pop()?;
        self.free.push(place);
        self.what[place as usize].take()
    }

    /// Nothing of it happens.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
