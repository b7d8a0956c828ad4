//! Peers that start together need the seed only once.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::net::TcpListener;
use std::time::{Duration, Instant};

use vmtorrent_tests::{Daemon, Host, Reference, assert_same, fuse, publish, seed};

/// The seed alone needs eight seconds, and the peers' own uplinks about twenty for the rest.
const PATIENCE: Duration = Duration::from_secs(90);

/// A port that was free a moment ago: the torrent names the tracker before there is one.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn number(event: &serde_json::Value, field: &str) -> u64 {
    event[field].as_u64().unwrap()
}

#[test]
fn peers_complete_from_each_other_when_the_seed_dies_half_way() {
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("disk.img");
    let image = Reference::new((48 << 20) + 4_321, 48);
    image.write_to(&original);
    let length = image.bytes().len() as u64;
    let tracker = format!("127.0.0.1:{}", free_port());
    let torrent = dir.path().join("disk.torrent");
    let url = format!("http://{tracker}/announce");
    publish(&original, &torrent, &["--tracker", &url]);

    // The seed gives each piece about once while the peers' own uplinks, a sixth as fast, still carry the first ones: for
    // about eight seconds more none of them has all.
    let source = seed(
        &torrent,
        dir.path(),
        &["--tracker", &tracker, "--upload-limit", "6M"],
    );
    let ready = source.wait_event("ready");
    assert_eq!(ready["tracker"], url.as_str());
    let info_hash = ready["info_hash"].as_str().unwrap();
    let hosts = ["a", "b", "c"].map(|name| Host::new(dir.path(), name));
    let peers: Vec<Daemon> = hosts
        .iter()
        .map(|host| {
            host.launch(&torrent)
                .discovery()
                .fill("full")
                .option("--upload-limit", "1M")
                .spawn()
        })
        .collect();
    for peer in &peers {
        peer.wait_event("ready");
    }

    // Wait until the three copies together hold every piece; one peer's progress events are the clock.
    let copies = hosts.each_ref().map(|h| h.copy(info_hash, "disk.img"));
    let mut seen = peers[0].event_count();
    let started = Instant::now();
    loop {
        assert!(
            started.elapsed() < PATIENCE,
            "the three peers do not hold the image together after {PATIENCE:?}"
        );
        let held = copies.each_ref().map(|copy| image.held_by(copy));
        if (0..held[0].len()).all(|piece| held.iter().any(|h| h[piece])) {
            let missing = held
                .iter()
                .map(|h| image.distinct_bytes() - image.held_bytes(h));
            assert!(
                missing.sum::<u64>() > 0,
                "the peers were complete as soon as they had everything together: they fetched the same pieces"
            );
            break;
        }
        peers[0].next_event(&mut seen);
    }
    source.kill_9();

    for peer in &peers {
        peer.wait_for("all of the image", PATIENCE, |event| {
            event["event"] == "progress" && number(event, "present_bytes") == length
        });
    }
    for host in &hosts {
        let when = "after the seed's death";
        assert_same(&host.mount().join("disk.img"), image.bytes(), when);
        image.assert_pristine(&host.copy(info_hash, "disk.img"));
    }
    let done: Vec<_> = peers.into_iter().map(Daemon::stop).collect();
    for done in &done {
        assert_eq!(number(done, "fetched_bytes"), image.distinct_bytes());
    }
    let traded: u64 = done.iter().map(|d| number(d, "uploaded_bytes")).sum();
    assert!(traded > 0, "nothing was traded");
}
