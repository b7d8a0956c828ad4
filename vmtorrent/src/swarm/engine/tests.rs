//! Engines on a simulated network in virtual time: the production code, a seeded run, no sockets.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use sha1::{Digest, Sha1};

use super::*;

/// An image of `pieces` pieces with distinct content.
fn image(pieces: u32, piece_length: u32) -> Arc<Image> {
    let content: Vec<u8> = (0..pieces)
        .flat_map(|p| piece_data(p, piece_length))
        .collect();
    Arc::new(crate::test_image::image_of(&content, piece_length))
}

fn piece_data(piece: u32, length: u32) -> Vec<u8> {
    let mut data: Vec<u8> = (0..length).map(|i| i.wrapping_mul(31) as u8).collect();
    data[..4].copy_from_slice(&piece.to_be_bytes());
    data
}

struct Node {
    engine: Engine,
    /// Bytes per second out of this node.
    rate: f64,
    busy_until: Time,
    /// Peer key here -> (node, key there).
    links: HashMap<PeerKey, (usize, PeerKey)>,
    ready: BTreeMap<u32, Time>,
    /// Sends wrong bytes.
    liar: bool,
    /// Swallows requests.
    mute: bool,
    /// Can't store anything.
    full_disk: bool,
    /// Can't read this piece.
    unreadable: Option<u32>,
    disconnects: Vec<DisconnectReason>,
}

#[derive(Debug)]
enum Happening {
    Deliver(usize, PeerKey, WireMessage),
    Sent(usize, PeerKey, WireRequest),
    Stored(usize, PieceIndex, Bytes),
}

struct Net {
    now: Time,
    last_tick: Time,
    delay: Duration,
    image: Arc<Image>,
    nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    happenings: HashMap<u64, Happening>,
    next: u64,
}

impl Net {
    fn new(image: Arc<Image>, rtt_ms: u64) -> Self {
        Self {
            now: Time::default(),
            last_tick: Time::default(),
            delay: Duration::from_millis(rtt_ms) / 2,
            image,
            nodes: Vec::new(),
            queue: BinaryHeap::new(),
            happenings: HashMap::new(),
            next: 0,
        }
    }

    fn node(&mut self, mbit: f64, seed: bool, fill: Fill) -> usize {
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
                listen_port: 1,
                seed: self.nodes.len() as u64,
            },
        );
        self.nodes.push(Node {
            engine,
            rate: mbit * 125_000.0,
            busy_until: self.now,
            links: HashMap::new(),
            ready: BTreeMap::new(),
            liar: false,
            mute: false,
            full_disk: false,
            unreadable: None,
            disconnects: Vec::new(),
        });
        self.nodes.len() - 1
    }

    fn link(&mut self, a: usize, b: usize) {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let rtt = Some(self.delay * 2);
        let ka = self.nodes[a].engine.connected(self.now, address, rtt, true);
        let kb = self.nodes[b]
            .engine
            .connected(self.now, address, None, true);
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
    fn transmit(&mut self, from: usize, key: PeerKey, message: WireMessage, bytes: usize) -> Time {
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

    fn collect(&mut self, n: usize) {
        for output in self.nodes[n].engine.take_outputs() {
            match output {
                Output::Send(key, message) => {
                    self.transmit(n, key, message, 20);
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
                    let message = WireMessage::Piece {
                        piece: r.piece,
                        begin: r.begin,
                        data: data.into(),
                    };
                    let left = self.transmit(n, key, message, r.length as usize + 13);
                    self.at(left, Happening::Sent(n, key, r));
                }
                Output::Disconnect(key, reason) => {
                    self.nodes[n].disconnects.push(reason);
                    if let Some((to, there)) = self.nodes[n].links.remove(&key) {
                        self.nodes[to].links.remove(&there);
                        self.nodes[to].engine.disconnected(self.now, there);
                        self.collect(to);
                    }
                }
                Output::Store(piece, data) => {
                    let at = self.now + Duration::from_micros(200);
                    self.at(at, Happening::Stored(n, piece, data));
                }
                Output::Ready(piece) => {
                    self.nodes[n].ready.insert(piece.0, self.now);
                }
                Output::Completed => {}
            }
        }
    }

    /// Runs until `until`.
    fn run(&mut self, until: Time) {
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
    fn due(&self) -> Time {
        let step = self.last_tick + Duration::from_millis(1);
        let due = self
            .nodes
            .iter()
            .map(|n| n.engine.next_timeout(self.last_tick))
            .min();
        due.unwrap_or(step).max(step)
    }

    fn tick(&mut self) {
        self.last_tick = self.now;
        for n in 0..self.nodes.len() {
            self.nodes[n].engine.tick(self.now);
            self.collect(n);
        }
    }

    fn happen(&mut self, id: u64) {
        let n = match self.happenings.remove(&id).unwrap() {
            Happening::Deliver(n, key, message) => {
                if self.nodes[n].links.contains_key(&key) {
                    self.nodes[n].engine.received(self.now, key, message);
                }
                n
            }
            Happening::Sent(n, key, request) => {
                self.nodes[n]
                    .engine
                    .block_sent(self.now, key, request, true);
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

    fn run_for(&mut self, ms: u64) {
        self.run(self.now + Duration::from_millis(ms));
    }

    fn demand(&mut self, n: usize, piece: u32) {
        self.nodes[n].engine.demand(self.now, &[PieceIndex(piece)]);
        self.collect(n);
    }

    /// Milliseconds that a demand for `piece` takes.
    fn timed_demand(&mut self, n: usize, piece: u32) -> f64 {
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

const PIECE: u32 = 64 << 10;

#[test]
fn a_full_fill_uses_the_line_and_ends_complete() {
    let mut net = Net::new(image(400, PIECE), 20);
    let seed = net.node(100.0, true, Fill::None);
    let leech = net.node(100.0, false, Fill::Full);
    net.link(leech, seed);
    let bytes = f64::from(400 * PIECE);
    let ideal = bytes / (100.0 * 125_000.0);
    net.run_for((ideal * 1000.0 * 1.15) as u64 + 200);
    assert!(
        net.nodes[leech].engine.is_complete(),
        "{} left",
        net.nodes[leech].engine.picker.missing()
    );
    assert_eq!(net.nodes[leech].disconnects, [DisconnectReason::BothSeeds]);
    assert_eq!(net.nodes[leech].engine.traffic().wasted, 0);
}

#[test]
fn nothing_is_fetched_without_a_read_when_the_policy_is_none() {
    let mut net = Net::new(image(50, PIECE), 20);
    let seed = net.node(100.0, true, Fill::None);
    let leech = net.node(100.0, false, Fill::None);
    net.link(leech, seed);
    net.run_for(5000);
    assert_eq!(net.nodes[leech].engine.traffic().fetched, [0; 4]);
    net.timed_demand(leech, 7);
    net.run_for(5000);
    assert_eq!(
        net.nodes[leech].engine.traffic().fetched,
        [u64::from(PIECE), 0, 0, 0]
    );
}

#[test]
fn demand_overtakes_a_fill_that_saturates_the_line() {
    let mut net = Net::new(image(3000, PIECE), 20);
    let seed = net.node(100.0, true, Fill::None);
    let leech = net.node(100.0, false, Fill::Full);
    net.link(leech, seed);
    net.run_for(3000);
    let mut waits = Vec::new();
    for i in 0..60 {
        let piece = (0..3000).map(|k| (i * 47 + k * 13) % 3000).find(|p| {
            net.nodes[leech]
                .engine
                .picker
                .band(PieceIndex(*p))
                .is_none()
                && net.nodes[leech].engine.picker.is_missing(PieceIndex(*p))
        });
        let Some(piece) = piece else { break };
        waits.push(net.timed_demand(leech, piece));
        net.run_for(50);
    }
    waits.sort_by(f64::total_cmp);
    assert!(
        waits.len() > 30,
        "the fill was too fast for this test: {}",
        waits.len()
    );
    let (p50, p99) = (waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
    // A round trip is 20 ms and the piece takes 5.2 ms on the line.
    assert!(p50 < 40.0, "p50 {p50:.1} ms");
    assert!(p99 < 80.0, "p99 {p99:.1} ms");
}

#[test]
fn a_demand_piece_is_striped_over_the_peers_that_have_it() {
    let length = 1 << 20;
    let mut times = Vec::new();
    for seeds in [1, 4] {
        let mut net = Net::new(image(4, length), 20);
        let leech = net.node(100.0, false, Fill::None);
        for _ in 0..seeds {
            let seed = net.node(20.0, true, Fill::None);
            net.link(leech, seed);
        }
        net.run_for(200);
        net.timed_demand(leech, 0);
        net.timed_demand(leech, 1);
        times.push(net.timed_demand(leech, 2));
    }
    assert!(times[1] < times[0] * 0.35, "{times:?}");
}

#[test]
fn a_block_that_never_comes_is_asked_for_elsewhere() {
    let mut net = Net::new(image(40, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let good = net.node(100.0, true, Fill::None);
    let mute = net.node(100.0, true, Fill::None);
    net.nodes[mute].mute = true;
    net.link(leech, mute);
    net.link(leech, good);
    net.run_for(200);
    for piece in 0..10 {
        let wait = net.timed_demand(leech, piece);
        assert!(wait < 400.0, "piece {piece}: {wait} ms");
    }
}

#[test]
fn a_liar_is_found_and_the_piece_is_fetched_from_another() {
    let mut net = Net::new(image(40, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let liar = net.node(100.0, true, Fill::None);
    net.nodes[liar].liar = true;
    net.link(leech, liar);
    net.run_for(100);
    net.demand(leech, 3);
    net.run_for(200);
    assert_eq!(net.nodes[leech].disconnects, [DisconnectReason::BadData]);
    assert!(net.nodes[leech].ready.is_empty());
    let good = net.node(100.0, true, Fill::None);
    net.link(leech, good);
    net.run_for(500);
    assert!(net.nodes[leech].ready.contains_key(&3));
}

#[test]
fn peers_complete_from_each_other_when_the_seed_has_gone() {
    let mut net = Net::new(image(120, PIECE), 5);
    let seed = net.node(40.0, true, Fill::None);
    let peers: Vec<usize> = (0..3).map(|_| net.node(100.0, false, Fill::Full)).collect();
    for (i, &p) in peers.iter().enumerate() {
        net.link(p, seed);
        for &q in &peers[..i] {
            net.link(p, q);
        }
    }
    // The seed leaves as soon as the peers together hold every piece.
    let held = |net: &Net| -> usize {
        let all: std::collections::HashSet<u32> = peers
            .iter()
            .flat_map(|p| net.nodes[*p].ready.keys().copied())
            .collect();
        all.len()
    };
    while held(&net) < 120 {
        net.run_for(20);
        assert!(net.now.since(Time::default()) < Duration::from_secs(60));
    }
    let sent = net.nodes[seed].engine.traffic().uploaded as f64;
    let total = net.image.geometry().total_length() as f64;
    assert!(
        sent < 1.5 * total,
        "the seed sent {:.2} copies",
        sent / total
    );
    let keys: Vec<(PeerKey, (usize, PeerKey))> = net.nodes[seed].links.drain().collect();
    for (_, (n, key)) in keys {
        net.nodes[n].links.remove(&key);
        net.nodes[n].engine.disconnected(net.now, key);
        net.collect(n);
    }
    net.run_for(20_000);
    for &p in &peers {
        assert!(
            net.nodes[p].engine.is_complete(),
            "{} left",
            net.nodes[p].engine.picker.missing()
        );
    }
}

#[test]
fn a_full_disk_does_not_become_a_loop_of_downloads_and_ends_well() {
    let mut net = Net::new(image(200, PIECE), 20);
    let seed = net.node(100.0, true, Fill::None);
    let leech = net.node(100.0, false, Fill::Full);
    net.link(leech, seed);
    net.run_for(300);
    net.nodes[leech].full_disk = true;
    net.run_for(20_000);
    let traffic = net.nodes[leech].engine.traffic();
    let line = 20 * 12_500_000;
    assert!(
        traffic.wasted > 0 && traffic.wasted < line / 20,
        "{} in vain",
        traffic.wasted
    );
    net.nodes[leech].full_disk = false;
    net.run_for(20_000);
    assert!(net.nodes[leech].engine.is_complete());
    let kept: u64 = net.nodes[leech].engine.traffic().fetched.iter().sum();
    assert_eq!(
        kept,
        net.image.geometry().total_length(),
        "what was kept is counted once"
    );
}

#[test]
fn a_damaged_piece_may_be_found_by_many_and_is_fetched_once() {
    let mut net = Net::new(image(40, PIECE), 20);
    let seed = net.node(100.0, true, Fill::None);
    let leech = net.node(100.0, false, Fill::None);
    net.link(leech, seed);
    net.run_for(100);
    net.timed_demand(leech, 5);
    let before = net.nodes[leech].engine.traffic().fetched[0];
    net.nodes[leech].engine.damaged(net.now, PieceIndex(5));
    net.nodes[leech].ready.clear();
    net.demand(leech, 5);
    net.run_for(5);
    net.nodes[leech].engine.damaged(net.now, PieceIndex(5));
    net.demand(leech, 5);
    net.run_for(500);
    assert!(net.nodes[leech].ready.contains_key(&5));
    let traffic = net.nodes[leech].engine.traffic();
    assert_eq!(
        (traffic.fetched[0] - before, traffic.wasted),
        (u64::from(PIECE), 0)
    );
    for peer in net.nodes[leech].engine.peers.values() {
        assert_eq!((peer.outstanding.len(), peer.path.in_flight()), (0, 0));
    }
}

#[test]
fn a_piece_that_a_seed_can_not_read_comes_from_another_and_wedges_nobody() {
    let mut net = Net::new(image(40, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let broken = net.node(100.0, true, Fill::None);
    net.nodes[broken].unreadable = Some(7);
    net.link(leech, broken);
    net.run_for(100);
    net.timed_demand(leech, 6);
    net.demand(leech, 7);
    net.run_for(200);
    assert!(
        net.nodes[leech].engine.peers.is_empty(),
        "the seed ends the connection"
    );
    let good = net.node(100.0, true, Fill::None);
    net.link(leech, good);
    net.run_for(300);
    assert!(net.nodes[leech].ready.contains_key(&7));
}

#[test]
fn a_demand_that_nobody_can_serve_does_not_stop_the_idle_fill() {
    let mut net = Net::new(image(60, PIECE), 20);
    let leech = net.node(100.0, false, Fill::Idle);
    let partial = net.node(100.0, false, Fill::None);
    for p in 0..59 {
        net.nodes[partial].engine.have.set(PieceIndex(p), true);
        net.nodes[partial].engine.picker.have(PieceIndex(p));
    }
    net.demand(leech, 59);
    net.link(leech, partial);
    net.run_for(3000);
    assert_eq!(net.nodes[leech].ready.len(), 59);
}

#[test]
fn broken_messages_end_the_connection() {
    let bad = [
        WireMessage::Have(999),
        WireMessage::Bitfield(Bytes::from_static(&[0xff; 99])),
        WireMessage::Request(WireRequest {
            piece: 0,
            begin: 0,
            length: 1 << 20,
        }),
        WireMessage::Request(WireRequest {
            piece: 0,
            begin: u32::MAX,
            length: 16384,
        }),
        WireMessage::Piece {
            piece: 0,
            begin: 3,
            data: Bytes::from_static(b"x"),
        },
    ];
    for message in bad {
        let mut net = Net::new(image(4, PIECE), 20);
        let seed = net.node(100.0, true, Fill::None);
        let leech = net.node(100.0, false, Fill::None);
        net.link(leech, seed);
        net.run_for(100);
        let key = *net.nodes[seed].links.keys().next().unwrap();
        net.nodes[seed]
            .engine
            .received(net.now, key, message.clone());
        net.collect(seed);
        let reason = &net.nodes[seed].disconnects[..];
        assert!(
            matches!(reason, [DisconnectReason::Protocol(_)]),
            "{message:?}: {reason:?}"
        );
    }
}
