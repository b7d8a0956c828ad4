//! `vmtorrent launch --vmm NAME`: QEMU boots by it; the command lines of the others are checked by programs that stand for
//! them (tests/fake-vmm), in their order, with the clean-up after each kind of end.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

mod command;
mod presets;
mod qemu;
mod stage;
mod users_file;
mod virtualbox;

use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
/// Each syntax has to escape something of it.
const DISK: &str = "it's a disk, 2.img";
const BYTES: u64 = 1 << 20;
const NAME: &str = "it's web, 2";

fn texts(calls: &[&[&str]]) -> Vec<Vec<String>> {
    let words = |call: &&[&str]| call.iter().map(|word| (*word).to_owned()).collect();
    calls.iter().map(words).collect()
}
