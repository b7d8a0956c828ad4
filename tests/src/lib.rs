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
pub mod c_library;
pub mod clients;
pub mod conformance;
mod daemon;
mod host;
pub mod memory;
mod memory_mount;
mod namespaces;
mod network;
mod nginx;
mod random;
mod reference;
mod requirement;
mod rpc;
mod scene;
mod scrape;
pub mod scripted_peer;
pub mod scripted_server;
mod small_disk;

pub use binary::{command, publish, with_descriptors};
pub use c_library::CLibrary;
pub use daemon::{Daemon, seed, seed_on, unmount};
pub use host::{Host, Launch};
pub use memory_mount::MemoryMount;
pub use namespaces::Namespaces;
pub use network::{Network, Node};
pub use nginx::{Certificate, Nginx, Served};
pub use random::Random;
pub use reference::{PIECE, Reference, assert_same, first_difference};
pub use requirement::{fuse, require};
pub use scene::{Scene, number};
pub use scrape::{Family, Labels, Scrape, http, scrape};

/// What is logged of ours where a test that fails shows it.
const LOG: &str = "vmtorrent=debug";
pub use small_disk::{DiskKind, SmallDisk, may_mount};
