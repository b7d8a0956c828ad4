//! The engine's promises, on a simulated network.

use super::network::{Net, image};
use super::*;
use crate::image::BlockIndex;

const PIECE: u32 = 64 << 10;

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
fn a_block_that_never_comes_is_asked_for_elsewhere() {
    let mut net = Net::new(image(40, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let good = net.node(100.0, true, Fill::None);
    let mute = net.node(100.0, true, Fill::None);
    net.nodes[mute].mute = true;
    net.link(leech, mute);
    net.link(leech, good);
    net.run_for(200);
    for piece in 0..10 {
        let wait = net.timed_demand(leech, piece);
        assert!(wait < 400.0, "piece {piece}: {wait} ms");
    }
}

#[test]
fn a_peer_that_never_answers_costs_the_first_reads_a_re_request_and_later_ones_nothing() {
    let mut net = Net::new(image(60, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let good = net.node(100.0, true, Fill::None);
    let mute = net.node(100.0, true, Fill::None);
    net.nodes[mute].mute = true;
    net.link(leech, mute);
    net.link(leech, good);
    net.run_for(200);
    let waits: Vec<f64> = (0..40)
        .map(|piece| net.timed_demand(leech, piece))
        .collect();
    assert!(waits.iter().all(|w| *w < 400.0), "{waits:?}");
    let slow = waits.iter().filter(|w| **w > 60.0).count();
    assert!(slow <= 3, "{slow} of 40 reads paid for it: {waits:?}");
}

#[test]
fn a_liar_is_found_and_the_piece_is_fetched_from_another() {
    let mut net = Net::new(image(40, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let liar = net.node(100.0, true, Fill::None);
    net.nodes[liar].liar = true;
    net.link(leech, liar);
    net.run_for(100);
    net.demand(leech, 3);
    net.run_for(200);
    assert_eq!(net.nodes[leech].disconnects, [DisconnectReason::BadData]);
    assert!(net.nodes[leech].ready.is_empty());
    let good = net.node(100.0, true, Fill::None);
    net.link(leech, good);
    net.run_for(500);
    assert!(net.nodes[leech].ready.contains_key(&3));
}

#[test]
fn of_two_that_gave_a_bad_piece_the_liar_is_found_and_the_honest_one_stays() {
    let mut net = Net::new(image(60, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let honest = net.node(100.0, true, Fill::None);
    let liar = net.node(100.0, true, Fill::None);
    net.nodes[liar].liar = true;
    net.link(leech, honest);
    net.link(leech, liar);
    net.run_for(200);
    for piece in 0..10 {
        let wait = net.timed_demand(leech, piece);
        assert!(wait < 500.0, "piece {piece}: {wait} ms");
    }
    assert_eq!(net.nodes[leech].disconnects, [DisconnectReason::BadData]);
    assert_eq!(net.nodes[honest].links.len(), 1, "the honest peer stays");
    assert!(net.nodes[liar].links.is_empty());
}

#[test]
fn a_peer_that_says_nothing_more_is_left_after_a_minute() {
    let mut net = Net::new(image(60, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let mute = net.node(100.0, true, Fill::None);
    net.nodes[mute].mute = true;
    net.link(leech, mute);
    net.run_for(100);
    net.demand(leech, 3);
    net.run_for(58_000);
    assert!(net.nodes[leech].disconnects.is_empty());
    net.run_for(5_000);
    assert_eq!(net.nodes[leech].disconnects, [DisconnectReason::Silent]);
}

#[test]
fn an_idle_connection_is_kept_alive_and_one_that_says_nothing_is_not() {
    let mut net = Net::new(image(60, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let seed = net.node(100.0, true, Fill::None);
    net.link(leech, seed);
    net.run_for(3_600_000);
    assert!(net.nodes[leech].disconnects.is_empty());
    assert_eq!(net.nodes[seed].links.len(), 1);
    let dead = net.node(100.0, true, Fill::None);
    net.link(leech, dead);
    net.nodes[dead].links.clear();
    net.run_for(200_000);
    assert_eq!(net.nodes[leech].disconnects, [DisconnectReason::Silent]);
    assert_eq!(net.nodes[seed].links.len(), 1);
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
fn a_full_disk_does_not_become_a_loop_of_downloads_and_ends_well() {
    let mut net = Net::new(image(200, PIECE), 20);
    let seed = net.node(100.0, true, Fill::None);
    let leech = net.node(100.0, false, Fill::Full);
    net.link(leech, seed);
    net.run_for(300);
    net.nodes[leech].full_disk = true;
    net.run_for(20_000);
    let traffic = net.nodes[leech].engine.traffic();
    let line = 20 * 12_500_000;
    assert!(
        traffic.wasted > 0 && traffic.wasted < line / 20,
        "{} in vain",
        traffic.wasted
    );
    net.nodes[leech].full_disk = false;
    net.run_for(20_000);
    assert!(net.nodes[leech].engine.is_complete());
    let kept: u64 = net.nodes[leech].engine.traffic().fetched.iter().sum();
    assert_eq!(
        kept,
        net.image.geometry().total_length(),
        "what was kept is counted once"
    );
}

#[test]
fn a_damaged_piece_may_be_found_by_many_and_is_fetched_once() {
    let mut net = Net::new(image(40, PIECE), 20);
    let seed = net.node(100.0, true, Fill::None);
    let leech = net.node(100.0, false, Fill::None);
    net.link(leech, seed);
    net.run_for(100);
    net.timed_demand(leech, 5);
    let before = net.nodes[leech].engine.traffic().fetched[0];
    net.nodes[leech].engine.damaged(net.now, PieceIndex(5));
    net.nodes[leech].ready.clear();
    net.demand(leech, 5);
    net.run_for(5);
    net.nodes[leech].engine.damaged(net.now, PieceIndex(5));
    net.demand(leech, 5);
    net.run_for(500);
    assert!(net.nodes[leech].ready.contains_key(&5));
    let traffic = net.nodes[leech].engine.traffic();
    assert_eq!(
        (traffic.fetched[0] - before, traffic.wasted),
        (u64::from(PIECE), 0)
    );
    for peer in net.nodes[leech].engine.peers.values() {
        assert_eq!((peer.outstanding.len(), peer.path.in_flight()), (0, 0));
    }
}

#[test]
fn a_piece_that_a_seed_can_not_read_comes_from_another_and_wedges_nobody() {
    for fast in [false, true] {
        let mut net = Net::new(image(40, PIECE), 20);
        let leech = net.node(100.0, false, Fill::None);
        let broken = net.node(100.0, true, Fill::None);
        net.nodes[broken].fast = fast;
        net.nodes[broken].unreadable = Some(7);
        net.link(leech, broken);
        net.run_for(100);
        net.timed_demand(leech, 6);
        net.demand(leech, 7);
        net.run_for(200);
        assert_eq!(
            net.nodes[leech].engine.peers.len(),
            usize::from(fast),
            "only by closing can a peer be told that does not know rejects"
        );
        let good = net.node(100.0, true, Fill::None);
        net.link(leech, good);
        net.run_for(300);
        assert!(net.nodes[leech].ready.contains_key(&7));
        if fast {
            net.timed_demand(leech, 8);
            assert_eq!(net.nodes[broken].links.len(), 1, "it is good for the rest");
        }
    }
}

#[test]
fn a_rejected_piece_is_not_asked_of_the_same_peer_in_a_loop_but_again_later() {
    let mut net = Net::new(image(40, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let broken = net.node(100.0, true, Fill::None);
    net.nodes[broken].unreadable = Some(7);
    net.link(leech, broken);
    net.run_for(100);
    net.demand(leech, 7);
    net.run_for(10_000);
    let rejects = |net: &Net| net.nodes[broken].rejects_sent;
    assert!((1..=4).contains(&rejects(&net)), "{}", rejects(&net));
    net.nodes[broken].unreadable = None;
    net.run_for(25_000);
    assert!(net.nodes[leech].ready.contains_key(&7));
}

#[test]
fn who_spoilt_a_piece_is_told_by_the_right_bytes_and_nobody_else_is_blamed() {
    for seeds in [2, 3, 5] {
        let mut net = Net::new(image(30, 256 << 10), 20);
        let leech = net.node(100.0, false, Fill::None);
        let nodes: Vec<usize> = (0..seeds)
            .map(|_| net.node(100.0, true, Fill::None))
            .collect();
        let liar = nodes[seeds / 2];
        net.nodes[liar].liar = true;
        for &node in &nodes {
            net.link(leech, node);
        }
        net.run_for(200);
        for piece in 0..6 {
            let wait = net.timed_demand(leech, piece);
            assert!(wait < 400.0, "{seeds} seeds, piece {piece}: {wait} ms");
        }
        assert_eq!(net.nodes[leech].disconnects, [DisconnectReason::BadData]);
        assert!(net.nodes[liar].links.is_empty());
        for peer in net.nodes[leech].engine.peers.values() {
            assert_eq!(peer.strikes, 0, "suspicion ends with the proof");
        }
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
fn blocks_that_nobody_asked_for_are_not_taken_and_end_the_connection() {
    let mut net = Net::new(image(40, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let pusher = net.node(100.0, true, Fill::None);
    net.nodes[pusher].mute = true;
    net.link(leech, pusher);
    net.run_for(100);
    net.demand(leech, 3);
    net.run_for(100);
    let key = *net.nodes[leech].links.keys().next().unwrap();
    for n in 0..400u32 {
        let piece = WireMessage::Piece {
            piece: n % 40,
            begin: 0,
            data: Bytes::from(vec![1; 16_384]),
        };
        net.nodes[leech].engine.received(net.now, key, piece);
        net.collect(leech);
    }
    let reasons = &net.nodes[leech].disconnects[..];
    assert!(
        matches!(reasons, [DisconnectReason::Protocol(_)]),
        "{reasons:?}"
    );
    let held = net.nodes[leech].engine.assembly.len();
    assert!(held <= 1, "{held} pieces are held for what it sent");
}

#[test]
fn a_peer_that_chokes_gives_what_it_allows_and_rejects_free_the_rest() {
    let mut net = Net::new(image(40, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let seed = net.node(100.0, true, Fill::None);
    net.link(leech, seed);
    net.run_for(100);
    let key = *net.nodes[leech].links.keys().next().unwrap();
    let engine = &mut net.nodes[leech].engine;
    engine.received(net.now, key, WireMessage::Choke);
    net.demand(leech, 3);
    net.run_for(1000);
    assert!(net.nodes[leech].ready.is_empty(), "it chokes us");
    let engine = &mut net.nodes[leech].engine;
    engine.received(net.now, key, WireMessage::AllowedFast(3));
    net.collect(leech);
    net.run_for(1000);
    assert!(net.nodes[leech].ready.contains_key(&3));
    // Requests that a choke meets are rejected one by one, and asked again once it is over.
    let engine = &mut net.nodes[leech].engine;
    engine.received(net.now, key, WireMessage::Unchoke);
    net.collect(leech);
    net.nodes[seed].mute = true;
    net.demand(leech, 4);
    net.run_for(15);
    let asked: Vec<BlockIndex> = {
        let engine = &mut net.nodes[leech].engine;
        engine.received(net.now, key, WireMessage::Choke);
        engine.peers[&key].outstanding.keys().copied().collect()
    };
    assert!(!asked.is_empty());
    for block in asked {
        let engine = &mut net.nodes[leech].engine;
        let reject = WireMessage::Reject(WireRequest {
            piece: block.piece.0,
            begin: block.block * 16_384,
            length: 16_384,
        });
        engine.received(net.now, key, reject);
    }
    net.nodes[seed].mute = false;
    let engine = &mut net.nodes[leech].engine;
    engine.received(net.now, key, WireMessage::Unchoke);
    net.collect(leech);
    net.run_for(500);
    assert!(net.nodes[leech].ready.contains_key(&4));
}

#[test]
fn the_fast_extension_is_for_those_who_agreed_on_it() {
    for message in [
        WireMessage::HaveAll,
        WireMessage::HaveNone,
        WireMessage::AllowedFast(1),
    ] {
        let mut net = Net::new(image(4, PIECE), 20);
        let leech = net.node(100.0, false, Fill::None);
        let peer = net.node(100.0, false, Fill::None);
        net.nodes[peer].fast = false;
        net.link(leech, peer);
        let key = *net.nodes[leech].links.keys().next().unwrap();
        net.nodes[leech]
            .engine
            .received(net.now, key, message.clone());
        net.collect(leech);
        let reasons = &net.nodes[leech].disconnects[..];
        assert!(
            matches!(reasons, [DisconnectReason::Protocol(_)]),
            "{message:?}: {reasons:?}"
        );
    }
}

#[test]
fn a_field_that_is_said_again_adds_to_what_the_peer_has() {
    let mut net = Net::new(image(20, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let peer = net.node(100.0, false, Fill::None);
    net.link(leech, peer);
    net.run_for(100);
    let key = *net.nodes[leech].links.keys().next().unwrap();
    let field = |pieces: [u32; 2]| {
        let mut field = Bitfield::new(20);
        for piece in pieces {
            field.set(PieceIndex(piece), true);
        }
        WireMessage::Bitfield(field.to_wire().into())
    };
    for (message, count) in [
        (field([0, 1]), 2),
        (field([1, 7]), 3),
        (WireMessage::HaveNone, 3),
        (WireMessage::HaveAll, 20),
        (field([1, 7]), 20),
    ] {
        let engine = &mut net.nodes[leech].engine;
        engine.received(net.now, key, message.clone());
        let found = engine.picker.field(key).map(Bitfield::count_ones);
        assert_eq!(found, Some(count), "{message:?}");
        // Only who said so at once is not counted as a seed.
        assert_eq!(engine.picker.availability(PieceIndex(1)), 1);
        net.collect(leech);
    }
    assert!(net.nodes[leech].disconnects.is_empty());
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

#[test]
fn broken_messages_end_the_connection() {
    let bad = [
        WireMessage::Have(999),
        WireMessage::Bitfield(Bytes::from_static(&[0xff; 99])),
        WireMessage::Request(WireRequest {
            piece: 0,
            begin: 0,
            length: 1 << 20,
        }),
        WireMessage::Request(WireRequest {
            piece: 0,
            begin: u32::MAX,
            length: 16384,
        }),
        WireMessage::Piece {
            piece: 0,
            begin: 3,
            data: Bytes::from_static(b"x"),
        },
    ];
    for message in bad {
        let mut net = Net::new(image(4, PIECE), 20);
        let seed = net.node(100.0, true, Fill::None);
        let leech = net.node(100.0, false, Fill::None);
        net.link(leech, seed);
        net.run_for(100);
        let key = *net.nodes[seed].links.keys().next().unwrap();
        net.nodes[seed]
            .engine
            .received(net.now, key, message.clone());
        net.collect(seed);
        let reason = &net.nodes[seed].disconnects[..];
        assert!(
            matches!(reason, [DisconnectReason::Protocol(_)]),
            "{message:?}: {reason:?}"
        );
    }
}
