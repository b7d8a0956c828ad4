//! What an engine gives to a crowd: who is served when, and who is choked. Scripted peers, virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::network::{Net, image};
use super::*;

const PIECE: u32 = 64 << 10;
const BLOCK: u32 = 16 << 10;
/// Blocks of the image.
const BLOCKS: u32 = 4 * 256;
const DELAY: Duration = Duration::from_micros(500);
/// 100 Mbit/s.
const RATE: f64 = 12.5e6;

fn block(n: u32) -> WireRequest {
    let n = n % BLOCKS;
    WireRequest {
        piece: n / 4,
        begin: n % 4 * BLOCK,
        length: BLOCK,
    }
}

enum Event {
    /// A message reaches the seed.
    Said(usize, WireMessage),
    /// The seed's socket has taken a block.
    Sent(usize, WireRequest),
    /// A block reaches a peer.
    Got(usize, WireRequest),
}

/// A peer, which asks as it is told.
struct Asker {
    key: PeerKey,
    next: u32,
    asked: BTreeMap<WireRequest, Time>,
    /// How long each block took.
    waits: Vec<Duration>,
    /// It asks for another block for each that comes.
    goes_on: bool,
    unchoked: bool,
    rejects: usize,
    allowed: Vec<u32>,
    said: Vec<WireMessage>,
}

/// A seed with a line of its own.
struct Crowd {
    engine: Engine,
    now: Time,
    line: f64,
    busy_until: Time,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    events: HashMap<u64, Event>,
    number: u64,
    peers: Vec<Asker>,
}

impl Crowd {
    fn new(line: f64, limit: Option<u64>, slots: Option<usize>) -> Self {
        let image = image(BLOCKS / 4, PIECE);
        let limiter = |limit| Arc::new(Mutex::new(Limiter::new(limit)));
        let engine = Engine::new(
            Time::default(),
            EngineConfig {
                have: Bitfield::full(image.geometry().piece_count()),
                image,
                fill: Fill::None,
                download: limiter(None),
                upload: limiter(limit),
                upload_slots: slots,
                listen_port: 1,
                peer_id: [0; 20],
                profile_exchange: false,
                peer_exchange: false,
                seed: 3,
            },
        );
        Self {
            engine,
            now: Time::default(),
            line,
            busy_until: Time::default(),
            queue: BinaryHeap::new(),
            events: HashMap::default(),
            number: 0,
            peers: Vec::new(),
        }
    }

    /// A peer connects, and wants something. `knows`: the fast extension, and extension messages with vmt_urgent.
    fn join(&mut self, knows: bool) -> usize {
        let n = self.peers.len();
        let address = SocketAddr::from(([198, 18, n as u8, 1], 1));
        let abilities = Abilities {
            extended: knows,
            fast: knows,
            id: [n as u8; 20],
        };
        let key = self.engine.connected(self.now, address, None, abilities);
        self.peers.push(Asker {
            key,
            next: n as u32 * 37,
            asked: BTreeMap::new(),
            waits: Vec::new(),
            goes_on: false,
            unchoked: false,
            rejects: 0,
            allowed: Vec::new(),
            said: Vec::new(),
        });
        self.collect();
        self.say(n, WireMessage::Interested);
        n
    }

    fn at(&mut self, time: Time, event: Event) {
        self.number += 1;
        self.queue.push(Reverse((time, self.number)));
        self.events.insert(self.number, event);
    }

    fn say(&mut self, n: usize, message: WireMessage) {
        self.at(self.now + DELAY, Event::Said(n, message));
    }

    fn ask(&mut self, n: usize, urgent: bool) {
        let peer = &mut self.peers[n];
        let request = block(peer.next);
        peer.next += 1;
        peer.asked.insert(request, self.now);
        self.say(n, WireMessage::Request(request));
        if urgent {
            let extension = VMT_URGENT;
            self.say(n, WireMessage::Urgent { extension, request });
        }
    }

    /// Asks for so many blocks, and for one more with each that comes.
    fn ask_on(&mut self, n: usize, outstanding: usize) {
        self.peers[n].goes_on = true;
        for _ in 0..outstanding {
            self.ask(n, false);
        }
    }

    fn collect(&mut self) {
        for output in self.engine.take_outputs() {
            match output {
                Output::SendBlock(key, request) => {
                    let n = self.by_key(key);
                    let bytes = f64::from(request.length) + 13.0;
                    self.busy_until =
                        self.busy_until.max(self.now) + Duration::from_secs_f64(bytes / self.line);
                    let gone = self.busy_until;
                    self.at(gone, Event::Sent(n, request));
                    self.at(gone + DELAY, Event::Got(n, request));
                }
                Output::Send(key, message) => self.hear(key, message),
                Output::Disconnect(_, reason) => panic!("{reason:?}"),
                _ => {}
            }
        }
    }

    fn by_key(&self, key: PeerKey) -> usize {
        self.peers.iter().position(|p| p.key == key).unwrap()
    }

    /// Small messages are there at once; what a choke or a reject takes away is asked for again after the unchoke.
    fn hear(&mut self, key: PeerKey, message: WireMessage) {
        let Some(n) = self.peers.iter().position(|p| p.key == key) else {
            // Said while it connects.
            return;
        };
        let peer = &mut self.peers[n];
        match &message {
            WireMessage::Choke => peer.unchoked = false,
            WireMessage::Unchoke => {
                peer.unchoked = true;
                let asked: Vec<WireRequest> = peer.asked.keys().copied().collect();
                for request in asked {
                    self.say(n, WireMessage::Request(request));
                }
            }
            WireMessage::Reject(_) => peer.rejects += 1,
            WireMessage::AllowedFast(piece) => peer.allowed.push(*piece),
            _ => {}
        }
        self.peers[n].said.push(message);
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        let mut last_tick = self.now;
        loop {
            let tick = self.engine.next_timeout(last_tick);
            let tick = tick.max(last_tick + Duration::from_millis(1));
            let event = self.queue.peek().map(|Reverse((at, _))| *at);
            if let Some(at) = event
                && at <= tick
                && at <= end
            {
                self.now = at.max(self.now);
                let Some(Reverse((_, id))) = self.queue.pop() else {
                    return;
                };
                self.happen(id);
            } else if tick <= end {
                self.now = tick.max(self.now);
                last_tick = self.now;
                self.engine.tick(self.now);
            } else {
                self.now = end;
                return;
            }
            self.collect();
        }
    }

    fn happen(&mut self, id: u64) {
        match self.events.remove(&id).unwrap() {
            Event::Said(n, message) => {
                let key = self.peers[n].key;
                self.engine.received(self.now, key, message);
            }
            Event::Sent(n, request) => {
                let key = self.peers[n].key;
                self.engine.block_sent(self.now, key, request, true);
            }
            Event::Got(n, request) => {
                let now = self.now;
                let peer = &mut self.peers[n];
                if let Some(at) = peer.asked.remove(&request) {
                    peer.waits.push(now.since(at));
                    if peer.goes_on {
                        self.ask(n, false);
                    }
                }
            }
        }
    }

    /// The waits of reads of one block each, five a second: less than the share of one of a hundred peers.
    fn reads(&mut self, n: usize, count: usize, urgent: bool) -> Waits {
        let before = self.peers[n].waits.len();
        for turn in 0..count {
            self.ask(n, urgent);
            self.run_for(Duration::from_millis(195 + (turn % 11) as u64));
        }
        self.run_for(Duration::from_secs(5));
        Waits::of(&self.peers[n].waits[before..], count)
    }
}

/// Milliseconds.
#[derive(Debug)]
struct Waits {
    median: f64,
    p99: f64,
}

impl Waits {
    fn of(waits: &[Duration], count: usize) -> Self {
        assert_eq!(waits.len(), count, "each is answered");
        let mut sorted: Vec<f64> = waits.iter().map(|w| w.as_secs_f64() * 1000.0).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        Self {
            median: sorted[count / 2],
            p99: sorted[count * 99 / 100],
        }
    }
}

/// A hundred leechers that keep 16 requests outstanding each: 26 MB, two seconds of the line.
fn crowded(line: f64, limit: Option<u64>, know: bool) -> (Crowd, usize) {
    let mut crowd = Crowd::new(line, limit, None);
    for _ in 0..100 {
        let n = crowd.join(know);
        crowd.ask_on(n, 16);
    }
    let guest = crowd.join(true);
    crowd.run_for(Duration::from_secs(5));
    (crowd, guest)
}

#[test]
fn an_urgent_block_overtakes_a_hundred_leechers() {
    // Strangers and our own kind; the limit is what the line gives.
    for know in [false, true] {
        let (mut crowd, guest) = crowded(10.0 * RATE, Some(RATE as u64), know);
        let before = crowd.engine.traffic().uploaded;
        let start = crowd.now;
        let urgent = crowd.reads(guest, 300, true);
        let plain = crowd.reads(guest, 100, false);
        let leecher = &crowd.peers[7].waits;
        let last = Waits::of(&leecher[leecher.len() - 50..], 50);
        println!("urgent {urgent:?}, not {plain:?}, of a leecher {last:?}");
        assert!(urgent.p99 < 50.0, "{urgent:?}");
        assert!(urgent.p99 < plain.median / 2.0, "{urgent:?} {plain:?}");
        // That costs the line nothing.
        let bytes = crowd.engine.traffic().uploaded - before;
        let rate = bytes as f64 / crowd.now.since(start).as_secs_f64();
        assert!(rate > RATE * 0.98, "{rate} bytes/s");
    }
}

#[test]
fn where_the_line_itself_is_full_an_urgent_block_waits_for_what_sockets_hold_alone() {
    let (mut crowd, guest) = crowded(RATE, None, false);
    let urgent = crowd.reads(guest, 200, true);
    println!("urgent {urgent:?}");
    // Two blocks of each of a hundred.
    assert!(urgent.p99 < 300.0, "{urgent:?}");
}

#[test]
fn a_mark_raises_what_was_asked_for_before() {
    let (mut crowd, guest) = crowded(10.0 * RATE, Some(RATE as u64), false);
    for _ in 0..16 {
        crowd.ask(guest, false);
    }
    crowd.run_for(Duration::from_millis(5));
    let last = block(crowd.peers[guest].next - 1);
    let start = crowd.now;
    let extension = VMT_URGENT;
    crowd.say(
        guest,
        WireMessage::Urgent {
            extension,
            request: last,
        },
    );
    crowd.run_for(Duration::from_millis(50));
    assert!(!crowd.peers[guest].asked.contains_key(&last), "it is here");
    assert!(crowd.peers[guest].asked.len() > 10, "the others are not");
    assert!(crowd.now.since(start) <= Duration::from_millis(50));
}

#[test]
fn with_few_slots_a_seed_serves_strangers_and_its_own_kind_in_turn() {
    let mut crowd = Crowd::new(RATE / 10.0, None, Some(2));
    for n in 0..8 {
        let n = crowd.join(n % 2 == 0);
        crowd.ask_on(n, 4);
    }
    for _ in 0..12 {
        for n in 0..8 {
            crowd.say(n, WireMessage::KeepAlive);
        }
        crowd.run_for(Duration::from_secs(60));
    }
    for (n, peer) in crowd.peers.iter().enumerate() {
        assert!(
            peer.waits.len() > 1000,
            "{n} got {} blocks",
            peer.waits.len()
        );
        let knows = n % 2 == 0;
        assert_eq!(peer.rejects > 0, knows, "rejects are for who knows them");
        let sent = peer.said.iter().filter(|m| matches!(m, WireMessage::Choke));
        assert!(sent.count() < 40, "{n} is choked again and again");
    }
}

#[test]
fn a_choke_rejects_each_request_that_waits() {
    let mut crowd = Crowd::new(RATE, Some(100_000), Some(1));
    let (first, second) = (crowd.join(true), crowd.join(true));
    crowd.run_for(Duration::from_millis(10));
    assert!(crowd.peers[first].unchoked && !crowd.peers[second].unchoked);
    for _ in 0..500 {
        crowd.ask(first, false);
    }
    crowd.run_for(Duration::from_secs(75));
    let peer = &crowd.peers[first];
    assert!(!peer.unchoked && crowd.peers[second].unchoked);
    let at = |wanted: &WireMessage| peer.said.iter().rposition(|m| m == wanted);
    let choke = at(&WireMessage::Choke).unwrap();
    let rejected: Vec<&WireMessage> = peer.said[choke + 1..].iter().collect();
    let each =
        |m: &&&WireMessage| matches!(m, WireMessage::Reject(r) if peer.asked.contains_key(r));
    assert_eq!(rejected.iter().filter(each).count(), peer.asked.len());
    assert!(peer.asked.len() > 10 && peer.waits.len() > 10);
    // What it asks for now is rejected at once.
    let before = peer.rejects;
    crowd.ask(first, false);
    crowd.run_for(Duration::from_millis(10));
    assert_eq!(crowd.peers[first].rejects, before + 1);
}

#[test]
fn who_finds_no_slot_may_have_a_few_pieces() {
    let mut crowd = Crowd::new(RATE, None, Some(1));
    crowd.join(true);
    let second = crowd.join(true);
    let stranger = crowd.join(false);
    crowd.run_for(Duration::from_millis(10));
    assert!(crowd.peers[stranger].allowed.is_empty());
    let allowed = crowd.peers[second].allowed.clone();
    assert_eq!(allowed.len(), 10);
    let ask = |crowd: &mut Crowd, piece: u32, part: u32| {
        crowd.peers[second].next = piece * 4 + part;
        crowd.ask(second, false);
    };
    for piece in allowed {
        for part in 0..4 {
            ask(&mut crowd, piece, part);
        }
    }
    crowd.run_for(Duration::from_secs(1));
    assert!(!crowd.peers[second].unchoked);
    assert_eq!(crowd.peers[second].waits.len(), 40);
    // Once is enough.
    let again = crowd.peers[second].allowed[0];
    ask(&mut crowd, again, 0);
    crowd.run_for(Duration::from_secs(1));
    assert_eq!(crowd.peers[second].rejects, 1);
}

#[test]
fn free_riders_get_little_where_slots_are_scarce() {
    let mut net = Net::new(image(800, PIECE), 20);
    let seed = net.node(8.0, true, Fill::None);
    let us = net.node_with_slots(8.0, false, Fill::Full, Some(4));
    net.link(us, seed);
    let mut givers = Vec::new();
    let mut riders = Vec::new();
    for n in 0..9 {
        let peer = net.node(8.0, false, Fill::Full);
        if n < 3 {
            net.link(peer, seed);
            givers.push(peer);
        } else {
            net.nodes[peer].stingy = true;
            riders.push(peer);
        }
        net.link(us, peer);
    }
    net.run_for(15_000);
    let given = |net: &Net, peer: usize| -> u64 {
        let node = &net.nodes[us];
        let key = node.links.iter().find(|(_, there)| there.0 == peer);
        key.and_then(|(key, _)| node.given.get(key))
            .copied()
            .unwrap_or(0)
    };
    let before: Vec<u64> = givers
        .iter()
        .chain(&riders)
        .map(|p| given(&net, *p))
        .collect();
    net.run_for(15_000);
    let after = givers.iter().chain(&riders).map(|p| given(&net, *p));
    let moved: Vec<u64> = after.zip(before).map(|(a, b)| a - b).collect();
    let mean = |part: &[u64]| part.iter().sum::<u64>() as f64 / part.len() as f64;
    let (to_givers, to_riders) = (mean(&moved[..3]), mean(&moved[3..]));
    println!("bytes to each: {moved:?}");
    assert!(!net.nodes[us].engine.is_complete(), "it still downloads");
    assert!(to_givers > 2.0 * to_riders, "{to_givers} {to_riders}");
}

#[test]
fn what_a_choke_takes_away_is_read_elsewhere() {
    let mut net = Net::new(image(40, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let seeds = [
        net.node(100.0, true, Fill::None),
        net.node(10.0, true, Fill::None),
    ];
    for seed in seeds {
        net.link(leech, seed);
    }
    net.run_for(100);
    let wait = net.timed_demand(leech, 1);
    // The fast one takes the requests, and chokes before it answers.
    net.demand(leech, 2);
    let key = *net.nodes[seeds[0]].links.keys().next().unwrap();
    net.run_for(9);
    net.nodes[seeds[0]].mute = true;
    net.run_for(2);
    let asked: Vec<WireRequest> = {
        let engine = &net.nodes[leech].engine;
        let (there, _) = net.nodes[seeds[0]].links[&key];
        assert_eq!(there, leech);
        let of = net.nodes[seeds[0]].links[&key].1;
        let asked = engine.peers[&of].outstanding.keys();
        asked.map(|b| engine.wire_request(*b)).collect()
    };
    assert!(!asked.is_empty());
    net.transmit(seeds[0], key, WireMessage::Choke, 5);
    for request in asked {
        net.transmit(seeds[0], key, WireMessage::Reject(request), 17);
    }
    let start = net.now;
    while !net.nodes[leech].ready.contains_key(&2) {
        net.run_for(1);
        assert!(net.now.since(start) < Duration::from_secs(5));
    }
    let waited = net.now.since(start).as_secs_f64() * 1000.0;
    println!("{wait} ms, with a choke {waited} ms");
    assert!(waited < 200.0, "{waited} ms");
}

#[test]
fn demand_is_marked_and_nothing_else() {
    let mut net = Net::new(image(40, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let seed = net.node(100.0, true, Fill::None);
    net.link(leech, seed);
    net.run_for(100);
    let key = *net.nodes[leech].links.keys().next().unwrap();
    let marks = |outputs: &[Output]| -> Vec<WireRequest> {
        let mark = |o: &Output| match o {
            Output::Send(k, WireMessage::Urgent { extension, request }) => {
                assert_eq!((*k, *extension), (key, VMT_URGENT));
                Some(*request)
            }
            _ => None,
        };
        outputs.iter().filter_map(mark).collect()
    };
    let engine = &mut net.nodes[leech].engine;
    engine.read_ahead(net.now, &[PieceIndex(5)]);
    let outputs = engine.take_outputs();
    assert!(marks(&outputs).is_empty());
    let asked = |o: &&Output| matches!(o, Output::Send(_, WireMessage::Request(_)));
    let ahead = outputs.iter().filter(asked).count();
    assert!(ahead > 0);
    // A read comes to what was asked for already: each request of that piece is marked, once.
    engine.demand(net.now, &[PieceIndex(5)]);
    let marked = marks(&engine.take_outputs());
    assert_eq!(marked.len(), 4);
    engine.demand(net.now, &[PieceIndex(5)]);
    assert!(marks(&engine.take_outputs()).is_empty());
    // The mark follows its request.
    engine.demand(net.now, &[PieceIndex(9)]);
    let outputs = engine.take_outputs();
    let marked = marks(&outputs);
    assert!(!marked.is_empty());
    for request in marked {
        let request_at = Output::Send(key, WireMessage::Request(request));
        let extension = VMT_URGENT;
        let mark = Output::Send(key, WireMessage::Urgent { extension, request });
        let at = |o: &Output| outputs.iter().position(|other| other == o);
        assert_eq!(at(&mark), at(&request_at).map(|n| n + 1));
    }
}

#[test]
fn who_does_not_know_the_extension_is_told_nothing() {
    let mut stage = Engine::new(
        Time::default(),
        EngineConfig {
            image: image(8, PIECE),
            have: Bitfield::new(8),
            fill: Fill::None,
            download: Arc::new(Mutex::new(Limiter::new(None))),
            upload: Arc::new(Mutex::new(Limiter::new(None))),
            upload_slots: None,
            listen_port: 1,
            peer_id: [0; 20],
            profile_exchange: false,
            peer_exchange: false,
            seed: 1,
        },
    );
    let address = SocketAddr::from(([198, 18, 0, 1], 1));
    let abilities = Abilities {
        extended: true,
        fast: true,
        id: [1; 20],
    };
    let now = Time::default();
    let key = stage.connected(now, address, None, abilities);
    stage.received(now, key, WireMessage::HaveAll);
    stage.received(now, key, WireMessage::Unchoke);
    stage.received(
        now,
        key,
        WireMessage::ExtendedHello(ExtendedHello::default()),
    );
    stage.demand(now, &[PieceIndex(3)]);
    let outputs = stage.take_outputs();
    let asked = |o: &Output| matches!(o, Output::Send(_, WireMessage::Request(_)));
    let marked = |o: &Output| matches!(o, Output::Send(_, WireMessage::Urgent { .. }));
    assert!(outputs.iter().any(asked));
    assert!(!outputs.iter().any(marked));
}
