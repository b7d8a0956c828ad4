//! Where peers connect to a session.
//!
//! Invariant: a peer is let in only for an image that is here, or whose description is being fetched.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use tokio::net::{TcpListener, TcpStream};

use super::Shared;
use crate::clock::SystemClock;
use crate::error::{Error, Result};
use crate::log_limit::LogLimit;
use crate::swarm::{ACCEPT_PAUSE, Door, answer, greet};

pub(super) fn listen(address: SocketAddr) -> Result<TcpListener> {
    let context = || {
        format!(
            "listening for peers on {address}: choose another address or port with --listen, or port 0 for any"
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

pub(super) async fn accept(listener: TcpListener, shared: Weak<Shared>) {
    let door = Arc::new(Door::default());
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
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let (handle, now) = (shared.handle().clone(), shared.clock.now());
        let host = shared.clone();
        let greeting = async move {
            if let Err(error) = host.welcome(stream).await {
                tracing::debug!(%address, %error, "a peer was not let in");
            }
        };
        if !door.greet(&handle, now, address.ip(), greeting) {
            shared.counters.refused_busy.increment();
            tracing::debug!(%address, "it connects too often");
        }
    }
}
impl Shared {
    /// Answers a peer that connected: whichever of our torrents it names.
    async fn welcome(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let failed = |_: &std::io::Error| self.counters.refused_handshake.increment();
        let handshake = greet(&mut stream).await.inspect_err(failed)?;
        let Some(torrent) = self.torrent(handshake.info_hash) else {
            if self.awaits(handshake.info_hash) {
                answer(&mut stream, handshake.info_hash, self.peer_id).await?;
                self.arrived(stream, handshake);
                return Ok(());
            }
            self.counters.refused_unknown.increment();
            return Err(std::io::Error::other(
                "it asks for an image that is not here",
            ));
        };
        answer(&mut stream, handshake.info_hash, self.peer_id)
            .await
            .inspect_err(failed)?;
        torrent.swarm().accept(stream, handshake);
        Ok(())
    }
}
