//! Invariant: what is outstanding at a peer is exactly what the picker notes as asked of it, and what the path counts
//! as in flight.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::Time;
use crate::image::BlockIndex;
use crate::swarm::path::{PathEstimator, SendMark};

/// A request that was sent and not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outstanding {
    pub(super) mark: SendMark,
    /// From when on the block counts as late: twice what was expected when it was asked for.
    pub(super) late_at: Time,
}

/// The state of one connection, as BEP 3 has it, and what we know of the path.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// It does not let us request.
    pub(super) chokes_us: bool,
    pub(super) we_choke: bool,
    pub(super) we_are_interested: bool,
    pub(super) is_interested: bool,
    /// Requests that it keeps queued.
    pub(super) request_limit: usize,
    pub(super) path: PathEstimator,
    pub(super) outstanding: HashMap<BlockIndex, Outstanding>,
    /// It left requests unanswered for long: it gets one at a time until it delivers.
    pub(super) snubbed: bool,
    pub(super) last_received: Time,
    /// When the first of the requests went out that nothing has answered since.
    pub(super) unanswered_since: Option<Time>,
    pub(super) last_sent: Time,
    /// Pieces with a wrong hash to which it contributed.
    pub(super) strikes: u32,
    pub(super) said_field: bool,
}

impl Peer {
    /// What is assumed of a peer that does not say how many requests it keeps.
    const DEFAULT_REQUEST_LIMIT: usize = 250;

    pub(super) fn new(now: Time, address: SocketAddr, connect_time: Option<Duration>) -> Self {
        Self {
            address,
            chokes_us: true,
            we_choke: true,
            we_are_interested: false,
            is_interested: false,
            request_limit: Self::DEFAULT_REQUEST_LIMIT,
            path: PathEstimator::new(now, connect_time),
            outstanding: HashMap::new(),
            snubbed: false,
            last_received: now,
            unanswered_since: None,
            last_sent: now,
            strikes: 0,
            said_field: false,
        }
    }

    /// Bytes that may be requested on top of what is in flight, keeping to `target` bytes.
    fn room_below(&self, target: u64, bytes: u32) -> bool {
        !self.chokes_us
            && self.outstanding.len() < self.request_limit
            && (self.outstanding.is_empty() || self.path.in_flight() + u64::from(bytes) <= target)
    }

    /// Whether a request of a lower band fits: the queue is kept near bandwidth x round trip.
    pub(super) fn has_room(&self, now: Time, bytes: u32) -> bool {
        let target = if self.snubbed {
            0
        } else {
            self.path.target(now)
        };
        self.room_below(target, bytes)
    }

    /// Whether a demand request fits: it may go on top of a queue that lower bands filled, once over.
    pub(super) fn has_demand_room(&self, now: Time, bytes: u32) -> bool {
        let target = if self.snubbed {
            0
        } else {
            self.path.target(now) * 2
        };
        self.room_below(target, bytes)
    }

    /// Notes a request that goes out now.
    pub(super) fn note_request(&mut self, now: Time, block: BlockIndex, bytes: u32) {
        let expected = self.path.expected(bytes);
        let mark = self.path.on_send(now, bytes);
        let late_at = now + expected * 2 + LATE_SLACK;
        self.unanswered_since.get_or_insert(now);
        let new = Outstanding { mark, late_at };
        if let Some(old) = self.outstanding.insert(block, new) {
            self.path.on_drop(&old.mark);
        }
    }

    /// Notes that a request will not be answered, or that its answer is not waited for.
    pub(super) fn drop_request(&mut self, block: BlockIndex) -> bool {
        match self.outstanding.remove(&block) {
            Some(o) => {
                self.path.on_drop(&o.mark);
                true
            }
            None => false,
        }
    }

    /// Notes that none of the requests will be answered.
    pub(super) fn drop_all_requests(&mut self) {
        self.unanswered_since = None;
        for (_, o) in self.outstanding.drain() {
            self.path.on_drop(&o.mark);
        }
    }
}

/// What a block may be late beyond twice its expected time: scheduling on a busy host is no loss.
const LATE_SLACK: Duration = Duration::from_millis(10);
