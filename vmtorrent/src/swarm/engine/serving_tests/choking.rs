//! Slots go round, what a choke takes away is rejected and read elsewhere, and who waits for a slot gets a little.

use super::super::network::{Net, image};
use super::super::*;
use super::crowd::Crowd;
use super::{PIECE, RATE};

#[test]
fn with_few_slots_a_seed_serves_strangers_and_its_own_kind_in_turn() {
    let mut crowd = Crowd::new(RATE / 10.0, None, Some(2));
    for n in 0..8 {
        let n = crowd.join(n % 2 == 0);
        crowd.ask_on(n, 4);
    }
    for _ in 0..12 {
        for n in 0..8 {
            crowd.say(n, WireMessage::KeepAlive);
        }
        crowd.run_for(Duration::from_secs(60));
    }
    for (n, peer) in crowd.peers.iter().enumerate() {
        assert!(
            peer.waits.len() > 1000,
            "{n} got {} blocks",
            peer.waits.len()
        );
        let knows = n % 2 == 0;
        assert_eq!(peer.rejects > 0, knows, "rejects are for who knows them");
        let sent = peer.said.iter().filter(|m| matches!(m, WireMessage::Choke));
        assert!(sent.count() < 40, "{n} is choked again and again");
    }
}

#[test]
fn a_choke_rejects_each_request_that_waits() {
    let mut crowd = Crowd::new(RATE, Some(100_000), Some(1));
    let (first, second) = (crowd.join(true), crowd.join(true));
    crowd.run_for(Duration::from_millis(10));
    assert!(crowd.peers[first].unchoked && !crowd.peers[second].unchoked);
    for _ in 0..500 {
        crowd.ask(first, false);
    }
    crowd.run_for(Duration::from_secs(75));
    let peer = &crowd.peers[first];
    assert!(!peer.unchoked && crowd.peers[second].unchoked);
    let at = |wanted: &WireMessage| peer.said.iter().rposition(|m| m == wanted);
    let choke = at(&WireMessage::Choke).unwrap();
    let rejected: Vec<&WireMessage> = peer.said[choke + 1..].iter().collect();
    let each =
        |m: &&&WireMessage| matches!(m, WireMessage::Reject(r) if peer.asked.contains_key(r));
    assert_eq!(rejected.iter().filter(each).count(), peer.asked.len());
    assert!(peer.asked.len() > 10 && peer.waits.len() > 10);
    // What it asks for now is rejected at once.
    let before = peer.rejects;
    crowd.ask(first, false);
    crowd.run_for(Duration::from_millis(10));
    assert_eq!(crowd.peers[first].rejects, before + 1);
}

#[test]
fn who_finds_no_slot_may_have_a_few_pieces() {
    let mut crowd = Crowd::new(RATE, None, Some(1));
    crowd.join(true);
    let second = crowd.join(true);
    let stranger = crowd.join(false);
    crowd.run_for(Duration::from_millis(10));
    assert!(crowd.peers[stranger].allowed.is_empty());
    let allowed = crowd.peers[second].allowed.clone();
    assert_eq!(allowed.len(), 10);
    let ask = |crowd: &mut Crowd, piece: u32, part: u32| {
        crowd.peers[second].next = piece * 4 + part;
        crowd.ask(second, false);
    };
    for piece in allowed {
        for part in 0..4 {
            ask(&mut crowd, piece, part);
        }
    }
    crowd.run_for(Duration::from_secs(1));
    assert!(!crowd.peers[second].unchoked);
    assert_eq!(crowd.peers[second].waits.len(), 40);
    // Once is enough.
    let again = crowd.peers[second].allowed[0];
    ask(&mut crowd, again, 0);
    crowd.run_for(Duration::from_secs(1));
    assert_eq!(crowd.peers[second].rejects, 1);
}

#[test]
fn free_riders_get_little_where_slots_are_scarce() {
    let mut net = Net::new(image(800, PIECE), 20);
    let seed = net.node(8.0, true, Fill::None);
    let us = net.node_with_slots(8.0, false, Fill::Full, Some(4));
    net.link(us, seed);
    let mut givers = Vec::new();
    let mut riders = Vec::new();
    for n in 0..9 {
        let peer = net.node(8.0, false, Fill::Full);
        if n < 3 {
            net.link(peer, seed);
            givers.push(peer);
        } else {
            net.nodes[peer].stingy = true;
            riders.push(peer);
        }
        net.link(us, peer);
    }
    net.run_for(15_000);
    let given = |net: &Net, peer: usize| -> u64 {
        let node = &net.nodes[us];
        let key = node.links.iter().find(|(_, there)| there.0 == peer);
        key.and_then(|(key, _)| node.given.get(key))
            .copied()
            .unwrap_or(0)
    };
    let before: Vec<u64> = givers
        .iter()
        .chain(&riders)
        .map(|p| given(&net, *p))
        .collect();
    net.run_for(15_000);
    let after = givers.iter().chain(&riders).map(|p| given(&net, *p));
    let moved: Vec<u64> = after.zip(before).map(|(a, b)| a - b).collect();
    let mean = |part: &[u64]| part.iter().sum::<u64>() as f64 / part.len() as f64;
    let (to_givers, to_riders) = (mean(&moved[..3]), mean(&moved[3..]));
    println!("bytes to each: {moved:?}");
    assert!(!net.nodes[us].engine.is_complete(), "it still downloads");
    assert!(to_givers > 2.0 * to_riders, "{to_givers} {to_riders}");
}

#[test]
fn what_a_choke_takes_away_is_read_elsewhere() {
    let mut net = Net::new(image(40, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let seeds = [
        net.node(100.0, true, Fill::None),
        net.node(10.0, true, Fill::None),
    ];
    for seed in seeds {
        net.link(leech, seed);
    }
    net.run_for(100);
    let wait = net.timed_demand(leech, 1);
    // The fast one takes the requests, and chokes before it answers.
    net.demand(leech, 2);
    let key = *net.nodes[seeds[0]].links.keys().next().unwrap();
    net.run_for(9);
    net.nodes[seeds[0]].mute = true;
    net.run_for(2);
    let asked: Vec<WireRequest> = {
        let engine = &net.nodes[leech].engine;
        let (there, _) = net.nodes[seeds[0]].links[&key];
        assert_eq!(there, leech);
        let of = net.nodes[seeds[0]].links[&key].1;
        let asked = engine.peers[&of].outstanding.keys();
        asked.map(|b| engine.wire_request(*b)).collect()
    };
    assert!(!asked.is_empty());
    net.transmit(seeds[0], key, WireMessage::Choke, 5);
    for request in asked {
        net.transmit(seeds[0], key, WireMessage::Reject(request), 17);
    }
    let start = net.now;
    while !net.nodes[leech].ready.contains_key(&2) {
        net.run_for(1);
        assert!(net.now.since(start) < Duration::from_secs(5));
    }
    let waited = net.now.since(start).as_secs_f64() * 1000.0;
    println!("{wait} ms, with a choke {waited} ms");
    assert!(waited < 200.0, "{waited} ms");
}
