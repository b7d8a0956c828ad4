//! vmt_urgent: what a read waits for is marked, so that who is asked serves it first (docs/protocol.md). Invariant: only
//! what demand waits for is marked, once at each peer that is asked for it.

use super::Engine;
use crate::clock::Time;
use crate::image::{BlockIndex, PieceIndex};
use crate::picker::PeerKey;
use crate::swarm::wire::{WireMessage, WireRequest};

impl Engine {
    /// Tells a peer that a read waits for a block that it was asked for just now, if it takes such messages. It follows
    /// its REQUEST at once, so it costs no time of its own.
    pub(super) fn mark(&mut self, now: Time, key: PeerKey, request: WireRequest) {
        let extension = self.peers.get(&key).map_or(0, |p| p.urgent_extension);
        if extension != 0 {
            self.send(now, key, WireMessage::Urgent { extension, request });
        }
    }

    /// A read waits for a piece: peers that were asked for blocks of it in a lower band are told.
    pub(super) fn mark_asked(&mut self, now: Time, piece: PieceIndex) {
        let length = self.image.geometry().piece_length(piece);
        for block in 0..length.div_ceil(crate::image::BLOCK_LENGTH) {
            let block = BlockIndex { piece, block };
            for key in self.picker.asked_of(block) {
                let raised = self
                    .peers
                    .get_mut(&key)
                    .is_some_and(|peer| peer.stays(block));
                if raised {
                    let request = self.wire_request(block);
                    self.mark(now, key, request);
                }
            }
        }
    }

    /// A peer says that a read waits for what it asked for.
    pub(super) fn on_urgent(&mut self, now: Time, key: PeerKey, request: WireRequest) {
        self.uploads.mark_urgent(key, request);
        self.pump_uploads(now);
    }
}
