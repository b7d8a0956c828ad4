//! What a read costs when peers lie, stall or talk nonsense, in virtual time.
//!
//! One engine reads; around it stand peers that follow a script instead of an engine: a function from a request to the
//! messages that go back, each with a delay.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use sha1::{Digest, Sha1};

use super::network::{image, piece_data};
use super::*;

const PIECE: u32 = 64 << 10;
const RTT: Duration = Duration::from_millis(20);
/// Bytes per second from each peer: 100 Mbit/s.
const RATE: f64 = 12.5e6;
/// What a read of a piece may take when one peer misbehaves. Alone with an honest peer it takes 26 ms (a round trip and
/// the piece on the line); a block counts as late after twice what was expected and 10 ms, about 70 ms, and is then
/// asked of somebody else, which takes another 26 ms.
const ONE_REREQUEST: f64 = 150.0;

/// What goes back for a request, and how long after it came.
type Answers = Vec<(Duration, WireMessage)>;
type Script = Box<dyn FnMut(WireRequest) -> Answers>;

struct Scripted {
    key: PeerKey,
    rtt: Duration,
    busy_until: Time,
    script: Script,
    /// Requests that reached it.
    asked: usize,
    left: Option<DisconnectReason>,
}

enum Happening {
    /// A request reaches a scripted peer.
    Asked(usize, WireRequest),
    /// A scripted peer sends.
    Said(usize, WireMessage),
    /// What it sent reaches the engine.
    Heard(usize, WireMessage),
    Stored(PieceIndex, Bytes),
}

struct Stage {
    now: Time,
    last_tick: Time,
    engine: Engine,
    image: Arc<Image>,
    peers: Vec<Scripted>,
    queue: BinaryHeap<Reverse<(Time, usize)>>,
    happenings: Vec<Option<Happening>>,
    ready: BTreeMap<u32, Time>,
    /// Liars that were found out after they had gone.
    liars: usize,
}

fn right(r: WireRequest) -> WireMessage {
    let data = piece_data(r.piece, PIECE)[r.begin as usize..][..r.length as usize].to_vec();
    piece(r, data)
}

fn wrong(r: WireRequest) -> WireMessage {
    piece(r, vec![0xbd; r.length as usize])
}

fn piece(r: WireRequest, data: Vec<u8>) -> WireMessage {
    WireMessage::Piece {
        piece: r.piece,
        begin: r.begin,
        data: data.into(),
    }
}

fn at_once(messages: impl IntoIterator<Item = WireMessage>) -> Answers {
    messages.into_iter().map(|m| (Duration::ZERO, m)).collect()
}

fn honest() -> Script {
    Box::new(|r| at_once([right(r)]))
}

fn mute() -> Script {
    Box::new(|_| Vec::new())
}

impl Stage {
    fn new() -> Self {
        Self::with(Fill::None, None)
    }

    fn with(fill: Fill, download_limit: Option<u64>) -> Self {
        let image = image(200, PIECE);
        let limiter = |limit| Arc::new(Mutex::new(Limiter::new(limit)));
        let config = EngineConfig {
            image: image.clone(),
            have: Bitfield::new(image.geometry().piece_count()),
            fill,
            download: limiter(download_limit),
            upload: limiter(None),
            listen_port: 1,
            seed: 1,
        };
        Self {
            now: Time::default(),
            last_tick: Time::default(),
            engine: Engine::new(Time::default(), config),
            image,
            peers: Vec::new(),
            queue: BinaryHeap::new(),
            happenings: Vec::new(),
            ready: BTreeMap::new(),
            liars: 0,
        }
    }

    /// A peer that says it has everything and lets us request.
    fn join(&mut self, fast: bool, rtt: Duration, script: Script) -> usize {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let abilities = Abilities {
            extended: true,
            fast,
        };
        let key = self
            .engine
            .connected(self.now, address, Some(rtt), abilities);
        self.peers.push(Scripted {
            key,
            rtt,
            busy_until: self.now,
            script,
            asked: 0,
            left: None,
        });
        let peer = self.peers.len() - 1;
        let all = Bitfield::full(self.image.geometry().piece_count()).to_wire();
        self.happens(
            self.now,
            Happening::Said(peer, WireMessage::Bitfield(all.into())),
        );
        self.happens(self.now, Happening::Said(peer, WireMessage::Unchoke));
        self.collect();
        peer
    }

    fn happens(&mut self, at: Time, what: Happening) {
        self.queue.push(Reverse((at, self.happenings.len())));
        self.happenings.push(Some(what));
    }

    fn collect(&mut self) {
        for output in self.engine.take_outputs() {
            match output {
                Output::Send(key, WireMessage::Request(request)) => {
                    let peer = self.peers.iter().position(|p| p.key == key).unwrap();
                    let at = self.now + self.peers[peer].rtt / 2;
                    self.happens(at, Happening::Asked(peer, request));
                }
                Output::Disconnect(key, reason) => {
                    let peer = self.peers.iter_mut().find(|p| p.key == key).unwrap();
                    peer.left = Some(reason);
                }
                Output::Store(piece, data) => {
                    let at = self.now + Duration::from_micros(200);
                    self.happens(at, Happening::Stored(piece, data));
                }
                Output::Ready(piece) => {
                    self.ready.insert(piece.0, self.now);
                }
                Output::Liar(_) => self.liars += 1,
                Output::Send(..) | Output::SendBlock(..) | Output::Completed => {}
            }
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Asked(n, request) => {
                let peer = &mut self.peers[n];
                if peer.left.is_some() {
                    return;
                }
                peer.asked += 1;
                for (delay, message) in (peer.script)(request) {
                    self.happens(self.now + delay, Happening::Said(n, message));
                }
            }
            Happening::Said(n, message) => {
                let bytes = match &message {
                    WireMessage::Piece { data, .. } => data.len() + 13,
                    _ => 20,
                };
                let peer = &mut self.peers[n];
                let start = peer.busy_until.max(self.now);
                peer.busy_until = start + Duration::from_secs_f64(bytes as f64 / RATE);
                let at = peer.busy_until + peer.rtt / 2;
                self.happens(at, Happening::Heard(n, message));
            }
            Happening::Heard(n, message) => {
                let key = self.peers[n].key;
                self.engine.received(self.now, key, message);
            }
            Happening::Stored(piece, data) => {
                let hash: [u8; 20] = Sha1::digest(&data).into();
                if hash == *self.image.piece_hash(piece) {
                    self.engine.stored(self.now, piece);
                } else {
                    self.engine.mismatched(self.now, piece);
                }
            }
        }
        self.collect();
    }

    fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let step = self.last_tick + Duration::from_millis(1);
            let tick = self.engine.next_timeout(self.last_tick).max(step);
            let event = self.queue.peek().map(|Reverse((at, _))| *at);
            match event {
                Some(at) if at <= tick && at <= until => {
                    self.now = at.max(self.now);
                    if let Some(Reverse((_, id))) = self.queue.pop()
                        && let Some(what) = self.happenings[id].take()
                    {
                        self.happen(what);
                    }
                }
                _ if tick <= until => {
                    self.now = tick.max(self.now);
                    self.last_tick = self.now;
                    self.engine.tick(self.now);
                    self.collect();
                }
                _ => {
                    self.now = until;
                    return;
                }
            }
        }
    }

    /// Milliseconds that a read of a piece waits.
    fn read(&mut self, piece: u32) -> f64 {
        let start = self.now;
        self.engine.demand(self.now, &[PieceIndex(piece)]);
        self.collect();
        while !self.ready.contains_key(&piece) {
            self.run_for(Duration::from_millis(1));
            let waited = self.now.since(start);
            assert!(
                waited < Duration::from_secs(120),
                "piece {piece} never comes"
            );
        }
        self.ready[&piece].since(start).as_secs_f64() * 1000.0
    }

    /// The waits of reads one after the other, with a pause between them.
    fn reads(&mut self, count: u32) -> Vec<f64> {
        let first = self.ready.len() as u32;
        (first..first + count)
            .map(|piece| {
                self.run_for(Duration::from_millis(30));
                self.read(piece)
            })
            .collect()
    }

    fn assert_stays(&self, peer: usize) {
        assert_eq!(self.peers[peer].left, None, "peer {peer} stays");
    }
}

fn longest(waits: &[f64]) -> f64 {
    waits.iter().copied().fold(0.0, f64::max)
}

/// An honest peer, and before it a nearer one that follows `script`: with and without the fast extension. Gives the
/// waits of fifty reads, and how the hostile one was left.
fn beside_an_honest_one(script: impl Fn() -> Script) -> [(Vec<f64>, Option<DisconnectReason>); 2] {
    [false, true].map(|fast| {
        let mut stage = Stage::new();
        let hostile = stage.join(fast, RTT / 2, script());
        let honest = stage.join(fast, RTT, honest());
        stage.run_for(Duration::from_millis(100));
        let waits = stage.reads(50);
        assert!(stage.peers[hostile].asked > 0, "it was never asked");
        stage.assert_stays(honest);
        (waits, stage.peers[hostile].left.clone())
    })
}

/// Every read is served within one re-request.
fn costs_one_rerequest(script: impl Fn() -> Script) -> [Option<DisconnectReason>; 2] {
    beside_an_honest_one(script).map(|(waits, left)| {
        assert!(longest(&waits) < ONE_REREQUEST, "{waits:.0?}");
        left
    })
}

#[test]
fn alone_with_an_honest_peer_a_read_takes_a_round_trip_and_the_line() {
    let mut stage = Stage::new();
    stage.join(true, RTT, honest());
    stage.run_for(Duration::from_millis(100));
    let waits = stage.reads(20);
    assert!(longest(&waits) < 30.0, "{waits:.0?}");
}

#[test]
fn a_peer_that_never_answers_costs_one_rerequest() {
    costs_one_rerequest(mute);
}

#[test]
fn a_peer_that_answers_after_half_a_minute_costs_one_rerequest() {
    costs_one_rerequest(|| Box::new(|r| vec![(Duration::from_secs(30), right(r))]));
}

#[test]
fn a_peer_that_answers_just_too_late_costs_one_rerequest() {
    costs_one_rerequest(|| Box::new(|r| vec![(Duration::from_millis(400), right(r))]));
}

#[test]
fn a_peer_that_answers_with_another_block_costs_one_rerequest() {
    costs_one_rerequest(|| {
        Box::new(|r| {
            let piece = (r.piece + 1) % 200;
            at_once([right(WireRequest { piece, ..r })])
        })
    });
}

#[test]
fn a_peer_that_answers_twice_costs_nothing_and_stays() {
    for (waits, left) in beside_an_honest_one(|| Box::new(|r| at_once([right(r), right(r)]))) {
        assert!(longest(&waits) < 60.0, "{waits:.0?}");
        assert_eq!(left, None);
    }
}

#[test]
fn a_peer_that_chokes_at_each_request_costs_one_rerequest() {
    costs_one_rerequest(|| Box::new(|_| at_once([WireMessage::Choke, WireMessage::Unchoke])));
}

#[test]
fn a_peer_that_chokes_for_good_costs_one_rerequest() {
    costs_one_rerequest(|| Box::new(|_| at_once([WireMessage::Choke])));
}

#[test]
fn a_peer_that_rejects_what_it_said_it_has_costs_one_rerequest() {
    let mut stage = Stage::new();
    stage.join(
        true,
        RTT / 2,
        Box::new(|r| at_once([WireMessage::Reject(r)])),
    );
    let honest = stage.join(true, RTT, honest());
    stage.run_for(Duration::from_millis(100));
    let waits = stage.reads(50);
    assert!(longest(&waits) < ONE_REREQUEST, "{waits:.0?}");
    stage.assert_stays(honest);
}

/// A spoilt piece is known when its last block is here, and then comes once more: two fetches.
fn is_found(script: impl Fn() -> Script) {
    for (waits, left) in beside_an_honest_one(script) {
        assert_eq!(left, Some(DisconnectReason::BadData));
        assert!(longest(&waits) < 2.0 * ONE_REREQUEST, "{waits:.0?}");
        let after = &waits[waits.len() / 2..];
        assert!(longest(after) < 60.0, "without it: {after:.0?}");
    }
}

#[test]
fn a_liar_costs_a_second_fetch_and_is_left() {
    is_found(|| Box::new(|r| at_once([wrong(r)])));
}

#[test]
fn who_spoils_one_block_of_four_is_left() {
    is_found(|| {
        Box::new(|r| {
            let lie = r.begin == 16 << 10;
            at_once([if lie { wrong(r) } else { right(r) }])
        })
    });
}

#[test]
fn who_spoils_only_last_blocks_is_left() {
    is_found(|| {
        Box::new(|r| {
            let lie = r.begin == 48 << 10;
            at_once([if lie { wrong(r) } else { right(r) }])
        })
    });
}

#[test]
fn who_lies_every_third_time_is_left() {
    is_found(|| {
        let mut asked = 0;
        Box::new(move |r| {
            asked += 1;
            at_once([if asked % 3 == 0 { wrong(r) } else { right(r) }])
        })
    });
}

#[test]
fn who_spoils_a_piece_and_then_says_nothing_holds_up_its_second_fetch_no_longer() {
    for fast in [false, true] {
        let mut stage = Stage::new();
        let mut asked = 0;
        let lie_once: Script = Box::new(move |r| {
            asked += 1;
            if asked <= 2 {
                return at_once([wrong(r)]);
            }
            Vec::new()
        });
        stage.join(fast, RTT / 2, lie_once);
        let honest = stage.join(fast, RTT, honest());
        stage.run_for(Duration::from_millis(100));
        let waits = stage.reads(50);
        assert!(longest(&waits) < 2.0 * ONE_REREQUEST, "{waits:.0?}");
        stage.assert_stays(honest);
    }
}

#[test]
fn who_spoils_a_piece_and_chokes_holds_up_its_second_fetch_no_longer() {
    for fast in [false, true] {
        let mut stage = Stage::new();
        let lie_and_choke: Script = Box::new(|r| at_once([wrong(r), WireMessage::Choke]));
        stage.join(fast, RTT / 2, lie_and_choke);
        let honest = stage.join(fast, RTT, honest());
        stage.run_for(Duration::from_millis(100));
        let waits = stage.reads(50);
        assert!(longest(&waits) < 2.0 * ONE_REREQUEST, "{waits:.0?}");
        stage.assert_stays(honest);
    }
}

/// A spoilt piece is asked of one peer alone. If that one does not give it, others do.
#[test]
fn who_was_to_give_all_of_a_piece_and_does_not_holds_it_up_no_longer() {
    let refusals: [fn(WireRequest) -> WireMessage; 2] =
        [|_| WireMessage::Choke, WireMessage::Reject];
    for (refusal, fast) in [
        (refusals[0], false),
        (refusals[0], true),
        (refusals[1], true),
    ] {
        let mut stage = Stage::new();
        stage.join(fast, RTT, Box::new(|r| at_once([wrong(r)])));
        let honest = stage.join(fast, RTT, honest());
        // So far away that it is not asked before.
        let alone = stage.join(fast, RTT * 10, Box::new(move |r| at_once([refusal(r)])));
        stage.run_for(Duration::from_millis(300));
        let wait = stage.read(0);
        assert!(stage.peers[alone].asked > 0, "it was not asked");
        assert!(wait < 1000.0, "{wait:.0} ms, fast: {fast}");
        stage.assert_stays(honest);
    }
}

#[test]
fn who_lies_once_and_hangs_up_is_found_out_each_time() {
    for fast in [false, true] {
        let mut stage = Stage::new();
        let honest = stage.join(fast, RTT * 2, honest());
        stage.run_for(Duration::from_millis(100));
        stage.reads(4);
        for n in 1..=12 {
            let lied = std::rc::Rc::new(std::cell::Cell::new(false));
            let lie: Script = {
                let lied = lied.clone();
                Box::new(move |r| match lied.replace(true) {
                    false => at_once([wrong(r)]),
                    true => Vec::new(),
                })
            };
            let liar = stage.join(fast, RTT / 4, lie);
            stage.run_for(Duration::from_millis(30));
            let piece = stage.ready.len() as u32;
            stage.engine.demand(stage.now, &[PieceIndex(piece)]);
            stage.collect();
            stage.run_for(Duration::from_millis(12));
            assert!(lied.get(), "it was not asked");
            let key = stage.peers[liar].key;
            stage.peers[liar].left = Some(DisconnectReason::Silent);
            stage.engine.disconnected(stage.now, key);
            stage.collect();
            stage.read(piece);
            assert_eq!(stage.liars, n, "fast: {fast}");
        }
        stage.assert_stays(honest);
    }
}

/// A read that was answered too late, and then nothing to ask for: that is no silence.
#[test]
fn who_answered_late_is_not_left_when_the_guest_rests() {
    for fast in [false, true] {
        let mut stage = Stage::new();
        // When two let a read wait, two others are asked in their place.
        let late = [0, 1].map(|_| {
            let script: Script = Box::new(|r| vec![(Duration::from_millis(800), right(r))]);
            stage.join(fast, RTT / 4, script)
        });
        for _ in 0..2 {
            stage.join(fast, RTT * 4, honest());
        }
        stage.run_for(Duration::from_millis(200));
        stage.read(0);
        for peer in late {
            assert!(stage.peers[peer].asked > 0, "it was not asked");
        }
        for _ in 0..12 {
            for peer in late {
                // Its word, as of an idle peer.
                let at = stage.now + Duration::from_secs(10);
                stage.happens(at, Happening::Heard(peer, WireMessage::KeepAlive));
            }
            stage.run_for(Duration::from_secs(10));
        }
        for peer in late {
            stage.assert_stays(peer);
            assert!(!stage.engine.peers[&stage.peers[peer].key].snubbed);
        }
    }
}

/// Blocks pushed at a piece that somebody else is asked for must not cost that one its name.
#[test]
fn blocks_pushed_at_another_s_piece_blame_nobody_but_the_pusher() {
    for fast in [false, true] {
        let mut stage = Stage::new();
        let pusher = stage.join(fast, RTT * 10, mute());
        let honest = stage.join(fast, RTT, honest());
        stage.run_for(Duration::from_millis(500));
        for piece in 0..40 {
            for begin in (0..4).map(|n| n * (16 << 10)) {
                let r = WireRequest {
                    piece,
                    begin,
                    length: 16 << 10,
                };
                // They arrive while the honest peer's are under way.
                let at = self::Happening::Heard(pusher, wrong(r));
                stage.happens(stage.now + Duration::from_millis(5), at);
            }
            let wait = stage.read(piece);
            assert!(wait < 2.0 * ONE_REREQUEST, "piece {piece}: {wait:.0} ms");
        }
        stage.assert_stays(honest);
    }
}

#[test]
fn several_peers_that_never_answer_cost_the_first_read_a_rerequest_for_every_two() {
    for (fast, count) in [(false, 2), (true, 2), (false, 5), (true, 5), (true, 20)] {
        let mut stage = Stage::new();
        for _ in 0..count {
            stage.join(fast, RTT / 2, mute());
        }
        let honest = stage.join(fast, RTT, honest());
        stage.run_for(Duration::from_millis(100));
        let waits = stage.reads(50);
        let bound = ONE_REREQUEST * (1.0 + f64::from(count) / 2.0);
        assert!(longest(&waits) < bound, "{count} of them: {waits:.0?}");
        let later = &waits[10..];
        let mean = later.iter().sum::<f64>() / later.len() as f64;
        assert!(mean < 40.0, "{count} of them, later: {later:.0?}");
        stage.assert_stays(honest);
    }
}

#[test]
fn a_peer_whose_blocks_are_always_late_is_asked_less_and_less() {
    for (waits, left) in
        beside_an_honest_one(|| Box::new(|r| vec![(Duration::from_secs(25), right(r))]))
    {
        let after = &waits[25..];
        let mean = after.iter().sum::<f64>() / after.len() as f64;
        assert!(mean < 40.0, "left: {left:?}, waits: {waits:.0?}");
    }
}

#[test]
fn a_peer_that_breaks_the_protocol_is_left_and_costs_one_rerequest() {
    let breaks: [fn(WireRequest) -> WireMessage; 5] = [
        |_| WireMessage::Have(200),
        |_| WireMessage::Bitfield(Bytes::from_static(&[0xff; 3])),
        |r| piece(r, vec![1; 77]),
        |r| piece(WireRequest { piece: 999, ..r }, vec![1; 16_384]),
        |r| WireMessage::Request(WireRequest { length: 0, ..r }),
    ];
    for message in breaks {
        let left = costs_one_rerequest(|| Box::new(move |r| at_once([message(r)])));
        for left in left {
            assert!(
                matches!(left, Some(DisconnectReason::Protocol(_))),
                "{left:?}"
            );
        }
    }
}

/// A download limit is a limit on what comes. What is asked for and refused must not use it up.
#[test]
fn a_download_limit_is_not_used_up_by_requests_that_are_refused() {
    let limit = 2_000_000;
    let refusals: [fn() -> Script; 2] = [
        || Box::new(|_| at_once([WireMessage::Choke, WireMessage::Unchoke])),
        || Box::new(|r| at_once([WireMessage::Reject(r)])),
    ];
    for refusal in refusals {
        for fast in [false, true] {
            let mut stage = Stage::with(Fill::Full, Some(limit));
            stage.join(fast, RTT / 2, refusal());
            stage.join(fast, RTT, honest());
            stage.run_for(Duration::from_secs(4));
            let fetched: u64 = stage.engine.traffic().fetched.iter().sum();
            assert!(
                fetched > 4 * limit * 8 / 10,
                "{fetched} bytes in 4 s at {limit} a second, fast: {fast}"
            );
        }
    }
}
