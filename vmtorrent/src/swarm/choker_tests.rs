//! The choker's promises.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::choker::{Choker, Conduct};
use crate::clock::Time;
use crate::picker::PeerKey;

/// A choker and what its peers were told.
struct Rig {
    choker: Choker,
    now: Time,
    unchoked: BTreeSet<usize>,
    /// How often each was unchoked, and when it was choked last.
    turns: BTreeMap<usize, u32>,
    conduct: BTreeMap<usize, Conduct>,
    seeding: bool,
}

impl Rig {
    fn new(slots: usize) -> Self {
        Self {
            choker: Choker::new(Time::default(), slots, 7),
            now: Time::default(),
            unchoked: BTreeSet::new(),
            turns: BTreeMap::new(),
            conduct: BTreeMap::new(),
            seeding: true,
        }
    }

    fn follow(&mut self) {
        for (key, choke) in self.choker.take_changes() {
            if choke {
                assert!(self.unchoked.remove(&key.0), "choked twice: {key:?}");
            } else {
                assert!(self.unchoked.insert(key.0), "unchoked twice: {key:?}");
                *self.turns.entry(key.0).or_default() += 1;
            }
        }
    }

    fn join(&mut self, peer: usize, local: bool) {
        self.choker.joined(self.now, PeerKey(peer), local);
        self.follow();
    }

    fn leave(&mut self, peer: usize) {
        self.choker.left(self.now, PeerKey(peer));
        self.unchoked.remove(&peer);
        self.follow();
    }

    fn interest(&mut self, peer: usize, interested: bool) {
        self.choker.interest(self.now, PeerKey(peer), interested);
        self.follow();
    }

    /// Peers of the internet that want something.
    fn crowd(&mut self, peers: std::ops::Range<usize>) {
        for peer in peers {
            self.join(peer, false);
            self.interest(peer, true);
        }
    }

    /// Lets time pass, in which all that are unchoked are sent something.
    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now + Duration::from_secs(1);
            for peer in &self.unchoked {
                self.choker.got(PeerKey(*peer), 1 << 20);
            }
            let conduct = &self.conduct;
            self.choker.tick(self.now, self.seeding, |key| {
                conduct.get(&key.0).copied().unwrap_or_default()
            });
            self.follow();
        }
    }
}

#[test]
fn while_there_are_slots_nobody_is_choked() {
    let mut rig = Rig::new(100);
    rig.crowd(0..100);
    assert_eq!(rig.unchoked.len(), 100);
    for seeding in [true, false] {
        rig.seeding = seeding;
        for peer in 0..100 {
            let never_unchoked_us = peer % 2 == 0;
            let snubs_us = peer % 3 == 0;
            let conduct = Conduct {
                never_unchoked_us,
                snubs_us,
            };
            rig.conduct.insert(peer, conduct);
        }
        rig.run(300);
        assert_eq!(rig.unchoked.len(), 100);
    }
    assert!(rig.turns.values().all(|n| *n == 1), "nobody was choked");
}

#[test]
fn the_local_network_has_slots_of_its_own() {
    let mut rig = Rig::new(2);
    rig.crowd(0..10);
    for peer in 100..250 {
        rig.join(peer, true);
        rig.interest(peer, true);
    }
    rig.run(100);
    let local = rig.unchoked.iter().filter(|p| **p >= 100).count();
    assert_eq!((local, rig.unchoked.len()), (150, 152));
    let is_local = |ip: &str| Choker::is_local(ip.parse().unwrap());
    for ip in [
        "10.1.2.3",
        "172.16.0.1",
        "192.168.0.1",
        "169.254.3.4",
        "127.0.0.1",
        "::1",
        "fe80::1",
        "fd00::1",
        "::ffff:10.0.0.1",
    ] {
        assert!(is_local(ip), "{ip}");
    }
    for ip in ["8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
        assert!(!is_local(ip), "{ip}");
    }
}

#[test]
fn a_seed_serves_everybody_in_turns_that_are_not_short() {
    let mut rig = Rig::new(5);
    rig.crowd(0..40);
    // Four slots are taken in turns of a minute.
    rig.run(40 / 4 * 60 + 60);
    let served: BTreeSet<usize> = rig.turns.keys().copied().collect();
    assert_eq!(served.len(), 40, "{served:?}");
    let turns: u32 = rig.turns.values().sum();
    let minutes = 11;
    // Four in turn each minute, and one drawn twice a minute.
    assert!(turns <= minutes * (4 + 2) + 5, "{turns} turns");
}

#[test]
fn who_asks_for_nothing_loses_its_turn_sooner() {
    let mut rig = Rig::new(1);
    rig.crowd(0..2);
    assert_eq!(rig.unchoked, [0].into());
    for _ in 0..30 {
        rig.now = rig.now + Duration::from_secs(1);
        rig.choker.tick(rig.now, true, |_| Conduct::default());
        rig.follow();
    }
    assert_eq!(rig.unchoked, [1].into());
}

#[test]
fn who_gives_most_gets_the_slots() {
    let mut rig = Rig::new(5);
    rig.seeding = false;
    rig.crowd(0..30);
    let mut held = BTreeMap::new();
    for second in 0..300 {
        for giver in 20..24 {
            rig.choker.gave(PeerKey(giver), 10_000 * giver as u64);
        }
        rig.run(1);
        if second >= 20 {
            for peer in &rig.unchoked {
                *held.entry(*peer).or_insert(0) += 1;
            }
        }
    }
    for giver in 20..24 {
        assert_eq!(
            held[&giver], 280,
            "{giver} has a slot all the time: {held:?}"
        );
    }
    assert_eq!(rig.unchoked.len(), 5);
}

#[test]
fn free_riders_and_snubbers_get_slots_by_chance_only() {
    let mut rig = Rig::new(10);
    rig.seeding = false;
    rig.crowd(0..60);
    for peer in 0..50 {
        let never_unchoked_us = peer % 2 == 0;
        let conduct = Conduct {
            never_unchoked_us,
            snubs_us: !never_unchoked_us,
        };
        rig.conduct.insert(peer, conduct);
    }
    rig.run(20);
    let mut of_riders = 0;
    for _ in 0..300 {
        rig.run(1);
        assert_eq!(rig.unchoked.len(), 10);
        of_riders += rig.unchoked.iter().filter(|p| **p < 50).count();
    }
    // Two of ten slots are drawn, of peers of which a few are not free riders.
    assert!(of_riders <= 2 * 300, "{of_riders} slot seconds");
    assert!(of_riders >= 300, "they get some: {of_riders}");
    // What nobody has earned is drawn too: better than idle (BEP 3 on snubbing).
    for peer in 50..60 {
        rig.leave(peer);
    }
    rig.run(30);
    assert_eq!(rig.unchoked.len(), 10);
}

#[test]
fn draws_favour_newcomers_three_to_one() {
    let (mut newcomers, mut draws) = (0, 0);
    for seed in 0..300 {
        let mut rig = Rig::new(2);
        rig.choker = Choker::new(rig.now, 2, seed);
        rig.crowd(0..10);
        // All of these have a turn before the others come.
        rig.run(900);
        rig.crowd(10..20);
        rig.seeding = false;
        for _ in 0..30 {
            rig.choker.gave(PeerKey(0), 1_000);
            rig.run(1);
        }
        // The last of these seconds drew, and peer 0 had earned the other slot.
        assert!(rig.unchoked.contains(&0), "{:?}", rig.unchoked);
        let drawn = rig.unchoked.iter().find(|p| **p != 0).unwrap();
        draws += 1;
        newcomers += i32::from(*drawn >= 10);
    }
    let share = f64::from(newcomers) / f64::from(draws);
    // Ten newcomers stand against nine others: 30 of 39 tickets.
    assert!((0.67..0.87).contains(&share), "{share}");
}

#[test]
fn a_slot_that_is_free_is_given_at_once() {
    let mut rig = Rig::new(2);
    rig.crowd(0..5);
    assert_eq!(rig.unchoked, [0, 1].into());
    rig.leave(0);
    assert_eq!(rig.unchoked, [1, 2].into(), "who waits longest");
    rig.interest(1, false);
    assert_eq!(rig.unchoked, [2, 3].into());
    rig.leave(2);
    rig.leave(3);
    assert_eq!(rig.unchoked, [4].into());
    // Who wants nothing gives way to who does.
    rig.join(10, false);
    assert_eq!(rig.unchoked, [4, 10].into());
    rig.join(11, false);
    rig.interest(11, true);
    assert_eq!(rig.unchoked, [4, 11].into());
}

#[derive(Clone, Debug)]
enum Step {
    Join(usize, bool),
    Leave(usize),
    Interest(usize, bool),
    Gave(usize, u64),
    Run(u64),
    Seeding(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let peer = || 0..12usize;
    let step = prop_oneof![
        4 => (peer(), any::<bool>()).prop_map(|(p, l)| Step::Join(p, l)),
        1 => peer().prop_map(Step::Leave),
        5 => (peer(), any::<bool>()).prop_map(|(p, i)| Step::Interest(p, i)),
        2 => (peer(), 0..1000u64).prop_map(|(p, n)| Step::Gave(p, n)),
        3 => (1..40u64).prop_map(Step::Run),
        1 => any::<bool>().prop_map(Step::Seeding),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn slots_are_never_exceeded_and_never_idle_while_somebody_waits(
        slots in 1..6usize,
        steps in steps(),
    ) {
        let mut rig = Rig::new(slots);
        // The peers that are there: whether they are local, and interested.
        let mut there: BTreeMap<usize, (bool, bool)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Join(peer, local) if !there.contains_key(&peer) => {
                    there.insert(peer, (local, false));
                    rig.join(peer, local);
                }
                Step::Join(..) => {}
                Step::Leave(peer) => {
                    there.remove(&peer);
                    rig.leave(peer);
                }
                Step::Interest(peer, interested) => {
                    if let Some(known) = there.get_mut(&peer) {
                        known.1 = interested;
                    }
                    rig.interest(peer, interested);
                }
                Step::Gave(peer, bytes) => rig.choker.gave(PeerKey(peer), bytes),
                Step::Run(seconds) => rig.run(seconds),
                Step::Seeding(seeding) => rig.seeding = seeding,
            }
            let internet: Vec<usize> = there.iter().filter(|p| !p.1.0).map(|p| *p.0).collect();
            let unchoked = internet.iter().filter(|p| rig.unchoked.contains(p)).count();
            prop_assert!(unchoked <= slots);
            let waits = internet.iter().any(|p| there[p].1 && !rig.unchoked.contains(p));
            if waits {
                let idle = internet.iter().any(|p| !there[p].1 && rig.unchoked.contains(p));
                prop_assert!(unchoked == slots && !idle, "{unchoked} of {slots}: {there:?}");
            }
            for (peer, (local, interested)) in &there {
                prop_assert!(!local || !interested || rig.unchoked.contains(peer));
            }
        }
    }
}
