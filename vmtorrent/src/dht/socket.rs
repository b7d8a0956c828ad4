//! Invariant: a node has the session's UDP socket of its family where there is one, and else a socket of its own, so that
//! it never takes from uTP the port under which peers look for it.

use std::io;
use std::net::SocketAddr;

use tokio::net::UdpSocket;

use super::discovery::DhtConfig;
use crate::udp::bind_beside;
#[cfg(feature = "utp")]
use crate::utp::DhtDatagrams;

/// Where a node sends and receives.
pub(super) enum Socket {
    Own(UdpSocket),
    #[cfg(feature = "utp")]
    Shared(DhtDatagrams),
}

impl Socket {
    /// # Errors
    /// Those of the system, where the family can't be used.
    pub(super) fn open(config: &DhtConfig, six: bool) -> io::Result<Self> {
        #[cfg(feature = "utp")]
        if let Some(shared) = config.shared.iter().find_map(|d| d.for_dht(six)) {
            return Ok(Self::Shared(shared));
        }
        bind_beside(config.listener, six).map(Self::Own)
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Own(socket) => socket.local_addr(),
            #[cfg(feature = "utp")]
            Self::Shared(datagrams) => Ok(datagrams.address()),
        }
    }

    /// For what is sent.
    pub(super) fn sender(&self) -> &UdpSocket {
        match self {
            Self::Own(socket) => socket,
            #[cfg(feature = "utp")]
            Self::Shared(datagrams) => datagrams.socket(),
        }
    }

    /// The next datagram.
    pub(super) async fn recv_from(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self {
            Self::Own(socket) => socket.recv_from(buffer).await,
            #[cfg(feature = "utp")]
            Self::Shared(datagrams) => datagrams.recv_from(buffer).await,
        }
    }
}
