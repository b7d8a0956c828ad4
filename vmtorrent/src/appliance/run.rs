//! One run of a guest: what it reads, and what its profile foretells.
//!
//! Invariant: whatever a profile says, a read gets what the image has; it only changes the order of fetching.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::counters::Counters;
use crate::clock::{SystemClock, Time};
use crate::metrics::Counter;
use crate::pristine::{PieceState, Pristine};
use crate::profile::{Guide, Known, Profile, Recorder, RunLog, RunTime, Stall};
use crate::swarm::{Foretold, Guided, Swarm};

/// A run that is under way.
pub(crate) struct Run {
    began: Time,
    clock: SystemClock,
    counters: Arc<Counters>,
    pristine: Arc<Pristine>,
    recorder: Recorder,
    /// What its profile foretells; it may come later than the guest.
    guided: OnceLock<Guided>,
    first_reads: Counter,
    expected: Counter,
    /// Whether the profile knew of late what the guest does.
    trusted: AtomicBool,
}

impl Run {
    /// Begins now. What `profile` foretells is fetched from now on.
    pub(crate) fn begin(
        clock: SystemClock,
        counters: Arc<Counters>,
        pristine: &Arc<Pristine>,
        swarm: &Arc<Swarm>,
        profile: Option<&Profile>,
    ) -> Self {
        let image = pristine.image().clone();
        // What is here before anything is fetched for it.
        let recorder = Recorder::new(image.clone(), pristine.have_field());
        let guide = profile.and_then(|profile| Guide::new(profile, &image));
        let guided = OnceLock::new();
        if let Some(guide) = guide.and_then(|guide| swarm.guide(guide)) {
            // It is the first one.
            let _ = guided.set(guide);
        }
        Self {
            began: clock.now(),
            clock,
            counters,
            pristine: pristine.clone(),
            recorder,
            guided,
            first_reads: Counter::default(),
            expected: Counter::default(),
            trusted: AtomicBool::new(false),
        }
    }

    /// The guest reads a range of a file of the image, and may have `missed` some of it. Tells whether it is good to
    /// guess what it reads next: not if a profile knows better.
    pub(crate) fn reads(&self, file: usize, range: &Range<u64>, missed: bool) -> bool {
        let blocks = self.recorder.first_blocks(file, range);
        if blocks.is_empty() {
            return !self.trusted.load(Ordering::Relaxed);
        }
        let now = self.clock.now();
        let time = RunTime {
            at: micros(now, self.began),
            guest: self.counters.guest_micros(self.began, now),
        };
        let Foretold { expected, trusted } = match self.guided.get() {
            Some(guided) => guided.reads(time.guest, file as u32, &blocks),
            None => Foretold::default(),
        };
        self.trusted.store(trusted, Ordering::Relaxed);
        // A read may have found one part of what it asked for, and wait for another.
        let missing = |piece| missed && self.pristine.state(piece) == PieceState::Missing;
        self.recorder.note(file, &blocks, &expected, time, missing);
        let hits = expected.iter().filter(|e| **e).count();
        self.first_reads.add(blocks.len() as u64);
        self.expected.add(hits as u64);
        !(trusted && hits == blocks.len())
    }

    /// Has fetched what a profile foretells from now on, unless one is followed already; false if nothing comes of it.
    pub(crate) fn follow(&self, swarm: &Arc<Swarm>, profile: &Profile) -> bool {
        if self.guided.get().is_some() {
            return false;
        }
        let Some(mut guide) = Guide::new(profile, swarm.image()) else {
            return false;
        };
        // The guest may be somewhere in it by now.
        for read in self.recorder.log(Vec::new()).first_reads {
            guide.on_read(read.guest_time, read.file, &[read.block]);
        }
        let guided = swarm.guide(guide);
        guided.is_some_and(|guided| self.guided.set(guided).is_ok())
    }

    /// Blocks that were read for the first time, and how many of them a profile expected.
    pub(crate) fn hits(&self) -> (u64, u64) {
        (self.first_reads.get(), self.expected.get())
    }

    /// Wall time since it began.
    pub(crate) fn time(&self) -> Duration {
        self.clock.now().since(self.began)
    }

    /// What was noted so far.
    pub(crate) fn log(&self) -> RunLog {
        let (spans, all) = self.counters.stall_spans(self.clock.now());
        let stall = |(from, to): (Time, Time)| Stall {
            from: micros(from, self.began),
            to: micros(to, self.began),
        };
        let mut log = self.recorder.log(spans.into_iter().map(stall).collect());
        log.truncated |= !all;
        log
    }

    /// Looks at the bytes of what was noted, and gives how much is known now. Waits for the disk.
    pub(crate) fn look(&self) -> Known {
        self.recorder.look(&self.pristine)
    }

    /// What was noted so far, as a profile of one run; of its bytes it tells what [`look`](Self::look) found.
    pub(crate) fn profile(&self) -> Profile {
        self.recorder.profile()
    }
}

fn micros(now: Time, began: Time) -> u64 {
    u64::try_from(now.since(began).as_micros()).unwrap_or(u64::MAX)
}
