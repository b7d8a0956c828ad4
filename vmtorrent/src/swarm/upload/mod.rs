//! Invariant: of peers that wait for ordinary blocks none gets more than another, but for a block, however they cut their
//! requests. What is urgent goes first, within a peer's budget, and is taken off its turns; it leaves the others every
//! fourth block at least. What a seed holds back (`repeats`) is of no peer's turn meanwhile. A peer's queue is bounded; a cancelled request is never answered once it was taken out.

mod repeats;
mod urgent_budget;
mod waiting;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::clock::Time;
use crate::hash::HashMap;
use crate::picker::PeerKey;
use crate::swarm::wire::WireRequest;

use self::repeats::Repeats;
use self::urgent_budget::UrgentBudget;
use self::waiting::{Lane, Place, URGENT, Waiting};

/// Requests of peers that wait to be served.
///
/// Among peers it is deficit round robin (Shreedhar and Varghese, SIGCOMM 1995) with a quantum of one block. Nearly all
/// blocks are of that size, so a peer is served first and then sits out turns for what was larger, or out of turn. Of
/// one peer's requests those go first that it marked as urgent, then those for pieces that few peers have, then the rest,
/// each in the order in which they came.
///
/// What it costs: a peer's requests stand in a tree, so each call is O(log n) in the requests of that peer (512 at most)
/// and does not depend on the number of peers. A request moves to a later class at most once for each; a turn is sat out
/// at most once for each block that was given out of turn.
#[derive(Debug)]
pub(crate) struct UploadQueue {
    peers: HashMap<PeerKey, Waiting>,
    /// Peers that have requests and room, in the order of their turn.
    turn: VecDeque<PeerKey>,
    /// Those of them with urgent requests, in the order of their turn among themselves.
    urgent: VecDeque<PeerKey>,
    /// Those with urgent requests whose budget is spent, and when it is not any more.
    spent: BinaryHeap<Reverse<(Time, PeerKey)>>,
    /// Urgent blocks served since the last ordinary turn.
    urgent_run: u32,
    /// Bytes that a peer which always waits was given so far.
    share: u64,
    /// Numbers requests.
    next: u64,
    /// Peers that have requests or blocks in their writer.
    busy: u64,
    /// What the writers of all peers may hold together, as far as a block each allows.
    in_all: u64,
    /// Where all is here.
    repeats: Option<Repeats>,
}

impl UploadQueue {
    /// Requests that one peer may have waiting; we announce it as `reqq`.
    pub(crate) const MAX_REQUESTS: usize = 512;
    /// Bytes that are handed to one peer's writer at once: enough to keep a fast line busy, little
    /// enough that CANCEL and the order among peers mean something.
    const MAX_SENDING: u64 = 256 << 10;
    /// The same for all peers together while there is no limit.
    const SENDING_IN_ALL: u64 = 2 << 20;
    /// With a limit, so much of a second's bytes.
    const LIMITED_SENDING: f64 = 0.01;
    /// Bytes for each turn.
    const QUANTUM: u64 = 16 << 10;
    /// What the smallest request counts for: reading and sending it costs about as much as this many bytes.
    const MIN_COST: u64 = 4 << 10;
    /// A piece that so many of those that lack something have is not rare.
    const COMMON: u16 = 4;
    /// Urgent blocks for each ordinary one, while both wait.
    const URGENT_RUN: u32 = 3;
    /// What urgent blocks may cost of a peer's later turns.
    const MAX_DEBT: u64 = UrgentBudget::BURST;

    /// Nothing waits. `limit`: bytes per second that may be sent, if they are limited.
    pub(crate) fn new(limit: Option<f64>) -> Self {
        Self {
            peers: HashMap::default(),
            turn: VecDeque::new(),
            urgent: VecDeque::new(),
            spent: BinaryHeap::new(),
            urgent_run: 0,
            share: 0,
            next: 0,
            busy: 0,
            in_all: limit.map_or(Self::SENDING_IN_ALL, |rate| {
                ((rate * Self::LIMITED_SENDING) as u64).min(Self::SENDING_IN_ALL)
            }),
            repeats: None,
        }
    }

    /// A peer asks for a block of a piece that `copies` peers have. False: its queue is full, the request is dropped.
    pub(crate) fn push(
        &mut self,
        now: Time,
        peer: PeerKey,
        request: WireRequest,
        copies: u16,
    ) -> bool {
        let waiting = self
            .peers
            .entry(peer)
            .or_insert_with(|| Waiting::new(UrgentBudget::new(now)));
        if waiting.places.contains_key(&request) {
            return true;
        }
        if waiting.places.len() >= Self::MAX_REQUESTS {
            return false;
        }
        self.next += 1;
        let place = Place {
            class: Self::class(copies),
            number: self.next,
        };
        waiting.put(place, request);
        self.line_up(peer);
        true
    }

    /// A peer says that a read waits for a block that it asked for. One that is not waiting, because it was served or
    /// never asked for, is passed over. One that is held is urgent from when it is released.
    pub(crate) fn mark_urgent(&mut self, peer: PeerKey, request: WireRequest) {
        let Some(waiting) = self.peers.get_mut(&peer) else {
            return;
        };
        let held = waiting.held.contains(&request);
        if let Some(place) = waiting.take(&request) {
            let class = URGENT;
            waiting.put(Place { class, ..place }, request);
            if held {
                waiting.hold(request);
            }
            self.line_up(peer);
        }
    }

    /// A peer takes a request back. True when it was still waiting.
    pub(crate) fn cancel(&mut self, now: Time, peer: PeerKey, request: WireRequest) -> bool {
        let Some(waiting) = self.peers.get_mut(&peer) else {
            return false;
        };
        let held = waiting.held.contains(&request);
        let waited = waiting.take(&request).is_some();
        self.line_up(peer);
        if held {
            self.withdraw(peer, request);
            self.learn(now, peer, true);
        }
        waited
    }

    /// A peer may not ask any more: gives what it asked for, in the order of asking.
    pub(crate) fn clear(&mut self, peer: PeerKey) -> Vec<WireRequest> {
        let Some(waiting) = self.peers.get_mut(&peer) else {
            return Vec::new();
        };
        waiting.order.clear();
        let held = std::mem::take(&mut waiting.held);
        let places = std::mem::take(&mut waiting.places);
        self.line_up(peer);
        for request in held {
            self.withdraw(peer, request);
        }
        let mut requests: Vec<_> = places.into_iter().map(|(r, p)| (p.number, r)).collect();
        requests.sort_unstable_by_key(|(number, _)| *number);
        requests.into_iter().map(|(_, r)| r).collect()
    }

    /// A peer has gone.
    pub(crate) fn remove(&mut self, peer: PeerKey) {
        let Some(waiting) = self.peers.remove(&peer) else {
            return;
        };
        for request in waiting.held {
            self.withdraw(peer, request);
        }
        if let Some(repeats) = &mut self.repeats {
            repeats.leave(peer);
        }
        self.busy -= u64::from(waiting.busy);
        self.turn.retain(|p| *p != peer);
        self.urgent.retain(|p| *p != peer);
        self.spent.retain(|Reverse((_, p))| *p != peer);
    }

    /// Whether any request could be served now.
    pub(crate) fn is_ready(&mut self, now: Time, copies: impl Fn(u32) -> u16) -> bool {
        self.release(now, copies);
        // Who has urgent requests is in turn too.
        self.drop_idle();
        !self.turn.is_empty()
    }

    /// From now on all is here: what several ask for at once is given to one, and held for the others a moment.
    pub(crate) fn hold_repeats(&mut self, crowd: impl Iterator<Item = PeerKey>) {
        let repeats = self.repeats.get_or_insert_default();
        for peer in crowd {
            repeats.join(peer);
        }
    }

    /// What a peer asks for may be held if all is here: it takes back what it got elsewhere.
    pub(crate) fn may_hold(&mut self, peer: PeerKey) {
        if let Some(repeats) = &mut self.repeats {
            repeats.join(peer);
        }
    }

    /// A peer has a piece now.
    pub(crate) fn came(&mut self, now: Time, peer: PeerKey, piece: u32) {
        if let Some(repeats) = &mut self.repeats {
            repeats.came(now, peer, piece);
        }
    }

    /// When a request may be served that may not be served now because others were just given the same.
    pub(crate) fn next_release(&self) -> Option<Time> {
        self.repeats.as_ref().and_then(Repeats::next_end)
    }

    /// The next block to send. `copies` says how many of the peers that lack something have a piece.
    pub(crate) fn pop(
        &mut self,
        now: Time,
        copies: impl Fn(u32) -> u16,
    ) -> Option<(PeerKey, WireRequest)> {
        self.release(now, &copies);
        self.drop_idle();
        if self.turn.is_empty() {
            return None;
        }
        if self.urgent_run < Self::URGENT_RUN
            && let Some(found) = self.pop_urgent(now)
        {
            self.urgent_run += 1;
            return Some(found);
        }
        self.urgent_run = 0;
        self.pop_in_turn(now, &copies)
    }

    /// What was held long enough waits as before.
    fn release(&mut self, now: Time, copies: impl Fn(u32) -> u16) {
        let Some(repeats) = &mut self.repeats else {
            return;
        };
        repeats.end_rounds(now, copies);
        while let Some((peer, request)) = self.repeats.as_mut().and_then(Repeats::next_released) {
            if let Some(waiting) = self.peers.get_mut(&peer) {
                waiting.release(request);
                self.line_up(peer);
                self.learn(now, peer, false);
            }
        }
    }

    /// A request that was held is so no longer.
    fn withdraw(&mut self, peer: PeerKey, request: WireRequest) {
        if let Some(repeats) = &mut self.repeats {
            repeats.withdraw(peer, request);
        }
    }

    fn learn(&mut self, now: Time, peer: PeerKey, got: bool) {
        if let Some(repeats) = &mut self.repeats {
            repeats.learn(now, peer, got);
        }
    }

    /// The peer's writer has sent a block of `bytes` that was popped.
    pub(crate) fn sent(&mut self, peer: PeerKey, bytes: u64) {
        if let Some(waiting) = self.peers.get_mut(&peer) {
            waiting.sending = waiting.sending.saturating_sub(Self::cost(bytes));
            self.line_up(peer);
        }
    }

    /// The next urgent block of a peer with a budget.
    fn pop_urgent(&mut self, now: Time) -> Option<(PeerKey, WireRequest)> {
        while let Some(&Reverse((at, peer))) = self.spent.peek()
            && at <= now
        {
            self.spent.pop();
            if let Some(waiting) = self.peers.get_mut(&peer) {
                waiting.lane = Lane::Out;
            }
            self.line_up(peer);
        }
        let bound = self.bound();
        while let Some(peer) = self.urgent.pop_front() {
            let Some(waiting) = self.peers.get_mut(&peer) else {
                continue;
            };
            waiting.lane = Lane::Out;
            // It may have been taken back or served in turn, and its writer may be full.
            let Some(request) = waiting.first_urgent().filter(|_| waiting.sending < bound) else {
                continue;
            };
            let cost = Self::cost(request.length.into());
            if let Err(wait) = waiting.budget.take(now, cost) {
                waiting.lane = Lane::Spent;
                self.spent.push(Reverse((now + wait, peer)));
                continue;
            }
            waiting.take(&request);
            if let Some(repeats) = &mut self.repeats {
                repeats.admits(now, peer, request, true);
            }
            waiting.sending += cost;
            // Where nobody else waits nobody is owed anything.
            if self.turn.len() > usize::from(waiting.in_turn) {
                waiting.debt = (waiting.debt + cost).min(Self::MAX_DEBT.max(waiting.debt));
            }
            self.line_up(peer);
            self.note_share(cost);
            return Some((peer, request));
        }
        None
    }

    /// The first block of the peer whose turn it is.
    fn pop_in_turn(
        &mut self,
        now: Time,
        copies: impl Fn(u32) -> u16,
    ) -> Option<(PeerKey, WireRequest)> {
        loop {
            self.drop_idle();
            let peer = self.turn.pop_front()?;
            let waiting = self.peers.get_mut(&peer)?;
            if waiting.debt >= Self::QUANTUM {
                waiting.debt -= Self::QUANTUM;
                self.turn.push_back(peer);
                continue;
            }
            waiting.in_turn = false;
            let request = waiting.first(|piece| Self::class(copies(piece)))?;
            let urgent = waiting.first_urgent() == Some(request);
            if let Some(repeats) = &mut self.repeats
                && !repeats.admits(now, peer, request, urgent)
            {
                waiting.hold(request);
                self.line_up(peer);
                continue;
            }
            waiting.take(&request);
            let cost = Self::cost(request.length.into());
            waiting.sending += cost;
            waiting.debt += cost.saturating_sub(Self::QUANTUM);
            self.line_up(peer);
            self.note_share(cost);
            return Some((peer, request));
        }
    }

    fn note_share(&mut self, cost: u64) {
        self.share += cost / (self.turn.len() as u64).max(1);
    }

    fn cost(bytes: u64) -> u64 {
        bytes.max(Self::MIN_COST)
    }

    /// Pieces that few have come before those that many have, which are all alike.
    fn class(copies: u16) -> u8 {
        URGENT + 1 + copies.min(Self::COMMON) as u8
    }

    /// From so many bytes on a peer's writer gets no more.
    fn bound(&self) -> u64 {
        (self.in_all / self.busy.max(1)).clamp(1, Self::MAX_SENDING)
    }

    /// Puts a peer where it belongs after a change.
    fn line_up(&mut self, peer: PeerKey) {
        let bound = self.bound();
        let Some(waiting) = self.peers.get_mut(&peer) else {
            return;
        };
        let busy = !waiting.order.is_empty() || waiting.sending > 0;
        match (std::mem::replace(&mut waiting.busy, busy), busy) {
            (false, true) => self.busy += 1,
            (true, false) => self.busy -= 1,
            _ => {}
        }
        if waiting.order.is_empty() {
            waiting.away_since.get_or_insert(self.share);
            return;
        }
        if let Some(since) = waiting.away_since.take() {
            // What it would have been given meanwhile is paid back; where nobody waits nobody is owed anything.
            let alone = self.turn.len() <= usize::from(waiting.in_turn);
            let paid = if alone { u64::MAX } else { self.share - since };
            waiting.debt = waiting.debt.saturating_sub(paid);
        }
        if waiting.sending >= bound {
            return;
        }
        if !std::mem::replace(&mut waiting.in_turn, true) {
            self.turn.push_back(peer);
        }
        if waiting.lane == Lane::Out && waiting.first_urgent().is_some() {
            waiting.lane = Lane::In;
            self.urgent.push_back(peer);
        }
    }

    /// Takes peers out of turn whose requests were all cancelled, or whose writer was filled out of turn.
    fn drop_idle(&mut self) {
        let bound = self.bound();
        while let Some(peer) = self.turn.front() {
            match self.peers.get_mut(peer) {
                Some(waiting) if !waiting.order.is_empty() && waiting.sending < bound => break,
                Some(waiting) => waiting.in_turn = false,
                None => {}
            }
            self.turn.pop_front();
        }
    }
}

#[cfg(test)]
mod repeats_tests;
#[cfg(test)]
mod tests;
