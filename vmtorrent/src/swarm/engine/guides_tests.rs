//! What profiles are for, on a simulated network: guests that do as foretold wait for little more than the line, and
//! those that don't wait no longer than without a profile.

use super::network::{Net, image};
use super::stage::{self, RTT, Stage, honest};
use super::*;
use crate::profile::{Access, Guide, Profile};

const PIECE: u32 = 16 << 10;
const PIECES: u32 = 2000;
const MBIT: f64 = 100.0;

/// A guest that reads pieces one after the other with some time in between.
struct Guest {
    node: usize,
    guide: Option<GuideKey>,
    reads: Vec<u32>,
    next: usize,
    waits_for: Option<u32>,
    /// When it reads next, if it does not wait.
    due: Time,
    guest_time: Duration,
    waited: Duration,
    since: Time,
    done: Option<Time>,
}

const THINK: Duration = Duration::from_millis(2);

impl Guest {
    fn new(net: &mut Net, node: usize, reads: &[u32], profile: Option<&[u32]>) -> Self {
        let guide = profile.map(|foretold| {
            let mut profile = Profile::new(&net.image);
            profile.set_runs(1);
            for (n, block) in foretold.iter().enumerate() {
                let time = n as u64 * THINK.as_micros() as u64;
                profile.insert(0, *block, Access::once(time, None));
            }
            let guide = Guide::new(&profile, &net.image).unwrap();
            let key = net.nodes[node].engine.add_guide(net.now, guide);
            net.collect(node);
            key
        });
        Self {
            node,
            guide,
            reads: reads.to_vec(),
            next: 0,
            waits_for: None,
            due: net.now,
            guest_time: Duration::ZERO,
            waited: Duration::ZERO,
            since: net.now,
            done: None,
        }
    }

    /// Does what is due.
    fn step(&mut self, net: &mut Net) {
        loop {
            let now = net.now;
            if let Some(piece) = self.waits_for {
                let Some(ready) = net.nodes[self.node].ready.get(&piece) else {
                    return;
                };
                self.waited += ready.since(self.since);
                self.waits_for = None;
                self.due = *ready + THINK;
            }
            if self.done.is_some() || self.due > now {
                return;
            }
            let Some(&piece) = self.reads.get(self.next) else {
                self.done = Some(self.due);
                return;
            };
            self.next += 1;
            self.guest_time += THINK;
            let engine = &mut net.nodes[self.node].engine;
            let missing = engine.lacks(PieceIndex(piece));
            if missing {
                self.since = self.due;
                engine.demand(now, &[PieceIndex(piece)]);
                self.waits_for = Some(piece);
            } else {
                self.due = self.due + THINK;
            }
            if let Some(key) = self.guide {
                let guest = self.guest_time.as_micros() as u64;
                engine.guest_reads(now, key, guest, 0, &[piece]);
            }
            net.collect(self.node);
        }
    }
}

/// Runs guests to their end; gives the longest time that one of them took.
fn run(net: &mut Net, guests: &mut [Guest]) -> Duration {
    let start = net.now;
    while guests.iter().any(|g| g.done.is_none()) {
        for guest in guests.iter_mut() {
            guest.step(net);
        }
        net.run(net.now + Duration::from_micros(500));
        assert!(
            net.now.since(start) < Duration::from_secs(300),
            "it never ends"
        );
    }
    let ends = guests.iter().filter_map(|g| g.done);
    ends.max().map_or(Duration::ZERO, |end| end.since(start))
}

/// Places all over the image, none twice.
fn places(seed: u32, count: u32) -> Vec<u32> {
    (0..count).map(|n| (n * 777 + seed) % PIECES).collect()
}

/// One guest with a seed of its own.
fn alone(rtt_ms: u64, reads: &[u32], profile: Option<&[u32]>) -> (Duration, Duration, Net) {
    let mut net = Net::new(image(PIECES, PIECE), rtt_ms);
    let seed = net.node(MBIT, true, Fill::None);
    let node = net.node(MBIT, false, Fill::None);
    net.link(node, seed);
    net.run_for(100);
    let mut guests = [Guest::new(&mut net, node, reads, profile)];
    let took = run(&mut net, &mut guests);
    (took, guests[0].waited, net)
}

#[test]
fn a_guest_that_does_as_foretold_hardly_waits_and_nothing_else_is_fetched() {
    let reads = places(5, 1000);
    let (_, waited, net) = alone(20, &reads, Some(&reads));
    // A piece takes 1.3 ms of the line and 2 ms of the guest: it can't catch up with the line.
    assert!(waited < Duration::from_millis(60), "{waited:?}");
    let fetched: u64 = net.nodes[1].engine.traffic().fetched.iter().sum();
    assert_eq!(fetched, 1000 * u64::from(PIECE));
    let (_, without, _) = alone(20, &reads, None);
    assert!(without > Duration::from_secs(15), "{without:?}");
}

#[test]
fn a_line_that_is_too_thin_is_the_only_thing_that_a_guest_waits_for() {
    let reads = places(5, 1500);
    let mut net = Net::new(image(PIECES, PIECE), 20);
    let seed = net.node(25.0, true, Fill::None);
    let node = net.node(25.0, false, Fill::None);
    net.link(node, seed);
    net.run_for(100);
    let mut guests = [Guest::new(&mut net, node, &reads, Some(&reads))];
    let took = run(&mut net, &mut guests);
    let line = Duration::from_secs_f64(1500.0 * f64::from(PIECE) / (25.0 * 125_000.0));
    assert!(
        took < line.mul_f64(1.05),
        "{took:?} where the line takes {line:?}"
    );
}

#[test]
fn a_profile_of_something_else_costs_hardly_any_time_and_soon_no_traffic() {
    let reads = places(5, 400);
    let other: Vec<u32> = (0..PIECES).filter(|p| !reads.contains(p)).collect();
    for rtt in [1, 20] {
        let (without, _, _) = alone(rtt, &reads, None);
        let (with, _, net) = alone(rtt, &reads, Some(&other));
        assert!(
            with < without.mul_f64(1.03),
            "{with:?} rather than {without:?}"
        );
        let [demand, _, profile, _] = net.nodes[1].engine.traffic().fetched;
        assert_eq!(demand, 400 * u64::from(PIECE));
        assert!(profile < demand, "{profile} bytes in vain");
    }
}

#[test]
fn nothing_is_fetched_for_a_profile_while_the_store_has_no_room() {
    let mut net = Net::new(image(PIECES, PIECE), 1);
    let seed = net.node(MBIT, true, Fill::None);
    let node = net.node(MBIT, false, Fill::None);
    net.nodes[node].engine.hold_guides(net.now, true);
    let _guest = Guest::new(&mut net, node, &[], Some(&places(5, 100)));
    net.link(node, seed);
    net.run_for(1000);
    assert_eq!(net.nodes[node].engine.traffic().fetched, [0; 4]);
    net.nodes[node].engine.hold_guides(net.now, false);
    net.collect(node);
    net.run_for(1000);
    let all = 100 * u64::from(PIECE);
    assert_eq!(net.nodes[node].engine.traffic().fetched, [0, 0, all, 0]);
}

#[test]
fn a_read_that_nobody_foretold_waits_behind_one_block_at_most() {
    // It is to read what a long profile does not know, while that is fetched.
    let foretold: Vec<u32> = (0..1900).collect();
    let mut net = Net::new(image(PIECES, PIECE), 20);
    let seed = net.node(MBIT, true, Fill::None);
    let node = net.node(MBIT, false, Fill::None);
    net.link(node, seed);
    net.run_for(100);
    let _guest = Guest::new(&mut net, node, &[], Some(&foretold));
    net.run_for(500);
    let mut waits = Vec::new();
    for piece in 1950..1970 {
        let before = net.nodes[node].engine.traffic().fetched[2];
        let wait = net.timed_demand(node, piece);
        waits.push(wait);
        net.run_for(20);
        assert!(net.nodes[node].engine.traffic().fetched[2] > before);
    }
    waits.sort_by(f64::total_cmp);
    // A round trip, the block, and the block that was on its way.
    assert!(waits[16] < 20.0 + 2.0 * 1.4, "{waits:?}");
    // And in one round of eight, in which the line is tried, a quarter of a round trip.
    assert!(waits[19] < 25.0 + 2.0 * 1.4, "{waits:?}");
}

#[test]
fn pieces_are_left_to_peers_of_our_kind_only() {
    let reads = places(5, 100);
    let left = |exchange: bool| {
        let mut net = Net::new(image(PIECES, PIECE), 1);
        let seed = net.node(MBIT, true, Fill::None);
        let own = net.node(MBIT, false, Fill::None);
        let other = net.node(MBIT, false, Fill::None);
        net.nodes[other].engine.profiles = Profiles::new(net.now, exchange);
        // What is foretold is known, and not fetched.
        net.nodes[own].engine.hold_guides(net.now, true);
        let _guest = Guest::new(&mut net, own, &[], Some(&reads));
        net.link(own, seed);
        net.link(own, other);
        net.run_for(100);
        let links = &net.nodes[own].links;
        let seed = *links.iter().find(|(_, (node, _))| *node == seed).unwrap().0;
        let now = net.now;
        let engine = &mut net.nodes[own].engine;
        let pieces: Vec<PieceIndex> = reads.iter().copied().map(PieceIndex).collect();
        engine.demand(now, &pieces);
        let left = pieces.iter().filter(|p| !engine.picker.may_ask(seed, **p));
        left.count()
    };
    assert_eq!(left(false), 0);
    // Those of which the other has the greater weight: half, more or less.
    assert!((25..75).contains(&left(true)), "{}", left(true));
}

#[test]
fn read_ahead_is_left_to_others_for_a_second_and_to_peers_of_our_kind_only() {
    let reads = places(5, 100);
    let left = |exchange: bool| {
        let mut net = Net::new(image(PIECES, PIECE), 1);
        let seed = net.node(MBIT, true, Fill::None);
        let own = net.node(MBIT, false, Fill::None);
        net.nodes[own].engine.hold_guides(net.now, true);
        let _guest = Guest::new(&mut net, own, &[], Some(&reads));
        net.link(own, seed);
        // They bring nothing.
        for _ in 0..5 {
            let other = net.node(MBIT, false, Fill::None);
            net.nodes[other].engine.profiles = Profiles::new(net.now, exchange);
            net.link(own, other);
        }
        net.run_for(100);
        let pieces: Vec<PieceIndex> = reads.iter().copied().map(PieceIndex).collect();
        net.nodes[own].engine.read_ahead(net.now, &pieces);
        net.collect(own);
        net.run_for(900);
        let lacks = |net: &Net, p: &PieceIndex| net.nodes[own].engine.lacks(*p);
        let left: Vec<u32> = pieces
            .iter()
            .filter(|p| lacks(&net, p))
            .map(|p| p.0)
            .collect();
        if let Some(piece) = left.first() {
            let wait = net.timed_demand(own, *piece);
            assert!(wait < 50.0, "a read waits no longer for it: {wait} ms");
        }
        net.run_for(400);
        assert!(!pieces.iter().any(|p| lacks(&net, p)));
        left.len()
    };
    assert_eq!(left(false), 0);
    // Those for which three others come before us: half, more or less.
    let left = left(true);
    assert!((25..75).contains(&left), "{left}");
}

/// Eight guests that start together, know each other and `giver`, and read what their profiles say: how long they take, and
/// how often the giver sends what one of them needs.
fn eight_with(net: &mut Net, giver: usize, reads: &[u32]) -> (Duration, f64) {
    let nodes: Vec<usize> = (0..8).map(|_| net.node(MBIT, false, Fill::None)).collect();
    let mut guests: Vec<Guest> = nodes
        .iter()
        .map(|&node| Guest::new(net, node, reads, Some(reads)))
        .collect();
    // What is foretold is fetched from the first moment on, before anybody has anything.
    for (n, &node) in nodes.iter().enumerate() {
        net.link(node, giver);
        for &other in &nodes[..n] {
            net.link(node, other);
        }
    }
    let together = run(net, &mut guests);
    let uploaded = net.nodes[giver].engine.traffic().uploaded;
    (
        together,
        uploaded as f64 / (reads.len() as f64 * f64::from(PIECE)),
    )
}

#[test]
fn guests_behind_one_that_is_done_trade_what_they_fetch_of_it() {
    let reads = places(5, 1000);
    let (alone, _, _) = alone(1, &reads, Some(&reads));
    let mut net = Net::new(image(PIECES, PIECE), 1);
    // It lacks what none of them reads, so it is no seed; and there is none.
    let done = net.node(MBIT, true, Fill::None);
    let unread = (0..PIECES).find(|p| !reads.contains(p)).unwrap();
    net.nodes[done].engine.damaged(net.now, PieceIndex(unread));
    // If it sent each piece to each of them, they would take five times as long.
    let (together, copies) = eight_with(&mut net, done, &reads);
    assert!(
        together < alone.mul_f64(1.75),
        "{together:?} rather than {alone:?}"
    );
    assert!(copies < 3.0, "{copies:.1} times");
}

#[test]
fn eight_guests_that_start_together_trade_what_they_fetch() {
    let reads = places(5, 1000);
    let (alone, _, _) = alone(1, &reads, Some(&reads));
    let mut net = Net::new(image(PIECES, PIECE), 1);
    let seed = net.node(MBIT, true, Fill::None);
    let (together, copies) = eight_with(&mut net, seed, &reads);
    assert!(
        together < alone.mul_f64(1.25),
        "{together:?} rather than {alone:?}"
    );
    assert!(copies < 3.0, "{copies:.1} times");
}

/// Many that tell each other of each piece at once would do little else.
#[test]
fn who_follows_a_profile_tells_of_a_piece_a_millisecond_later_for_each_peer() {
    for (peers, pause) in [(2, 2), (4, 4), (30, 30), (150, 100)] {
        let mut stage = Stage::new();
        let image = image(200, stage::PIECE);
        let mut profile = Profile::new(&image);
        profile.set_runs(1);
        profile.insert(0, 7 * stage::PIECE / (16 << 10), Access::once(0, None));
        let guide = Guide::new(&profile, &image).unwrap();
        stage.engine.add_guide(stage.now, guide);
        let empty = Bitfield::new(200);
        for _ in 1..peers {
            stage.join_with(true, RTT, honest(), &empty);
        }
        stage.join(true, RTT, honest());
        stage.run_for(Duration::from_secs(1));
        let came = stage.ready[&7];
        let told: Vec<_> = stage.haves.iter().map(|at| at.since(came)).collect();
        assert_eq!(told.len(), peers - 1);
        for after in told {
            let pause = Duration::from_millis(pause);
            // The stage's clock goes on by a millisecond.
            assert!(
                after >= pause && after <= pause + Duration::from_millis(1),
                "{peers}: {after:?}"
            );
        }
    }
}
