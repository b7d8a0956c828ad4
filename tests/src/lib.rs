//! Helpers for the tests that cross crates: they start the real `vmtorrent` binary and look at it from outside.
//!
//! The binary must have been built (`cargo build -p vmtorrent-cli`) or be named by `VMTORRENT_BIN`. A test that needs
//! the kernel, root or another program asks [`require`]; with `VMTORRENT_REQUIRE` set what is missing is a failure.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

pub mod appliance;
mod binary;
pub mod conformance;
mod daemon;
mod host;
mod memory_mount;
mod random;
mod reference;
mod requirement;

pub use binary::{command, publish};
pub use daemon::{Daemon, seed, unmount};
pub use host::{Host, Launch};
pub use memory_mount::MemoryMount;
pub use random::Random;
pub use reference::{PIECE, Reference, assert_same, first_difference};
pub use requirement::{fuse, require};
