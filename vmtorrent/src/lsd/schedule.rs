//! Invariant: an image is announced at most once a minute and at least each six minutes, however many neighbours come.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::clock::Time;
use crate::image::InfoHash;

/// How often an image is announced.
const INTERVAL: Duration = Duration::from_secs(300);
/// How often it may be.
pub(super) const MIN_INTERVAL: Duration = Duration::from_secs(60);
/// Neighbours do not all answer a newcomer at one moment.
const SPREAD: Duration = Duration::from_secs(2);
/// Neighbours of an image that are known, so that each is answered once.
const MAX_NEIGHBOURS: usize = 256;

/// Which images are announced, and when. Pure: time is passed in, chance comes from a seed.
#[derive(Debug)]
pub(super) struct Schedule {
    images: HashMap<InfoHash, Entry>,
    rng: StdRng,
}

#[derive(Debug)]
struct Entry {
    due: Time,
    last: Option<Time>,
    neighbours: HashSet<SocketAddr>,
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            images: HashMap::new(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// From now on this image is announced.
    pub(super) fn add(&mut self, now: Time, image: InfoHash) {
        self.images.entry(image).or_insert_with(|| Entry {
            due: now,
            last: None,
            neighbours: HashSet::new(),
        });
    }

    /// And no more.
    pub(super) fn remove(&mut self, image: &InfoHash) {
        self.images.remove(image);
    }

    /// When [`take_due`](Self::take_due) will give something.
    pub(super) fn next_due(&self) -> Option<Time> {
        self.images.values().map(|e| e.due).min()
    }

    /// The images to announce now; they count as announced.
    pub(super) fn take_due(&mut self, now: Time) -> Vec<InfoHash> {
        let mut due = Vec::new();
        for (image, entry) in &mut self.images {
            if entry.due <= now {
                due.push(*image);
                entry.last = Some(now);
                entry.due = now + INTERVAL.mul_f64(self.rng.random_range(1.0..1.2));
            }
        }
        due.sort_unstable();
        due
    }

    /// Somebody announced an image. One who is new here is answered with an announce of our own, since it may be
    /// that it can reach us but we can't reach it.
    pub(super) fn heard(&mut self, now: Time, image: &InfoHash, neighbour: SocketAddr) {
        if let Some(entry) = self.images.get_mut(image)
            && entry.neighbours.len() < MAX_NEIGHBOURS
            && entry.neighbours.insert(neighbour)
        {
            entry.hasten(now + SPREAD.mul_f64(self.rng.random_range(0.0..1.0)));
        }
    }

    /// All images that are announced.
    pub(super) fn images(&self) -> Vec<InfoHash> {
        let mut all: Vec<InfoHash> = self.images.keys().copied().collect();
        all.sort_unstable();
        all
    }
}

impl Entry {
    /// The next announce comes at that time, or as soon after as allowed.
    fn hasten(&mut self, time: Time) {
        let soonest = self.last.map_or(time, |last| time.max(last + MIN_INTERVAL));
        self.due = self.due.min(soonest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: InfoHash = InfoHash([1; 20]);

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    fn neighbour(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    /// The seconds at which the image is announced, when `each` happens before every second.
    fn announces(seconds: u64, mut each: impl FnMut(&mut Schedule, u64)) -> Vec<u64> {
        let mut schedule = Schedule::new(1);
        schedule.add(at(0), IMAGE);
        let mut times = Vec::new();
        for second in 0..seconds {
            each(&mut schedule, second);
            if !schedule.take_due(at(second)).is_empty() {
                times.push(second);
            }
        }
        times
    }

    #[test]
    fn an_image_is_announced_at_once_and_then_about_each_five_minutes() {
        let times = announces(3_600, |_, _| {});
        assert_eq!(times[0], 0);
        for pair in times.windows(2) {
            assert!((300..=361).contains(&(pair[1] - pair[0])), "{times:?}");
        }
    }

    #[test]
    fn many_newcomers_bring_one_announce_a_minute_at_most() {
        let times = announces(600, |schedule, second| {
            schedule.heard(at(second), &IMAGE, neighbour(second as u16 / 3));
        });
        assert!(times.windows(2).all(|p| p[1] - p[0] >= 60), "{times:?}");
        assert_eq!(times.len(), 10);
    }

    #[test]
    fn a_newcomer_is_answered_once() {
        let times = announces(400, |schedule, second| {
            if second >= 100 {
                schedule.heard(at(second), &IMAGE, neighbour(1));
            }
        });
        assert_eq!(times.len(), 2, "{times:?}");
        assert!((100..=102).contains(&times[1]));
    }

    #[test]
    fn neighbours_are_bounded_and_images_that_are_gone_are_not_announced() {
        let mut schedule = Schedule::new(1);
        schedule.heard(at(0), &IMAGE, neighbour(1));
        schedule.add(at(0), IMAGE);
        for port in 0..5_000 {
            schedule.heard(at(0), &IMAGE, neighbour(port));
        }
        assert_eq!(schedule.images[&IMAGE].neighbours.len(), MAX_NEIGHBOURS);
        schedule.remove(&IMAGE);
        assert_eq!(schedule.next_due(), None);
        assert_eq!(schedule.take_due(at(9_999)), []);
    }
}
