//! The hashes that `librqbit` asks for, from RustCrypto: same names, no C library.
//!
//! Invariant: only tests ever link this; the library has its own use of the `sha1` crate.

use sha1::Digest;

/// A SHA-1 in progress.
pub trait ISha1 {
    /// A hash of nothing so far.
    fn new() -> Self;
    /// Takes in more bytes.
    fn update(&mut self, buf: &[u8]);
    /// The hash of all that was taken in.
    fn finish(self) -> [u8; 20];
}

/// A SHA-256 in progress.
pub trait ISha256 {
    /// A hash of nothing so far.
    fn new() -> Self;
    /// Takes in more bytes.
    fn update(&mut self, buf: &[u8]);
    /// The hash of all that was taken in.
    fn finish(self) -> [u8; 32];

    /// The same, for identifiers.
    fn finish_id32(self) -> [u8; 32]
    where
        Self: Sized,
    {
        self.finish()
    }
}

/// SHA-1.
#[derive(Debug)]
pub struct Sha1(sha1::Sha1);

impl ISha1 for Sha1 {
    fn new() -> Self {
        Self(sha1::Sha1::new())
    }

    fn update(&mut self, buf: &[u8]) {
        self.0.update(buf);
    }

    fn finish(self) -> [u8; 20] {
        self.0.finalize().into()
    }
}

/// SHA-256.
#[derive(Debug)]
pub struct Sha256(sha2::Sha256);

impl ISha256 for Sha256 {
    fn new() -> Self {
        Self(sha2::Sha256::new())
    }

    fn update(&mut self, buf: &[u8]) {
        self.0.update(buf);
    }

    fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}
