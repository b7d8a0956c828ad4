//! Invariant: whatever peers claim and send, at most [`BUDGET`] bytes are kept of it, and of one info dictionary, the
//! one that lacks the least, what goes beyond that; a peer is asked for at most [`PIPELINE`] pieces at a time.
//!
//! Peers that claim the same length are asked together. If what they gave has the wrong hash, one of them
//! lied: if only one gave, it is known, and if several did, all of that length are asked alone from then on,
//! each for a whole copy of its own, which tells the liars from the others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::assembly::Assembly;
use super::{METADATA_PIECE, MetadataMessage, piece_length};
use crate::clock::Time;
use crate::image::MAX_TORRENT_BYTES;
use crate::picker::PeerKey;
use crate::swarm::engine::Abilities;
use crate::swarm::wire::{ExtendedHello, UT_METADATA, WireMessage};

/// Something for the driver to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FetchOutput {
    Send(PeerKey, WireMessage),
    /// Close the connection; [`MetadataFetch::disconnected`] is not needed any more.
    Disconnect(PeerKey, FetchEnd),
    /// Compute the hash and call [`MetadataFetch::checked`].
    Check(Group, Bytes),
}

/// Why a connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FetchEnd {
    /// It has no info dictionary, or does not hand it out.
    Without,
    /// It broke the protocol.
    Protocol(String),
    /// What it gave has the wrong hash.
    WrongHash,
    /// It did not answer in time.
    Silent,
    /// It gives little, and others wait for its place.
    Slow,
}

/// Whose pieces belong together: those of all who claim one length, or of one peer alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    size: u32,
    alone: Option<PeerKey>,
}

/// Which peer is asked for which piece of the info dictionary, and who is believed.
#[derive(Debug)]
pub(super) struct MetadataFetch {
    listen_port: u16,
    /// Keys are never used again.
    peers: BTreeMap<PeerKey, FetchPeer>,
    next_key: usize,
    assemblies: BTreeMap<Group, Assembly>,
    /// Lengths for which several peers together gave something wrong.
    distrusted: BTreeSet<u32>,
    /// The one that goes on when the budget is spent.
    favourite: Option<Group>,
    outputs: Vec<FetchOutput>,
}

#[derive(Debug)]
struct FetchPeer {
    since: Time,
    /// What it said of itself: its number for the extension, and the length of what it has.
    offer: Option<Offer>,
    outstanding: BTreeMap<u32, Time>,
    /// Refusals in a row.
    rejects: u32,
    paused_until: Time,
    /// Messages that have nothing to do with what we want.
    chatter: u32,
    received: u64,
    /// When it last answered a request.
    answered_at: Time,
}

#[derive(Clone, Copy, Debug)]
struct Offer {
    extension: u8,
    size: u32,
}

/// Bytes that are kept of all that peers send.
pub(super) const BUDGET: u64 = MAX_TORRENT_BYTES as u64;
/// Requests that wait for an answer at one peer.
pub(super) const PIPELINE: usize = 8;
/// How long a peer may take to say what it has, and to answer one of the requests that wait.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The age of a request after which an idle peer is asked too; twice as long for each further one.
const SECOND_REQUEST: Duration = Duration::from_millis(500);
/// How long a peer that refused is left alone; and after how many refusals in a row it has to go.
const REJECT_PAUSE: Duration = Duration::from_secs(2);
const MAX_REJECTS: u32 = 3;
/// How many messages of no use a peer may send. HAVEs are none of them: a seed without the fast extension may tell
/// each of its pieces so, and how many those are is not known yet.
pub(super) const MAX_CHATTER: u32 = 4096;
/// What a peer must give on average to keep a place for which others wait, bytes per second.
const FAIR_RATE: f64 = 16.0 * 1024.0;
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Bytes kept of info dictionaries that no connected peer claims to have: one may come back.
const MAX_ORPHANED: u64 = 16 << 20;
const MAX_ORPHANS: usize = 4;

impl MetadataFetch {
    /// `listen_port`: what peers are told of us; 0 for none.
    pub(super) fn new(listen_port: u16) -> Self {
        Self {
            listen_port,
            peers: BTreeMap::new(),
            next_key: 0,
            assemblies: BTreeMap::new(),
            distrusted: BTreeSet::new(),
            favourite: None,
            outputs: Vec::new(),
        }
    }

    /// What is to be done, in order. To be asked after every other call.
    pub(super) fn take_outputs(&mut self) -> Vec<FetchOutput> {
        std::mem::take(&mut self.outputs)
    }

    /// When [`tick`](Self::tick) is wanted next; `None` while nobody is connected.
    pub(super) fn next_timeout(&self, now: Time) -> Option<Time> {
        (!self.peers.is_empty()).then(|| now + TICK)
    }

    /// Bytes kept.
    #[cfg(test)]
    pub(super) fn held(&self) -> u64 {
        self.assemblies
            .values()
            .map(|a| u64::from(a.received()))
            .sum()
    }

    /// A connection is open and the handshakes are exchanged.
    pub(super) fn connected(&mut self, now: Time, abilities: Abilities) -> PeerKey {
        let key = PeerKey(self.next_key);
        self.next_key += 1;
        let peer = FetchPeer {
            since: now,
            offer: None,
            outstanding: BTreeMap::new(),
            rejects: 0,
            paused_until: now,
            chatter: 0,
            received: 0,
            answered_at: now,
        };
        self.peers.insert(key, peer);
        if abilities.fast {
            // What we have must be said, and before everything else (BEP 6).
            let nothing = WireMessage::HaveNone;
            self.outputs.push(FetchOutput::Send(key, nothing));
        }
        if abilities.extended {
            let hello = ExtendedHello {
                client: Some(concat!("libvmtorrent ", env!("CARGO_PKG_VERSION")).to_owned()),
                listen_port: Some(self.listen_port).filter(|p| *p != 0),
                ut_metadata: Some(UT_METADATA),
                ..ExtendedHello::default()
            };
            let hello = WireMessage::ExtendedHello(hello);
            self.outputs.push(FetchOutput::Send(key, hello));
        } else {
            self.end(now, key, FetchEnd::Without);
        }
        key
    }

    /// A connection was closed by the other side or failed.
    pub(super) fn disconnected(&mut self, now: Time, key: PeerKey) {
        let Some(peer) = self.peers.remove(&key) else {
            return;
        };
        if let Some(group) = self.group(key, peer.offer) {
            if let Some(assembly) = self.assemblies.get_mut(&group) {
                for piece in peer.outstanding.keys() {
                    assembly.release(*piece);
                }
            }
            self.let_go_of_orphans();
        }
        self.ask(now);
    }

    /// A peer has sent a message.
    pub(super) fn received(&mut self, now: Time, key: PeerKey, message: WireMessage) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        match message {
            WireMessage::Metadata {
                extension: UT_METADATA,
                message:
                    MetadataMessage::Data {
                        piece,
                        total_size,
                        data,
                    },
            } => return self.on_data(now, key, piece, total_size, &data),
            WireMessage::Metadata {
                extension: UT_METADATA,
                message: MetadataMessage::Reject { piece },
            } => return self.on_reject(now, key, piece),
            WireMessage::Piece { .. } => {
                let reason = "a block that nobody asked for".to_owned();
                return self.end(now, key, FetchEnd::Protocol(reason));
            }
            WireMessage::Have(_) => return,
            _ => {}
        }
        peer.chatter += 1;
        if peer.chatter > MAX_CHATTER {
            let reason = "messages of no use without end".to_owned();
            self.end(now, key, FetchEnd::Protocol(reason));
        } else if let WireMessage::ExtendedHello(hello) = message {
            self.on_hello(now, key, &hello);
        }
    }

    /// The hash of what [`FetchOutput::Check`] gave was computed. If it was right, the work is done.
    pub(super) fn checked(&mut self, now: Time, group: Group, right: bool) {
        let Some(assembly) = self.assemblies.remove(&group) else {
            return;
        };
        if right {
            return;
        }
        let contributors = assembly.contributors();
        tracing::debug!(
            size = group.size,
            ?contributors,
            "metadata with a wrong hash"
        );
        if let (1, Some(liar)) = (contributors.len(), contributors.first()) {
            self.end(now, *liar, FetchEnd::WrongHash);
        } else {
            self.distrusted.insert(group.size);
        }
        self.ask(now);
    }

    /// Time has passed. `others_wait`: all places are taken, and there are more addresses to try.
    pub(super) fn tick(&mut self, now: Time, others_wait: bool) {
        let silent = |p: &FetchPeer| match p.outstanding.values().min() {
            Some(sent) => now.since(p.answered_at.max(*sent)) > PATIENCE,
            None => p.offer.is_none() && now.since(p.since) > PATIENCE,
        };
        let late: Vec<PeerKey> = self.keys(silent).collect();
        for key in late {
            self.end(now, key, FetchEnd::Silent);
        }
        if others_wait {
            let rate = |p: &FetchPeer| p.received as f64 / now.since(p.since).as_secs_f64();
            let slowest = self
                .peers
                .iter()
                .filter(|(_, p)| now.since(p.since) > PATIENCE)
                .map(|(key, p)| (rate(p), *key))
                .filter(|(rate, _)| *rate < FAIR_RATE)
                .min_by(|a, b| a.0.total_cmp(&b.0));
            if let Some((_, key)) = slowest {
                self.end(now, key, FetchEnd::Slow);
            }
        }
        self.ask(now);
    }

    fn keys(&self, which: impl Fn(&FetchPeer) -> bool) -> impl Iterator<Item = PeerKey> {
        let found = self.peers.iter().filter(move |(_, p)| which(p));
        found.map(|(key, _)| *key)
    }

    fn on_hello(&mut self, now: Time, key: PeerKey, hello: &ExtendedHello) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let size = hello.metadata_size.filter(|n| *n != 0);
        if size.is_some_and(|n| n as usize > MAX_TORRENT_BYTES) {
            let reason = format!("metadata of {size:?} bytes");
            return self.end(now, key, FetchEnd::Protocol(reason));
        }
        if let Some(offer) = &mut peer.offer {
            // It says hello again: the number may change, what it has may not.
            offer.extension = hello.ut_metadata.unwrap_or(offer.extension);
            if size.is_some_and(|size| size != offer.size) {
                let reason = "another metadata_size than before".to_owned();
                self.end(now, key, FetchEnd::Protocol(reason));
            } else if offer.extension == 0 {
                self.end(now, key, FetchEnd::Without);
            }
            return;
        }
        let extension = hello.ut_metadata.filter(|n| *n != 0);
        let (Some(extension), Some(size)) = (extension, size) else {
            return self.end(now, key, FetchEnd::Without);
        };
        peer.offer = Some(Offer { extension, size });
        self.ask(now);
    }

    fn on_data(&mut self, now: Time, key: PeerKey, piece: u32, total_size: u32, data: &[u8]) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let offer = peer.offer;
        let reason = match offer {
            Some(offer) if peer.outstanding.remove(&piece).is_some() => {
                if total_size != offer.size {
                    Some("another total_size than its metadata_size")
                } else if data.len() as u32 != piece_length(offer.size, piece) {
                    Some("metadata of a wrong length")
                } else {
                    None
                }
            }
            _ => Some("metadata that nobody asked for"),
        };
        let Some(group) = self.group(key, offer).filter(|_| reason.is_none()) else {
            let reason = reason.unwrap_or("metadata before its hello").to_owned();
            if let Some(assembly) = self
                .group(key, offer)
                .and_then(|g| self.assemblies.get_mut(&g))
            {
                // Its other requests are released with the connection.
                assembly.release(piece);
            }
            return self.end(now, key, FetchEnd::Protocol(reason));
        };
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.rejects = 0;
            peer.paused_until = now;
            peer.received += data.len() as u64;
            peer.answered_at = now;
        }
        let assembly = self
            .assemblies
            .entry(group)
            .or_insert_with(|| Assembly::new(group.size));
        if let Some(all) = assembly.receive(key, piece, data) {
            self.outputs.push(FetchOutput::Check(group, all));
        }
        self.ask(now);
    }

    fn on_reject(&mut self, now: Time, key: PeerKey, piece: u32) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if peer.outstanding.remove(&piece).is_none() {
            let reason = "a refusal of what nobody asked for".to_owned();
            return self.end(now, key, FetchEnd::Protocol(reason));
        }
        peer.answered_at = now;
        // Requests that went out together are refused together: that counts once.
        if now >= peer.paused_until {
            peer.rejects += 1;
            peer.paused_until = now + REJECT_PAUSE;
        }
        let (offer, rejects) = (peer.offer, peer.rejects);
        if let Some(group) = self.group(key, offer)
            && let Some(assembly) = self.assemblies.get_mut(&group)
        {
            assembly.release(piece);
        }
        if rejects >= MAX_REJECTS {
            self.end(now, key, FetchEnd::Without);
        } else {
            self.ask(now);
        }
    }

    fn group(&self, key: PeerKey, offer: Option<Offer>) -> Option<Group> {
        let size = offer?.size;
        let alone = self.distrusted.contains(&size).then_some(key);
        Some(Group { size, alone })
    }

    /// Asks everybody who has room for more.
    fn ask(&mut self, now: Time) {
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            while let Some((extension, piece)) = self.choose(now, key) {
                let message = WireMessage::Metadata {
                    extension,
                    message: MetadataMessage::Request { piece },
                };
                self.outputs.push(FetchOutput::Send(key, message));
            }
        }
    }

    /// The next piece for a peer, noted as asked of it.
    fn choose(&mut self, now: Time, key: PeerKey) -> Option<(u8, u32)> {
        let peer = self.peers.get(&key)?;
        let offer = peer.offer?;
        let pipeline = if peer.rejects > 0 { 1 } else { PIPELINE };
        if now < peer.paused_until || peer.outstanding.len() >= pipeline {
            return None;
        }
        let group = self.group(key, Some(offer))?;
        self.assemblies
            .entry(group)
            .or_insert_with(|| Assembly::new(group.size));
        if !self.has_room(group) {
            return None;
        }
        // How many others were asked for each piece, and when the last of them was.
        let mut others: BTreeMap<u32, (u32, Time)> = BTreeMap::new();
        for (other, p) in &self.peers {
            if *other != key && self.group(*other, p.offer) == Some(group) {
                for (piece, sent) in &p.outstanding {
                    let (count, last) = others.entry(*piece).or_insert((0, *sent));
                    *count += 1;
                    *last = (*last).max(*sent);
                }
            }
        }
        let late = |piece: &u32| {
            let patience = |count: u32| SECOND_REQUEST * (1 << (count - 1).min(6));
            others
                .get(piece)
                .is_some_and(|(count, last)| now.since(*last) >= patience(*count))
        };
        let peer = self.peers.get_mut(&key)?;
        let assembly = self.assemblies.get_mut(&group)?;
        let mine = |piece: u32| peer.outstanding.contains_key(&piece);
        let piece = assembly
            .free(mine)
            .or_else(|| assembly.asked(|p| mine(p) || !late(&p)))?;
        assembly.ask(piece);
        peer.outstanding.insert(piece, now);
        Some((offer.extension, piece))
    }

    /// Whether one more piece may be asked for.
    fn has_room(&mut self, group: Group) -> bool {
        let held: u64 = self
            .assemblies
            .values()
            .map(|a| u64::from(a.received()))
            .sum();
        let coming: usize = self.peers.values().map(|p| p.outstanding.len()).sum();
        let piece = u64::from(METADATA_PIECE);
        if held + (coming as u64 + 1) * piece <= BUDGET {
            return true;
        }
        let going_on = |(g, a): &(&Group, &Assembly)| !a.is_checking() && self.is_supported(**g);
        let mut candidates = self.assemblies.iter().filter(going_on);
        let least = candidates.clone().min_by_key(|(_, a)| a.missing());
        let favourite = candidates.find(|(g, _)| Some(**g) == self.favourite);
        // One that lacks a little less is no reason to change: they would all grow by turns.
        let change = |(_, a): &(&Group, &Assembly)| {
            favourite.is_none_or(|(_, f)| a.missing() <= f.missing() / 2)
        };
        if let Some((least, _)) = least.filter(change) {
            self.favourite = Some(*least);
        }
        self.favourite.is_none_or(|favourite| favourite == group)
    }

    fn is_supported(&self, group: Group) -> bool {
        let mut peers = self.peers.iter();
        peers.any(|(key, p)| self.group(*key, p.offer) == Some(group))
    }

    /// Forgets what nobody connected claims to have, but for a little.
    fn let_go_of_orphans(&mut self) {
        let orphaned = |(group, assembly): (&Group, &Assembly)| {
            let orphaned = !assembly.is_checking() && !self.is_supported(*group);
            orphaned.then_some((assembly.received(), *group))
        };
        let mut orphans: Vec<(u32, Group)> = self.assemblies.iter().filter_map(orphaned).collect();
        // The fullest ones are kept.
        orphans.sort_by(|a, b| b.cmp(a));
        let mut kept = 0;
        for (n, (received, group)) in orphans.into_iter().enumerate() {
            kept += u64::from(received);
            let is_own = group.alone.is_some();
            if is_own || received == 0 || n >= MAX_ORPHANS || kept > MAX_ORPHANED {
                self.assemblies.remove(&group);
            }
        }
    }

    fn end(&mut self, now: Time, key: PeerKey, why: FetchEnd) {
        if self.peers.contains_key(&key) {
            self.outputs.push(FetchOutput::Disconnect(key, why));
            self.disconnected(now, key);
        }
    }
}

#[cfg(test)]
#[path = "fetch_tests/mod.rs"]
mod tests;
