//! uTP (BEP 29): streams to peers that TCP does not reach, over UDP.
//!
//! Invariant: a session has at most one UDP socket of each family for uTP, and it is gone when [`Utp::stop`] has ended.

mod datagrams;

use self::datagrams::Datagrams;
pub(crate) use self::datagrams::{DhtDatagrams, WeakDatagrams};

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use librqbit_utp::{SocketOpts, UtpSocket, UtpSocketUdp, UtpStream};
use parking_lot::Mutex;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::udp::bind_beside;

/// The crate names the clock and the source of chance of its sockets nowhere but in an alias; this reads them there.
trait HasEnvironment {
    type Environment;
}
impl<T, E> HasEnvironment for UtpSocket<T, E> {
    type Environment = E;
}
type Environment = <UtpSocketUdp as HasEnvironment>::Environment;

/// A UDP socket that carries streams.
type Socket = UtpSocket<Datagrams, Environment>;

/// How often a connection is asked for: the crate sends that datagram once, and it may be lost. An answer to any counts.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long a peer may leave what we sent without a word.
const SILENCE: Duration = Duration::from_secs(30);
/// Streams beside those that have a place in the session: handshakes, and streams that are being closed.
const SPARE_STREAMS: usize = 128;
/// Bytes that a stream holds of what was not read yet, and as many of what is on its way: 80 Mbit/s at 50 ms.
const STREAM_BUFFER: Option<NonZeroUsize> = NonZeroUsize::new(512 << 10);
/// Bytes that the system may hold for us.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How long the other sides may take at the end to hear that our streams end.
const END_PATIENCE: Duration = Duration::from_millis(500);

/// The uTP of a session.
pub(crate) struct Utp {
    sockets: Mutex<Vec<Bound>>,
    ends: CancellationToken,
}

#[derive(Clone)]
struct Bound {
    six: bool,
    socket: Arc<Socket>,
    datagrams: Datagrams,
}

impl Utp {
    /// Opens sockets for the families of which `listener` takes peers, under its port's number where that is free. To be
    /// called in the session's runtime. `connections`: those that the session may have.
    ///
    /// `None` when there is not one, which is no error: TCP goes on without.
    pub(crate) fn open(listener: SocketAddr, connections: usize) -> Option<Arc<Self>> {
        let ends = CancellationToken::new();
        let open = |six| -> io::Result<Bound> {
            let socket = bind_beside(listener, six)?;
            let address = socket.local_addr()?;
            if address.port() == listener.port() {
                tracing::debug!(%address, "takes peers over uTP");
            } else {
                tracing::info!(
                    %address,
                    "UDP port {} is taken: peers are dialled over uTP, but can't reach us so",
                    listener.port()
                );
            }
            // More waits there while we are busy; the system may grant less.
            let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
            let datagrams = Datagrams::new(socket, address);
            let options = SocketOpts {
                // What is sent is gathered before it gets here.
                disable_nagle: true,
                vsock_rx_bufsize_bytes: STREAM_BUFFER,
                vsock_tx_bufsize_bytes_max: STREAM_BUFFER,
                remote_inactivity_timeout: Some(SILENCE),
                max_live_vsocks: NonZeroUsize::new(connections.saturating_add(SPARE_STREAMS)),
                cancellation_token: ends.clone(),
                ..SocketOpts::default()
            };
            let socket = Socket::new_with_opts(datagrams.clone(), Environment::default(), options);
            Ok(Bound {
                six,
                socket: socket.map_err(io::Error::other)?,
                datagrams,
            })
        };
        let opened = [false, true].into_iter().filter_map(|six| {
            open(six)
                .inspect_err(|error| tracing::debug!(six, %error, "no uTP"))
                .ok()
        });
        let sockets: Vec<Bound> = opened.collect();
        (!sockets.is_empty()).then(|| {
            Arc::new(Self {
                sockets: Mutex::new(sockets),
                ends,
            })
        })
    }

    /// The sockets, for who shares them: the nodes of the DHT.
    pub(crate) fn datagrams(&self) -> Vec<WeakDatagrams> {
        let sockets = self.sockets.lock();
        sockets.iter().map(|b| b.datagrams.downgrade()).collect()
    }

    /// Connects to a peer; `patience`: for how long it is tried.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when nobody answered, [`io::ErrorKind::Unsupported`] when the session has no socket of
    /// that family, and what the stream reports.
    pub(crate) async fn connect(
        &self,
        peer: SocketAddr,
        patience: Duration,
    ) -> io::Result<UtpStream> {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let socket = {
            let sockets = self.sockets.lock();
            let of_family = sockets.iter().find(|b| b.six == peer.is_ipv6());
            of_family.map(|b| b.socket.clone())
        };
        let socket = socket.ok_or(io::ErrorKind::Unsupported)?;
        let mut asked = FuturesUnordered::new();
        let mut again = interval(ASK_EVERY);
        let connected = async {
            loop {
                tokio::select! {
                    _ = again.tick() => asked.push(socket.connect(peer)),
                    Some(connected) = asked.next() => return connected.map_err(io::Error::other),
                }
            }
        };
        match timeout(patience, connected).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// What takes the streams that peers open: one for each socket.
    pub(crate) fn acceptors(&self) -> Vec<Acceptor> {
        let sockets = self.sockets.lock();
        let acceptors = sockets.iter().map(|b| Acceptor(b.socket.clone()));
        acceptors.collect()
    }

    /// Ends all streams and frees the ports. Whoever uses streams should have let go of them: then the other sides are
    /// told.
    pub(crate) async fn stop(&self) {
        let sockets = std::mem::take(&mut *self.sockets.lock());
        let datagrams: Vec<_> = sockets.iter().map(|b| b.datagrams.downgrade()).collect();
        // Those that are left then: ours, and that of the task that receives.
        let streams_end = async {
            while sockets.iter().any(|b| Arc::strong_count(&b.socket) > 2) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(END_PATIENCE, streams_end).await;
        self.ends.cancel();
        drop(sockets);
        let closed = async {
            while datagrams.iter().any(|d| d.is_open()) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = timeout(END_PATIENCE, closed).await;
    }
}

/// Takes the streams that peers open to one of the sockets.
pub(crate) struct Acceptor(Arc<Socket>);

impl Acceptor {
    /// The next one; `None` when uTP has ended.
    pub(crate) async fn accept(&self) -> Option<UtpStream> {
        self.0.accept().await.ok()
    }
}

#[cfg(test)]
mod tests;
