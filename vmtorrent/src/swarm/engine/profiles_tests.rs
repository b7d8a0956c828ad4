//! Profiles from peer to peer in virtual time: whole exchanges between engines, and scripted peers that break every rule.

use super::network::{Net, image};
use super::profiles::Profiles;
use super::*;
use crate::profile::Profile;
use crate::swarm::metadata::{METADATA_PIECE, MetadataMessage, piece_count, piece_length};
use crate::swarm::wire::{ExtendedHello, VMT_PROFILE};

/// The number under which scripted peers take vmt_profile.
const THEIRS: u8 = 9;
const PART: usize = METADATA_PIECE as usize;

fn text(length: usize) -> Bytes {
    (0..length).map(|i| (i ^ (i >> 9)) as u8).collect()
}

/// One engine that wants a profile, or gives one; peers are played by the tests.
struct Rig {
    engine: Engine,
    now: Time,
    /// What went out since it was looked at last.
    requests: Vec<(PeerKey, u32)>,
    answers: Vec<(PeerKey, MetadataMessage)>,
    hellos: Vec<(PeerKey, ExtendedHello)>,
    left: Vec<(PeerKey, DisconnectReason)>,
    given: Vec<(PeerKey, Bytes)>,
}

impl Rig {
    fn new(profile_exchange: bool) -> Self {
        let image = image(4, 16 << 10);
        let limiter = || Arc::new(Mutex::new(Limiter::new(None)));
        let config = EngineConfig {
            have: Bitfield::new(image.geometry().piece_count()),
            image,
            fill: Fill::None,
            download: limiter(),
            upload: limiter(),
            upload_slots: None,
            listen_port: 1,
            peer_id: [0; 20],
            profile_exchange,
            peer_exchange: true,
            seed: 1,
        };
        Self {
            engine: Engine::new(Time::default(), config),
            now: Time::default(),
            requests: Vec::new(),
            answers: Vec::new(),
            hellos: Vec::new(),
            left: Vec::new(),
            given: Vec::new(),
        }
    }

    fn wanting() -> Self {
        let mut rig = Self::new(true);
        rig.engine.want_profile(rig.now);
        rig
    }

    fn connect(&mut self) -> PeerKey {
        let address = ([127, 0, 0, 1], 1).into();
        let abilities = Abilities {
            extended: true,
            fast: true,
            ..Abilities::default()
        };
        let key = self.engine.connected(self.now, address, None, abilities);
        self.collect();
        key
    }

    /// A peer that takes the extension and says that it has a profile of so many bytes.
    fn offering(&mut self, size: u32) -> PeerKey {
        let key = self.connect();
        self.say_hello(key, Some(THEIRS), Some(size));
        key
    }

    fn say_hello(&mut self, key: PeerKey, vmt_profile: Option<u8>, size: Option<u32>) {
        let hello = ExtendedHello {
            vmt_profile,
            vmt_profile_size: size,
            ..ExtendedHello::default()
        };
        let hello = WireMessage::ExtendedHello(hello);
        self.engine.received(self.now, key, hello);
        self.collect();
    }

    fn say(&mut self, key: PeerKey, message: MetadataMessage) {
        let message = WireMessage::Metadata {
            extension: VMT_PROFILE,
            message,
        };
        self.engine.received(self.now, key, message);
        self.collect();
    }

    fn send_part(&mut self, key: PeerKey, text: &Bytes, piece: u32) {
        let begin = piece as usize * PART;
        let end = (begin + PART).min(text.len());
        let message = MetadataMessage::Data {
            piece,
            total_size: text.len() as u32,
            data: text.slice(begin..end),
        };
        self.say(key, message);
    }

    /// The peer answers everything that it is asked for until nothing more is asked.
    fn answer_all(&mut self, text: &Bytes) {
        while let Some((key, piece)) = (!self.requests.is_empty()).then(|| self.requests.remove(0))
        {
            self.send_part(key, text, piece);
        }
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now = self.engine.next_timeout(self.now).min(until);
            self.engine.tick(self.now);
            self.collect();
        }
    }

    fn checked(&mut self, good: bool) -> Bytes {
        let (key, text) = self.given.remove(0);
        self.engine.profile_checked(self.now, key, good);
        self.collect();
        text
    }

    fn collect(&mut self) {
        for output in self.engine.take_outputs() {
            match output {
                Output::Send(key, WireMessage::Metadata { extension, message }) => {
                    assert_eq!(extension, THEIRS);
                    match message {
                        MetadataMessage::Request { piece } => self.requests.push((key, piece)),
                        answer => self.answers.push((key, answer)),
                    }
                }
                Output::Send(key, WireMessage::ExtendedHello(hello)) => {
                    self.hellos.push((key, hello));
                }
                Output::Disconnect(key, reason) => self.left.push((key, reason)),
                Output::Profile(key, text) => self.given.push((key, text)),
                _ => {}
            }
        }
    }

    fn assert_asks(&mut self, key: PeerKey, pieces: std::ops::Range<u32>) {
        let expected: Vec<_> = pieces.map(|piece| (key, piece)).collect();
        assert_eq!(std::mem::take(&mut self.requests), expected);
    }

    fn assert_left_for_protocol(&self, key: PeerKey) {
        assert!(
            matches!(self.left[..], [(left, DisconnectReason::Protocol(_))] if left == key),
            "{:?}",
            self.left
        );
    }

    fn profiles(&self) -> &Profiles {
        &self.engine.profiles
    }
}

#[test]
fn a_launch_without_a_profile_gets_that_of_a_seed_and_gives_it_to_nobody_by_itself() {
    let mut net = Net::new(image(64, 16 << 10), 20);
    let seed = net.node(100.0, true, Fill::None);
    let launch = net.node(100.0, false, Fill::None);
    let text = text(20 * PART + 77);
    let now = net.now;
    let served = text.clone();
    net.nodes[seed]
        .engine
        .offer_profile(now, served, ProfileRank::InUse);
    net.nodes[launch].engine.want_profile(now);
    net.link(launch, seed);
    net.run_for(1000);
    let [(at, got)] = &net.nodes[launch].profiles[..] else {
        panic!("{} profiles", net.nodes[launch].profiles.len());
    };
    assert!(*got == text);
    // Hellos cross, then 21 parts, two in a round trip: nothing is known of the line.
    let took = at.since(now);
    assert!(took < Duration::from_millis(300), "{took:?}");
    let traffic = net.nodes[launch].engine.traffic();
    assert_eq!((traffic.fetched, traffic.wasted), ([0; 4], 0));
    assert_eq!(net.nodes[launch].engine.profiles.serve.size(), 0);
    // Nobody wants another one.
    net.run_for(100_000);
    assert_eq!(net.nodes[launch].profiles.len(), 1);
    assert!(net.nodes[launch].disconnects.is_empty() && net.nodes[seed].disconnects.is_empty());
}

#[test]
fn a_read_never_waits_behind_more_than_one_part_not_even_the_first_one() {
    let mut net = Net::new(image(64, 16 << 10), 20);
    let seed = net.node(10.0, true, Fill::None);
    let launch = net.node(100.0, false, Fill::None);
    let now = net.now;
    let text = text(100 * PART);
    net.nodes[seed]
        .engine
        .offer_profile(now, text, ProfileRank::InUse);
    net.link(launch, seed);
    net.run_for(50);
    let block = PART as f64 / (10.0 * 125.0);
    let alone = net.timed_demand(launch, 0);
    assert!(alone < 20.0 + 1.5 * block, "{alone} ms");
    let now = net.now;
    net.nodes[launch].engine.want_profile(now);
    net.collect(launch);
    // What was asked for before the guest began to read.
    net.run_for(100);
    let mut held = net.nodes[launch].engine.profiles.held();
    for piece in 1..20 {
        let waits = net.timed_demand(launch, piece);
        assert!(waits < 20.0 + 2.5 * block, "{waits} ms");
    }
    held = net.nodes[launch].engine.profiles.held().max(held);
    assert!(held > 0, "nothing of the profile came meanwhile");
    net.run_for(3000);
    assert_eq!(net.nodes[launch].profiles.len(), 1);
}

#[test]
fn parts_are_asked_for_in_order_a_few_at_a_time_and_whole_it_is_looked_at() {
    let mut rig = Rig::wanting();
    let text = text(6 * PART + 1);
    let key = rig.offering(text.len() as u32);
    rig.assert_asks(key, 0..4);
    for piece in 0..7 {
        rig.send_part(key, &text, piece);
        let next = (piece + 4).min(7)..(piece + 5).min(7);
        rig.assert_asks(key, next);
    }
    let another = rig.offering(50);
    rig.assert_asks(another, 0..0);
    assert!(rig.checked(true) == text);
    rig.assert_asks(another, 0..0);
    assert!(rig.left.is_empty());
}

#[test]
fn garbage_is_asked_of_its_giver_once_and_then_of_the_next_peer() {
    let mut rig = Rig::wanting();
    let liar = rig.offering(3 * PART as u32);
    let honest = rig.offering(100);
    rig.assert_asks(liar, 0..3);
    let garbage = Bytes::from(vec![7; 3 * PART]);
    for piece in 0..3 {
        rig.send_part(liar, &garbage, piece);
    }
    rig.assert_asks(honest, 0..0);
    rig.checked(false);
    rig.assert_asks(honest, 0..1);
    rig.send_part(honest, &text(100), 0);
    rig.checked(false);
    // Both gave nothing of use, and are not asked again, whatever they say.
    rig.say_hello(liar, Some(THEIRS), Some(99));
    rig.wait(Duration::from_secs(170));
    rig.assert_asks(liar, 0..0);
    assert!(rig.left.iter().all(|(_, r)| *r == DisconnectReason::Silent));
}

/// A peer that answers its first request so is given up for the next one, and not left.
fn leads_to_the_next(answer: impl Fn(&mut Rig, PeerKey)) -> (Rig, PeerKey, PeerKey) {
    let mut rig = Rig::wanting();
    let first = rig.offering(3 * PART as u32);
    let next = rig.offering(100);
    rig.assert_asks(first, 0..3);
    answer(&mut rig, first);
    rig.assert_asks(next, 0..1);
    assert!(rig.left.iter().all(|(key, _)| *key != next));
    (rig, first, next)
}

#[test]
fn whoever_breaks_off_leads_to_the_next_peer() {
    let data = |piece: u32, total_size: usize, length: usize| MetadataMessage::Data {
        piece,
        total_size: total_size as u32,
        data: vec![1; length].into(),
    };
    // Another size than it said; a part that is too short; one that is too long.
    for (total_size, length) in [
        (3 * PART + 1, PART),
        (3 * PART, PART - 1),
        (3 * PART, 1),
        (2 * PART, PART),
    ] {
        let (mut rig, first, _) = leads_to_the_next(|rig, key| {
            rig.say(key, data(0, total_size, length));
        });
        // What it was asked for besides may still come.
        rig.say(first, data(1, 3 * PART, PART));
        rig.say(first, MetadataMessage::Reject { piece: 2 });
        assert!(rig.left.is_empty());
        // But once.
        rig.say(first, MetadataMessage::Reject { piece: 2 });
        rig.assert_left_for_protocol(first);
    }
    leads_to_the_next(|rig, key| rig.say(key, MetadataMessage::Reject { piece: 0 }));
    leads_to_the_next(|rig, key| {
        rig.engine.disconnected(rig.now, key);
        rig.collect();
    });
    // It takes it back.
    leads_to_the_next(|rig, key| rig.say_hello(key, Some(0), None));
    leads_to_the_next(|rig, key| rig.say_hello(key, None, None));
}

#[test]
fn a_peer_that_never_answers_or_trickles_leads_to_the_next() {
    let (_, _, _) = leads_to_the_next(|rig, _| rig.wait(Duration::from_secs(12)));
    let mut rig = Rig::wanting();
    let text = text(200 * PART);
    let slow = rig.offering(text.len() as u32);
    let next = rig.offering(100);
    let mut seconds = 0;
    while rig.requests.iter().all(|(key, _)| *key == slow) {
        assert!(seconds < 140, "it is waited for without end");
        let (_, piece) = rig.requests.remove(0);
        rig.send_part(slow, &text, piece);
        rig.wait(Duration::from_secs(9));
        seconds += 9;
    }
    assert!(rig.requests.contains(&(next, 0)));
    assert!(rig.left.is_empty());
}

#[test]
fn an_answer_that_nobody_asked_for_ends_the_connection() {
    let part = MetadataMessage::Data {
        piece: 5,
        total_size: 6 * PART as u32,
        data: vec![1; PART].into(),
    };
    for answer in [part, MetadataMessage::Reject { piece: 77 }] {
        for mut rig in [Rig::wanting(), Rig::new(true), Rig::new(false)] {
            let key = rig.offering(6 * PART as u32);
            let idle = rig.requests.is_empty();
            rig.say(key, answer.clone());
            rig.assert_left_for_protocol(key);
            assert!(idle || rig.profiles().held() == 0);
        }
    }
}

#[test]
fn a_claim_costs_no_memory_and_what_is_kept_is_bounded() {
    let mut rig = Rig::wanting();
    for size in [u32::MAX, Profile::MAX_ATTACHED as u32 + 1, 0] {
        rig.offering(size);
        assert!(rig.requests.is_empty(), "{size}");
    }
    let most = Profile::MAX_ATTACHED;
    let keys: Vec<PeerKey> = (0..50).map(|_| rig.offering(most as u32)).collect();
    rig.assert_asks(keys[0], 0..4);
    assert_eq!(rig.profiles().held(), 0);
    let text = text(most);
    rig.send_part(keys[0], &text, 0);
    assert_eq!(rig.profiles().held(), most);
    for piece in 1..4 {
        rig.send_part(keys[0], &text, piece);
    }
    rig.answer_all(&text);
    assert_eq!(rig.profiles().held(), 0);
    assert!(rig.given.len() == 1 && rig.given[0].1 == text);
    assert_eq!(rig.profiles().owed(), 0);
}

#[test]
fn who_says_hello_again_is_asked_anew_but_not_without_end() {
    let mut rig = Rig::wanting();
    let key = rig.offering(10 * PART as u32);
    rig.assert_asks(key, 0..4);
    let longer = text(11 * PART);
    rig.say_hello(key, Some(THEIRS), Some(longer.len() as u32));
    // It owes the answers, and they are of what it announced last.
    rig.assert_asks(key, 0..0);
    for piece in 0..4 {
        rig.send_part(key, &longer, piece);
    }
    rig.answer_all(&longer);
    assert!(rig.checked(true) == longer);

    let mut rig = Rig::wanting();
    let restless = rig.offering(10 * PART as u32);
    let honest = rig.offering(100);
    for size in 0..10 {
        rig.say_hello(restless, Some(THEIRS), Some(10 * PART as u32 + size));
    }
    assert!(rig.requests.contains(&(honest, 0)));
    let asked = rig.requests.iter().filter(|(k, _)| *k == restless).count();
    assert!(asked <= 4, "{asked}");
}

#[test]
fn a_peer_that_refused_is_asked_again_after_a_rest_and_three_times_at_most() {
    let mut rig = Rig::wanting();
    let key = rig.offering(100);
    let mut asked = 0;
    for _ in 0..600 {
        for (_, piece) in std::mem::take(&mut rig.requests) {
            asked += 1;
            rig.say(key, MetadataMessage::Reject { piece });
        }
        rig.wait(Duration::from_secs(1));
        rig.engine.received(rig.now, key, WireMessage::KeepAlive);
    }
    assert_eq!(asked, 3);
    assert!(rig.left.is_empty(), "{:?}", rig.left);
}

#[test]
fn without_the_exchange_nothing_is_announced_asked_or_given() {
    let mut rig = Rig::new(false);
    rig.engine.want_profile(rig.now);
    let served = text(100);
    rig.engine
        .offer_profile(rig.now, served, ProfileRank::InUse);
    let key = rig.offering(100);
    let (_, hello) = &rig.hellos[0];
    assert_eq!((hello.vmt_profile, hello.vmt_profile_size), (None, None));
    rig.say(key, MetadataMessage::Request { piece: 0 });
    rig.wait(Duration::from_secs(70));
    assert!(rig.requests.is_empty() && rig.answers.is_empty() && rig.left.is_empty());
    assert_eq!(rig.hellos.len(), 1);
    // And with it the hello says so.
    let mut rig = Rig::new(true);
    rig.engine
        .offer_profile(rig.now, text(100), ProfileRank::InUse);
    rig.connect();
    let (_, hello) = &rig.hellos[0];
    assert_eq!(
        (hello.vmt_profile, hello.vmt_profile_size),
        (Some(VMT_PROFILE), Some(100))
    );
}

#[test]
fn peers_are_told_at_once_of_the_first_profile_and_of_later_ones_seldom() {
    let mut rig = Rig::new(true);
    let key = rig.offering(0);
    let plain = rig.connect();
    rig.say_hello(plain, None, None);
    rig.hellos.clear();
    // A run that grows by a block each second for ten minutes.
    for second in 1..600 {
        let run = text(10_000 + second * 100);
        rig.engine.offer_profile(rig.now, run, ProfileRank::OwnRun);
        rig.collect();
        if second == 1 {
            let sizes: Vec<_> = rig.hellos.iter().map(|h| h.1.vmt_profile_size).collect();
            assert_eq!(sizes, [Some(10_100)]);
        }
        rig.wait(Duration::from_secs(1));
        for key in [key, plain] {
            rig.engine.received(rig.now, key, WireMessage::KeepAlive);
        }
    }
    assert!(rig.hellos.iter().all(|(to, _)| *to == key));
    assert!((5..=11).contains(&rig.hellos.len()), "{}", rig.hellos.len());
    let last = rig.hellos.last().unwrap().1.vmt_profile_size.unwrap();
    assert!(last > 60_000, "{last}");
    // It is sent what it was told of.
    for piece in 0..piece_count(last) {
        rig.say(key, MetadataMessage::Request { piece });
        let (_, answer) = rig.answers.remove(0);
        let MetadataMessage::Data {
            total_size, data, ..
        } = answer
        else {
            panic!("{answer:?}");
        };
        assert_eq!(total_size, last);
        assert_eq!(data.len() as u32, piece_length(last, piece));
    }
    assert!(rig.left.is_empty());
}

#[test]
fn the_profile_in_use_takes_the_place_of_a_run_and_no_run_that_of_it() {
    let mut rig = Rig::new(true);
    let offer = |rig: &mut Rig, length, rank| {
        rig.engine.offer_profile(rig.now, text(length), rank);
        rig.wait(Duration::from_secs(100));
        rig.profiles().serve.size()
    };
    assert_eq!(offer(&mut rig, 0, ProfileRank::InUse), 0);
    assert_eq!(offer(&mut rig, 5000, ProfileRank::OwnRun), 5000);
    // Another guest's, which is shorter.
    assert_eq!(offer(&mut rig, 4000, ProfileRank::OwnRun), 5000);
    let too_long = Profile::MAX_ATTACHED + 1;
    assert_eq!(offer(&mut rig, too_long, ProfileRank::InUse), 5000);
    assert_eq!(offer(&mut rig, 3000, ProfileRank::InUse), 3000);
    assert_eq!(offer(&mut rig, 9000, ProfileRank::OwnRun), 3000);
}
