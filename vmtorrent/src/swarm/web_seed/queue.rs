//! Invariant: each request is in the queue, or being fetched, or answered; blocks that lie beside each other go into one
//! range, but what a read waits for never behind what it does not.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::swarm::wire::WireRequest;

/// What is asked of one web server.
///
/// An urgent block waits neither for nor behind others: it has ranges of its own, which are short, and goes over
/// connections that the others leave free.
#[derive(Debug, Default)]
pub(super) struct FetchQueue {
    urgent: Lane,
    others: Lane,
    /// What is being fetched, and whether it was taken back meanwhile.
    fetching: HashMap<WireRequest, bool>,
    jobs: usize,
    other_jobs: usize,
}

/// A range to be fetched at once: blocks that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// Where it begins in the image.
    pub(super) start: u64,
    pub(super) blocks: Vec<WireRequest>,
    pub(super) urgent: bool,
    /// It was tried before.
    pub(super) retried: bool,
}

impl Job {
    pub(super) fn bytes(&self) -> u64 {
        self.blocks.iter().map(|b| u64::from(b.length)).sum()
    }
}

/// Blocks that wait, by their place in the image and in the order in which they were asked for.
#[derive(Debug, Default)]
struct Lane {
    blocks: BTreeMap<u64, WireRequest>,
    /// Also of blocks that have left.
    order: VecDeque<u64>,
}

impl Lane {
    fn push(&mut self, at: u64, block: WireRequest) {
        self.blocks.insert(at, block);
        self.order.push_back(at);
    }

    fn remove(&mut self, at: u64, block: WireRequest) -> bool {
        let found = self.blocks.get(&at) == Some(&block);
        if found {
            self.blocks.remove(&at);
        }
        if self.blocks.is_empty() {
            self.order.clear();
        }
        found
    }

    /// The block that was asked for first and those beside it, up to so many bytes.
    fn take(&mut self, most: u64) -> Option<(u64, Vec<WireRequest>)> {
        let first = loop {
            let at = self.order.pop_front()?;
            if let Some(block) = self.blocks.remove(&at) {
                break (at, block);
            }
        };
        let (mut start, mut end) = (first.0, first.0 + u64::from(first.1.length));
        let mut run = VecDeque::from([first.1]);
        // Behind it first: most reads go that way.
        while let Some(&block) = self.blocks.get(&end) {
            if end + u64::from(block.length) - start > most {
                break;
            }
            self.blocks.remove(&end);
            end += u64::from(block.length);
            run.push_back(block);
        }
        while let Some((&at, &block)) = self.blocks.range(..start).next_back() {
            if at + u64::from(block.length) != start || end - at > most {
                break;
            }
            self.blocks.remove(&at);
            start = at;
            run.push_front(block);
        }
        Some((start, run.into()))
    }
}

/// What a request for a block leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It will be answered.
    Queued,
    /// It is being fetched for a request that was taken back: that one is answered by a reject, this one by the block.
    TakenOver,
}

impl FetchQueue {
    /// Longest ranges, bytes.
    const LONGEST: u64 = 512 << 10;
    const LONGEST_URGENT: u64 = 64 << 10;
    /// Ranges that are fetched at once. Over HTTP/1.1 each has a connection.
    const JOBS: usize = 10;
    const OTHER_JOBS: usize = 6;

    /// A block is asked for that lies at `at` in the image.
    pub(super) fn push(&mut self, at: u64, block: WireRequest, urgent: bool) -> Pushed {
        if let Some(taken_back) = self.fetching.get_mut(&block) {
            return if std::mem::take(taken_back) {
                Pushed::TakenOver
            } else {
                Pushed::Queued
            };
        }
        let lane = if urgent {
            &mut self.urgent
        } else {
            &mut self.others
        };
        lane.push(at, block);
        Pushed::Queued
    }

    /// A request is taken back; true when it waited: it needs a reject. Else its block comes.
    pub(super) fn cancel(&mut self, at: u64, block: WireRequest) -> bool {
        if self.urgent.remove(at, block) || self.others.remove(at, block) {
            return true;
        }
        if let Some(taken_back) = self.fetching.get_mut(&block) {
            *taken_back = true;
        }
        false
    }

    /// What is to be fetched next, if there is a connection for it.
    pub(super) fn next(&mut self) -> Option<Job> {
        if self.jobs >= Self::JOBS {
            return None;
        }
        let (start, blocks, urgent) = match self.urgent.take(Self::LONGEST_URGENT) {
            Some((start, blocks)) => (start, blocks, true),
            None if self.other_jobs < Self::OTHER_JOBS => {
                let (start, blocks) = self.others.take(Self::LONGEST)?;
                (start, blocks, false)
            }
            None => return None,
        };
        let job = Job {
            start,
            blocks,
            urgent,
            retried: false,
        };
        self.begin(&job);
        Some(job)
    }

    /// A job that [`ended`](Self::ended) is to be fetched once more, what is left of it.
    pub(super) fn again(&mut self, start: u64, job: &Job, left: Vec<WireRequest>) -> Job {
        let job = Job {
            start,
            blocks: left,
            urgent: job.urgent,
            retried: true,
        };
        self.begin(&job);
        job
    }

    /// A block has come.
    pub(super) fn received(&mut self, block: WireRequest) {
        self.fetching.remove(&block);
    }

    /// A job has ended; gives its blocks that have not come.
    pub(super) fn ended(&mut self, job: &Job) -> Vec<WireRequest> {
        self.jobs -= 1;
        self.other_jobs -= usize::from(!job.urgent);
        let blocks = job.blocks.iter().copied();
        blocks
            .filter(|b| self.fetching.remove(b).is_some())
            .collect()
    }

    /// Nothing that waits is fetched any more; gives what that was.
    pub(super) fn drain(&mut self) -> Vec<WireRequest> {
        let urgent = std::mem::take(&mut self.urgent).blocks;
        let others = std::mem::take(&mut self.others).blocks;
        urgent.into_values().chain(others.into_values()).collect()
    }

    fn begin(&mut self, job: &Job) {
        self.jobs += 1;
        self.other_jobs += usize::from(!job.urgent);
        self.fetching.extend(job.blocks.iter().map(|b| (*b, false)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::BLOCK_LENGTH;

    const BLOCK: u64 = BLOCK_LENGTH as u64;

    /// Block `n` of an image with pieces of four blocks.
    fn block(n: u64) -> WireRequest {
        WireRequest {
            piece: (n / 4) as u32,
            begin: (n % 4) as u32 * BLOCK_LENGTH,
            length: BLOCK_LENGTH,
        }
    }

    fn push(queue: &mut FetchQueue, blocks: impl IntoIterator<Item = u64>, urgent: bool) {
        for n in blocks {
            assert_eq!(queue.push(n * BLOCK, block(n), urgent), Pushed::Queued);
        }
    }

    /// First block and number of blocks.
    fn shape(job: &Job) -> (u64, usize) {
        let first = job.start / BLOCK;
        for (n, b) in job.blocks.iter().enumerate() {
            assert_eq!(*b, block(first + n as u64));
        }
        (first, job.blocks.len())
    }

    #[test]
    fn blocks_beside_each_other_go_into_one_range_across_pieces() {
        let mut queue = FetchQueue::default();
        push(&mut queue, [6, 20, 7, 5, 9, 8], false);
        let jobs: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(
            jobs.iter().map(shape).collect::<Vec<_>>(),
            [(5, 5), (20, 1)]
        );
        assert_eq!(jobs[0].bytes(), 5 * BLOCK);
    }

    #[test]
    fn ranges_and_their_number_are_bounded_and_urgent_blocks_have_their_own() {
        let mut queue = FetchQueue::default();
        push(&mut queue, 0..1000, false);
        let mut jobs: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(jobs.len(), FetchQueue::OTHER_JOBS);
        assert!(jobs.iter().all(|j| j.bytes() == FetchQueue::LONGEST));
        push(&mut queue, 2000..2010, true);
        let urgent: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        let shapes: Vec<_> = urgent.iter().map(shape).collect();
        assert_eq!(shapes, [(2000, 4), (2004, 4), (2008, 2)]);
        push(&mut queue, 3000..3100, true);
        assert_eq!(std::iter::from_fn(|| queue.next()).count(), 1);
        // A place that is free goes to what is urgent.
        let over = jobs.pop().unwrap();
        assert_eq!(queue.ended(&over).len(), 32);
        assert!(queue.next().unwrap().urgent);
        assert!(queue.next().is_none());
    }

    #[test]
    fn a_request_that_is_taken_back_is_answered_once_for_each_time_it_was_made() {
        let mut queue = FetchQueue::default();
        push(&mut queue, [1, 2], false);
        assert!(queue.cancel(2 * BLOCK, block(2)), "it waits: a reject");
        assert!(!queue.cancel(2 * BLOCK, block(2)));
        let job = queue.next().unwrap();
        assert_eq!(shape(&job), (1, 1));
        assert!(!queue.cancel(BLOCK, block(1)), "it comes");
        assert_eq!(queue.push(BLOCK, block(1), true), Pushed::TakenOver);
        assert_eq!(queue.push(BLOCK, block(1), true), Pushed::Queued);
        assert!(queue.next().is_none(), "it is being fetched already");
        queue.received(block(1));
        assert_eq!(queue.ended(&job), []);
        push(&mut queue, [1], true);
        assert!(queue.next().is_some());
    }

    #[test]
    fn what_did_not_come_of_a_job_is_known() {
        let mut queue = FetchQueue::default();
        push(&mut queue, 0..4, true);
        push(&mut queue, [9], false);
        let job = queue.next().unwrap();
        queue.received(block(0));
        let left = queue.ended(&job);
        assert_eq!(left, [block(1), block(2), block(3)]);
        let again = queue.again(BLOCK, &job, left);
        assert!(again.retried && again.urgent);
        assert_eq!(queue.drain(), [block(9)]);
        assert_eq!(queue.ended(&again).len(), 3);
        assert!(queue.next().is_none());
    }
}
