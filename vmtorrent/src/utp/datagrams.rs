//! Invariant: a datagram goes to the DHT or to uTP by its first byte, and one that nobody takes is lost, as on the way;
//! no error of the socket ends it.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use dontfrag::UdpSocketExt;
use librqbit_dualstack_sockets::PollSendToVectored;
use librqbit_utp::Transport;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// Pause after an error of the socket, so that one that persists is no loop.
const PAUSE: Duration = Duration::from_millis(10);
/// Datagrams that wait for the DHT.
const DHT_QUEUE: usize = 256;

/// What came, and from whom.
type Datagram = (Vec<u8>, SocketAddr);

/// A UDP socket for uTP, and for a node of the DHT if there is one. What uTP sends has a 1 to 4 bits high and a 1 as its
/// version below (BEP 29); a message of the DHT is a dictionary, which begins with a `d` (BEP 5).
#[derive(Clone)]
pub(crate) struct Datagrams(Arc<Inner>);

struct Inner {
    socket: UdpSocket,
    address: SocketAddr,
    senders: Arc<Senders>,
    /// Wakes them all.
    all_senders: Waker,
    /// Where those of the DHT go.
    dht: Mutex<Option<mpsc::Sender<Datagram>>>,
}

/// A socket that is not kept open by this.
pub(crate) struct WeakDatagrams(Weak<Inner>);

impl WeakDatagrams {
    pub(super) fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// The DHT's part of the socket, if it is open and of that family. There is one at a time.
    pub(crate) fn for_dht(&self, six: bool) -> Option<DhtDatagrams> {
        let datagrams = Datagrams(self.0.upgrade()?);
        if datagrams.0.address.is_ipv6() != six {
            return None;
        }
        let (sender, receiver) = mpsc::channel(DHT_QUEUE);
        *datagrams.0.dht.lock() = Some(sender);
        Some(DhtDatagrams {
            datagrams,
            receiver,
        })
    }
}

impl Datagrams {
    /// `address`: the socket's.
    pub(super) fn new(socket: UdpSocket, address: SocketAddr) -> Self {
        // uTP finds out how long datagrams may be that are not cut up on the way. Without it they are.
        let _ = match address {
            SocketAddr::V4(_) => socket.set_dontfrag_v4(true),
            SocketAddr::V6(_) => socket.set_dontfrag_v6(true),
        };
        let senders = Arc::<Senders>::default();
        Self(Arc::new(Inner {
            socket,
            address,
            all_senders: senders.clone().into(),
            senders,
            dht: Mutex::new(None),
        }))
    }

    pub(super) fn downgrade(&self) -> WeakDatagrams {
        WeakDatagrams(Arc::downgrade(&self.0))
    }
}

impl Inner {
    fn pass_to_dht(&self, datagram: &[u8], from: SocketAddr) {
        if let Some(dht) = &*self.dht.lock() {
            let _ = dht.try_send((datagram.to_vec(), from));
        }
    }
}

fn is_of_dht(datagram: &[u8]) -> bool {
    datagram.first() == Some(&b'd')
}

/// The part of a socket that carries the DHT's messages.
pub(crate) struct DhtDatagrams {
    datagrams: Datagrams,
    receiver: mpsc::Receiver<Datagram>,
}

impl DhtDatagrams {
    pub(crate) fn address(&self) -> SocketAddr {
        self.datagrams.0.address
    }

    /// For what is sent.
    pub(crate) fn socket(&self) -> &UdpSocket {
        &self.datagrams.0.socket
    }

    /// The next datagram, cut to the buffer; how long it is, and from whom.
    ///
    /// # Errors
    /// When somebody else took over the part.
    pub(crate) async fn recv_from(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let received = self.receiver.recv().await;
        let (datagram, from) = received.ok_or(io::ErrorKind::NotConnected)?;
        let length = datagram.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram[..length]);
        Ok((length, from))
    }
}

impl Transport for Datagrams {
    async fn recv_from<'a>(&'a self, buffer: &'a mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            match self.0.socket.recv_from(buffer).await {
                Ok((length, from)) if is_of_dht(&buffer[..length]) => {
                    self.0.pass_to_dht(&buffer[..length], from);
                }
                Ok(received) => return Ok(received),
                Err(error) => {
                    tracing::debug!(%error, "uTP receives nothing");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn send_to<'a>(
        &'a self,
        datagram: &'a [u8],
        to: SocketAddr,
    ) -> impl Future<Output = io::Result<usize>> + Send + Sync + 'a {
        self.0.socket.send_to(datagram, to)
    }

    fn poll_send_to(
        &self,
        context: &mut Context<'_>,
        datagram: &[u8],
        to: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.poll_send_to_vectored(context, &[IoSlice::new(datagram)], to)
    }

    fn bind_addr(&self) -> SocketAddr {
        self.0.address
    }
}

impl PollSendToVectored for Datagrams {
    fn poll_send_to_vectored(
        &self,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
        to: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        let Inner {
            socket,
            senders,
            all_senders,
            ..
        } = &*self.0;
        let send = || SockRef::from(socket).send_to_vectored(parts, &to.into());
        loop {
            match socket.try_io(Interest::WRITABLE, send) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
            senders.add(context.waker());
            ready!(socket.poll_send_ready(&mut Context::from_waker(all_senders)))?;
        }
    }
}

/// Who waits for room in the socket. The socket itself remembers only the last who asked, and many streams share it.
#[derive(Default)]
struct Senders(Mutex<Vec<Waker>>);

impl Senders {
    fn add(&self, waker: &Waker) {
        let mut waiting = self.0.lock();
        if !waiting.iter().any(|w| w.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }
}

impl Wake for Senders {
    fn wake(self: Arc<Self>) {
        let waiting = std::mem::take(&mut *self.0.lock());
        for waker in waiting {
            waker.wake();
        }
    }
}
