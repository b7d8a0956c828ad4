//! One end of a connection. Invariant: no more than the window is under way, and no more than [`SOCKET`] waits unsent
//! behind the socket; what is sent stays in order.

use std::collections::VecDeque;

use vmtorrent::simulation::{Message, PeerKey, Request};

use crate::mail::Packet;
use crate::moment::Nanos;

/// Bytes of blocks that the socket takes beyond what has left.
const SOCKET: u32 = 64 << 10;
/// The window of a fresh connection: ten segments (RFC 6928).
const INITIAL_WINDOW: f64 = 14_480.0;
const LEAST_WINDOW: f64 = 2.0 * 1448.0;
/// What a receiver takes at most.
const LARGEST_WINDOW: f64 = (4 << 20) as f64;
/// By how much the window grows in each round trip once it was halved: about what CUBIC does (RFC 9438) where a window is
/// a hundred segments.
const GROWTH: f64 = 8.0 * 1448.0;
/// After so long without sending the window is what it was at first (RFC 5681, 4.1).
const IDLE: Nanos = 300_000_000;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The handshakes are under way.
    Opening,
    /// Messages flow.
    Open,
    /// It is over.
    Closed,
}

/// One end of a connection, with what TCP does for it.
#[derive(Debug)]
pub struct Link {
    /// The host at the other end, and its link.
    pub to: u32,
    /// The other end's number of this link.
    pub there: u32,
    /// One way.
    pub delay: Nanos,
    /// Where it is in its life.
    pub state: State,
    /// The engine's name for the peer.
    pub key: PeerKey,
    /// The other side opened it.
    pub inbound: bool,
    /// When the last block moved, or it began.
    pub moved: Nanos,
    /// Whether it stands in the turn of the uplink.
    pub in_turn: bool,
    /// When the last packet will have left.
    pub departure: Nanos,
    /// Messages that leave at the end of this moment.
    pub pending: Packet,
    waiting: VecDeque<Request>,
    socket: VecDeque<Packet>,
    socket_bytes: u32,
    window: f64,
    growing: bool,
    in_flight: u64,
    sent: u64,
    acknowledged: u64,
    /// Until so much is acknowledged the window is not halved again.
    recovery: u64,
    last_sent: Nanos,
}

impl Link {
    /// A connection that is being opened.
    pub fn new(now: Nanos, to: u32, there: u32, delay: Nanos, inbound: bool) -> Self {
        Self {
            to,
            there,
            delay,
            state: State::Opening,
            key: PeerKey(usize::MAX),
            inbound,
            moved: now,
            in_turn: false,
            departure: 0,
            pending: Packet::default(),
            waiting: VecDeque::new(),
            socket: VecDeque::new(),
            socket_bytes: 0,
            window: INITIAL_WINDOW,
            growing: true,
            in_flight: 0,
            sent: 0,
            acknowledged: 0,
            recovery: 0,
            last_sent: now,
        }
    }

    /// Ends it; what was to be sent is forgotten.
    pub fn close(&mut self) {
        self.state = State::Closed;
        self.pending = Packet::default();
        self.waiting = VecDeque::new();
        self.socket = VecDeque::new();
    }

    /// Whether nothing waits in the socket.
    pub fn is_drained(&self) -> bool {
        self.socket.is_empty()
    }

    /// Lets messages ride behind what waits in the socket.
    pub fn append(&mut self, packet: Packet) {
        match self.socket.back_mut() {
            Some(last) => {
                last.length += packet.length;
                last.messages.extend(packet.messages);
            }
            None => self.socket.push_back(packet),
        }
    }

    /// The engine hands a block over.
    pub fn hand_over(&mut self, request: Request) {
        self.waiting.push_back(request);
    }

    /// The socket takes a block if it has room for it.
    pub fn admit(&mut self) -> Option<Request> {
        if self.socket_bytes >= SOCKET {
            return None;
        }
        let request = self.waiting.pop_front()?;
        let mut packet = Packet {
            block: true,
            ..Packet::default()
        };
        packet.push(Message::block(request));
        self.socket_bytes += request.answer_length();
        self.socket.push_back(packet);
        Some(request)
    }

    /// Whether a packet may leave.
    pub fn may_send(&self) -> bool {
        let Some(next) = self.socket.front() else {
            return false;
        };
        let after = self.in_flight + u64::from(next.wire_length());
        self.state == State::Open && (self.in_flight == 0 || after as f64 <= self.window)
    }

    /// Takes the next packet out of the socket: it leaves now.
    pub fn send(&mut self, now: Nanos) -> Option<Packet> {
        let packet = self.socket.pop_front()?;
        if packet.block {
            if self.in_flight == 0 && now.saturating_sub(self.last_sent) > IDLE {
                self.window = self.window.min(INITIAL_WINDOW);
                self.growing = true;
            }
            self.socket_bytes = self.socket_bytes.saturating_sub(packet.length);
            let bytes = u64::from(packet.wire_length());
            self.in_flight += bytes;
            self.sent += bytes;
        }
        self.last_sent = now;
        if self.socket.is_empty() {
            self.socket_bytes = 0;
        }
        Some(packet)
    }

    /// The other end has received something.
    pub fn acknowledge(&mut self, bytes: u32, congested: bool) {
        self.in_flight = self.in_flight.saturating_sub(bytes.into());
        self.acknowledged += u64::from(bytes);
        if congested {
            if self.acknowledged > self.recovery {
                self.window = (self.window / 2.0).max(LEAST_WINDOW);
                self.growing = false;
                self.recovery = self.sent;
            }
        } else if self.growing {
            self.window += f64::from(bytes);
        } else {
            self.window += GROWTH * f64::from(bytes) / self.window;
        }
        self.window = self.window.min(LARGEST_WINDOW);
    }
}
