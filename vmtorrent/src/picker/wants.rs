//! Invariant: a piece stands in one queue at most, that of its band, and a piece that was not begun stands there
//! exactly while it is wanted.

use std::collections::VecDeque;

use super::Band;
use super::fields::Askable;
use crate::Bitfield;
use crate::hash::HashMap;
use crate::image::PieceIndex;

/// What is wanted, and in which order.
#[derive(Debug)]
pub(super) struct Wants {
    /// For each band, the pieces of it that still have a block nobody was asked for, in the order of
    /// asking. Background pieces stand here only once they are open.
    queues: [VecDeque<PieceIndex>; 4],
    /// The same pieces: that a peer has none of a long queue is seen at a glance.
    queued: [Bitfield; 4],
    /// The band of a wanted piece that was not begun.
    bands: HashMap<PieceIndex, Band>,
}

impl Wants {
    /// Queues that are no longer are looked through.
    const SHORT: usize = 32;

    /// Nothing of an image of so many pieces is wanted.
    pub(super) fn new(pieces: u32) -> Self {
        Self {
            queues: Default::default(),
            queued: std::array::from_fn(|_| Bitfield::new(pieces)),
            bands: HashMap::default(),
        }
    }

    /// The first piece of a band with a free block that a peer may be asked for, of those that are for it.
    pub(super) fn first(
        &self,
        band: Band,
        peer: &Askable<'_>,
        for_it: impl Fn(PieceIndex) -> bool,
    ) -> Option<PieceIndex> {
        let queue = self.queue(band);
        if queue.len() > Self::SHORT && !self.queued[band.index()].intersects(peer.field) {
            return None;
        }
        let mut queue = queue.iter().copied();
        queue.find(|piece| peer.contains(*piece) && for_it(*piece))
    }

    /// The pieces of a band that have a free block, in the order of asking.
    pub(super) fn queue(&self, band: Band) -> &VecDeque<PieceIndex> {
        &self.queues[band.index()]
    }

    /// The band of a wanted piece that was not begun.
    pub(super) fn band(&self, piece: PieceIndex) -> Option<Band> {
        self.bands.get(&piece).copied()
    }

    /// The wanted pieces that were not begun.
    pub(super) fn pieces(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.bands.keys().copied()
    }

    /// Wants a piece that was not begun, or moves it to another band.
    pub(super) fn want(&mut self, piece: PieceIndex, band: Band) {
        if let Some(old) = self.bands.insert(piece, band) {
            self.fill(piece, old);
        }
        self.queues[band.index()].push_back(piece);
        self.queued[band.index()].set(piece, true);
    }

    /// A wanted piece is begun: it stays in its queue. Gives its band.
    pub(super) fn begin(&mut self, piece: PieceIndex) -> Option<Band> {
        self.bands.remove(&piece)
    }

    /// A begun piece has no free block any more.
    pub(super) fn fill(&mut self, piece: PieceIndex, band: Band) {
        if self.queued[band.index()].set(piece, false) {
            self.queues[band.index()].retain(|p| *p != piece);
        }
    }

    /// A begun piece has a free block again. It was begun before its neighbours, and goes on before them.
    pub(super) fn resume(&mut self, piece: PieceIndex, band: Band) {
        self.queues[band.index()].push_front(piece);
        self.queued[band.index()].set(piece, true);
    }

    /// A begun piece with a free block comes into another band.
    pub(super) fn promote(&mut self, piece: PieceIndex, from: Band, to: Band) {
        self.fill(piece, from);
        self.queues[to.index()].push_back(piece);
        self.queued[to.index()].set(piece, true);
    }

    /// Forgets a piece that was not begun; `begun` is the band of one that was.
    pub(super) fn forget(&mut self, piece: PieceIndex, begun: Option<Band>) {
        let wanted = self.bands.remove(&piece);
        for band in [begun, wanted].into_iter().flatten() {
            self.fill(piece, band);
        }
    }

    /// Takes the pieces out of a band for which `keep` does not hold, and gives them.
    pub(super) fn drop_unless(
        &mut self,
        band: Band,
        mut keep: impl FnMut(PieceIndex) -> bool,
    ) -> Vec<PieceIndex> {
        let mut dropped = Vec::new();
        self.queues[band.index()].retain(|piece| {
            let stays = keep(*piece);
            if !stays {
                dropped.push(*piece);
            }
            stays
        });
        for piece in &dropped {
            self.queued[band.index()].set(*piece, false);
            self.bands.remove(piece);
        }
        dropped
    }
}
