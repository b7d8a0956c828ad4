//! What earlier runs of a machine read, and when: so that the next run's blocks are here before the guest asks.
//!
//! Invariant: a profile only ever changes the order of fetching. Whatever stands in one, a guest reads right bytes.

mod access;
mod cost;
mod format;
mod guide;
mod kept;
mod model;
mod plot;
mod recorder;
mod run_log;
#[cfg(test)]
mod samples;
mod summary;

pub use access::Access;
// For the benchmark alone, and no part of the API.
#[doc(hidden)]
pub use cost::{RecordingCost, recording_cost};
pub(crate) use guide::{Conditions, Guide};
pub(crate) use kept::{KeptProfiles, LEAST_BLOCKS};
pub use model::{Mismatch, Profile, ProfileFile};
pub(crate) use recorder::{Known, Recorder, RunTime};
pub use run_log::{FirstRead, RunLog, Stall};
pub use summary::ProfileSummary;

/// Bytes of what is noted at once: the blocks of BitTorrent, whatever the image's pieces are, so that a profile survives
/// a change of the piece size.
pub const BLOCK: u64 = crate::image::BLOCK_LENGTH as u64;

/// Bytes of a block: the last one of a file may be shorter.
fn block_bytes(file: &ProfileFile, block: u32) -> u64 {
    let start = u64::from(block) * BLOCK;
    file.length().saturating_sub(start).min(BLOCK)
}

/// Bytes of all blocks of a file that were read.
fn bytes_of(file: &ProfileFile) -> u64 {
    let blocks = file.blocks().keys();
    blocks.map(|block| block_bytes(file, *block)).sum()
}

/// A file's path as people write it.
fn path_text(file: &ProfileFile) -> String {
    file.path().join("/")
}
