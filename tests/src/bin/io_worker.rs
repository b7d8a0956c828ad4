//! One of several processes that work on a mounted image at once and check every byte they read.
//!
//! `io_worker MOUNTED REFERENCE INDEX COUNT OPERATIONS SEED`
//!
//! Invariant: a worker writes only bytes of its own stripes, to both files, so that it always knows what it must read
//! there. Stripes begin and end anywhere, so that workers share blocks and pieces with their neighbours.
#![expect(
    clippy::unwrap_used,
    reason = "a worker that can't go on fails the test"
)]

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::FallocateFlags;
use vmtorrent_tests::Random;

struct Worker {
    mounted: File,
    reference: File,
    length: u64,
    index: u64,
    count: u64,
    random: Random,
}

impl Worker {
    /// The first half of the image has stripes smaller than a piece, the second half larger ones.
    fn stripe_length(&self, offset: u64) -> u64 {
        if offset < self.length / 2 {
            10_007
        } else {
            300_007
        }
    }

    /// The stripe around `offset`, and whether it is ours.
    fn stripe(&self, offset: u64) -> (Range<u64>, bool) {
        let half = self.length / 2;
        let base = if offset < half { 0 } else { half };
        let limit = if offset < half { half } else { self.length };
        let length = self.stripe_length(offset);
        let number = (offset - base) / length;
        let start = base + number * length;
        (
            start..limit.min(start + length),
            number % self.count == self.index,
        )
    }

    /// A range inside a stripe of ours.
    fn own_range(&mut self) -> Range<u64> {
        loop {
            let at = self.random.below(self.length);
            let (stripe, ours) = self.stripe(at);
            if ours {
                let room = stripe.end - stripe.start;
                let start = stripe.start + self.random.below(room);
                let mut length = 1 + self.random.below(stripe.end - start);
                // Guests write whole blocks most of the time; other sizes must work too.
                if self.random.below(2) == 0 {
                    length = length.min(4096 << self.random.below(4));
                }
                return start..start + length;
            }
        }
    }

    fn read_and_check(&mut self) {
        let start = self.random.below(self.length);
        let end = self.length.min(start + 1 + self.random.below(200_000));
        self.check(start..end);
    }

    /// Reads a range through the mount and compares those bytes of it that are ours.
    fn check(&self, range: Range<u64>) {
        let mut found = vec![0; (range.end - range.start) as usize];
        let mut right = found.clone();
        self.mounted.read_exact_at(&mut found, range.start).unwrap();
        self.reference
            .read_exact_at(&mut right, range.start)
            .unwrap();
        let mut at = range.start;
        while at < range.end {
            let (stripe, ours) = self.stripe(at);
            let end = stripe.end.min(range.end);
            let part = (at - range.start) as usize..(end - range.start) as usize;
            if ours && found[part.clone()] != right[part.clone()] {
                let wrong = part
                    .into_iter()
                    .find(|i| found[*i] != right[*i])
                    .map_or(0, |i| range.start + i as u64);
                panic!(
                    "worker {}: wrong byte at {wrong} in a read of {range:?}",
                    self.index
                );
            }
            at = end;
        }
    }

    fn write(&mut self) -> Range<u64> {
        let range = self.own_range();
        let data = self.random.bytes((range.end - range.start) as usize);
        self.mounted.write_all_at(&data, range.start).unwrap();
        self.reference.write_all_at(&data, range.start).unwrap();
        range
    }

    fn zero(&mut self, how: FallocateFlags) {
        let range = self.own_range();
        let length = range.end - range.start;
        rustix::fs::fallocate(&self.mounted, how, range.start, length).unwrap();
        let zeros = vec![0; length as usize];
        self.reference.write_all_at(&zeros, range.start).unwrap();
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..8 => self.read_and_check(),
            8..15 => {
                self.write();
            }
            15 => self.zero(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE),
            16 => self.zero(FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE),
            17 => self.mounted.sync_data().unwrap(),
            _ => {
                let range = self.write();
                self.check(range);
            }
        }
    }
}

fn main() {
    let mut words = std::env::args_os().skip(1);
    let paths: Vec<PathBuf> = words.by_ref().take(2).map(PathBuf::from).collect();
    let numbers: Vec<u64> = words
        .map(|w| w.to_str().unwrap().parse().unwrap())
        .collect();
    let ([mounted, reference], [index, count, operations, seed]) =
        (paths.as_slice(), numbers.as_slice())
    else {
        panic!("usage: io_worker MOUNTED REFERENCE INDEX COUNT OPERATIONS SEED");
    };
    let open = |path: &PathBuf| File::options().read(true).write(true).open(path).unwrap();
    let mounted = open(mounted);
    let mut worker = Worker {
        length: mounted.metadata().unwrap().len(),
        mounted,
        reference: open(reference),
        index: *index,
        count: *count,
        random: Random::new(seed.wrapping_mul(1009) + index),
    };
    for _ in 0..*operations {
        worker.step();
    }
    for start in (0..worker.length).step_by(8 << 20) {
        worker.check(start..worker.length.min(start + (8 << 20)));
    }
    worker.mounted.sync_data().unwrap();
}
