//! A live engine with the lines of its peers, and the bounds that hold after all that happens.

use super::super::network::image;
use super::super::*;
use super::events::Event;
use super::extensions::offer;
use super::{PIECE, PIECES};
use crate::dht::NodePorts;
use crate::profile::Profile;
use crate::swarm::compression::Codec;
use crate::swarm::metadata::{MetadataMessage, piece_length};
use crate::swarm::peer_exchange::PeerExchange;
use crate::swarm::wire::{Decoder, VMT_PROFILE};

/// Parts of a profile that a peer may owe an answer for.
const PROFILE_PARTS: usize = 4;

/// A peer's side of a connection: the bytes that are not decoded yet.
pub(super) struct Line {
    pub(super) key: PeerKey,
    buffer: BytesMut,
}

pub(super) struct Rig {
    pub(super) engine: Engine,
    pub(super) image: Arc<Image>,
    decoder: Decoder,
    codec: Codec,
    pub(super) now: Time,
    pub(super) lines: Vec<Line>,
    to_send: Vec<(PeerKey, WireRequest)>,
    to_store: Vec<(PieceIndex, Bytes)>,
    to_check: Vec<PeerKey>,
    /// Parts of a profile that peers were asked for.
    parts: Vec<(PeerKey, u32)>,
}

impl Rig {
    pub(super) fn new(have: &[bool]) -> Self {
        let image = image(PIECES, PIECE);
        let mut field = Bitfield::new(PIECES);
        for (piece, have) in have.iter().enumerate() {
            field.set(PieceIndex(piece as u32), *have);
        }
        let limiter = || Arc::new(Mutex::new(Limiter::new(Some(10_000_000))));
        let config = EngineConfig {
            image: image.clone(),
            have: field,
            fill: Fill::Full,
            download: limiter(),
            upload: limiter(),
            upload_slots: None,
            listen_port: 1,
            peer_id: [0; 20],
            profile_exchange: true,
            peer_exchange: true,
            seed: 7,
        };
        let mut engine = Engine::new(Time::default(), config);
        engine.enable_compression();
        engine.enable_dht();
        engine.own_nodes(
            Time::default(),
            NodePorts {
                four: Some(1),
                six: None,
            },
        );
        engine.want_profile(Time::default());
        Self {
            engine,
            image,
            decoder: Decoder::new(PIECES),
            codec: Codec::new(0),
            now: Time::default(),
            lines: Vec::new(),
            to_send: Vec::new(),
            to_store: Vec::new(),
            to_check: Vec::new(),
            parts: Vec::new(),
        }
    }

    pub(super) fn happen(&mut self, event: Event, fragment: usize) {
        let now = self.now;
        match event {
            Event::Bytes(peer, bytes) => {
                for part in bytes.chunks(fragment) {
                    if self.lines.is_empty() {
                        return;
                    }
                    let line = peer.index(self.lines.len());
                    self.receive(line, part);
                }
            }
            Event::Connect(extended, fast) => {
                let address = SocketAddr::from(([127, 0, 0, 1], 1));
                let abilities = Abilities {
                    extended,
                    fast,
                    dht: fast,
                    ..Abilities::default()
                };
                let key = self.engine.connected(now, address, None, abilities);
                let buffer = BytesMut::new();
                self.lines.push(Line { key, buffer });
            }
            Event::Disconnect(peer) if !self.lines.is_empty() => {
                let line = self.lines.remove(peer.index(self.lines.len()));
                self.engine.disconnected(now, line.key);
            }
            Event::Disconnect(_) => {}
            Event::Demand(piece) => {
                self.engine.demand(now, &[PieceIndex(piece)]);
            }
            Event::ReadAhead(piece) => self.engine.read_ahead(now, &[PieceIndex(piece)]),
            Event::Damaged(piece) => self.engine.damaged(now, PieceIndex(piece)),
            Event::SetFill(fill) => {
                let fill = [Fill::None, Fill::Idle, Fill::Full][usize::from(fill)];
                self.engine.set_fill(now, fill);
            }
            Event::Time(ms) => {
                self.now = now + Duration::from_millis(ms.into());
                self.engine.tick(self.now);
            }
            Event::Sent(well) => {
                for (key, request) in std::mem::take(&mut self.to_send) {
                    self.engine.block_sent(now, key, request, well);
                }
            }
            Event::Stored(well) => {
                for (piece, data) in std::mem::take(&mut self.to_store) {
                    if !well {
                        self.engine.not_stored(now, piece);
                    } else if crate::test_image::sha1(&data) == *self.image.piece_hash(piece) {
                        self.engine.stored(now, piece);
                    } else {
                        self.engine.mismatched(now, piece);
                    }
                }
            }
            Event::Checked(good) => {
                for key in std::mem::take(&mut self.to_check) {
                    self.engine.profile_checked(now, key, good);
                }
            }
            Event::WantProfile => self.engine.want_profile(now),
            Event::Offered(_, _) if self.lines.is_empty() => {}
            Event::Offered(peer, size) => {
                let key = self.lines[peer.index(self.lines.len())].key;
                self.engine.received(now, key, offer(size));
            }
            Event::Parts(count, well) => {
                for _ in 0..count.min(self.parts.len()) {
                    let (key, piece) = self.parts.remove(0);
                    self.answer(key, piece, well);
                }
            }
            Event::OfferProfile(length) => {
                let text = Bytes::from(vec![b'{'; length as usize]);
                self.engine.offer_profile(now, text, ProfileRank::OwnRun);
            }
        }
        self.collect();
    }

    /// A peer answers a request for a part of a profile, as one that it has announced.
    fn answer(&mut self, key: PeerKey, piece: u32, well: bool) {
        let total_size = self.engine.profiles.fetching().unwrap_or(1);
        let length = piece_length(total_size, piece).max(1);
        let message = if well {
            MetadataMessage::Data {
                piece,
                total_size,
                data: vec![b'p'; length as usize].into(),
            }
        } else {
            MetadataMessage::Reject { piece }
        };
        let message = WireMessage::Metadata {
            extension: VMT_PROFILE,
            message,
        };
        self.engine.received(self.now, key, message);
        self.collect();
    }

    /// Bytes of one peer. What breaks the framing ends the connection, as the driver does it.
    fn receive(&mut self, line: usize, bytes: &[u8]) {
        let Some(Line { key, buffer }) = self.lines.get_mut(line) else {
            return;
        };
        let key = *key;
        buffer.extend_from_slice(bytes);
        let mut messages = Vec::new();
        let mut broken = loop {
            match self.decoder.decode(buffer) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert!(
            buffer.len() <= (1 << 20) + 4,
            "an unbounded message is buffered"
        );
        // Now and then as if it had not been agreed on.
        if messages.len() % 16 != 0 {
            broken |= self.codec.expand_all(&mut messages).is_err();
        }
        for message in messages {
            self.engine.received(self.now, key, message);
            self.collect();
        }
        if broken {
            self.engine.disconnected(self.now, key);
            self.lines.retain(|l| l.key != key);
            self.collect();
        }
    }

    fn collect(&mut self) {
        for output in self.engine.take_outputs() {
            match output {
                Output::Send(key, WireMessage::Request(r)) => {
                    assert!(self.lines.iter().any(|l| l.key == key));
                    let piece = PieceIndex(r.piece);
                    assert!(self.image.geometry().contains(piece), "{r:?}");
                }
                Output::Send(
                    key,
                    WireMessage::Metadata {
                        message: MetadataMessage::Request { piece },
                        ..
                    },
                ) => self.parts.push((key, piece)),
                Output::SendBlock(key, request) => self.to_send.push((key, request)),
                Output::Disconnect(key, _) => self.lines.retain(|l| l.key != key),
                Output::Store(piece, data) => {
                    let length = self.image.geometry().piece_length(piece);
                    assert_eq!(data.len(), length as usize);
                    self.to_store.push((piece, data));
                }
                Output::Profile(key, text) => {
                    assert!(text.len() <= Profile::MAX_ATTACHED);
                    self.to_check.push(key);
                }
                Output::Node(address) => {
                    assert!(address.ip().is_loopback() && address.port() != 0);
                }
                Output::Told(_, addresses) => assert!(addresses.len() <= PeerExchange::MOST_KEPT),
                Output::Send(..)
                | Output::Fetch { .. }
                | Output::Ready(_)
                | Output::Completed
                | Output::Liar(_)
                | Output::Compress(..)
                | Output::Frames(..) => {}
            }
        }
        self.check();
    }

    /// What is kept is bounded, whatever was said.
    fn check(&self) {
        let engine = &self.engine;
        assert_eq!(engine.peer_count(), self.lines.len());
        assert!(engine.assembly.len() <= PIECES as usize);
        for peer in engine.peers.values() {
            assert!(peer.outstanding.len() <= 2000);
            assert!(peer.taken_back.len() <= 4096);
            assert!(peer.refused.len() <= PIECES as usize);
            let in_flight: usize = peer.outstanding.len() * 16_384;
            assert!(peer.path.in_flight() <= in_flight as u64);
        }
        assert!(engine.profiles.held() <= Profile::MAX_ATTACHED);
        assert!(engine.profiles.owed() <= PROFILE_PARTS * self.lines.len());
        assert!(
            self.to_check.len() <= 1,
            "one profile is looked at at a time"
        );
        assert!(engine.exchange.most_told() <= 512);
        let queued = self.to_send.len();
        // 64 small blocks or 16 whole ones for each connection that there is or was since the last were sent.
        assert!(queued <= 64 * engine.next_key.max(1), "{queued} blocks");
        assert!(engine.next_timeout(self.now) <= self.now + Duration::from_secs(3600));
    }
}
