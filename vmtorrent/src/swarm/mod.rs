//! One image's swarm: peers, what they have, who asks whom for what.
//!
//! [`engine`] decides, without I/O; [`Swarm`] carries it out on tokio: sockets, the disk, timers, and
//! the reads that wait.
//!
//! Invariant: the engine is entered under one lock, and its outputs are handed on under the same lock,
//! so each peer sees them in order (see [`drive`]). Nothing waits while it holds the lock.

mod addresses;
mod allowed_fast;
mod bans;
mod choker;
#[cfg(test)]
mod choker_tests;
mod compression;
mod connection;
mod counters;
mod dialler;
mod door;
mod drive;
mod engine;
mod gate;
mod guides;
mod hearsay;
mod limiter;
mod metadata;
mod origin;
mod path;
mod peer_exchange;
mod peers;
mod peers_file;
mod places;
mod profiles;
mod receiver;
mod scope;
mod serving;
#[cfg(feature = "simulation")]
pub mod simulation;
mod store_queue;
mod storing;
mod stream;
mod upload;
mod wait;
mod web_seed;
mod web_seeds;
mod wire;

pub(crate) use compression::Codec;
pub(crate) use connection::{answer, greet};
pub(crate) use counters::{PeerCounts, SwarmCounters};
pub(crate) use dialler::Dialler;
pub(crate) use door::{ACCEPT_PAUSE, Admission, Door};
pub(crate) use engine::{Foretold, ProfileRank, Traffic};
pub(crate) use guides::Guided;
pub(crate) use limiter::Limiter;
pub(crate) use metadata::{MetadataJob, fetch_metadata};
pub(crate) use origin::Origin;
pub(crate) use peers_file::{MAX_PEERS as MAX_REMEMBERED, PeersFile};
pub(crate) use places::Places;
pub(crate) use scope::Scope;
pub(crate) use stream::PeerStream;
pub(crate) use web_seeds::GivenUp;
pub(crate) use wire::PeerHandshake;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;
use tracing::Span;

use self::addresses::AddressBook;
use self::bans::Bans;
use self::compression::Packer;
use self::connection::{Opened, Outgoing};
use self::engine::{Engine, EngineConfig};
use self::gate::Gate;
use self::places::Place;
use self::store_queue::StoreQueue;
use self::wait::Wait;
use self::web_seeds::WebSeeds;
use self::wire::{WireMessage, WireRequest};
use crate::clock::{SystemClock, Time};
use crate::dht::NodeExchange;
use crate::image::{Image, PieceIndex};
use crate::log_limit::LogLimit;
use crate::options::Fill;
use crate::picker::PeerKey;
use crate::pristine::Pristine;
use crate::profile::Profile;

/// What a swarm is started with.
pub(crate) struct SwarmConfig {
    pub(crate) pristine: Arc<Pristine>,
    pub(crate) runtime: Handle,
    pub(crate) clock: SystemClock,
    pub(crate) peer_id: [u8; 20],
    pub(crate) listen_port: u16,
    pub(crate) fill: Fill,
    pub(crate) download: Arc<Mutex<Limiter>>,
    pub(crate) upload: Arc<Mutex<Limiter>>,
    /// Peers that may ask for blocks at once; `None`: no limit.
    pub(crate) upload_slots: Option<usize>,
    /// The session's connections.
    pub(crate) places: Arc<Places>,
    /// The session's ways to peers.
    pub(crate) dialler: Dialler,
    /// Whether anybody is dialled but whom the user named.
    pub(crate) discovery: bool,
    /// Whether profiles are asked for and given.
    pub(crate) profile_exchange: bool,
    /// Blocks go in compressed form where it helps.
    pub(crate) compression: Option<Arc<Codec>>,
    /// Whether peers are told of peers, and believed about others. Of a private image never.
    pub(crate) peer_exchange: bool,
    /// Where nodes of the DHT are told of, and ours are; `None`: it is off. Of a private image it must be.
    pub(crate) nodes: Option<NodeExchange>,
    /// Decides ties.
    pub(crate) seed: u64,
    /// Names the image in the log.
    pub(crate) span: Span,
}

/// A swarm on tokio.
pub(crate) struct Swarm {
    image: Arc<Image>,
    pristine: Arc<Pristine>,
    runtime: Handle,
    clock: SystemClock,
    peer_id: [u8; 20],
    places: Arc<Places>,
    dialler: Dialler,
    nodes: Option<NodeExchange>,
    inner: Gate<Inner>,
    to_store: StoreQueue,
    /// Something is due earlier than the timer knows, or there is somebody to dial.
    news: Arc<Notify>,
    completed: Notify,
    counters: SwarmCounters,
    /// For blocks in compressed form, unless that is off.
    packer: Option<Arc<Packer>>,
    /// Names the image in the log.
    span: Span,
    log: LogLimits,
    me: Weak<Swarm>,
}

/// What a peer or a disk could make us say again and again.
#[derive(Default)]
struct LogLimits {
    wrong_hash: LogLimit,
    damaged: LogLimit,
    unreadable: LogLimit,
}

struct Inner {
    engine: Engine,
    links: HashMap<PeerKey, Link>,
    web_seeds: WebSeeds,
    book: AddressBook,
    bans: Bans,
    waits: HashMap<PieceIndex, Vec<Arc<Wait>>>,
    /// Blocks of pieces that are being checked, as they came; bounded as what is to be stored is.
    frames: HashMap<PieceIndex, Vec<(u32, Bytes)>>,
    /// Who would like a profile.
    seekers: Vec<oneshot::Sender<Arc<Profile>>>,
    /// Peers that leave unread what we send, to be left once the outputs at hand are carried out.
    stalled: Vec<PeerKey>,
    timer_due: Time,
    tasks: Vec<AbortHandle>,
    closed: bool,
    /// The last reason why a piece could not be stored; taken back when one could.
    storage_error: Option<String>,
    /// What is to be filled while the disk takes it.
    fill: Fill,
    /// The last peer has gone since somebody asked.
    left_alone: bool,
    /// The disk takes no more pieces: nothing is fetched in the background.
    short: bool,
}

struct Link {
    outgoing: mpsc::Sender<Outgoing>,
    task: Option<AbortHandle>,
    /// The address that we dialled, if it was us.
    dialled: Option<SocketAddr>,
    /// Where it listens, if it said so and it was not us who dialled.
    listens: Option<SocketAddr>,
    /// The other end of the connection.
    remote: SocketAddr,
    /// Whether it goes over uTP.
    utp: bool,
    peer_id: [u8; 20],
    place: Place,
}

/// What may wait to be written to a peer: HAVEs for minutes, or a flood of requests that are all rejected.
const MAX_OUTGOING: usize = 16_384;
/// How long a peer that has everything is left alone once we have it too.
const SEED_REST: Duration = Duration::from_secs(600);

impl Swarm {
    /// Starts the swarm's tasks; they end with [`close`](Self::close).
    pub(crate) fn start(config: SwarmConfig) -> Arc<Self> {
        let SwarmConfig {
            pristine,
            runtime,
            clock,
            peer_id,
            listen_port,
            fill,
            places,
            dialler,
            nodes,
            ..
        } = config;
        let image = pristine.image().clone();
        let piece_length = image.geometry().nominal_piece_length();
        let now = clock.now();
        let mut engine = Engine::new(
            now,
            EngineConfig {
                image: image.clone(),
                have: pristine.have_field(),
                fill,
                download: config.download,
                upload: config.upload,
                upload_slots: config.upload_slots,
                peer_id,
                profile_exchange: config.profile_exchange,
                peer_exchange: config.peer_exchange,
                listen_port,
                seed: config.seed,
            },
        );
        if config.compression.is_some() {
            engine.enable_compression();
        }
        if nodes.is_some() {
            engine.enable_dht();
        }
        let packer = config
            .compression
            .map(|codec| Arc::new(Packer::new(codec, image.clone())));
        let inner = Inner {
            engine,
            links: HashMap::new(),
            web_seeds: WebSeeds::default(),
            book: AddressBook::new(config.seed.wrapping_add(1), !config.discovery),
            bans: Bans::default(),
            waits: HashMap::new(),
            frames: HashMap::new(),
            seekers: Vec::new(),
            stalled: Vec::new(),
            timer_due: now,
            tasks: Vec::new(),
            closed: false,
            storage_error: None,
            fill,
            left_alone: false,
            short: false,
        };
        let news = Arc::new(Notify::new());
        let swarm = Arc::new_cyclic(|me| Self {
            image,
            pristine,
            runtime: runtime.clone(),
            clock,
            peer_id,
            places,
            dialler,
            nodes: nodes.clone(),
            inner: Gate::new(inner, news.clone()),
            to_store: StoreQueue::new(piece_length),
            news,
            completed: Notify::new(),
            counters: SwarmCounters::default(),
            packer,
            span: config.span,
            log: LogLimits::default(),
            me: me.clone(),
        });
        let timer = runtime.spawn(drive::keep_time(Arc::downgrade(&swarm)));
        let mut tasks = vec![timer.abort_handle()];
        if let Some(nodes) = nodes {
            let tell = runtime.spawn(drive::tell_ports(Arc::downgrade(&swarm), nodes));
            tasks.push(tell.abort_handle());
        }
        swarm.inner.lock().tasks.extend(tasks);
        swarm
    }

    pub(crate) fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// Whether nodes of the DHT are told of: what our handshake says.
    pub(crate) fn tells_of_nodes(&self) -> bool {
        self.nodes.is_some()
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.inner.lock().engine.traffic()
    }

    pub(crate) fn peer_count(&self) -> usize {
        self.inner.lock().engine.peer_count()
    }

    /// Connected peers, by who opened the connection, and over what.
    pub(crate) fn peers(&self) -> PeerCounts {
        let inner = self.inner.lock();
        let links = inner.links.values();
        let outgoing = links.clone().filter(|l| l.dialled.is_some()).count();
        let utp = links.filter(|l| l.utp).count();
        PeerCounts {
            incoming: (inner.links.len() - outgoing) as u64,
            outgoing: outgoing as u64,
            utp: utp as u64,
        }
    }

    /// Whether the last peer has gone since this was asked before, and none has come back.
    pub(crate) fn was_left_alone(&self) -> bool {
        let mut inner = self.inner.lock();
        std::mem::take(&mut inner.left_alone) && inner.links.is_empty()
    }

    pub(crate) fn counters(&self) -> &SwarmCounters {
        &self.counters
    }

    /// Whether nothing is left to fetch.
    pub(crate) fn is_complete(&self) -> bool {
        self.inner.lock().engine.is_complete()
    }

    /// Ends when nothing is left to fetch.
    pub(crate) async fn wait_complete(&self) {
        let notified = self.completed.notified();
        if !self.is_complete() {
            notified.await;
        }
    }

    /// Why pieces can't be stored at the moment, if they can't.
    pub(crate) fn storage_error(&self) -> Option<String> {
        self.inner.lock().storage_error.clone()
    }

    /// Adds an address where a peer may be. `named`: the user gave it, it is tried for ever.
    pub(crate) fn add_address(&self, address: SocketAddr, named: bool) {
        let now = self.clock.now();
        if self.inner.lock().book.add(now, address, named) {
            self.news.notify_one();
        }
    }

    pub(crate) fn set_fill(&self, fill: Fill) {
        self.drive_inner(|inner, now| {
            inner.fill = fill;
            inner.apply_fill(now);
        });
    }

    /// Wants pieces (canonical ones) before everything else, and waits until all can be read. Dropping
    /// the future ends the wait, not the fetching.
    pub(crate) fn demand(&self, pieces: &[PieceIndex]) -> oneshot::Receiver<()> {
        let (wait, receiver) = Wait::new(pieces);
        let wait = Arc::new(wait);
        self.drive_inner(|inner, now| {
            for piece in pieces {
                let waits = inner.waits.entry(*piece).or_default();
                waits.retain(|w| !w.is_abandoned());
                waits.push(wait.clone());
            }
            for piece in inner.engine.demand(now, pieces) {
                inner.ready(piece);
            }
            let came = |p: &&PieceIndex| inner.engine.is_verifying(**p);
            if pieces.iter().filter(came).any(|p| wait.came(*p)) {
                self.hurry(wait.left());
            }
        });
        receiver
    }

    /// A stream will soon come to these pieces (canonical ones).
    pub(crate) fn read_ahead(&self, pieces: &[PieceIndex]) {
        self.drive(|engine, now| engine.read_ahead(now, pieces));
    }

    /// Takes over a connection that a peer opened and whose handshake we answered.
    pub(crate) fn accept(&self, stream: PeerStream, handshake: PeerHandshake) {
        let opened = Opened {
            stream,
            handshake,
            connect_time: None,
        };
        self.attach(opened, None);
    }

    /// Ends all connections and tasks. Reads that wait get nothing.
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        for link in inner.links.values() {
            if let Some(task) = &link.task {
                task.abort();
            }
        }
        inner.links.clear();
        inner.web_seeds.close();
        inner.waits.clear();
        inner.seekers.clear();
        self.to_store.clear();
        for task in inner.tasks.drain(..) {
            task.abort();
        }
    }

    /// Messages of one peer, in order.
    fn received(&self, key: PeerKey, messages: &mut Vec<WireMessage>) {
        if messages.is_empty() {
            return;
        }
        self.drive_inner(|inner, now| {
            let fetched = |inner: &Inner| inner.engine.traffic().fetched.iter().sum::<u64>();
            let before = fetched(inner);
            for message in messages.drain(..) {
                inner.overhear(now, key, &message);
                inner.engine.received(now, key, message);
            }
            if fetched(inner) > before
                && let Some(link) = inner.links.get(&key)
            {
                link.place.activity().moved(now);
            }
        });
    }

    fn blocks_sent(&self, key: PeerKey, blocks: &mut Vec<(WireRequest, Option<u32>)>) {
        if blocks.is_empty() {
            return;
        }
        self.drive_inner(|inner, now| {
            if let Some(link) = inner.links.get(&key) {
                link.place.activity().moved(now);
            }
            for (request, sent) in blocks.drain(..) {
                match sent {
                    Some(wire) => inner.engine.block_sent_as(now, key, request, wire),
                    None => inner.engine.block_sent(now, key, request, false),
                }
            }
        });
    }

    /// A connection's task has ended.
    fn closed(&self, key: PeerKey) {
        self.drive_inner(|inner, now| {
            inner.leave(now, key);
        });
        self.news.notify_one();
    }
}

impl Inner {
    fn send(&mut self, key: PeerKey, item: Outgoing) {
        if let Some(link) = self.links.get(&key)
            && let Err(TrySendError::Full(_)) = link.outgoing.try_send(item)
        {
            self.stalled.push(key);
        }
        // If the task has ended already, it reports that itself.
    }

    /// Forgets a connection that was lost, or that is given up.
    fn leave(&mut self, now: Time, key: PeerKey) {
        let Some(link) = self.links.remove(&key) else {
            self.leave_web_seed(now, key);
            return;
        };
        if let Some(task) = &link.task {
            task.abort();
        }
        self.left_alone = self.links.is_empty();
        self.left(now, &link);
        self.engine.disconnected(now, key);
    }

    fn apply_fill(&mut self, now: Time) {
        let fill = if self.short { Fill::None } else { self.fill };
        self.engine.set_fill(now, fill);
        // What is foretold would take the place of what reads need now.
        self.engine.hold_guides(now, self.short);
    }

    fn ready(&mut self, piece: PieceIndex) {
        for wait in self.waits.remove(&piece).into_iter().flatten() {
            wait.ready(piece);
        }
    }
}
