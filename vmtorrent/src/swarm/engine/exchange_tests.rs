//! Engines tell each other of peers, in virtual time.

use super::network::image;
use super::*;
use crate::swarm::peer_exchange::{Neighbour, PeerExchange};
use crate::swarm::wire::{ExtendedHello, UT_PEX};

/// The number under which the peers of these tests take messages.
const THEIRS: u8 = 9;

/// One engine, and peers that are played by the test.
struct Scene {
    engine: Engine,
    now: Time,
    sent: Vec<(PeerKey, PeerExchange)>,
    hellos: Vec<ExtendedHello>,
    told: Vec<SocketAddr>,
    left: Vec<PeerKey>,
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn neighbour(text: &str) -> Neighbour {
    Neighbour {
        address: address(text),
        flags: 0,
    }
}

/// The same image, marked as private.
fn private(image: &Image) -> Arc<Image> {
    let mut image = Image::clone(image);
    image.private = true;
    Arc::new(image)
}

impl Scene {
    fn new() -> Self {
        Self::with(image(4, 16_384), true, Bitfield::new(4))
    }

    fn with(image: Arc<Image>, peer_exchange: bool, have: Bitfield) -> Self {
        let limiter = || Arc::new(Mutex::new(Limiter::new(None)));
        let config = EngineConfig {
            image,
            have,
            fill: Fill::None,
            download: limiter(),
            upload: limiter(),
            upload_slots: None,
            listen_port: 1,
            peer_id: [0; 20],
            profile_exchange: false,
            peer_exchange,
            seed: 1,
        };
        Self {
            engine: Engine::new(Time::default(), config),
            now: Time::default(),
            sent: Vec::new(),
            hellos: Vec::new(),
            told: Vec::new(),
            left: Vec::new(),
        }
    }

    fn collect(&mut self) {
        for output in self.engine.take_outputs() {
            match output {
                Output::Send(key, WireMessage::PeerExchange { extension, message }) => {
                    assert_eq!(extension, THEIRS);
                    self.sent.push((key, message));
                }
                Output::Send(_, WireMessage::ExtendedHello(hello)) => self.hellos.push(hello),
                Output::Told(_, addresses) => self.told.extend(addresses),
                Output::Disconnect(key, _) => self.left.push(key),
                _ => {}
            }
        }
    }

    /// A peer is connected, by us or by itself.
    fn connect(&mut self, at: &str, by_us: bool) -> PeerKey {
        self.connect_over(at, by_us, false)
    }

    fn connect_over(&mut self, at: &str, by_us: bool, utp: bool) -> PeerKey {
        let abilities = Abilities {
            extended: true,
            fast: true,
            utp,
            ..Abilities::default()
        };
        let rtt = by_us.then_some(Duration::from_millis(10));
        let key = self.engine.connected(self.now, address(at), rtt, abilities);
        self.collect();
        key
    }

    /// It says where it listens, that it takes peer exchange, and how often.
    fn hello(&mut self, key: PeerKey, port: Option<u16>, interval: Option<u16>) {
        let hello = ExtendedHello {
            listen_port: port,
            ut_pex: Some(THEIRS),
            vmt_pex_interval: interval,
            ..ExtendedHello::default()
        };
        self.hear(key, WireMessage::ExtendedHello(hello));
    }

    fn hear(&mut self, key: PeerKey, message: WireMessage) {
        self.engine.received(self.now, key, message);
        self.collect();
    }

    fn hear_of(&mut self, key: PeerKey, added: Vec<Neighbour>) {
        let message = PeerExchange {
            added,
            dropped: Vec::new(),
        };
        let extension = UT_PEX;
        self.hear(key, WireMessage::PeerExchange { extension, message });
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now + Duration::from_secs(1);
            for peer in self.engine.peers.values_mut() {
                // Nobody is silent here.
                peer.last_received = self.now;
            }
            self.engine.tick(self.now);
            self.collect();
        }
    }

    /// What this peer was sent since it was asked before: added and dropped.
    fn sent_to(&mut self, key: PeerKey) -> Vec<(Vec<SocketAddr>, Vec<SocketAddr>)> {
        let (its, others) = std::mem::take(&mut self.sent)
            .into_iter()
            .partition(|(k, _)| *k == key);
        self.sent = others;
        let its: Vec<(PeerKey, PeerExchange)> = its;
        its.into_iter()
            .map(|(_, m)| (m.added.iter().map(|n| n.address).collect(), m.dropped))
            .collect()
    }
}

#[test]
fn a_peer_is_told_of_the_others_at_once_and_not_of_itself() {
    let mut scene = Scene::new();
    let dialled = scene.connect("192.0.2.1:6881", true);
    let came = scene.connect("192.0.2.2:40000", false);
    let silent = scene.connect("192.0.2.3:40000", false);
    scene.hello(came, Some(6882), None);
    assert_eq!(scene.hellos[0].ut_pex, Some(UT_PEX));
    // Of who says nothing of where it listens nobody is told.
    assert_eq!(
        scene.sent_to(came),
        [(vec![address("192.0.2.1:6881")], vec![])]
    );
    scene.hello(dialled, Some(1), None);
    let told = vec![address("192.0.2.2:6882")];
    assert_eq!(scene.sent_to(dialled), [(told, vec![])]);
    assert_eq!(scene.sent_to(silent), []);
}

#[test]
fn flags_tell_who_has_everything_who_was_reached_and_who_knows_utp() {
    let mut scene = Scene::new();
    let dialled = scene.connect("192.0.2.1:6881", true);
    scene.hear(dialled, WireMessage::HaveAll);
    let came = scene.connect("192.0.2.2:40000", false);
    scene.hello(came, Some(6882), None);
    scene.connect_over("192.0.2.3:6881", true, true);
    let came = scene.connect_over("192.0.2.4:40000", false, true);
    scene.hello(came, Some(6882), None);
    let asks = scene.connect("192.0.2.5:6881", true);
    scene.hello(asks, None, None);
    let (_, message) = scene.sent.pop().unwrap();
    let flags: Vec<u8> = message.added.iter().map(|n| n.flags).collect();
    // As BEP 11 numbers them.
    assert_eq!(flags, [0x02 | 0x10, 0, 0x04 | 0x10, 0x04]);
}

#[test]
fn strangers_are_told_once_a_minute_and_our_kind_sooner_in_the_beginning() {
    let mut scene = Scene::new();
    scene.connect("192.0.2.1:6881", true);
    let stranger = scene.connect("192.0.2.2:6881", true);
    let ours = scene.connect("192.0.2.3:6881", true);
    scene.hello(stranger, None, None);
    scene.hello(ours, None, Some(2));
    assert_eq!(scene.sent_to(stranger).len() + scene.sent_to(ours).len(), 2);
    // One more comes each second for five minutes.
    let (mut to_stranger, mut to_ours) = (Vec::new(), Vec::new());
    for n in 0..300 {
        scene.connect(&format!("192.0.{}.{}:7000", 3 + n / 200, n % 200), true);
        scene.pass(1);
        let second = n + 1;
        to_stranger.extend(scene.sent_to(stranger).into_iter().map(|m| (second, m)));
        to_ours.extend(scene.sent_to(ours).into_iter().map(|m| (second, m)));
    }
    let times = |messages: &[(usize, (Vec<SocketAddr>, _))]| -> Vec<usize> {
        messages.iter().map(|m| m.0).collect()
    };
    assert_eq!(times(&to_stranger), [60, 120, 180, 240, 300]);
    let first_minute = times(&to_ours).iter().filter(|t| **t < 60).count();
    assert!((25..=30).contains(&first_minute), "{:?}", times(&to_ours));
    let later: Vec<usize> = times(&to_ours).into_iter().filter(|t| *t >= 62).collect();
    assert_eq!(later.len(), 4, "{later:?}");
    for (_, (added, dropped)) in to_stranger.iter().chain(&to_ours) {
        assert!(added.len() <= 50 && dropped.is_empty());
    }
    // Nobody is told of twice.
    let mut all: Vec<_> = to_stranger.iter().flat_map(|(_, (a, _))| a).collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!((all.len(), count), (250, 250));
}

#[test]
fn who_has_gone_is_dropped_and_may_come_again() {
    let mut scene = Scene::new();
    let goes = scene.connect("192.0.2.1:6881", true);
    let asks = scene.connect("192.0.2.2:6881", true);
    scene.hello(asks, None, None);
    scene.sent.clear();
    scene.engine.disconnected(scene.now, goes);
    scene.pass(59);
    assert_eq!(scene.sent_to(asks), []);
    scene.pass(1);
    let gone = vec![address("192.0.2.1:6881")];
    assert_eq!(scene.sent_to(asks), [(vec![], gone.clone())]);
    scene.connect("192.0.2.1:6881", true);
    scene.pass(60);
    assert_eq!(scene.sent_to(asks), [(gone, vec![])]);
    // Nothing new: nothing is said.
    scene.pass(300);
    assert_eq!(scene.sent_to(asks), []);
}

#[test]
fn who_takes_no_more_is_told_no_more() {
    let mut scene = Scene::new();
    let asks = scene.connect("192.0.2.2:6881", true);
    scene.hello(asks, None, None);
    let hello = ExtendedHello {
        ut_pex: Some(0),
        ..ExtendedHello::default()
    };
    scene.hear(asks, WireMessage::ExtendedHello(hello));
    scene.connect("192.0.2.1:6881", true);
    scene.pass(200);
    assert_eq!(scene.sent_to(asks), []);
}

#[test]
fn a_private_image_and_an_exchange_that_is_off_neither_tell_nor_hear() {
    let plain = image(4, 16_384);
    for mut scene in [
        Scene::with(private(&plain), true, Bitfield::new(4)),
        Scene::with(plain, false, Bitfield::new(4)),
    ] {
        scene.connect("192.0.2.1:6881", true);
        let asks = scene.connect("192.0.2.2:6881", true);
        scene.hello(asks, Some(1), Some(1));
        scene.pass(120);
        scene.hear_of(asks, vec![neighbour("192.0.2.9:1")]);
        assert_eq!((scene.sent.len(), scene.told.len()), (0, 0));
        let said = |h: &ExtendedHello| h.ut_pex.is_some() || h.vmt_pex_interval.is_some();
        assert!(!scene.hellos.iter().any(said));
        assert!(scene.left.is_empty());
    }
}

#[test]
fn addresses_are_told_and_believed_only_where_they_mean_the_same_host() {
    let all = ["10.0.0.1:1", "127.0.0.1:1", "192.0.2.1:1"];
    for (teller, shared) in [
        ("127.0.0.9:7", &[0, 1, 2][..]),
        ("10.0.0.9:7", &[0, 2]),
        ("198.51.100.9:7", &[2]),
    ] {
        let mut scene = Scene::new();
        for known in all {
            scene.connect(known, true);
        }
        let peer = scene.connect(teller, true);
        scene.hello(peer, None, None);
        let told: Vec<_> = shared.iter().map(|n| address(all[*n])).collect();
        assert_eq!(scene.sent_to(peer), [(told.clone(), vec![])], "{teller}");
        let odd = ["224.0.0.1:1", "0.0.0.0:1", "192.0.2.7:0", "[fe80::1]:1"];
        scene.hear_of(peer, all.iter().chain(&odd).map(|a| neighbour(a)).collect());
        assert_eq!(scene.told, told, "{teller}");
    }
}

#[test]
fn who_tells_much_is_heard_in_part_and_who_floods_is_left() {
    let mut scene = Scene::new();
    let peer = scene.connect("198.51.100.9:7", true);
    let many = |n: u8| -> Vec<Neighbour> {
        (0..100)
            .map(|m| neighbour(&format!("192.0.{n}.{m}:1")))
            .collect()
    };
    for n in 0..30 {
        scene.hear_of(peer, many(n));
    }
    assert_eq!(scene.told.len(), 200);
    scene.pass(120);
    scene.hear_of(peer, many(31));
    assert_eq!(scene.told.len(), 300);
    for n in 40..140 {
        scene.hear_of(peer, many(n));
    }
    assert_eq!(scene.left, [peer]);
    assert_eq!(scene.told.len(), 300);
}

#[test]
fn one_of_our_kind_does_not_flood_another() {
    let mut scene = Scene::new();
    let peer = scene.connect("198.51.100.9:7", true);
    for n in 0..60 * 60 {
        if n < 60 || n % 60 == 0 {
            scene.hear_of(
                peer,
                vec![neighbour(&format!("192.0.{}.{}:1", n / 250, n % 250))],
            );
        }
        scene.pass(1);
    }
    assert!(scene.left.is_empty());
    assert_eq!(scene.told.len(), 60 + 59);
}

#[test]
fn who_has_everything_is_told_of_seeds_in_vain() {
    let mut scene = Scene::with(image(4, 16_384), true, Bitfield::full(4));
    let peer = scene.connect("198.51.100.9:7", true);
    let mut seed = neighbour("192.0.2.1:1");
    seed.flags = Neighbour::SEED;
    scene.hear_of(peer, vec![seed, neighbour("192.0.2.2:1")]);
    assert_eq!(scene.told, [address("192.0.2.2:1")]);
}

#[test]
fn what_is_remembered_of_a_peer_is_bounded() {
    let mut scene = Scene::new();
    let asks = scene.connect("192.0.2.2:6881", true);
    scene.hello(asks, None, Some(1));
    for n in 0..1_500 {
        scene.connect(&format!("192.1.{}.{}:7000", n / 200, n % 200), true);
    }
    scene.pass(3_600);
    assert_eq!(scene.engine.exchange.most_told(), 512);
    assert!(scene.sent.iter().all(|(_, m)| m.added.len() <= 50));
}

#[test]
fn a_crowd_of_engines_knows_each_other_within_three_seconds() {
    let mut net = network::Net::new(image(4, 16_384), 10);
    let middle = net.node(100.0, false, Fill::None);
    for _ in 0..20 {
        let node = net.node(100.0, false, Fill::None);
        net.link(middle, node);
    }
    net.run_for(3_100);
    for node in 1..=20 {
        let told = net.nodes[node].told.iter().flat_map(|(_, _, peers)| peers);
        let told: std::collections::BTreeSet<_> = told.copied().collect();
        let mut others: std::collections::BTreeSet<_> = (1..=20).map(network::address_of).collect();
        others.remove(&network::address_of(node));
        assert_eq!(told, others, "{node}");
    }
}
