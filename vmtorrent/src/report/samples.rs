//! Runs for tests, like real ones.

use std::time::Duration;

use crate::Stats;
use crate::profile::{BLOCK, FirstRead, RunLog, Stall};

use super::data::{Data, Fate, FileFacts, ImageFacts, Line};
use super::phases::{Phase, Span};
use super::sampler::Sample;

const BLOCK_BYTES: u32 = BLOCK as u32;

/// A simple generator (D. Lehmer's), so that each test sees the same run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0 * 48_271 % 0x7fff_ffff;
        self.0 % end
    }
}

/// What a machine of 1 GiB reads in a boot of 14 s: a kernel in the first second, then services in bursts.
pub(crate) fn boot_reads() -> Vec<FirstRead> {
    let mut chance = Chance(20_120_410);
    let mut seen = std::collections::BTreeSet::new();
    let mut reads = Vec::new();
    let mut read = |block: u64, guest_time: u64| {
        if block < 65_536 && seen.insert(block) {
            reads.push(FirstRead {
                file: 0,
                block: block as u32,
                at: guest_time,
                guest_time,
                needed: BLOCK_BYTES,
                missed: false,
                expected: true,
            });
        }
    };
    // The boot loader, then kernel and initial RAM disk, in one go.
    for n in 0..40 {
        read(n % 8 * 3, 4_000 + n * 1_500);
    }
    for n in 0..2_100 {
        read(9_000 + n, 80_000 + n * 400);
    }
    // Directories and inode tables, all over the disk.
    let mut time = 1_400_000;
    for group in 0..8 {
        read(group * 8_192 + 2, time + group * 900);
    }
    // Bursts: a file here, a library there.
    while time < 13_800_000 && chance.below(10_000) != 0 {
        let burst = 4 + chance.below(60);
        for _ in 0..burst {
            let group = [0, 1, 2, 5][chance.below(4) as usize];
            let start = group * 8_192 + chance.below(6_500);
            for n in 0..1 + chance.below(9) {
                read(start + n, time + n * 250);
            }
            time += 2_000 + chance.below(9_000);
        }
        time += chance.below(900_000);
    }
    reads.sort_by_key(|r| r.guest_time);
    reads.truncate(5_000);
    reads
}

/// That boot over a line of 100 Mbit/s with a profile that knows most of it.
pub(crate) fn boot() -> Data {
    const RATE: f64 = 12_500_000.0;
    const STARTED: u64 = 240_000;
    let mut chance = Chance(7);
    let mut log = RunLog::default();
    let mut fates = vec![Fate::Missing; 65_536];
    for (n, fate) in fates.iter_mut().enumerate() {
        if n % 8_192 > 6_600 {
            *fate = Fate::Nothing;
        }
    }
    // The line brings what is foretold in order; what isn't costs a wait of its own.
    let (mut waited, mut line_free) = (0_u64, 0.0_f64);
    let mut fetches: Vec<(f64, usize)> = Vec::new();
    for mut read in boot_reads() {
        let guest = read.guest_time + STARTED;
        read.expected = chance.below(20) != 0;
        let now = (guest + waited) as f64;
        // The line carries both.
        line_free += f64::from(read.needed) / RATE * 1e6;
        let there = match read.expected {
            true => line_free,
            false => now + 3_000.0 + chance.below(9_000) as f64,
        };
        fetches.push((
            there,
            if read.expected {
                2
            } else {
                chance.below(2) as usize
            },
        ));
        read.at = now as u64;
        read.guest_time = guest;
        if there > now {
            let to = there as u64;
            read.missed = true;
            match log.stalls.last_mut() {
                Some(Stall { to: last, .. }) if *last + 50 > read.at => *last = to,
                _ => log.stalls.push(Stall { from: read.at, to }),
            }
            waited += to - read.at;
        }
        if let Some(fate) = fates.get_mut(read.block as usize) {
            *fate = Fate::Fetched;
        }
        log.first_reads.push(read);
    }
    // Guesses that did not come true.
    for n in 0..300_usize {
        let fate = &mut fates[(n * 37 + 11_500) % 65_536];
        if *fate == Fate::Missing {
            *fate = Fate::Fetched;
            fetches.push((2e6 + n as f64 * 3e4, 1));
        }
    }
    let recorded_from = Duration::from_millis(61);
    let end = 14_000_000 + waited + STARTED;
    let mut samples = vec![];
    let mut at = Duration::from_millis(40);
    while at < Duration::from_micros(end) {
        let in_log = at.saturating_sub(recorded_from).as_micros() as f64;
        let mut fetched = [0; 4];
        for (there, band) in &fetches {
            fetched[*band] += u64::from(*there <= in_log) * BLOCK;
        }
        let stalled = log
            .stalls
            .iter()
            .map(|s| (in_log as u64).clamp(s.from, s.to) - s.from)
            .sum();
        samples.push(Sample {
            at,
            fetched,
            stalled: Duration::from_micros(stalled),
            peers: u32::from(at > Duration::from_millis(70)),
        });
        at += Duration::from_millis(if at < Duration::from_secs(3) { 20 } else { 100 });
    }
    let span = |phase, from, to| Span {
        phase,
        from: Duration::from_micros(from),
        to: Duration::from_micros(to),
    };
    let mut stats = Stats::default();
    if let Some(last) = samples.last() {
        [
            stats.demand_bytes,
            stats.readahead_bytes,
            stats.profile_bytes,
            stats.background_bytes,
        ] = last.fetched;
        stats.stall_seconds = last.stalled.as_secs_f64();
        stats.fetched_bytes = last.total();
        stats.fetched_wire_bytes = last.total() * 2 / 5;
    }
    stats.stalls = log.first_reads.iter().filter(|r| r.missed).count() as u64;
    stats.distinct_read_bytes = 88 << 20;
    stats.guest_written_bytes = 5_300_000;
    stats.image_bytes = 1 << 30;
    stats.present_bytes = stats.fetched_bytes + (200 << 20);
    stats.peers = 1;
    Data {
        image: ImageFacts {
            name: "demo.img".to_owned(),
            info_hash: "3f0e8a11c29b5d7744aa10ffb1e2d3c4a5968778".to_owned(),
            length: 1 << 30,
            files: vec![FileFacts {
                path: "demo.img".to_owned(),
                offset: 0,
                length: 1 << 30,
                padding: false,
            }],
            piece_length: BLOCK_BYTES,
            pieces: fates,
        },
        line: Line::choose(Some(12_500_000), &samples),
        samples,
        phases: vec![
            span(Phase::Session, 0, 12_000),
            span(Phase::Image, 12_000, 29_000),
            span(Phase::Appliance, 29_000, 71_000),
            span(Phase::Vmm, 71_000, 74_500),
        ],
        recorded_from,
        log,
        stats,
    }
}

/// A run that read nothing and fetched nothing.
pub(crate) fn empty() -> Data {
    let mut data = boot();
    data.log = RunLog::default();
    data.stats = Stats::default();
    data.samples.truncate(40);
    for sample in &mut data.samples {
        sample.fetched = [0; 4];
        sample.stalled = Duration::ZERO;
        sample.peers = 0;
    }
    data.line = Line::choose(None, &data.samples);
    for fate in &mut data.image.pieces {
        if *fate == Fate::Fetched {
            *fate = Fate::Missing;
        }
    }
    data
}

/// Nine blocks in pieces of two: one piece was waited for, one is zeros, one was here, one was fetched in vain.
pub(crate) fn small() -> Data {
    let mut data = empty();
    data.image.length = 9 * BLOCK;
    data.image.files[0].length = 9 * BLOCK;
    data.image.piece_length = 2 * BLOCK_BYTES;
    data.image.pieces = vec![
        Fate::Fetched,
        Fate::Nothing,
        Fate::Before,
        Fate::Fetched,
        Fate::Missing,
    ];
    let read = |block, at, needed| FirstRead {
        file: 0,
        block,
        at,
        guest_time: at,
        needed,
        missed: needed > 0,
        expected: false,
    };
    data.log.first_reads = vec![
        read(0, 300_000, 2 * BLOCK_BYTES),
        read(1, 300_000, 0),
        read(2, 350_000, 0),
        read(4, 400_000, 0),
    ];
    data.log.stalls = vec![Stall {
        from: 300_000,
        to: 340_000,
    }];
    data.stats.stalls = 1;
    data.stats.stall_seconds = 0.04;
    for sample in data.samples.iter_mut().filter(|s| s.at.as_millis() > 390) {
        sample.fetched = [2 * BLOCK, 2 * BLOCK, 0, 0];
    }
    data.line = Line::choose(None, &data.samples);
    data
}

/// Names that try to become markup.
pub(crate) fn hostile() -> Data {
    let mut data = small();
    let name = "<script>&\"'</script>.img".to_owned();
    data.image.name.clone_from(&name);
    data.image.files = (0..30)
        .map(|n| FileFacts {
            path: format!("dir/{name}-{n}-{}", "long".repeat(40)),
            offset: n * 4_000,
            length: 4_000,
            padding: n % 5 == 4,
        })
        .collect();
    data
}
