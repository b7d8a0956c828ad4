//! What is held, for how long, and of whom.

use std::time::Duration;

use super::UploadQueue;
use crate::clock::Time;
use crate::picker::PeerKey;
use crate::swarm::wire::WireRequest;

const BLOCK: u32 = 16_384;

/// The queue of a seed, which sends at once what is popped.
struct Seed {
    queue: UploadQueue,
    now: Time,
}

fn block(piece: u32) -> WireRequest {
    WireRequest {
        piece,
        begin: 0,
        length: BLOCK,
    }
}

impl Seed {
    fn of(members: usize) -> Self {
        let mut queue = UploadQueue::new(None);
        queue.hold_repeats((0..members).map(PeerKey));
        let now = Time::default();
        Self { queue, now }
    }

    fn asks(&mut self, peer: usize, piece: u32) {
        assert!(self.queue.push(self.now, PeerKey(peer), block(piece), 0));
    }

    /// Whoever is served now.
    fn serve(&mut self) -> Vec<usize> {
        let mut served = Vec::new();
        while self.queue.is_ready(self.now, |_| 0) {
            let Some((peer, request)) = self.queue.pop(self.now, |_| 0) else {
                break;
            };
            self.queue.sent(peer, request.length.into());
            served.push(peer.0);
        }
        served
    }

    fn wait(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
    }

    fn has(&mut self, peer: usize, piece: u32) {
        self.queue.came(self.now, PeerKey(peer), piece);
    }
}

#[test]
fn one_is_given_a_piece_and_after_a_round_twice_as_many() {
    let mut seed = Seed::of(8);
    for peer in 0..8 {
        seed.asks(peer, 3);
    }
    assert_eq!(seed.serve(), [0]);
    seed.has(0, 3);
    seed.wait(499);
    assert!(seed.serve().is_empty());
    seed.wait(1);
    assert_eq!(seed.serve().len(), 2);
    seed.wait(500);
    assert_eq!(seed.serve().len(), 4);
    seed.wait(500);
    assert_eq!(seed.serve().len(), 1);
    assert!(seed.queue.next_release().is_none());
}

#[test]
fn what_was_got_elsewhere_is_not_sent() {
    let mut seed = Seed::of(4);
    for peer in 0..4 {
        seed.asks(peer, 3);
    }
    assert_eq!(seed.serve(), [0]);
    for peer in 1..4 {
        assert!(seed.queue.cancel(seed.now, PeerKey(peer), block(3)));
    }
    seed.wait(20_000);
    assert!(seed.serve().is_empty());
}

#[test]
fn a_peer_that_has_not_got_its_block_yet_is_waited_for_but_not_for_ever() {
    let mut seed = Seed::of(4);
    for peer in 0..4 {
        seed.asks(peer, 3);
    }
    assert_eq!(seed.serve(), [0]);
    for _ in 0..9 {
        seed.wait(1000);
        assert!(seed.serve().is_empty());
    }
    seed.wait(1500);
    assert_eq!(seed.serve().len(), 2);
}

#[test]
fn nothing_waits_for_a_peer_that_has_gone() {
    let mut seed = Seed::of(5);
    for peer in 0..4 {
        seed.asks(peer, 3);
    }
    assert_eq!(seed.serve(), [0]);
    seed.queue.remove(PeerKey(0));
    seed.wait(500);
    assert_eq!(seed.serve().len(), 2);
}

#[test]
fn what_a_read_waits_for_is_not_held() {
    let mut seed = Seed::of(4);
    for peer in 0..4 {
        seed.asks(peer, 3);
        seed.queue.mark_urgent(PeerKey(peer), block(3));
    }
    assert_eq!(seed.serve(), [0, 1, 2, 3]);
}

#[test]
fn nothing_is_held_of_few_or_of_peers_of_another_kind() {
    let mut few = Seed::of(3);
    for peer in 0..3 {
        few.asks(peer, 3);
    }
    assert_eq!(few.serve(), [0, 1, 2]);
    let mut strangers = Seed::of(4);
    for peer in 10..14 {
        strangers.asks(peer, 3);
    }
    assert_eq!(strangers.serve(), [10, 11, 12, 13]);
}

#[test]
fn who_gets_nothing_elsewhere_is_soon_served_at_once() {
    let mut seed = Seed::of(4);
    for piece in 0..12 {
        seed.asks(0, piece);
        seed.asks(1, piece);
    }
    assert_eq!(seed.serve(), [0; 12]);
    for piece in 0..12 {
        seed.has(0, piece);
    }
    seed.wait(500);
    assert_eq!(seed.serve(), [1; 12]);
    seed.asks(0, 20);
    seed.asks(1, 20);
    assert_eq!(seed.serve().len(), 2, "peer 1 seems to know nobody else");
    // It is tried again later.
    seed.wait(11_000);
    seed.asks(0, 21);
    seed.asks(1, 21);
    assert_eq!(seed.serve(), [0]);
}

#[test]
fn blocks_that_come_late_make_rounds_longer() {
    let mut seed = Seed::of(4);
    for piece in 0..40 {
        seed.asks(0, piece);
        assert_eq!(seed.serve(), [0]);
        seed.wait(1000);
        seed.has(0, piece);
        seed.serve();
    }
    seed.asks(0, 50);
    seed.asks(1, 50);
    assert_eq!(seed.serve(), [0]);
    seed.has(0, 50);
    seed.wait(1500);
    assert!(seed.serve().is_empty());
    seed.wait(1500);
    assert_eq!(seed.serve(), [1]);
}
