//! Invariant: no tracker is asked sooner than it allows, but for events; a tracker that fails is left alone ever longer.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use url::Url;

use super::Event;
use super::announce::AnnounceAnswer;
use crate::clock::Time;

/// First pause of a peer that has found nobody, and first pause after a failure; each further one is
/// twice as long.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// How long a tracker may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// The same over UDP when there is nobody else to ask: time to ask three times, as BEP 15 spaces it.
const LONG_PATIENCE: Duration = Duration::from_secs(15 + 30 + 60);
/// Longest pause after failures.
const MAX_BACKOFF: Duration = Duration::from_secs(15 * 60);

/// Which tracker is told what, and when (BEP 12). Pure: time is passed in, chance comes from a seed.
///
/// The first tracker that isn't failing, by tiers, is the one that is asked. When an earlier one is due
/// for another try, it is tried first; so all peers gather at the same tracker again.
#[derive(Debug)]
pub(super) struct Schedule {
    trackers: Vec<Tracker>,
    /// Numbers of trackers in the order of trying.
    tiers: Vec<Vec<usize>>,
    rng: StdRng,
    completed: bool,
    requested: bool,
}

#[derive(Debug)]
struct Tracker {
    url: Url,
    id: Option<Vec<u8>>,
    /// Whether it was told `started` and not yet `stopped`.
    registered: bool,
    /// It was told `started` and did not answer: whether it heard that nobody knows.
    doubtful: bool,
    told_completed: bool,
    failures: u32,
    /// Announces in a row that found nobody.
    lonely: u32,
    /// The soonest that it may be asked.
    not_before: Time,
    /// When it wants to be asked.
    due: Time,
}

impl Tracker {
    /// Whether it isn't left alone for its failures.
    fn may_be_asked(&self, now: Time) -> bool {
        self.failures == 0 || now >= self.not_before
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Announce to this tracker now, and report how it went.
    Announce {
        tracker: usize,
        event: Option<Event>,
    },
    /// Nothing until then.
    WaitUntil(Time),
    /// Nothing ever: there is no tracker.
    Nothing,
}

impl Schedule {
    /// The schedule for these tiers. Only http, https and udp trackers are used.
    pub(super) fn new(tiers: &[Vec<Url>], seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut trackers = Vec::new();
        let mut order = Vec::new();
        for tier in tiers {
            let mut numbers = Vec::new();
            for url in tier {
                if !matches!(url.scheme(), "http" | "https" | "udp") {
                    tracing::debug!("skipping a {} tracker: not supported", url.scheme());
                    continue;
                }
                numbers.push(trackers.len());
                trackers.push(Tracker {
                    url: url.clone(),
                    id: None,
                    registered: false,
                    doubtful: false,
                    told_completed: false,
                    failures: 0,
                    lonely: 0,
                    not_before: Time::default(),
                    due: Time::default(),
                });
            }
            numbers.shuffle(&mut rng);
            order.push(numbers);
        }
        Self {
            trackers,
            tiers: order,
            rng,
            completed: false,
            requested: false,
        }
    }

    pub(super) fn url(&self, tracker: usize) -> &Url {
        &self.trackers[tracker].url
    }

    pub(super) fn tracker_id(&self, tracker: usize) -> Option<&[u8]> {
        self.trackers[tracker].id.as_deref()
    }

    /// How long this tracker is waited for. A datagram may be lost, and is sent again after 15 s; but while it is, a
    /// tracker that answers would be better.
    pub(super) fn patience(&self, number: usize, now: Time) -> Duration {
        let other = |n: usize| n != number && self.trackers[n].may_be_asked(now);
        let alone = !(0..self.trackers.len()).any(other);
        if alone && self.trackers[number].url.scheme() == "udp" {
            LONG_PATIENCE
        } else {
            PATIENCE
        }
    }

    /// From now on trackers are told that the image is complete.
    pub(super) fn complete(&mut self) {
        self.completed = true;
    }

    /// More peers are wanted as soon as the tracker allows.
    pub(super) fn request(&mut self) {
        self.requested = true;
    }

    /// The trackers that have to be told `stopped`.
    pub(super) fn registered(&self) -> impl Iterator<Item = usize> {
        let told = |t: &Tracker| t.registered || t.doubtful;
        (0..self.trackers.len()).filter(move |&n| told(&self.trackers[n]))
    }

    /// What is to be done now.
    pub(super) fn next(&self, now: Time) -> Action {
        // The earliest that a failing tracker, which would go before the current one, is tried again.
        let mut retry: Option<Time> = None;
        for &number in self.tiers.iter().flatten() {
            let tracker = &self.trackers[number];
            if !tracker.may_be_asked(now) {
                retry = Some(retry.map_or(tracker.not_before, |t| t.min(tracker.not_before)));
                continue;
            }
            let (due, event) = if !tracker.registered {
                (now, Some(Event::Started))
            } else if self.completed && !tracker.told_completed {
                (now, Some(Event::Completed))
            } else if self.requested {
                (tracker.due.min(tracker.not_before), None)
            } else {
                (tracker.due, None)
            };
            if due <= now {
                return Action::Announce {
                    tracker: number,
                    event,
                };
            }
            return Action::WaitUntil(retry.map_or(due, |t| t.min(due)));
        }
        retry.map_or(Action::Nothing, Action::WaitUntil)
    }

    /// The tracker has answered. `lonely`: the peer still needs others and knows none.
    pub(super) fn succeeded(
        &mut self,
        number: usize,
        event: Option<Event>,
        answer: &AnnounceAnswer,
        lonely: bool,
        now: Time,
    ) {
        self.requested = false;
        let jitter = self.rng.random_range(0.8..1.0);
        let tracker = &mut self.trackers[number];
        match event {
            Some(Event::Started) => tracker.registered = true,
            Some(Event::Completed) => tracker.told_completed = true,
            Some(Event::Stopped) => tracker.registered = false,
            None => {}
        }
        tracker.doubtful = false;
        if let Some(id) = &answer.tracker_id {
            tracker.id = Some(id.clone());
        }
        tracker.failures = 0;
        tracker.not_before = now + answer.min_interval;
        let mut pause = answer.interval;
        if lonely {
            pause = pause.min(doubled(FIRST_RETRY, tracker.lonely));
            tracker.lonely = tracker.lonely.saturating_add(1);
        } else {
            tracker.lonely = 0;
        }
        tracker.due = (now + pause.mul_f64(jitter)).max(tracker.not_before);

        if let Some(tier) = self.tiers.iter_mut().find(|tier| tier.contains(&number))
            && let Some(place) = tier.iter().position(|&n| n == number)
        {
            tier[..=place].rotate_right(1);
        }
    }

    /// The tracker's answer was lost, or not waited for: it may know us.
    pub(super) fn unanswered(&mut self, number: usize, event: Option<Event>) {
        if event == Some(Event::Started) {
            self.trackers[number].doubtful = true;
        }
    }

    /// The tracker could not be reached, or refused.
    pub(super) fn failed(&mut self, number: usize, now: Time) {
        let jitter = self.rng.random_range(0.75..1.25);
        let tracker = &mut self.trackers[number];
        let pause = doubled(FIRST_RETRY, tracker.failures).min(MAX_BACKOFF);
        tracker.failures = tracker.failures.saturating_add(1);
        tracker.not_before = now + pause.mul_f64(jitter);
    }
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    fn answer(interval: u64, min_interval: u64) -> AnnounceAnswer {
        AnnounceAnswer {
            peers: Vec::new(),
            interval: Duration::from_secs(interval),
            min_interval: Duration::from_secs(min_interval),
            tracker_id: None,
        }
    }

    fn schedule(tiers: &[&[&str]]) -> Schedule {
        let tiers: Vec<Vec<Url>> = tiers
            .iter()
            .map(|tier| tier.iter().map(|u| Url::parse(u).unwrap()).collect())
            .collect();
        Schedule::new(&tiers, 1)
    }

    fn announced(s: &Schedule, now: Time) -> Option<(usize, Option<Event>)> {
        match s.next(now) {
            Action::Announce { tracker, event } => Some((tracker, event)),
            _ => None,
        }
    }

    fn waits(s: &Schedule, now: Time) -> Duration {
        match s.next(now) {
            Action::WaitUntil(then) => then.since(now),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn started_then_periodic_then_completed_once() {
        let mut s = schedule(&[&["http://a/"]]);
        assert_eq!(announced(&s, at(0)), Some((0, Some(Event::Started))));
        s.succeeded(0, Some(Event::Started), &answer(100, 10), false, at(0));
        let pause = waits(&s, at(0)).as_secs_f64();
        assert!((80.0..=100.0).contains(&pause), "{pause}");
        assert_eq!(announced(&s, at(100)), Some((0, None)));
        s.succeeded(0, None, &answer(100, 10), false, at(100));
        s.complete();
        assert_eq!(announced(&s, at(101)), Some((0, Some(Event::Completed))));
        s.succeeded(0, Some(Event::Completed), &answer(100, 10), false, at(101));
        assert!(waits(&s, at(101)).as_secs() >= 80);
        assert_eq!(s.registered().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn a_start_that_was_not_answered_is_told_again_and_taken_back_at_the_end() {
        let mut s = schedule(&[&["http://a/"]]);
        s.failed(0, at(0));
        assert_eq!(s.registered().next(), None, "it was not reached");
        s.unanswered(0, Some(Event::Started));
        s.failed(0, at(10));
        assert_eq!(s.registered().collect::<Vec<_>>(), [0]);
        assert_eq!(announced(&s, at(60)), Some((0, Some(Event::Started))));
        s.succeeded(0, Some(Event::Started), &answer(100, 10), false, at(60));
        assert_eq!(s.registered().collect::<Vec<_>>(), [0]);
        s.succeeded(0, Some(Event::Stopped), &answer(100, 10), false, at(61));
        assert_eq!(s.registered().next(), None);
    }

    #[test]
    fn a_lonely_peer_asks_soon_but_not_sooner_than_allowed() {
        let mut s = schedule(&[&["http://a/"]]);
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            s.succeeded(0, Some(Event::Started), &answer(60, 5), true, now);
            let pause = waits(&s, now);
            pauses.push(pause.as_secs());
            now = now + pause;
        }
        assert!((5..=5).contains(&pauses[0]), "{pauses:?}");
        assert!((8..=10).contains(&pauses[1]), "{pauses:?}");
        assert!((16..=20).contains(&pauses[2]), "{pauses:?}");
        assert!(
            pauses[4..].iter().all(|p| (48..=60).contains(p)),
            "{pauses:?}"
        );
        let mut s = schedule(&[&["http://a/"]]);
        s.succeeded(0, Some(Event::Started), &answer(1_800, 300), true, now);
        assert_eq!(waits(&s, now).as_secs(), 300);
    }

    #[test]
    fn a_request_waits_for_the_minimum_interval() {
        let mut s = schedule(&[&["http://a/"]]);
        s.succeeded(0, Some(Event::Started), &answer(1_000, 30), false, at(0));
        s.request();
        assert_eq!(waits(&s, at(1)).as_secs(), 29);
        assert_eq!(announced(&s, at(30)), Some((0, None)));
        s.succeeded(0, None, &answer(1_000, 30), false, at(30));
        assert!(waits(&s, at(30)).as_secs() >= 800);
    }

    #[test]
    fn failures_lead_to_the_next_tier_and_back() {
        let mut s = schedule(&[&["http://a/"], &["http://b/"]]);
        s.failed(0, at(0));
        assert_eq!(announced(&s, at(0)), Some((1, Some(Event::Started))));
        s.succeeded(1, Some(Event::Started), &answer(1_000, 30), false, at(0));
        // The first one is tried again first.
        let pause = waits(&s, at(0));
        assert!((3.75..6.25).contains(&pause.as_secs_f64()), "{pause:?}");
        let then = at(0) + pause;
        assert_eq!(announced(&s, then), Some((0, Some(Event::Started))));
        s.succeeded(0, Some(Event::Started), &answer(1_000, 30), false, then);
        assert!(waits(&s, then).as_secs() >= 800);
        assert_eq!(s.registered().collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_lost_datagram_is_waited_for_only_when_nobody_else_can_be_asked() {
        let alone = schedule(&[&["udp://a:1/"]]);
        assert_eq!(alone.patience(0, at(0)), LONG_PATIENCE);
        assert_eq!(schedule(&[&["http://a/"]]).patience(0, at(0)), PATIENCE);
        let mut two = schedule(&[&["udp://a:1/"], &["http://b/"]]);
        assert_eq!(two.patience(0, at(0)), PATIENCE);
        two.failed(1, at(0));
        assert_eq!(two.patience(0, at(0)), LONG_PATIENCE);
        assert_eq!(two.patience(0, at(60)), PATIENCE);
    }

    #[test]
    fn a_dead_tracker_is_left_alone_ever_longer() {
        let mut s = schedule(&[&["http://a/"]]);
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..20 {
            s.failed(0, now);
            let pause = waits(&s, now);
            now = now + pause;
            pauses.push(pause.as_secs());
        }
        assert!(pauses[0] <= 6 && pauses[3] >= 30, "{pauses:?}");
        assert!(
            pauses[10..].iter().all(|p| (675..1_125).contains(p)),
            "{pauses:?}"
        );
    }

    #[test]
    fn the_tracker_that_answers_moves_to_the_front_of_its_tier() {
        let mut s = schedule(&[&["http://a/", "http://b/", "http://c/"]]);
        let (first, _) = announced(&s, at(0)).unwrap();
        s.failed(first, at(0));
        let (second, _) = announced(&s, at(0)).unwrap();
        assert_ne!(first, second);
        s.succeeded(second, Some(Event::Started), &answer(10, 5), false, at(0));
        // Even when the first one could be tried again.
        assert_eq!(announced(&s, at(5_000)), Some((second, None)));
    }

    #[test]
    fn tiers_are_shuffled_by_the_seed_and_other_schemes_left_out() {
        let tier: Vec<Url> = (0..8)
            .map(|i| Url::parse(&format!("http://{i}.example/")).unwrap())
            .chain([Url::parse("wss://x:1/").unwrap()])
            .collect();
        let order = |seed| Schedule::new(std::slice::from_ref(&tier), seed).tiers;
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert_eq!(order(1)[0].len(), 8);
        assert_eq!(schedule(&[&["wss://x:1/"]]).next(at(0)), Action::Nothing);
        assert_eq!(schedule(&[]).next(at(0)), Action::Nothing);
    }
}
