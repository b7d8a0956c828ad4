//! What the choker decides, carried out. Invariant: a peer is told each change, and with the fast extension each request
//! that a choke meets is answered by a reject (BEP 6).

use super::{Engine, Remote};
use crate::clock::Time;
use crate::picker::PeerKey;
use crate::swarm::allowed_fast::{AllowedFast, allowed_fast};
use crate::swarm::choker::{Choker, Conduct};
use crate::swarm::wire::WireMessage;

impl Engine {
    /// Lets a new peer ask, if there is a slot; if there is none, it may have a few pieces all the same.
    pub(super) fn admit_to_slots(&mut self, now: Time, key: PeerKey) {
        let Some(Remote::Peer(address)) = self.peers.get(&key).map(|p| p.remote) else {
            return;
        };
        self.choker.joined(now, key, Choker::is_local(address.ip()));
        self.apply_choking(now);
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if !peer.we_choke || !peer.fast {
            return;
        }
        let pieces = allowed_fast(
            address.ip(),
            self.image.info_hash(),
            self.image.geometry().piece_count(),
        );
        let pieces: Vec<u32> = pieces
            .into_iter()
            .filter(|p| self.have.get(crate::image::PieceIndex(*p)))
            .collect();
        let once = self.image.geometry().nominal_piece_length();
        peer.may_ask_choked = AllowedFast::new(&pieces, once);
        for piece in pieces {
            self.send(now, key, WireMessage::AllowedFast(piece));
        }
    }

    /// Tells peers what the choker decided.
    pub(super) fn apply_choking(&mut self, now: Time) {
        for (key, choke) in self.choker.take_changes() {
            let Some(peer) = self.peers.get_mut(&key) else {
                continue;
            };
            peer.we_choke = choke;
            if !choke {
                self.send(now, key, WireMessage::Unchoke);
                continue;
            }
            self.send(now, key, WireMessage::Choke);
            for request in self.uploads.clear(key) {
                self.reject(now, key, request);
            }
        }
    }

    /// Decides anew who may ask, when it is time.
    pub(super) fn rechoke(&mut self, now: Time) {
        let seeding = self.is_complete();
        let peers = &self.peers;
        self.choker.tick(now, seeding, |key| {
            peers.get(&key).map_or_else(Conduct::default, |p| Conduct {
                never_unchoked_us: p.we_are_interested && !p.has_unchoked_us,
                snubs_us: p.snubbed,
            })
        });
        self.apply_choking(now);
    }
}
