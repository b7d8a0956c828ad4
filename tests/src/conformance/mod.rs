//! What every volume must do, whoever is below and above it: one list of cases, which `tests/conformance.rs` runs against
//! volumes without a kernel ([`direct`]) and through a mount ([`mounted`]), over files in memory and over a real appliance.
//!
//! Invariant: a case begins with the files of [`image`] and nothing else, and what it asserts holds for a local
//! file system too, but for the names of the image, which are protected.

#[expect(missing_docs, reason = "the name of a case says what it proves")]
pub mod cases;
pub mod direct;
pub mod fsx;
pub mod mapping;
pub mod mounted;
pub mod surface;

use std::any::Any;
use std::ops::Range;

use self::surface::Surface;
use crate::Random;

/// What a case works on, with all that must live as long.
pub struct World {
    /// The volume.
    pub surface: Box<dyn Surface>,
    _kept: Box<dyn Any>,
}

impl World {
    /// A volume, and what goes after it.
    pub fn new(surface: impl Surface + 'static, kept: impl Any) -> Self {
        Self {
            surface: Box::new(surface),
            _kept: Box::new(kept),
        }
    }
}

/// The part of the disk that is zeros: whole pieces of an image with pieces of 64 KiB.
pub const HOLE: Range<u64> = 3 * 65_536..5 * 65_536;

/// The content of the file `disk`. No byte outside [`HOLE`] is zero.
pub fn disk() -> Vec<u8> {
    let mut bytes = nonzero(11, 12 * 65_536 + 12_345);
    bytes[HOLE.start as usize..HOLE.end as usize].fill(0);
    bytes
}

/// The content of the file `vm/deep`.
pub const DEEP: &[u8] = b"deep";

/// The image that a case begins with, as paths and contents.
pub fn image() -> [(&'static str, Vec<u8>); 2] {
    [("disk", disk()), ("vm/deep", DEEP.to_vec())]
}

/// Bytes of which none is 0, so that they can't be taken for a hole.
pub fn nonzero(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = Random::new(seed).bytes(length);
    for byte in &mut bytes {
        *byte = (*byte).max(1);
    }
    bytes
}
