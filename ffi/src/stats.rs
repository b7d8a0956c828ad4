//! Invariant: the figures are those of the library, under the same names; fields are only ever added at the end.

use vmtorrent::Stats;

use crate::error::Failure;
use crate::sized::{Growing, fill, room};

/// What an appliance or a seed has cost and served so far.
///
/// The caller sets `struct_size` to sizeof(vmt_stats) before: later versions add fields at the end, and fill only
/// those that the caller knows. It is then the size of what was filled. Bytes are plain payload bytes; those on the
/// network are of the image, which all appliances of one session share.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vmt_stats {
    /// Bytes of this structure.
    pub struct_size: u64,
    /// Length of the image.
    pub image_bytes: u64,
    /// Bytes of the image that are present locally (zeros and duplicates count).
    pub present_bytes: u64,
    /// Bytes received from peers and web seeds, and kept: the sum of the next four.
    pub fetched_bytes: u64,
    /// For reads that waited.
    pub demand_bytes: u64,
    /// Ahead of sequential reads, and by vmt_prefetch.
    pub readahead_bytes: u64,
    /// Because a profile expects them.
    pub profile_bytes: u64,
    /// In the background.
    pub background_bytes: u64,
    /// Bytes sent to peers.
    pub uploaded_bytes: u64,
    /// Bytes received in vain: second copies, and pieces whose hash was wrong.
    pub wasted_bytes: u64,
    /// Reads that had to wait for the swarm.
    pub stalls: u64,
    /// Seconds during which at least one read waited.
    pub stall_seconds: f64,
    /// Median wait of those reads, milliseconds.
    pub demand_p50_ms: f64,
    /// 99th percentile of those waits, milliseconds.
    pub demand_p99_ms: f64,
    /// Bytes that the guest read.
    pub guest_read_bytes: u64,
    /// Bytes that the guest wrote.
    pub guest_written_bytes: u64,
    /// Distinct 64 KiB blocks of the image that the guest read, in bytes.
    pub distinct_read_bytes: u64,
    /// Blocks of 16 KiB that the guest read for the first time, without those of zeros.
    pub first_reads: u64,
    /// Of these, how many the profile expected.
    pub expected_reads: u64,
    /// Connected peers.
    pub peers: u64,
    /// Of the bytes fetched, those that web servers sent.
    pub web_seed_bytes: u64,
    /// Web servers that hold the image and can be asked.
    pub web_seeds: u64,
    /// What the bytes fetched took on the wire: less where they came compressed.
    pub fetched_wire_bytes: u64,
    /// What the bytes sent took on the wire: less where they went compressed.
    pub uploaded_wire_bytes: u64,
}

// SAFETY: all of its fields have 8 bytes, and the first one is its size.
unsafe impl Growing for vmt_stats {
    const NAME: &'static str = "vmt_stats";

    fn set_size(&mut self, size: u64) {
        self.struct_size = size;
    }
}

impl vmt_stats {
    /// The room that the caller has.
    ///
    /// # Safety
    /// `stats` is NULL or its `struct_size` may be read.
    pub(crate) unsafe fn size(stats: *const Self) -> Result<usize, Failure> {
        // SAFETY: the caller's promise.
        unsafe { room(stats, "stats") }
    }

    /// Fills as much as there is room for.
    ///
    /// # Safety
    /// `size` was given by [`size`](Self::size) for `stats`, of which so many bytes may be written to.
    pub(crate) unsafe fn fill(stats: *mut Self, size: usize, found: &Stats) {
        let filled = Self {
            struct_size: 0,
            image_bytes: found.image_bytes,
            present_bytes: found.present_bytes,
            fetched_bytes: found.fetched_bytes,
            demand_bytes: found.demand_bytes,
            readahead_bytes: found.readahead_bytes,
            profile_bytes: found.profile_bytes,
            background_bytes: found.background_bytes,
            uploaded_bytes: found.uploaded_bytes,
            wasted_bytes: found.wasted_bytes,
            stalls: found.stalls,
            stall_seconds: found.stall_seconds,
            demand_p50_ms: found.demand_p50_ms,
            demand_p99_ms: found.demand_p99_ms,
            guest_read_bytes: found.guest_read_bytes,
            guest_written_bytes: found.guest_written_bytes,
            distinct_read_bytes: found.distinct_read_bytes,
            first_reads: found.first_reads,
            expected_reads: found.expected_reads,
            peers: found.peers.into(),
            web_seed_bytes: found.web_seed_bytes,
            web_seeds: found.web_seeds.into(),
            fetched_wire_bytes: found.fetched_wire_bytes,
            uploaded_wire_bytes: found.uploaded_wire_bytes,
        };
        // SAFETY: the caller's promise.
        unsafe { fill(stats, size, filled) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_caller_gets_what_it_knows_and_nothing_behind() {
        let mut found = Stats::default();
        found.image_bytes = 5;
        found.present_bytes = 6;
        let mut words = [u64::MAX; 4];
        words[0] = 16;
        let old = words.as_mut_ptr().cast::<vmt_stats>();
        // SAFETY: it says 16 bytes, and has 32.
        unsafe {
            let size = vmt_stats::size(old).unwrap();
            vmt_stats::fill(old, size, &found);
            assert_eq!(words, [16, 5, u64::MAX, u64::MAX]);
            words[0] = 1 << 20;
            assert_eq!(
                vmt_stats::size(words.as_ptr().cast()).unwrap(),
                size_of::<vmt_stats>()
            );
            words[0] = 8;
            assert!(vmt_stats::size(words.as_ptr().cast()).is_err());
            assert!(vmt_stats::size(std::ptr::null()).is_err());
        }
    }
}
