//! One host: an engine, a guest, and the lines between them and the network.
//!
//! Invariant: a node knows nothing of other nodes but what their mail says, and no mail arrives sooner than after the
//! delay of its path. So nodes may run apart from each other for as long as the shortest path takes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use vmtorrent::image::{Image, PieceIndex};
use vmtorrent::simulation::{Action, Host, Moved, PeerKey, Request};

use crate::events::Events;
use crate::guest::Guest;
use crate::link::{Link, State};
use crate::mail::{Letter, Mail, Packet};
use crate::moment::{NEVER, Nanos, nanos, span, time, transmission};

/// A host's connection to the network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Bytes per second out of it.
    pub up: f64,
    /// Bytes per second into it.
    pub down: f64,
    /// To the middle of the network, one way.
    pub delay: Duration,
}

/// A host.
pub struct Node {
    index: u32,
    host: Host,
    image: Arc<Image>,
    guest: Option<Guest>,
    line: Line,
    /// It lets nobody request.
    free_rider: bool,
    links: Vec<Link>,
    /// The link of each key.
    slots: Vec<u32>,
    open: usize,
    events: Events<Happening>,
    timer: Nanos,
    ticked: Nanos,
    uplink_until: Nanos,
    sending: bool,
    turn: VecDeque<u32>,
    downlink_until: Nanos,
    /// Links with messages that leave at the end of this moment.
    touched: Vec<u32>,
    /// Blocks that sockets took.
    taken: Vec<(PeerKey, Request)>,
    out: Vec<Mail>,
    count: u64,
    alive: bool,
    /// The largest time that a packet waited for the line into it.
    longest_queue: Nanos,
}

#[derive(Debug)]
enum Happening {
    Mail(u32, Letter),
    Deliver(u32, Packet, bool),
    UplinkFree,
    Stored(PieceIndex),
    Connected(u32, [u8; 20]),
}

/// Packets that wait so long before a line are marked as congested (as with RFC 3168): a router's queue is about twice
/// as long.
const MARK: Nanos = 20_000_000;
/// A packet that takes less is handed over at once where nothing waits.
const SHORT: Nanos = 50_000;
/// The least time between two ticks of the engine.
const TICK: Nanos = 500_000;
/// To check a piece and to store it, and how much longer for each byte (SHA-1 at 1 GB/s).
const STORE: Nanos = 100_000;
/// A connection over which nothing moved for so long may give way to another.
const USELESS: Nanos = 30_000_000_000;

impl Node {
    /// A host that has no peers.
    pub fn new(
        index: u32,
        host: Host,
        image: Arc<Image>,
        line: Line,
        free_rider: bool,
        now: Nanos,
    ) -> Self {
        Self {
            index,
            host,
            image,
            guest: None,
            line,
            free_rider,
            links: Vec::new(),
            slots: Vec::new(),
            open: 0,
            events: Events::default(),
            timer: now,
            ticked: now,
            uplink_until: now,
            sending: false,
            turn: VecDeque::new(),
            downlink_until: now,
            touched: Vec::new(),
            taken: Vec::new(),
            out: Vec::new(),
            count: 0,
            alive: true,
            longest_queue: 0,
        }
    }

    /// The id that peers know a host by: all but its end is the same, as of all that run one program.
    pub fn peer_id(index: u32) -> [u8; 20] {
        let mut id = *b"-VT0100-............";
        let mixed = (u64::from(index) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        id[8..16].copy_from_slice(&mixed.to_be_bytes());
        id[16..].copy_from_slice(&index.to_be_bytes());
        id
    }

    /// Begins to run a guest.
    pub fn run_guest(&mut self, guest: Guest) {
        self.guest = Some(guest);
    }

    /// The guest.
    pub fn guest(&self) -> Option<&Guest> {
        self.guest.as_ref()
    }

    /// Its engine.
    pub fn host(&mut self) -> &mut Host {
        &mut self.host
    }

    /// What was moved so far.
    pub fn moved(&self) -> Moved {
        self.host.moved()
    }

    /// Its line.
    pub fn line(&self) -> Line {
        self.line
    }

    /// Whether it lets nobody request.
    pub fn is_free_rider(&self) -> bool {
        self.free_rider
    }

    /// Connections that are open or being opened.
    pub fn open(&self) -> usize {
        self.open
    }

    /// The longest time that a packet waited for the line into it.
    pub fn longest_queue(&self) -> Duration {
        Duration::from_nanos(self.longest_queue)
    }

    /// Whether there is a connection to a host.
    pub fn knows(&self, other: u32) -> bool {
        self.links
            .iter()
            .any(|link| link.to == other && link.state != State::Closed)
    }

    /// The number that the next link gets.
    pub fn next_link(&self) -> u32 {
        self.links.len() as u32
    }

    /// A connection begins to open, and is open at `at`.
    pub fn open_link(&mut self, at: Nanos, link: Link) {
        let place = self.next_link();
        let id = Self::peer_id(link.to);
        self.links.push(link);
        self.open += 1;
        self.at(at, Happening::Connected(place, id));
    }

    /// The inbound connection that was of no use for the longest, if one is of none.
    pub fn useless(&self, now: Nanos) -> Option<u32> {
        let inbound = self.links.iter().enumerate();
        let inbound = inbound.filter(|(_, l)| l.inbound && l.state == State::Open);
        let longest = inbound.min_by_key(|(_, l)| l.moved)?;
        (now.saturating_sub(longest.1.moved) >= USELESS).then_some(longest.0 as u32)
    }

    /// Closes a connection for another's sake.
    pub fn give_way(&mut self, now: Nanos, link: u32) {
        let key = self.links[link as usize].key;
        if self.close(now, link) {
            self.host.disconnected(time(now), key);
            self.settle(now);
        }
    }

    /// The host goes, at once.
    pub fn leave(&mut self, now: Nanos) {
        self.alive = false;
        for link in 0..self.next_link() {
            self.close(now, link);
        }
        self.events.clear();
    }

    /// When something happens here next.
    pub fn next(&self) -> Nanos {
        if !self.alive {
            return NEVER;
        }
        let guest = self
            .guest
            .as_ref()
            .and_then(Guest::due)
            .map_or(NEVER, nanos);
        self.events.next().min(self.timer).min(guest)
    }

    /// What has come.
    pub fn receive(&mut self, mail: Mail) {
        if self.alive {
            let order = (u64::from(mail.from) + 1) << 40 | mail.count & ((1 << 40) - 1);
            self.events
                .push(mail.at, order, Happening::Mail(mail.link, mail.letter));
        }
    }

    /// What it has sent since this was asked last.
    pub fn take_mail(&mut self) -> std::vec::Drain<'_, Mail> {
        self.out.drain(..)
    }

    /// Runs until `end`.
    pub fn run(&mut self, end: Nanos) {
        loop {
            let now = self.next();
            if now >= end {
                return;
            }
            if self.events.next() == now {
                if let Some(what) = self.events.pop() {
                    self.happen(now, what);
                }
            } else if self.timer == now {
                self.ticked = now;
                self.timer = NEVER;
                self.host.tick(time(now));
            } else if let Some(guest) = &mut self.guest {
                guest.step(time(now), &mut self.host);
            }
            self.settle(now);
        }
    }

    fn at(&mut self, at: Nanos, what: Happening) {
        self.count += 1;
        self.events.push(at, self.count, what);
    }

    fn mail(&mut self, at: Nanos, link: u32, letter: Letter) {
        let Link { to, there, .. } = self.links[link as usize];
        self.count += 1;
        self.out.push(Mail {
            at,
            from: self.index,
            count: self.count,
            to,
            link: there,
            letter,
        });
    }

    fn happen(&mut self, now: Nanos, what: Happening) {
        match what {
            Happening::Mail(link, Letter::Packet(packet)) => self.arrive(now, link, packet),
            Happening::Mail(link, Letter::Ack { bytes, congested }) => {
                self.links[link as usize].acknowledge(bytes, congested);
                self.line_up(link);
            }
            Happening::Mail(link, Letter::Closed) => {
                let Link { key, state, .. } = self.links[link as usize];
                if self.close(now, link) && state == State::Open {
                    self.host.disconnected(time(now), key);
                }
            }
            Happening::Deliver(link, packet, congested) => {
                self.deliver(now, link, packet, congested);
            }
            Happening::UplinkFree => self.sending = false,
            Happening::Stored(piece) => self.host.stored(time(now), piece),
            Happening::Connected(link, id) => self.connected(now, link, id),
        }
    }

    fn connected(&mut self, now: Nanos, link: u32, id: [u8; 20]) {
        let end = &mut self.links[link as usize];
        if end.state != State::Opening {
            return;
        }
        end.state = State::Open;
        let address = SocketAddr::from((end.to.to_be_bytes(), 6881));
        let connect_time = (!end.inbound).then(|| Duration::from_nanos(2 * end.delay));
        let key = self.host.connected(time(now), address, connect_time, id);
        self.links[link as usize].key = key;
        assert_eq!(key.0, self.slots.len(), "keys are given in order");
        self.slots.push(link);
    }

    /// Closes a connection and tells the other end; false when it was closed before.
    fn close(&mut self, now: Nanos, link: u32) -> bool {
        let end = &mut self.links[link as usize];
        if end.state == State::Closed {
            return false;
        }
        end.close();
        let at = end.departure.max(now) + end.delay;
        self.open -= 1;
        self.mail(at, link, Letter::Closed);
        true
    }

    /// A packet comes to the line into this host.
    fn arrive(&mut self, now: Nanos, link: u32, packet: Packet) {
        let waited = self.downlink_until.saturating_sub(now);
        let took = transmission(packet.wire_length().into(), self.line.down);
        self.downlink_until = self.downlink_until.max(now) + took;
        self.longest_queue = self.longest_queue.max(waited);
        let congested = waited > MARK;
        if waited == 0 && took < SHORT {
            self.deliver(now, link, packet, congested);
        } else {
            self.at(
                self.downlink_until,
                Happening::Deliver(link, packet, congested),
            );
        }
    }

    fn deliver(&mut self, now: Nanos, link: u32, packet: Packet, congested: bool) {
        if self.links[link as usize].state != State::Open {
            return;
        }
        if packet.block {
            self.links[link as usize].moved = now;
            let at = now + self.links[link as usize].delay;
            let bytes = packet.wire_length();
            self.charge(now, packet.ack_length());
            self.mail(at, link, Letter::Ack { bytes, congested });
        }
        let key = self.links[link as usize].key;
        for message in packet.messages {
            self.host.received(time(now), key, message);
        }
    }

    /// Bytes leave before what waits, as small ones do where a line is shared fairly (RFC 8290). Gives when they have.
    fn charge(&mut self, now: Nanos, bytes: u32) -> Nanos {
        let took = transmission(bytes.into(), self.line.up);
        self.uplink_until = self.uplink_until.max(now) + took;
        now + took
    }

    /// Carries out what the engine wants, until it wants no more.
    fn settle(&mut self, now: Nanos) {
        loop {
            let actions = self.host.take_actions(time(now));
            let taken = std::mem::take(&mut self.taken);
            if actions.is_empty() && taken.is_empty() {
                break;
            }
            for action in actions {
                self.act(now, action);
            }
            for (key, request) in taken {
                self.host.block_sent(time(now), key, request, true);
            }
        }
        for link in std::mem::take(&mut self.touched) {
            self.flush(now, link);
        }
        self.send(now);
        let due = nanos(self.host.next_timeout(time(now)));
        self.timer = self.timer.min(due.max(self.ticked + TICK).max(now));
    }

    fn act(&mut self, now: Nanos, action: Action) {
        match action {
            Action::Send(key, message) => {
                if self.free_rider && message.is_unchoke() {
                    return;
                }
                let link = self.slots[key.0];
                let end = &mut self.links[link as usize];
                if end.state == State::Open {
                    if end.pending.messages.is_empty() {
                        self.touched.push(link);
                    }
                    end.pending.push(message);
                }
            }
            Action::SendBlock(key, request) => {
                let link = self.slots[key.0];
                // What was said before goes before it.
                self.flush(now, link);
                let end = &mut self.links[link as usize];
                if end.state == State::Open {
                    end.hand_over(request);
                    end.moved = now;
                    self.admit(link);
                }
            }
            Action::Disconnect(key) => {
                let link = self.slots[key.0];
                self.flush(now, link);
                self.close(now, link);
            }
            Action::Store(piece) => {
                let length = u64::from(self.image.geometry().piece_length(piece));
                self.at(now + STORE + length, Happening::Stored(piece));
            }
            Action::Ready(piece) => {
                if let Some(guest) = &mut self.guest {
                    guest.ready(time(now), piece);
                }
            }
        }
    }

    /// Messages leave: at once, or behind what waits in the socket.
    fn flush(&mut self, now: Nanos, link: u32) {
        let end = &mut self.links[link as usize];
        if end.pending.messages.is_empty() {
            return;
        }
        let packet = std::mem::take(&mut end.pending);
        if end.is_drained() {
            let left = self.charge(now, packet.wire_length());
            let end = &mut self.links[link as usize];
            end.departure = end.departure.max(left);
            let at = end.departure + end.delay;
            self.mail(at, link, Letter::Packet(packet));
        } else {
            end.append(packet);
        }
    }

    /// The socket takes as many blocks as it has room for.
    fn admit(&mut self, link: u32) {
        let end = &mut self.links[link as usize];
        let key = end.key;
        while let Some(request) = end.admit() {
            self.taken.push((key, request));
        }
        self.line_up(link);
    }

    fn line_up(&mut self, link: u32) {
        let end = &mut self.links[link as usize];
        if !end.in_turn && end.may_send() {
            end.in_turn = true;
            self.turn.push_back(link);
        }
    }

    /// The line out of this host takes the next packet: links take turns.
    fn send(&mut self, now: Nanos) {
        while !self.sending
            && let Some(link) = self.turn.pop_front()
        {
            let end = &mut self.links[link as usize];
            end.in_turn = false;
            if !end.may_send() {
                continue;
            }
            let Some(packet) = end.send(now) else {
                continue;
            };
            let took = transmission(packet.wire_length().into(), self.line.up);
            let left = self.uplink_until.max(now) + took;
            self.uplink_until = left;
            let end = &mut self.links[link as usize];
            end.departure = end.departure.max(left);
            let at = end.departure + end.delay;
            self.mail(at, link, Letter::Packet(packet));
            self.sending = true;
            self.at(left, Happening::UplinkFree);
            self.admit(link);
        }
        if !self.taken.is_empty() {
            self.settle(now);
        }
    }
}

/// A pair of links between two hosts, with the time at which both ends have exchanged their handshakes.
pub fn connect(now: Nanos, dialler: &mut Node, listener: &mut Node) {
    let delay = span(dialler.line.delay) + span(listener.line.delay);
    let (here, there) = (dialler.next_link(), listener.next_link());
    let (a, b) = (dialler.index, listener.index);
    // SYN and SYN+ACK, then the handshakes of BEP 3; the listener answers and may speak at once.
    let opened = now + 4 * delay;
    dialler.open_link(opened, Link::new(now, b, there, delay, false));
    listener.open_link(opened - delay, Link::new(now, a, here, delay, true));
}
