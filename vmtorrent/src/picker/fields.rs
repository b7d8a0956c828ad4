//! Invariant: availability counts each piece once for each connected peer that has it and is no seed.

use std::collections::HashMap;

use super::PeerKey;
use super::rarity::Rarity;
use crate::Bitfield;
use crate::image::PieceIndex;

/// What each connected peer has, and what it may be asked for.
#[derive(Debug, Default)]
pub(super) struct Fields {
    fields: HashMap<PeerKey, Bitfield>,
    /// Pieces that are asked of one peer only.
    confined: HashMap<PieceIndex, PeerKey>,
}

impl Fields {
    /// A peer has connected; it has none of so many pieces until it says so.
    pub(super) fn add(&mut self, peer: PeerKey, pieces: u32) {
        self.fields.insert(peer, Bitfield::new(pieces));
    }

    /// A peer said what it has. Replaces what it said before.
    pub(super) fn set(&mut self, peer: PeerKey, field: Bitfield, rarity: &mut Rarity) {
        if let Some(old) = self.fields.remove(&peer) {
            count(&old, rarity, Rarity::decrease);
        }
        count(&field, rarity, Rarity::increase);
        self.fields.insert(peer, field);
    }

    /// A peer has one more piece; false when it had said so before, or is not connected.
    pub(super) fn add_piece(
        &mut self,
        peer: PeerKey,
        piece: PieceIndex,
        rarity: &mut Rarity,
    ) -> bool {
        let Some(field) = self.fields.get_mut(&peer) else {
            return false;
        };
        if !field.set(piece, true) {
            return false;
        }
        if field.is_full() {
            // It has become a seed, and seeds are not counted: take back what it was counted for.
            for p in field.ones().filter(|p| *p != piece) {
                rarity.decrease(p);
            }
        } else {
            rarity.increase(piece);
        }
        true
    }

    /// A peer has gone.
    pub(super) fn remove(&mut self, peer: PeerKey, rarity: &mut Rarity) {
        self.confined.retain(|_, p| *p != peer);
        if let Some(field) = self.fields.remove(&peer) {
            count(&field, rarity, Rarity::decrease);
        }
    }

    /// What a peer has.
    pub(super) fn get(&self, peer: PeerKey) -> Option<&Bitfield> {
        self.fields.get(&peer)
    }

    /// Whether a peer has a piece.
    pub(super) fn has(&self, peer: PeerKey, piece: PieceIndex) -> bool {
        self.fields.get(&peer).is_some_and(|f| f.get(piece))
    }

    /// From now on a piece is asked of this peer only, as long as it is connected.
    pub(super) fn confine(&mut self, piece: PieceIndex, peer: PeerKey) {
        if self.has(peer, piece) {
            self.confined.insert(piece, peer);
        }
    }

    /// A piece may be asked of anybody; gives whom it was confined to.
    pub(super) fn free(&mut self, piece: PieceIndex) -> Option<PeerKey> {
        self.confined.remove(&piece)
    }

    /// What a peer may be asked for; `None` when it is not connected.
    pub(super) fn askable(&self, peer: PeerKey) -> Option<Askable<'_>> {
        Some(Askable {
            peer,
            field: self.fields.get(&peer)?,
            confined: &self.confined,
        })
    }
}

/// What one peer may be asked for. Many pieces are looked at for each pick, the peer is looked up once.
pub(super) struct Askable<'a> {
    peer: PeerKey,
    pub(super) field: &'a Bitfield,
    confined: &'a HashMap<PieceIndex, PeerKey>,
}

impl Askable<'_> {
    /// Whether the peer may be asked for `piece`.
    pub(super) fn contains(&self, piece: PieceIndex) -> bool {
        let elsewhere = |p: &PeerKey| *p != self.peer;
        self.field.get(piece) && !self.confined.get(&piece).is_some_and(elsewhere)
    }
}

/// Counts the pieces of a peer that joins or leaves. Seeds are left out: they change no order.
fn count(field: &Bitfield, rarity: &mut Rarity, change: fn(&mut Rarity, PieceIndex)) {
    if !field.is_full() {
        for piece in field.ones() {
            change(rarity, piece);
        }
    }
}
