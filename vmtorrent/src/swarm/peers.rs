//! Who is dialled, and who is let in. Invariant: one connection to a peer, and no more than
//! [`MAX_PEERS`] in all.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;

use super::connection::{self, Opened};
use super::engine::Abilities;
use super::{Inner, Link, MAX_OUTGOING, Swarm};

const MAX_PEERS: usize = 100;
const MAX_DIALLING: usize = 16;
/// How long an address is left alone whose peer is connected by another way.
const TWIN_REST: Duration = Duration::from_secs(30);

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
        self.drive_inner(|inner, now| {
            let lost = |inner: &mut Inner| {
                if let Some(address) = dialled {
                    inner.book.lost(now, address);
                }
            };
            if their_id == self.peer_id {
                if let Some(address) = dialled {
                    inner.book.ban(address);
                }
                return;
            }
            let Some(address) = address else { return };
            if inner.links.len() >= MAX_PEERS {
                return lost(inner);
            }
            let twin = inner
                .links
                .iter()
                .find(|(_, l)| l.peer_id == their_id)
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
                        inner.book.rest(now, address, TWIN_REST);
                    }
                    return;
                }
                if let Some(old) = inner.links.remove(&twin) {
                    if let Some(task) = old.task {
                        task.abort();
                    }
                    if let Some(address) = old.dialled {
                        inner.book.rest(now, address, TWIN_REST);
                    }
                }
                inner.engine.disconnected(now, twin);
            }
            if let Some(address) = dialled {
                inner.book.connected(now, address);
            }
            let (sender, receiver) = mpsc::channel(MAX_OUTGOING);
            let abilities = Abilities {
                extended: handshake.extended,
                fast: handshake.fast,
            };
            let key = inner
                .engine
                .connected(now, address, connect_time, abilities);
            let link = Link {
                outgoing: sender,
                task: None,
                dialled,
                peer_id: their_id,
            };
            inner.links.insert(key, link);
            let task = self
                .runtime
                .spawn(connection::run(swarm, key, stream, receiver));
            if let Some(link) = inner.links.get_mut(&key) {
                link.task = Some(task.abort_handle());
            }
        });
    }

    /// Dials whoever is due.
    pub(super) fn dial_due(&self) {
        let now = self.clock.now();
        loop {
            let address = {
                let mut inner = self.inner.lock();
                if inner.closed || !inner.may_dial() {
                    return;
                }
                inner.book.next(now)
            };
            let Some(address) = address else { return };
            // Only a weak handle: whoever is being dialled must not keep a closed swarm's store locked.
            let (me, info_hash, our_id) = (self.me.clone(), self.image.info_hash(), self.peer_id);
            self.runtime.spawn(async move {
                let dialled = connection::dial(address, info_hash, our_id).await;
                let Some(swarm) = me.upgrade() else { return };
                match dialled {
                    Ok(opened) => swarm.attach(opened, Some(address)),
                    Err(error) => {
                        tracing::debug!(%address, %error, "peer not reached");
                        let now = swarm.clock.now();
                        swarm.inner.lock().book.lost(now, address);
                    }
                }
                swarm.news.notify_one();
            });
        }
    }
}

impl Inner {
    pub(super) fn may_dial(&self) -> bool {
        let dialling = self.book.dialling();
        dialling < MAX_DIALLING && self.links.len() + dialling < MAX_PEERS
    }
}
