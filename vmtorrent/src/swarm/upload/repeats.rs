//! Invariant: what is held is released after [`Repeats::LONGEST`] and a round at most, and held again only when twice as many were
//! given the piece.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Time;
use crate::hash::HashMap;
use crate::picker::PeerKey;
use crate::swarm::wire::WireRequest;

/// What a seed gave to one peer a moment ago, and who else asks for it.
///
/// Guests that start together want the same at the same time. Given to all of them, each piece takes the line for as many
/// copies, and what comes next comes that much later for all. Given to one, it is soon with all of them by way of that
/// one, while the line carries what nobody has. So a piece goes to one peer at first, and the others' requests are held:
/// by the end of a round most have got it elsewhere and taken the request back. What is left then is released; twice as
/// many peers are given the piece before it is held again, and so on, as copies among peers double.
///
/// It is what superseeding (BEP 16) does, but for peers that say themselves what they need. What a read waits
/// for when it is asked for is not held. Nor is what peers of other kinds ask for, which would not take it back, nor what
/// those ask for that got little elsewhere of late: they may know nobody else.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// Peers whose requests may be held.
    crowd: HashMap<PeerKey, Member>,
    given: HashMap<u32, Given>,
    /// When the present round of each piece ends, in that order but for those whose length has changed.
    rounds: VecDeque<(Time, u32)>,
    /// How many requests are held.
    held: usize,
    released: Vec<(PeerKey, WireRequest)>,
    /// How long it takes, in the mean of the last pieces, from when a block is given out until the peer has its piece.
    travel: Duration,
}

/// A peer whose requests may be held.
#[derive(Debug)]
struct Member {
    /// The part of what was held of late that it got elsewhere.
    success: f64,
    rests_until: Time,
}

/// A piece in its present round.
#[derive(Debug)]
struct Given {
    since: Time,
    to: Vec<PeerKey>,
    most: usize,
    held: Vec<(PeerKey, WireRequest)>,
    /// The first peer has it, or it is not the first round.
    came: bool,
}

impl Repeats {
    /// A block that was given comes to the peer behind others, is checked, and goes on to those who lack it.
    const ROUND: Duration = Duration::from_millis(500);
    const LONGEST_ROUND: Duration = Duration::from_secs(5);
    /// Whoever was given a block and has not got its piece by then does not pass it on.
    const LONGEST: Duration = Duration::from_secs(10);
    /// The same as a multiple of what it takes to come to the first.
    const TRAVELS: u32 = 3;
    const WEIGHT: u32 = 8;
    /// Fewer are no crowd: copies for all of them take no long time.
    const CROWD: usize = 4;
    /// How long nothing is held of a peer that gets too little elsewhere.
    const REST: Duration = Duration::from_secs(10);
    const LEAST_SUCCESS: f64 = 0.3;

    /// A peer takes back what it got elsewhere: its requests may be held.
    pub(super) fn join(&mut self, peer: PeerKey) {
        self.crowd.entry(peer).or_insert(Member {
            success: 1.0,
            rests_until: Time::default(),
        });
    }

    /// A peer has gone, and its requests with it.
    pub(super) fn leave(&mut self, peer: PeerKey) {
        self.crowd.remove(&peer);
        for given in self.given.values_mut() {
            given.came |= given.to.first() == Some(&peer);
        }
    }

    /// A block is to be given to a peer now; false when its request is held.
    pub(super) fn admits(
        &mut self,
        now: Time,
        peer: PeerKey,
        request: WireRequest,
        urgent: bool,
    ) -> bool {
        let may_be_held = !urgent
            && self.crowd.len() >= Self::CROWD
            && self.crowd.get(&peer).is_some_and(|m| m.rests_until <= now);
        let tells = self.crowd.contains_key(&peer);
        let ends = now + self.round();
        let rounds = &mut self.rounds;
        let given = self.given.entry(request.piece).or_insert_with(|| {
            rounds.push_back((ends, request.piece));
            Given {
                since: now,
                to: Vec::new(),
                most: 1,
                held: Vec::new(),
                // Others do not tell a seed what they have.
                came: !tells,
            }
        });
        if given.to.contains(&peer) {
            return true;
        }
        if given.to.len() < given.most || !may_be_held {
            given.to.push(peer);
            return true;
        }
        given.held.push((peer, request));
        self.held += 1;
        false
    }

    /// A peer has a piece now.
    pub(super) fn came(&mut self, now: Time, peer: PeerKey, piece: u32) {
        if let Some(given) = self.given.get_mut(&piece)
            && given.to.first() == Some(&peer)
            && !std::mem::replace(&mut given.came, true)
        {
            let took = now.since(given.since);
            self.travel = (self.travel * (Self::WEIGHT - 1) + took) / Self::WEIGHT;
        }
    }

    /// What came of a request that was held: the peer `got` it elsewhere, or not in time.
    pub(super) fn learn(&mut self, now: Time, peer: PeerKey, got: bool) {
        if let Some(member) = self.crowd.get_mut(&peer) {
            let value = if got { 1.0 } else { 0.0 };
            member.success += (value - member.success) / f64::from(Self::WEIGHT);
            if member.success < Self::LEAST_SUCCESS {
                member.success = 1.0;
                member.rests_until = now + Self::REST;
            }
        }
    }

    /// A request is held no longer.
    pub(super) fn withdraw(&mut self, peer: PeerKey, request: WireRequest) {
        if let Some(given) = self.given.get_mut(&request.piece) {
            let before = given.held.len();
            given.held.retain(|held| *held != (peer, request));
            self.held -= before - given.held.len();
        }
    }

    /// Ends the rounds that are over. `copies`: how many have a piece of those that lack something.
    pub(super) fn end_rounds(&mut self, now: Time, copies: impl Fn(u32) -> u16) {
        let round = self.round();
        while let Some(&(at, piece)) = self.rounds.front()
            && at <= now
        {
            self.rounds.pop_front();
            let Some(given) = self.given.get_mut(&piece) else {
                continue;
            };
            let waited = now.since(given.since);
            let came = given.came || copies(piece) > 0 || waited >= Self::LONGEST;
            if given.held.is_empty() && came {
                self.given.remove(&piece);
                continue;
            }
            self.rounds.push_back((now + round, piece));
            if came {
                given.came = true;
                given.most *= 2;
                given.to.clear();
                self.held -= given.held.len();
                self.released.append(&mut given.held);
            }
        }
    }

    /// A request that is held no longer.
    pub(super) fn next_released(&mut self) -> Option<(PeerKey, WireRequest)> {
        self.released.pop()
    }

    /// When something that is held may be released.
    pub(super) fn next_end(&self) -> Option<Time> {
        let first = self.rounds.front().filter(|_| self.held > 0);
        first.map(|(at, _)| *at)
    }

    fn round(&self) -> Duration {
        (self.travel * Self::TRAVELS).clamp(Self::ROUND, Self::LONGEST_ROUND)
    }
}
