//! Peers that give nothing or something wrong, disks that fail.

use super::super::network::{Net, image};
use super::super::*;
use super::PIECE;

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
