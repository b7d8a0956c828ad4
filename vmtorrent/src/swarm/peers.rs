//! Who is dialled, who is let in, and what becomes of a peer that was lost. Invariant: one connection to a peer, and
//! none without a place in the session.

use std::net::SocketAddr;

use tokio::sync::mpsc;
use tracing::Instrument;

use super::connection::{self, Opened};
use super::dialler::Missed;
use super::engine::Abilities;
use super::places::Claim;
use super::wire::WireMessage;
use super::{Inner, Link, MAX_OUTGOING, SEED_REST, Swarm};
use crate::clock::Time;
use crate::picker::PeerKey;

/// From so many peers of a torrent on, only those that the user named are dialled; others may still connect to us.
const ENOUGH_PEERS: usize = 100;
const MAX_DIALLING: usize = 16;

impl Swarm {
    /// Begins to exchange messages over an open connection, unless it is one too many.
    pub(super) fn attach(&self, opened: Opened, dialled: Option<SocketAddr>) {
        let Some(swarm) = self.me.upgrade() else {
            return;
        };
        let Opened {
            stream,
            handshake,
            connect_time,
        } = opened;
        let their_id = handshake.peer_id;
        // A peer that has reset the connection has no address any more.
        let address = dialled.or_else(|| stream.peer_addr().ok());
        // A listener for both families sees IPv4 peers in IPv6 clothes; we may have dialled one without.
        let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
        let address = address.map(canonical);
        self.drive_inner(|inner, now| {
            let lost = |inner: &mut Inner| {
                if let Some(address) = dialled {
                    inner.book.lost(now, address);
                }
            };
            if their_id == self.peer_id {
                if let Some(address) = dialled {
                    inner.book.ban(now, address);
                }
                return;
            }
            let Some(address) = address else { return };
            if dialled.is_none() && inner.bans.is_banned(now, address.ip()) {
                tracing::debug!(%address, "not let in: the host sent wrong data before");
                return;
            }
            let twin = inner
                .links
                .iter()
                // From elsewhere it may be somebody who only says that id.
                .find(|(_, l)| l.peer_id == their_id && l.remote.ip() == address.ip())
                .map(|(k, _)| *k);
            if let Some(twin) = twin {
                // Both dialled at once: both sides keep the one that the greater peer id opened. A peer
                // that dials again has lost its first connection, whatever ours looks like.
                let twin_dialled = inner.links[&twin].dialled.is_some();
                let keep_new = match (twin_dialled, dialled.is_some()) {
                    (false, false) => true,
                    (true, true) => false,
                    (_, by_us) => (self.peer_id > their_id) == by_us,
                };
                if !keep_new {
                    if let Some(address) = dialled {
                        inner.book.twin(now, address, their_id);
                    }
                    return;
                }
                if let Some(old) = inner.links.remove(&twin) {
                    if let Some(task) = &old.task {
                        task.abort();
                    }
                    if let Some(address) = old.address().filter(|a| Some(*a) != dialled) {
                        inner.book.twin(now, address, their_id);
                    }
                }
                inner.engine.disconnected(now, twin);
            }
            let claim = match dialled {
                None => Claim::Inbound,
                Some(a) if inner.book.is_named(a) => Claim::Named,
                Some(_) => Claim::Found,
            };
            let Some(place) = self.places.enter(now, address.ip(), claim) else {
                if dialled.is_none() {
                    self.counters.refused.increment();
                }
                tracing::debug!(%address, "no place for another peer");
                return lost(inner);
            };
            let activity = place.activity().clone();
            if let Some(address) = dialled {
                inner.book.connected(now, address);
            }
            let (sender, receiver) = mpsc::channel(MAX_OUTGOING);
            let utp = stream.is_utp();
            let abilities = Abilities {
                extended: handshake.extended,
                fast: handshake.fast,
                dht: handshake.dht,
                utp,
                id: handshake.peer_id,
            };
            let key = inner
                .engine
                .connected(now, address, connect_time, abilities);
            tracing::debug!(peer = key.0, %address, dialled = dialled.is_some(), utp, "connected");
            let link = Link {
                outgoing: sender,
                task: None,
                dialled,
                listens: None,
                remote: address,
                utp,
                peer_id: their_id,
                place,
            };
            inner.links.insert(key, link);
            let task = self
                .runtime
                .spawn(connection::run(swarm, key, stream, receiver, activity).in_current_span());
            if let Some(link) = inner.links.get_mut(&key) {
                link.task = Some(task.abort_handle());
            }
        });
    }

    /// Dials whoever is due.
    pub(super) fn dial_due(&self) {
        let now = self.clock.now();
        loop {
            let Some(permit) = self.places.dial() else {
                return;
            };
            let address = {
                let mut inner = self.inner.lock();
                let whom = inner.may_dial(self, now);
                match whom {
                    Some(only_named) if !inner.closed => inner.book.next(now, only_named),
                    _ => None,
                }
            };
            let Some(address) = address else { return };
            self.counters.dials.increment();
            // Only a weak handle: whoever is being dialled must not keep a closed swarm's store locked.
            let (me, info_hash, our_id) = (self.me.clone(), self.image.info_hash(), self.peer_id);
            let (dialler, dht) = (self.dialler.clone(), self.tells_of_nodes());
            let dial = async move {
                let dialled = dialler.dial(address, info_hash, our_id, dht).await;
                drop(permit);
                let Some(swarm) = me.upgrade() else { return };
                match dialled {
                    Ok(opened) => swarm.attach(opened, Some(address)),
                    Err(Missed { error, in_vain }) => {
                        swarm.counters.dial_failures.increment();
                        tracing::debug!(%address, %error, "peer not reached");
                        // The pause began when TCP failed: uTP puts off no next attempt.
                        let failed = swarm.clock.now() - in_vain;
                        swarm.inner.lock().book.lost(failed, address);
                    }
                }
                swarm.news.notify_one();
            };
            self.runtime.spawn(dial.instrument(self.span.clone()));
        }
    }
}

impl Swarm {
    /// The connection gave its place to another peer: it is not dialled again soon.
    pub(super) fn gave_way(&self, key: PeerKey) {
        self.drive_inner(|inner, now| {
            let address = inner.links.get(&key).and_then(Link::address);
            if let Some(address) = address.filter(|a| !inner.book.is_named(*a)) {
                inner.forget_address(key);
                inner.book.rest(now, address, SEED_REST);
            }
        });
        self.closed(key);
    }

    /// Takes up peers that an earlier run knew.
    pub(crate) fn remember(&self, addresses: &[SocketAddr]) {
        let now = self.clock.now();
        let mut inner = self.inner.lock();
        for address in addresses {
            inner.book.remember(now, *address);
        }
        drop(inner);
        self.news.notify_one();
    }

    /// Peers that a later run should try.
    pub(crate) fn worth_remembering(&self, limit: usize) -> Vec<SocketAddr> {
        self.inner.lock().book.worth_remembering(limit)
    }
}

impl Link {
    /// Where the peer can be dialled, as far as we know.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.dialled.or(self.listens)
    }
}

impl Inner {
    /// Whether somebody may be dialled now: `None`, nobody; `Some(true)`, only whom the user named.
    pub(super) fn may_dial(&self, swarm: &Swarm, now: Time) -> Option<bool> {
        let dialling = self.book.dialling();
        if dialling >= MAX_DIALLING || !swarm.places.may_dial() {
            return None;
        }
        if self.links.len() + dialling < ENOUGH_PEERS && swarm.places.has_room(now, Claim::Found) {
            return Some(false);
        }
        swarm.places.has_room(now, Claim::Named).then_some(true)
    }

    /// Looks at what a peer says, before the engine does: where it listens.
    pub(super) fn overhear(&mut self, now: Time, key: PeerKey, message: &WireMessage) {
        let WireMessage::ExtendedHello(hello) = message else {
            return;
        };
        let (Some(port), Some(link)) = (hello.listen_port, self.links.get_mut(&key)) else {
            return;
        };
        let mut address = link.remote;
        address.set_port(port);
        if link.address().is_none() && self.book.arrived(now, address) {
            link.listens = Some(address);
        }
    }

    /// A connection has ended by itself: its peer is dialled again after a while.
    pub(super) fn left(&mut self, now: Time, link: &Link) {
        if let Some(address) = link.address() {
            self.book.lost(now, address);
        }
        self.book.gone(now, link.peer_id);
    }

    fn forget_address(&mut self, key: PeerKey) {
        if let Some(link) = self.links.get_mut(&key) {
            link.dialled = None;
            link.listens = None;
        }
    }
}
