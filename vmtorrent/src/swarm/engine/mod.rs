//! The protocol core: what to do when a peer says something, a piece was stored, a guest waits, or time has passed.
//!
//! Invariant: no I/O, no clock, no randomness of its own. Every call takes `now`; what is to be done
//! comes out as [`Output`]s, in order. A driver carries them out; a simulator could as well.

mod choking;
mod compression;
mod connections;
mod evidence;
mod exchange;
mod guides;
mod housekeeping;
mod incoming;
mod metadata;
mod nodes;
mod outcome;
mod peer;
mod profiles;
mod remote;
mod requests;
mod urgent;
mod web_seeds;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use self::evidence::Evidence;
use self::exchange::Exchange;
use self::guides::Guides;
pub(crate) use self::guides::{Followed, Foretold, GuideKey};
use self::housekeeping::SNUB;
use self::nodes::Nodes;
pub(crate) use self::peer::Abilities;
use self::peer::Peer;
pub(crate) use self::profiles::ProfileRank;
use self::profiles::Profiles;
pub(crate) use self::remote::Remote;
use super::choker::Choker;
use super::limiter::Limiter;
use super::metadata::MetadataServe;
use super::upload::UploadQueue;
use super::wire::{WireMessage, WireRequest};
use crate::Bitfield;
use crate::clock::Time;
use crate::hash::HashMap;
use crate::image::{Image, PieceClass, PieceIndex};
use crate::options::Fill;
use crate::picker::{Band, PeerKey, Picker};

/// Something for the driver to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Send a message.
    Send(PeerKey, WireMessage),
    /// Fetch a block of a web seed; `urgent`: a read waits for it. Answer with a block or a reject, as a peer would.
    Fetch {
        /// The web seed.
        key: PeerKey,
        /// The block.
        request: WireRequest,
        urgent: bool,
    },
    /// Read a block of the pristine copy and send it; then call [`Engine::block_sent`] or
    /// [`Engine::block_sent_as`].
    SendBlock(PeerKey, WireRequest),
    /// From now on blocks may go to the peer in compressed form, under its number of the extension; `None`: plain only.
    Compress(PeerKey, Option<NonZeroU8>),
    /// Close the connection; [`Engine::disconnected`] is not needed any more.
    Disconnect(PeerKey, DisconnectReason),
    /// Whoever was connected from there had sent wrong data, which is known only now that it has gone.
    Liar(Remote),
    /// Of the piece that is to be stored next these blocks came as such frames, which others may be given once the piece is
    /// found right.
    Frames(PieceIndex, Vec<(u32, Bytes)>),
    /// Check the hash and store; then call [`Engine::stored`], [`Engine::mismatched`] or [`Engine::not_stored`].
    Store(PieceIndex, Bytes),
    /// The piece can be read: wake who waits for it.
    Ready(PieceIndex),
    /// Every piece is here.
    Completed,
    /// A peer gave this text as a profile: call [`Engine::profile_checked`] when it was looked at.
    Profile(PeerKey, Bytes),
    /// A peer at this host told of others.
    Told(IpAddr, Vec<SocketAddr>),
    /// A peer says that there is a node of the DHT.
    Node(SocketAddr),
}

/// Why we close a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DisconnectReason {
    /// Neither side needs the other: both have everything.
    BothSeeds,
    /// It broke the protocol.
    Protocol(String),
    /// It sent data with a wrong hash: don't connect to it again.
    BadData,
    /// Nothing came for too long.
    Silent,
}

/// Bytes moved so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// Received and kept, by band.
    pub(crate) fetched: [u64; 4],
    /// Of these, from web seeds.
    pub(crate) web_seeds: u64,
    /// What all that was kept took on the wire: less than itself where it came compressed.
    pub(crate) fetched_wire: u64,
    /// Received in vain.
    pub(crate) wasted: u64,
    /// Sent.
    pub(crate) uploaded: u64,
    /// What that took on the wire.
    pub(crate) uploaded_wire: u64,
}

/// Everything that is decided about one image's swarm.
pub(crate) struct Engine {
    image: Arc<Image>,
    picker: Picker,
    guides: Guides,
    /// Keys are never used again, so that a late word of a connection that has ended reaches nobody.
    peers: BTreeMap<PeerKey, Peer>,
    next_key: usize,
    uploads: UploadQueue,
    choker: Choker,
    metadata: MetadataServe,
    profiles: Profiles,
    exchange: Exchange,
    nodes: Nodes,
    /// What we tell others that we have: also zeros and duplicates.
    have: Bitfield,
    /// Pieces that peers were not told of yet, and when they are.
    unannounced: Vec<PieceIndex>,
    haves_due: Option<Time>,
    assembly: HashMap<PieceIndex, Assembly>,
    evidence: Evidence,
    /// Bytes that the driver checks and stores.
    storing: u64,
    max_storing: u64,
    duplicates: HashMap<PieceIndex, Vec<PieceIndex>>,
    fill: Fill,
    last_demand: Option<Time>,
    /// When a block was sent to anybody.
    last_upload: Option<Time>,
    download: Arc<Mutex<Limiter>>,
    upload: Arc<Mutex<Limiter>>,
    wake_at: Option<Time>,
    /// Storing failed: no requests before that time; and how long the pause is.
    storage_pause: Option<(Time, Duration)>,
    next_housekeeping: Time,
    traffic: Traffic,
    listen_port: u16,
    peer_id: [u8; 20],
    /// Whether the bytes of blocks are kept, as they are but in a simulation.
    keeps_bodies: bool,
    /// Whether blocks may come and go in compressed form.
    compression: bool,
    outputs: Vec<Output>,
}

/// A piece whose blocks are coming in.
struct Assembly {
    data: BytesMut,
    /// The whole, while it is being checked and stored.
    kept: Bytes,
    /// Who sent each block.
    givers: Vec<Option<PeerKey>>,
    /// Bytes received, by band.
    received: [u64; 4],
    /// Bytes of these that web seeds sent.
    of_web_seeds: u64,
    /// Bytes that they took on the wire.
    wire: u64,
    /// Blocks that came as frames, if anybody may want them.
    frames: Vec<(u32, Bytes)>,
}

impl Assembly {
    /// Everybody who sent a block, once.
    fn contributors(&self) -> Vec<PeerKey> {
        let mut keys: Vec<PeerKey> = self.givers.iter().copied().flatten().collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// What an engine starts from.
pub(crate) struct EngineConfig {
    pub(crate) image: Arc<Image>,
    /// What the pristine copy has.
    pub(crate) have: Bitfield,
    pub(crate) fill: Fill,
    pub(crate) download: Arc<Mutex<Limiter>>,
    pub(crate) upload: Arc<Mutex<Limiter>>,
    /// Peers that may ask for blocks at once; `None`: no limit.
    pub(crate) upload_slots: Option<usize>,
    pub(crate) listen_port: u16,
    /// Ours, which peers know us by.
    pub(crate) peer_id: [u8; 20],
    /// Whether profiles are asked for and given.
    pub(crate) profile_exchange: bool,
    /// Whether peers are told of peers, unless the image is private.
    pub(crate) peer_exchange: bool,
    /// Decides ties.
    pub(crate) seed: u64,
}

const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// With [`Fill::Idle`], how long after the last demand the background rests.
const IDLE_PAUSE: Duration = Duration::from_millis(100);
/// While so many bytes wait for the disk, or so many pieces if that is more, only demand goes on: the network may be
/// faster.
const MAX_STORING: u64 = 16 << 20;
const MAX_STORING_PIECES: u64 = 4;
/// Longest block that a peer may ask for.
const MAX_REQUEST: u32 = 128 << 10;

impl Engine {
    pub(crate) fn new(now: Time, config: EngineConfig) -> Self {
        let EngineConfig {
            image,
            have,
            fill,
            download,
            upload,
            upload_slots,
            listen_port,
            peer_id,
            profile_exchange,
            peer_exchange,
            seed,
        } = config;
        let upload_rate = upload.lock().rate();
        let slots = upload_slots.unwrap_or(usize::MAX);
        let skipped = |p: PieceIndex| image.piece_class(p) != PieceClass::Unique;
        let picker = Picker::new(*image.geometry(), skipped, |p| have.get(p), seed);
        let mut duplicates: HashMap<PieceIndex, Vec<PieceIndex>> = HashMap::default();
        for piece in image.geometry().pieces() {
            if let PieceClass::DuplicateOf(first) = image.piece_class(piece) {
                duplicates.entry(first).or_default().push(piece);
            }
        }
        let mut uploads = UploadQueue::new(upload_rate);
        if picker.missing() == 0 {
            uploads.hold_repeats(std::iter::empty());
        }
        Self {
            picker,
            guides: Guides::default(),
            peers: BTreeMap::new(),
            next_key: 0,
            uploads,
            choker: Choker::new(now, slots, seed.wrapping_add(1)),
            metadata: MetadataServe::new(image.info_bytes().clone()),
            profiles: Profiles::new(now, profile_exchange),
            exchange: Exchange::new(peer_exchange && !image.is_private()),
            nodes: Nodes::default(),
            have,
            unannounced: Vec::new(),
            haves_due: None,
            assembly: HashMap::default(),
            evidence: Evidence::default(),
            storing: 0,
            max_storing: MAX_STORING
                .max(MAX_STORING_PIECES * u64::from(image.geometry().nominal_piece_length())),
            duplicates,
            fill,
            last_demand: None,
            last_upload: None,
            download,
            upload,
            wake_at: None,
            storage_pause: None,
            next_housekeeping: now + HOUSEKEEPING,
            traffic: Traffic::default(),
            listen_port,
            peer_id,
            keeps_bodies: true,
            compression: false,
            outputs: Vec::new(),
            image,
        }
    }

    /// Pieces are assembled without their bytes: what a simulation of thousands of hosts has no room for.
    #[cfg(feature = "simulation")]
    pub(crate) fn keep_no_bodies(&mut self) {
        self.keeps_bodies = false;
    }

    /// What is to be done, in order. To be asked after every other call.
    pub(crate) fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// When [`tick`](Self::tick) is wanted next.
    pub(crate) fn next_timeout(&self, now: Time) -> Time {
        let mut at = self.next_housekeeping;
        if let Some(wake) = self.wake_at {
            at = at.min(wake);
        }
        if self.picker.is_under_way(Band::Demand) {
            at = at.min(now + Duration::from_millis(5));
        }
        at
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Connected peers, without web seeds.
    pub(crate) fn peer_count(&self) -> usize {
        self.peers.len() - self.web_seed_count()
    }

    /// Whether nothing is left to fetch.
    pub(crate) fn is_complete(&self) -> bool {
        self.picker.missing() == 0
    }

    /// The driver has sent a block that [`Output::SendBlock`] named, or could not.
    pub(crate) fn block_sent(&mut self, now: Time, key: PeerKey, request: WireRequest, sent: bool) {
        self.uploads.sent(key, u64::from(request.length));
        if !sent {
            self.refuse(now, key, request);
            self.pump_uploads(now);
            return;
        }
        self.last_upload = Some(now);
        self.traffic.uploaded += u64::from(request.length);
        self.choker.got(key, request.length.into());
        self.traffic.uploaded_wire += u64::from(request.length);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.last_sent = now;
        }
        self.pump_uploads(now);
    }

    /// Reads wait for these pieces (canonical ones). Gives those that are already here.
    pub(crate) fn demand(&mut self, now: Time, pieces: &[PieceIndex]) -> Vec<PieceIndex> {
        self.last_demand = Some(now);
        let mut here = Vec::new();
        for &piece in pieces {
            if self.picker.is_missing(piece) {
                self.picker.want(piece, Band::Demand);
                self.read_comes_to(piece);
                if self.picker.asked_of_nobody(piece) {
                    self.leave_to_traders(now, piece);
                } else {
                    self.mark_asked(now, piece);
                }
            } else {
                here.push(piece);
            }
        }
        self.schedule(now);
        here
    }

    /// A sequential stream will soon come to these pieces (canonical ones).
    pub(crate) fn read_ahead(&mut self, now: Time, pieces: &[PieceIndex]) {
        let mut any = false;
        for &piece in pieces {
            if self.picker.want(piece, Band::Readahead) {
                any = true;
                self.leave_read_ahead(now, piece);
            }
        }
        if any {
            self.schedule(now);
        }
    }

    /// Changes what is fetched that nobody asked for.
    pub(crate) fn set_fill(&mut self, now: Time, fill: Fill) {
        self.fill = fill;
        self.schedule(now);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Time) {
        if self.wake_at.is_some_and(|at| at <= now) {
            self.wake_at = None;
        }
        self.tell_haves_when_due(now);
        self.ask_for_left(now);
        self.ask_late_blocks_again(now);
        self.turn_from_seeds(now);
        if now >= self.next_housekeeping {
            self.next_housekeeping = now + HOUSEKEEPING;
            self.keep_house(now);
            self.rechoke(now);
            self.tend_profiles(now);
            self.exchange_peers(now, None);
        }
        self.schedule(now);
        self.pump_profile(now);
        self.pump_metadata(now);
        self.pump_uploads(now);
    }

    fn pump_uploads(&mut self, now: Time) {
        let picker = &self.picker;
        while self
            .uploads
            .is_ready(now, |p| picker.availability(PieceIndex(p)))
        {
            // The limit is on the sum; the block that overdraws it is paid for by the next ones.
            let ready = self.upload.lock().ready(now);
            if let Err(wait) = ready {
                self.wake(now + wait);
                return;
            }
            let copies = |piece| picker.availability(PieceIndex(piece));
            let Some((key, request)) = self.uploads.pop(now, copies) else {
                break;
            };
            self.upload.lock().charge(request.length);
            self.outputs.push(Output::SendBlock(key, request));
        }
        if let Some(at) = self.uploads.next_release() {
            self.wake(at);
        }
    }

    fn wake(&mut self, at: Time) {
        self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
    }
}

#[cfg(test)]
mod compression_tests;
#[cfg(test)]
mod exchange_tests;
#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod guides_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod network;
#[cfg(test)]
mod nodes_tests;
#[cfg(test)]
mod profiles_tests;
#[cfg(test)]
mod seeds_tests;
#[cfg(test)]
mod serving_tests;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_keepalive;
#[cfg(test)]
mod web_seeds_tests;
