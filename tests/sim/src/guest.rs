//! Invariant: a guest waits for one read at a time, and its own time stands still while it waits, as an appliance's does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use vmtorrent::image::{BLOCK_LENGTH, Image, PieceIndex};
use vmtorrent::simulation::{Host, Readahead, Time};

use crate::trace::{Trace, blocks};

/// A machine that reads as a trace says.
///
/// What it does with a read is what the appliance does with one: demand what is missing, tell the profile, read ahead
/// where the profile knows nothing better.
#[derive(Debug)]
pub struct Guest {
    image: Arc<Image>,
    trace: Trace,
    next: usize,
    /// Blocks of 16 KiB that were read.
    read: Vec<u64>,
    readahead: Readahead,
    last_neighbourhood: Option<u64>,
    began: Time,
    /// When the next read is due, unless it waits.
    due: Option<Time>,
    waits_for: BTreeSet<PieceIndex>,
    waits_since: Time,
    stalled: Duration,
    ended: Option<Time>,
}

impl Guest {
    /// A guest that starts now.
    pub fn start(now: Time, image: Arc<Image>, trace: Trace) -> Self {
        let blocks = image
            .geometry()
            .total_length()
            .div_ceil(u64::from(BLOCK_LENGTH));
        let due = trace.steps.first().map(|step| now + step.think);
        Self {
            image,
            trace,
            next: 0,
            read: vec![0; blocks.div_ceil(64) as usize],
            readahead: Readahead::new(),
            last_neighbourhood: None,
            began: now,
            due,
            waits_for: BTreeSet::new(),
            waits_since: now,
            stalled: Duration::ZERO,
            ended: due.is_none().then_some(now),
        }
    }

    /// When [`step`](Self::step) is wanted.
    pub fn due(&self) -> Option<Time> {
        self.due
    }

    /// When it had read everything.
    pub fn ended(&self) -> Option<Time> {
        self.ended
    }

    /// Time during which it waited for pieces.
    pub fn stalled(&self) -> Duration {
        self.stalled
    }

    /// Its next read.
    pub fn step(&mut self, now: Time, host: &mut Host) {
        let Some(step) = self.trace.steps.get(self.next).copied() else {
            return;
        };
        self.due = None;
        let missing = self.missing(host, step.offset..step.offset + step.length);
        let missed = !missing.is_empty();
        if missed {
            self.waits_since = now;
            self.waits_for = missing.iter().copied().collect();
            host.demand(now, &missing);
        }
        let first: Vec<u32> = blocks(&step, BLOCK_LENGTH)
            .filter(|block| self.mark(*block))
            .collect();
        let guess = first.is_empty() || {
            let guest_time = now.since(self.began).saturating_sub(self.stalled);
            host.guest_reads(now, guest_time.as_micros() as u64, &first)
        };
        if guess {
            self.read_ahead(now, host, step.offset..step.offset + step.length, missed);
        }
        if !missed {
            self.go_on(now);
        }
    }

    /// A piece is here.
    pub fn ready(&mut self, now: Time, piece: PieceIndex) {
        if self.waits_for.remove(&piece) && self.waits_for.is_empty() {
            self.stalled += now.since(self.waits_since);
            self.go_on(now);
        }
    }

    fn go_on(&mut self, now: Time) {
        self.next += 1;
        match self.trace.steps.get(self.next) {
            Some(step) => self.due = Some(now + step.think),
            None => self.ended = Some(now),
        }
    }

    fn missing(&self, host: &Host, range: std::ops::Range<u64>) -> Vec<PieceIndex> {
        let geometry = self.image.geometry();
        let piece = u64::from(geometry.nominal_piece_length());
        let end = range.end.min(geometry.total_length());
        (range.start / piece..end.div_ceil(piece))
            .map(|p| PieceIndex(p as u32))
            .filter(|p| host.lacks(*p))
            .collect()
    }

    /// Notes a block as read; false when it was before.
    fn mark(&mut self, block: u32) -> bool {
        let Some(word) = self.read.get_mut(block as usize / 64) else {
            return false;
        };
        let bit = 1 << (block % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    fn read_ahead(
        &mut self,
        now: Time,
        host: &mut Host,
        range: std::ops::Range<u64>,
        missed: bool,
    ) {
        let piece = u64::from(self.image.geometry().nominal_piece_length());
        let neighbourhood = range.end.saturating_sub(1) / piece.max(Readahead::NEIGHBOURHOOD);
        if self.last_neighbourhood.replace(neighbourhood) == Some(neighbourhood) && !missed {
            return;
        }
        let mut readahead = std::mem::take(&mut self.readahead);
        let any_missing = |range: &std::ops::Range<u64>| {
            range.start < range.end && !self.missing(host, range.clone()).is_empty()
        };
        let ahead = readahead.on_read(range, piece, any_missing);
        let mut pieces: Vec<PieceIndex> = ahead
            .into_iter()
            .filter(|range| range.start < self.image.geometry().total_length())
            .flat_map(|range| self.missing(host, range))
            .collect();
        pieces.dedup();
        self.readahead = readahead;
        if !pieces.is_empty() {
            host.read_ahead(now, &pieces);
        }
    }
}
