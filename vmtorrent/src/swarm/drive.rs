//! The way into the engine, and what comes out of it. Invariant: the engine is entered under one lock, and its outputs are
//! carried out in their order under the same lock. Only a guest's read does not wait for it (see [`Gate`](super::gate::Gate)).

use std::sync::Weak;
use std::time::Duration;

use super::connection::Outgoing;
use super::engine::{DisconnectReason, Engine, Output, Remote};
use super::gate::Entered;
use super::web_seed::Order;
use super::wire::WireMessage;
use super::{Inner, SEED_REST, Swarm};
use crate::clock::Time;
use crate::dht::NodeExchange;

impl Swarm {
    pub(super) fn drive(&self, event: impl FnOnce(&mut Engine, Time)) {
        self.drive_inner(|inner, now| event(&mut inner.engine, now));
    }

    /// Enters the engine and carries out what comes of it.
    pub(super) fn drive_inner(&self, event: impl FnOnce(&mut Inner, Time)) {
        // For what the engine says in it.
        let _named = self.span.enter();
        let now = self.clock.now();
        self.drive_entered(self.inner.lock(), now, event);
    }

    /// A guest has read something that its guide knows of. Waits for nobody: if somebody is in the engine, that one sees to it.
    pub(super) fn guest_went_on(&self) {
        if let Some(inner) = self.inner.tell() {
            let _named = self.span.enter();
            self.drive_entered(inner, self.clock.now(), |_, _| {});
        }
    }

    fn drive_entered(
        &self,
        mut inner: Entered<'_, Inner>,
        now: Time,
        event: impl FnOnce(&mut Inner, Time),
    ) {
        if inner.closed {
            return;
        }
        self.hear(&mut inner, now);
        event(&mut inner, now);
        loop {
            for output in inner.engine.take_outputs() {
                self.carry_out(&mut inner, now, output);
            }
            let Some(key) = inner.stalled.pop() else {
                if self.hear(&mut inner, now) {
                    continue;
                }
                break;
            };
            tracing::debug!(
                peer = key.0,
                "the peer does not read what it is sent; closing the connection"
            );
            inner.leave(now, key);
        }
        let due = inner.engine.next_timeout(now);
        if due < inner.timer_due {
            inner.timer_due = due;
            drop(inner);
            self.news.notify_one();
        }
    }

    /// Tells the engine if a guest went on meanwhile.
    fn hear(&self, inner: &mut Inner, now: Time) -> bool {
        let heard = self.inner.heard();
        if heard {
            inner.engine.guest_went_on(now);
        }
        heard
    }

    fn carry_out(&self, inner: &mut Inner, now: Time, output: Output) {
        match output {
            Output::Send(key, WireMessage::Cancel(request)) if !inner.links.contains_key(&key) => {
                inner.order(key, Order::Cancel(request));
            }
            Output::Send(key, message) => inner.send(key, Outgoing::Message(message)),
            Output::Fetch {
                key,
                request,
                urgent,
            } => inner.order(key, Order::Fetch { request, urgent }),
            Output::Compress(key, extension) => inner.send(key, Outgoing::Compress(extension)),
            Output::SendBlock(key, request) => inner.send(key, Outgoing::Block(request)),
            Output::Disconnect(key, reason) => {
                inner.web_seeds.left(now, key, Some(&reason));
                if let Some(link) = inner.links.remove(&key) {
                    if let Some(task) = &link.task {
                        task.abort();
                    }
                    inner.left_alone = inner.links.is_empty();
                    if reason == DisconnectReason::BadData {
                        inner.bans.lied(now, link.remote.ip());
                    }
                    inner.book.gone(now, link.peer_id);
                    match (link.address(), reason) {
                        (Some(address), DisconnectReason::BadData) => {
                            inner.book.lied(now, address);
                        }
                        (Some(address), DisconnectReason::BothSeeds) => {
                            inner.book.rest(now, address, SEED_REST);
                        }
                        (Some(address), _) => inner.book.lost(now, address),
                        (None, _) => {}
                    }
                }
            }
            Output::Liar(Remote::WebSeed(number)) => inner.web_seeds.lied_before(now, number),
            Output::Liar(Remote::Peer(address)) => {
                inner.bans.lied(now, address.ip());
                // If it was we who dialled.
                inner.book.lied(now, address);
            }
            Output::Frames(piece, frames) => {
                inner.frames.insert(piece, frames);
            }
            Output::Store(piece, data) => self.store(inner, piece, data),
            Output::Ready(piece) => inner.ready(piece),
            Output::Completed => {
                inner.web_seeds.rest(now);
                self.completed.notify_waiters();
            }
            Output::Node(address) => {
                tracing::debug!(%address, "a node of the DHT, says a peer");
                if let Some(nodes) = &self.nodes {
                    nodes.tell(address);
                }
            }
            Output::Profile(key, text) => self.check_profile(key, text),
            Output::Told(teller, addresses) => {
                for address in addresses {
                    if inner.book.hear(now, address, teller) {
                        tracing::debug!(%address, %teller, "told of by a peer");
                        self.news.notify_one();
                    }
                }
            }
        }
    }
}

/// Tells the engine where our nodes of the DHT are, so that it tells peers.
pub(super) async fn tell_ports(swarm: Weak<Swarm>, mut nodes: NodeExchange) {
    while let Some(ports) = nodes.next_ports().await {
        let Some(strong) = swarm.upgrade() else {
            return;
        };
        strong.drive(|engine, now| engine.own_nodes(now, ports));
    }
}

/// Calls the engine when something is due, and dials.
pub(super) async fn keep_time(swarm: Weak<Swarm>) {
    /// How often the address book is looked at even if nothing is known to be due.
    const LOOK: Duration = Duration::from_secs(5);
    loop {
        let Some(strong) = swarm.upgrade() else {
            return;
        };
        strong.dial_due();
        strong.start_web_seeds();
        strong.drive(Engine::tick);
        let now = strong.clock.now();
        let due = {
            let mut inner = strong.inner.lock();
            let due = inner.engine.next_timeout(now).min(now + LOOK);
            inner.timer_due = due;
            // The end of a dial or of a connection is news by itself.
            let whom = inner.may_dial(&strong, now);
            let dial = whom.and_then(|only_named| inner.book.next_due(only_named));
            dial.map_or(due, |d| d.min(due))
                .max(now + Duration::from_micros(500))
        };
        let at = strong.clock.instant(due);
        tokio::select! {
            () = tokio::time::sleep_until(at.into()) => {}
            () = strong.news.notified() => {}
        }
        drop(strong);
    }
}
