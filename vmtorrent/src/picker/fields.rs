//! Invariant: availability counts each piece once for each connected peer that has it, but for those that said at once
//! that they have everything: they change no order. No word about one piece costs more than that piece, but for the
//! first that such a peer takes back.

use super::PeerKey;
use super::rarity::Rarity;
use crate::Bitfield;
use crate::hash::{HashMap, HashSet};
use crate::image::PieceIndex;

/// What each connected peer has, and what it may be asked for.
#[derive(Debug, Default)]
pub(super) struct Fields {
    fields: HashMap<PeerKey, Field>,
    /// Pieces that are asked of one peer only.
    confined: HashMap<PieceIndex, PeerKey>,
    /// Pieces that are not asked of peers that have everything.
    left: HashSet<PieceIndex>,
}

#[derive(Debug)]
struct Field {
    pieces: Bitfield,
    /// Whether availability counts it.
    counted: bool,
}

impl Fields {
    /// A peer has connected; it has none of so many pieces until it says so.
    pub(super) fn add(&mut self, peer: PeerKey, pieces: u32) {
        let none = Field {
            pieces: Bitfield::new(pieces),
            counted: true,
        };
        self.fields.insert(peer, none);
    }

    /// A peer said what it has. Replaces what it said before.
    pub(super) fn set(&mut self, peer: PeerKey, field: Bitfield, rarity: &mut Rarity) {
        if let Some(old) = self.fields.remove(&peer) {
            old.count(rarity, Rarity::decrease);
        }
        let new = Field {
            counted: !field.is_full(),
            pieces: field,
        };
        new.count(rarity, Rarity::increase);
        self.fields.insert(peer, new);
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
        if !field.pieces.set(piece, true) {
            return false;
        }
        if field.counted {
            rarity.increase(piece);
        }
        true
    }

    /// A peer turned out not to have a piece.
    pub(super) fn remove_piece(&mut self, peer: PeerKey, piece: PieceIndex, rarity: &mut Rarity) {
        let Some(field) = self.fields.get_mut(&peer) else {
            return;
        };
        if !field.pieces.set(piece, false) {
            return;
        }
        if self.confined.get(&piece) == Some(&peer) {
            self.confined.remove(&piece);
        }
        if std::mem::replace(&mut field.counted, true) {
            rarity.decrease(piece);
        } else {
            field.count(rarity, Rarity::increase);
        }
    }

    /// A peer has gone.
    pub(super) fn remove(&mut self, peer: PeerKey, rarity: &mut Rarity) {
        self.free_all(peer);
        if let Some(field) = self.fields.remove(&peer) {
            field.count(rarity, Rarity::decrease);
        }
    }

    /// What a peer has.
    pub(super) fn get(&self, peer: PeerKey) -> Option<&Bitfield> {
        self.fields.get(&peer).map(|f| &f.pieces)
    }

    /// Whether a peer has a piece.
    pub(super) fn has(&self, peer: PeerKey, piece: PieceIndex) -> bool {
        self.fields.get(&peer).is_some_and(|f| f.pieces.get(piece))
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

    /// Whatever was to be asked of this peer only may be asked of anybody.
    pub(super) fn free_all(&mut self, peer: PeerKey) {
        self.confined.retain(|_, p| *p != peer);
    }

    /// From now on a piece is not asked of peers that have everything.
    pub(super) fn leave(&mut self, piece: PieceIndex) {
        self.left.insert(piece);
    }

    /// A piece may be asked of whoever has it.
    pub(super) fn resume(&mut self, piece: PieceIndex) {
        self.left.remove(&piece);
    }

    /// What a peer may be asked for; `None` when it is not connected.
    pub(super) fn askable(&self, peer: PeerKey) -> Option<Askable<'_>> {
        let field = self.fields.get(&peer)?;
        Some(Askable {
            peer,
            field: &field.pieces,
            counted: field.counted,
            confined: &self.confined,
            left: &self.left,
        })
    }
}

/// What one peer may be asked for. Many pieces are looked at for each pick, the peer is looked up once.
pub(super) struct Askable<'a> {
    peer: PeerKey,
    pub(super) field: &'a Bitfield,
    /// Whether availability counts this peer.
    pub(super) counted: bool,
    confined: &'a HashMap<PieceIndex, PeerKey>,
    left: &'a HashSet<PieceIndex>,
}

impl<'a> Askable<'a> {
    /// Whatever this field has.
    #[cfg(test)]
    pub(super) fn of_all(field: &'a Bitfield) -> Self {
        static NONE: std::sync::LazyLock<HashMap<PieceIndex, PeerKey>> =
            std::sync::LazyLock::new(HashMap::default);
        static NOTHING: std::sync::LazyLock<HashSet<PieceIndex>> =
            std::sync::LazyLock::new(HashSet::default);
        Self {
            peer: PeerKey(0),
            field,
            counted: !field.is_full(),
            confined: &NONE,
            left: &NOTHING,
        }
    }

    /// Whether the peer may be asked for `piece`.
    pub(super) fn contains(&self, piece: PieceIndex) -> bool {
        let elsewhere = |p: &PeerKey| *p != self.peer;
        let left = || !self.left.is_empty() && self.left.contains(&piece) && self.field.is_full();
        self.field.get(piece) && !self.confined.get(&piece).is_some_and(elsewhere) && !left()
    }
}

impl Field {
    /// Counts the pieces of a peer that joins or leaves.
    fn count(&self, rarity: &mut Rarity, change: fn(&mut Rarity, PieceIndex)) {
        if self.counted {
            for piece in self.pieces.ones() {
                change(rarity, piece);
            }
        }
    }
}
