//! The upload queue's promises.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::UploadQueue;
use super::urgent_budget::UrgentBudget;
use crate::clock::Time;
use crate::picker::PeerKey;
use crate::swarm::wire::WireRequest;

const BLOCK: u32 = 16_384;

fn block(piece: u32) -> WireRequest {
    part(piece, 0, BLOCK)
}

fn part(piece: u32, begin: u32, length: u32) -> WireRequest {
    WireRequest {
        piece,
        begin,
        length,
    }
}

/// A queue in which nothing is rare.
struct Queue {
    queue: UploadQueue,
    now: Time,
}

impl Queue {
    fn new() -> Self {
        Self {
            queue: UploadQueue::new(None),
            now: Time::default(),
        }
    }

    fn push(&mut self, peer: usize, request: WireRequest) -> bool {
        self.queue.push(self.now, PeerKey(peer), request, 100)
    }

    fn mark(&mut self, peer: usize, request: WireRequest) {
        self.queue.mark_urgent(PeerKey(peer), request);
    }

    fn urgent(&mut self, peer: usize, request: WireRequest) {
        self.push(peer, request);
        self.mark(peer, request);
    }

    fn pop(&mut self) -> Option<(usize, WireRequest)> {
        let popped = self.queue.pop(self.now, |_| 100)?;
        Some((popped.0.0, popped.1))
    }

    /// The next one, which is sent at once.
    fn serve(&mut self) -> Option<(usize, WireRequest)> {
        let (peer, request) = self.pop()?;
        self.sent(peer, request.length);
        Some((peer, request))
    }

    fn sent(&mut self, peer: usize, bytes: u32) {
        self.queue.sent(PeerKey(peer), bytes.into());
    }

    fn all(&mut self) -> Vec<usize> {
        std::iter::from_fn(|| self.serve().map(|(p, _)| p)).collect()
    }
}

#[test]
fn peers_take_turns_block_by_block() {
    let mut q = Queue::new();
    for n in 0..6 {
        q.push(1, block(n));
    }
    q.push(2, block(0));
    q.push(2, block(1));
    q.push(3, block(0));
    assert_eq!(q.all(), [1, 2, 3, 1, 2, 1, 1, 1, 1]);
}

#[test]
fn large_requests_give_no_larger_share() {
    let mut q = Queue::new();
    let mut given = [0; 2];
    for n in 0.. {
        // Both always have something to ask for, and read at once what they get.
        q.push(0, part(n, 0, 128 << 10));
        q.push(1, block(n));
        let Some((peer, request)) = q.serve() else {
            break;
        };
        given[peer] += request.length;
        if given[0] + given[1] > 20 << 20 {
            break;
        }
    }
    assert!(given[0].abs_diff(given[1]) <= 256 << 10, "{given:?}");
}

#[test]
fn a_large_request_alone_is_served_at_once() {
    let mut q = Queue::new();
    for piece in 0..8 {
        let request = part(piece, 0, 128 << 10);
        q.push(1, request);
        assert!(q.queue.is_ready(q.now, |_| 100));
        assert_eq!(q.serve(), Some((1, request)));
    }
}

#[test]
fn single_bytes_that_are_not_read_do_not_pile_up() {
    let mut q = Queue::new();
    let mut handed = 0;
    for begin in 0..100_000 {
        q.push(1, part(0, begin, 1));
        while q.pop().is_some() {
            handed += 1;
        }
    }
    assert_eq!(handed, 64);
    for _ in 0..64 {
        q.sent(1, 1);
    }
    let more = std::iter::from_fn(|| q.pop()).count();
    assert_eq!(more, 64, "what was sent makes room");
}

#[test]
fn a_cancelled_request_is_not_served() {
    let mut q = Queue::new();
    q.push(1, block(0));
    q.push(1, block(1));
    q.mark(1, block(0));
    assert!(q.queue.cancel(q.now, PeerKey(1), block(0)));
    assert!(!q.queue.cancel(q.now, PeerKey(1), block(0)));
    assert_eq!(q.pop(), Some((1, block(1))));
    assert!(!q.queue.cancel(q.now, PeerKey(1), block(1)));
    assert!(!q.queue.is_ready(q.now, |_| 100));
    assert_eq!(q.pop(), None);
}

#[test]
fn what_a_choke_clears_is_not_served_and_comes_out_in_order() {
    let mut q = Queue::new();
    for n in [5, 3, 4] {
        q.push(1, block(n));
    }
    q.mark(1, block(4));
    let cleared = q.queue.clear(PeerKey(1));
    assert_eq!(cleared, [block(5), block(3), block(4)]);
    assert_eq!(q.pop(), None);
    q.push(1, block(6));
    assert_eq!(q.pop(), Some((1, block(6))));
}

#[test]
fn a_slow_reader_holds_up_nobody_and_queues_are_bounded() {
    let mut q = Queue::new();
    for n in 0..UploadQueue::MAX_REQUESTS as u32 {
        assert!(q.push(1, block(n)));
    }
    assert!(!q.push(1, block(9999)));
    let handed = std::iter::from_fn(|| q.pop()).count();
    assert_eq!(handed, 16, "256 KiB of blocks");
    q.push(2, block(0));
    assert_eq!(q.pop(), Some((2, block(0))));
    q.sent(1, BLOCK);
    assert_eq!(q.pop().map(|(p, _)| p), Some(1));
}

#[test]
fn of_many_peers_each_gets_little_at_once() {
    let handed = |mut q: Queue| {
        for piece in 0..20 {
            for peer in 0..100 {
                q.push(peer, block(piece));
            }
        }
        let all: Vec<usize> = std::iter::from_fn(|| q.pop().map(|(p, _)| p)).collect();
        let mut each = BTreeMap::new();
        for peer in all {
            *each.entry(peer).or_insert(0) += 1;
        }
        assert_eq!(each.len(), 100);
        *each.values().max().unwrap()
    };
    assert_eq!(handed(Queue::new()), 2, "20 KiB");
    let limited = Queue {
        queue: UploadQueue::new(Some(12.5e6)),
        now: Time::default(),
    };
    assert_eq!(handed(limited), 1);
}

#[test]
fn what_is_urgent_goes_first_even_if_it_comes_last() {
    let mut q = Queue::new();
    for peer in 0..100 {
        for n in 0..16 {
            q.push(peer, block(n));
        }
    }
    q.push(200, block(7));
    q.urgent(200, block(8));
    assert_eq!(q.serve(), Some((200, block(8))));
    // A mark may come later than the request.
    q.mark(50, block(15));
    assert_eq!(q.serve(), Some((50, block(15))));
    // One for what was not asked for does nothing.
    q.mark(50, block(99));
    q.mark(300, block(0));
    assert_eq!(q.serve(), Some((0, block(0))));
}

#[test]
fn urgent_requests_take_turns_among_peers_and_leave_others_a_part() {
    let mut q = Queue::new();
    for n in 0..40 {
        q.urgent(1, block(n));
        q.urgent(2, block(n));
        q.push(3, block(n));
        q.push(4, block(n));
    }
    let first: Vec<usize> = (0..8).filter_map(|_| q.serve()).map(|(p, _)| p).collect();
    let ordinary = first.iter().filter(|p| **p > 2).count();
    assert!((1..=2).contains(&ordinary), "{first:?}");
    let of = |peer| first.iter().filter(|p| **p == peer).count();
    assert!(of(1).abs_diff(of(2)) <= 1, "{first:?}");
}

/// What each peer gets of a line of 12.5 MB/s in `seconds`, if all ask without end.
fn shares(seconds: u64, peers: usize, calls_urgent: impl Fn(usize) -> bool) -> Vec<u64> {
    let mut q = Queue::new();
    // Each keeps sixteen waiting.
    let mut next = vec![16; peers];
    let mut given = vec![0; peers];
    for peer in 0..peers {
        for n in 0..16 {
            let request = block(n);
            q.push(peer, request);
            if calls_urgent(peer) {
                q.mark(peer, request);
            }
        }
    }
    while q.now < Time::default() + Duration::from_secs(seconds) {
        let (peer, request) = q.serve().unwrap();
        given[peer] += u64::from(request.length);
        q.now = q.now + Duration::from_secs_f64(f64::from(BLOCK) / 12.5e6);
        let request = block(next[peer]);
        next[peer] += 1;
        q.push(peer, request);
        if calls_urgent(peer) {
            q.mark(peer, request);
        }
    }
    given
}

#[test]
fn who_calls_everything_urgent_gets_its_budget_and_no_more() {
    let seconds = 20;
    let given = shares(seconds, 100, |peer| peer == 0);
    let most = UrgentBudget::BURST + UrgentBudget::RATE * seconds;
    let share = 12_500_000 * seconds / 100;
    // While its debt is below its bound, turns pay for it.
    assert!(given[0] <= most + share, "{} of {most}", given[0]);
    for (peer, given) in given.iter().enumerate().skip(1) {
        assert!(*given >= share * 97 / 100, "{peer}: {given} of {share}");
    }
}

#[test]
fn when_all_call_everything_urgent_all_get_the_same() {
    let given = shares(5, 100, |_| true);
    let (least, most) = (given.iter().min(), given.iter().max());
    let spread = most.unwrap() - least.unwrap();
    assert!(spread <= 2 * UrgentBudget::BURST, "{spread}");
}

#[test]
fn many_that_call_everything_urgent_leave_the_others_a_quarter() {
    let seconds = 5;
    let given = shares(seconds, 100, |peer| peer < 90);
    let share = 12_500_000 * seconds / 100;
    for (peer, given) in given.iter().enumerate().skip(90) {
        assert!(*given >= share / 4, "{peer}: {given} of {share}");
    }
}

#[test]
fn beyond_the_budget_an_urgent_request_waits_like_others_until_the_budget_is_back() {
    let mut q = Queue::new();
    for n in 0..100 {
        q.push(1, block(n));
        q.urgent(2, block(n));
    }
    let burst = UrgentBudget::BURST as usize / BLOCK as usize;
    let first: Vec<usize> = (0..burst * 4 / 3)
        .filter_map(|_| q.serve())
        .map(|(p, _)| p)
        .collect();
    let urgent = first.iter().filter(|p| **p == 2).count();
    assert!(urgent.abs_diff(burst) <= 1, "{urgent} of {burst}");
    // What it was given out of turn it sits out.
    // Some of that it has sat out already, between the urgent ones.
    for n in 0..burst - 12 {
        assert_eq!(q.serve().map(|(p, _)| p), Some(1), "{n}");
    }
    q.now = q.now + Duration::from_secs(1);
    assert_eq!(q.serve().map(|(p, _)| p), Some(2), "16 blocks a second");
}

#[test]
fn who_reads_less_than_its_share_owes_nothing() {
    let mut q = Queue::new();
    for n in 0..2000 {
        for peer in 0..20 {
            q.push(peer, block(n));
        }
        if n % 4 == 0 {
            q.urgent(100, block(n));
        }
        for _ in 0..20 {
            q.serve();
        }
        q.now = q.now + Duration::from_millis(26);
        if n % 4 == 3 && n > 1000 {
            // Now an ordinary one: it comes in the round in which it was asked for.
            q.push(100, block(5000 + n));
            let round: Vec<_> = (0..22).filter_map(|_| q.serve()).map(|(p, _)| p).collect();
            assert!(round.contains(&100), "{n}: {round:?}");
        }
    }
}

#[test]
fn pieces_that_few_have_go_before_others_as_of_the_time_of_choosing() {
    let mut q = UploadQueue::new(None);
    let peer = PeerKey(1);
    let mut copies = [9, 3, 0, 9, 1, 2];
    for piece in 0..6 {
        q.push(Time::default(), peer, block(piece), copies[piece as usize]);
    }
    q.mark_urgent(peer, block(3));
    // Somebody gave the piece that nobody had to many others meanwhile.
    copies[2] = 50;
    let order: Vec<u32> = std::iter::from_fn(|| {
        let (_, request) = q.pop(Time::default(), |piece| copies[piece as usize])?;
        Some(request.piece)
    })
    .collect();
    assert_eq!(order, [3, 4, 5, 1, 0, 2]);
}

#[test]
fn a_peer_that_goes_leaves_nothing_behind() {
    let mut q = Queue::new();
    for n in 0..40 {
        q.urgent(1, block(n));
        q.push(2, block(n));
    }
    while q.pop().is_some() {}
    q.queue.remove(PeerKey(1));
    q.now = q.now + Duration::from_secs(10);
    for _ in 0..16 {
        q.sent(2, BLOCK);
    }
    let rest = q.all();
    assert!(rest.iter().all(|p| *p == 2) && !rest.is_empty(), "{rest:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize, u32, bool),
    Mark(usize, u32),
    Cancel(usize, u32),
    Pop,
    Sent(usize),
    Clear(usize),
    Remove(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..4usize, 0..30u32, any::<bool>()).prop_map(|(p, n, u)| Step::Push(p, n, u)),
        1 => (0..4usize, 0..30u32).prop_map(|(p, n)| Step::Mark(p, n)),
        1 => (0..4usize, 0..30u32).prop_map(|(p, n)| Step::Cancel(p, n)),
        6 => Just(Step::Pop),
        4 => (0..4usize).prop_map(Step::Sent),
        1 => (0..4usize).prop_map(Step::Clear),
        1 => (0..4usize).prop_map(Step::Remove),
        1 => (1..500u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..400)
}

proptest! {
    /// Against a model: what comes out was asked for, not taken back and not served before; and whatever waits at a peer
    /// with room comes out in the end, of a seed too.
    #[test]
    fn every_request_is_answered_once_or_taken_back(steps in steps(), seed: bool) {
        let mut q = Queue::new();
        if seed {
            q.queue.hold_repeats((0..4).map(PeerKey));
        }
        let mut waiting: BTreeSet<(usize, u32)> = BTreeSet::new();
        let mut sending = [0usize; 4];
        for step in steps {
            match step {
                Step::Push(peer, n, urgent) => {
                    q.queue.may_hold(PeerKey(peer));
                    prop_assert!(q.push(peer, block(n)));
                    if urgent {
                        q.mark(peer, block(n));
                    }
                    waiting.insert((peer, n));
                }
                Step::Mark(peer, n) => q.mark(peer, block(n)),
                Step::Cancel(peer, n) => {
                    let waited = q.queue.cancel(q.now, PeerKey(peer), block(n));
                    prop_assert_eq!(waited, waiting.remove(&(peer, n)));
                }
                Step::Pop => {
                    let ready = q.queue.is_ready(q.now, |_| 100);
                    let popped = q.pop();
                    // A seed may hold all that is asked for.
                    prop_assert!(popped.is_some() == ready || seed && ready);
                    if let Some((peer, request)) = popped {
                        prop_assert!(waiting.remove(&(peer, request.piece)));
                        sending[peer] += 1;
                        prop_assert!(sending[peer] <= 17, "{sending:?}");
                    }
                }
                Step::Sent(peer) if sending[peer] > 0 => {
                    sending[peer] -= 1;
                    q.sent(peer, BLOCK);
                }
                Step::Sent(_) => {}
                Step::Clear(peer) => {
                    let cleared = q.queue.clear(PeerKey(peer));
                    let cleared: BTreeSet<_> = cleared.iter().map(|r| (peer, r.piece)).collect();
                    let expected = waiting.iter().filter(|w| w.0 == peer).copied();
                    prop_assert_eq!(cleared, expected.collect());
                    waiting.retain(|w| w.0 != peer);
                }
                Step::Remove(peer) => {
                    q.queue.remove(PeerKey(peer));
                    waiting.retain(|w| w.0 != peer);
                    sending[peer] = 0;
                }
                Step::Wait(ms) => q.now = q.now + Duration::from_millis(ms),
            }
        }
        for (peer, sending) in sending.into_iter().enumerate() {
            for _ in 0..sending {
                q.sent(peer, BLOCK);
            }
        }
        for _ in 0..10 {
            while let Some((peer, request)) = q.serve() {
                prop_assert!(waiting.remove(&(peer, request.piece)));
                q.queue.came(q.now, PeerKey(peer), request.piece);
            }
            q.now = q.now + Duration::from_secs(1);
        }
        prop_assert!(waiting.is_empty(), "{waiting:?}");
        prop_assert!(q.queue.next_release().is_none());
    }
}
