//! Invariant: a scripted peer says exactly what its script says. Nothing of the library under test is used, so that a
//! mistake in its codec is not made twice; and nothing outlives its [`ScriptedPeer`].

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};

use crate::{PIECE, Reference};

/// Longest wait for something that normally takes a moment: machines may be busy.
const PATIENCE: Duration = Duration::from_secs(100);
/// Bytes of the opening handshake (BEP 3).
pub const HANDSHAKE: usize = 68;
/// Bytes of a block, the usual unit of a request (BEP 3).
pub const BLOCK: u32 = 16 * 1024;
/// No message of the programs under test is longer.
const LONGEST: usize = 4 << 20;

/// A part of a piece, as REQUEST and CANCEL name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    /// Number of the piece.
    pub piece: u32,
    /// First byte inside the piece.
    pub begin: u32,
    /// Bytes.
    pub length: u32,
}

impl Block {
    /// The `n`th whole block of a piece.
    pub fn nth(piece: u32, n: u32) -> Self {
        Self {
            piece,
            begin: n * BLOCK,
            length: BLOCK,
        }
    }

    fn payload(self) -> Vec<u8> {
        [self.piece, self.begin, self.length]
            .map(u32::to_be_bytes)
            .concat()
    }
}

/// A message of BEP 3; every other one is its id and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// No id, no payload.
    KeepAlive,
    /// Id 0.
    Choke,
    /// Id 1.
    Unchoke,
    /// Id 2.
    Interested,
    /// Id 3.
    NotInterested,
    /// Id 4: the number of a piece.
    Have(u32),
    /// Id 5: one bit for each piece, the highest first.
    Bitfield(Vec<u8>),
    /// Id 6.
    Request(Block),
    /// Id 7: number of the piece, first byte, data.
    Piece(u32, u32, Vec<u8>),
    /// Id 8.
    Cancel(Block),
    /// Anything else.
    Other(u8, Vec<u8>),
}

impl Message {
    /// The message as it stands on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let (id, payload) = match self {
            Self::KeepAlive => return vec![0; 4],
            Self::Choke => (0, Vec::new()),
            Self::Unchoke => (1, Vec::new()),
            Self::Interested => (2, Vec::new()),
            Self::NotInterested => (3, Vec::new()),
            Self::Have(piece) => (4, piece.to_be_bytes().to_vec()),
            Self::Bitfield(bits) => (5, bits.clone()),
            Self::Request(block) => (6, block.payload()),
            Self::Piece(piece, begin, data) => {
                let head = [piece.to_be_bytes(), begin.to_be_bytes()].concat();
                (7, [head, data.clone()].concat())
            }
            Self::Cancel(block) => (8, block.payload()),
            Self::Other(id, payload) => (*id, payload.clone()),
        };
        let length = (payload.len() as u32 + 1).to_be_bytes();
        [&length[..], &[id], &payload].concat()
    }

    fn decode(id: u8, payload: Vec<u8>) -> Self {
        let number = |at: usize| {
            let bytes = payload.get(at..at + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().ok()?))
        };
        let block = || {
            Some(Block {
                piece: number(0)?,
                begin: number(4)?,
                length: number(8)?,
            })
        };
        let known = match id {
            0 => Some(Self::Choke),
            1 => Some(Self::Unchoke),
            2 => Some(Self::Interested),
            3 => Some(Self::NotInterested),
            4 => number(0).map(Self::Have),
            5 => Some(Self::Bitfield(payload.clone())),
            6 => block().map(Self::Request),
            7 => match (number(0), number(4)) {
                (Some(piece), Some(begin)) => {
                    Some(Self::Piece(piece, begin, payload[8..].to_vec()))
                }
                _ => None,
            },
            8 => block().map(Self::Cancel),
            _ => None,
        };
        known.unwrap_or(Self::Other(id, payload))
    }
}

/// The opening handshake; it offers the extension protocol (BEP 10).
pub fn handshake(info_hash: [u8; 20], peer_id: [u8; 20]) -> [u8; HANDSHAKE] {
    let mut bytes = [0; HANDSHAKE];
    bytes[0] = 19;
    bytes[1..20].copy_from_slice(b"BitTorrent protocol");
    bytes[25] = 0x10;
    bytes[28..48].copy_from_slice(&info_hash);
    bytes[48..].copy_from_slice(&peer_id);
    bytes
}

/// A peer id that nobody else has.
pub fn peer_id(number: u32) -> [u8; 20] {
    let mut id = *b"-XX0000-hostile-0000";
    id[16..].copy_from_slice(&number.to_be_bytes());
    id
}

/// One TCP connection to the program under test, from either side.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    number: usize,
}

impl Connection {
    /// Connects from an address of this host: all of 127.0.0.0/8 are.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn dial_from(source: Ipv4Addr, to: SocketAddr) -> io::Result<Self> {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
        rustix::net::bind(&socket, &SocketAddr::from((source, 0)))?;
        rustix::net::connect(&socket, &to)?;
        Self::new(TcpStream::from(socket), 0)
    }

    /// Connects.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn dial(to: SocketAddr) -> io::Result<Self> {
        Self::dial_from(Ipv4Addr::LOCALHOST, to)
    }

    /// Connects and exchanges handshakes.
    ///
    /// # Errors
    /// Those of the socket; an end of the connection is one.
    pub fn greet(to: SocketAddr, info_hash: [u8; 20], number: u32) -> io::Result<Self> {
        let mut connection = Self::dial(to)?;
        connection.raw(&handshake(info_hash, peer_id(number)))?;
        connection.read_handshake()?;
        Ok(connection)
    }

    fn new(stream: TcpStream, number: usize) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, number })
    }

    /// Ends one or both directions.
    pub fn shutdown(&self, how: Shutdown) {
        // It may have been ended already.
        let _ = self.stream.shutdown(how);
    }

    /// How many connections its [`ScriptedPeer`] had taken before this one.
    pub fn number(&self) -> usize {
        self.number
    }

    /// A second handle, so that one thread can write while another reads.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn another(&self) -> io::Result<Self> {
        Ok(Self {
            stream: self.stream.try_clone()?,
            number: self.number,
        })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn send(&mut self, message: &Message) -> io::Result<()> {
        self.raw(&message.encode())
    }

    /// Reads the other side's handshake.
    ///
    /// # Errors
    /// Those of the socket; an end of the connection is one.
    pub fn read_handshake(&mut self) -> io::Result<[u8; HANDSHAKE]> {
        let mut bytes = [0; HANDSHAKE];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The next message.
    ///
    /// # Errors
    /// Those of the socket; an end of the connection is one.
    pub fn receive(&mut self) -> io::Result<Message> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 {
            return Ok(Message::KeepAlive);
        }
        if length > LONGEST {
            return Err(io::Error::other(format!("a message of {length} bytes")));
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        let payload = body.split_off(1);
        Ok(Message::decode(body[0], payload))
    }

    /// Reads until a message fulfils `wanted`.
    ///
    /// # Errors
    /// Those of the socket; an end of the connection is one.
    pub fn receive_until(&mut self, wanted: impl Fn(&Message) -> bool) -> io::Result<Message> {
        loop {
            let message = self.receive()?;
            if wanted(&message) {
                return Ok(message);
            }
        }
    }

    /// Reads and drops whatever comes until the other side ends the connection.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_closed(mut self, what: &str) {
        let mut sink = [0; 4096];
        loop {
            match self.stream.read(&mut sink) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    let timed_out = error.kind() == io::ErrorKind::WouldBlock;
                    assert!(!timed_out, "the connection was not ended: {what}");
                    return;
                }
            }
        }
    }
}

/// What a scripted peer says it has: a published image.
#[derive(Clone, Debug)]
pub struct Content {
    image: Arc<Reference>,
}

impl Content {
    /// The pieces of `image`.
    pub fn new(image: Arc<Reference>) -> Self {
        Self { image }
    }

    /// Number of pieces.
    pub fn pieces(&self) -> u32 {
        self.image.bytes().len().div_ceil(PIECE) as u32
    }

    /// The BITFIELD of who has everything.
    pub fn full(&self) -> Vec<u8> {
        let pieces = self.pieces() as usize;
        let mut bits = vec![0xff; pieces.div_ceil(8)];
        if let Some(last) = bits.last_mut() {
            *last <<= (8 - pieces % 8) % 8;
        }
        bits
    }

    /// The bytes of a block; an absurd one has none.
    pub fn bytes(&self, block: Block) -> &[u8] {
        let start = block.piece as usize * PIECE + block.begin as usize;
        self.image
            .bytes()
            .get(start..start + block.length as usize)
            .unwrap_or_default()
    }

    /// The right answer to a request.
    pub fn answer(&self, block: Block) -> Message {
        Message::Piece(block.piece, block.begin, self.bytes(block).to_vec())
    }

    /// An answer whose first byte is wrong.
    pub fn lie(&self, block: Block) -> Message {
        let mut data = self.bytes(block).to_vec();
        if let Some(first) = data.first_mut() {
            *first ^= 1;
        }
        Message::Piece(block.piece, block.begin, data)
    }

    /// Says that it has everything, lets the other side request, and calls `answer` for each request until the
    /// connection ends.
    ///
    /// # Errors
    /// Those of the socket; an end of the connection is one.
    pub fn seed(
        &self,
        connection: &mut Connection,
        mut answer: impl FnMut(&mut Connection, Block) -> io::Result<()>,
    ) -> io::Result<()> {
        connection.send(&Message::Bitfield(self.full()))?;
        connection.send(&Message::Unchoke)?;
        loop {
            if let Message::Request(block) = connection.receive()? {
                answer(connection, block)?;
            }
        }
    }
}

/// What scripts have counted, and what tests wait for.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<HashMap<&'static str, usize>>,
    changed: Condvar,
}

impl Tally {
    /// Counts one more.
    pub fn add(&self, what: &'static str) {
        *self.counts().entry(what).or_default() += 1;
        self.changed.notify_all();
    }

    /// How many were counted.
    pub fn count(&self, what: &str) -> usize {
        self.counts().get(what).copied().unwrap_or_default()
    }

    /// Waits until at least `count` were counted.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn wait(&self, what: &str, count: usize) {
        let reached = |counts: &HashMap<&str, usize>| counts.get(what).is_some_and(|n| *n >= count);
        let counts = self.counts();
        let (counts, _) = self
            .changed
            .wait_timeout_while(counts, PATIENCE, |counts| !reached(counts))
            .unwrap_or_else(PoisonError::into_inner);
        assert!(reached(&counts), "no {count} of {what:?}: {counts:?}");
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<&'static str, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A peer on loopback that waits for connections and plays its script on each of them.
pub struct ScriptedPeer {
    address: SocketAddr,
    tally: Arc<Tally>,
    open: Arc<Mutex<Open>>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Open {
    stopped: bool,
    streams: Vec<TcpStream>,
    scripts: Vec<JoinHandle<()>>,
}

impl ScriptedPeer {
    /// Counted for each connection that was taken.
    pub const BEGUN: &'static str = "connections begun";
    /// Counted for each connection whose script has ended; the scripts here end when the other side ends it.
    pub const ENDED: &'static str = "connections ended";

    /// Waits on 127.0.0.1, and plays `script` on the bare connection.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn bare(
        script: impl Fn(&mut Connection, &Tally) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let tally = Arc::new(Tally::default());
        let open = Arc::new(Mutex::new(Open::default()));
        let script = Arc::new(script);
        let (counted, list) = (Arc::clone(&tally), Arc::clone(&open));
        let listener = std::thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let mut list = lock(&list);
                if list.stopped {
                    return;
                }
                let (Ok(twin), Ok(mut connection)) =
                    (stream.try_clone(), Connection::new(stream, number))
                else {
                    continue;
                };
                list.streams.push(twin);
                counted.add(Self::BEGUN);
                let (script, counted) = (Arc::clone(&script), Arc::clone(&counted));
                list.scripts.push(std::thread::spawn(move || {
                    // An error is how a connection ends.
                    let _ = script(&mut connection, &counted);
                    let _ = connection.stream.shutdown(Shutdown::Both);
                    counted.add(Self::ENDED);
                }));
            }
        });
        Self {
            address,
            tally,
            open,
            listener: Some(listener),
        }
    }

    /// The same with the handshakes exchanged: it answers to whatever info-hash it is asked for.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn start(
        script: impl Fn(&mut Connection, &Tally) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::bare(move |connection, tally| {
            let theirs = connection.read_handshake()?;
            let info_hash = theirs[28..48].try_into().unwrap_or_default();
            let port = connection.stream.local_addr()?.port();
            connection.raw(&handshake(info_hash, peer_id(port.into())))?;
            script(connection, tally)
        })
    }

    /// A peer that has everything and answers each request rightly, `delay` after it came.
    pub fn honest(content: &Content, delay: Duration) -> Self {
        let content = content.clone();
        Self::start(move |connection, tally| {
            content.seed(connection, |connection, block| {
                std::thread::sleep(delay);
                connection.send(&content.answer(block))?;
                tally.add("answered");
                Ok(())
            })
        })
    }

    /// Where it waits.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// What its scripts have counted.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Waits until the other side has ended `count` connections.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_ended(&self, count: usize) {
        self.tally.wait(Self::ENDED, count);
    }

    /// Connections that are open.
    pub fn connected(&self) -> usize {
        let ended = self.tally.count(Self::ENDED);
        self.tally.count(Self::BEGUN) - ended
    }
}

impl Drop for ScriptedPeer {
    fn drop(&mut self) {
        let (streams, scripts) = {
            let mut open = lock(&self.open);
            open.stopped = true;
            (
                std::mem::take(&mut open.streams),
                std::mem::take(&mut open.scripts),
            )
        };
        for stream in streams {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the listener, which then sees that it is to stop.
        let _ = TcpStream::connect(self.address);
        for thread in scripts.into_iter().chain(self.listener.take()) {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An info-hash as events write it.
///
/// # Panics
/// If it is none.
pub fn parse_info_hash(hex: &str) -> [u8; 20] {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    std::array::from_fn(|i| digit(2 * i))
}

/// The address that an event names.
///
/// # Panics
/// If it is none.
pub fn parse_address(text: &str) -> SocketAddr {
    let address: SocketAddr = text.parse().unwrap();
    assert_ne!(address.ip(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in() {
        let block = Block::nth(3, 1);
        let messages = [
            Message::KeepAlive,
            Message::Choke,
            Message::Unchoke,
            Message::Interested,
            Message::NotInterested,
            Message::Have(9),
            Message::Bitfield(vec![1, 2]),
            Message::Request(block),
            Message::Piece(1, 2, vec![3]),
            Message::Cancel(block),
            Message::Other(99, vec![1]),
        ];
        let sent = messages.to_vec();
        let peer = ScriptedPeer::start(move |connection, _| {
            for message in &sent {
                connection.send(message)?;
            }
            Ok(())
        });
        let mut connection = Connection::greet(peer.address, [7; 20], 1).unwrap();
        for message in messages {
            assert_eq!(connection.receive().unwrap(), message);
        }
        assert!(connection.receive().is_err(), "the script has ended");
        peer.wait_ended(1);
    }

    #[test]
    fn request_and_piece_stand_as_bep_3_draws_them() {
        let request = Message::Request(Block {
            piece: 1,
            begin: 2,
            length: 3,
        });
        assert_eq!(
            request.encode(),
            [0, 0, 0, 13, 6, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]
        );
        let piece = Message::Piece(1, 2, vec![9]);
        assert_eq!(piece.encode(), [0, 0, 0, 10, 7, 0, 0, 0, 1, 0, 0, 0, 2, 9]);
    }
}
