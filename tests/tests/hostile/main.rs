//! Peers that lie, break the protocol, say nothing or say too much: the guest reads what was published, nobody honest
//! is lost by it, and memory stays bounded.
//!
//! The peers are scripted ([`vmtorrent_tests::scripted_peer`]) and speak over real sockets to the real command. How long
//! a read may wait is shown in virtual time, in `vmtorrent/src/swarm/engine/hostile_tests.rs`; here a read that fails or
//! comes wrong fails the test, and its time limit only guards against hangs.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

mod compressed;
mod floods;
mod framing;
mod lies;
mod scene;
mod silence;
mod upload;
