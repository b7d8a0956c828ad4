//! A simulated network in virtual time for engines: the production code, a seeded run, no sockets.
//!
//! Invariant: time only moves forward, and nothing arrives before its rate and delay let it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use sha1::{Digest, Sha1};

use super::*;

/// An image of `pieces` pieces with distinct content.
pub(super) fn image(pieces: u32, piece_length: u32) -> Arc<Image> {
    let content: Vec<u8> = (0..pieces)
        .flat_map(|p| piece_data(p, piece_length))
        .collect();
    Arc::new(crate::test_image::image_of(&content, piece_length))
}

pub(super) fn piece_data(piece: u32, length: u32) -> Vec<u8> {
    let mut data: Vec<u8> = (0..length).map(|i| i.wrapping_mul(31) as u8).collect();
    data[..4].copy_from_slice(&piece.to_be_bytes());
    data
}

pub(super) struct Node {
    pub(super) engine: Engine,
    /// Bytes per second out of this node.
    pub(super) rate: f64,
    pub(super) busy_until: Time,
    /// Peer key here -> (node, key there).
    pub(super) links: HashMap<PeerKey, (usize, PeerKey)>,
    pub(super) ready: BTreeMap<u32, Time>,
    /// Sends wrong bytes.
    pub(super) liar: bool,
    /// Swallows requests.
    pub(super) mute: bool,
    /// Lets nobody request.
    pub(super) stingy: bool,
    /// Bytes of blocks that it sent, by peer key.
    pub(super) given: BTreeMap<PeerKey, u64>,
    /// Knows the fast extension.
    pub(super) fast: bool,
    /// Can't store anything.
    pub(super) full_disk: bool,
    /// Can't read this piece.
    pub(super) unreadable: Option<u32>,
    pub(super) disconnects: Vec<DisconnectReason>,
    pub(super) rejects_sent: usize,
    /// Bytes on the wire for a byte of its blocks, where a peer takes them compressed.
    pub(super) share: f64,
    /// Who takes them so.
    pub(super) compressed_to: BTreeMap<PeerKey, bool>,
    /// Profiles that peers gave, and when; each is taken for a good one.
    pub(super) profiles: Vec<(Time, Bytes)>,
    /// What peers told of others, and when.
    pub(super) told: Vec<(Time, IpAddr, Vec<SocketAddr>)>,
}

#[derive(Debug)]
enum Happening {
    Deliver(usize, PeerKey, WireMessage),
    Sent(usize, PeerKey, WireRequest, u32),
    Stored(usize, PieceIndex, Bytes),
}

pub(super) struct Net {
    pub(super) now: Time,
    pub(super) last_tick: Time,
    pub(super) delay: Duration,
    pub(super) image: Arc<Image>,
    pub(super) nodes: Vec<Node>,
    pub(super) queue: BinaryHeap<Reverse<(Time, u64)>>,
    happenings: HashMap<u64, Happening>,
    pub(super) next: u64,
}

/// The peer id of a node.
fn id_of(node: usize) -> [u8; 20] {
    let mut id = [b'n'; 20];
    id[12..].copy_from_slice(&(node as u64).to_be_bytes());
    id
}

/// Where a node listens: of no local network.
pub(super) fn address_of(node: usize) -> SocketAddr {
    let [.., high, low] = (node as u32 + 1).to_be_bytes();
    ([198, 18, high, low], 1).into()
}

impl Net {
    pub(super) fn new(image: Arc<Image>, rtt_ms: u64) -> Self {
        Self {
            now: Time::default(),
            last_tick: Time::default(),
            delay: Duration::from_millis(rtt_ms) / 2,
            image,
            nodes: Vec::new(),
            queue: BinaryHeap::new(),
            happenings: HashMap::default(),
            next: 0,
        }
    }

    pub(super) fn node(&mut self, mbit: f64, seed: bool, fill: Fill) -> usize {
        self.node_with_slots(mbit, seed, fill, None)
    }

    pub(super) fn node_with_slots(
        &mut self,
        mbit: f64,
        seed: bool,
        fill: Fill,
        upload_slots: Option<usize>,
    ) -> usize {
        let mut have = Bitfield::new(self.image.geometry().piece_count());
        if seed {
            for p in self.image.geometry().pieces() {
                have.set(p, true);
            }
        }
        let limiter = || Arc::new(Mutex::new(Limiter::new(None)));
        let engine = Engine::new(
            self.now,
            EngineConfig {
                image: self.image.clone(),
                have,
                fill,
                download: limiter(),
                upload: limiter(),
                upload_slots,
                listen_port: 1,
                peer_id: id_of(self.nodes.len()),
                profile_exchange: true,
                peer_exchange: true,
                seed: self.nodes.len() as u64,
            },
        );
        self.nodes.push(Node {
            engine,
            rate: mbit * 125_000.0,
            busy_until: self.now,
            links: HashMap::default(),
            ready: BTreeMap::new(),
            liar: false,
            mute: false,
            stingy: false,
            given: BTreeMap::new(),
            fast: true,
            full_disk: false,
            unreadable: None,
            disconnects: Vec::new(),
            rejects_sent: 0,
            share: 1.0,
            compressed_to: BTreeMap::new(),
            profiles: Vec::new(),
            told: Vec::new(),
        });
        self.nodes.len() - 1
    }

    pub(super) fn link(&mut self, a: usize, b: usize) {
        let rtt = Some(self.delay * 2);
        let abilities = |node| Abilities {
            extended: true,
            fast: self.nodes[a].fast && self.nodes[b].fast,
            id: id_of(node),
            ..Abilities::default()
        };
        let (of_a, of_b) = (abilities(a), abilities(b));
        let ka = self.nodes[a]
            .engine
            .connected(self.now, address_of(b), rtt, of_b);
        let kb = self.nodes[b]
            .engine
            .connected(self.now, address_of(a), None, of_a);
        self.nodes[a].links.insert(ka, (b, kb));
        self.nodes[b].links.insert(kb, (a, ka));
        self.collect(a);
        self.collect(b);
    }

    fn at(&mut self, time: Time, happening: Happening) {
        self.next += 1;
        self.queue.push(Reverse((time, self.next)));
        self.happenings.insert(self.next, happening);
    }

    /// Puts a message on the wire: it leaves when the ones before it have, and takes the delay.
    pub(super) fn transmit(
        &mut self,
        from: usize,
        key: PeerKey,
        message: WireMessage,
        bytes: usize,
    ) -> Time {
        let node = &mut self.nodes[from];
        let Some(&(to, there)) = node.links.get(&key) else {
            return self.now;
        };
        let start = node.busy_until.max(self.now);
        node.busy_until = start + Duration::from_secs_f64(bytes as f64 / node.rate);
        let left = node.busy_until;
        self.at(left + self.delay, Happening::Deliver(to, there, message));
        left
    }

    pub(super) fn collect(&mut self, n: usize) {
        for output in self.nodes[n].engine.take_outputs() {
            match output {
                Output::Send(_, WireMessage::Unchoke) if self.nodes[n].stingy => {}
                Output::Send(key, message) => {
                    let reject = matches!(message, WireMessage::Reject(_));
                    self.nodes[n].rejects_sent += usize::from(reject);
                    let bytes = match &message {
                        WireMessage::Metadata { message, .. } => 60 + message.encode().1.len(),
                        _ => 20,
                    };
                    self.transmit(n, key, message, bytes);
                }
                Output::SendBlock(_, _) if self.nodes[n].mute => {}
                Output::SendBlock(key, r) if self.nodes[n].unreadable == Some(r.piece) => {
                    self.nodes[n].engine.block_sent(self.now, key, r, false);
                    self.collect(n);
                }
                Output::SendBlock(key, r) => {
                    let length = self.image.geometry().piece_length(PieceIndex(r.piece));
                    let mut data = piece_data(r.piece, length)
                        [r.begin as usize..(r.begin + r.length) as usize]
                        .to_vec();
                    if self.nodes[n].liar {
                        data[0] ^= 1;
                    }
                    let (piece, begin, data) = (r.piece, r.begin, Bytes::from(data));
                    let node = &self.nodes[n];
                    let (message, wire) = if node.compressed_to.get(&key) == Some(&true) {
                        let wire = (f64::from(r.length) * node.share).ceil() as u32;
                        let message = WireMessage::Expanded {
                            piece,
                            begin,
                            data,
                            wire,
                            frame: Bytes::new(),
                        };
                        (message, wire)
                    } else {
                        (WireMessage::Piece { piece, begin, data }, r.length)
                    };
                    *self.nodes[n].given.entry(key).or_default() += u64::from(r.length);
                    let left = self.transmit(n, key, message, wire as usize + 13);
                    self.at(left, Happening::Sent(n, key, r, wire));
                }
                Output::Disconnect(key, reason) => {
                    self.nodes[n].disconnects.push(reason);
                    if let Some((to, there)) = self.nodes[n].links.remove(&key) {
                        self.nodes[to].links.remove(&there);
                        self.nodes[to].engine.disconnected(self.now, there);
                        self.collect(to);
                    }
                }
                Output::Compress(key, extension) => {
                    self.nodes[n].compressed_to.insert(key, extension.is_some());
                }
                Output::Store(piece, data) => {
                    let at = self.now + Duration::from_micros(200);
                    self.at(at, Happening::Stored(n, piece, data));
                }
                Output::Ready(piece) => {
                    self.nodes[n].ready.insert(piece.0, self.now);
                }
                Output::Profile(key, text) => {
                    self.nodes[n].profiles.push((self.now, text));
                    self.nodes[n].engine.profile_checked(self.now, key, true);
                    self.collect(n);
                }
                Output::Told(teller, peers) => {
                    self.nodes[n].told.push((self.now, teller, peers));
                }
                Output::Completed
                | Output::Frames(..)
                | Output::Liar(_)
                | Output::Node(_)
                | Output::Fetch { .. } => {}
            }
        }
    }

    /// Runs until `until`.
    pub(super) fn run(&mut self, until: Time) {
        loop {
            let event = self.queue.peek().map(|Reverse((t, _))| *t);
            let due = self.due();
            match event {
                Some(at) if at <= due && at <= until => {
                    self.now = at.max(self.now);
                    if let Some(Reverse((_, id))) = self.queue.pop() {
                        self.happen(id);
                    }
                }
                _ if due <= until => {
                    self.now = due.max(self.now);
                    self.tick();
                }
                _ => {
                    self.now = until;
                    return;
                }
            }
        }
    }

    /// When the first engine wants a tick; at least a step from the last one.
    pub(super) fn due(&self) -> Time {
        let step = self.last_tick + Duration::from_millis(1);
        let due = self
            .nodes
            .iter()
            .map(|n| n.engine.next_timeout(self.last_tick))
            .min();
        due.unwrap_or(step).max(step)
    }

    pub(super) fn tick(&mut self) {
        self.last_tick = self.now;
        for n in 0..self.nodes.len() {
            self.nodes[n].engine.tick(self.now);
            self.collect(n);
        }
    }

    pub(super) fn happen(&mut self, id: u64) {
        let n = match self.happenings.remove(&id).unwrap() {
            Happening::Deliver(n, key, message) => {
                if self.nodes[n].links.contains_key(&key) {
                    self.nodes[n].engine.received(self.now, key, message);
                }
                n
            }
            Happening::Sent(n, key, request, wire) => {
                self.nodes[n]
                    .engine
                    .block_sent_as(self.now, key, request, wire);
                n
            }
            Happening::Stored(n, piece, data) => {
                let hash: [u8; 20] = Sha1::digest(&data).into();
                if self.nodes[n].full_disk {
                    self.nodes[n].engine.not_stored(self.now, piece);
                } else if hash == *self.image.piece_hash(piece) {
                    self.nodes[n].engine.stored(self.now, piece);
                } else {
                    self.nodes[n].engine.mismatched(self.now, piece);
                }
                n
            }
        };
        self.collect(n);
    }

    pub(super) fn run_for(&mut self, ms: u64) {
        self.run(self.now + Duration::from_millis(ms));
    }

    pub(super) fn demand(&mut self, n: usize, piece: u32) {
        self.nodes[n].engine.demand(self.now, &[PieceIndex(piece)]);
        self.collect(n);
    }

    /// Milliseconds that a demand for `piece` takes.
    pub(super) fn timed_demand(&mut self, n: usize, piece: u32) -> f64 {
        let start = self.now;
        self.demand(n, piece);
        while !self.nodes[n].ready.contains_key(&piece) {
            self.run_for(1);
            assert!(
                self.now.since(start) < Duration::from_secs(30),
                "demand never ends"
            );
        }
        self.nodes[n].ready[&piece].since(start).as_secs_f64() * 1000.0
    }
}
