//! What recording costs, for the benchmark alone. Invariant: it calls what a launch calls, and nothing else.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::recorder::{Recorder, RunTime};
use super::{BLOCK, KeptProfiles};
use crate::error::Result;
use crate::image::{PublishOptions, publish};
use crate::pristine::Pristine;

/// What recording costs.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct RecordingCost {
    /// Blocks that were recorded.
    pub blocks: u32,
    /// To look at a read whose block was read before.
    pub again: Duration,
    /// To note a block at its first read.
    pub first: Duration,
    /// To look at the bytes of one block.
    pub look: Duration,
    /// To write the run with all of the blocks.
    pub write: Duration,
}

/// Records reads of the file at `data`, which lies in a directory of its own and whose length is a multiple of 16 KiB; runs
/// are kept below `scratch`.
#[doc(hidden)]
pub fn recording_cost(data: &Path, scratch: &Path) -> Result<RecordingCost> {
    let image = publish(data, &PublishOptions::default())?.image;
    let directory = data.parent().unwrap_or(data);
    let pristine = Pristine::open_published(Arc::new(image), directory)?;
    let image = pristine.image().clone();
    let blocks = (image.geometry().total_length() / BLOCK) as u32;
    let recorder = Recorder::new(image.clone(), pristine.have_field());
    let range = |block: u32| u64::from(block) * BLOCK..u64::from(block + 1) * BLOCK;

    let began = Instant::now();
    for n in 0..blocks {
        // Here and there, as a guest reads.
        let block = n.wrapping_mul(0x9e37_79b1) % blocks;
        let found = recorder.first_blocks(0, &range(block));
        let time = RunTime {
            at: u64::from(n) * 5_000,
            guest: u64::from(n) * 5_000,
        };
        recorder.note(0, &found, &[], time, |_| false);
    }
    let first = began.elapsed() / blocks.max(1);

    const AGAIN: u32 = 1_000_000;
    let began = Instant::now();
    for n in 0..AGAIN {
        let block = n.wrapping_mul(0x9e37_79b1) % blocks.max(1);
        black_box(recorder.first_blocks(0, &range(block)));
    }
    let again = began.elapsed() / AGAIN;

    // Each piece is hashed once in a process's life, which is no cost of recording.
    recorder.look(&pristine);
    let other = Recorder::new(image.clone(), pristine.have_field());
    for block in 0..blocks {
        let found = other.first_blocks(0, &range(block));
        other.note(0, &found, &[], RunTime::default(), |_| false);
    }
    let began = Instant::now();
    other.look(&pristine);
    let look = began.elapsed() / blocks.max(1);

    let kept = KeptProfiles::new(scratch, image.info_hash(), 0);
    let began = Instant::now();
    kept.write(&recorder.profile())?;
    let write = began.elapsed();
    Ok(RecordingCost {
        blocks,
        again,
        first,
        look,
        write,
    })
}
