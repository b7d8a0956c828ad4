//! Peers tell each other of peers (ut_pex, BEP 11; docs/protocol.md).
//!
//! Invariant: of a private image nothing is told or heard (BEP 27). A peer is told of an address only if another of our
//! peers listens there, as far as we know, and it means the same host to both ([`Scope`]). What a peer tells is bounded in
//! number and in time, and it is believed only so far that the address is tried.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::{DisconnectReason, Engine, Output, Remote};
use crate::Bitfield;
use crate::clock::Time;
use crate::picker::PeerKey;
use crate::swarm::peer_exchange::{Neighbour, PeerExchange};
use crate::swarm::scope::Scope;
use crate::swarm::wire::{ExtendedHello, UT_PEX, WireMessage};

/// The least time between two messages to a peer (BEP 11).
const PAUSE: Duration = Duration::from_secs(60);
/// For so long after the handshake messages come as often as the receiver takes them: a crowd that starts together finds
/// each other by it.
const BEGINNING: Duration = Duration::from_secs(60);
/// What we say that we take then, seconds.
const OWN_INTERVAL: u16 = 2;
/// Most addresses that a peer is taken to know of us. More are told when some of these are gone.
const MAX_TOLD: usize = 512;
/// Messages of a peer in a minute that are borne; half of them is what one of our kind sends in its first.
const MAX_MESSAGES: u32 = 64;
/// Addresses that are taken of a peer at once, and for each minute from then on.
const BURST: f64 = PeerExchange::MOST_KEPT as f64;
const EACH_MINUTE: f64 = PeerExchange::MOST as f64;

/// What is told of peers to peers.
#[derive(Debug)]
pub(super) struct Exchange {
    enabled: bool,
    peers: BTreeMap<PeerKey, Exchanging>,
}

/// One peer.
#[derive(Debug)]
struct Exchanging {
    /// Where it listens, and whether we have reached it there.
    listens: Option<(SocketAddr, bool)>,
    /// It is connected over uTP, whoever opened the connection.
    utp: bool,
    /// The number under which it takes messages; 0: it takes none.
    extension: u8,
    /// The time between messages that it takes in the beginning.
    interval: Duration,
    since: Time,
    due: Time,
    /// What it was told that we are connected to.
    told: BTreeSet<SocketAddr>,
    /// Addresses that are still taken of it, as of `heard_at`.
    credit: f64,
    heard_at: Time,
    /// Messages that came since `counted_since`.
    messages: u32,
    counted_since: Time,
}

impl Exchange {
    pub(super) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            peers: BTreeMap::new(),
        }
    }

    /// What our hello says of it.
    pub(super) fn announce(&self, hello: &mut ExtendedHello) {
        if self.enabled {
            hello.ut_pex = Some(UT_PEX);
            hello.vmt_pex_interval = Some(OWN_INTERVAL);
        }
    }

    /// A connection is open. `reached`: we have opened it, to this address; `utp`: over uTP.
    pub(super) fn add(&mut self, now: Time, key: PeerKey, reached: Option<SocketAddr>, utp: bool) {
        if !self.enabled {
            return;
        }
        let peer = Exchanging {
            listens: reached.map(|address| (address, true)),
            utp,
            extension: 0,
            interval: PAUSE,
            since: now,
            due: now,
            told: BTreeSet::new(),
            credit: BURST,
            heard_at: now,
            messages: 0,
            counted_since: now,
        };
        self.peers.insert(key, peer);
    }

    pub(super) fn remove(&mut self, key: PeerKey) {
        self.peers.remove(&key);
    }

    /// A peer, connected over `remote`, says where it listens, and whether it takes messages.
    fn hello(&mut self, key: PeerKey, remote: SocketAddr, hello: &ExtendedHello) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if let Some(extension) = hello.ut_pex {
            peer.extension = extension;
        }
        if let Some(seconds) = hello.vmt_pex_interval {
            peer.interval = Duration::from_secs(seconds.max(1).into()).min(PAUSE);
        }
        if peer.listens.is_none()
            && let Some(port) = hello.listen_port
        {
            peer.listens = Some((SocketAddr::new(remote.ip(), port), false));
        }
    }
}

impl Exchanging {
    /// What it is to be told of those that we are connected to; `None`: nothing.
    fn news(&mut self, now: Time, remote: SocketAddr, all: &[Neighbour]) -> Option<PeerExchange> {
        let scope = Scope::of(remote)?;
        let own = self.listens.map(|(address, _)| address);
        let connected: BTreeMap<SocketAddr, u8> = all
            .iter()
            .filter(|n| Some(n.address) != own && scope.shares(n.address))
            .map(|n| (n.address, n.flags))
            .collect();
        let gone = self.told.iter().filter(|a| !connected.contains_key(a));
        let dropped: Vec<_> = gone.take(PeerExchange::MOST).copied().collect();
        for address in &dropped {
            self.told.remove(address);
        }
        let room = MAX_TOLD
            .saturating_sub(self.told.len())
            .min(PeerExchange::MOST);
        let new = connected.iter().filter(|(a, _)| !self.told.contains(*a));
        let added: Vec<_> = new
            .take(room)
            .map(|(&address, &flags)| Neighbour { address, flags })
            .collect();
        self.told.extend(added.iter().map(|n| n.address));
        if added.is_empty() && dropped.is_empty() {
            return None;
        }
        let begins = now.since(self.since) < BEGINNING;
        self.due = now + if begins { self.interval } else { PAUSE };
        Some(PeerExchange { added, dropped })
    }

    /// Whether it sends more messages than anybody needs.
    fn floods(&mut self, now: Time) -> bool {
        if now.since(self.counted_since) >= PAUSE {
            self.counted_since = now;
            self.messages = 0;
        }
        self.messages += 1;
        self.messages > MAX_MESSAGES
    }

    /// How many addresses are taken of it now, at most.
    fn credit(&mut self, now: Time) -> usize {
        let minutes = now.since(self.heard_at).as_secs_f64() / 60.0;
        self.heard_at = now;
        self.credit = (self.credit + minutes * EACH_MINUTE).min(BURST);
        self.credit as usize
    }
}

impl Engine {
    pub(super) fn on_exchange_hello(&mut self, now: Time, key: PeerKey, hello: &ExtendedHello) {
        let Some(Remote::Peer(remote)) = self.peers.get(&key).map(|p| p.remote) else {
            return;
        };
        self.exchange.hello(key, remote, hello);
        self.exchange_peers(now, Some(key));
    }

    /// Tells peers, or this one, of those that have come and gone, if it is time to.
    pub(super) fn exchange_peers(&mut self, now: Time, only: Option<PeerKey>) {
        let takes = |e: &Exchanging| e.extension != 0 && e.due <= now;
        let due = self.exchange.peers.iter().filter(|(_, e)| takes(e));
        let due: Vec<PeerKey> = due
            .map(|(key, _)| *key)
            .filter(|key| only.is_none_or(|only| only == *key))
            .collect();
        if due.is_empty() {
            return;
        }
        let all = self.neighbours();
        for key in due {
            let (Some(Remote::Peer(remote)), Some(peer)) = (
                self.peers.get(&key).map(|p| p.remote),
                self.exchange.peers.get_mut(&key),
            ) else {
                continue;
            };
            let extension = peer.extension;
            if let Some(message) = peer.news(now, remote, &all) {
                self.send(now, key, WireMessage::PeerExchange { extension, message });
            }
        }
    }

    /// Whom we are connected to, as far as it is known where they listen.
    fn neighbours(&self) -> Vec<Neighbour> {
        let known = self.exchange.peers.iter();
        known
            .filter_map(|(key, exchanging)| {
                let (address, reached) = exchanging.listens?;
                let whole = self.picker.field(*key).is_some_and(Bitfield::is_full);
                let seed = if whole { Neighbour::SEED } else { 0 };
                let reachable = if reached { Neighbour::REACHABLE } else { 0 };
                let utp = if exchanging.utp { Neighbour::UTP } else { 0 };
                Some(Neighbour {
                    address,
                    flags: seed | reachable | utp,
                })
            })
            .collect()
    }

    /// A peer tells of others. What it says that it left needs no answer: who is connected to us stays.
    pub(super) fn on_peer_exchange(&mut self, now: Time, key: PeerKey, message: &PeerExchange) {
        let remote = self.peers.get(&key).map(|p| p.remote);
        let (Some(Remote::Peer(teller)), Some(peer)) = (remote, self.exchange.peers.get_mut(&key))
        else {
            // It was not told that we take them.
            return;
        };
        if peer.floods(now) {
            let reason = "too many messages of ut_pex".to_owned();
            self.disconnect(now, key, DisconnectReason::Protocol(reason));
            return;
        }
        let Some(scope) = Scope::of(teller) else {
            return;
        };
        let credit = peer.credit(now);
        // Of two that have everything neither needs the other.
        let useless = if self.picker.missing() == 0 {
            Neighbour::SEED
        } else {
            0
        };
        let added = message.added.iter();
        let found: Vec<SocketAddr> = added
            .take(credit)
            .filter(|n| n.flags & useless == 0 && scope.shares(n.address))
            .map(|n| SocketAddr::new(n.address.ip().to_canonical(), n.address.port()))
            .collect();
        if let Some(peer) = self.exchange.peers.get_mut(&key) {
            // Also for what is passed over.
            peer.credit -= message.added.len().min(credit) as f64;
        }
        if !found.is_empty() {
            self.outputs.push(Output::Told(teller.ip(), found));
        }
    }
}

#[cfg(test)]
impl Exchange {
    /// The most that is remembered of one peer.
    pub(super) fn most_told(&self) -> usize {
        self.peers.values().map(|p| p.told.len()).max().unwrap_or(0)
    }
}
