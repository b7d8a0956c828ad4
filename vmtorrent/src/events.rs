//! Invariant: an event tells of something that happened once; states are in [`Stats`](crate::Stats).

/// Something that an embedder may want to show or act upon.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The whole image is here: the appliance needs the swarm no more.
    Complete,
    /// A read waited for longer than the read timeout and failed with `EIO`.
    ReadTimedOut {
        /// Index of the file in [`Image::files`](crate::image::Image::files).
        file: usize,
        /// Offset of the read in that file, bytes.
        offset: u64,
        /// Peers that were connected at that moment.
        peers: u32,
    },
    /// What came from the swarm can't be stored (a full disk, for example). Reads of missing data wait
    /// until it can be.
    StorageFailed {
        /// What the system says.
        reason: String,
    },
}
