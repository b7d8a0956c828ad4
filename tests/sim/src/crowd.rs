//! Who comes when, whom it connects to, and when it goes. Invariant: it acts between two slices only, and all that is left
//! to chance comes from the scenario's seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::index;
use rand::{RngExt, SeedableRng};
use vmtorrent::image::Image;
use vmtorrent::profile::Profile;
use vmtorrent::simulation::{self, Host, HostConfig};

use crate::guest::Guest;
use crate::moment::{NEVER, Nanos, nanos, span, time};
use crate::node::{Line, Node, connect};
use crate::outcome::{GuestOutcome, Outcome};
use crate::scenario::{Kind, Scenario};
use crate::trace::{IMAGE_LENGTH, Trace};
use crate::world::Hosts;

/// The hosts of a scenario, beside what they do themselves.
pub struct Crowd {
    scenario: Scenario,
    image: Arc<Image>,
    trace: Trace,
    profile: Option<Profile>,
    rng: StdRng,
    due: BinaryHeap<Reverse<(Nanos, u64, Due)>>,
    count: u64,
    /// What is known of each host, by its index.
    members: Vec<Member>,
    /// Hosts that the tracker knows.
    present: Vec<u32>,
    /// Where each stands in `present`.
    places: Vec<Option<usize>>,
    /// Guests that run.
    running: usize,
    to_come: u32,
    now: Nanos,
    alone: Option<usize>,
    progress: Option<Progress>,
    told: Nanos,
}

/// Is told virtual seconds, guests that run, guests to come, and what the seed has sent, F.
pub type Progress = fn(f64, usize, u32, f64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Seed,
    Arrival,
    /// A host looks whether it has enough peers.
    Look(u32),
    /// A host tries to reach the seed.
    DialSeed(u32),
    Leave(u32),
    /// It is looked who is done.
    Count,
}

#[derive(Debug)]
struct Member {
    arrived: Nanos,
    class: usize,
    /// It vanished before its guest was done.
    vanished: bool,
    /// Its end was noted.
    done: bool,
    /// It may ask the tracker again.
    announces: Nanos,
    /// What the tracker told and was not tried.
    candidates: Vec<u32>,
}

const SEED: u32 = 0;
/// Peers that the tracker names.
const NAMED: usize = 50;
/// How often a host looks for more peers, and how often it asks the tracker at most.
const LOOK: Nanos = 1_000_000_000;
const ANNOUNCE: Nanos = 10_000_000_000;
/// How often a host tries to reach the seed, which it knows by name.
const DIAL_SEED: Nanos = 5_000_000_000;
const COUNT: Nanos = 100_000_000;
/// How often it is told how far a run is.
const TELL: Nanos = 5_000_000_000;
/// With churn, the part of the hosts that vanish before their guest is done, and how long the others stay in the mean.
const VANISH: f64 = 0.05;
const STAY: f64 = 60.0;
const FREE_RIDERS: f64 = 0.2;

impl Crowd {
    /// The crowd of a scenario.
    ///
    /// # Errors
    /// A piece length that no image can have.
    pub fn new(scenario: Scenario) -> Result<Self, String> {
        let mut rng = StdRng::seed_from_u64(scenario.seed);
        let boot = Trace::boot()?;
        let (trace, length) = if scenario.whole_image {
            (boot, IMAGE_LENGTH)
        } else {
            boot.condensed()
        };
        let (known, length) = match scenario.kind {
            Kind::NoProfile => (None, length),
            Kind::WrongProfile => {
                let (other, length) = trace.elsewhere(length, &mut rng);
                (Some(other), length)
            }
            _ => (Some(trace.clone()), length),
        };
        let image = simulation::image(length, scenario.piece_length);
        let image = Arc::new(image.map_err(|e| e.to_string())?);
        let profile = known.map(|trace| trace.profile(&image, &mut rng));
        let mut crowd = Self {
            image,
            trace,
            profile,
            rng,
            due: BinaryHeap::new(),
            count: 0,
            members: Vec::new(),
            present: Vec::new(),
            places: Vec::new(),
            running: 0,
            to_come: scenario.guests,
            now: 0,
            alone: None,
            progress: None,
            told: 0,
            scenario,
        };
        crowd.at(0, Due::Seed);
        crowd.at(COUNT, Due::Count);
        let window = span(crowd.scenario.arrivals).max(1);
        for _ in 0..crowd.scenario.guests {
            let at = crowd.rng.random_range(0..window);
            crowd.at(at, Due::Arrival);
        }
        if let Some(leaves) = crowd.scenario.seed_leaves() {
            crowd.at(span(leaves), Due::Leave(SEED));
        }
        Ok(crowd)
    }

    /// One guest alone with the seed, which stays and is as fast as a guest, on the line of this class.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn alone(scenario: &Scenario, class: usize) -> Result<Self, String> {
        let kind = match scenario.kind {
            Kind::NoProfile | Kind::WrongProfile | Kind::Unequal => scenario.kind,
            _ => Kind::Plain,
        };
        let scenario = Scenario {
            kind,
            guests: 1,
            arrivals: Duration::ZERO,
            ..scenario.clone()
        };
        let mut crowd = Self::new(scenario)?;
        crowd.alone = Some(class);
        Ok(crowd)
    }

    /// Tells how far it is, now and then.
    #[must_use]
    pub fn telling(mut self, progress: Option<Progress>) -> Self {
        self.progress = progress;
        self
    }

    /// The shortest time from one host to another.
    pub fn lookahead(&self) -> Duration {
        self.scenario.least_delay()
    }

    /// When something is to be done next.
    pub fn next(&self) -> Nanos {
        self.due.peek().map_or(NEVER, |Reverse((at, ..))| *at)
    }

    /// Does what is due; false when the run is over.
    pub fn act(&mut self, now: Nanos, hosts: &mut Hosts<'_>) -> bool {
        self.now = now;
        while self.next() <= now
            && let Some(Reverse((_, _, due))) = self.due.pop()
        {
            match due {
                Due::Seed => self.add_seed(now, hosts),
                Due::Arrival => self.arrive(now, hosts),
                Due::Look(index) => self.look(now, hosts, index),
                Due::DialSeed(index) => self.dial_seed(now, hosts, index),
                Due::Leave(index) => self.leave(now, hosts, index),
                Due::Count => self.count(now, hosts),
            }
        }
        now < span(self.scenario.limit) && (self.running > 0 || self.to_come > 0)
    }

    /// What came of it.
    pub fn outcome(&self, hosts: &mut Hosts<'_>) -> Outcome {
        let mut guests = Vec::new();
        for (index, member) in self.members.iter().enumerate().skip(1) {
            let node = hosts.node(index as u32);
            let moved = node.moved();
            let guest = node.guest();
            let ended = guest.and_then(Guest::ended).map(nanos);
            guests.push(GuestOutcome {
                class: member.class,
                arrived: seconds(member.arrived),
                took: ended.map(|ended| seconds(ended - member.arrived)),
                stalled: guest.map_or(0.0, |g| g.stalled().as_secs_f64()),
                vanished: member.vanished,
                free_rider: node.is_free_rider(),
                fetched: moved.fetched,
                wasted: moved.wasted,
                uploaded: moved.uploaded,
                longest_queue: node.longest_queue().as_secs_f64(),
            });
        }
        let seed = hosts.node(SEED);
        Outcome {
            needed: self.trace.needed(&self.image),
            guest_time: self.trace.guest_time().as_secs_f64(),
            seed_uploaded: seed.moved().uploaded,
            seed_rate: seed.line().up,
            lasted: seconds(self.now),
            guests,
        }
    }

    fn at(&mut self, at: Nanos, due: Due) {
        self.count += 1;
        self.due.push(Reverse((at, self.count, due)));
    }

    fn host(&mut self, now: Nanos, index: u32, seed: bool) -> Host {
        let config = HostConfig {
            image: self.image.clone(),
            seed,
            fill: Scenario::FILL,
            peer_id: Node::peer_id(index),
            chance: self.rng.random(),
        };
        Host::new(time(now), config)
    }

    fn add(
        &mut self,
        now: Nanos,
        hosts: &mut Hosts<'_>,
        class: usize,
        line: Line,
        seed: bool,
        free_rider: bool,
    ) -> u32 {
        let host = self.host(now, hosts.count(), seed);
        let index = hosts.add(Node::new(
            hosts.count(),
            host,
            self.image.clone(),
            line,
            free_rider,
            now,
        ));
        self.members.push(Member {
            arrived: now,
            class,
            vanished: false,
            done: seed,
            announces: now,
            candidates: Vec::new(),
        });
        self.places.push(Some(self.present.len()));
        self.present.push(index);
        index
    }

    fn add_seed(&mut self, now: Nanos, hosts: &mut Hosts<'_>) {
        let line = self.scenario.seed_line();
        self.add(now, hosts, 0, line, true, false);
    }

    fn arrive(&mut self, now: Nanos, hosts: &mut Hosts<'_>) {
        self.to_come -= 1;
        self.running += 1;
        let (class, line) = match self.alone {
            Some(class) => (class, Line::alone(&self.scenario, class)),
            None => self.scenario.line(&mut self.rng),
        };
        let free_rider =
            self.scenario.kind == Kind::FreeRiders && self.rng.random_bool(FREE_RIDERS);
        let index = self.add(now, hosts, class, line, false, free_rider);
        let trace = self.trace.another_run(&mut self.rng);
        let guest = Guest::start(time(now), self.image.clone(), trace);
        let node = hosts.node(index);
        if let Some(profile) = &self.profile {
            node.host().follow(time(now), &self.image, profile);
        }
        node.run_guest(guest);
        if self.scenario.kind == Kind::Churn && self.rng.random_bool(VANISH) {
            let at = now
                + span(
                    self.trace
                        .guest_time()
                        .mul_f64(self.rng.random_range(0.0..1.0)),
                );
            self.at(at, Due::Leave(index));
        }
        self.dial_seed(now, hosts, index);
        self.look(now, hosts, index);
    }

    fn is_alive(&self, index: u32) -> bool {
        self.places.get(index as usize).is_some_and(Option::is_some)
    }

    /// The seed is known by name: it is dialled again and again until it lets the host in.
    fn dial_seed(&mut self, now: Nanos, hosts: &mut Hosts<'_>, index: u32) {
        if !self.is_alive(index) || self.members[index as usize].done || !self.is_alive(SEED) {
            return;
        }
        if !hosts.node(index).knows(SEED) {
            self.dial(now, hosts, index, SEED);
        }
        self.at(now + DIAL_SEED, Due::DialSeed(index));
    }

    /// Dials others while it has less than half of its connections: the rest is for those that dial it.
    fn look(&mut self, now: Nanos, hosts: &mut Hosts<'_>, index: u32) {
        if !self.is_alive(index) || self.members[index as usize].done {
            return;
        }
        let enough = self.scenario.connections / 2;
        let mut asked = false;
        while hosts.node(index).open() < enough {
            let member = &mut self.members[index as usize];
            if let Some(other) = member.candidates.pop() {
                if self.is_alive(other) && !hosts.node(index).knows(other) {
                    self.dial(now, hosts, index, other);
                }
            } else if now >= member.announces && !asked {
                member.announces = now + ANNOUNCE;
                asked = true;
                self.members[index as usize].candidates = self.announce(index);
            } else {
                break;
            }
        }
        self.at(now + LOOK, Due::Look(index));
    }

    /// What the tracker answers: peers at random.
    fn announce(&mut self, index: u32) -> Vec<u32> {
        let most = NAMED.min(self.present.len());
        index::sample(&mut self.rng, self.present.len(), most)
            .into_iter()
            .map(|place| self.present[place])
            .filter(|other| *other != index)
            .collect()
    }

    fn dial(&mut self, now: Nanos, hosts: &mut Hosts<'_>, index: u32, other: u32) {
        let limit = match other {
            SEED => self.scenario.seed_connections,
            _ => self.scenario.connections,
        };
        let listener = hosts.node(other);
        if listener.open() >= limit {
            let Some(useless) = listener.useless(now) else {
                return;
            };
            listener.give_way(now, useless);
        }
        let (dialler, listener) = hosts.pair(index, other);
        connect(now, dialler, listener);
    }

    fn leave(&mut self, now: Nanos, hosts: &mut Hosts<'_>, index: u32) {
        let Some(place) = self.places[index as usize].take() else {
            return;
        };
        self.present.swap_remove(place);
        if let Some(moved) = self.present.get(place) {
            self.places[*moved as usize] = Some(place);
        }
        hosts.node(index).leave(now);
        let member = &mut self.members[index as usize];
        if !member.done {
            member.done = true;
            member.vanished = true;
            self.running -= 1;
        }
    }

    fn count(&mut self, now: Nanos, hosts: &mut Hosts<'_>) {
        if let Some(tell) = self.progress
            && now >= self.told
        {
            self.told = now + TELL;
            let sent = hosts.node(SEED).moved().uploaded;
            let sent = sent as f64 / self.trace.needed(&self.image) as f64;
            tell(seconds(now), self.running, self.to_come, sent);
        }
        for index in 1..hosts.count() {
            if self.members[index as usize].done {
                continue;
            }
            if hosts.node(index).guest().and_then(Guest::ended).is_none() {
                continue;
            }
            self.members[index as usize].done = true;
            self.members[index as usize].candidates = Vec::new();
            self.running -= 1;
            hosts.node(index).host().guest_left(time(now));
            if self.scenario.kind == Kind::Churn {
                let stays = -STAY * self.rng.random_range(f64::MIN_POSITIVE..1.0).ln();
                self.at(
                    now + span(Duration::from_secs_f64(stays)),
                    Due::Leave(index),
                );
            }
        }
        self.at(now + COUNT, Due::Count);
    }
}

fn seconds(at: Nanos) -> f64 {
    at as f64 / 1e9
}
