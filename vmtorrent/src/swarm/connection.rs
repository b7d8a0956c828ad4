//! Invariant: a connection's task only moves bytes; what they mean is decided in the engine. The reader
//! never waits for the writer, nor the writer for the reader.

use std::collections::VecDeque;
use std::fmt::{self, Debug};
use std::io;
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;
use vmtorrent_platform::set_unsent_low_water;

use super::Swarm;
use super::places::Activity;
use super::receiver::{Receiver, Source};
use super::stream::PeerStream;
use super::wire::{
    Decoder, HANDSHAKE_LENGTH, PIECE_MESSAGE_LENGTH, PeerHandshake, WireMessage, WireRequest,
    decode_handshake, encode, encode_handshake,
};
use crate::image::InfoHash;
use crate::picker::PeerKey;

/// What the writer of a connection is told to send.
#[derive(Debug)]
pub(super) enum Outgoing {
    Message(WireMessage),
    Block(WireRequest),
    /// Blocks may go in compressed form from now on, under this number; `None`: plain only.
    Compress(Option<NonZeroU8>),
}

/// How long opening a connection and the handshake may take, each.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the other side may leave what we send unread.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that are gathered for one write.
const WRITE_BATCH: usize = 64 << 10;

/// Bytes that a socket holds unsent: 10 ms at 100 Mbit/s, and enough for 10 Gbit/s if we wake within 0.1 ms.
const UNSENT: usize = 128 << 10;

/// An open connection after the handshakes.
pub(crate) struct Opened {
    pub(super) stream: PeerStream,
    pub(super) handshake: PeerHandshake,
    /// How long the connection took to open: a first guess at the round trip.
    pub(super) connect_time: Option<Duration>,
}

/// Reads the handshake of a peer that connected to us; [`answer`] must follow.
pub(crate) async fn greet(stream: &mut PeerStream) -> io::Result<PeerHandshake> {
    stream.set_nodelay()?;
    timely(read_handshake(stream)).await
}

/// Answers the handshake of a peer that connected to us. `dht`: as for [`Dialler::dial`](super::Dialler::dial).
pub(crate) async fn answer(
    stream: &mut PeerStream,
    info_hash: InfoHash,
    our_id: [u8; 20],
    dht: bool,
) -> io::Result<()> {
    timely(stream.write_all(&encode_handshake(info_hash, our_id, dht))).await
}

pub(super) async fn read_handshake(stream: &mut PeerStream) -> io::Result<PeerHandshake> {
    let mut bytes = [0; HANDSHAKE_LENGTH];
    stream.read_exact(&mut bytes).await?;
    decode_handshake(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))
}

pub(super) async fn timely<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(PATIENCE, what).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Moves messages both ways until either side ends.
pub(super) async fn run(
    swarm: Arc<Swarm>,
    key: PeerKey,
    stream: PeerStream,
    outgoing: mpsc::Receiver<Outgoing>,
    activity: Arc<Activity>,
) {
    match stream {
        PeerStream::Tcp(stream) => {
            if let Err(error) = set_unsent_low_water(&stream, UNSENT) {
                tracing::debug!(peer = key.0, %error, "the socket may hold much that is unsent");
            }
            let (reader, writer) = stream.into_split();
            exchange(swarm, key, reader, writer, outgoing, activity).await;
        }
        #[cfg(feature = "utp")]
        PeerStream::Utp(stream) => {
            let (reader, writer) = stream.split();
            exchange(swarm, key, reader, writer, outgoing, activity).await;
        }
    }
}

async fn exchange(
    swarm: Arc<Swarm>,
    key: PeerKey,
    reader: impl Source,
    writer: impl AsyncWrite + Unpin + Send + 'static,
    outgoing: mpsc::Receiver<Outgoing>,
    activity: Arc<Activity>,
) {
    // A task of its own: requests must go out also while blocks come in without a pause.
    let mut writer = AbortOnDropHandle::new(tokio::spawn(
        write(swarm.clone(), key, writer, outgoing).in_current_span(),
    ));
    let result = tokio::select! {
        r = read(&swarm, key, reader) => r,
        w = &mut writer => w.unwrap_or_else(|e| Err(io::Error::other(e))),
        () = activity.given_up() => {
            tracing::debug!(peer = key.0, "the connection gives its place to another peer");
            return swarm.gave_way(key);
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = key.0, %error, "connection ended");
    }
    swarm.closed(key);
}

async fn read(swarm: &Arc<Swarm>, key: PeerKey, reader: impl Source) -> io::Result<()> {
    let decoder = Decoder::new(swarm.image().geometry().piece_count());
    let mut receiver = Receiver::new(reader, decoder);
    let mut messages = Vec::new();
    loop {
        let received = receiver.receive(&mut messages).await;
        for message in &messages {
            tracing::trace!(peer = key.0, message = %Brief(message), "received");
        }
        // What stands before the first bad one is heard all the same.
        let expanded = match &swarm.packer {
            Some(packer) => packer.codec().expand_all(&mut messages),
            None => Ok(()),
        };
        swarm.received(key, &mut messages);
        expanded.map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))?;
        if !received? {
            return Ok(());
        }
    }
}

async fn write(
    swarm: Arc<Swarm>,
    key: PeerKey,
    mut writer: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::Receiver<Outgoing>,
) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(WRITE_BATCH + PIECE_MESSAGE_LENGTH);
    let mut waiting: VecDeque<WireRequest> = VecDeque::new();
    let mut blocks = Vec::new();
    let mut compress = None;
    loop {
        if waiting.is_empty() {
            match outgoing.recv().await {
                Some(item) => sort(key, item, &mut buffer, &mut waiting, &mut compress),
                None => return Ok(()),
            }
        }
        // Messages are small and may be a demand read's: they go before the blocks that wait.
        while buffer.len() < WRITE_BATCH
            && let Ok(item) = outgoing.try_recv()
        {
            sort(key, item, &mut buffer, &mut waiting, &mut compress);
        }
        swarm
            .append_blocks(
                &mut waiting,
                compress,
                WRITE_BATCH,
                &mut buffer,
                &mut blocks,
            )
            .await;
        match tokio::time::timeout(WRITE_PATIENCE, writer.write_all(&buffer)).await {
            Ok(result) => result?,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
        buffer.clear();
        swarm.blocks_sent(key, &mut blocks);
    }
}

/// A message is encoded at once, a block waits for its turn.
fn sort(
    key: PeerKey,
    item: Outgoing,
    buffer: &mut BytesMut,
    waiting: &mut VecDeque<WireRequest>,
    compress: &mut Option<NonZeroU8>,
) {
    tracing::trace!(peer = key.0, message = %Brief(&item), "sending");
    match item {
        Outgoing::Message(message) => encode(&message, buffer),
        Outgoing::Block(request) => waiting.push_back(request),
        Outgoing::Compress(extension) => *compress = extension,
    }
}

/// The beginning of what a message looks like: a block is long.
struct Brief<'a, T>(&'a T);

impl<T: Debug> fmt::Display for Brief<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Takes so many bytes and no more.
        struct Short<'a, 'b>(&'a mut fmt::Formatter<'b>, usize);
        impl fmt::Write for Short<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.1 = self.1.checked_sub(text.len()).ok_or(fmt::Error)?;
                self.0.write_str(text)
            }
        }
        // It ends early when there is no room for more.
        let _ = fmt::Write::write_fmt(&mut Short(f, 100), format_args!("{:?}", self.0));
        Ok(())
    }
}
