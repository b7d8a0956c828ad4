//! Idle connections stay, dead ones don't: an hour in virtual time.

use super::network::{Net, image};
use super::*;

/// BEP 3: keep-alives are generally sent once every two minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

fn idle_pair() -> Net {
    let mut net = Net::new(image(4, 64 << 10), 20);
    let seed = net.node(100.0, true, Fill::None);
    let leech = net.node(100.0, false, Fill::None);
    net.link(leech, seed);
    net
}

#[test]
fn an_idle_connection_is_kept_by_both_sides() {
    let mut net = idle_pair();
    for _ in 0..3_600 {
        net.run_for(1_000);
        for node in &net.nodes {
            for peer in node.engine.peers.values() {
                assert!(net.now.since(peer.last_sent) <= LONGEST_PAUSE);
                assert!(net.now.since(peer.last_received) <= LONGEST_PAUSE + net.delay);
            }
        }
    }
    for node in &net.nodes {
        assert_eq!(node.engine.peer_count(), 1);
        assert_eq!(node.disconnects, []);
    }
}

#[test]
fn a_connection_over_which_nothing_comes_ends_after_three_minutes() {
    let mut net = idle_pair();
    net.run_for(1_000);
    // What the seed sends is lost from here on.
    net.nodes[0].links.clear();
    net.run_for(178_000);
    assert_eq!(net.nodes[1].disconnects, []);
    net.run_for(4_000);
    assert_eq!(net.nodes[1].disconnects, [DisconnectReason::Silent]);
    assert_eq!(net.nodes[1].engine.peer_count(), 0);
}
