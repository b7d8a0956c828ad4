//! Invariant: what is kept takes no more than the bytes that were allowed, entries and all.

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::image::BlockIndex;

/// Compressed forms of blocks that were sent, for the next who asks. Those asked for once go before those asked for
/// again (S3-FIFO: Yang et al., SOSP 2023), so that one who fetches the whole image does not push out what a crowd boots
/// from.
pub(super) struct FrameCache {
    cache: Cache<FrameKey, Bytes, Weight>,
}

/// A block of one image of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FrameKey {
    pub(super) image: u64,
    pub(super) block: BlockIndex,
}

#[derive(Clone)]
struct Weight;

/// What an entry takes beside its bytes.
const ENTRY: u64 = 128;
/// A usual length, for the table's size.
const USUAL: u64 = 6 << 10;

impl Weighter<FrameKey, Bytes> for Weight {
    fn weight(&self, _: &FrameKey, frame: &Bytes) -> u64 {
        ENTRY + frame.len() as u64
    }
}

impl FrameCache {
    pub(super) fn new(bytes: u64) -> Self {
        let entries = usize::try_from(bytes / USUAL).unwrap_or(usize::MAX);
        Self {
            cache: Cache::with_weighter(entries.clamp(1, 1 << 20), bytes, Weight),
        }
    }

    /// The frame of a block, if it is known; empty: it is better sent plain.
    pub(super) fn get(&self, key: &FrameKey) -> Option<Bytes> {
        self.cache.get(key)
    }

    pub(super) fn insert(&self, key: FrameKey, frame: Bytes) {
        self.cache.insert(key, frame);
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::PieceIndex;

    fn key(n: u32) -> FrameKey {
        let block = BlockIndex {
            piece: PieceIndex(n),
            block: 0,
        };
        FrameKey { image: 1, block }
    }

    #[test]
    fn it_is_bounded_in_bytes() {
        let cache = FrameCache::new(1 << 20);
        for n in 0..1000 {
            cache.insert(key(n), vec![1; 6000].into());
            assert!(cache.bytes() <= 1 << 20);
        }
        let kept = (0..1000).filter(|n| cache.get(&key(*n)).is_some()).count();
        assert!((100..=175).contains(&kept), "{kept}");
        for n in 1000..50_000 {
            cache.insert(key(n), Bytes::new());
        }
        assert!(cache.bytes() <= 1 << 20);
    }

    #[test]
    fn one_of_no_bytes_keeps_nothing() {
        let cache = FrameCache::new(0);
        cache.insert(key(1), vec![1; 6000].into());
        cache.insert(key(2), Bytes::new());
        assert!(cache.get(&key(1)).is_none() && cache.get(&key(2)).is_none());
    }

    #[test]
    fn what_is_asked_for_again_survives_one_who_reads_everything() {
        let cache = FrameCache::new(4 << 20);
        for n in 0..100 {
            cache.insert(key(n), vec![1; 6000].into());
        }
        for _ in 0..3 {
            assert!((0..100).all(|n| cache.get(&key(n)).is_some()));
        }
        for n in 1000..3000 {
            cache.insert(key(n), vec![1; 6000].into());
        }
        let kept = (0..100).filter(|n| cache.get(&key(*n)).is_some()).count();
        assert!(kept > 80, "{kept}");
    }
}
