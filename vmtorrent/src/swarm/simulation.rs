//! The engine for a simulator: the production code with nothing between, in virtual time.
//!
//! Behind the feature `simulation`, which is not among the default ones; no part of the API, and may change at any time.
//!
//! Invariant: a [`Host`] decides nothing that its engine doesn't, and what leaves it is what would be put on the wire, but
//! that blocks are empty: they have their length and no bytes of their own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use super::engine::{Abilities, Engine, EngineConfig, GuideKey, Output};
use super::limiter::Limiter;
use super::wire::{PIECE_MESSAGE_LENGTH, WireMessage, WireRequest, encode};
use crate::Bitfield;
use crate::bencode::Encoder;
pub use crate::clock::Time;
use crate::error::Result;
use crate::image::{BLOCK_LENGTH, Image, PieceIndex};
use crate::options::Fill;
pub use crate::picker::{PeerKey, Readahead};
use crate::profile::{Access, Guide, Profile};

/// Longest block that a peer may ask for.
const ZEROS: &[u8] = &[0; 128 << 10];

/// A message between peers.
#[derive(Clone, Debug)]
pub struct Message(WireMessage);

/// A request for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request(WireRequest);

/// What a host does.
#[derive(Debug)]
pub enum Action {
    /// It sends a message.
    Send(PeerKey, Message),
    /// It sends a block; [`Host::block_sent`] is to be called once the socket has taken it.
    SendBlock(PeerKey, Request),
    /// It closes a connection.
    Disconnect(PeerKey),
    /// It checks a piece and stores it; [`Host::stored`] is to be called then.
    Store(PieceIndex),
    /// A piece can be read.
    Ready(PieceIndex),
}

/// Bytes moved so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Received and kept, by band: demand, read-ahead, profile, background.
    pub fetched: [u64; 4],
    /// Received in vain.
    pub wasted: u64,
    /// Blocks sent.
    pub uploaded: u64,
}

impl Message {
    /// The block that was asked for.
    pub fn block(request: Request) -> Self {
        let Request(WireRequest {
            piece,
            begin,
            length,
        }) = request;
        let data = Bytes::from_static(&ZEROS[..length as usize]);
        Self(WireMessage::Piece { piece, begin, data })
    }

    /// Whether it lets the receiver request.
    pub fn is_unchoke(&self) -> bool {
        matches!(self.0, WireMessage::Unchoke)
    }

    /// Bytes on the wire, without those of TCP and IP.
    pub fn length(&self) -> u32 {
        match &self.0 {
            WireMessage::KeepAlive => 4,
            WireMessage::Have(_) => 9,
            WireMessage::Request(_) | WireMessage::Cancel(_) | WireMessage::Reject(_) => 17,
            WireMessage::Urgent { .. } => 18,
            WireMessage::Piece { data, .. } => 13 + data.len() as u32,
            other => {
                let mut out = BytesMut::new();
                encode(other, &mut out);
                out.len() as u32
            }
        }
    }
}

impl Request {
    /// Bytes that the answer has on the wire.
    pub fn answer_length(self) -> u32 {
        self.0.length + (PIECE_MESSAGE_LENGTH - BLOCK_LENGTH as usize) as u32
    }
}

/// An image of one file whose pieces all differ. There is nothing behind it.
///
/// # Errors
/// Those of [`Image::from_bytes`], for a length or a piece length that none can have.
pub fn image(length: u64, piece_length: u32) -> Result<Image> {
    let pieces = length.div_ceil(u64::from(piece_length.max(1)));
    let mut hashes = Vec::with_capacity(pieces as usize * 20);
    for piece in 0..pieces {
        hashes.extend_from_slice(&[0x51; 12]);
        hashes.extend_from_slice(&piece.to_be_bytes());
    }
    let torrent = Encoder::encode(|root| {
        root.string("info").dictionary(|info| {
            info.string("length").integer(length);
            info.string("name").string("disk.img");
            info.string("piece length").integer(piece_length.into());
            info.string("pieces").string(&hashes);
        });
    });
    Image::from_bytes(torrent)
}

/// A profile of the image's file: each run tells when each 16 KiB block was read first, microseconds of guest time.
pub fn profile(image: &Image, runs: &[BTreeMap<u32, u64>]) -> Profile {
    let mut sum: BTreeMap<u32, Access> = BTreeMap::new();
    for (&block, &time) in runs.iter().flatten() {
        let access = Access::once(time, None);
        sum.entry(block)
            .and_modify(|known| known.add(&access))
            .or_insert(access);
    }
    let mut profile = Profile::new(image);
    profile.set_runs(runs.len() as u32);
    for (block, access) in sum {
        profile.insert(0, block, access);
    }
    profile
}

/// What a [`Host`] starts from.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// What it runs.
    pub image: Arc<Image>,
    /// Whether it has all of it.
    pub seed: bool,
    /// What is fetched that nobody asked for.
    pub fill: Fill,
    /// What peers know it by.
    pub peer_id: [u8; 20],
    /// Decides ties.
    pub chance: u64,
}

/// One host's part in the swarm: an engine.
pub struct Host {
    engine: Engine,
    guide: Option<GuideKey>,
}

impl Host {
    /// A host without peers.
    pub fn new(now: Time, config: HostConfig) -> Self {
        let pieces = config.image.geometry().piece_count();
        let have = if config.seed {
            Bitfield::full(pieces)
        } else {
            Bitfield::new(pieces)
        };
        let unlimited = || Arc::new(Mutex::new(Limiter::new(None)));
        let mut engine = Engine::new(
            now,
            EngineConfig {
                image: config.image,
                have,
                fill: config.fill,
                download: unlimited(),
                upload: unlimited(),
                upload_slots: None,
                listen_port: 6881,
                peer_id: config.peer_id,
                profile_exchange: true,
                // Who knows whom is the scenario's.
                peer_exchange: false,
                seed: config.chance,
            },
        );
        engine.keep_no_bodies();
        Self {
            engine,
            guide: None,
        }
    }

    /// What is to be done, in order. To be asked after every other call, until there is nothing.
    pub fn take_actions(&mut self, now: Time) -> Vec<Action> {
        let mut actions = Vec::new();
        for output in self.engine.take_outputs() {
            actions.extend(match output {
                Output::Send(key, message) => Some(Action::Send(key, Message(message))),
                Output::SendBlock(key, request) => Some(Action::SendBlock(key, Request(request))),
                Output::Disconnect(key, _) => Some(Action::Disconnect(key)),
                Output::Store(piece, _) => Some(Action::Store(piece)),
                Output::Ready(piece) => Some(Action::Ready(piece)),
                Output::Profile(key, _) => {
                    self.engine.profile_checked(now, key, false);
                    None
                }
                // There are no web seeds.
                Output::Fetch { .. }
                | Output::Liar(_)
                | Output::Completed
                | Output::Compress(..)
                | Output::Frames(..)
                | Output::Told(..)
                | Output::Node(_) => None,
            });
        }
        actions
    }

    /// When [`tick`](Self::tick) is wanted next.
    pub fn next_timeout(&self, now: Time) -> Time {
        self.engine.next_timeout(now)
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Time) {
        self.engine.tick(now);
    }

    /// A connection is open and the handshakes are exchanged. Keys are given in order, from 0.
    pub fn connected(
        &mut self,
        now: Time,
        address: SocketAddr,
        connect_time: Option<Duration>,
        peer_id: [u8; 20],
    ) -> PeerKey {
        let abilities = Abilities {
            extended: true,
            fast: true,
            dht: false,
            utp: false,
            id: peer_id,
        };
        self.engine.connected(now, address, connect_time, abilities)
    }

    /// A connection has ended.
    pub fn disconnected(&mut self, now: Time, key: PeerKey) {
        self.engine.disconnected(now, key);
    }

    /// A peer has sent a message.
    pub fn received(&mut self, now: Time, key: PeerKey, message: Message) {
        self.engine.received(now, key, message.0);
    }

    /// The socket has taken a block, or the host did not send it.
    pub fn block_sent(&mut self, now: Time, key: PeerKey, request: Request, sent: bool) {
        self.engine.block_sent(now, key, request.0, sent);
    }

    /// A piece is stored.
    pub fn stored(&mut self, now: Time, piece: PieceIndex) {
        self.engine.stored(now, piece);
    }

    /// Whether a piece is not here.
    pub fn lacks(&self, piece: PieceIndex) -> bool {
        self.engine.lacks(piece)
    }

    /// A read waits for these pieces.
    pub fn demand(&mut self, now: Time, pieces: &[PieceIndex]) {
        self.engine.demand(now, pieces);
    }

    /// A stream will soon come to these pieces.
    pub fn read_ahead(&mut self, now: Time, pieces: &[PieceIndex]) {
        self.engine.read_ahead(now, pieces);
    }

    /// The guest has a profile. False when it foretells nothing.
    pub fn follow(&mut self, now: Time, image: &Image, profile: &Profile) -> bool {
        self.guide = Guide::new(profile, image).map(|guide| self.engine.add_guide(now, guide));
        self.guide.is_some()
    }

    /// The guest reads blocks for the first time, at this guest time in microseconds. Tells whether it is good to guess
    /// what it reads next: not if a profile knows better.
    pub fn guest_reads(&mut self, now: Time, guest_time: u64, blocks: &[u32]) -> bool {
        let Some(guide) = self.guide else {
            return true;
        };
        let told = self.engine.guest_reads(now, guide, guest_time, 0, blocks);
        !(told.trusted && told.expected.iter().all(|expected| *expected))
    }

    /// The guest has gone; what it has is still given to others.
    pub fn guest_left(&mut self, now: Time) {
        if let Some(guide) = self.guide.take() {
            self.engine.remove_guide(now, guide);
        }
    }

    /// What was moved so far.
    pub fn moved(&self) -> Moved {
        let traffic = self.engine.traffic();
        Moved {
            fetched: traffic.fetched,
            wasted: traffic.wasted,
            uploaded: traffic.uploaded,
        }
    }
}
