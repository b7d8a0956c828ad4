//! Who may shake hands with us.
//!
//! Invariant: at most [`MAX_GREETERS`] strangers are at the door, and a silent one never keeps another one out: who
//! has been there for the longest goes.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::origin::Origin;
use crate::clock::Time;

/// Handshakes with strangers that are under way at once, in all and of one origin.
const MAX_GREETERS: usize = 64;
const MAX_GREETERS_OF_ONE: usize = 8;
/// Connections that one origin may open at once after a pause, and for each second from then on. Generous: a hundred
/// machines may stand behind one address.
const BURST: f64 = 64.0;
const RATE: f64 = 8.0;
/// Origins whose rate is remembered.
const MAX_ORIGINS: usize = 1_024;

/// Decides who is greeted. Pure: time is passed in.
#[derive(Debug, Default)]
struct Greeters {
    /// In the order in which they came.
    waiting: VecDeque<(u64, Option<Origin>)>,
    next: u64,
    rates: HashMap<Origin, Rate>,
}

/// A token bucket over connections.
#[derive(Debug)]
struct Rate {
    tokens: f64,
    updated: Time,
}

impl Greeters {
    /// Somebody connected. Gives the number under which to greet it, and who has to go for that; `None`: it comes too
    /// often.
    fn arrive(&mut self, now: Time, ip: IpAddr) -> Option<(u64, Option<u64>)> {
        let origin = Origin::of(ip);
        if let Some(origin) = origin
            && !self.may_come(now, origin)
        {
            return None;
        }
        let same = |waiting: &(u64, Option<Origin>)| origin.is_some() && waiting.1 == origin;
        let of_one = self.waiting.iter().filter(|w| same(w)).count();
        let leaver = if of_one >= MAX_GREETERS_OF_ONE {
            self.waiting.iter().position(same)
        } else {
            (self.waiting.len() >= MAX_GREETERS).then_some(0)
        };
        let leaver = leaver.and_then(|place| self.waiting.remove(place));
        let number = self.next;
        self.next += 1;
        self.waiting.push_back((number, origin));
        Some((number, leaver.map(|(number, _)| number)))
    }

    fn is_waiting(&self, number: u64) -> bool {
        self.waiting.iter().any(|(n, _)| *n == number)
    }

    /// A greeting has ended.
    fn leave(&mut self, number: u64) {
        self.waiting.retain(|(n, _)| *n != number);
    }

    fn may_come(&mut self, now: Time, origin: Origin) -> bool {
        if self.rates.len() >= MAX_ORIGINS && !self.rates.contains_key(&origin) {
            self.rates.retain(|_, rate| rate.at(now) < BURST);
            let oldest = self
                .rates
                .iter()
                .min_by_key(|(_, r)| r.updated)
                .map(|(o, _)| *o);
            if let Some(oldest) = oldest.filter(|_| self.rates.len() >= MAX_ORIGINS) {
                self.rates.remove(&oldest);
            }
        }
        let rate = self.rates.entry(origin).or_insert(Rate {
            tokens: BURST,
            updated: now,
        });
        rate.tokens = rate.at(now);
        rate.updated = now;
        if rate.tokens < 1.0 {
            return false;
        }
        rate.tokens -= 1.0;
        true
    }
}

impl Rate {
    fn at(&self, now: Time) -> f64 {
        let gained = now.since(self.updated).as_secs_f64() * RATE;
        (self.tokens + gained).min(BURST)
    }
}

/// Runs the greetings of a session.
#[derive(Debug, Default)]
pub(crate) struct Door {
    state: Mutex<DoorState>,
}

#[derive(Debug, Default)]
struct DoorState {
    greeters: Greeters,
    tasks: HashMap<u64, AbortHandle>,
}

/// What became of somebody who connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Greeted,
    /// Greeted, and somebody else's greeting was cut off for it.
    InsteadOfAnother,
    /// Turned away: that origin comes too often.
    TooOften,
}

impl Door {
    /// Greets who connected from `ip`: runs `greeting`, which a later comer may cut off, unless that origin comes too
    /// often.
    pub(crate) fn greet(
        self: &Arc<Self>,
        runtime: &Handle,
        now: Time,
        ip: IpAddr,
        greeting: impl Future<Output = ()> + Send + 'static,
    ) -> Admission {
        let (number, admission, leaver) = {
            let mut state = self.state.lock();
            let Some((number, leaver)) = state.greeters.arrive(now, ip) else {
                return Admission::TooOften;
            };
            let admission = match leaver {
                Some(_) => Admission::InsteadOfAnother,
                None => Admission::Greeted,
            };
            (
                number,
                admission,
                leaver.and_then(|l| state.tasks.remove(&l)),
            )
        };
        if let Some(leaver) = leaver {
            leaver.abort();
        }
        let guest = Guest {
            door: self.clone(),
            number,
        };
        // Without the lock: a runtime that is being shut down drops the guest at once.
        let task = runtime.spawn(async move {
            let _guest = guest;
            greeting.await;
        });
        let mut state = self.state.lock();
        if state.greeters.is_waiting(number) {
            state.tasks.insert(number, task.abort_handle());
        }
        admission
    }

    /// Cuts off every greeting.
    pub(crate) fn close(&self) {
        let tasks: Vec<_> = self.state.lock().tasks.drain().collect();
        for (_, task) in tasks {
            task.abort();
        }
    }
}

/// A greeting under way.
struct Guest {
    door: Arc<Door>,
    number: u64,
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut state = self.door.state.lock();
        state.greeters.leave(self.number);
        state.tasks.remove(&self.number);
    }
}

/// How long the pause is after a connection could not be accepted: others may close some meanwhile.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    fn ip(host: u8) -> IpAddr {
        [10, 0, 0, host].into()
    }

    #[test]
    fn who_is_silent_for_the_longest_goes_when_the_door_is_full() {
        let mut greeters = Greeters::default();
        for n in 0..64 {
            assert_eq!(greeters.arrive(at(0), ip(n)), Some((n.into(), None)));
        }
        assert_eq!(greeters.arrive(at(0), ip(100)), Some((64, Some(0))));
        greeters.leave(1);
        assert_eq!(greeters.arrive(at(0), ip(101)), Some((65, None)));
        assert_eq!(greeters.arrive(at(0), ip(102)), Some((66, Some(2))));
        assert_eq!(greeters.waiting.len(), MAX_GREETERS);
    }

    #[test]
    fn one_origin_pushes_out_only_its_own() {
        let mut greeters = Greeters::default();
        let (other, _) = greeters.arrive(at(0), ip(9)).unwrap();
        let mut left = Vec::new();
        for _ in 0..50 {
            left.extend(greeters.arrive(at(0), ip(1)).unwrap().1);
        }
        assert_eq!(left.len(), 50 - MAX_GREETERS_OF_ONE);
        assert!(!left.contains(&other));
        // This host's own programs are bounded by the whole only.
        let local = IpAddr::from([127, 0, 0, 1]);
        for _ in 0..1_000 {
            assert!(greeters.arrive(at(0), local).is_some());
        }
        assert_eq!(greeters.waiting.len(), MAX_GREETERS);
    }

    #[test]
    fn who_connects_again_and_again_is_slowed_down_and_others_are_not() {
        let mut greeters = Greeters::default();
        let mut admitted = 0;
        for millis in 0..10_000 {
            admitted += usize::from(greeters.arrive(at(millis), ip(1)).is_some());
            if millis % 1_000 == 0 {
                assert!(greeters.arrive(at(millis), ip(2)).is_some());
            }
        }
        assert!((140..=145).contains(&admitted), "{admitted}");
        assert!(greeters.arrive(at(20_000), ip(1)).is_some());
    }

    #[test]
    fn the_memory_of_origins_is_bounded() {
        let mut greeters = Greeters::default();
        for n in 0..5_000_u32 {
            let ip = IpAddr::from(n.to_be_bytes().map(|b| b | 1));
            greeters.arrive(at(0), ip);
            let [a, b, c, d] = n.to_be_bytes();
            greeters.arrive(at(n.into()), [11, a | b, c, d].into());
            assert!(greeters.rates.len() <= MAX_ORIGINS);
        }
    }

    #[tokio::test]
    async fn a_greeting_that_has_to_go_ends_and_leaves_nothing_behind() {
        let door = Arc::new(Door::default());
        let (told, mut hears) = tokio::sync::mpsc::unbounded_channel::<()>();
        let local = IpAddr::from([127, 0, 0, 1]);
        for n in 0..MAX_GREETERS + 10 {
            let told = told.clone();
            let silent = async move {
                std::future::pending::<()>().await;
                drop(told);
            };
            let admission = door.greet(&Handle::current(), at(0), local, silent);
            let cut_off = admission == Admission::InsteadOfAnother;
            assert_eq!(cut_off, n >= MAX_GREETERS, "{n}: {admission:?}");
        }
        drop(told);
        tokio::task::yield_now().await;
        assert_eq!(door.state.lock().tasks.len(), MAX_GREETERS);
        door.close();
        // Every greeting has let go of its end.
        assert_eq!(hears.recv().await, None);
        assert!(door.state.lock().greeters.waiting.is_empty());
    }
}
