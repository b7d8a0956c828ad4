//! Where peers connect to a session.
//!
//! Invariant: a peer is let in only for an image that is here, or whose description is being fetched.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::Shared;
use crate::clock::SystemClock;
use crate::error::{Error, Result};
use crate::log_limit::LogLimit;
use crate::swarm::{ACCEPT_PAUSE, Admission, Door, answer, greet};

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
    task: JoinHandle<()>,
    door: Arc<Door>,
}

impl Listener {
    pub(super) fn start(handle: &Handle, socket: TcpListener, shared: Weak<Shared>) -> Self {
        let door = Arc::<Door>::default();
        let task = handle.spawn(accept(socket, shared, door.clone()));
        Self { task, door }
    }

    /// Afterwards the port is free, and nobody is at the door any more.
    pub(super) async fn stop(self) {
        self.task.abort();
        // That it was aborted is what is waited for.
        let _ = self.task.await;
        self.door.close();
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
        // Only a weak handle: a stranger must not keep a session alive.
        let host = shared.clone();
        let greeting = async move {
            if let Err(error) = welcome(&host, stream).await {
                tracing::debug!(%address, %error, "a peer was not let in");
            }
        };
        match door.greet(strong.handle(), strong.clock.now(), address.ip(), greeting) {
            Admission::Greeted => {}
            Admission::InsteadOfAnother => strong.counters.refused_busy.increment(),
            Admission::TooOften => {
                strong.counters.refused_busy.increment();
                tracing::debug!(%address, "it connects too often");
            }
        }
    }
}

/// Answers a peer that connected: whichever of our torrents it names.
async fn welcome(host: &Weak<Shared>, mut stream: TcpStream) -> io::Result<()> {
    let ended = || io::Error::other("the session has ended");
    let shared = || host.upgrade().ok_or_else(ended);
    let failed = |_: &io::Error| {
        if let Some(shared) = host.upgrade() {
            shared.counters.refused_handshake.increment();
        }
    };
    let handshake = greet(&mut stream).await.inspect_err(failed)?;
    let info_hash = handshake.info_hash;
    let our_id = {
        let shared = shared()?;
        if shared.torrent(info_hash).is_none() && !shared.awaits(info_hash) {
            shared.counters.refused_unknown.increment();
            let text = "it asks for an image that is not here";
            return Err(io::Error::other(text));
        }
        shared.peer_id
    };
    answer(&mut stream, info_hash, our_id)
        .await
        .inspect_err(failed)?;
    let shared = shared()?;
    match shared.torrent(info_hash) {
        Some(torrent) => torrent.swarm().accept(stream, handshake),
        None => shared.arrived(stream, handshake),
    }
    Ok(())
}
