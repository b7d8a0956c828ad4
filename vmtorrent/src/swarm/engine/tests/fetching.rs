//! What is fetched, in which order and of whom, where all goes well.

use super::super::network::{Net, image};
use super::super::stage::{Stage, right};
use super::super::*;
use super::PIECE;

#[test]
fn a_full_fill_uses_the_line_and_ends_complete() {
    let mut net = Net::new(image(400, PIECE), 20);
    let seed = net.node(100.0, true, Fill::None);
    let leech = net.node(100.0, false, Fill::Full);
    net.link(leech, seed);
    let bytes = f64::from(400 * PIECE);
    let ideal = bytes / (100.0 * 125_000.0);
    net.run_for((ideal * 1000.0 * 1.15) as u64 + 200);
    assert!(
        net.nodes[leech].engine.is_complete(),
        "{} left",
        net.nodes[leech].engine.picker.missing()
    );
    assert_eq!(net.nodes[leech].disconnects, [DisconnectReason::BothSeeds]);
    assert_eq!(net.nodes[leech].engine.traffic().wasted, 0);
}

#[test]
fn nothing_is_fetched_without_a_read_when_the_policy_is_none() {
    let mut net = Net::new(image(50, PIECE), 20);
    let seed = net.node(100.0, true, Fill::None);
    let leech = net.node(100.0, false, Fill::None);
    net.link(leech, seed);
    net.run_for(5000);
    assert_eq!(net.nodes[leech].engine.traffic().fetched, [0; 4]);
    net.timed_demand(leech, 7);
    net.run_for(5000);
    assert_eq!(
        net.nodes[leech].engine.traffic().fetched,
        [u64::from(PIECE), 0, 0, 0]
    );
}

#[test]
fn demand_overtakes_a_fill_that_saturates_the_line() {
    let mut net = Net::new(image(3000, PIECE), 20);
    let seed = net.node(100.0, true, Fill::None);
    let leech = net.node(100.0, false, Fill::Full);
    net.link(leech, seed);
    net.run_for(3000);
    let mut waits = Vec::new();
    for i in 0..60 {
        let piece = (0..3000).map(|k| (i * 47 + k * 13) % 3000).find(|p| {
            net.nodes[leech]
                .engine
                .picker
                .band(PieceIndex(*p))
                .is_none()
                && net.nodes[leech].engine.picker.is_missing(PieceIndex(*p))
        });
        let Some(piece) = piece else { break };
        waits.push(net.timed_demand(leech, piece));
        net.run_for(50);
    }
    waits.sort_by(f64::total_cmp);
    assert!(
        waits.len() > 30,
        "the fill was too fast for this test: {}",
        waits.len()
    );
    let (p50, p99) = (waits[waits.len() / 2], waits[waits.len() * 99 / 100]);
    // A round trip is 20 ms and the piece takes 5.2 ms on the line.
    assert!(p50 < 40.0, "p50 {p50:.1} ms");
    assert!(p99 < 80.0, "p99 {p99:.1} ms");
}

#[test]
fn a_demand_piece_is_striped_over_the_peers_that_have_it() {
    let length = 1 << 20;
    let mut times = Vec::new();
    for seeds in [1, 4] {
        let mut net = Net::new(image(4, length), 20);
        let leech = net.node(100.0, false, Fill::None);
        for _ in 0..seeds {
            let seed = net.node(20.0, true, Fill::None);
            net.link(leech, seed);
        }
        net.run_for(200);
        net.timed_demand(leech, 0);
        net.timed_demand(leech, 1);
        times.push(net.timed_demand(leech, 2));
    }
    assert!(times[1] < times[0] * 0.35, "{times:?}");
}

#[test]
fn peers_complete_from_each_other_when_the_seed_has_gone() {
    let mut net = Net::new(image(120, PIECE), 5);
    let seed = net.node(40.0, true, Fill::None);
    let peers: Vec<usize> = (0..3).map(|_| net.node(100.0, false, Fill::Full)).collect();
    for (i, &p) in peers.iter().enumerate() {
        net.link(p, seed);
        for &q in &peers[..i] {
            net.link(p, q);
        }
    }
    // The seed leaves as soon as the peers together hold every piece.
    let held = |net: &Net| -> usize {
        let all: std::collections::HashSet<u32> = peers
            .iter()
            .flat_map(|p| net.nodes[*p].ready.keys().copied())
            .collect();
        all.len()
    };
    while held(&net) < 120 {
        net.run_for(20);
        assert!(net.now.since(Time::default()) < Duration::from_secs(60));
    }
    let sent = net.nodes[seed].engine.traffic().uploaded as f64;
    let total = net.image.geometry().total_length() as f64;
    assert!(
        sent < 1.5 * total,
        "the seed sent {:.2} copies",
        sent / total
    );
    let keys: Vec<(PeerKey, (usize, PeerKey))> = net.nodes[seed].links.drain().collect();
    for (_, (n, key)) in keys {
        net.nodes[n].links.remove(&key);
        net.nodes[n].engine.disconnected(net.now, key);
        net.collect(n);
    }
    net.run_for(20_000);
    for &p in &peers {
        assert!(
            net.nodes[p].engine.is_complete(),
            "{} left",
            net.nodes[p].engine.picker.missing()
        );
    }
}

#[test]
fn demand_pushes_out_what_is_queued_for_lower_bands() {
    let mut waits = Vec::new();
    for fast in [false, true] {
        let mut net = Net::new(image(600, PIECE), 20);
        let seed = net.node(20.0, true, Fill::None);
        let leech = net.node(20.0, false, Fill::Full);
        net.nodes[leech].fast = fast;
        net.link(leech, seed);
        net.run_for(3000);
        // More was queued than the line needs, as when a line has become slower.
        let key = *net.nodes[leech].links.keys().next().unwrap();
        let piece = |p: u32| PieceIndex(p);
        for p in 400..440 {
            if !net.nodes[leech].engine.picker.is_missing(piece(p)) {
                continue;
            }
            let now = net.now;
            let engine = &mut net.nodes[leech].engine;
            engine.picker.want(piece(p), Band::Readahead);
            for _ in 0..4 {
                let pick = engine.picker.pick(key, Band::Readahead).unwrap();
                engine.send_request(now, key, pick.block, true);
            }
        }
        net.collect(leech);
        net.run_for(60);
        let target = (500..600)
            .find(|p| {
                let picker = &net.nodes[leech].engine.picker;
                picker.is_missing(piece(*p)) && picker.band(piece(*p)).is_none()
            })
            .unwrap();
        waits.push(net.timed_demand(leech, target));
        net.run_for(20_000);
        assert!(net.nodes[leech].engine.is_complete());
        assert_eq!(net.nodes[leech].engine.traffic().wasted, 0);
        for peer in net.nodes[leech].engine.peers.values() {
            assert_eq!((peer.outstanding.len(), peer.taken_back.len()), (0, 0));
        }
    }
    assert!(waits[1] < waits[0] / 3.0, "{waits:?} ms without and with");
}

/// Four blocks are longer under way on such a line than a peer may stay silent.
#[test]
fn a_thin_line_is_used_and_nothing_is_fetched_twice() {
    for fast in [false, true] {
        let mut net = Net::new(image(60, PIECE), 20);
        let seed = net.node(0.02, true, Fill::None);
        let leech = net.node(100.0, false, Fill::Full);
        net.nodes[seed].fast = fast;
        net.nodes[leech].fast = fast;
        net.link(leech, seed);
        net.run_for(600_000);
        let traffic = net.nodes[leech].engine.traffic();
        let fetched: u64 = traffic.fetched.iter().sum();
        assert_eq!(traffic.wasted, 0, "fast: {fast}");
        assert!(
            fetched > 600 * 2500 * 8 / 10,
            "{fetched} bytes, fast: {fast}"
        );
        assert!(net.nodes[leech].disconnects.is_empty());
    }
}

#[test]
fn a_demand_that_nobody_can_serve_does_not_stop_the_idle_fill() {
    let mut net = Net::new(image(60, PIECE), 20);
    let leech = net.node(100.0, false, Fill::Idle);
    let partial = net.node(100.0, false, Fill::None);
    for p in 0..59 {
        net.nodes[partial].engine.have.set(PieceIndex(p), true);
        net.nodes[partial].engine.picker.have(PieceIndex(p));
    }
    net.demand(leech, 59);
    net.link(leech, partial);
    net.run_for(3000);
    assert_eq!(net.nodes[leech].ready.len(), 59);
}

/// Bytes that come in a second from a peer whose answers take 50 ms longer than the connection took to open.
fn fetched_through_a_full_line(sending: bool) -> u64 {
    let mut stage = Stage::with(Fill::Full, None);
    let late = Duration::from_millis(50);
    let answers = Box::new(move |request| vec![(late, right(request))]);
    let peer = stage.join(true, Duration::from_millis(2), answers);
    let key = stage.peers[peer].key;
    for _ in 0..10 {
        if sending {
            let request = WireRequest {
                piece: 0,
                begin: 0,
                length: 1 << 14,
            };
            stage.engine.block_sent(stage.now, key, request, true);
        }
        stage.run_for(Duration::from_millis(100));
    }
    stage.engine.traffic().fetched.iter().sum()
}

#[test]
fn who_sends_asks_for_so_much_that_requests_may_wait_in_its_own_line() {
    let (quiet, sending) = (
        fetched_through_a_full_line(false),
        fetched_through_a_full_line(true),
    );
    assert!(sending > 2 * quiet, "{sending} of {quiet} bytes");
}
