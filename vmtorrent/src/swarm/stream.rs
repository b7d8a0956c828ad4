//! Invariant: whichever way the bytes go, what is read and written is the same; only hints for a socket differ.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

#[cfg(feature = "utp")]
use librqbit_utp::UtpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection with a peer.
pub(crate) enum PeerStream {
    Tcp(TcpStream),
    #[cfg(feature = "utp")]
    Utp(UtpStream),
}

impl PeerStream {
    /// The other end. A peer that has reset a TCP connection has no address any more.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr(),
            #[cfg(feature = "utp")]
            Self::Utp(stream) => Ok(stream.remote_addr()),
        }
    }

    /// Whether it goes over uTP.
    pub(crate) fn is_utp(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            #[cfg(feature = "utp")]
            Self::Utp(_) => true,
        }
    }

    /// What is written goes out at once: we gather ourselves what belongs together. A uTP socket is made so.
    ///
    /// # Errors
    /// Those of the socket.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            #[cfg(feature = "utp")]
            Self::Utp(_) => Ok(()),
        }
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            #[cfg(feature = "utp")]
            Self::Utp(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            #[cfg(feature = "utp")]
            Self::Utp(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            #[cfg(feature = "utp")]
            Self::Utp(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            #[cfg(feature = "utp")]
            Self::Utp(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
