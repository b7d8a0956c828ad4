//! The Rust API over a real swarm on loopback: sessions, seeds and appliances in one process, without a kernel mount.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

#[path = "../common/mod.rs"]
mod common;
mod disks;
mod embedding;
mod metrics;
mod trackers;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use vmtorrent::{Appliance, ApplianceOptions, Fill, Session, SessionOptions, State};

use self::common::{loopback, random};

const MIB: usize = 1 << 20;

/// Content that has zeros, a repetition and a short last piece.
fn content(length: usize) -> Vec<u8> {
    let mut data = random(length, 0x2545_f491_4f6c_dd1d);
    data[MIB..2 * MIB].fill(0);
    let (first, rest) = data.split_at_mut(2 * MIB);
    rest[..MIB / 2].copy_from_slice(&first[..MIB / 2]);
    data
}

async fn session(cache: &Path) -> Session {
    let options = SessionOptions {
        listen: loopback(),
        cache: Some(cache.to_owned()),
        // Tests that run at the same time publish the same content.
        local_discovery: false,
        ..SessionOptions::default()
    };
    Session::start(options).await.unwrap()
}

fn options(state: &Path, peer: Option<SocketAddr>) -> ApplianceOptions {
    ApplianceOptions {
        state: State::Directory(state.to_owned()),
        peers: peer.into_iter().collect(),
        fill: Fill::None,
        read_timeout: Some(Duration::from_secs(30)),
        ..ApplianceOptions::default()
    }
}

async fn read_all(appliance: &Appliance, length: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(length);
    while all.len() < length {
        let part = appliance
            .read_at(0, all.len() as u64, 300_000)
            .await
            .unwrap();
        assert!(!part.is_empty());
        all.extend_from_slice(&part);
    }
    all
}
