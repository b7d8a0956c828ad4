//! Where peers connect to a session.
//!
//! Invariant: a peer is let in only for an image that is here, or whose description is being fetched.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::Shared;
use crate::clock::SystemClock;
use crate::error::{Error, Result};
use crate::log_limit::LogLimit;
use crate::swarm::{ACCEPT_PAUSE, Admission, Door, PeerStream, answer, greet};
#[cfg(feature = "utp")]
use crate::utp::{Acceptor, Utp};

pub(super) fn listen(address: SocketAddr) -> Result<TcpListener> {
    let context = || {
        format!(
            "listening for peers on {address}: choose another address or port with the option `listen`, or port 0 for any"
        )
    };
    let bind = || -> std::io::Result<TcpListener> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|e| Error::io(context(), e))
}

/// Lets peers in, until it is stopped or the session's threads end.
pub(super) struct Listener {
    tasks: Vec<JoinHandle<()>>,
    doors: Vec<Arc<Door>>,
}

impl Listener {
    pub(super) fn start(handle: &Handle, socket: TcpListener, shared: Weak<Shared>) -> Self {
        let door = Arc::<Door>::default();
        let task = handle.spawn(accept(socket, shared, door.clone()));
        Self {
            tasks: vec![task],
            doors: vec![door],
        }
    }

    /// Lets peers in over uTP too. They have a door of their own: a sender's address can be forged there, and who does that
    /// shall not push out anybody who comes over TCP.
    #[cfg(feature = "utp")]
    pub(super) fn add(&mut self, handle: &Handle, utp: &Utp, shared: &Weak<Shared>) {
        let door = Arc::<Door>::default();
        for acceptor in utp.acceptors() {
            let accept = accept_utp(acceptor, shared.clone(), door.clone());
            self.tasks.push(handle.spawn(accept));
        }
        self.doors.push(door);
    }

    /// Afterwards the TCP port is free, and nobody is at the door any more.
    pub(super) async fn stop(self) {
        for task in self.tasks {
            task.abort();
            // That it was aborted is what is waited for.
            let _ = task.await;
        }
        for door in self.doors {
            door.close();
        }
    }
}

async fn accept(listener: TcpListener, shared: Weak<Shared>, door: Arc<Door>) {
    let failures = LogLimit::default();
    let clock = SystemClock::start();
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: give others time to close some.
                if let Some(repeated) = failures.admit(clock.now()) {
                    tracing::warn!(%error, repeated, "accepting a peer failed: raise the limit of open files, if that is the cause");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(strong) = shared.upgrade() else {
            return;
        };
        let_in(&strong, &door, PeerStream::Tcp(stream), address);
    }
}

#[cfg(feature = "utp")]
async fn accept_utp(acceptor: Acceptor, shared: Weak<Shared>, door: Arc<Door>) {
    while let Some(stream) = acceptor.accept().await {
        let Some(strong) = shared.upgrade() else {
            return;
        };
        let address = stream.remote_addr();
        let_in(&strong, &door, PeerStream::Utp(stream), address);
    }
}

/// Greets who has connected, unless it comes too often.
fn let_in(shared: &Arc<Shared>, door: &Arc<Door>, stream: PeerStream, address: SocketAddr) {
    // Only a weak handle: a stranger must not keep a session alive.
    let host = Arc::downgrade(shared);
    let greeting = async move {
        if let Err(error) = welcome(&host, stream).await {
            tracing::debug!(%address, %error, "a peer was not let in");
        }
    };
    let now = shared.clock.now();
    match door.greet(shared.handle(), now, address.ip(), greeting) {
        Admission::Greeted => {}
        Admission::InsteadOfAnother => shared.counters.refused_busy.increment(),
        Admission::TooOften => {
            shared.counters.refused_busy.increment();
            tracing::debug!(%address, "it connects too often");
        }
    }
}

/// Answers a peer that connected: whichever of our torrents it names.
async fn welcome(host: &Weak<Shared>, mut stream: PeerStream) -> io::Result<()> {
    let ended = || io::Error::other("the session has ended");
    let shared = || host.upgrade().ok_or_else(ended);
    let failed = |_: &io::Error| {
        if let Some(shared) = host.upgrade() {
            shared.counters.refused_handshake.increment();
        }
    };
    let handshake = greet(&mut stream).await.inspect_err(failed)?;
    let info_hash = handshake.info_hash;
    let (our_id, dht) = {
        let shared = shared()?;
        let torrent = shared.torrent(info_hash);
        if torrent.is_none() && !shared.awaits(info_hash) {
            shared.counters.refused_unknown.increment();
            let text = "it asks for an image that is not here";
            return Err(io::Error::other(text));
        }
        // Before its description is here, nobody knows whether the image is private.
        let dht = torrent.is_some_and(|t| t.swarm().tells_of_nodes());
        (shared.peer_id, dht)
    };
    answer(&mut stream, info_hash, our_id, dht)
        .await
        .inspect_err(failed)?;
    let shared = shared()?;
    match shared.torrent(info_hash) {
        Some(torrent) => torrent.swarm().accept(stream, handshake),
        None => shared.arrived(stream, handshake),
    }
    Ok(())
}
