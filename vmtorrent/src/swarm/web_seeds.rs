//! Which web seeds an image has, and which of them are asked. Invariant: none is begun with while
//! [`AT_ONCE`] are asked, and none is asked that sent wrong bytes again and again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::AbortHandle;
use tracing::Instrument;
use url::Url;

use super::engine::DisconnectReason;
use super::web_seed::{self, Order, Site, shown};
use super::{Inner, MAX_OUTGOING, Swarm};
use crate::clock::Time;
use crate::http::HttpClient;
use crate::picker::PeerKey;

/// Web seeds that are asked at the same time; the others step in when one is given up.
const AT_ONCE: usize = 8;
/// Web seeds of an image that are kept.
const MOST: usize = 256;
/// How long one is left alone that the engine had to leave, and that sent wrong bytes, for each time that it did.
const REST: Duration = Duration::from_secs(10);
const REST_OF_LIARS: Duration = Duration::from_secs(2);
/// How often one may be left because of wrong bytes before it is never asked again.
const LIES: u32 = 3;

/// A web seed that is not asked any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GivenUp {
    /// Its URL without what may be secret in it.
    pub(crate) url: String,
    pub(crate) reason: String,
}

/// The web seeds of one image.
#[derive(Default)]
pub(super) struct WebSeeds {
    seeds: Vec<WebSeed>,
    /// Those that were given up and of which nobody was told yet.
    given_up: Vec<GivenUp>,
}

struct WebSeed {
    site: Arc<Site>,
    state: State,
    /// How often it was left because of wrong bytes.
    lies: u32,
}

enum State {
    /// To be asked from then on, if there is anything to fetch.
    Resting(Time),
    Running {
        /// As what the engine knows it, once it has answered.
        key: Option<PeerKey>,
        orders: mpsc::Sender<Order>,
        task: AbortHandle,
        /// Nothing is expected of it; it is only looked at now and then.
        hopeless: bool,
    },
    /// Never to be asked again.
    Expelled,
}

impl WebSeed {
    fn key(&self) -> Option<PeerKey> {
        match self.state {
            State::Running { key, .. } => key,
            _ => None,
        }
    }

    fn stop(&mut self, next: State) {
        if let State::Running { task, .. } = &self.state {
            task.abort();
        }
        self.state = next;
    }
}

impl WebSeeds {
    fn by_key(&mut self, key: PeerKey) -> Option<&mut WebSeed> {
        self.seeds.iter_mut().find(|s| s.key() == Some(key))
    }

    /// Asks a web seed for something; false when it does not take what it is asked.
    pub(super) fn order(&mut self, key: PeerKey, order: Order) -> bool {
        let Some(seed) = self.by_key(key) else {
            return true;
        };
        match &seed.state {
            // If the task has ended already, it reports that itself.
            State::Running { orders, .. } => {
                !matches!(orders.try_send(order), Err(TrySendError::Full(_)))
            }
            _ => true,
        }
    }

    /// The engine knows it no more. True when it was a web seed.
    pub(super) fn left(
        &mut self,
        now: Time,
        key: PeerKey,
        reason: Option<&DisconnectReason>,
    ) -> bool {
        let Some(seed) = self.by_key(key) else {
            return false;
        };
        let next = match reason {
            // It is needed again when a piece turns out damaged.
            Some(DisconnectReason::BothSeeds) => State::Resting(now),
            Some(DisconnectReason::BadData) => return self.lied(now, key),
            _ => State::Resting(now + REST),
        };
        seed.stop(next);
        true
    }

    fn lied(&mut self, now: Time, key: PeerKey) -> bool {
        let Some(seed) = self.by_key(key) else {
            return false;
        };
        seed.lies += 1;
        let changed = seed.site.has_changed();
        let url = shown(seed.site.url());
        if seed.lies < LIES && !changed {
            tracing::warn!(
                url,
                "the web seed sent wrong bytes; it is left alone for a while"
            );
            let rest = now + REST_OF_LIARS * seed.lies;
            seed.stop(State::Resting(rest));
            return true;
        }
        seed.stop(State::Expelled);
        let reason = if changed {
            "the file there was replaced, and its bytes are not those of the image"
        } else {
            "it sent wrong bytes again and again"
        };
        self.give_up(url, reason.to_owned());
        true
    }

    /// Whoever it was that had gone turned out to have sent wrong bytes.
    pub(super) fn lied_before(&mut self, now: Time, number: usize) {
        if let Some(seed) = self.seeds.get_mut(number) {
            seed.lies += 1;
            if seed.lies >= LIES && !matches!(seed.state, State::Running { .. } | State::Expelled) {
                seed.stop(State::Expelled);
                let url = shown(seed.site.url());
                self.give_up(url, "it sent wrong bytes again and again".to_owned());
            } else if matches!(seed.state, State::Resting(_)) {
                let rest = now + REST_OF_LIARS * seed.lies;
                seed.stop(State::Resting(rest));
            }
        }
    }

    fn give_up(&mut self, url: String, reason: String) {
        tracing::warn!(url, reason, "a web seed is given up");
        self.given_up.push(GivenUp { url, reason });
    }

    fn running(&mut self, number: usize) -> Option<(&mut Option<PeerKey>, &mut bool)> {
        match &mut self.seeds.get_mut(number)?.state {
            State::Running { key, hopeless, .. } => Some((key, hopeless)),
            _ => None,
        }
    }

    /// The next that is to be asked, if there is place for one.
    fn due(&self, now: Time) -> Option<usize> {
        let asked = self.seeds.iter().filter(|s| {
            matches!(
                s.state,
                State::Running {
                    hopeless: false,
                    ..
                }
            )
        });
        if asked.count() >= AT_ONCE {
            return None;
        }
        let due = |s: &WebSeed| matches!(s.state, State::Resting(until) if until <= now);
        self.seeds.iter().position(due)
    }

    /// Nothing is left to fetch.
    pub(super) fn rest(&mut self, now: Time) {
        for seed in &mut self.seeds {
            // One that is to rest longer does.
            if let State::Running { .. } = seed.state {
                seed.stop(State::Resting(now));
            }
        }
    }

    /// Ends their tasks.
    pub(super) fn close(&mut self) {
        for seed in &mut self.seeds {
            seed.stop(State::Expelled);
        }
    }
}

impl Swarm {
    /// Adds web servers that hold the image.
    pub(crate) fn add_web_seeds<'a>(
        &self,
        urls: impl IntoIterator<Item = &'a Url>,
        http: &HttpClient,
    ) {
        let now = self.clock.now();
        let mut inner = self.inner.lock();
        let seeds = &mut inner.web_seeds.seeds;
        for url in urls {
            if seeds.len() >= MOST || seeds.iter().any(|s| s.site.url() == url) {
                continue;
            }
            let site = Site::new(self.image.clone(), url.clone(), http.clone());
            seeds.push(WebSeed {
                site: Arc::new(site),
                state: State::Resting(now),
                lies: 0,
            });
        }
        drop(inner);
        self.news.notify_one();
    }

    /// Web servers that may be asked at this moment.
    pub(crate) fn web_seed_count(&self) -> usize {
        self.inner.lock().engine.web_seed_count()
    }

    /// Those that were given up since this was asked before.
    pub(crate) fn take_given_up_web_seeds(&self) -> Vec<GivenUp> {
        std::mem::take(&mut self.inner.lock().web_seeds.given_up)
    }

    /// Begins to ask those that are due.
    pub(super) fn start_web_seeds(&self) {
        let now = self.clock.now();
        let mut inner = self.inner.lock();
        if inner.closed || inner.engine.is_complete() {
            return;
        }
        while let Some(number) = inner.web_seeds.due(now) {
            let Some(swarm) = self.me.upgrade() else {
                return;
            };
            let seed = &mut inner.web_seeds.seeds[number];
            let (orders, receiver) = mpsc::channel(MAX_OUTGOING);
            let site = seed.site.clone();
            tracing::debug!(parent: &self.span, url = shown(site.url()), "looking at a web seed");
            let task = web_seed::run(swarm, number, site, receiver).instrument(self.span.clone());
            seed.state = State::Running {
                key: None,
                orders,
                task: self.runtime.spawn(task).abort_handle(),
                hopeless: false,
            };
        }
    }

    /// A web seed has answered as it should, within that time: it may be asked. `None` when there is nothing to ask it.
    pub(super) fn web_seed_ready(&self, number: usize, round_trip: Duration) -> Option<PeerKey> {
        let mut known = None;
        self.drive_inner(|inner, now| {
            if inner.engine.is_complete() {
                if let Some(seed) = inner.web_seeds.seeds.get_mut(number) {
                    seed.stop(State::Resting(now));
                }
                return;
            }
            let Some((key, _)) = inner.web_seeds.running(number) else {
                return;
            };
            let new = inner
                .engine
                .web_seed_connected(now, number, Some(round_trip));
            *key = Some(new);
            known = Some(new);
            tracing::debug!(peer = new.0, number, ?round_trip, "a web seed can be asked");
        });
        known
    }

    /// A web seed fails and is not expected to do better soon.
    pub(super) fn web_seed_given_up(&self, number: usize, reason: String) {
        let mut inner = self.inner.lock();
        if let Some((_, hopeless)) = inner.web_seeds.running(number) {
            *hopeless = true;
        }
        if let Some(seed) = inner.web_seeds.seeds.get(number) {
            let url = shown(seed.site.url());
            inner.web_seeds.give_up(url, reason);
        }
        drop(inner);
        // Another may take its place.
        self.news.notify_one();
    }

    /// One that was given up answers as it should.
    pub(super) fn web_seed_back(&self, number: usize) {
        if let Some((_, hopeless)) = self.inner.lock().web_seeds.running(number) {
            *hopeless = false;
        }
    }

    /// A web seed is not asked any more, but its task goes on.
    pub(super) fn web_seed_lost(&self, lost: PeerKey) {
        self.drive_inner(|inner, now| {
            if let Some(seed) = inner.web_seeds.by_key(lost)
                && let State::Running { key, .. } = &mut seed.state
            {
                *key = None;
            }
            inner.engine.disconnected(now, lost);
        });
    }

    /// A web seed's task has ended.
    pub(super) fn web_seed_closed(&self, number: usize) {
        self.drive_inner(|inner, now| {
            let Some(seed) = inner.web_seeds.seeds.get_mut(number) else {
                return;
            };
            let key = seed.key();
            seed.stop(State::Resting(now + REST));
            if let Some(key) = key {
                inner.engine.disconnected(now, key);
            }
        });
    }
}

impl Inner {
    pub(super) fn order(&mut self, key: PeerKey, order: Order) {
        if !self.web_seeds.order(key, order) {
            self.stalled.push(key);
        }
    }

    /// Forgets a web seed that is given up by us. False when it is none.
    pub(super) fn leave_web_seed(&mut self, now: Time, key: PeerKey) -> bool {
        let left = self.web_seeds.left(now, key, None);
        if left {
            self.engine.disconnected(now, key);
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_image::image_of;

    /// So many web seeds, all due.
    fn seeds(count: usize) -> WebSeeds {
        let image = Arc::new(image_of(&[1; 100], 16384));
        let http = HttpClient::new().unwrap();
        let seed = |n: usize| {
            let url = Url::parse(&format!("http://user:secret@h{n}/disk.img")).unwrap();
            WebSeed {
                site: Arc::new(Site::new(image.clone(), url, http.clone())),
                state: State::Resting(Time::default()),
                lies: 0,
            }
        };
        WebSeeds {
            seeds: (0..count).map(seed).collect(),
            given_up: Vec::new(),
        }
    }

    fn begin(seeds: &mut WebSeeds, number: usize, key: usize) {
        let (orders, _) = mpsc::channel(1);
        seeds.seeds[number].state = State::Running {
            key: Some(PeerKey(key)),
            orders,
            task: tokio::spawn(std::future::pending::<()>()).abort_handle(),
            hopeless: false,
        };
    }

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    #[tokio::test]
    async fn few_are_asked_at_once_and_others_step_in_for_those_that_are_given_up() {
        let mut seeds = seeds(AT_ONCE + 2);
        for n in 0..AT_ONCE {
            assert_eq!(seeds.due(at(0)), Some(n));
            begin(&mut seeds, n, n);
        }
        assert_eq!(seeds.due(at(0)), None);
        *seeds.running(3).unwrap().1 = true;
        assert_eq!(seeds.due(at(0)), Some(AT_ONCE));
        begin(&mut seeds, AT_ONCE, AT_ONCE);
        assert_eq!(seeds.due(at(0)), None);
        // Once nothing is left to fetch all rest, and are due when something is missing again.
        seeds.rest(at(7));
        assert_eq!(seeds.due(at(6)), Some(AT_ONCE + 1));
        assert_eq!(seeds.due(at(7)), Some(0));
    }

    #[tokio::test]
    async fn one_that_sends_wrong_bytes_is_left_for_a_while_and_then_for_good() {
        let mut seeds = seeds(1);
        let mut now = at(0);
        for lie in 1..=LIES {
            assert_eq!(seeds.due(now), Some(0), "before lie {lie}");
            begin(&mut seeds, 0, lie as usize);
            assert!(seeds.left(now, PeerKey(lie as usize), Some(&DisconnectReason::BadData)));
            assert_eq!(seeds.due(now), None);
            now = now + REST_OF_LIARS * lie;
        }
        assert_eq!(seeds.due(at(1_000_000)), None);
        let [given_up] = &seeds.given_up[..] else {
            panic!("{:?}", seeds.given_up);
        };
        assert_eq!(given_up.url, "http://h0/disk.img");
        assert!(given_up.reason.contains("wrong bytes"), "{given_up:?}");
        assert!(!seeds.left(now, PeerKey(9), None), "it is no web seed");
    }

    #[tokio::test]
    async fn one_that_lied_before_it_went_is_known_by_its_number() {
        let mut seeds = seeds(2);
        for _ in 0..LIES {
            seeds.lied_before(at(5), 1);
        }
        assert_eq!(seeds.given_up.len(), 1);
        begin(&mut seeds, 0, 0);
        assert_eq!(seeds.due(at(1_000_000)), None);
        seeds.lied_before(at(5), 77);
    }
}
