//! What is left to other peers to bring. Invariant: nothing is left without a time at which that ends, and the engine is
//! woken then.

use std::time::Duration;

use super::Shares;
use crate::clock::Time;
use crate::hash::HashMap;
use crate::image::PieceIndex;
use crate::picker::PeerKey;
use crate::swarm::engine::Engine;

/// Pieces that a guest waits for, or that are read ahead, and that are left to another peer to bring.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) left: HashMap<PieceIndex, Left>,
    /// The part of them that came in time of late.
    success: f64,
    /// Too few did: not before then.
    pub(super) rests_until: Time,
    /// How often the backups were doubled, and how many pieces came in time since that was changed.
    doublings: u32,
    came: u32,
}

/// A piece that is left to another peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    pub(super) until: Time,
    /// A read waits for it.
    pub(super) waits: bool,
}

impl Default for Leaving {
    fn default() -> Self {
        Self {
            left: HashMap::default(),
            success: 1.0,
            rests_until: Time::default(),
            doublings: 0,
            came: 0,
        }
    }
}

impl Leaving {
    const WEIGHT: f64 = 1.0 / 8.0;
    const REST: Duration = Duration::from_secs(5);
    /// How many ask a seed for a piece that nobody has, besides the first. They make up for those that are slow, or not
    /// connected to a seed; each of them may cost the seed one copy more.
    const BACKUPS: u16 = 2;
    const MOST_DOUBLINGS: u32 = 5;
    /// After so many that came in time there are too many backups.
    const ENOUGH: u32 = 32;

    /// What nobody brings in time has too few backups.
    pub(super) fn backups(&self) -> u16 {
        Self::BACKUPS << self.doublings
    }

    fn came(&mut self, now: Time, in_time: bool) {
        self.came += 1;
        if !in_time {
            self.doublings = (self.doublings + 1).min(Self::MOST_DOUBLINGS);
            self.came = 0;
        } else if self.came >= Self::ENOUGH {
            self.doublings = self.doublings.saturating_sub(1);
            self.came = 0;
        }
        let value = if in_time { 1.0 } else { 0.0 };
        self.success += (value - self.success) * Self::WEIGHT;
        if self.success < 0.5 {
            self.rests_until = now + Self::REST;
            self.success = 1.0;
        }
    }
}

/// The most that a guest waits for a piece that another peer brings.
const MOST_PATIENCE: Duration = Duration::from_millis(200);
/// How long what is only read ahead is left to others.
const READ_AHEAD_PATIENCE: Duration = Duration::from_secs(1);

impl Engine {
    /// A guest waits for a piece that nobody was asked for. If all guests are expected to read it now, and another peer is
    /// to bring it into the swarm, that one is given the time to do so: else a seed would be asked for each piece by all
    /// who wait for it, and would bring them all only as fast as its line carries them all.
    pub(in crate::swarm::engine) fn leave_to_traders(&mut self, now: Time, piece: PieceIndex) {
        if self.guides.guides.is_empty()
            || now < self.guides.leaving.rests_until
            || self.guides.leaving.left.contains_key(&piece)
            || self.picker.availability(piece) > 0
            || !self
                .guides
                .guides
                .values()
                .any(|g| g.guide().foretells(piece))
        {
            return;
        }
        // Only peers of our kind are known to share the pieces out as we do.
        let takes_turns = |key: &PeerKey| self.profiles.takes_profiles(*key);
        if Shares::new(
            &self.peer_id,
            self.traders().filter(|(key, _)| takes_turns(key)),
        )
        .rank(piece)
            == 0
        {
            return;
        }
        let block = self.image.geometry().nominal_block_length();
        let whole = self
            .peers
            .iter()
            .filter(|(key, _)| self.picker.is_whole(**key));
        let Some(seed) = whole
            .map(|(_, p)| {
                p.path
                    .expected_behind(6 * u64::from(p.path.on_line(block)), block)
            })
            .min()
        else {
            return;
        };
        let patience = seed.min(MOST_PATIENCE);
        self.leave(piece, now + patience, true);
    }

    /// A piece is to be read ahead that nobody was asked for. All guests that do the same may do so now, and nothing waits
    /// for it: as of what profiles foretell, few ask a seed for it.
    pub(in crate::swarm::engine) fn leave_read_ahead(&mut self, now: Time, piece: PieceIndex) {
        if self.guides.guides.is_empty()
            || self.guides.leaving.left.contains_key(&piece)
            || self.picker.availability(piece) > 0
            || !self.picker.asked_of_nobody(piece)
        {
            return;
        }
        let backups = self.guides.leaving.backups();
        let takes_turns = |key: &PeerKey| self.profiles.takes_profiles(*key);
        let traders = self.traders().filter(|(key, _)| takes_turns(key));
        let mut shares = Shares::new(&self.peer_id, traders);
        shares.tell_apart(backups + 1);
        if shares.rank(piece) > backups {
            self.leave(piece, now + READ_AHEAD_PATIENCE, false);
        }
    }

    /// A read waits for a piece by now that was left to others because it was only read ahead.
    pub(in crate::swarm::engine) fn read_comes_to(&mut self, piece: PieceIndex) {
        let left = &mut self.guides.leaving.left;
        if left.get(&piece).is_some_and(|left| !left.waits) {
            left.remove(&piece);
            self.picker.resume(piece);
        }
    }

    fn leave(&mut self, piece: PieceIndex, until: Time, waits: bool) {
        let left = Left { until, waits };
        self.guides.leaving.left.insert(piece, left);
        self.picker.leave(piece);
        self.wake(until);
    }

    /// A piece came.
    pub(in crate::swarm::engine) fn note_left(&mut self, now: Time, piece: PieceIndex) {
        if let Some(left) = self.guides.leaving.left.remove(&piece) {
            self.picker.resume(piece);
            if left.waits {
                self.guides.leaving.came(now, true);
            }
        }
    }

    /// What others did not bring in time is asked of whoever has it.
    pub(in crate::swarm::engine) fn ask_for_left(&mut self, now: Time) {
        let leaving = &mut self.guides.leaving;
        let late: Vec<PieceIndex> = leaving
            .left
            .iter()
            .filter(|(_, left)| left.until <= now)
            .map(|(piece, _)| *piece)
            .collect();
        for piece in late {
            if leaving.left.remove(&piece).is_some_and(|left| left.waits) {
                leaving.came(now, self.picker.availability(piece) > 0);
            }
            self.picker.resume(piece);
        }
        if let Some(next) = leaving.left.values().map(|left| left.until).min() {
            self.wake(next);
        }
    }
}
