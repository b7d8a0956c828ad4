//! What profiles have fetched. Invariant: the picker's window is what the guides of all guests foretell now, a moment
//! ago at most, and nothing when there is no guide.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Engine;
use crate::clock::Time;
use crate::hash::HashMap;
use crate::image::PieceIndex;
use crate::picker::{PeerKey, Window};
use crate::profile::{Conditions, Guide};

/// Names the guide of one guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GuideKey(u64);

/// What a guide says of a guest's reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Foretold {
    /// For each block whether it was expected.
    pub(crate) expected: Vec<bool>,
    /// Whether the profile knows what comes, so that nothing else has to be guessed.
    pub(crate) trusted: bool,
}

/// The guides of the guests that run the image.
#[derive(Debug, Default)]
pub(super) struct Guides {
    guides: BTreeMap<GuideKey, Guide>,
    next_key: u64,
    /// Something has happened that may change the window.
    stale: bool,
    /// When the window was made, and whether there was anything to put into it.
    made: Option<Time>,
    found: bool,
    /// Nothing is to be fetched that no read asks for.
    held: bool,
    leaving: Leaving,
    /// As long as who there is to trade with does not change.
    shares: Option<Shares>,
}

/// Most peers that the pieces of a window are shared out among.
const MAX_TRADERS: usize = 63;

/// Pieces that a guest waits for, or that are read ahead, and that are left to another peer to bring.
#[derive(Debug)]
struct Leaving {
    left: HashMap<PieceIndex, Left>,
    /// The part of them that came in time of late.
    success: f64,
    /// Too few did: not before then.
    rests_until: Time,
    /// How often the backups were doubled, and how many pieces came in time since that was changed.
    doublings: u32,
    came: u32,
}

/// A piece that is left to another peer.
#[derive(Clone, Copy, Debug)]
struct Left {
    until: Time,
    /// A read waits for it.
    waits: bool,
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
    fn backups(&self) -> u16 {
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
/// How long a window holds although the guest goes on.
const HOLDS: Duration = Duration::from_millis(5);

impl Guides {
    /// A piece is to come into the window again.
    pub(super) fn note_put_back(&mut self) {
        self.stale = true;
    }
}

impl Engine {
    /// A guest runs that is expected to do as its profile says.
    pub(crate) fn add_guide(&mut self, now: Time, guide: Guide) -> GuideKey {
        let key = GuideKey(self.guides.next_key);
        self.guides.next_key += 1;
        self.guides.guides.insert(key, guide);
        self.guides.stale = true;
        self.schedule(now);
        key
    }

    /// Who there is to trade with may have changed.
    pub(super) fn note_peers(&mut self) {
        self.guides.stale = true;
        self.guides.shares = None;
    }

    /// From now on nothing is fetched for profiles, or it is again. The guests are followed all the same.
    pub(crate) fn hold_guides(&mut self, now: Time, held: bool) {
        if std::mem::replace(&mut self.guides.held, held) != held {
            self.make_window(now);
            self.schedule(now);
        }
    }

    /// Whether any guest has a profile.
    pub(super) fn has_guides(&self) -> bool {
        !self.guides.guides.is_empty()
    }

    /// That guest has gone.
    pub(crate) fn remove_guide(&mut self, now: Time, key: GuideKey) {
        self.guides.guides.remove(&key);
        self.make_window(now);
    }

    /// A guest reads blocks of a file for the first time, at this guest time in microseconds.
    pub(crate) fn guest_reads(
        &mut self,
        now: Time,
        key: GuideKey,
        guest_time: u64,
        file: u32,
        blocks: &[u32],
    ) -> Foretold {
        let Some(guide) = self.guides.guides.get_mut(&key) else {
            return Foretold::default();
        };
        let foretold = Foretold {
            expected: guide.on_read(guest_time, file, blocks),
            trusted: guide.is_trusted(),
        };
        self.guides.stale = true;
        // Otherwise the next block that comes leads there.
        if self.peers.values().all(|p| p.outstanding.is_empty()) {
            self.schedule(now);
        }
        foretold
    }

    /// Makes the window anew if that is due. To be called before lower bands are asked for.
    pub(super) fn renew_window(&mut self, now: Time) {
        let holds = |made: Time| now.since(made) < HOLDS;
        if self.guides.stale && !self.guides.made.is_some_and(holds) {
            self.make_window(now);
        }
    }

    /// Makes the window anew when all of it was asked for; false when nothing more is foretold.
    pub(super) fn continue_window(&mut self, now: Time) -> bool {
        // What was made at this very moment was all that there is; and where nothing was found, nothing comes of looking
        // again until something happens.
        let Some(made) = self.guides.made.filter(|at| *at != now) else {
            return false;
        };
        if self.guides.guides.is_empty() || !self.guides.found {
            return false;
        }
        // What is left of it this peer lacks; it may have what comes behind, but that need not be looked for with each block.
        if self.picker.has_window() && now.since(made) < HOLDS {
            self.wake(made + HOLDS);
            return false;
        }
        self.make_window(now);
        self.guides.found
    }

    /// A guest waits for a piece that nobody was asked for. If all guests are expected to read it now, and another peer is
    /// to bring it into the swarm, that one is given the time to do so: else a seed would be asked for each piece by all
    /// who wait for it, and would bring them all only as fast as its line carries them all.
    pub(super) fn leave_to_traders(&mut self, now: Time, piece: PieceIndex) {
        let foretold = |guides: &Guides| guides.guides.values().any(|g| g.foretells(piece));
        if self.guides.guides.is_empty()
            || now < self.guides.leaving.rests_until
            || self.guides.leaving.left.contains_key(&piece)
            || self.picker.availability(piece) > 0
            || !foretold(&self.guides)
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
    pub(super) fn leave_read_ahead(&mut self, now: Time, piece: PieceIndex) {
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
    pub(super) fn read_comes_to(&mut self, piece: PieceIndex) {
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
    pub(super) fn note_left(&mut self, now: Time, piece: PieceIndex) {
        if let Some(left) = self.guides.leaving.left.remove(&piece) {
            self.picker.resume(piece);
            if left.waits {
                self.guides.leaving.came(now, true);
            }
        }
    }

    /// What others did not bring in time is asked of whoever has it.
    pub(super) fn ask_for_left(&mut self, now: Time) {
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

    /// The peers that lack pieces as we do, with their ids.
    fn traders(&self) -> impl Iterator<Item = (PeerKey, &[u8; 20])> {
        self.peers
            .iter()
            .filter(|(key, p)| p.said_field && !self.picker.is_whole(**key))
            .map(|(key, p)| (*key, &p.id))
            .take(MAX_TRADERS)
    }

    /// How many of those that lack something must have a piece so that they bring it about as soon as all seeds together
    /// would: what they have is then asked of them, since a seed's line is all that brings a crowd what nobody has.
    fn common(&self) -> u16 {
        let (mut seeds, mut traders, mut count) = (0.0, 0.0, 0_u32);
        for (key, peer) in self.peers.iter().filter(|(_, p)| p.said_field) {
            if self.picker.is_whole(*key) {
                seeds += peer.path.plain_rate().unwrap_or_default();
            } else {
                count += 1;
                if !peer.chokes_us && !peer.snubbed {
                    traders += peer.path.plain_rate().unwrap_or_default();
                }
            }
        }
        if traders == 0.0 {
            return u16::MAX;
        }
        // As a float it is bounded by the cast.
        (seeds * f64::from(count) / traders).ceil().max(1.0) as u16
    }

    fn make_window(&mut self, now: Time) {
        let shares = self.guides.shares.take();
        let mut shares = shares.unwrap_or_else(|| Shares::new(&self.peer_id, self.traders()));
        let rates = self.peers.values().filter_map(|p| p.path.plain_rate());
        let conditions = Conditions {
            rate: rates.sum::<f64>() as u64,
            piece: self.image.geometry().nominal_piece_length().into(),
            traders: shares.others.len(),
        };
        let picker = &self.picker;
        let pieces: Vec<Vec<PieceIndex>> = self
            .guides
            .guides
            .values_mut()
            .map(|guide| {
                guide.window(
                    conditions,
                    |piece| picker.is_untouched(piece),
                    |piece| picker.is_missing(piece),
                )
            })
            .collect();
        let mut pieces = merged(pieces);
        if self.guides.held {
            pieces.clear();
        }
        let trade = !shares.others.is_empty();
        let backups = self.guides.leaving.backups();
        shares.tell_apart(backups + 1);
        let rank = |piece: &PieceIndex| shares.known_rank(*piece);
        let window = Window {
            ranks: trade.then(|| pieces.iter().map(rank).collect()),
            pieces,
            backups,
            common: self.common(),
        };
        self.guides.shares = Some(shares);
        self.guides.found = !window.pieces.is_empty();
        self.picker.set_window(window);
        self.guides.made = Some(now);
        self.guides.stale = false;
    }
}

/// Who brings which piece into the swarm.
///
/// It is decided without a word: it is the peer with the greatest weight, and all peers that know each other come to the
/// same result (rendezvous hashing: D. G. Thaler, C. V. Ravishankar: *Using Name-Based Mappings to Increase Hit Rates*,
/// IEEE/ACM Transactions on Networking 6(1), 1998).
#[derive(Debug)]
struct Shares {
    own: u64,
    others: Vec<u64>,
    /// Ranks from this one on are all the same.
    most: u16,
    /// What was found out.
    known: HashMap<PieceIndex, u16>,
}

impl Shares {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;

    fn new<'a>(own: &[u8; 20], others: impl Iterator<Item = (PeerKey, &'a [u8; 20])>) -> Self {
        Self {
            own: Self::fold(Self::BASIS, own),
            others: others.map(|(_, id)| Self::fold(Self::BASIS, id)).collect(),
            most: 1,
            known: HashMap::default(),
        }
    }

    /// Ranks below `most` are to be told apart.
    fn tell_apart(&mut self, most: u16) {
        if std::mem::replace(&mut self.most, most) != most {
            self.known.clear();
        }
    }

    /// How many come before us to bring a piece, as far as it is told apart. It is ours if it is none.
    fn rank(&self, piece: PieceIndex) -> u16 {
        let own = Self::weight(self.own, piece);
        let before = self
            .others
            .iter()
            .filter(|id| Self::weight(**id, piece) > own);
        before.take(self.most.into()).count() as u16
    }

    /// The same, found out once for each piece.
    fn known_rank(&mut self, piece: PieceIndex) -> u16 {
        if let Some(known) = self.known.get(&piece) {
            return *known;
        }
        let rank = self.rank(piece);
        self.known.insert(piece, rank);
        rank
    }

    fn weight(id: u64, piece: PieceIndex) -> u64 {
        let hash = Self::fold(id, &piece.0.to_be_bytes());
        // A mixing step that makes all bits depend on all.
        (hash ^ (hash >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// FNV-1a.
    fn fold(hash: u64, bytes: &[u8]) -> u64 {
        bytes.iter().fold(hash, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(Self::PRIME)
        })
    }
}

/// Guests take turns; a piece that several want stands there more than once, which does no harm.
fn merged(mut windows: Vec<Vec<PieceIndex>>) -> Vec<PieceIndex> {
    if windows.len() <= 1 {
        return windows.pop().unwrap_or_default();
    }
    let longest = windows.iter().map(Vec::len).max().unwrap_or(0);
    let turns = (0..longest).flat_map(|turn| windows.iter().filter_map(move |w| w.get(turn)));
    turns.copied().collect()
}
