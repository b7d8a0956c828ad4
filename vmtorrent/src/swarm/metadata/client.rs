//! Carries [`MetadataFetch`] out on tokio: sockets, timers and hashing.
//!
//! Invariant: all connections and tasks end with the call, however it ends.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::fetch::{FetchEnd, FetchOutput, Group, MetadataFetch, PATIENCE};
use super::report::{Outcome, Report};
use crate::clock::{SystemClock, Time};
use crate::image::{InfoHash, MAX_PIECES};
use crate::picker::PeerKey;
use crate::swarm::addresses::AddressBook;
use crate::swarm::connection::Opened;
use crate::swarm::dialler::{Dialler, Missed};
use crate::swarm::engine::Abilities;
use crate::swarm::receiver::{Receiver, Source};
use crate::swarm::stream::PeerStream;
use crate::swarm::wire::{Decoder, PeerHandshake, WireMessage, encode};
use crate::{Error, ErrorKind, Result};

/// What is to be fetched, and from where.
pub(crate) struct MetadataJob {
    pub(crate) info_hash: InfoHash,
    pub(crate) peer_id: [u8; 20],
    pub(crate) listen_port: u16,
    pub(crate) dialler: Dialler,
    pub(crate) clock: SystemClock,
    /// Peers that the user named.
    pub(crate) named: Vec<SocketAddr>,
    /// Peers that trackers and the like find, until nobody looks for them any more.
    pub(crate) found: mpsc::Receiver<SocketAddr>,
    /// Peers on the local network, likewise.
    pub(crate) nearby: mpsc::Receiver<SocketAddr>,
    /// Peers that connected to us, and whose handshake was answered.
    pub(crate) arrivals: mpsc::Receiver<(PeerStream, PeerHandshake)>,
    /// How long to try; `None`: for ever.
    pub(crate) patience: Option<Duration>,
    /// Decides ties.
    pub(crate) seed: u64,
}

/// What came of it.
pub(crate) struct Fetched {
    /// The info dictionary; its SHA-1 is the info-hash.
    pub(crate) info: Bytes,
    /// Peers that had it: they are likely to have pieces too.
    pub(crate) peers: Vec<SocketAddr>,
    /// Given back, so that what is found from now on reaches the swarm.
    pub(crate) found: mpsc::Receiver<SocketAddr>,
}

/// Peers that are asked at once, and how many of them may have come to us unasked.
const MAX_PEERS: usize = 8;
const MAX_ARRIVALS: usize = 4;
const MAX_DIALLING: usize = 16;
/// How long a peer that has no metadata is left alone: it may be fetching it too.
const WITHOUT_REST: Duration = Duration::from_secs(5);
/// The same for one that had no place, or that gave up its place to others.
const PLACE_REST: Duration = Duration::from_secs(2);
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// Fetches the info dictionary from whoever has it.
///
/// # Errors
/// [`ErrorKind::TimedOut`] when nobody gave it in time, telling what was tried.
pub(crate) async fn fetch_metadata(job: MetadataJob) -> Result<Fetched> {
    let MetadataJob {
        info_hash,
        peer_id,
        listen_port,
        dialler,
        clock,
        named,
        mut found,
        mut nearby,
        mut arrivals,
        patience,
        seed,
    } = job;
    let (events, mut happened) = mpsc::channel(64);
    let mut client = Client {
        info_hash,
        peer_id,
        dialler,
        clock,
        fetch: MetadataFetch::new(listen_port),
        book: AddressBook::new(seed, false),
        links: HashMap::new(),
        report: Report::default(),
        tasks: JoinSet::new(),
        events,
        helpers: Vec::new(),
        info: None,
    };
    let start = clock.now();
    for address in named {
        client.book.add(start, address, true);
    }
    let (mut searching, mut looking, mut listening) = (true, true, true);
    let deadline = patience.map(|p| clock.instant(start + p));
    while client.info.is_none() {
        client.dial_due();
        let next = clock.instant(client.next_time());
        let given_up = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = given_up => return Err(client.failed(patience)),
            () = tokio::time::sleep_until(next.into()) => {
                let others_wait = client.others_wait();
                client.drive(|fetch, now| fetch.tick(now, others_wait));
            }
            Some(event) = happened.recv() => client.take(event),
            address = found.recv(), if searching => match address {
                Some(address) => {
                    client.book.add(clock.now(), address, false);
                }
                None => searching = false,
            },
            address = nearby.recv(), if looking => match address {
                Some(address) => {
                    client.book.add(clock.now(), address, false);
                }
                None => looking = false,
            },
            arrival = arrivals.recv(), if listening => match arrival {
                Some((stream, handshake)) => client.arrived(stream, handshake),
                None => listening = false,
            },
            Some(_) = client.tasks.join_next() => {}
        }
    }
    let Client { info, helpers, .. } = client;
    let info = info.unwrap_or_default();
    Ok(Fetched {
        info,
        peers: helpers,
        found,
    })
}

struct Client {
    info_hash: InfoHash,
    peer_id: [u8; 20],
    dialler: Dialler,
    clock: SystemClock,
    fetch: MetadataFetch,
    book: AddressBook,
    links: HashMap<PeerKey, Link>,
    report: Report,
    /// Ended with the client.
    tasks: JoinSet<()>,
    events: mpsc::Sender<Event>,
    /// Where peers gave some of it that we can dial again.
    helpers: Vec<SocketAddr>,
    info: Option<Bytes>,
}

struct Link {
    address: SocketAddr,
    /// Whether it was us who connected.
    dialled: bool,
    peer_id: [u8; 20],
    outgoing: mpsc::UnboundedSender<WireMessage>,
    task: AbortHandle,
}

enum Event {
    Dialled(SocketAddr, Result<Opened, Missed>),
    Said(PeerKey, Vec<WireMessage>),
    /// The connection ended; whether because of what came over it.
    Ended(PeerKey, bool),
    Checked(Group, bool, Bytes),
}

impl Client {
    /// When there is something to do without an event.
    fn next_time(&self) -> Time {
        const LOOK: Duration = Duration::from_secs(5);
        let now = self.clock.now();
        let dial = self.book.next_due(false).filter(|_| self.may_dial());
        let tick = self.fetch.next_timeout(now);
        let times = [dial, tick].into_iter().flatten();
        times.min().unwrap_or(now + LOOK).max(now)
    }

    fn may_dial(&self) -> bool {
        self.links.len() < MAX_PEERS && self.book.dialling() < MAX_DIALLING
    }

    /// Whether somebody who could be asked finds no place.
    fn others_wait(&self) -> bool {
        let due = self.book.next_due(false);
        self.links.len() >= MAX_PEERS && due.is_some_and(|due| due <= self.clock.now())
    }

    fn dial_due(&mut self) {
        let now = self.clock.now();
        while self.may_dial() {
            let Some(address) = self.book.next(now, false) else {
                return;
            };
            let (events, info_hash, our_id) = (self.events.clone(), self.info_hash, self.peer_id);
            let dialler = self.dialler.clone();
            // Until it answers: the search may end before that is known.
            self.report.note(address, Outcome::Unreached);
            self.tasks.spawn(async move {
                let dialled = dialler.dial(address, info_hash, our_id, false).await;
                // Nobody listens only when nobody wants to know.
                let _ = events.send(Event::Dialled(address, dialled)).await;
            });
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Dialled(address, Ok(opened)) => self.attach(opened, address, true),
            Event::Dialled(address, Err(Missed { error, in_vain })) => {
                tracing::debug!(%address, %error, "peer not reached");
                self.book.lost(self.clock.now() - in_vain, address);
            }
            Event::Said(key, messages) => self.drive(|fetch, now| {
                for message in messages {
                    fetch.received(now, key, message);
                }
            }),
            Event::Ended(key, broken) => {
                if let Some(link) = self.links.remove(&key) {
                    self.lost(&link, broken);
                }
                self.drive(|fetch, now| fetch.disconnected(now, key));
            }
            Event::Checked(group, right, info) => {
                if right {
                    self.info = Some(info);
                }
                self.drive(|fetch, now| fetch.checked(now, group, right));
            }
        }
    }

    fn arrived(&mut self, stream: PeerStream, handshake: PeerHandshake) {
        let unasked = self.links.values().filter(|l| !l.dialled).count();
        let Ok(address) = stream.peer_addr() else {
            return;
        };
        if unasked >= MAX_ARRIVALS {
            tracing::debug!(%address, "too many peers came unasked");
            return;
        }
        let opened = Opened {
            stream,
            handshake,
            connect_time: None,
        };
        self.attach(opened, address, false);
    }

    /// Begins to talk, if there is a place.
    fn attach(&mut self, opened: Opened, address: SocketAddr, dialled: bool) {
        let now = self.clock.now();
        let Opened {
            stream, handshake, ..
        } = opened;
        let peer_id = handshake.peer_id;
        if peer_id == self.peer_id {
            self.book.ban(now, address);
            return;
        }
        let known = self.links.values().any(|l| l.peer_id == peer_id);
        if known || self.links.len() >= MAX_PEERS {
            if dialled {
                self.book.rest(now, address, PLACE_REST);
            }
            return;
        }
        if dialled {
            self.book.connected(now, address);
        }
        self.report.note(address, Outcome::Answered);
        let abilities = Abilities {
            extended: handshake.extended,
            fast: handshake.fast,
            dht: handshake.dht,
            utp: stream.is_utp(),
            id: handshake.peer_id,
        };
        let key = self.fetch.connected(now, abilities);
        let (outgoing, to_send) = mpsc::unbounded_channel();
        let task = self
            .tasks
            .spawn(converse(key, stream, to_send, self.events.clone()));
        let link = Link {
            address,
            dialled,
            peer_id,
            outgoing,
            task,
        };
        self.links.insert(key, link);
        self.drive(|_, _| {});
    }

    fn drive(&mut self, event: impl FnOnce(&mut MetadataFetch, Time)) {
        event(&mut self.fetch, self.clock.now());
        for output in self.fetch.take_outputs() {
            match output {
                FetchOutput::Send(key, message) => {
                    if let Some(link) = self.links.get(&key) {
                        // The task may have ended already; it reports that itself.
                        let _ = link.outgoing.send(message);
                    }
                }
                FetchOutput::Disconnect(key, why) => self.disconnect(key, why),
                FetchOutput::Check(group, info) => self.check(group, info),
            }
        }
    }

    fn check(&mut self, group: Group, info: Bytes) {
        for link in self.links.values().filter(|l| l.dialled) {
            if !self.helpers.contains(&link.address) {
                self.helpers.push(link.address);
            }
        }
        let (events, expected) = (self.events.clone(), self.info_hash);
        // SHA-1 of much stays off the threads that serve sockets.
        let hash = self.tasks.spawn_blocking(move || {
            let right = InfoHash(Sha1::digest(&info).into()) == expected;
            let _ = events.blocking_send(Event::Checked(group, right, info));
        });
        drop(hash);
    }

    fn disconnect(&mut self, key: PeerKey, why: FetchEnd) {
        let Some(link) = self.links.remove(&key) else {
            return;
        };
        tracing::debug!(address = %link.address, ?why, "no more metadata is asked of this peer");
        link.task.abort();
        let now = self.clock.now();
        let (outcome, rest) = match why {
            FetchEnd::Without => (Outcome::Without, Some(WITHOUT_REST)),
            FetchEnd::Slow => (Outcome::Slow, Some(PATIENCE)),
            FetchEnd::Silent => (Outcome::Slow, None),
            FetchEnd::Protocol(_) => (Outcome::Wrong, None),
            FetchEnd::WrongHash => (Outcome::Wrong, None),
        };
        self.report.note(link.address, outcome);
        self.helpers
            .retain(|a| *a != link.address || outcome == Outcome::Slow);
        match (link.dialled, rest) {
            (false, _) => {}
            (true, Some(pause)) => self.book.rest(now, link.address, pause),
            (true, None) if outcome == Outcome::Wrong => self.book.lied(now, link.address),
            (true, None) => self.book.lost(now, link.address),
        }
    }

    fn lost(&mut self, link: &Link, broken: bool) {
        let now = self.clock.now();
        if broken {
            self.report.note(link.address, Outcome::Wrong);
        }
        match (link.dialled, broken) {
            (false, _) => {}
            (true, false) => self.book.lost(now, link.address),
            (true, true) => self.book.lied(now, link.address),
        }
    }

    fn failed(&self, patience: Option<Duration>) -> Error {
        let seconds = patience.unwrap_or_default().as_secs_f64();
        let text = format!(
            "the description of the image {} was not found within {seconds} s: {}; \
             name a peer that has the image with the option `peer`, check the link's trackers, or pass the .torrent file",
            self.info_hash, self.report
        );
        Error::new(ErrorKind::TimedOut, text)
    }
}

/// Moves messages both ways until either side ends, and says so.
async fn converse(
    key: PeerKey,
    stream: PeerStream,
    to_send: mpsc::UnboundedReceiver<WireMessage>,
    events: mpsc::Sender<Event>,
) {
    let ended = match stream {
        PeerStream::Tcp(stream) => {
            let (reader, writer) = stream.into_split();
            talk(key, reader, writer, to_send, &events).await
        }
        #[cfg(feature = "utp")]
        PeerStream::Utp(stream) => {
            let (reader, writer) = stream.split();
            talk(key, reader, writer, to_send, &events).await
        }
    };
    if let Err(error) = &ended {
        tracing::debug!(peer = key.0, %error, "connection ended");
    }
    let broken = ended.is_err_and(|e| e.kind() == io::ErrorKind::InvalidData);
    let _ = events.send(Event::Ended(key, broken)).await;
}

async fn talk(
    key: PeerKey,
    reader: impl Source,
    writer: impl AsyncWrite + Unpin,
    to_send: mpsc::UnboundedReceiver<WireMessage>,
    events: &mpsc::Sender<Event>,
) -> io::Result<()> {
    tokio::select! {
        r = read(key, reader, events) => r,
        w = write(writer, to_send) => w,
    }
}

async fn read(key: PeerKey, reader: impl Source, events: &mpsc::Sender<Event>) -> io::Result<()> {
    // How many pieces there are is not known yet.
    let mut receiver = Receiver::new(reader, Decoder::new(MAX_PIECES as u32));
    loop {
        let mut messages = Vec::new();
        let received = receiver.receive(&mut messages).await;
        if !messages.is_empty() && events.send(Event::Said(key, messages)).await.is_err() {
            return Ok(());
        }
        if !received? {
            return Ok(());
        }
    }
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut to_send: mpsc::UnboundedReceiver<WireMessage>,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    while let Some(message) = to_send.recv().await {
        encode(&message, &mut buffer);
        while let Ok(message) = to_send.try_recv() {
            encode(&message, &mut buffer);
        }
        match tokio::time::timeout(WRITE_PATIENCE, writer.write_all(&buffer)).await {
            Ok(result) => result?,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
        buffer.clear();
    }
    // It is closed by whoever decides.
    std::future::pending().await
}
