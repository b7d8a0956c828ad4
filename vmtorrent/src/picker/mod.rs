//! Which block to ask for next, and of whom.
//!
//! [`Picker`] is a plain data structure: it does no I/O, reads no clock, and draws randomness from a
//! generator that it was given. Wants come in (a read waits, a stream runs ahead, a profile is due),
//! blocks to request go out, in four strictly ordered [`Band`]s.
//!
//! Invariants, each held by a property test:
//! - at a peer that has both, a block of a lower band is never picked before one of a higher band, but for what is left to
//!   those that lack something;
//! - a piece that is zero, had, being verified, or a duplicate of another is never picked;
//! - nothing outside the policy is picked: without background filling only wanted pieces;
//! - as long as a peer may be asked for a wanted block that nobody was asked for, a pick for that peer finds one (it may
//!   not for what is [confined](Picker::confine) to another peer, or left to those that lack something: by
//!   [`leave`](Picker::leave), or because it is [common](Window::common) among them and no read waits for it).

mod band;
mod extents;
mod fields;
mod pick;
mod progress;
mod rarity;
mod readahead;
mod runs;
mod streams;
mod wants;
mod window;

pub use band::Band;
pub use extents::Extents;
pub use pick::Pick;
pub use readahead::Readahead;
pub use window::Window;

use fields::Fields;
use progress::{Arrival, Progress};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rarity::Rarity;
use runs::Runs;
use wants::Wants;

use crate::Bitfield;
use crate::hash::HashMap;
use crate::image::{BlockIndex, Geometry, PieceIndex};

/// Names a connected peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerKey(pub usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PieceState {
    /// Zero or a duplicate: never fetched.
    Skipped,
    /// Not here, not begun.
    Missing,
    /// Some blocks are asked for or received; it is in `open`.
    Open,
    /// All blocks are here, the hash is being checked.
    Verifying,
    /// Verified and stored.
    Had,
}

/// What the arrival of a block meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockArrival {
    /// It was missing: keep it. The `others` were asked for it too, and need a CANCEL.
    New {
        /// The band that it was fetched for.
        band: Band,
        /// The losers, if the block was asked for more than once.
        others: [Option<PeerKey>; 2],
        /// All blocks of the piece are here: verify it.
        complete: bool,
    },
    /// It is not wanted (any more).
    Unwanted,
}

/// Chooses blocks. See the module for what it promises.
#[derive(Debug)]
pub struct Picker {
    geometry: Geometry,
    states: Vec<PieceState>,
    open: HashMap<PieceIndex, Progress>,
    /// How many of `open` are in each band.
    open_in: [u32; 4],
    wants: Wants,
    rarity: Rarity,
    fields: Fields,
    /// What the profile has fetched next.
    window: Window,
    /// The pieces of the window: most peers have none of them, which is seen at a glance.
    in_window: Bitfield,
    runs: Runs,
    missing: u32,
    rng: StdRng,
}

impl Picker {
    /// A picker for an image of which the pieces for which `had` holds are here, and those for which
    /// `skipped` holds are never fetched (zeros, duplicates). `seed` decides ties.
    pub fn new(
        geometry: Geometry,
        skipped: impl Fn(PieceIndex) -> bool,
        had: impl Fn(PieceIndex) -> bool,
        seed: u64,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let states: Vec<PieceState> = geometry
            .pieces()
            .map(|p| match (skipped(p), had(p)) {
                (true, _) => PieceState::Skipped,
                (false, true) => PieceState::Had,
                (false, false) => PieceState::Missing,
            })
            .collect();
        let missing = |p: &PieceIndex| states[p.as_usize()] == PieceState::Missing;
        let rarity = Rarity::new(
            geometry.piece_count(),
            geometry.pieces().filter(missing),
            &mut rng,
        );
        let missing = rarity.candidates().count_ones();
        Self {
            geometry,
            states,
            open: HashMap::default(),
            open_in: [0; 4],
            wants: Wants::new(geometry.piece_count()),
            rarity,
            fields: Fields::default(),
            window: Window::default(),
            in_window: Bitfield::new(geometry.piece_count()),
            runs: Runs::new(geometry.nominal_piece_length()),
            missing,
            rng,
        }
    }

    /// How the image is cut.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Pieces that are neither here nor skipped.
    pub fn missing(&self) -> u32 {
        self.missing
    }

    /// Whether the piece may still be fetched.
    pub fn is_missing(&self, piece: PieceIndex) -> bool {
        matches!(
            self.states.get(piece.as_usize()),
            Some(PieceState::Missing | PieceState::Open | PieceState::Verifying)
        )
    }

    /// Whether all of the piece came, and it is not known yet whether it is right.
    pub fn is_verifying(&self, piece: PieceIndex) -> bool {
        self.states.get(piece.as_usize()) == Some(&PieceState::Verifying)
    }

    /// The pieces of `field` that could still be fetched: a peer that has one is interesting.
    pub fn is_interesting(&self, peer: PeerKey) -> bool {
        let Some(field) = self.fields.get(peer) else {
            return false;
        };
        let begun = self.open.keys().copied();
        self.rarity.candidates().intersects(field)
            || self.wants.pieces().chain(begun).any(|p| field.get(p))
    }

    /// A peer has connected; it has nothing until it says so.
    pub fn add_peer(&mut self, peer: PeerKey) {
        self.fields.add(peer, self.geometry.piece_count());
    }

    /// A peer said what it has. Replaces what it said before.
    pub fn set_field(&mut self, peer: PeerKey, field: Bitfield) {
        if field.len() == self.geometry.piece_count() {
            self.fields.set(peer, field, &mut self.rarity);
        }
    }

    /// A peer has one more piece; false when it had said so before.
    pub fn add_have(&mut self, peer: PeerKey, piece: PieceIndex) -> bool {
        self.fields.add_piece(peer, piece, &mut self.rarity)
    }

    /// A peer turned out not to have a piece, or not to give it: it counts as not having it.
    pub fn lose_have(&mut self, peer: PeerKey, piece: PieceIndex) {
        self.fields.remove_piece(peer, piece, &mut self.rarity);
    }

    /// What a peer has.
    pub fn field(&self, peer: PeerKey) -> Option<&Bitfield> {
        self.fields.get(peer)
    }

    /// Whether a peer has everything.
    pub fn is_whole(&self, peer: PeerKey) -> bool {
        self.fields.get(peer).is_some_and(Bitfield::is_full)
    }

    /// Whether a peer has a piece.
    pub fn has(&self, peer: PeerKey, piece: PieceIndex) -> bool {
        self.fields.has(peer, piece)
    }

    /// How many connected peers that lack something have this piece.
    pub fn availability(&self, piece: PieceIndex) -> u16 {
        self.rarity.availability(piece)
    }

    /// From now on a piece is asked of this peer only, as long as it is connected: several gave it before,
    /// and one of them lied.
    pub fn confine(&mut self, piece: PieceIndex, peer: PeerKey) {
        self.fields.confine(piece, peer);
    }

    /// A piece may be asked of anybody again; gives whom it was confined to.
    pub fn unconfine(&mut self, piece: PieceIndex) -> Option<PeerKey> {
        self.fields.free(piece)
    }

    /// From now on a piece is not asked of peers that have everything: one of the others will soon have it.
    pub fn leave(&mut self, piece: PieceIndex) {
        self.fields.leave(piece);
    }

    /// A piece that was left to the others may be asked of whoever has it.
    pub fn resume(&mut self, piece: PieceIndex) {
        self.fields.resume(piece);
    }

    /// Pieces that were confined to this peer may be asked of anybody again.
    pub fn unconfine_all(&mut self, peer: PeerKey) {
        self.fields.free_all(peer);
    }

    /// Whether `peer` may be asked for `piece`.
    pub fn may_ask(&self, peer: PeerKey, piece: PieceIndex) -> bool {
        self.fields.askable(peer).is_some_and(|a| a.contains(piece))
    }

    /// A peer has gone; what it was asked for is free again.
    pub fn remove_peer(&mut self, peer: PeerKey) {
        self.release(peer);
        self.runs.remove(peer);
        self.fields.remove(peer, &mut self.rarity);
    }

    /// A peer will deliver nothing of what it was asked for (it choked us, or went silent).
    pub fn release(&mut self, peer: PeerKey) {
        let asked: Vec<BlockIndex> = self
            .open
            .iter()
            .flat_map(|(piece, progress)| {
                let piece = *piece;
                progress
                    .asked()
                    .filter(move |(_, p)| *p == peer)
                    .map(move |(block, _)| BlockIndex { piece, block })
            })
            .collect();
        for block in asked {
            self.give_up(peer, block);
        }
        for progress in self.open.values_mut().filter(|p| p.owner == Some(peer)) {
            progress.owner = None;
        }
    }

    /// A peer will not deliver one block.
    pub fn give_up(&mut self, peer: PeerKey, block: BlockIndex) {
        let Some(progress) = self.open.get_mut(&block.piece) else {
            return;
        };
        let had_free = progress.has_free();
        if progress.give_up(block.block, peer) && !had_free {
            self.wants.resume(block.piece, progress.band);
        }
    }

    /// A piece that was taken out of the window, and of which nobody is asked for anything and nothing came, may come into
    /// it again: it is wanted no more than before. Any other piece stays as it is.
    pub fn put_back(&mut self, piece: PieceIndex) {
        let idle = |p: &Progress| p.band == Band::Profile && p.is_untouched();
        if self.states.get(piece.as_usize()) == Some(&PieceState::Open)
            && self.open.get(&piece).is_some_and(idle)
        {
            self.forget(piece);
            self.states[piece.as_usize()] = PieceState::Missing;
            self.rarity.insert(piece);
        }
    }

    /// Wants a piece in `band`, or moves it up to that band. True when this changed anything.
    ///
    /// Wanting a piece that is here or never fetched changes nothing.
    pub fn want(&mut self, piece: PieceIndex, band: Band) -> bool {
        match self.states.get(piece.as_usize()) {
            Some(PieceState::Missing) => {
                let old = self.wants.band(piece);
                if old.is_some_and(|old| old <= band) || band == Band::Background {
                    return false;
                }
                if old.is_none() {
                    self.rarity.remove(piece);
                }
                self.wants.want(piece, band);
                true
            }
            Some(PieceState::Open | PieceState::Verifying) => {
                let Some(progress) = self.open.get_mut(&piece) else {
                    return false;
                };
                if progress.band <= band {
                    return false;
                }
                let old = std::mem::replace(&mut progress.band, band);
                self.open_in[old.index()] -= 1;
                self.open_in[band.index()] += 1;
                if progress.has_free() {
                    self.wants.promote(piece, old, band);
                }
                true
            }
            Some(PieceState::Skipped | PieceState::Had) | None => false,
        }
    }

    /// Takes back all wants of one band that nobody was asked for yet (a stream was left, a profile was dropped).
    pub fn drop_wants(&mut self, band: Band, mut keep: impl FnMut(PieceIndex) -> bool) {
        let open = &self.open;
        let stays = |piece| open.contains_key(&piece) || keep(piece);
        for piece in self.wants.drop_unless(band, stays) {
            self.rarity.insert(piece);
        }
    }

    /// The band for which a piece is wanted or being fetched.
    pub fn band(&self, piece: PieceIndex) -> Option<Band> {
        self.open
            .get(&piece)
            .map(|p| p.band)
            .or_else(|| self.wants.band(piece))
    }

    /// Whether any piece of this band waits for a block that nobody was asked for.
    pub fn has_free(&self, band: Band) -> bool {
        !self.wants.queue(band).is_empty()
    }

    /// Whether some peer was asked for a block of this band, or one is being verified. A want that nobody
    /// can serve is not under way.
    pub fn is_under_way(&self, band: Band) -> bool {
        let mut open = self.open.values();
        self.open_in[band.index()] > 0
            && open.any(|p| p.band == band && (p.asked().next().is_some() || !p.has_free()))
    }

    /// Whether a block of a piece is missing that nobody was asked for.
    pub fn has_free_block(&self, piece: PieceIndex) -> bool {
        match self.states.get(piece.as_usize()) {
            Some(PieceState::Missing) => true,
            Some(PieceState::Open) => self.open.get(&piece).is_some_and(Progress::has_free),
            Some(PieceState::Skipped | PieceState::Verifying | PieceState::Had) | None => false,
        }
    }

    /// The pieces of the demand band that have a free block, oldest demand first.
    ///
    /// The caller spreads their [`free_blocks`](Picker::free_blocks) over the peers by their expected time, with
    /// [`ask`](Picker::ask).
    pub fn free_demand_pieces(&self) -> Vec<PieceIndex> {
        self.wants.queue(Band::Demand).iter().copied().collect()
    }

    /// The blocks of a piece that nobody was asked for, in order.
    pub fn free_blocks(&self, piece: PieceIndex) -> Vec<BlockIndex> {
        let block = |block| BlockIndex { piece, block };
        match self.open.get(&piece) {
            Some(progress) => progress.free_blocks().map(block).collect(),
            None => (0..self.geometry.block_count(piece)).map(block).collect(),
        }
    }

    /// Blocks of open pieces in the demand band that one peer was asked for, with that peer: the ones
    /// that may be late.
    pub fn asked_demand_blocks(&self) -> Vec<(BlockIndex, PeerKey)> {
        self.open
            .iter()
            .filter(|(_, progress)| progress.band == Band::Demand)
            .flat_map(|(&piece, progress)| {
                progress
                    .asked()
                    .map(move |(block, peer)| (BlockIndex { piece, block }, peer))
            })
            .collect()
    }

    /// Whether nobody was asked for any block of a missing piece.
    pub fn asked_of_nobody(&self, piece: PieceIndex) -> bool {
        let open = self.open.get(&piece);
        open.is_none_or(|progress| progress.asked().next().is_none())
    }

    /// The peers that were asked for a block, two at most.
    pub fn asked_of(&self, block: BlockIndex) -> Vec<PeerKey> {
        let progress = self.open.get(&block.piece);
        progress.map_or(Vec::new(), |p| p.asked_of(block.block).collect())
    }

    /// Notes that `peer` is asked for `block`. False, and nothing noted, when that makes no sense.
    pub fn ask(&mut self, peer: PeerKey, block: BlockIndex) -> bool {
        if !self.may_ask(peer, block.piece) {
            return false;
        }
        let Some(progress) = self.open_piece(block.piece) else {
            return false;
        };
        let had_free = progress.has_free();
        let asked = progress.ask(block.block, peer);
        let now_full = had_free && !progress.has_free();
        let band = progress.band;
        if now_full {
            self.wants.fill(block.piece, band);
        }
        asked
    }

    /// Whether a piece is missing, and neither begun nor wanted.
    pub fn is_untouched(&self, piece: PieceIndex) -> bool {
        is_untouched(&self.states, &self.wants, piece)
    }

    /// A block has arrived from `peer`.
    pub fn receive(&mut self, peer: PeerKey, block: BlockIndex) -> BlockArrival {
        let Some(progress) = self.open.get_mut(&block.piece) else {
            return BlockArrival::Unwanted;
        };
        if self.states[block.piece.as_usize()] != PieceState::Open {
            return BlockArrival::Unwanted;
        }
        let had_free = progress.has_free();
        let band = progress.band;
        match progress.receive(block.block, peer) {
            Arrival::Duplicate => BlockArrival::Unwanted,
            Arrival::New { others, complete } => {
                if had_free && !progress.has_free() {
                    self.wants.fill(block.piece, band);
                }
                if complete {
                    self.states[block.piece.as_usize()] = PieceState::Verifying;
                }
                BlockArrival::New {
                    band,
                    others,
                    complete,
                }
            }
        }
    }

    /// The hash was right and the piece is stored; or the piece came to be here by other means.
    pub fn have(&mut self, piece: PieceIndex) {
        let Some(&state) = self.states.get(piece.as_usize()) else {
            return;
        };
        if matches!(state, PieceState::Skipped | PieceState::Had) {
            return;
        }
        self.forget(piece);
        self.fields.free(piece);
        self.fields.resume(piece);
        self.rarity.remove(piece);
        self.states[piece.as_usize()] = PieceState::Had;
        self.missing -= 1;
    }

    /// The hash was wrong, the piece could not be stored, or a stored one turned out damaged: it is
    /// missing again, and wanted as before.
    pub fn lost(&mut self, piece: PieceIndex) {
        let Some(&state) = self.states.get(piece.as_usize()) else {
            return;
        };
        if state == PieceState::Skipped {
            return;
        }
        let band = self.band(piece);
        self.forget(piece);
        if state == PieceState::Had {
            self.missing += 1;
        }
        self.states[piece.as_usize()] = PieceState::Missing;
        self.rarity.insert(piece);
        if let Some(band) = band {
            self.want(piece, band);
        }
    }

    fn forget(&mut self, piece: PieceIndex) {
        let begun = self.open.remove(&piece).map(|p| p.band);
        if let Some(band) = begun {
            self.open_in[band.index()] -= 1;
        }
        self.wants.forget(piece, begun);
    }

    fn open_piece(&mut self, piece: PieceIndex) -> Option<&mut Progress> {
        match self.states.get(piece.as_usize())? {
            PieceState::Missing => {
                let band = self.wants.begin(piece)?;
                self.states[piece.as_usize()] = PieceState::Open;
                let blocks = self.geometry.block_count(piece);
                self.open_in[band.index()] += 1;
                Some(
                    self.open
                        .entry(piece)
                        .or_insert_with(|| Progress::new(band, blocks)),
                )
            }
            PieceState::Open => self.open.get_mut(&piece),
            PieceState::Skipped | PieceState::Verifying | PieceState::Had => None,
        }
    }
}

fn is_untouched(states: &[PieceState], wants: &Wants, piece: PieceIndex) -> bool {
    states.get(piece.as_usize()) == Some(&PieceState::Missing) && wants.band(piece).is_none()
}

#[cfg(test)]
mod crowd_tests;
#[cfg(test)]
mod tests;
