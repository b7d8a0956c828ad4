//! Web seeds (BEP 19). Invariant: to the engine a web seed is a peer that has everything, lets us request and answers
//! each request, by the block or a reject; only that it is told nothing but what it is to fetch.

use std::time::Duration;

use super::{Abilities, Engine, Peer, Remote};
use crate::Bitfield;
use crate::clock::Time;
use crate::picker::PeerKey;

/// Requests that are kept at a web seed: what it answers with is bounded by the path, not by a queue of its own.
const REQUEST_LIMIT: usize = 2000;

impl Engine {
    /// A web server has answered and may be asked. `round_trip`: how long an answer takes, as far as that is known.
    pub(crate) fn web_seed_connected(
        &mut self,
        now: Time,
        number: usize,
        round_trip: Option<Duration>,
    ) -> PeerKey {
        let abilities = Abilities {
            // A request that is taken back is answered all the same.
            fast: true,
            ..Abilities::default()
        };
        let key = self.add_peer(now, Remote::WebSeed(number), round_trip, abilities);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.request_limit = REQUEST_LIMIT;
            peer.chokes_us = false;
            peer.said_field = true;
        }
        let everything = Bitfield::full(self.image.geometry().piece_count());
        self.picker.set_field(key, everything);
        self.picker.prefer_runs(key);
        self.note_peers();
        self.schedule(now);
        key
    }

    /// Web servers that may be asked.
    pub(crate) fn web_seed_count(&self) -> usize {
        self.peers.values().filter(|p| p.is_web_seed()).count()
    }
}

impl Peer {
    pub(super) fn is_web_seed(&self) -> bool {
        self.remote.is_web_seed()
    }
}
