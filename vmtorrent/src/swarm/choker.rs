//! Who may ask for blocks. Invariant: of the peers of the internet never more than there are slots are unchoked, nor of
//! the local network more than its own; while no more are interested, all of them are. No I/O, no clock, no randomness of
//! its own.
//!
//! While everybody who is interested has a slot nobody is choked, and a crowd is slowed down by nothing here: the upload
//! queue shares the line. Where slots are scarce, it is decided every ten seconds, as BEP 3 has it:
//! - While we download, those get a slot that gave us most in the last 20 s. Who never let us ask, or left our requests
//!   unanswered (snubbed us), gets one by chance only.
//! - Once we have everything, or among those that gave the same, they take turns of a minute. That is libtorrent's
//!   round robin (`unchoke_compare_rr` in src/choker.cpp: who is unchoked stays so until a minute has passed and a quota
//!   was sent, then who has waited longest is next), without the quota, since a slow peer would keep its slot for as long
//!   as it likes, and without the preference for fast ones. With P peers and S slots taken in turns each is served
//!   within P / S minutes.
//! - One slot of five, at least one (libtorrent's part), and each that nobody has earned, is drawn anew every 30 s, and
//!   peers that never had a slot are three times as likely to get it.
//!
//! A slot that becomes free between two rounds is given at once to who has waited longest.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::clock::Time;
use crate::picker::PeerKey;

/// Decides who is choked.
#[derive(Debug)]
pub(crate) struct Choker {
    internet: usize,
    local: usize,
    members: BTreeMap<PeerKey, Member>,
    next_round: Time,
    next_draw: Time,
    rng: StdRng,
    changes: Vec<(PeerKey, bool)>,
}

/// What a peer does, as far as it counts when slots are scarce.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Conduct {
    /// It never let us ask, although it has what we lack.
    pub(crate) never_unchoked_us: bool,
    /// It left requests of ours unanswered for long.
    pub(crate) snubs_us: bool,
}

/// A peer.
#[derive(Debug)]
struct Member {
    local: bool,
    interested: bool,
    unchoked: bool,
    /// It has its slot by chance.
    drawn: bool,
    joined: Time,
    /// When its present turn began, or its last one.
    turn_began: Option<Time>,
    /// When it was choked last.
    choked_at: Time,
    /// Bytes that it gave us in this round and in the last one.
    gave: [u64; 2],
    /// Bytes that it was sent since it was unchoked.
    got: u64,
}

/// Where a peer stands in the order in which slots are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// It has a slot, and its turn is not over.
    Running,
    /// It has none; since then.
    Waiting(Time),
    /// It had its turn; since then.
    Over(Time),
}

impl Choker {
    /// Slots of peers of the local network: as many as there are connections by default.
    pub(crate) const LOCAL_SLOTS: usize = 200;
    const ROUND: Duration = Duration::from_secs(10);
    const DRAW: Duration = Duration::from_secs(30);
    /// One slot of so many is drawn.
    const DRAWN_OF: usize = 5;
    const TURN: Duration = Duration::from_secs(60);
    /// A turn in which nothing was asked for ends after so long.
    const IDLE_TURN: Duration = Duration::from_secs(20);
    /// How much likelier a peer is to be drawn that never had a slot.
    const NEWCOMER: u32 = 3;

    /// `slots`: of peers that are not of the local network, at least one.
    pub(crate) fn new(now: Time, slots: usize, seed: u64) -> Self {
        let internet = slots.max(1);
        Self {
            internet,
            local: internet.max(Self::LOCAL_SLOTS),
            members: BTreeMap::new(),
            next_round: now + Self::ROUND,
            next_draw: now + Self::DRAW,
            rng: StdRng::seed_from_u64(seed),
            changes: Vec::new(),
        }
    }

    /// Whether an address is one of the local network: private (RFC 1918, RFC 4193), link-local or this host's.
    pub(crate) fn is_local(ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.is_loopback(),
            IpAddr::V6(ip) => {
                ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback()
            }
        }
    }

    /// Who is choked now (`true`) and who is not any more, in order. To be asked after every other call.
    pub(crate) fn take_changes(&mut self) -> Vec<(PeerKey, bool)> {
        std::mem::take(&mut self.changes)
    }

    /// A peer has come; it is choked if nothing else is said. While there are slots it gets one before it shows interest:
    /// its first request then costs one round trip less.
    pub(crate) fn joined(&mut self, now: Time, key: PeerKey, local: bool) {
        let member = Member {
            local,
            interested: false,
            unchoked: false,
            drawn: false,
            joined: now,
            turn_began: None,
            choked_at: now,
            gave: [0; 2],
            got: 0,
        };
        self.members.insert(key, member);
        if self.has_free_slot(local) {
            self.set(now, key, true);
        }
    }

    /// A peer has gone.
    pub(crate) fn left(&mut self, now: Time, key: PeerKey) {
        if let Some(member) = self.members.remove(&key)
            && member.unchoked
        {
            self.fill(now, member.local);
        }
    }

    /// A peer wants something, or nothing any more.
    pub(crate) fn interest(&mut self, now: Time, key: PeerKey, interested: bool) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        member.interested = interested;
        let (local, unchoked) = (member.local, member.unchoked);
        if interested && !unchoked {
            if !self.has_free_slot(local) {
                self.free_idle(now, local);
            }
            if self.has_free_slot(local) {
                self.set(now, key, true);
            }
        } else if !interested && unchoked && self.longest_waiting(local).is_some() {
            self.set(now, key, false);
            self.fill(now, local);
        }
    }

    /// A peer gave us bytes that we had asked it for.
    pub(crate) fn gave(&mut self, key: PeerKey, bytes: u64) {
        if let Some(member) = self.members.get_mut(&key) {
            member.gave[0] += bytes;
        }
    }

    /// A peer was sent bytes that it had asked for.
    pub(crate) fn got(&mut self, key: PeerKey, bytes: u64) {
        if let Some(member) = self.members.get_mut(&key) {
            member.got += bytes;
        }
    }

    /// Decides anew when ten seconds have passed. `seeding`: we have everything.
    pub(crate) fn tick(&mut self, now: Time, seeding: bool, conduct: impl Fn(PeerKey) -> Conduct) {
        if now < self.next_round {
            return;
        }
        self.next_round = now + Self::ROUND;
        let draw = now >= self.next_draw;
        if draw {
            self.next_draw = now + Self::DRAW;
        }
        for local in [false, true] {
            self.decide(now, local, seeding, draw, &conduct);
        }
        for member in self.members.values_mut() {
            member.gave = [0, member.gave[0]];
        }
    }

    fn decide(
        &mut self,
        now: Time,
        local: bool,
        seeding: bool,
        draw: bool,
        conduct: impl Fn(PeerKey) -> Conduct,
    ) {
        let slots = self.slots(local);
        let interested: Vec<PeerKey> = self.of(local, |m| m.interested).collect();
        let mut chosen: BTreeSet<PeerKey> = BTreeSet::new();
        let mut drawn = Vec::new();
        if interested.len() <= slots {
            chosen.extend(&interested);
        } else {
            let chances = if slots > 1 {
                (slots / Self::DRAWN_OF).max(1)
            } else {
                0
            };
            let earned = self.ranked(now, &interested, seeding, conduct);
            chosen.extend(earned.into_iter().take(slots - chances));
            drawn = self.drawn(&interested, &chosen, slots - chosen.len(), draw);
            chosen.extend(&drawn);
        }
        let unwanted: Vec<PeerKey> = self
            .of(local, |m| m.unchoked)
            .filter(|key| !chosen.contains(key))
            .collect();
        let mut room = slots - chosen.len();
        for key in unwanted {
            // Who wants nothing keeps a slot that nobody needs.
            let idle = self.members.get(&key).is_some_and(|m| !m.interested);
            if idle && room > 0 {
                room -= 1;
            } else {
                self.set(now, key, false);
            }
        }
        for &key in &chosen {
            self.set(now, key, true);
            if let Some(member) = self.members.get_mut(&key) {
                member.drawn = drawn.contains(&key);
                if !member.drawn && matches!(member.turn(now), Turn::Over(_)) {
                    member.turn_began = Some(now);
                    member.got = 0;
                }
            }
        }
    }

    /// Peers that may have a slot for what they do, the first ones first.
    fn ranked(
        &self,
        now: Time,
        interested: &[PeerKey],
        seeding: bool,
        conduct: impl Fn(PeerKey) -> Conduct,
    ) -> Vec<PeerKey> {
        let mut ranked: Vec<_> = interested
            .iter()
            .filter_map(|key| Some((*key, self.members.get(key)?)))
            .filter(|(key, _)| {
                let Conduct {
                    never_unchoked_us,
                    snubs_us,
                } = conduct(*key);
                seeding || !never_unchoked_us && !snubs_us
            })
            .map(|(key, member)| {
                let gave: u64 = if seeding { 0 } else { member.gave.iter().sum() };
                (std::cmp::Reverse(gave), member.turn(now), key)
            })
            .collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(.., key)| key).collect()
    }

    /// Peers that get a slot by chance.
    fn drawn(
        &mut self,
        interested: &[PeerKey],
        chosen: &BTreeSet<PeerKey>,
        count: usize,
        draw: bool,
    ) -> Vec<PeerKey> {
        let mut candidates: Vec<(PeerKey, u32)> = Vec::new();
        let mut drawn = Vec::new();
        for key in interested.iter().filter(|key| !chosen.contains(key)) {
            let Some(member) = self.members.get(key) else {
                continue;
            };
            if member.unchoked && member.drawn && !draw && drawn.len() < count {
                drawn.push(*key);
            } else if member.turn_began.is_none() {
                candidates.push((*key, Self::NEWCOMER));
            } else {
                candidates.push((*key, 1));
            }
        }
        while drawn.len() < count && !candidates.is_empty() {
            let sum: u32 = candidates.iter().map(|(_, weight)| weight).sum();
            let mut ticket = self.rng.random_range(0..sum);
            let at = candidates.iter().position(|(_, weight)| {
                let hit = ticket < *weight;
                ticket = ticket.saturating_sub(*weight);
                hit
            });
            drawn.push(candidates.swap_remove(at.unwrap_or_default()).0);
        }
        drawn
    }

    fn set(&mut self, now: Time, key: PeerKey, unchoked: bool) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        if member.unchoked == unchoked {
            return;
        }
        member.unchoked = unchoked;
        if unchoked {
            member.turn_began = Some(now);
            member.got = 0;
        } else {
            member.choked_at = now;
            member.drawn = false;
        }
        self.changes.push((key, !unchoked));
    }

    fn slots(&self, local: bool) -> usize {
        if local { self.local } else { self.internet }
    }

    fn of(&self, local: bool, filter: impl Fn(&Member) -> bool) -> impl Iterator<Item = PeerKey> {
        self.members
            .iter()
            .filter(move |(_, m)| m.local == local && filter(m))
            .map(|(key, _)| *key)
    }

    fn has_free_slot(&self, local: bool) -> bool {
        self.of(local, |m| m.unchoked).count() < self.slots(local)
    }

    /// Takes the slot of one that wants nothing.
    fn free_idle(&mut self, now: Time, local: bool) {
        let idle = self.of(local, |m| m.unchoked && !m.interested).next();
        if let Some(key) = idle {
            self.set(now, key, false);
        }
    }

    fn longest_waiting(&self, local: bool) -> Option<PeerKey> {
        self.of(local, |m| m.interested && !m.unchoked)
            .min_by_key(|key| self.members.get(key).map(Member::waits_since))
    }

    fn fill(&mut self, now: Time, local: bool) {
        while self.has_free_slot(local)
            && let Some(key) = self.longest_waiting(local)
        {
            self.set(now, key, true);
        }
    }
}

impl Member {
    fn waits_since(&self) -> Time {
        // Of those that never had a slot the first one is next.
        self.turn_began.map_or(self.joined, |_| self.choked_at)
    }

    fn turn(&self, now: Time) -> Turn {
        let Some(began) = self.turn_began.filter(|_| self.unchoked) else {
            return Turn::Waiting(self.waits_since());
        };
        let turn = now.since(began);
        if turn >= Choker::TURN || self.got == 0 && turn >= Choker::IDLE_TURN {
            Turn::Over(began)
        } else if self.drawn {
            // What came by chance is no turn.
            Turn::Waiting(self.waits_since())
        } else {
            Turn::Running
        }
    }
}
