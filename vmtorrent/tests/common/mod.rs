//! What tests over sockets on loopback begin with: an address, content and an image of it.

use std::net::SocketAddr;
use std::path::Path;

use vmtorrent::image::{Image, PublishOptions, publish};

/// A port that is free, of this host alone.
pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Bytes without any pattern, the same ones for the same seed, which must not be zero.
pub(crate) fn random(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut data: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next()).collect();
    data.truncate(length);
    data
}

/// The image of a disk with this content, which is in the directory as `disk.img`.
pub(crate) fn published(directory: &Path, data: &[u8], options: &PublishOptions) -> Image {
    let path = directory.join("disk.img");
    std::fs::write(&path, data).unwrap();
    publish(&path, options).unwrap().image
}
