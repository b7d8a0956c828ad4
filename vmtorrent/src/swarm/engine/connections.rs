//! Connections: how they begin and end, and to what each message leads. Invariant: what has to be said first is said
//! first, and once a connection has ended nothing is left of it and no late word of it counts.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::incoming::Came;
use super::{Abilities, DisconnectReason, Engine, Output, Peer, Remote};
use crate::clock::Time;
use crate::image::PieceIndex;
use crate::picker::PeerKey;
use crate::swarm::upload::UploadQueue;
use crate::swarm::wire::{ExtendedHello, UT_METADATA, VMT_PROFILE, VMT_URGENT, WireMessage};

impl Engine {
    /// A connection is open and the handshakes are exchanged. `connect_time`: how long it took us to open it; `None`:
    /// the peer has.
    pub(crate) fn connected(
        &mut self,
        now: Time,
        address: SocketAddr,
        connect_time: Option<Duration>,
        abilities: Abilities,
    ) -> PeerKey {
        let key = self.add_peer(now, Remote::Peer(address), connect_time, abilities);
        let reached = connect_time.map(|_| address);
        self.exchange.add(now, key, reached, abilities.utp);
        self.nodes.add(key, abilities.dht);
        // What we have must be the first message (BEP 3); with the fast extension it must be said (BEP 6).
        if abilities.fast && self.have.is_full() {
            self.send(now, key, WireMessage::HaveAll);
        } else if abilities.fast && self.have.count_ones() == 0 {
            self.send(now, key, WireMessage::HaveNone);
        } else if self.have.count_ones() > 0 {
            let bits = Bytes::from(self.have.to_wire());
            self.send(now, key, WireMessage::Bitfield(bits));
        }
        if abilities.extended {
            self.profiles.serve.tell(now, key);
            self.send(now, key, WireMessage::ExtendedHello(self.hello()));
        }
        self.tell_node(now, key);
        self.admit_to_slots(now, key);
        key
    }

    /// A peer of any kind gets a key.
    pub(super) fn add_peer(
        &mut self,
        now: Time,
        remote: Remote,
        connect_time: Option<Duration>,
        abilities: Abilities,
    ) -> PeerKey {
        let key = PeerKey(self.next_key);
        self.next_key += 1;
        let peer = Peer::new(now, remote, connect_time, abilities);
        self.peers.insert(key, peer);
        self.picker.add_peer(key);
        key
    }

    /// What we tell of ourselves (BEP 10).
    pub(super) fn hello(&self) -> ExtendedHello {
        let mut hello = ExtendedHello {
            client: Some(concat!("libvmtorrent ", env!("CARGO_PKG_VERSION")).to_owned()),
            request_queue: Some(UploadQueue::MAX_REQUESTS as u32),
            listen_port: Some(self.listen_port).filter(|p| *p != 0),
            metadata_size: Some(self.metadata.size()),
            ut_metadata: Some(UT_METADATA),
            vmt_urgent: Some(VMT_URGENT),
            ..ExtendedHello::default()
        };
        self.profiles.announce(&mut hello);
        self.announce_compression(&mut hello);
        self.exchange.announce(&mut hello);
        hello
    }

    /// A connection was closed by the other side or failed.
    pub(crate) fn disconnected(&mut self, now: Time, key: PeerKey) {
        let Some(mut peer) = self.peers.remove(&key) else {
            return;
        };
        self.download.lock().refund(peer.drop_all_requests());
        self.note_departure(key, peer.remote);
        self.picker.remove_peer(key);
        self.note_peers();
        self.uploads.remove(key);
        self.metadata.remove(key);
        self.choker.left(now, key);
        self.apply_choking(now);
        self.exchange.remove(key);
        self.nodes.remove(key);
        self.schedule(now);
        self.remove_from_profiles(now, key);
        self.pump_uploads(now);
    }

    /// A peer has sent a message.
    pub(crate) fn received(&mut self, now: Time, key: PeerKey, message: WireMessage) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        peer.last_received = now;
        match message {
            WireMessage::KeepAlive | WireMessage::Unknown(_) => {}
            WireMessage::Choke => {
                peer.chokes_us = true;
                // What was to come of this peer alone would wait for as long as it likes.
                self.picker.unconfine_all(key);
                // With the fast extension each request is still answered, if only by a reject.
                if !peer.fast {
                    let unanswered = peer.drop_all_requests();
                    self.download.lock().refund(unanswered);
                    self.picker.release(key);
                    self.schedule(now);
                }
            }
            WireMessage::Unchoke => {
                peer.has_unchoked_us = true;
                if std::mem::take(&mut peer.chokes_us) {
                    self.schedule(now);
                }
            }
            WireMessage::Interested => {
                peer.is_interested = true;
                self.choker.interest(now, key, true);
                self.apply_choking(now);
            }
            WireMessage::NotInterested => {
                peer.is_interested = false;
                self.choker.interest(now, key, false);
                self.apply_choking(now);
            }
            WireMessage::Have(piece) => self.on_have(now, key, PieceIndex(piece)),
            WireMessage::Bitfield(bits) => self.on_bitfield(now, key, &bits),
            WireMessage::Request(request) => self.on_request(now, key, request),
            WireMessage::Cancel(request) => self.on_cancel(now, key, request),
            WireMessage::Urgent { request, .. } => self.on_urgent(now, key, request),
            WireMessage::HaveAll
            | WireMessage::HaveNone
            | WireMessage::Suggest(_)
            | WireMessage::Reject(_)
            | WireMessage::AllowedFast(_) => self.on_fast(now, key, &message),
            WireMessage::Piece { piece, begin, data } => {
                let wire = data.len() as u32;
                let came = Came {
                    data: &data,
                    wire,
                    frame: None,
                };
                self.on_block(now, key, piece, begin, came);
            }
            WireMessage::Expanded {
                piece,
                begin,
                data,
                wire,
                frame,
            } => {
                let came = Came {
                    data: &data,
                    wire,
                    frame: Some(&frame).filter(|f| !f.is_empty()),
                };
                self.on_block(now, key, piece, begin, came);
            }
            WireMessage::ExtendedHello(hello) => {
                if let Some(limit) = hello.request_queue {
                    peer.request_limit = (limit as usize).clamp(1, 2000);
                }
                if let Some(number) = hello.vmt_urgent {
                    peer.urgent_extension = number;
                    if number != 0 {
                        self.uploads.may_hold(key);
                    }
                }
                self.metadata.hello(now, key, hello.ut_metadata);
                self.on_compression_hello(key, &hello);
                self.on_profile_hello(now, key, &hello);
                self.on_exchange_hello(now, key, &hello);
            }
            WireMessage::Metadata {
                extension: VMT_PROFILE,
                message,
            } => self.on_profile_message(now, key, &message),
            WireMessage::Metadata { message, .. } => self.on_metadata(now, key, message),
            WireMessage::Zstd { message, .. } => self.on_zstd_message(now, key, &message),
            WireMessage::Port(port) => self.on_port(now, key, port),
            WireMessage::PeerExchange { message, .. } => self.on_peer_exchange(now, key, &message),
        }
    }

    /// Sends a message, if the peer is still there.
    pub(super) fn send(&mut self, now: Time, key: PeerKey, message: WireMessage) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.last_sent = now;
            // A web server is told nothing of us.
            if !peer.is_web_seed() || matches!(message, WireMessage::Cancel(_)) {
                self.outputs.push(Output::Send(key, message));
            }
        }
    }

    /// Ends a connection from our side.
    pub(super) fn disconnect(&mut self, now: Time, key: PeerKey, reason: DisconnectReason) {
        if let Some(peer) = self.peers.get(&key) {
            tracing::debug!(peer = %peer.remote, ?reason, "closing the connection");
            let blamed = reason == DisconnectReason::BadData;
            self.outputs.push(Output::Disconnect(key, reason));
            self.disconnected(now, key);
            if blamed {
                // Its address is known to the driver by this.
                self.evidence.take_gone(key);
            }
        }
    }
}
