//! What is urgent overtakes what a crowd asked for before, and only what demand waits for is marked as such.

use super::super::network::{Net, image};
use super::super::*;
use super::crowd::Crowd;
use super::waits::Waits;
use super::{PIECE, RATE, block};
use crate::swarm::wire::{ExtendedHello, VMT_URGENT};

/// A hundred leechers that keep 16 requests outstanding each: 26 MB, two seconds of the line.
fn crowded(line: f64, limit: Option<u64>, know: bool) -> (Crowd, usize) {
    let mut crowd = Crowd::new(line, limit, None);
    for _ in 0..100 {
        let n = crowd.join(know);
        crowd.ask_on(n, 16);
    }
    let guest = crowd.join(true);
    crowd.run_for(Duration::from_secs(5));
    (crowd, guest)
}

#[test]
fn an_urgent_block_overtakes_a_hundred_leechers() {
    // Strangers and our own kind; the limit is what the line gives.
    for know in [false, true] {
        let (mut crowd, guest) = crowded(10.0 * RATE, Some(RATE as u64), know);
        let before = crowd.engine.traffic().uploaded;
        let start = crowd.now;
        let urgent = crowd.reads(guest, 300, true);
        let plain = crowd.reads(guest, 100, false);
        let leecher = &crowd.peers[7].waits;
        let last = Waits::of(&leecher[leecher.len() - 50..], 50);
        println!("urgent {urgent:?}, not {plain:?}, of a leecher {last:?}");
        assert!(urgent.p99 < 50.0, "{urgent:?}");
        assert!(urgent.p99 < plain.median / 2.0, "{urgent:?} {plain:?}");
        // That costs the line nothing.
        let bytes = crowd.engine.traffic().uploaded - before;
        let rate = bytes as f64 / crowd.now.since(start).as_secs_f64();
        assert!(rate > RATE * 0.98, "{rate} bytes/s");
    }
}

#[test]
fn where_the_line_itself_is_full_an_urgent_block_waits_for_what_sockets_hold_alone() {
    let (mut crowd, guest) = crowded(RATE, None, false);
    let urgent = crowd.reads(guest, 200, true);
    println!("urgent {urgent:?}");
    // Two blocks of each of a hundred.
    assert!(urgent.p99 < 300.0, "{urgent:?}");
}

#[test]
fn a_mark_raises_what_was_asked_for_before() {
    let (mut crowd, guest) = crowded(10.0 * RATE, Some(RATE as u64), false);
    for _ in 0..16 {
        crowd.ask(guest, false);
    }
    crowd.run_for(Duration::from_millis(5));
    let last = block(crowd.peers[guest].next - 1);
    let start = crowd.now;
    let extension = VMT_URGENT;
    crowd.say(
        guest,
        WireMessage::Urgent {
            extension,
            request: last,
        },
    );
    crowd.run_for(Duration::from_millis(50));
    assert!(!crowd.peers[guest].asked.contains_key(&last), "it is here");
    assert!(crowd.peers[guest].asked.len() > 10, "the others are not");
    assert!(crowd.now.since(start) <= Duration::from_millis(50));
}

#[test]
fn demand_is_marked_and_nothing_else() {
    let mut net = Net::new(image(40, PIECE), 20);
    let leech = net.node(100.0, false, Fill::None);
    let seed = net.node(100.0, true, Fill::None);
    net.link(leech, seed);
    net.run_for(100);
    let key = *net.nodes[leech].links.keys().next().unwrap();
    let marks = |outputs: &[Output]| -> Vec<WireRequest> {
        let mark = |o: &Output| match o {
            Output::Send(k, WireMessage::Urgent { extension, request }) => {
                assert_eq!((*k, *extension), (key, VMT_URGENT));
                Some(*request)
            }
            _ => None,
        };
        outputs.iter().filter_map(mark).collect()
    };
    let engine = &mut net.nodes[leech].engine;
    engine.read_ahead(net.now, &[PieceIndex(5)]);
    let outputs = engine.take_outputs();
    assert!(marks(&outputs).is_empty());
    let asked = |o: &&Output| matches!(o, Output::Send(_, WireMessage::Request(_)));
    let ahead = outputs.iter().filter(asked).count();
    assert!(ahead > 0);
    // A read comes to what was asked for already: each request of that piece is marked, once.
    engine.demand(net.now, &[PieceIndex(5)]);
    let marked = marks(&engine.take_outputs());
    assert_eq!(marked.len(), 4);
    engine.demand(net.now, &[PieceIndex(5)]);
    assert!(marks(&engine.take_outputs()).is_empty());
    // The mark follows its request.
    engine.demand(net.now, &[PieceIndex(9)]);
    let outputs = engine.take_outputs();
    let marked = marks(&outputs);
    assert!(!marked.is_empty());
    for request in marked {
        let request_at = Output::Send(key, WireMessage::Request(request));
        let extension = VMT_URGENT;
        let mark = Output::Send(key, WireMessage::Urgent { extension, request });
        let at = |o: &Output| outputs.iter().position(|other| other == o);
        assert_eq!(at(&mark), at(&request_at).map(|n| n + 1));
    }
}

#[test]
fn who_does_not_know_the_extension_is_told_nothing() {
    let mut stage = Engine::new(
        Time::default(),
        EngineConfig {
            image: image(8, PIECE),
            have: Bitfield::new(8),
            fill: Fill::None,
            download: Arc::new(Mutex::new(Limiter::new(None))),
            upload: Arc::new(Mutex::new(Limiter::new(None))),
            upload_slots: None,
            listen_port: 1,
            peer_id: [0; 20],
            profile_exchange: false,
            peer_exchange: false,
            seed: 1,
        },
    );
    let address = SocketAddr::from(([198, 18, 0, 1], 1));
    let abilities = Abilities {
        extended: true,
        fast: true,
        id: [1; 20],
        ..Abilities::default()
    };
    let now = Time::default();
    let key = stage.connected(now, address, None, abilities);
    stage.received(now, key, WireMessage::HaveAll);
    stage.received(now, key, WireMessage::Unchoke);
    stage.received(
        now,
        key,
        WireMessage::ExtendedHello(ExtendedHello::default()),
    );
    stage.demand(now, &[PieceIndex(3)]);
    let outputs = stage.take_outputs();
    let asked = |o: &Output| matches!(o, Output::Send(_, WireMessage::Request(_)));
    let marked = |o: &Output| matches!(o, Output::Send(_, WireMessage::Urgent { .. }));
    assert!(outputs.iter().any(asked));
    assert!(!outputs.iter().any(marked));
}
