//! Profiles from peer to peer: a launch that has none asks for one, and whoever has one gives it (docs/protocol.md).
//!
//! Invariant: one peer at a time is asked, for at most [`PIPELINE`] parts, for no more than one beyond what its line holds,
//! and for one while a read waits; what is kept of its answers is at most the length that it named,
//! [`Profile::MAX_ATTACHED`] at the most. Nothing that comes is believed here: the driver looks at it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::{DisconnectReason, Engine, Output};
use crate::clock::Time;
use crate::picker::{Band, PeerKey};
use crate::profile::Profile;
use crate::swarm::metadata::{
    METADATA_PIECE, MetadataMessage, MetadataServe, piece_count, piece_length,
};
use crate::swarm::path::PathEstimator;
use crate::swarm::wire::{ExtendedHello, VMT_PROFILE, WireMessage};

/// How good the profile is that we give to others; a worse one never takes the place of a better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProfileRank {
    /// What the guest of this launch read so far.
    OwnRun,
    /// What guests are run with.
    InUse,
}

/// What is asked for and given of profiles in one swarm.
#[derive(Debug)]
pub(super) struct Profiles {
    /// Whether any of this is done at all.
    enabled: bool,
    pub(super) serve: MetadataServe,
    served_rank: ProfileRank,
    served_since: Time,
    /// What is to be served once the present edition is old enough.
    next: Option<Bytes>,
    /// Somebody here would like one.
    wanted: bool,
    /// What peers said that they have, as far as they take the extension.
    offers: BTreeMap<PeerKey, Offer>,
    stage: Stage,
}

#[derive(Debug)]
struct Offer {
    /// Its number for the extension.
    extension: u8,
    /// Bytes of the text that it has.
    size: u32,
    /// When it was told last what we have, beside the first time.
    told: Option<Time>,
    /// Parts that it was asked for and has not answered, also of a try that was given up.
    asked: BTreeSet<u32>,
    tries: u32,
    /// It is left alone until then.
    rests_until: Time,
    /// What it gave was no profile of the image.
    barred: bool,
}

#[derive(Debug)]
enum Stage {
    Idle,
    Fetching(Fetch),
    /// The driver looks at what this peer gave.
    Checking(PeerKey),
}

/// A text that is coming in.
#[derive(Debug)]
struct Fetch {
    from: PeerKey,
    size: u32,
    begun: Time,
    /// Since when an answer is waited for.
    waiting_since: Time,
    /// Made when the first part comes, so that a claim alone costs nothing.
    data: Vec<u8>,
    here: BTreeSet<u32>,
}

/// Parts that wait for an answer.
const PIPELINE: usize = 4;
/// How long a peer may take for a part, and for all of them.
const PATIENCE: Duration = Duration::from_secs(10);
const WHOLE_PATIENCE: Duration = Duration::from_secs(120);
/// How long a peer that did not give it is left alone, and how often one is asked in all.
const REST: Duration = Duration::from_secs(60);
const MAX_TRIES: u32 = 3;
/// The least time between two hellos for the sake of a new edition.
const HELLO_PAUSE: Duration = Duration::from_secs(60);

impl Profiles {
    pub(super) fn new(now: Time, enabled: bool) -> Self {
        Self {
            enabled,
            serve: MetadataServe::new(Bytes::new()),
            served_rank: ProfileRank::OwnRun,
            served_since: now,
            next: None,
            wanted: false,
            offers: BTreeMap::new(),
            stage: Stage::Idle,
        }
    }

    /// What our hello says of it.
    pub(super) fn announce(&self, hello: &mut ExtendedHello) {
        if self.enabled {
            hello.vmt_profile = Some(VMT_PROFILE);
            hello.vmt_profile_size = Some(self.serve.size()).filter(|size| *size != 0);
        }
    }

    /// Whether a peer said that it takes the extension, so that it is of our kind.
    pub(super) fn takes_profiles(&self, key: PeerKey) -> bool {
        self.offers.get(&key).is_some_and(|o| o.extension != 0)
    }

    /// The peer that is asked for parts.
    fn source(&self) -> Option<PeerKey> {
        match &self.stage {
            Stage::Fetching(fetch) => Some(fetch.from),
            Stage::Idle | Stage::Checking(_) => None,
        }
    }

    /// What is asked for is given up; its peer rests.
    fn give_up(&mut self, now: Time, why: &str) {
        if let Some(source) = self.source() {
            tracing::debug!(peer = source.0, why, "a peer does not give its profile");
            self.stage = Stage::Idle;
            if let Some(offer) = self.offers.get_mut(&source) {
                offer.rests_until = now + REST;
            }
        }
    }

    /// Begins with the peer that offers most, if one is wanted and none is under way.
    fn begin(&mut self, now: Time) {
        if !self.wanted || !matches!(self.stage, Stage::Idle) {
            return;
        }
        let eligible = |o: &Offer| {
            let may = !o.barred && o.tries < MAX_TRIES && o.rests_until <= now;
            may && o.extension != 0 && o.size != 0
        };
        let offers = self.offers.iter_mut().filter(|(_, o)| eligible(o));
        let Some((key, offer)) = offers.max_by_key(|(key, o)| (o.size, std::cmp::Reverse(**key)))
        else {
            return;
        };
        offer.tries += 1;
        self.stage = Stage::Fetching(Fetch {
            from: *key,
            size: offer.size,
            begun: now,
            waiting_since: now,
            data: Vec::new(),
            here: BTreeSet::new(),
        });
    }

    /// Whether the peer that is asked takes too long.
    fn is_late(&self, now: Time) -> bool {
        let Stage::Fetching(fetch) = &self.stage else {
            return false;
        };
        let waits = self
            .offers
            .get(&fetch.from)
            .is_some_and(|o| !o.asked.is_empty());
        (waits && now.since(fetch.waiting_since) > PATIENCE)
            || now.since(fetch.begun) > WHOLE_PATIENCE
    }

    /// The next part to ask for, noted as asked, with at most `most` that wait for an answer.
    fn next_request(&mut self, now: Time, most: usize) -> Option<(PeerKey, WireMessage, u32)> {
        let Stage::Fetching(fetch) = &mut self.stage else {
            return None;
        };
        let offer = self.offers.get_mut(&fetch.from)?;
        if offer.asked.len() >= most {
            return None;
        }
        let piece = (0..piece_count(fetch.size))
            .find(|piece| !fetch.here.contains(piece) && !offer.asked.contains(piece))?;
        if offer.asked.is_empty() {
            fetch.waiting_since = now;
        }
        offer.asked.insert(piece);
        let request = WireMessage::Metadata {
            extension: offer.extension,
            message: MetadataMessage::Request { piece },
        };
        Some((fetch.from, request, piece_length(fetch.size, piece)))
    }

    /// A part of the right length came, of whoever is asked. Gives all when it was the last.
    fn take(&mut self, now: Time, piece: u32, data: &[u8]) -> Option<(PeerKey, Bytes)> {
        let Stage::Fetching(fetch) = &mut self.stage else {
            return None;
        };
        if !fetch.here.insert(piece) {
            return None;
        }
        if fetch.data.is_empty() {
            fetch.data = vec![0; fetch.size as usize];
        }
        let begin = piece as usize * METADATA_PIECE as usize;
        let place = fetch.data.get_mut(begin..begin + data.len())?;
        place.copy_from_slice(data);
        fetch.waiting_since = now;
        if fetch.here.len() < piece_count(fetch.size) as usize {
            return None;
        }
        let whole = (fetch.from, std::mem::take(&mut fetch.data).into());
        self.stage = Stage::Checking(whole.0);
        Some(whole)
    }

    /// Bytes that are kept of what peers gave.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        match &self.stage {
            Stage::Fetching(fetch) => fetch.data.capacity(),
            Stage::Idle | Stage::Checking(_) => 0,
        }
    }

    /// The length of the text that is coming in.
    #[cfg(test)]
    pub(super) fn fetching(&self) -> Option<u32> {
        match &self.stage {
            Stage::Fetching(fetch) => Some(fetch.size),
            Stage::Idle | Stage::Checking(_) => None,
        }
    }

    /// Parts that any peer owes an answer for.
    #[cfg(test)]
    pub(super) fn owed(&self) -> usize {
        self.offers.values().map(|o| o.asked.len()).sum()
    }
}

impl Engine {
    /// Somebody here has no profile: peers are asked for theirs. What one gives comes out as [`Output::Profile`].
    pub(crate) fn want_profile(&mut self, now: Time) {
        if self.profiles.enabled {
            self.profiles.wanted = true;
            self.pump_profile(now);
        }
    }

    /// A text that peers may have from now on; empty or longer than [`Profile::MAX_ATTACHED`] it is left out, and so is a
    /// run that is shorter than the one that is served.
    ///
    /// A run grows all the time: peers are told of it when it has grown by half, or a minute later.
    pub(crate) fn offer_profile(&mut self, now: Time, text: Bytes, rank: ProfileRank) {
        let profiles = &mut self.profiles;
        let fits = !text.is_empty() && text.len() <= Profile::MAX_ATTACHED;
        if !profiles.enabled || !fits || rank < profiles.served_rank {
            return;
        }
        let grown = text.len() > profiles.serve.size() as usize;
        if rank > profiles.served_rank {
            profiles.served_rank = rank;
            profiles.next = None;
            self.serve_edition(now, text);
        } else if rank == ProfileRank::InUse || grown {
            profiles.next = Some(text);
            self.renew_edition(now);
        }
    }

    /// Takes up the text that waits to be served, if the time has come.
    fn renew_edition(&mut self, now: Time) {
        let Some(text) = &self.profiles.next else {
            return;
        };
        let served = self.profiles.serve.size() as usize;
        let much = text.len() > served + served / 2;
        if (much || now.since(self.profiles.served_since) > HELLO_PAUSE)
            && let Some(text) = self.profiles.next.take()
        {
            self.serve_edition(now, text);
        }
    }

    fn serve_edition(&mut self, now: Time, text: Bytes) {
        self.profiles.serve.replace(text);
        self.profiles.served_since = now;
        self.tell_of_profile(now);
    }

    /// Says hello again to peers that take the extension and were not told of the newest edition, but not often.
    fn tell_of_profile(&mut self, now: Time) {
        let Profiles { offers, serve, .. } = &mut self.profiles;
        let mut due = Vec::new();
        for (key, offer) in offers {
            let rested = offer.told.is_none_or(|at| now.since(at) > HELLO_PAUSE);
            if rested && serve.is_behind(*key) {
                offer.told = Some(now);
                serve.tell(now, *key);
                due.push(*key);
            }
        }
        for key in due {
            let hello = WireMessage::ExtendedHello(self.hello());
            self.send(now, key, hello);
        }
    }

    /// A peer says hello, perhaps again.
    pub(super) fn on_profile_hello(&mut self, now: Time, key: PeerKey, hello: &ExtendedHello) {
        let profiles = &mut self.profiles;
        if !profiles.enabled {
            return;
        }
        profiles.serve.hello(now, key, hello.vmt_profile);
        let known = profiles.offers.get_mut(&key);
        // One that was said before holds until another is said (BEP 10).
        let extension = hello.vmt_profile.or(known.as_ref().map(|o| o.extension));
        let Some(extension) = extension else {
            return;
        };
        let fits = |size: &u32| *size as usize <= Profile::MAX_ATTACHED;
        let size = hello.vmt_profile_size.filter(fits).unwrap_or(0);
        match known {
            Some(offer) => (offer.extension, offer.size) = (extension, size),
            None => {
                let offer = Offer {
                    extension,
                    size,
                    told: None,
                    asked: BTreeSet::new(),
                    tries: 0,
                    rests_until: now,
                    barred: false,
                };
                profiles.offers.insert(key, offer);
            }
        }
        if profiles.source() == Some(key) {
            // What it sends from here on is of another edition: it is asked anew.
            profiles.stage = Stage::Idle;
        }
        // What we have may have changed since it was told when it connected.
        self.tell_of_profile(now);
        self.pump_profile(now);
    }

    /// A message of vmt_profile.
    pub(super) fn on_profile_message(
        &mut self,
        now: Time,
        key: PeerKey,
        message: &MetadataMessage,
    ) {
        let (piece, answer) = match message {
            MetadataMessage::Request { piece } => {
                if self.profiles.enabled {
                    self.profiles.serve.request(key, *piece);
                    self.pump_metadata(now);
                }
                return;
            }
            MetadataMessage::Data {
                piece,
                total_size,
                data,
            } => (*piece, Some((*total_size, data))),
            MetadataMessage::Reject { piece } => (*piece, None),
        };
        let offer = self.profiles.offers.get_mut(&key);
        if !offer.is_some_and(|o| o.asked.remove(&piece)) {
            let reason = "an answer of vmt_profile that nobody asked for".to_owned();
            self.disconnect(now, key, DisconnectReason::Protocol(reason));
            return;
        }
        let profiles = &mut self.profiles;
        let size = match &profiles.stage {
            Stage::Fetching(fetch) if fetch.from == key => fetch.size,
            // It is late, and not needed any more.
            _ => return,
        };
        let expected = piece_length(size, piece) as usize;
        match answer {
            // Asked for before it said hello again: there is no such part any more.
            None if expected == 0 => {}
            None => profiles.give_up(now, "it refuses"),
            Some((total_size, _)) if total_size != size => {
                profiles.give_up(now, "it changed its size");
            }
            Some((_, data)) if data.len() != expected => {
                profiles.give_up(now, "a part has a wrong length");
            }
            Some((_, data)) => {
                if let Some((from, text)) = profiles.take(now, piece, data) {
                    self.outputs.push(Output::Profile(from, text));
                }
            }
        }
        self.pump_profile(now);
    }

    /// What [`Output::Profile`] gave was looked at: whether it is a profile of the image.
    pub(crate) fn profile_checked(&mut self, now: Time, key: PeerKey, good: bool) {
        let profiles = &mut self.profiles;
        if !matches!(profiles.stage, Stage::Checking(checked) if checked == key) {
            return;
        }
        profiles.stage = Stage::Idle;
        profiles.wanted &= !good;
        if let Some(offer) = profiles.offers.get_mut(&key) {
            offer.barred |= !good;
            offer.tries = 0;
        }
        self.pump_profile(now);
    }

    /// A connection has ended.
    pub(super) fn remove_from_profiles(&mut self, now: Time, key: PeerKey) {
        self.profiles.serve.remove(key);
        self.profiles.offers.remove(&key);
        if self.profiles.source() == Some(key) {
            self.profiles.give_up(now, "the connection has ended");
            self.pump_profile(now);
        }
    }

    /// Asks for what can be asked for now.
    pub(super) fn pump_profile(&mut self, now: Time) {
        if !self.profiles.wanted {
            return;
        }
        self.profiles.begin(now);
        let Some(source) = self.profiles.source() else {
            return;
        };
        let most = self.parts_at_once(source);
        while self.may_download(now) {
            let Some((key, request, bytes)) = self.profiles.next_request(now, most) else {
                return;
            };
            self.download.lock().charge(bytes);
            self.send(now, key, request);
        }
    }

    /// Parts that a peer may be asked for at a time: what a read waits for next finds one of them at most before it, beside
    /// what fills the line anyway.
    fn parts_at_once(&self, peer: PeerKey) -> usize {
        if self.picker.has_free(Band::Demand) || self.picker.is_under_way(Band::Demand) {
            return 1;
        }
        let room = |path: &PathEstimator| path.pipe().saturating_sub(path.in_flight());
        let room = self.peers.get(&peer).map_or(0, |peer| room(&peer.path));
        (1 + room / u64::from(METADATA_PIECE)).min(PIPELINE as u64) as usize
    }

    /// A second has passed.
    pub(super) fn tend_profiles(&mut self, now: Time) {
        if self.profiles.is_late(now) {
            self.profiles.give_up(now, "it takes too long");
        }
        self.renew_edition(now);
        self.tell_of_profile(now);
        self.pump_profile(now);
    }
}
