//! Invariant: a message that was begun is whole within [`MESSAGE_PATIENCE`], or the connection ends; a batch of
//! messages is bounded; and a peer that says too much is read no faster than the [`Pace`], so that its words wait in
//! its own buffers. The socket wakes us no sooner than when the message at hand can be whole.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{Instant, timeout_at};
use vmtorrent_platform::set_receive_low_water;

use super::wire::{Decoder, PIECE_MESSAGE_LENGTH, WireMessage};

/// How long a message may take from its first byte to its last. A whole block takes that long at half a kilobyte a
/// second; who is slower is of no use.
const MESSAGE_PATIENCE: Duration = Duration::from_secs(30);
/// Messages that are handed on at once: the engine's lock is held for that long.
const BATCH: usize = 256;

/// Where messages are read from.
pub(super) trait Source: AsyncRead + Unpin {
    /// Nothing can be done before so many bytes have come. A hint.
    fn needs(&self, bytes: usize);
}

impl Source for OwnedReadHalf {
    fn needs(&self, bytes: usize) {
        // Where it does not work we are woken too often, no more.
        let _ = set_receive_low_water(self.as_ref(), bytes);
    }
}

/// What has come lies in our own memory.
#[cfg(feature = "utp")]
impl Source for librqbit_utp::UtpStreamReadHalf {
    fn needs(&self, _: usize) {}
}

/// Reads messages from a peer.
pub(super) struct Receiver<R> {
    reader: R,
    decoder: Decoder,
    buffer: BytesMut,
    /// What the source was told that is needed.
    needed: usize,
    /// When the message began of which a part is in the buffer.
    begun: Option<Instant>,
    pace: Pace,
}

impl<R: Source> Receiver<R> {
    pub(super) fn new(reader: R, decoder: Decoder) -> Self {
        Self {
            reader,
            decoder,
            buffer: BytesMut::with_capacity(8 * PIECE_MESSAGE_LENGTH),
            needed: 1,
            begun: None,
            pace: Pace::new(Instant::now()),
        }
    }

    /// Appends messages, at least one; false, and none, when the peer has ended the connection. What stood before the
    /// first error is appended too.
    ///
    /// # Errors
    /// Those of the socket, a malformed message, and one that takes too long.
    pub(super) async fn receive(&mut self, messages: &mut Vec<WireMessage>) -> io::Result<bool> {
        if let Some(pause) = self.pace.pause(Instant::now()) {
            tokio::time::sleep(pause).await;
        }
        loop {
            let had = messages.len();
            self.decode(messages)?;
            if messages.len() > had {
                return Ok(true);
            }
            if self.buffer.capacity() - self.buffer.len() < PIECE_MESSAGE_LENGTH {
                self.buffer.reserve(8 * PIECE_MESSAGE_LENGTH);
            }
            // A longer message than a block is taken piece by piece: its sender is held to the window until we read.
            let needed = Decoder::missing(&self.buffer).min(PIECE_MESSAGE_LENGTH);
            if needed != self.needed {
                self.needed = needed;
                self.reader.needs(needed);
            }
            let read = self.reader.read_buf(&mut self.buffer);
            let read = match self.begun {
                None => read.await?,
                Some(begun) => match timeout_at(begun + MESSAGE_PATIENCE, read).await {
                    Ok(read) => read?,
                    Err(_) => {
                        let text = "a message comes too slowly";
                        return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                    }
                },
            };
            if read == 0 {
                return Ok(false);
            }
            self.begun.get_or_insert_with(Instant::now);
        }
    }

    fn decode(&mut self, messages: &mut Vec<WireMessage>) -> io::Result<()> {
        for _ in 0..BATCH {
            let decoded = self
                .decoder
                .decode(&mut self.buffer)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
            let Some(message) = decoded else {
                return Ok(());
            };
            self.begun = (!self.buffer.is_empty()).then(Instant::now);
            self.pace.charge(&message);
            messages.push(message);
        }
        Ok(())
    }
}

/// How fast a peer may speak: a token bucket over what its messages cost us, blocks aside, which cost it more.
#[derive(Debug)]
struct Pace {
    /// Below zero it owes time.
    tokens: f64,
    at: Instant,
}

impl Pace {
    /// Plain messages a second: the requests for more than 10 Gbit/s.
    const RATE: f64 = 100_000.0;
    /// Plain messages that may come at once: a HAVE for each piece of a large image.
    const BURST: f64 = 150_000.0;
    /// What counts as so many plain messages, since it makes us look at all that could be asked of whom. Peers change
    /// their mind every few seconds, not a thousand times in one.
    const CHANGE: f64 = 100.0;

    fn new(now: Instant) -> Self {
        Self {
            tokens: Self::BURST,
            at: now,
        }
    }

    fn charge(&mut self, message: &WireMessage) {
        self.tokens -= match message {
            WireMessage::Piece { .. } | WireMessage::Expanded { .. } => 0.0,
            WireMessage::KeepAlive
            | WireMessage::Have(_)
            | WireMessage::Request(_)
            | WireMessage::Cancel(_)
            | WireMessage::Suggest(_)
            | WireMessage::Reject(_)
            | WireMessage::AllowedFast(_)
            | WireMessage::Metadata { .. }
            | WireMessage::Zstd { .. }
            | WireMessage::Unknown(_) => 1.0,
            _ => Self::CHANGE,
        };
    }

    /// How long to wait before the next message is read.
    fn pause(&mut self, now: Instant) -> Option<Duration> {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * Self::RATE;
        self.tokens = (self.tokens + gained).min(Self::BURST);
        self.at = now;
        (self.tokens < 0.0).then(|| Duration::from_secs_f64(-self.tokens / Self::RATE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::wire::encode;
    use bytes::Bytes;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    impl Source for DuplexStream {
        fn needs(&self, bytes: usize) {
            assert!((1..=PIECE_MESSAGE_LENGTH).contains(&bytes), "{bytes}");
        }
    }

    fn receiver() -> (DuplexStream, Receiver<DuplexStream>) {
        let (theirs, ours) = duplex(1 << 20);
        (theirs, Receiver::new(ours, Decoder::new(80)))
    }

    fn bytes(messages: &[WireMessage]) -> Vec<u8> {
        let mut out = BytesMut::new();
        for message in messages {
            encode(message, &mut out);
        }
        out.to_vec()
    }

    /// Receives until the end; how it ended, and what came.
    async fn all(mut receiver: Receiver<DuplexStream>) -> (io::Result<bool>, Vec<WireMessage>) {
        let mut messages = Vec::new();
        loop {
            match receiver.receive(&mut messages).await {
                Ok(true) => {}
                end => return (end, messages),
            }
        }
    }

    fn block() -> WireMessage {
        WireMessage::Piece {
            piece: 1,
            begin: 0,
            data: Bytes::from(vec![7; 16_384]),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_trickles_ends_the_connection_in_time() {
        let (mut theirs, receiver) = receiver();
        let start = Instant::now();
        let trickle = tokio::spawn(async move {
            theirs.write_all(&bytes(&[WireMessage::Unchoke])).await?;
            for byte in bytes(&[block()]) {
                theirs.write_all(&[byte]).await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            io::Result::Ok(())
        });
        let (end, messages) = all(receiver).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(messages, [WireMessage::Unchoke]);
        assert!(start.elapsed() <= MESSAGE_PATIENCE + Duration::from_secs(2));
        assert!(trickle.await.unwrap().is_err(), "it can't go on");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_line_is_no_trickle() {
        let (mut theirs, receiver) = receiver();
        let slow = tokio::spawn(async move {
            for _ in 0..10 {
                // A kilobyte a second, and a pause between the messages.
                for part in bytes(&[block()]).chunks(1024) {
                    theirs.write_all(part).await?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                tokio::time::sleep(Duration::from_secs(100)).await;
            }
            io::Result::Ok(())
        });
        let (end, messages) = all(receiver).await;
        assert!(!end.unwrap(), "the other side ended it");
        assert_eq!(messages.len(), 10);
        slow.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_read_no_faster_than_its_pace() {
        for (message, at_most) in [
            (WireMessage::Unchoke, 1000.0),
            (WireMessage::Interested, 1000.0),
            (WireMessage::KeepAlive, 100_000.0),
            (WireMessage::Have(3), 100_000.0),
        ] {
            let (mut theirs, mut receiver) = receiver();
            let flood = bytes(&vec![message.clone(); 1000]);
            let flooding =
                tokio::spawn(async move { while theirs.write_all(&flood).await.is_ok() {} });
            let start = Instant::now();
            let mut messages = Vec::new();
            let mut count = 0;
            while start.elapsed() < Duration::from_secs(20) {
                assert!(receiver.receive(&mut messages).await.unwrap());
                assert!(messages.len() <= BATCH);
                count += messages.drain(..).count();
            }
            let elapsed = start.elapsed().as_secs_f64();
            // What may come at once is a second and a half of it.
            let bound = at_most * (elapsed + 1.5) + 2.0 * BATCH as f64;
            assert!(count as f64 <= bound, "{message:?}: {count} in {elapsed} s");
            drop(receiver);
            flooding.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_speaks_as_peers_do_never_waits() {
        let (mut theirs, mut receiver) = receiver();
        let mut spoken = vec![WireMessage::Unchoke, WireMessage::Interested];
        spoken.extend((0..131_072).map(WireMessage::Have));
        spoken.extend(vec![block(); 100]);
        let sent = bytes(&spoken);
        let sending = tokio::spawn(async move { theirs.write_all(&sent).await });
        let start = Instant::now();
        let mut messages = Vec::new();
        while messages.len() < spoken.len() {
            assert!(receiver.receive(&mut messages).await.unwrap());
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        sending.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_stands_before_an_error_still_comes_out() {
        let (mut theirs, receiver) = receiver();
        let mut sent = bytes(&[WireMessage::Unchoke, WireMessage::Have(1)]);
        sent.extend_from_slice(&[0xff; 8]);
        theirs.write_all(&sent).await.unwrap();
        let (end, messages) = all(receiver).await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(messages, [WireMessage::Unchoke, WireMessage::Have(1)]);
    }
}
