//! Invariant: uTP is tried only where no TCP connection came about, and what comes after it (the next attempt) comes no
//! later for that than by the time that uTP was given.

use std::io;
use std::net::SocketAddr;
#[cfg(feature = "utp")]
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::connection::{Opened, read_handshake, timely};
use super::stream::PeerStream;
use super::wire::encode_handshake;
use crate::image::InfoHash;
#[cfg(feature = "utp")]
use crate::utp::Utp;

/// How long uTP is tried where TCP was refused: most such hosts have nobody there at all.
#[cfg(feature = "utp")]
const PATIENCE_REFUSED: Duration = Duration::from_millis(1_500);
/// The same where TCP met with silence, as at a router that lets nobody in.
#[cfg(feature = "utp")]
const PATIENCE_SILENT: Duration = Duration::from_secs(3);

/// How a session reaches peers: over TCP, and over uTP where that fails and uTP is on.
#[derive(Clone, Default)]
pub(crate) struct Dialler {
    #[cfg(feature = "utp")]
    pub(crate) utp: Option<Arc<Utp>>,
}

/// A peer that was not reached.
pub(crate) struct Missed {
    pub(crate) error: io::Error,
    /// How long uTP was tried in vain.
    pub(crate) in_vain: Duration,
}

impl From<io::Error> for Missed {
    fn from(error: io::Error) -> Self {
        let in_vain = Duration::ZERO;
        Self { error, in_vain }
    }
}

impl Dialler {
    /// Connects to a peer and exchanges handshakes. `dht`: ours says that nodes of the DHT may be told of.
    ///
    /// # Errors
    /// Why TCP failed, if uTP failed too; and what became of the handshake.
    pub(crate) async fn dial(
        &self,
        address: SocketAddr,
        info_hash: InfoHash,
        our_id: [u8; 20],
        dht: bool,
    ) -> Result<Opened, Missed> {
        let (mut stream, connect_time) = self.connect(address).await?;
        stream.set_nodelay()?;
        let handshake = timely(async {
            let ours = encode_handshake(info_hash, our_id, dht);
            stream.write_all(&ours).await?;
            read_handshake(&mut stream).await
        })
        .await?;
        if handshake.info_hash != info_hash {
            let error = io::Error::new(io::ErrorKind::InvalidData, "another info-hash");
            return Err(error.into());
        }
        Ok(Opened {
            stream,
            handshake,
            connect_time: Some(connect_time),
        })
    }

    /// A stream to a peer, and how long it took to open.
    async fn connect(&self, address: SocketAddr) -> Result<(PeerStream, Duration), Missed> {
        let start = Instant::now();
        match timely(TcpStream::connect(address)).await {
            Ok(stream) => Ok((PeerStream::Tcp(stream), start.elapsed())),
            Err(error) => self.connect_utp(address, error).await,
        }
    }

    #[cfg(feature = "utp")]
    async fn connect_utp(
        &self,
        address: SocketAddr,
        error: io::Error,
    ) -> Result<(PeerStream, Duration), Missed> {
        let Some(utp) = &self.utp else {
            return Err(error.into());
        };
        let patience = match error.kind() {
            io::ErrorKind::ConnectionRefused => PATIENCE_REFUSED,
            _ => PATIENCE_SILENT,
        };
        let start = Instant::now();
        match utp.connect(address, patience).await {
            Ok(stream) => Ok((PeerStream::Utp(stream), start.elapsed())),
            Err(utp) => {
                tracing::debug!(%address, error = %utp, "nor over uTP");
                let in_vain = start.elapsed();
                Err(Missed { error, in_vain })
            }
        }
    }

    #[cfg(not(feature = "utp"))]
    async fn connect_utp(
        &self,
        _: SocketAddr,
        error: io::Error,
    ) -> Result<(PeerStream, Duration), Missed> {
        Err(error.into())
    }
}
