//! What goes from host to host. Invariant: mail is told apart and ordered by its time, its sender and the sender's count,
//! so that the order in which it is handed over changes nothing.

use smallvec::SmallVec;
use vmtorrent::simulation::Message;

use crate::moment::Nanos;

/// What arrives at a host over one of its links.
#[derive(Debug)]
pub struct Mail {
    /// When its last byte has left the sender and crossed the path.
    pub at: Nanos,
    /// The sending host.
    pub from: u32,
    /// How many it had sent before.
    pub count: u64,
    /// The receiving host.
    pub to: u32,
    /// The receiver's link.
    pub link: u32,
    /// What it is.
    pub letter: Letter,
}

/// What is sent over a link.
#[derive(Debug)]
pub enum Letter {
    /// Messages.
    Packet(Packet),
    /// So many bytes of packets with blocks were received.
    Ack {
        /// Bytes on the wire.
        bytes: u32,
        /// They waited for long before the receiver's line: the sender is to send less.
        congested: bool,
    },
    /// The connection was closed.
    Closed,
}

/// Messages that travel together.
#[derive(Debug, Default)]
pub struct Packet {
    /// In order.
    pub messages: SmallVec<[Message; 1]>,
    /// Bytes without those of TCP and IP.
    pub length: u32,
    /// A block is among them: it is acknowledged.
    pub block: bool,
}

/// Payload of a full TCP segment on an Ethernet, with timestamps.
const SEGMENT: u32 = 1448;
/// Bytes of the headers of IPv4, of TCP with timestamps, and of an Ethernet frame.
pub const HEADERS: u32 = 20 + 32 + 18;

impl Packet {
    /// Adds a message.
    pub fn push(&mut self, message: Message) {
        self.length += message.length();
        self.messages.push(message);
    }

    /// Bytes that the lines have to carry.
    pub fn wire_length(&self) -> u32 {
        self.length + HEADERS * self.length.div_ceil(SEGMENT).max(1)
    }

    /// Bytes of the acknowledgements of this packet, one for every second segment.
    pub fn ack_length(&self) -> u32 {
        HEADERS * self.length.div_ceil(2 * SEGMENT).max(1)
    }
}
