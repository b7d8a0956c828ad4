//! Invariant: each event is counted once, where it is carried out; counters only grow.

use crate::metrics::Counter;

/// What happened around one image's swarm, beside the bytes that its engine counts.
#[derive(Debug, Default)]
pub(crate) struct SwarmCounters {
    /// Pieces that came, had the right hash and were stored.
    pub(crate) verified: Counter,
    /// Pieces that came with a wrong hash.
    pub(crate) failed: Counter,
    /// Pieces that came and could not be stored.
    pub(crate) storage_errors: Counter,
    /// Addresses that were dialled.
    pub(crate) dials: Counter,
    /// Of these, how many did not answer, or not as a peer of this image does.
    pub(crate) dial_failures: Counter,
    /// Peers that connected and were one too many.
    pub(crate) refused: Counter,
}

/// Connected peers, by who opened the connection, and over what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerCounts {
    /// They did.
    pub(crate) incoming: u64,
    /// We did.
    pub(crate) outgoing: u64,
    /// Of both, those over uTP.
    pub(crate) utp: u64,
}
