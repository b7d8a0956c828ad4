//! Invariant: what is outstanding at a peer is what the path counts as in flight; the picker notes it as asked of the
//! peer, and beside it only what was taken back and is still owed an answer.

use std::time::Duration;

use super::Remote;
use super::compression::Agreed;
use crate::clock::Time;
use crate::hash::{HashMap, HashSet};
use crate::image::{BlockIndex, PieceIndex};
use crate::swarm::allowed_fast::AllowedFast;
use crate::swarm::path::{PathEstimator, SendMark};

/// A request that was sent and not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outstanding {
    pub(super) mark: SendMark,
    /// From when on the block counts as late: twice what was expected when it was asked for.
    pub(super) late_at: Time,
    pub(super) bytes: u32,
    /// That it is late was noted.
    late: bool,
    /// Which of our requests this was.
    order: u64,
    /// It was asked for below the demand band, so demand may push it out.
    pub(super) gives_way: bool,
}

impl Outstanding {
    /// Which of our requests to the peer this was.
    pub(super) fn order(&self) -> u64 {
        self.order
    }
}

/// A request that we took back. Its block may have been under way already.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakenBack {
    pub(super) mark: SendMark,
    pub(super) at: Time,
    /// The picker still counts the block as asked of the peer, until the peer says which it is: the block, or a reject.
    pub(super) owed: bool,
}

/// What is known of a peer when its connection opens: what it said of itself in its handshake, and how it is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// It knows extension messages (BEP 10).
    pub(crate) extended: bool,
    /// It knows the fast extension (BEP 6).
    pub(crate) fast: bool,
    /// It takes PORT messages (BEP 5).
    pub(crate) dht: bool,
    /// The connection goes over uTP (BEP 29).
    pub(crate) utp: bool,
    /// Its peer id.
    pub(crate) id: [u8; 20],
}

/// The state of one connection, as BEP 3 has it, and what we know of the path.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) remote: Remote,
    pub(super) id: [u8; 20],
    /// It does not let us request.
    pub(super) chokes_us: bool,
    /// It let us request at some time.
    pub(super) has_unchoked_us: bool,
    pub(super) we_choke: bool,
    /// What it may ask for although we choke it.
    pub(super) may_ask_choked: AllowedFast,
    pub(super) we_are_interested: bool,
    pub(super) is_interested: bool,
    /// Requests that it keeps queued.
    pub(super) request_limit: usize,
    pub(super) path: PathEstimator,
    pub(super) fast: bool,
    /// In which form blocks come and go.
    pub(super) compression: Agreed,
    /// Its number for vmt_urgent; 0: it does not take it.
    pub(super) urgent_extension: u8,
    pub(super) outstanding: HashMap<BlockIndex, Outstanding>,
    /// Bytes that what is outstanding and demand may push out takes on the line.
    giving_way: u64,
    requests_made: u64,
    pub(super) taken_back: HashMap<BlockIndex, TakenBack>,
    /// Pieces that it said it has and then rejected, and when.
    pub(super) refused: HashMap<PieceIndex, Time>,
    /// Pieces that we may ask for although it chokes us.
    allowed_fast: HashSet<PieceIndex>,
    /// Blocks that it sent and that nobody had asked it for, and those that somebody had.
    pub(super) unsolicited: u64,
    pub(super) answered: u64,
    /// It left requests unanswered for long: it gets one at a time until it delivers.
    pub(super) snubbed: bool,
    /// Blocks of demand that were late since it last delivered one.
    lates: u32,
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
    /// Requests taken back that are remembered; a block that comes of another counts as unsolicited.
    const MAX_TAKEN_BACK: usize = 2048;
    const MAX_DOUBLINGS: u32 = 6;
    const MAX_ALLOWED_FAST: usize = 64;
    /// Blocks that nobody asked for which are borne beside a sixteenth of the others.
    const MAX_UNSOLICITED: u64 = 256;

    pub(super) fn new(
        now: Time,
        remote: Remote,
        connect_time: Option<Duration>,
        abilities: Abilities,
    ) -> Self {
        Self {
            remote,
            id: abilities.id,
            chokes_us: true,
            has_unchoked_us: false,
            we_choke: true,
            may_ask_choked: AllowedFast::default(),
            we_are_interested: false,
            is_interested: false,
            request_limit: Self::DEFAULT_REQUEST_LIMIT,
            path: PathEstimator::new(now, connect_time),
            fast: abilities.fast,
            compression: Agreed::default(),
            urgent_extension: 0,
            outstanding: HashMap::default(),
            giving_way: 0,
            requests_made: 0,
            taken_back: HashMap::default(),
            refused: HashMap::default(),
            allowed_fast: HashSet::default(),
            unsolicited: 0,
            answered: 0,
            snubbed: false,
            lates: 0,
            last_received: now,
            unanswered_since: None,
            last_sent: now,
            strikes: 0,
            said_field: false,
        }
    }

    /// It allows one more piece to be asked for while it chokes us. What goes beyond the bound is forgotten.
    pub(super) fn allow_fast(&mut self, piece: PieceIndex) {
        if self.allowed_fast.len() < Self::MAX_ALLOWED_FAST {
            self.allowed_fast.insert(piece);
        }
    }

    /// Whether one more request fits below `target` bytes on the line when `queued` bytes of them count as in flight.
    fn fits(&self, queued: u64, target: u64, bytes: u32) -> bool {
        self.outstanding.len() < self.request_limit
            && (self.outstanding.is_empty()
                || queued + u64::from(self.path.on_line(bytes)) <= target)
    }

    /// Bytes to keep requested.
    fn target(&self) -> u64 {
        if self.snubbed { 0 } else { self.path.target() }
    }

    /// Whether a request of a lower band fits: the queue is kept near bandwidth x round trip.
    pub(super) fn has_room(&self, bytes: u32) -> bool {
        !self.chokes_us && self.fits(self.path.in_flight(), self.target(), bytes)
    }

    /// Whether a demand request fits: it may go on top of a queue that lower bands filled, once over.
    pub(super) fn has_demand_room(&self, piece: PieceIndex, bytes: u32) -> bool {
        (!self.chokes_us || self.allowed_fast.contains(&piece))
            && self.fits(self.queued_before_demand(), self.target() * 2, bytes)
    }

    /// Whether a demand request, however short, fits at all.
    pub(super) fn may_take_demand(&self) -> bool {
        (!self.chokes_us || !self.allowed_fast.is_empty())
            && self.fits(self.queued_before_demand(), self.target() * 2, 1)
    }

    /// What would be before a demand request: all that is in flight, less what is still queued and gives way.
    fn queued_before_demand(&self) -> u64 {
        let in_flight = self.path.in_flight();
        if !self.fast {
            return in_flight;
        }
        in_flight
            .saturating_sub(self.giving_way)
            .max(in_flight.min(self.path.pipe()))
    }

    /// How soon a demand block would be here. What is known of a peer that lets us wait is out of date: each block that
    /// is late doubles what is expected, until one comes.
    pub(super) fn expected_demand(&self, bytes: u32) -> Duration {
        let expected = self
            .path
            .expected_behind(self.queued_before_demand(), bytes);
        expected * (1 << self.lates.min(Self::MAX_DOUBLINGS))
    }

    /// Whether a block is late by now.
    pub(super) fn is_late(&mut self, now: Time, block: BlockIndex) -> Option<bool> {
        let o = self.outstanding.get_mut(&block)?;
        let late = now >= o.late_at;
        if late && !std::mem::replace(&mut o.late, true) {
            self.lates += 1;
        }
        Some(late)
    }

    /// Bytes to take back so that a demand request finds nothing queued before it.
    pub(super) fn excess(&self) -> u64 {
        self.path.in_flight() - self.queued_before_demand()
    }

    /// The requests that demand may push out, last first, and what each takes on the line.
    pub(super) fn requests_that_give_way(&self) -> Vec<(BlockIndex, u32)> {
        let mut requests: Vec<_> = self
            .outstanding
            .iter()
            .filter(|(_, o)| o.gives_way)
            .map(|(block, o)| (o.order, *block, o.mark.on_line()))
            .collect();
        requests.sort_unstable_by_key(|(order, ..)| std::cmp::Reverse(*order));
        requests.into_iter().map(|(_, b, n)| (b, n)).collect()
    }

    /// Notes a request that goes out now.
    pub(super) fn note_request(
        &mut self,
        now: Time,
        block: BlockIndex,
        bytes: u32,
        gives_way: bool,
    ) {
        let expected = self.path.expected(bytes);
        let mut mark = self.path.on_send(now, bytes);
        if !self.fast && self.taken_back.remove(&block).is_some() {
            // Nothing says whether that one is answered too. With the fast extension it is.
            mark.set_ambiguous();
        }
        let late_at = now + expected * 2 + LATE_SLACK;
        self.unanswered_since.get_or_insert(now);
        let new = Outstanding {
            mark,
            late_at,
            bytes,
            late: false,
            order: self.requests_made,
            gives_way,
        };
        self.requests_made += 1;
        self.drop_request(block);
        self.outstanding.insert(block, new);
        if gives_way {
            self.giving_way += u64::from(mark.on_line());
        }
    }

    /// Demand waits for a block that was asked for below it: it gives way no more. Whether it did.
    pub(super) fn stays(&mut self, block: BlockIndex) -> bool {
        if let Some(o) = self.outstanding.get_mut(&block)
            && std::mem::take(&mut o.gives_way)
        {
            self.giving_way -= u64::from(o.mark.on_line());
            return true;
        }
        false
    }

    /// Notes that a block arrived and took `wire` bytes on the line; false when it was not asked of this peer.
    pub(super) fn note_block(&mut self, now: Time, block: BlockIndex, wire: u32) -> bool {
        let asked = self.remove(block);
        if let Some(taken) = self.taken_back.remove(&block) {
            // The block crossed the CANCEL that takes its request back: it is as good as any. Answers come in order, so it
            // tells of that request, and what was asked for again is answered yet.
            if let Some(again) = asked {
                self.path.on_drop(&again.mark);
                let due = TakenBack {
                    mark: again.mark,
                    at: now,
                    owed: false,
                };
                self.taken_back.insert(block, due);
            }
            self.path.on_late_receive(now, &taken.mark, wire);
        } else if let Some(asked) = asked {
            self.path.on_receive_of(now, &asked.mark, wire);
        } else {
            self.unsolicited += 1;
            return false;
        }
        // Another answer is due only if something is still asked for.
        self.unanswered_since = (!self.outstanding.is_empty()).then_some(now);
        self.answered += 1;
        self.lates = 0;
        self.snubbed = false;
        true
    }

    /// Whether it sends so much that nobody asked for that it can only be on purpose.
    pub(super) fn floods(&self) -> bool {
        self.unsolicited > Self::MAX_UNSOLICITED + self.answered / 16
    }

    /// Notes that a request will not be answered, or that its answer is not waited for.
    pub(super) fn drop_request(&mut self, block: BlockIndex) -> bool {
        let dropped = self.remove(block);
        if let Some(o) = &dropped {
            self.path.on_drop(&o.mark);
        }
        dropped.is_some()
    }

    /// Notes that a request is taken back. With `owed`, the block stays asked of this peer until it answers.
    pub(super) fn take_back(&mut self, now: Time, block: BlockIndex, owed: bool) -> bool {
        let Some(o) = self.remove(block) else {
            return false;
        };
        self.path.on_drop(&o.mark);
        if owed || self.taken_back.len() < Self::MAX_TAKEN_BACK {
            let taken = TakenBack {
                mark: o.mark,
                at: now,
                owed,
            };
            self.taken_back.insert(block, taken);
        }
        true
    }

    fn remove(&mut self, block: BlockIndex) -> Option<Outstanding> {
        let o = self.outstanding.remove(&block)?;
        if o.gives_way {
            self.giving_way -= u64::from(o.mark.on_line());
        }
        Some(o)
    }

    /// Notes that none of the requests will be answered. Gives the bytes that were asked for.
    pub(super) fn drop_all_requests(&mut self) -> u64 {
        self.unanswered_since = None;
        self.giving_way = 0;
        self.taken_back.clear();
        let mut bytes = 0;
        for (_, o) in self.outstanding.drain() {
            self.path.on_drop(&o.mark);
            bytes += u64::from(o.bytes);
        }
        bytes
    }
}

/// What a block may be late beyond twice its expected time: scheduling on a busy host is no loss.
const LATE_SLACK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::BLOCK_LENGTH;

    const BLOCK: BlockIndex = BlockIndex {
        piece: PieceIndex(3),
        block: 0,
    };
    const ROUND_TRIP: Duration = Duration::from_millis(20);

    fn peer(fast: bool) -> Peer {
        let abilities = Abilities {
            fast,
            ..Abilities::default()
        };
        let address = "192.0.2.1:6881".parse().unwrap();
        Peer::new(
            Time::default(),
            Remote::Peer(address),
            Some(ROUND_TRIP * 2),
            abilities,
        )
    }

    fn ask(peer: &mut Peer, now: Time) {
        peer.note_request(now, BLOCK, BLOCK_LENGTH, false);
    }

    /// A block that comes just after it was asked for again is the answer to the first request.
    #[test]
    fn a_block_that_crosses_its_cancel_tells_of_the_request_that_it_answers() {
        for fast in [true, false] {
            let mut peer = peer(fast);
            let start = Time::default();
            ask(&mut peer, start);
            assert!(peer.take_back(start + ROUND_TRIP / 2, BLOCK, fast));
            let again = start + ROUND_TRIP - Duration::from_millis(1);
            ask(&mut peer, again);
            let first = start + ROUND_TRIP;
            assert!(peer.note_block(first, BLOCK, BLOCK_LENGTH), "fast: {fast}");
            let known = peer.path.round_trip();
            // Where nothing says which of the two was answered, nothing is learnt.
            let expected = if fast { ROUND_TRIP } else { ROUND_TRIP * 2 };
            assert_eq!(known, expected, "fast: {fast}");
            assert_eq!((peer.outstanding.len(), peer.path.in_flight()), (0, 0));
            // The answer to the second is still due, and welcome, where each request is answered.
            let second = again + ROUND_TRIP;
            assert_eq!(peer.note_block(second, BLOCK, BLOCK_LENGTH), fast);
            assert_eq!(peer.path.round_trip(), expected, "fast: {fast}");
            assert!(peer.taken_back.is_empty());
            assert_eq!(peer.path.in_flight(), 0);
        }
    }

    #[test]
    fn a_reject_of_what_was_taken_back_leaves_the_second_request() {
        let mut peer = peer(true);
        let start = Time::default();
        ask(&mut peer, start);
        assert!(peer.take_back(start, BLOCK, true));
        ask(&mut peer, start + ROUND_TRIP / 2);
        // As the engine does on a reject: it is that of the first request.
        assert!(peer.taken_back.remove(&BLOCK).is_some());
        let came = start + ROUND_TRIP / 2 + ROUND_TRIP;
        assert!(peer.note_block(came, BLOCK, BLOCK_LENGTH));
        assert_eq!(peer.path.round_trip(), ROUND_TRIP);
        assert!(!peer.note_block(came, BLOCK, BLOCK_LENGTH), "nobody asked");
    }
}
