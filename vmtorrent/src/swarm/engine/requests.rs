//! Which blocks to request of whom. Invariant: demand is spread before anything else is asked for,
//! and no queue is filled beyond what the path to the peer needs.

use super::{Engine, IDLE_PAUSE};
use crate::clock::Time;
use crate::image::{BlockIndex, PieceIndex};
use crate::options::Fill;
use crate::picker::{Band, PeerKey};
use crate::swarm::wire::{WireMessage, WireRequest};

impl Engine {
    /// Requests whatever can be requested now, of everybody.
    pub(super) fn schedule(&mut self, now: Time) {
        if self.storage_pauses(now) {
            return;
        }
        if !self.spread_demand(now) {
            return;
        }
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            self.fill_queue(now, key);
        }
    }

    /// Stripes the free blocks of the demand band over the peers that have them: each goes where it is
    /// expected first, which is what makes the last one come soonest. False when the download limit stopped it.
    fn spread_demand(&mut self, now: Time) -> bool {
        if !self.picker.has_free(Band::Demand) {
            return true;
        }
        let mut hopeless: Option<PieceIndex> = None;
        for block in self.picker.free_demand_blocks() {
            if hopeless == Some(block.piece) {
                continue;
            }
            let bytes = self.image.geometry().block_length(block);
            match self.soonest(now, block, bytes, |_| true) {
                Some(key) => {
                    if !self.may_download(now) {
                        return false;
                    }
                    self.request(now, key, block);
                }
                None => hopeless = Some(block.piece),
            }
        }
        true
    }

    /// The peer from which a block of demand is expected first, among those with room.
    fn soonest(
        &self,
        now: Time,
        block: BlockIndex,
        bytes: u32,
        allowed: impl Fn(PeerKey) -> bool,
    ) -> Option<PeerKey> {
        self.peers
            .iter()
            .map(|(key, peer)| (*key, peer))
            .filter(|(key, peer)| {
                peer.has_demand_room(now, bytes)
                    && self.picker.may_ask(*key, block.piece)
                    && allowed(*key)
            })
            .min_by_key(|(_, peer)| peer.path.expected(bytes))
            .map(|(key, _)| key)
    }

    /// Fills one peer's queue from the bands below demand (and from demand, if there is some left).
    pub(super) fn fill_queue(&mut self, now: Time, key: PeerKey) {
        if self.storage_pauses(now) {
            return;
        }
        let lowest = self.lowest_band(now);
        loop {
            let Some(peer) = self.peers.get(&key) else {
                return;
            };
            if !peer.has_room(now, self.image.geometry().nominal_block_length()) {
                return;
            }
            if !self.may_download(now) {
                return;
            }
            let Some(pick) = self.picker.pick(key, lowest) else {
                return;
            };
            self.send_request(now, key, pick.block);
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
            let Some(peer) = self.peers.get(&key) else {
                continue;
            };
            let Some(outstanding) = peer.outstanding.get(&block) else {
                continue;
            };
            if now < outstanding.late_at {
                continue;
            }
            let bytes = self.image.geometry().block_length(block);
            let other = self.soonest(now, block, bytes, |k| self.picker.may_ask_twice(k, block));
            if let Some(other) = other
                && self.may_download(now)
            {
                self.request(now, other, block);
            }
        }
    }

    /// Takes a request back.
    pub(super) fn cancel(&mut self, now: Time, key: PeerKey, block: BlockIndex) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if peer.drop_request(block) {
            if peer.outstanding.is_empty() {
                peer.unanswered_since = None;
            }
            let request = self.wire_request(block);
            self.send(now, key, WireMessage::Cancel(request));
        }
    }

    fn request(&mut self, now: Time, key: PeerKey, block: BlockIndex) {
        if self.picker.ask(key, block) {
            self.send_request(now, key, block);
        }
    }

    fn send_request(&mut self, now: Time, key: PeerKey, block: BlockIndex) {
        let request = self.wire_request(block);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.note_request(now, block, request.length);
            self.download.lock().charge(request.length);
            self.send(now, key, WireMessage::Request(request));
        }
    }

    fn wire_request(&self, block: BlockIndex) -> WireRequest {
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

    fn may_download(&mut self, now: Time) -> bool {
        let ready = self.download.lock().ready(now);
        if let Err(wait) = ready {
            self.wake(now + wait);
        }
        ready.is_ok()
    }
}
