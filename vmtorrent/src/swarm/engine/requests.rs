//! Which blocks to request of whom. Invariant: demand is spread before anything else is asked for,
//! and no queue is filled beyond what the path to the peer needs. Where a demand request goes, what is queued for lower
//! bands gives way, if the peer knows the fast extension.

use std::time::Duration;

use super::peer::Outstanding;
use super::{DisconnectReason, Engine, IDLE_PAUSE, Output, Peer, SNUB};
use crate::clock::Time;
use crate::image::BlockIndex;
use crate::options::Fill;
use crate::picker::{Band, PeerKey};
use crate::swarm::wire::{WireMessage, WireRequest};

/// How long a piece that a peer rejected is not asked of it again.
const REFUSAL_REST: Duration = Duration::from_secs(30);
/// What a seed may let us wait beyond two round trips before others are asked.
const SEED_SLACK: Duration = Duration::from_millis(20);
/// How long after a block has gone out our line may still be busy with it.
const LINE_BUSY: Duration = Duration::from_millis(500);
/// Pieces that a peer may refuse within that time.
const MAX_REFUSED: usize = 4096;

impl Engine {
    /// Requests whatever can be requested now, of everybody.
    pub(super) fn schedule(&mut self, now: Time) {
        if self.storage_pauses(now) {
            return;
        }
        if !self.spread_demand(now) {
            return;
        }
        // What those have who lack something themselves is not asked of a seed.
        let keys = self.peers.keys().copied();
        let (seeds, others): (Vec<_>, Vec<_>) = keys.partition(|key| self.picker.is_whole(*key));
        for key in others.into_iter().chain(seeds) {
            self.fill_queue(now, key);
        }
    }

    /// Requests what can be requested now that something has changed at one peer.
    pub(super) fn go_on_with(&mut self, now: Time, key: PeerKey) {
        if !self.storage_pauses(now) && self.spread_demand(now) {
            self.fill_queue(now, key);
        }
    }

    /// Stripes the free blocks of the demand band over the peers that have them: each goes where it is
    /// expected first, which is what makes the last one come soonest. False when the download limit stopped it.
    fn spread_demand(&mut self, now: Time) -> bool {
        if !self.picker.has_free(Band::Demand) {
            return true;
        }
        for piece in self.picker.free_demand_pieces() {
            // Every block that comes leads here: with all queues full there is nothing to look for.
            if !self.peers.values().any(Peer::may_take_demand) {
                break;
            }
            for block in self.picker.free_blocks(piece) {
                let bytes = self.image.geometry().block_length(block);
                let Some(key) = self.soonest(block, bytes, |_| true) else {
                    break;
                };
                if !self.may_download(now) {
                    return false;
                }
                self.make_way(now, key);
                self.request(now, key, block);
            }
        }
        true
    }

    /// The peer from which a block of demand is expected first, among those with room.
    fn soonest(
        &self,
        block: BlockIndex,
        bytes: u32,
        allowed: impl Fn(PeerKey) -> bool,
    ) -> Option<PeerKey> {
        self.peers
            .iter()
            .map(|(key, peer)| (*key, peer))
            .filter(|(key, peer)| {
                peer.has_demand_room(block.piece, bytes)
                    && self.picker.may_ask(*key, block.piece)
                    && allowed(*key)
            })
            .min_by_key(|(_, peer)| peer.expected_demand(bytes))
            .map(|(key, _)| key)
    }

    /// Takes back, last first, what is queued at a peer for lower bands, so that a demand request is not sent behind it.
    /// Only the fast extension tells which of the blocks were under way already, so only there.
    fn make_way(&mut self, now: Time, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let mut excess = peer.excess();
        if excess == 0 {
            return;
        }
        for (block, bytes) in peer.requests_that_give_way() {
            if excess == 0 {
                break;
            }
            let Some(peer) = self.peers.get_mut(&key) else {
                return;
            };
            if self.picker.band(block.piece) == Some(Band::Demand) {
                peer.stays(block);
                continue;
            }
            peer.take_back(now, block, true);
            excess = excess.saturating_sub(u64::from(bytes));
            let request = self.wire_request(block);
            self.send(now, key, WireMessage::Cancel(request));
        }
    }

    /// Fills one peer's queue from the bands below demand (and from demand, if there is some left).
    pub(super) fn fill_queue(&mut self, now: Time, key: PeerKey) {
        if self.storage_pauses(now) {
            return;
        }
        if self.storing >= self.max_storing {
            // Goes on when something is stored.
            return;
        }
        let lowest = self.lowest_band(now);
        self.renew_window(now);
        let sending = self.last_upload.is_some_and(|at| now.since(at) < LINE_BUSY);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.path.note_sending(sending);
        }
        loop {
            let Some(peer) = self.peers.get(&key) else {
                return;
            };
            if !peer.has_room(self.image.geometry().nominal_block_length()) {
                return;
            }
            if !self.may_download(now) {
                return;
            }
            let mut pick = self.picker.pick(key, lowest.min(Band::Profile));
            if pick.is_none() && self.continue_window(now) {
                pick = self.picker.pick(key, Band::Profile);
            }
            if pick.is_none() && lowest == Band::Background {
                pick = self.picker.pick(key, lowest);
            }
            let Some(pick) = pick else {
                return;
            };
            self.send_request(now, key, pick.block, pick.band != Band::Demand);
        }
    }

    /// The lowest band that may be asked for now.
    fn lowest_band(&mut self, now: Time) -> Band {
        let background = match self.fill {
            Fill::None => false,
            Fill::Full => true,
            Fill::Idle => match self.last_demand {
                None => true,
                Some(at) => {
                    let rested = at + IDLE_PAUSE;
                    let active = self.picker.is_under_way(Band::Demand);
                    if !active && now < rested {
                        self.wake(rested);
                    }
                    !active && now >= rested
                }
            },
        };
        if background {
            Band::Background
        } else {
            Band::Profile
        }
    }

    /// Asks again elsewhere for the blocks of demand that are late.
    pub(super) fn ask_late_blocks_again(&mut self, now: Time) {
        for (block, key) in self.picker.asked_demand_blocks() {
            let Some(peer) = self.peers.get_mut(&key) else {
                continue;
            };
            match peer.is_late(now, block) {
                None => self.settle_late(now, key, block),
                Some(false) => {}
                Some(true) => self.ask_again(now, block),
            }
        }
    }

    /// Asks others for what seeds let us wait for and others have by now. A seed that a crowd asks holds back what it gave to
    /// others a moment ago, so that they pass it on (docs/protocol.md).
    pub(super) fn turn_from_seeds(&mut self, now: Time) {
        let mut late = Vec::new();
        for (key, peer) in &self.peers {
            if peer.outstanding.is_empty() || !peer.fast || !self.picker.is_whole(*key) {
                continue;
            }
            let patience = peer.path.round_trip() * 2 + SEED_SLACK;
            let waits = |o: &Outstanding| now.since(o.mark.sent()) > patience;
            let found = peer.outstanding.iter();
            let found = found.filter(|(block, o)| waits(o) && self.others_give(**block));
            late.extend(found.map(|(block, o)| (o.order(), *key, *block, o.gives_way)));
        }
        // In the order in which they were asked for.
        late.sort_unstable_by_key(|(order, key, ..)| (*key, *order));
        for (_, key, block, gives_way) in late {
            if !gives_way {
                if let [_] = self.picker.asked_of(block)[..] {
                    self.ask_one_more(now, block, &[key]);
                }
            } else if let Some(peer) = self.peers.get_mut(&key)
                && peer.take_back(now, block, true)
            {
                let request = self.wire_request(block);
                self.send(now, key, WireMessage::Cancel(request));
            }
        }
    }

    /// Whether a peer that lacks something has a block and has room for a request of it.
    fn others_give(&self, block: BlockIndex) -> bool {
        let bytes = self.image.geometry().block_length(block);
        let gives = |(key, peer): (&PeerKey, &Peer)| {
            peer.has_room(bytes)
                && !peer.snubbed
                && !self.picker.is_whole(*key)
                && self.picker.may_ask(*key, block.piece)
        };
        self.picker.availability(block.piece) > 0 && self.peers.iter().any(gives)
    }

    fn ask_again(&mut self, now: Time, block: BlockIndex) {
        if self.picker.unconfine(block.piece).is_some() {
            tracing::debug!(piece = %block.piece, "the peer that was to give all of it is late");
        }
        let asked = self.picker.asked_of(block);
        if let [_] = asked[..] {
            self.ask_one_more(now, block, &asked);
            return;
        }
        let all_late = asked.iter().all(|key| {
            let peer = self.peers.get_mut(key);
            peer.and_then(|p| p.is_late(now, block)) == Some(true)
        });
        if !all_late {
            return;
        }
        // Two let us wait: two others are asked in their place. What comes of the first all the same is welcome.
        for key in &asked {
            let Some(other) = self.another(block, &asked) else {
                return;
            };
            if let Some(peer) = self.peers.get_mut(key) {
                peer.take_back(now, block, false);
            }
            self.picker.give_up(*key, block);
            if self.may_download(now) {
                self.request(now, other, block);
            }
        }
    }

    fn ask_one_more(&mut self, now: Time, block: BlockIndex, asked: &[PeerKey]) {
        if let Some(other) = self.another(block, asked)
            && self.may_download(now)
        {
            self.request(now, other, block);
        }
    }

    /// The peer from which a block is expected first, of those that were not asked for it.
    fn another(&self, block: BlockIndex, asked: &[PeerKey]) -> Option<PeerKey> {
        let bytes = self.image.geometry().block_length(block);
        self.soonest(block, bytes, |key| {
            !asked.contains(&key)
                && self
                    .peers
                    .get(&key)
                    .is_some_and(|p| !p.outstanding.contains_key(&block))
        })
    }

    /// A block that demand waits for was taken back before, and the peer does not say whether it comes.
    fn settle_late(&mut self, now: Time, key: PeerKey, block: BlockIndex) {
        let bytes = self.image.geometry().block_length(block);
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let patience = peer.path.expected(bytes) * 2;
        if let Some(taken) = peer.taken_back.get_mut(&block)
            && taken.owed
            && now.since(taken.at) > patience
        {
            taken.owed = false;
            self.picker.give_up(key, block);
        }
    }

    /// Takes a request back whose block is not needed of this peer any more.
    pub(super) fn cancel(&mut self, now: Time, key: PeerKey, block: BlockIndex) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if peer.take_back(now, block, false) {
            if peer.outstanding.is_empty() {
                peer.unanswered_since = None;
            }
            let request = self.wire_request(block);
            self.send(now, key, WireMessage::Cancel(request));
        }
    }

    /// A peer will not answer a request (BEP 6).
    pub(super) fn on_reject(&mut self, now: Time, key: PeerKey, request: WireRequest) {
        let geometry = self.image.geometry();
        let block = geometry.block_from_wire(request.piece, request.begin, request.length);
        let (Some(block), Some(peer)) = (block, self.peers.get_mut(&key)) else {
            return;
        };
        // Answers come in order: one that was taken back and asked for again is answered first for what was taken back.
        if let Some(taken) = peer.taken_back.remove(&block) {
            self.download.lock().refund(request.length.into());
            peer.unanswered_since = (!peer.outstanding.is_empty()).then_some(now);
            if taken.owed && !peer.outstanding.contains_key(&block) {
                self.picker.give_up(key, block);
                // Demand has pushed it out: where it comes from is decided anew, with all that the profile foretells.
                self.picker.put_back(block.piece);
                self.guides.note_put_back();
                if self.picker.availability(block.piece) > 0 && self.picker.is_whole(key) {
                    // Others have it by now: they come first.
                    return self.schedule(now);
                }
            }
        } else if peer.drop_request(block) {
            self.download.lock().refund(request.length.into());
            peer.unanswered_since = (!peer.outstanding.is_empty()).then_some(now);
            self.picker.give_up(key, block);
            if !peer.chokes_us {
                // It said that it has the piece. Asked again at once, it would say no again at once.
                peer.refused.insert(block.piece, now);
                if peer.refused.len() > MAX_REFUSED {
                    let reason = "it rejects what it said it has".to_owned();
                    self.disconnect(now, key, DisconnectReason::Protocol(reason));
                    return;
                }
                self.picker.lose_have(key, block.piece);
                self.note_peers();
            }
        } else {
            return;
        }
        self.go_on_with(now, key);
    }

    /// What was taken back long ago and never answered is forgotten; pieces that were refused may be asked for again.
    pub(super) fn forget_old_answers(&mut self, now: Time, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let mut given_up = Vec::new();
        peer.taken_back.retain(|block, taken| {
            let keep = now.since(taken.at) <= SNUB;
            if !keep && taken.owed {
                given_up.push(*block);
            }
            keep
        });
        let mut asked_again = Vec::new();
        peer.refused.retain(|piece, at| {
            let keep = now.since(*at) <= REFUSAL_REST;
            if !keep {
                asked_again.push(*piece);
            }
            keep
        });
        for block in given_up {
            self.picker.give_up(key, block);
        }
        for piece in asked_again {
            self.picker.add_have(key, piece);
        }
    }

    fn request(&mut self, now: Time, key: PeerKey, block: BlockIndex) {
        if self.picker.ask(key, block) {
            self.send_request(now, key, block, false);
        }
    }

    pub(super) fn send_request(
        &mut self,
        now: Time,
        key: PeerKey,
        block: BlockIndex,
        gives_way: bool,
    ) {
        let request = self.wire_request(block);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.note_request(now, block, request.length, gives_way);
            self.download.lock().charge(request.length);
            if peer.is_web_seed() {
                peer.last_sent = now;
                let urgent = !gives_way;
                self.outputs.push(Output::Fetch {
                    key,
                    request,
                    urgent,
                });
            } else {
                self.send(now, key, WireMessage::Request(request));
                if !gives_way {
                    self.mark(now, key, request);
                }
            }
        }
    }

    pub(super) fn wire_request(&self, block: BlockIndex) -> WireRequest {
        WireRequest {
            piece: block.piece.0,
            begin: block.block * crate::image::BLOCK_LENGTH,
            length: self.image.geometry().block_length(block),
        }
    }

    /// Whether requests wait because what came could not be stored.
    fn storage_pauses(&self, now: Time) -> bool {
        self.storage_pause.is_some_and(|(until, _)| now < until)
    }

    pub(super) fn may_download(&mut self, now: Time) -> bool {
        let ready = self.download.lock().ready(now);
        if let Err(wait) = ready {
            self.wake(now + wait);
        }
        ready.is_ok()
    }
}
