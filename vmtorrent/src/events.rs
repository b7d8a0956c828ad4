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
    /// What came from the swarm can't be stored: the disk fails. Nothing is fetched in the background meanwhile; what
    /// reads need is fetched and kept in memory for a while. It goes on by itself when the disk does.
    StorageFailed {
        /// What the system says.
        reason: String,
    },
    /// The disk of the cache is full but for a reserve for what guests write (a twentieth, at most 1 GiB), or the copy
    /// has reached [`max_disk`](crate::SessionOptions::max_disk). Nothing is fetched in the background any more. What
    /// reads need is fetched all the same: it takes what is left of the disk or the place of what was not read for
    /// long, or is kept in memory for a while. It goes on by itself when there is room.
    CacheFull {
        /// What the system says, or the bound.
        reason: String,
    },
    /// A web server that is said to hold the image is not counted on any more. Unless it sent wrong bytes again and
    /// again it is looked at every ten minutes all the same.
    WebSeedGivenUp {
        /// Its URL, without what may be secret in it.
        url: String,
        /// What it did.
        reason: String,
    },
}
