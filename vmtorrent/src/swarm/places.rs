//! How many connections a session has, and who gives way when there is no place left.
//!
//! Invariant: there are never more connections than the limit; who was named by the user always gets a place, and
//! nobody who moved a block a moment ago loses one to a stranger.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::origin::Origin;
use crate::clock::Time;

/// A connection that moved no block for so long is of no use.
const USELESS: Duration = Duration::from_secs(30);
/// The same where one origin holds more places than another: time to begin.
const IDLE: Duration = Duration::from_secs(5);
/// Dials of a session that are under way at once.
const MAX_DIALLING: usize = 32;

/// By what right a connection is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The peer connected to us.
    Inbound,
    /// We dialled an address that was found.
    Found,
    /// We dialled an address that the user named.
    Named,
}

/// The places of one session, for all its torrents together.
///
/// When all are taken:
/// - whoever comes takes the place of the inbound connection that is useless (no block for 30 s) for the longest;
/// - if none is, an inbound newcomer takes one of the origin that holds most, if that has at least two more than its
///   own, and moved no block over it for 5 s;
/// - if there is none either, a peer that the user named takes the inbound place, or else the found one, that is
///   without a block for the longest; others get none.
///
/// One origin gets at most half of the places by connecting to us.
pub(crate) struct Places {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    members: HashMap<u64, Member>,
    next: u64,
    dialling: usize,
}

struct Member {
    origin: Option<Origin>,
    claim: Claim,
    activity: Arc<Activity>,
}

/// What a connection's task knows of its place.
#[derive(Debug)]
pub(crate) struct Activity {
    /// When the last block moved, or the connection began; milliseconds of the session's clock.
    last: AtomicU64,
    given_up: Notify,
}

impl Activity {
    /// A block moved.
    pub(crate) fn moved(&self, now: Time) {
        self.last.fetch_max(millis(now), Ordering::Relaxed);
    }

    /// Ends when the place was given to somebody else.
    pub(crate) async fn given_up(&self) {
        self.given_up.notified().await;
    }

    fn last(&self) -> Time {
        Time::default() + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }
}

fn millis(now: Time) -> u64 {
    now.since(Time::default())
        .as_millis()
        .try_into()
        .unwrap_or(u64::MAX)
}

/// The right to one connection, until it is dropped.
pub(crate) struct Place {
    id: u64,
    places: Arc<Places>,
    activity: Arc<Activity>,
}

impl Place {
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.state.lock().members.remove(&self.id);
    }
}

/// The right to dial, until it is dropped.
pub(crate) struct DialPermit(Arc<Places>);

impl Drop for DialPermit {
    fn drop(&mut self) {
        self.0.state.lock().dialling -= 1;
    }
}

impl Places {
    /// `limit`: connections at once; at least one.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.max(1),
            state: Mutex::default(),
        })
    }

    /// A place for a connection with `ip`, unless it can't have one.
    pub(crate) fn enter(self: &Arc<Self>, now: Time, ip: IpAddr, claim: Claim) -> Option<Place> {
        let origin = Origin::of(ip);
        let mut state = self.state.lock();
        if claim == Claim::Inbound && origin.is_some() && state.held(origin) >= self.per_origin() {
            let victim = state.idlest(|m| m.is_inbound() && m.origin == origin);
            state.give_up(victim.filter(|v| now.since(v.1) >= USELESS)?.0);
        }
        if state.members.len() >= self.limit {
            let victim = state.victim(now, origin, claim)?;
            state.give_up(victim);
        }
        let id = state.next;
        state.next += 1;
        let activity = Arc::new(Activity {
            last: AtomicU64::new(millis(now)),
            given_up: Notify::new(),
        });
        let member = Member {
            origin,
            claim,
            activity: activity.clone(),
        };
        state.members.insert(id, member);
        Some(Place {
            id,
            places: self.clone(),
            activity,
        })
    }

    /// Whether a peer that is dialled would get a place.
    pub(crate) fn has_room(&self, now: Time, claim: Claim) -> bool {
        let state = self.state.lock();
        state.members.len() < self.limit || state.victim(now, None, claim).is_some()
    }

    /// The right to dial, unless too many dials are under way.
    pub(crate) fn dial(self: &Arc<Self>) -> Option<DialPermit> {
        let mut state = self.state.lock();
        if state.dialling >= MAX_DIALLING {
            return None;
        }
        state.dialling += 1;
        Some(DialPermit(self.clone()))
    }

    /// Whether [`dial`](Self::dial) would say yes.
    pub(crate) fn may_dial(&self) -> bool {
        self.state.lock().dialling < MAX_DIALLING
    }

    /// Places that one origin may have by connecting to us.
    fn per_origin(&self) -> usize {
        self.limit.div_ceil(2)
    }
}

impl State {
    /// Inbound places of an origin.
    fn held(&self, origin: Option<Origin>) -> usize {
        let members = self.members.values();
        members
            .filter(|m| m.is_inbound() && m.origin == origin)
            .count()
    }

    /// Of some members, the one that is without a block for the longest, and since when.
    fn idlest(&self, which: impl Fn(&Member) -> bool) -> Option<(u64, Time)> {
        self.members
            .iter()
            .filter(|(_, m)| which(m))
            .map(|(id, m)| (*id, m.activity.last()))
            .min_by_key(|(id, last)| (*last, *id))
    }

    /// Who gives way to a newcomer when all places are taken.
    fn victim(&self, now: Time, origin: Option<Origin>, claim: Claim) -> Option<u64> {
        let inbound = self.idlest(Member::is_inbound);
        if let Some((id, last)) = inbound
            && now.since(last) >= USELESS
        {
            return Some(id);
        }
        match claim {
            Claim::Named => inbound
                .or_else(|| self.idlest(|m| m.claim == Claim::Found))
                .map(|(id, _)| id),
            Claim::Found => None,
            Claim::Inbound => {
                let mut counts: HashMap<Origin, usize> = HashMap::new();
                for member in self.members.values().filter(|m| m.is_inbound()) {
                    if let Some(origin) = member.origin {
                        *counts.entry(origin).or_default() += 1;
                    }
                }
                let own = origin.and_then(|o| counts.get(&o).copied()).unwrap_or(0);
                let (most, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
                let (id, last) = self.idlest(|m| m.is_inbound() && m.origin == Some(most))?;
                (count >= own + 2 && now.since(last) >= IDLE).then_some(id)
            }
        }
    }

    fn give_up(&mut self, id: u64) {
        if let Some(member) = self.members.remove(&id) {
            member.activity.given_up.notify_one();
        }
    }
}

impl Member {
    fn is_inbound(&self) -> bool {
        self.claim == Claim::Inbound
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    fn ip(host: u8) -> IpAddr {
        [10, 0, 0, host].into()
    }

    fn gave_way(place: &Place) -> bool {
        place.activity().given_up().now_or_never().is_some()
    }

    fn inbound(places: &Arc<Places>, seconds: u64, host: u8) -> Option<Place> {
        places.enter(at(seconds), ip(host), Claim::Inbound)
    }

    #[test]
    fn the_longest_useless_inbound_connection_gives_way_and_useful_ones_stay() {
        let places = Places::new(4);
        let held: Vec<Place> = (0..4)
            .map(|h| inbound(&places, h, h as u8).unwrap())
            .collect();
        assert!(inbound(&places, 20, 9).is_none());
        held[0].activity().moved(at(31));
        // 1 and 2 are useless now, 1 for longer.
        let newcomer = inbound(&places, 32, 9).unwrap();
        assert_eq!(
            held.iter().map(gave_way).collect::<Vec<_>>(),
            [false, true, false, false]
        );
        assert!(places.enter(at(32), ip(10), Claim::Found).is_some());
        assert!(gave_way(&held[2]) && !gave_way(&held[0]));
        drop((held, newcomer));
        assert!(places.state.lock().members.is_empty());
    }

    #[test]
    fn a_named_peer_always_gets_a_place_and_gives_none_up() {
        let places = Places::new(2);
        let found = places.enter(at(0), ip(1), Claim::Found).unwrap();
        let stranger = inbound(&places, 0, 2).unwrap();
        assert!(!places.has_room(at(1), Claim::Found));
        assert!(places.enter(at(1), ip(3), Claim::Found).is_none());
        assert!(places.has_room(at(1), Claim::Named));
        let first = places.enter(at(1), ip(3), Claim::Named).unwrap();
        assert!(gave_way(&stranger) && !gave_way(&found));
        let second = places.enter(at(1), ip(4), Claim::Named).unwrap();
        assert!(gave_way(&found));
        assert!(places.enter(at(999), ip(5), Claim::Named).is_none());
        assert!(inbound(&places, 999, 6).is_none());
        assert!(!gave_way(&first) && !gave_way(&second));
    }

    #[test]
    fn one_origin_gets_half_of_the_places_and_then_only_its_own() {
        let places = Places::new(8);
        let held: Vec<Place> = (0..20).filter_map(|_| inbound(&places, 0, 1)).collect();
        assert_eq!(held.len(), 4);
        let others: Vec<Place> = (2..6).filter_map(|h| inbound(&places, 0, h)).collect();
        assert_eq!(others.len(), 4);
        // Full, and nobody is useless yet: who holds most gives way to somebody new, but not at once.
        assert!(inbound(&places, 4, 7).is_none());
        let new = inbound(&places, 5, 7).unwrap();
        let more = inbound(&places, 5, 8).unwrap();
        assert_eq!(held.iter().filter(|p| gave_way(p)).count(), 2);
        assert!(!others.iter().any(gave_way));
        // Now it holds two, and that is not two more than a newcomer's one would be... but than none.
        drop((new, more));
        assert_eq!(places.state.lock().members.len(), 6);
    }

    #[test]
    fn a_flood_never_exceeds_the_limit() {
        let places = Places::new(10);
        let mut held = Vec::new();
        for n in 0..2_000_u64 {
            held.extend(inbound(&places, n / 7, (n % 250) as u8));
            assert!(places.state.lock().members.len() <= 10);
            held.retain(|p| !gave_way(p));
        }
        assert!(held.len() <= 10);
    }

    #[test]
    fn dials_under_way_are_bounded() {
        let places = Places::new(10);
        let mut dials: Vec<DialPermit> = (0..100).filter_map(|_| places.dial()).collect();
        assert_eq!(dials.len(), MAX_DIALLING);
        dials.pop();
        assert!(places.dial().is_some());
    }
}
