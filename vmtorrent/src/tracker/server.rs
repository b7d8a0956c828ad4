//! Invariant: a stranger costs one connection, 16 KiB and ten seconds at most, or one datagram, and gets an answer over HTTP even to nonsense.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use tokio::net::{TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::Event;
use super::table::{Counts, PeerTable, Query};
use super::udp::{Desk, MAX_REQUEST, UdpService};
use crate::bencode::Encoder;
use crate::clock::SystemClock;
use crate::image::InfoHash;
use crate::{Error, Result};

/// Most bytes of a request.
const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// Most peers in an answer, and how many there are when the asker doesn't say.
const MAX_NUM_WANT: usize = 200;
const DEFAULT_NUM_WANT: usize = 50;
/// Most images in the answer to a scrape.
const MAX_SCRAPE: usize = 64;
/// Pause when the system has no connection to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a [`TrackerServer`] works.
#[derive(Clone, Debug)]
pub struct TrackerServerOptions {
    /// The images that are tracked, beside those that [`TrackerServerHandle::track`] names; `None`: any, up to 1,024
    /// at once, so that strangers can use them up.
    pub images: Option<Vec<InfoHash>>,
    /// How often peers shall announce, whole seconds. Default 30 s: peers that start together find
    /// each other soon.
    pub interval: Duration,
    /// How often peers may announce, whole seconds. Default 5 s.
    pub min_interval: Duration,
    /// Most peers of all images together. Default 65,536.
    pub max_peers: usize,
    /// Longest time that a request and its answer may take. Default 10 s.
    pub timeout: Duration,
    /// Most connections at once; further ones wait in the system's queue. Default 512.
    pub max_connections: usize,
    /// What the random choice of peers starts from.
    pub seed: u64,
    /// What connection ids over UDP are made of, unknown to others; `None`: random bytes.
    pub secret: Option<[u8; 20]>,
}

impl Default for TrackerServerOptions {
    fn default() -> Self {
        Self {
            images: None,
            interval: Duration::from_secs(30),
            min_interval: Duration::from_secs(5),
            max_peers: 65_536,
            timeout: Duration::from_secs(10),
            max_connections: 512,
            seed: 0,
            secret: None,
        }
    }
}

/// A small tracker for a publisher who runs no other: over HTTP (BEP 3, 7, 23, 48; `/announce` and `/scrape`) and, on
/// the same port, over UDP (BEP 15).
///
/// Peers are kept in memory and forgotten after three intervals of silence.
#[derive(Debug)]
pub struct TrackerServer {
    listener: TcpListener,
    /// None when another program has that port for UDP.
    datagrams: Option<std::net::UdpSocket>,
    address: SocketAddr,
    options: TrackerServerOptions,
}

impl TrackerServer {
    /// Takes the address; port 0 takes any free one. Nothing is answered before [`spawn`](Self::spawn).
    ///
    /// # Errors
    /// [`ErrorKind::InUse`](crate::ErrorKind::InUse) when another program has the port, and those of the system.
    pub fn bind(address: SocketAddr, options: TrackerServerOptions) -> Result<Self> {
        let failed = |e| {
            Error::io(
                format!(
                    "cannot run a tracker on {address}; choose another address or port, or end the program that has it"
                ),
                e,
            )
        };
        let (mut listener, mut datagrams) = bind_both(address).map_err(failed)?;
        // A free port may be taken for UDP: there are others.
        for _ in 0..8 {
            if address.port() == 0 && datagrams.is_none() {
                (listener, datagrams) = bind_both(address).map_err(failed)?;
            }
        }
        if datagrams.is_none() {
            tracing::warn!("the tracker answers over HTTP only: its port is taken for UDP");
        }
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            datagrams,
            address,
            options,
        })
    }

    /// The address that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Begins to answer, on the runtime's threads.
    ///
    /// # Errors
    /// Those of the system.
    pub fn spawn(self, runtime: &Handle) -> Result<TrackerServerHandle> {
        let _context = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(self.listener)
            .map_err(|e| Error::io(format!("cannot listen on {}", self.address), e))?;
        let datagrams = self.datagrams.map(UdpSocket::from_std).transpose();
        let datagrams = datagrams
            .map_err(|e| Error::io(format!("cannot listen on {} (UDP)", self.address), e))?;
        let options = self.options;
        let service = UdpService::new(options.secret.unwrap_or_else(rand::random));
        let shared = Arc::new(Shared {
            table: Mutex::new(PeerTable::new(
                options.images.as_deref(),
                options.interval * 3,
                options.max_peers,
                options.seed,
            )),
            clock: SystemClock::start(),
            interval: options.interval.as_secs().max(1),
            min_interval: options.min_interval.as_secs(),
            timeout: options.timeout,
        });
        let (stop, stopped) = watch::channel(());
        let kept = shared.clone();
        let task = runtime.spawn(async move {
            let slots = Arc::new(Semaphore::new(options.max_connections.max(1)));
            let mut end = stopped.clone();
            tokio::select! {
                () = accept(listener, shared.clone(), slots, stopped) => {}
                () = serve_datagrams(datagrams, &service, &shared) => {}
                _ = end.changed() => {}
            }
        });
        Ok(TrackerServerHandle {
            address: self.address,
            shared: kept,
            stop,
            task,
        })
    }
}

/// A running [`TrackerServer`], which ends when this is dropped.
pub struct TrackerServerHandle {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl TrackerServerHandle {
    /// The address on which it answers.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// From now on this image is tracked too.
    pub fn track(&self, image: InfoHash) {
        self.shared.table.lock().track(image);
    }

    /// Ends it; afterwards the port is free.
    pub async fn stop(self) {
        drop(self.stop);
        // It can only have failed by a panic, and there is nothing more to end then.
        let _ = self.task.await;
    }
}

struct Shared {
    table: Mutex<PeerTable>,
    clock: SystemClock,
    /// Seconds.
    interval: u64,
    /// Seconds.
    min_interval: u64,
    timeout: Duration,
}

async fn accept(
    listener: tokio::net::TcpListener,
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    stopped: watch::Receiver<()>,
) {
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::debug!("tracker: cannot accept a connection: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let shared = shared.clone();
        let mut stopped = stopped.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let timeout = shared.timeout;
            tokio::select! {
                _ = tokio::time::timeout(timeout, connection(stream, peer, shared)) => {}
                _ = stopped.changed() => {}
            }
        });
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let peer = peer.ip().to_canonical();
    let local = local.ip().to_canonical();
    let answer = service_fn(move |request: Request<Incoming>| {
        let answer = shared.answer(&request, peer, local);
        async move { Ok::<_, Infallible>(answer) }
    });
    let result = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(MAX_REQUEST_BYTES)
        // The whole connection has a time limit, so this one is not needed.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(e) = result {
        tracing::debug!("tracker: connection from {peer}: {e}");
    }
}

type Answer = Response<Full<Bytes>>;

impl Shared {
    fn answer(&self, request: &Request<Incoming>, peer: IpAddr, local: IpAddr) -> Answer {
        if request.method() != Method::GET {
            return failure(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered");
        }
        let query = request.uri().query().unwrap_or_default();
        match request.uri().path() {
            "/announce" => self.announce(query, peer, local),
            "/scrape" => self.scrape(query),
            _ => failure(StatusCode::NOT_FOUND, "only /announce and /scrape are here"),
        }
    }

    fn announce(&self, query: &str, peer: IpAddr, local: IpAddr) -> Answer {
        let query = match announce_query(query, peer, local) {
            Ok(query) => query,
            Err(what) => return failure(StatusCode::BAD_REQUEST, what),
        };
        let Some((peers, counts)) = Desk::announce(self, &query) else {
            // Clients read the reason only if the status is good.
            return failure(StatusCode::OK, "this image is not tracked here");
        };
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for peer in peers {
            let list = match peer.ip() {
                IpAddr::V4(ip) => {
                    v4.extend(ip.octets());
                    &mut v4
                }
                IpAddr::V6(ip) => {
                    v6.extend(ip.octets());
                    &mut v6
                }
            };
            list.extend(peer.port().to_be_bytes());
        }
        success(Encoder::encode(|e| {
            e.string("complete").integer(counts.seeders as u64);
            e.string("incomplete").integer(counts.leechers as u64);
            e.string("interval").integer(self.interval);
            e.string("min interval").integer(self.min_interval);
            e.string("peers").string(&v4);
            if !v6.is_empty() {
                e.string("peers6").string(&v6);
            }
        }))
    }

    fn scrape(&self, query: &str) -> Answer {
        let mut images = Vec::new();
        for (key, value) in pairs(query) {
            if key == "info_hash" {
                let Ok(hash) = decode(value).try_into() else {
                    return failure(StatusCode::BAD_REQUEST, "info_hash has not 20 bytes");
                };
                images.push(InfoHash(hash));
            }
        }
        if images.len() > MAX_SCRAPE {
            return failure(StatusCode::BAD_REQUEST, "too many info_hash");
        }
        let mut table = self.table.lock();
        if images.is_empty() {
            images = table.images(MAX_SCRAPE);
        }
        images.sort();
        images.dedup();
        let now = self.clock.now();
        success(Encoder::encode(|e| {
            e.string("files").dictionary(|e| {
                for image in &images {
                    if let Some(counts) = table.counts(image, now) {
                        e.string(image.0).dictionary(|e| {
                            e.string("complete").integer(counts.seeders as u64);
                            e.string("downloaded").integer(counts.completions);
                            e.string("incomplete").integer(counts.leechers as u64);
                        });
                    }
                }
            });
        }))
    }
}

impl Desk for Shared {
    fn announce(&self, query: &Query) -> Option<(Vec<SocketAddr>, Counts)> {
        self.table.lock().announce(query, self.clock.now())
    }

    fn counts(&self, image: &InfoHash) -> Option<Counts> {
        self.table.lock().counts(image, self.clock.now())
    }

    fn interval(&self) -> u64 {
        self.interval
    }
}

/// The port for TCP, and for UDP unless that is taken.
fn bind_both(address: SocketAddr) -> std::io::Result<(TcpListener, Option<std::net::UdpSocket>)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let datagrams = std::net::UdpSocket::bind(listener.local_addr()?).ok();
    if let Some(datagrams) = &datagrams {
        datagrams.set_nonblocking(true)?;
    }
    Ok((listener, datagrams))
}

/// Answers datagrams one after the other: each costs a look into the table.
async fn serve_datagrams(socket: Option<UdpSocket>, service: &UdpService, shared: &Shared) {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    let mut buffer = [0; MAX_REQUEST];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(e) => {
                tracing::debug!("tracker: cannot receive a datagram: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let local = || own_address(&socket, from);
        let now = shared.clock.now();
        if let Some(answer) = service.answer(now, &buffer[..length], from, local, shared) {
            // What can't be sent is as good as lost: the peer asks again.
            let _ = socket.try_send_to(&answer, from);
        }
    }
}

/// Our address as this peer reaches it. A socket that takes any address does not tell: the system knows which one it
/// would use.
fn own_address(socket: &UdpSocket, peer: SocketAddr) -> IpAddr {
    let bound = socket.local_addr().map(|a| a.ip().to_canonical());
    if let Ok(ip) = bound
        && !ip.is_unspecified()
    {
        return ip;
    }
    let ask = || {
        let any: SocketAddr = match peer {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let probe = std::net::UdpSocket::bind(any)?;
        // Sends nothing.
        probe.connect(peer)?;
        Ok::<_, std::io::Error>(probe.local_addr()?.ip().to_canonical())
    };
    ask().unwrap_or(peer.ip())
}

/// The parameters of an announce, or what is wrong with them.
///
/// The address is the connection's: an `ip` parameter would let anyone send peers to a third party.
fn announce_query(query: &str, peer: IpAddr, local: IpAddr) -> Result<Query, &'static str> {
    let mut values = HashMap::new();
    for (key, value) in pairs(query) {
        if values.insert(key, value).is_some() {
            return Err("a parameter stands there twice");
        }
    }
    let get = |key| values.get(key).copied();
    let bytes = |key| get(key).and_then(|v| <[u8; 20]>::try_from(decode(v)).ok());
    let port = get("port")
        .and_then(|v| v.parse::<u16>().ok())
        .filter(|p| *p != 0)
        .ok_or("port is missing or wrong")?;
    let left = match get("left") {
        Some(v) => v.parse::<u64>().map_err(|_| "left is wrong")?,
        None => u64::MAX,
    };
    let num_want = match get("numwant") {
        // Some clients say -1 for as many as the tracker likes.
        Some(v) => match v.parse::<i64>().map_err(|_| "numwant is wrong")? {
            n if n < 0 => DEFAULT_NUM_WANT,
            n => (n as usize).min(MAX_NUM_WANT),
        },
        None => DEFAULT_NUM_WANT,
    };
    let event = match get("event") {
        Some("started") => Some(Event::Started),
        Some("completed") => Some(Event::Completed),
        Some("stopped") => Some(Event::Stopped),
        // BEP 3 has an empty one; BEP 21 adds `paused`, which is a plain announce here.
        Some(_) | None => None,
    };
    Ok(Query {
        info_hash: InfoHash(bytes("info_hash").ok_or("info_hash is missing or has not 20 bytes")?),
        peer_id: bytes("peer_id").ok_or("peer_id is missing or has not 20 bytes")?,
        address: SocketAddr::new(peer, port),
        local,
        seeding: left == 0,
        event,
        num_want,
    })
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
}

fn decode(value: &str) -> Vec<u8> {
    percent_decode_str(value).collect()
}

fn success(body: Vec<u8>) -> Answer {
    answer(StatusCode::OK, body)
}

fn failure(status: StatusCode, reason: &str) -> Answer {
    answer(
        status,
        Encoder::encode(|e| {
            e.string("failure reason").string(reason);
        }),
    )
}

fn answer(status: StatusCode, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("text/plain"),
    );
    answer
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "server_load_tests.rs"]
mod load_tests;
