//! Invariant: the four bands add up to the bytes fetched; counters only grow, but for bytes of a piece that turn out to
//! be in vain, which move from the fetched to the wasted ones.

use serde::Serialize;

/// What an appliance has cost and served so far. Bytes are those of blocks, without headers, and as they are in the image
/// where nothing else is said: peers may send them compressed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Length of the image.
    pub image_bytes: u64,
    /// Bytes of the image that are present locally (zeros and duplicates count).
    pub present_bytes: u64,
    /// Bytes received from peers and web seeds, and kept: the sum of the four bands.
    pub fetched_bytes: u64,
    /// What these took on the wire: less where they came compressed.
    pub fetched_wire_bytes: u64,
    /// Of these, for reads that waited.
    pub demand_bytes: u64,
    /// Of these, ahead of sequential reads.
    pub readahead_bytes: u64,
    /// Of these, because a profile expects them.
    pub profile_bytes: u64,
    /// Of these, in the background.
    pub background_bytes: u64,
    /// Bytes sent to peers.
    pub uploaded_bytes: u64,
    /// What these took on the wire: less where they went compressed.
    pub uploaded_wire_bytes: u64,
    /// Bytes received in vain: second copies, and pieces whose hash was wrong.
    pub wasted_bytes: u64,
    /// Reads of this appliance that had to wait for the swarm.
    pub stalls: u64,
    /// Time during which at least one read of this appliance waited, seconds.
    pub stall_seconds: f64,
    /// Median wait of those reads, milliseconds.
    pub demand_p50_ms: f64,
    /// 99th percentile of those waits, milliseconds.
    pub demand_p99_ms: f64,
    /// Bytes that the guest read from this appliance.
    pub guest_read_bytes: u64,
    /// Bytes that the guest wrote.
    pub guest_written_bytes: u64,
    /// Distinct 64 KiB blocks of the image that the guest read through to the pristine layer, in bytes.
    pub distinct_read_bytes: u64,
    /// Blocks of 16 KiB that the guest read for the first time, without those of zeros.
    pub first_reads: u64,
    /// Of these, how many the profile expected.
    pub expected_reads: u64,
    /// Of the bytes fetched, those that web servers sent.
    pub web_seed_bytes: u64,
    /// Connected peers.
    pub peers: u32,
    /// Web servers that hold the image and can be asked.
    pub web_seeds: u32,
}
