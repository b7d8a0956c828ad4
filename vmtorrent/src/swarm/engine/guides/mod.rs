//! What profiles have fetched. Invariant: the picker's window is what the guides of all guests foretell now, a moment
//! ago at most, and nothing when there is no guide.

mod followed;
mod leaving;
mod shares;

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) use self::followed::Followed;
use self::leaving::Leaving;
use self::shares::Shares;
use super::Engine;
use crate::Bitfield;
use crate::clock::Time;
use crate::image::PieceIndex;
use crate::picker::{PeerKey, Window};
use crate::profile::Conditions;

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
    guides: BTreeMap<GuideKey, Followed>,
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
    /// Peers that lack something, but hardly anything that is foretold and that we lack; in order. When that was looked at.
    sources: Vec<PeerKey>,
    looked: Time,
}

/// Most peers that the pieces of a window are shared out among.
const MAX_TRADERS: usize = 63;

/// Who lacks less than such a part of what is foretold and we lack is a source of it, as a seed is.
const LACKED: u32 = 16;
/// How often it is looked who that is.
const LOOK: Duration = Duration::from_secs(1);
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
    pub(crate) fn add_guide(&mut self, now: Time, guide: impl Into<Followed>) -> GuideKey {
        let key = GuideKey(self.guides.next_key);
        self.guides.next_key += 1;
        self.guides.guides.insert(key, guide.into());
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
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn guest_reads(
        &mut self,
        now: Time,
        key: GuideKey,
        guest_time: u64,
        file: u32,
        blocks: &[u32],
    ) -> Foretold {
        let Some(guide) = self.guides.guides.get(&key) else {
            return Foretold::default();
        };
        let foretold = guide.reads(guest_time, file, blocks);
        self.guest_went_on(now);
        foretold
    }

    /// A guest has read something that its guide knows of already.
    pub(crate) fn guest_went_on(&mut self, now: Time) {
        self.guides.stale = true;
        // Otherwise the next block that comes leads there.
        if self.peers.values().all(|p| p.outstanding.is_empty()) {
            self.schedule(now);
        }
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

    /// The peers that lack pieces as we do, with their ids.
    fn traders(&self) -> impl Iterator<Item = (PeerKey, &[u8; 20])> {
        let sources = &self.guides.sources;
        self.peers
            .iter()
            .filter(|(key, p)| p.said_field && !self.picker.is_whole(**key))
            .filter(|(key, _)| sources.binary_search(key).is_err())
            .map(|(key, p)| (*key, &p.id))
            .take(MAX_TRADERS)
    }

    /// Finds out who has what we lack as a seed has it, a guest that is done for instance: it brings nothing into the swarm
    /// any more, so nothing may be left to it to bring.
    fn find_sources(&mut self, now: Time) {
        let mut lacked = Bitfield::new(self.image.geometry().piece_count());
        for guide in self.guides.guides.values() {
            for piece in guide.guide().pieces().without(&self.have) {
                lacked.set(piece, true);
            }
        }
        let most = (lacked.count_ones() / LACKED) as usize;
        let has_it = |field: &Bitfield| lacked.without(field).nth(most).is_none();
        let keys = self.peers.keys().copied();
        self.guides.sources = keys
            .filter(|key| !self.picker.is_whole(*key))
            .filter(|key| self.picker.field(*key).is_some_and(has_it))
            .collect();
        self.guides.looked = now;
    }

    /// Among whom what is foretold is shared out.
    fn shares(&mut self, now: Time) -> Shares {
        let known = match self.guides.shares.take() {
            Some(shares) if now.since(self.guides.looked) < LOOK => return shares,
            known => known,
        };
        self.find_sources(now);
        let new = Shares::new(&self.peer_id, self.traders());
        known.filter(|known| known.are_among(&new)).unwrap_or(new)
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
        let mut shares = self.shares(now);
        let seeds = self.peers.keys().filter(|k| self.picker.is_whole(**k));
        let sources = seeds.count() + self.guides.sources.len();
        let rates = self.peers.values().filter_map(|p| p.path.plain_rate());
        let conditions = Conditions {
            rate: rates.sum::<f64>() as u64,
            piece: self.image.geometry().nominal_piece_length().into(),
            traders: shares.others().div_ceil(sources.max(1)),
        };
        let picker = &self.picker;
        let pieces: Vec<Vec<PieceIndex>> = self
            .guides
            .guides
            .values()
            .map(|guide| {
                guide.guide().window(
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
        let trade = shares.others() > 0;
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

/// Guests take turns; a piece that several want stands there more than once, which does no harm.
fn merged(mut windows: Vec<Vec<PieceIndex>>) -> Vec<PieceIndex> {
    if windows.len() <= 1 {
        return windows.pop().unwrap_or_default();
    }
    let longest = windows.iter().map(Vec::len).max().unwrap_or(0);
    let turns = (0..longest).flat_map(|turn| windows.iter().filter_map(move |w| w.get(turn)));
    turns.copied().collect()
}
