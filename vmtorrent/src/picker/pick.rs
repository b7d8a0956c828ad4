//! The next block for a peer. Invariant: what is picked counts as asked, and its piece as begun.

use rand::RngExt;

use super::{Band, PeerKey, Picker, Window, is_untouched};
use crate::image::{BlockIndex, PieceIndex};

/// A block that was picked for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// What to ask for.
    pub block: BlockIndex,
    /// Why.
    pub band: Band,
}

/// Bytes of pieces that are begun, from which on no more are begun in the background while others can be gone on with.
pub(super) const MAX_OPEN_BYTES: u64 = 64 << 20;

impl Picker {
    /// The next block for `peer`, of the most urgent band that is at most as low as `lowest`. The
    /// block counts as asked.
    pub fn pick(&mut self, peer: PeerKey, lowest: Band) -> Option<Pick> {
        for band in Band::ALL.into_iter().filter(|b| *b <= lowest) {
            let piece = if band == Band::Background {
                self.pick_background(peer)?
            } else {
                let askable = self.fields.askable(peer)?;
                let whole = askable.field.is_full();
                let begun = self.wants.first(band, &askable, |piece| {
                    let common = || self.window.is_common(self.rarity.availability(piece));
                    band == Band::Demand || !(whole && common())
                });
                let found = match begun {
                    None if band == Band::Profile => self.pick_foretold(peer),
                    _ => begun,
                };
                match found {
                    Some(piece) => piece,
                    None => continue,
                }
            };
            let first = self.open_piece(piece)?.first_free()?;
            let block = BlockIndex {
                piece,
                block: first,
            };
            return self.ask(peer, block).then_some(Pick { block, band });
        }
        None
    }

    /// A piece that the profile foretells and that nobody was asked for.
    fn pick_foretold(&mut self, peer: PeerKey) -> Option<PieceIndex> {
        let askable = self.fields.askable(peer)?;
        if !self.in_window.intersects(askable.field) {
            return None;
        }
        let untouched = |piece| is_untouched(&self.states, &self.wants, piece);
        let whole = self.is_whole(peer);
        let rng = &mut self.rng;
        let piece = self.window.take(
            whole,
            |piece| askable.field.get(piece) && untouched(piece) && askable.contains(piece),
            |piece| self.rarity.availability(piece),
            |n| rng.random_range(0..n),
        )?;
        self.in_window.set(piece, false);
        self.rarity.remove(piece);
        self.wants.want(piece, Band::Profile);
        Some(piece)
    }

    /// From now on this peer is asked in the background for pieces that follow each other: one request to it may be for
    /// many.
    pub fn prefer_runs(&mut self, peer: PeerKey) {
        self.runs.prefer_long(peer);
    }

    /// Says what the profile has fetched next, as far as it is missing and nobody was asked for it. Replaces what was
    /// said before.
    pub fn set_window(&mut self, window: Window) {
        let pieces = &mut self.in_window;
        for piece in std::mem::take(&mut self.window.pieces) {
            pieces.set(piece, false);
        }
        for piece in &window.pieces {
            pieces.set(*piece, true);
        }
        self.window = window;
    }

    /// Whether anything is left of that.
    pub fn has_window(&self) -> bool {
        !self.window.pieces.is_empty()
    }

    /// A piece for background filling: the one that this peer has begun, else the rarest that nobody
    /// has begun, and only when there is none, one that another peer has begun. So a fast peer is not
    /// spent on what slow peers are fetching anyway, and peers that start together stay different.
    /// Of what is as rare an [extent](super::Extents) is asked for in order. A peer that prefers runs goes on for a while with
    /// the pieces that follow, however rare they are.
    ///
    /// Begun pieces are in memory: when they are [`MAX_OPEN_BYTES`] already, all help with those first.
    fn pick_background(&mut self, peer: PeerKey) -> Option<PieceIndex> {
        let askable = self.fields.askable(peer)?;
        let queue = self.wants.queue(Band::Background);
        let mut others = None;
        for &piece in queue.iter().filter(|p| askable.contains(**p)) {
            match self.open.get(&piece).and_then(|p| p.owner) {
                Some(owner) if owner != peer => others = others.or(Some(piece)),
                _ => return Some(piece),
            }
        }
        let open = self.open.len() as u64 * u64::from(self.geometry.nominal_piece_length());
        if others.is_some() && self.open.len() > 1 && open >= MAX_OPEN_BYTES {
            return others;
        }
        let eligible =
            |p: PieceIndex| askable.contains(p) && is_untouched(&self.states, &self.wants, p);
        let next = self.runs.next(peer).filter(|piece| eligible(*piece));
        let goes_on = next.filter(|_| self.runs.is_long(peer));
        let rng = &mut self.rng;
        let rarest = || self.rarity.rarest(&askable, |n| rng.random_range(0..n));
        let Some(piece) = goes_on.or_else(rarest) else {
            return others;
        };
        let as_rare =
            |p: &PieceIndex| self.rarity.availability(*p) <= self.rarity.availability(piece);
        let goes_on = next.filter(as_rare);
        let piece = goes_on.unwrap_or_else(|| {
            let mut before = self.runs.before(piece).map(PieceIndex);
            let first = before.find(|p| eligible(*p) && as_rare(p));
            first.unwrap_or(piece)
        });
        let length = self.geometry.nominal_piece_length();
        self.runs.picked(peer, piece, goes_on.is_some(), length);
        self.rarity.remove(piece);
        self.wants.want(piece, Band::Background);
        Some(piece)
    }
}
