//! What came of a piece. Invariant: a piece is announced only once it is stored, and nobody is blamed for a piece that
//! others gave too until the right bytes are known.

use std::time::Duration;

use super::{Assembly, DisconnectReason, Engine, Output, Remote};
use crate::Bitfield;
use crate::clock::Time;
use crate::image::PieceIndex;
use crate::picker::{Band, PeerKey};
use crate::swarm::wire::WireMessage;

/// How long nothing is requested after a piece could not be stored, at first and at the most.
const STORAGE_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_STORAGE_PAUSE: Duration = Duration::from_secs(10);

/// How long a new piece may wait for others, so that peers are told of several at once, and how many wait at most.
const HAVE_PAUSE: Duration = Duration::from_millis(10);
/// The same for each peer where guests do the same at the same time and wait for it: of many, each brings what it has a little
/// later, and all together spend no more on telling each other. What that does to crowds stands in docs/scaling.md.
const SHORT_HAVE_PAUSE: Duration = Duration::from_millis(1);
const MAX_HAVE_PAUSE: Duration = Duration::from_millis(100);
const MAX_UNANNOUNCED: usize = 256;

impl Engine {
    /// For what a missing piece is fetched, if it is.
    pub(crate) fn band(&self, piece: PieceIndex) -> Option<Band> {
        self.picker.band(piece)
    }

    /// Whether a piece has come and the driver is not done with it.
    pub(crate) fn is_verifying(&self, piece: PieceIndex) -> bool {
        self.picker.is_verifying(piece)
    }

    /// The driver is done with a piece.
    fn settle(&mut self, now: Time, piece: PieceIndex) {
        let held_back = self.storing >= self.max_storing;
        let length = self.image.geometry().piece_length(piece);
        self.storing = self.storing.saturating_sub(length.into());
        if held_back && self.storing < self.max_storing {
            self.schedule(now);
        }
    }

    /// A piece was verified and stored.
    pub(crate) fn stored(&mut self, now: Time, piece: PieceIndex) {
        self.settle(now, piece);
        if let Some(assembly) = self.assembly.remove(&piece) {
            for (key, lied) in self.evidence.judge(piece, &assembly.kept) {
                if lied {
                    self.blame(now, key);
                } else if let Some(peer) = self.peers.get_mut(&key) {
                    peer.strikes = peer.strikes.saturating_sub(1);
                }
            }
            for key in assembly.contributors() {
                if let Some(peer) = self.peers.get_mut(&key) {
                    peer.strikes = 0;
                    if peer.urgent_extension != 0 {
                        // Of our kind: it may hold back what others ask of it until somebody has it.
                        self.send(now, key, WireMessage::Have(piece.0));
                    }
                }
            }
        }
        self.storage_pause = None;
        self.note_left(now, piece);
        self.picker.have(piece);
        self.announce(now, piece);
        for duplicate in self.duplicates.get(&piece).cloned().unwrap_or_default() {
            self.announce(now, duplicate);
        }
        self.outputs.push(Output::Ready(piece));
        if self.is_complete() {
            self.tell_haves(now);
            self.outputs.push(Output::Completed);
            let of_our_kind = self.peers.iter().filter(|(_, p)| p.urgent_extension != 0);
            self.uploads.hold_repeats(of_our_kind.map(|(key, _)| *key));
            self.leave_seeds(now);
        }
    }

    /// The hash of a piece was wrong.
    pub(crate) fn mismatched(&mut self, now: Time, piece: PieceIndex) {
        self.settle(now, piece);
        let Some(assembly) = self.forget_assembly(piece) else {
            return;
        };
        let contributors = assembly.contributors();
        if let [liar] = contributors[..] {
            self.blame(now, liar);
        } else {
            for key in &contributors {
                if let Some(peer) = self.peers.get_mut(key) {
                    peer.strikes += 1;
                }
            }
            // Several gave it. One alone gives all of it now, one that is not suspect if there is any; if the piece is
            // right then, comparing the two tells who lied.
            self.evidence.keep(piece, assembly.kept, assembly.givers);
            let block = self.image.geometry().nominal_block_length();
            let alone = self
                .peers
                .iter()
                .filter(|(key, p)| !p.chokes_us && !p.snubbed && self.picker.has(**key, piece))
                .min_by_key(|(_, p)| (p.strikes, p.path.expected(block)))
                .map(|(key, _)| *key);
            self.picker.unconfine(piece);
            if let Some(alone) = alone {
                self.picker.confine(piece, alone);
            }
        }
        self.picker.lost(piece);
        self.schedule(now);
    }

    /// A peer sent wrong data, whether it is still there or not.
    fn blame(&mut self, now: Time, key: PeerKey) {
        self.disconnect(now, key, DisconnectReason::BadData);
        if let Some(remote) = self.evidence.take_gone(key) {
            self.outputs.push(Output::Liar(remote));
        }
    }

    /// Remembers a peer that goes, if what it gave may still turn out to be wrong.
    pub(super) fn note_departure(&mut self, key: PeerKey, remote: Remote) {
        let gave = |a: &Assembly| a.givers.contains(&Some(key));
        if self.assembly.values().any(gave) || self.evidence.concerns(key) {
            self.evidence.went(key, remote);
        }
    }

    /// A piece could not be stored (disk full, I/O error): it is fetched again when it is wanted again.
    pub(crate) fn not_stored(&mut self, now: Time, piece: PieceIndex) {
        self.forget_assembly(piece);
        self.picker.lost(piece);
        // A full disk must not become a loop of downloads: nothing is requested for a while, and for
        // longer each time.
        let pause = self
            .storage_pause
            .map_or(STORAGE_PAUSE, |(_, last)| last * 2);
        let pause = pause.min(LONGEST_STORAGE_PAUSE);
        self.storage_pause = Some((now + pause, pause));
        self.wake(now + pause);
        self.settle(now, piece);
    }

    /// Whether a piece is not here, as far as this was told.
    pub(crate) fn lacks(&self, piece: PieceIndex) -> bool {
        self.picker.is_missing(piece)
    }

    /// A piece that we had turned out to be damaged, or had to go.
    pub(crate) fn damaged(&mut self, now: Time, piece: PieceIndex) {
        if self.picker.is_missing(piece) {
            // Somebody else found it out before.
            return;
        }
        self.assembly.remove(&piece);
        self.have.set(piece, false);
        for duplicate in self.duplicates.get(&piece).cloned().unwrap_or_default() {
            self.have.set(duplicate, false);
        }
        self.picker.lost(piece);
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            self.show_interest(now, key);
        }
        self.schedule(now);
    }

    /// We have a piece now; peers are told soon, of several at once.
    fn announce(&mut self, now: Time, piece: PieceIndex) {
        if !self.have.set(piece, true) {
            return;
        }
        self.unannounced.push(piece);
        if self.unannounced.len() >= MAX_UNANNOUNCED {
            self.tell_haves(now);
        } else if self.unannounced.len() == 1 {
            // Guests that do the same wait for it.
            let pause = if self.has_guides() {
                let peers = u32::try_from(self.peers.len()).unwrap_or(u32::MAX);
                SHORT_HAVE_PAUSE.saturating_mul(peers).min(MAX_HAVE_PAUSE)
            } else {
                HAVE_PAUSE
            };
            self.haves_due = Some(now + pause);
            self.wake(now + pause);
        }
    }

    pub(super) fn tell_haves_when_due(&mut self, now: Time) {
        if self.haves_due.is_some_and(|due| due <= now) {
            self.tell_haves(now);
        }
    }

    /// Tells every peer of the new pieces that it lacks.
    fn tell_haves(&mut self, now: Time) {
        self.haves_due = None;
        let mut pieces = std::mem::take(&mut self.unannounced);
        // One may have gone again.
        pieces.retain(|piece| self.have.get(*piece));
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            for &piece in &pieces {
                if !self.picker.has(key, piece) {
                    self.send(now, key, WireMessage::Have(piece.0));
                }
            }
        }
        pieces.clear();
        self.unannounced = pieces;
    }

    /// We have everything: peers that have it too are of no use to us, nor we to them.
    fn leave_seeds(&mut self, now: Time) {
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            if self.picker.field(key).is_some_and(Bitfield::is_full) {
                self.disconnect(now, key, DisconnectReason::BothSeeds);
            } else if let Some(peer) = self.peers.get_mut(&key)
                && std::mem::take(&mut peer.we_are_interested)
            {
                self.send(now, key, WireMessage::NotInterested);
            }
        }
    }
}
