//! `ffi/examples/nbdkit-vmtorrent-plugin.c`: a disk of a swarm over NBD, as nbdkit's clients and QEMU see it.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

mod boot;
mod clients;
mod server;
mod stage;

use std::time::Duration;

use vmtorrent_tests::PIECE;

const PATIENCE: Duration = Duration::from_secs(60);
const LENGTH: usize = 32 * PIECE + 512;
