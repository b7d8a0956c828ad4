//! What a read costs when peers lie, stall or talk nonsense, in virtual time.

use super::stage::*;
use super::*;

/// What a read of a piece may take when one peer misbehaves. Alone with an honest peer it takes 26 ms (a round trip and
/// the piece on the line); a block counts as late after twice what was expected and 10 ms, about 70 ms, and is then
/// asked of somebody else, which takes another 26 ms.
const ONE_REREQUEST: f64 = 150.0;

fn longest(waits: &[f64]) -> f64 {
    waits.iter().copied().fold(0.0, f64::max)
}

/// An honest peer, and before it a nearer one that follows `script`: with and without the fast extension. Gives the
/// waits of fifty reads, and how the hostile one was left.
fn beside_an_honest_one(script: impl Fn() -> Script) -> [(Vec<f64>, Option<DisconnectReason>); 2] {
    [false, true].map(|fast| {
        let mut stage = Stage::new();
        let hostile = stage.join(fast, RTT / 2, script());
        let honest = stage.join(fast, RTT, honest());
        stage.run_for(Duration::from_millis(100));
        let waits = stage.reads(50);
        assert!(stage.peers[hostile].asked > 0, "it was never asked");
        stage.assert_stays(honest);
        (waits, stage.peers[hostile].left.clone())
    })
}

/// Every read is served within one re-request.
fn costs_one_rerequest(script: impl Fn() -> Script) -> [Option<DisconnectReason>; 2] {
    beside_an_honest_one(script).map(|(waits, left)| {
        assert!(longest(&waits) < ONE_REREQUEST, "{waits:.0?}");
        left
    })
}

#[test]
fn alone_with_an_honest_peer_a_read_takes_a_round_trip_and_the_line() {
    let mut stage = Stage::new();
    stage.join(true, RTT, honest());
    stage.run_for(Duration::from_millis(100));
    let waits = stage.reads(20);
    assert!(longest(&waits) < 30.0, "{waits:.0?}");
}

#[test]
fn a_peer_that_never_answers_costs_one_rerequest() {
    costs_one_rerequest(mute);
}

#[test]
fn a_peer_that_answers_after_half_a_minute_costs_one_rerequest() {
    costs_one_rerequest(|| Box::new(|r| vec![(Duration::from_secs(30), right(r))]));
}

#[test]
fn a_peer_that_answers_just_too_late_costs_one_rerequest() {
    costs_one_rerequest(|| Box::new(|r| vec![(Duration::from_millis(400), right(r))]));
}

#[test]
fn a_peer_that_answers_with_another_block_costs_one_rerequest() {
    costs_one_rerequest(|| {
        Box::new(|r| {
            let piece = (r.piece + 1) % 200;
            at_once([right(WireRequest { piece, ..r })])
        })
    });
}

#[test]
fn a_peer_that_answers_twice_costs_nothing_and_stays() {
    for (waits, left) in beside_an_honest_one(|| Box::new(|r| at_once([right(r), right(r)]))) {
        assert!(longest(&waits) < 60.0, "{waits:.0?}");
        assert_eq!(left, None);
    }
}

#[test]
fn a_peer_that_chokes_at_each_request_costs_one_rerequest() {
    costs_one_rerequest(|| Box::new(|_| at_once([WireMessage::Choke, WireMessage::Unchoke])));
}

#[test]
fn a_peer_that_chokes_for_good_costs_one_rerequest() {
    costs_one_rerequest(|| Box::new(|_| at_once([WireMessage::Choke])));
}

#[test]
fn a_peer_that_rejects_what_it_said_it_has_costs_one_rerequest() {
    let mut stage = Stage::new();
    stage.join(
        true,
        RTT / 2,
        Box::new(|r| at_once([WireMessage::Reject(r)])),
    );
    let honest = stage.join(true, RTT, honest());
    stage.run_for(Duration::from_millis(100));
    let waits = stage.reads(50);
    assert!(longest(&waits) < ONE_REREQUEST, "{waits:.0?}");
    stage.assert_stays(honest);
}

/// A spoilt piece is known when its last block is here, and then comes once more: two fetches.
fn is_found(script: impl Fn() -> Script) {
    for (waits, left) in beside_an_honest_one(script) {
        assert_eq!(left, Some(DisconnectReason::BadData));
        assert!(longest(&waits) < 2.0 * ONE_REREQUEST, "{waits:.0?}");
        let after = &waits[waits.len() / 2..];
        assert!(longest(after) < 60.0, "without it: {after:.0?}");
    }
}

#[test]
fn a_liar_costs_a_second_fetch_and_is_left() {
    is_found(|| Box::new(|r| at_once([wrong(r)])));
}

#[test]
fn who_spoils_one_block_of_four_is_left() {
    is_found(|| {
        Box::new(|r| {
            let lie = r.begin == 16 << 10;
            at_once([if lie { wrong(r) } else { right(r) }])
        })
    });
}

#[test]
fn who_spoils_only_last_blocks_is_left() {
    is_found(|| {
        Box::new(|r| {
            let lie = r.begin == 48 << 10;
            at_once([if lie { wrong(r) } else { right(r) }])
        })
    });
}

#[test]
fn who_lies_every_third_time_is_left() {
    is_found(|| {
        let mut asked = 0;
        Box::new(move |r| {
            asked += 1;
            at_once([if asked % 3 == 0 { wrong(r) } else { right(r) }])
        })
    });
}

#[test]
fn who_spoils_a_piece_and_then_says_nothing_holds_up_its_second_fetch_no_longer() {
    for fast in [false, true] {
        let mut stage = Stage::new();
        let mut asked = 0;
        let lie_once: Script = Box::new(move |r| {
            asked += 1;
            if asked <= 2 {
                return at_once([wrong(r)]);
            }
            Vec::new()
        });
        stage.join(fast, RTT / 2, lie_once);
        let honest = stage.join(fast, RTT, honest());
        stage.run_for(Duration::from_millis(100));
        let waits = stage.reads(50);
        assert!(longest(&waits) < 2.0 * ONE_REREQUEST, "{waits:.0?}");
        stage.assert_stays(honest);
    }
}

#[test]
fn who_spoils_a_piece_and_chokes_holds_up_its_second_fetch_no_longer() {
    for fast in [false, true] {
        let mut stage = Stage::new();
        let lie_and_choke: Script = Box::new(|r| at_once([wrong(r), WireMessage::Choke]));
        stage.join(fast, RTT / 2, lie_and_choke);
        let honest = stage.join(fast, RTT, honest());
        stage.run_for(Duration::from_millis(100));
        let waits = stage.reads(50);
        assert!(longest(&waits) < 2.0 * ONE_REREQUEST, "{waits:.0?}");
        stage.assert_stays(honest);
    }
}

/// A spoilt piece is asked of one peer alone. If that one does not give it, others do.
#[test]
fn who_was_to_give_all_of_a_piece_and_does_not_holds_it_up_no_longer() {
    let refusals: [fn(WireRequest) -> WireMessage; 2] =
        [|_| WireMessage::Choke, WireMessage::Reject];
    for (refusal, fast) in [
        (refusals[0], false),
        (refusals[0], true),
        (refusals[1], true),
    ] {
        let mut stage = Stage::new();
        stage.join(fast, RTT, Box::new(|r| at_once([wrong(r)])));
        let honest = stage.join(fast, RTT, honest());
        // So far away that it is not asked before.
        let alone = stage.join(fast, RTT * 10, Box::new(move |r| at_once([refusal(r)])));
        stage.run_for(Duration::from_millis(300));
        let wait = stage.read(0);
        assert!(stage.peers[alone].asked > 0, "it was not asked");
        assert!(wait < 1000.0, "{wait:.0} ms, fast: {fast}");
        stage.assert_stays(honest);
    }
}

#[test]
fn who_lies_once_and_hangs_up_is_found_out_each_time() {
    for fast in [false, true] {
        let mut stage = Stage::new();
        let honest = stage.join(fast, RTT * 2, honest());
        stage.run_for(Duration::from_millis(100));
        stage.reads(4);
        for n in 1..=12 {
            let lied = std::rc::Rc::new(std::cell::Cell::new(false));
            let lie: Script = {
                let lied = lied.clone();
                Box::new(move |r| match lied.replace(true) {
                    false => at_once([wrong(r)]),
                    true => Vec::new(),
                })
            };
            let liar = stage.join(fast, RTT / 4, lie);
            stage.run_for(Duration::from_millis(30));
            let piece = stage.ready.len() as u32;
            stage.engine.demand(stage.now, &[PieceIndex(piece)]);
            stage.collect();
            stage.run_for(Duration::from_millis(12));
            assert!(lied.get(), "it was not asked");
            let key = stage.peers[liar].key;
            stage.peers[liar].left = Some(DisconnectReason::Silent);
            stage.engine.disconnected(stage.now, key);
            stage.collect();
            stage.read(piece);
            assert_eq!(stage.liars, n, "fast: {fast}");
        }
        stage.assert_stays(honest);
    }
}

/// The network is faster than the disk: what comes waits in memory, so no more is asked for but what reads wait for.
#[test]
fn a_slow_disk_holds_back_the_fill_and_no_read() {
    let mut stage = Stage::with(Fill::Full, None);
    stage.engine.max_storing = 1 << 20;
    stage.disk_is_slow = true;
    stage.join(true, RTT, honest());
    stage.run_for(Duration::from_millis(900));
    let fetched: u64 = stage.engine.traffic().fetched.iter().sum();
    assert!(fetched >= 1 << 20, "{fetched}");
    // And what was under way by then; the line would have brought eleven megabytes.
    assert!(fetched < 2 << 20, "{fetched} bytes came");
    let missing = (0..200).rev().find(|p| stage.engine.lacks(PieceIndex(*p)));
    let before = stage.engine.traffic().fetched[Band::Demand.index()];
    stage
        .engine
        .demand(stage.now, &[PieceIndex(missing.unwrap())]);
    stage.collect();
    stage.run_for(Duration::from_millis(100));
    let demand = stage.engine.traffic().fetched[Band::Demand.index()] - before;
    assert_eq!(demand, u64::from(PIECE));
    stage.run_for(Duration::from_secs(30));
    assert!(stage.engine.is_complete(), "it goes on when there is room");
}

#[test]
fn peers_are_told_of_several_pieces_at_once_and_soon() {
    let mut stage = Stage::new();
    stage.join(true, RTT, honest());
    // It has nothing, so it is told of everything.
    let key = stage.engine.connected(
        stage.now,
        SocketAddr::from(([127, 0, 0, 1], 2)),
        None,
        Abilities {
            extended: true,
            fast: true,
            ..Abilities::default()
        },
    );
    stage.collect();
    stage.run_for(Duration::from_millis(100));
    let pieces: Vec<_> = (0..8).map(PieceIndex).collect();
    stage.engine.demand(stage.now, &pieces);
    stage.collect();
    stage.run_for(Duration::from_secs(1));
    let last = stage.ready.values().max().copied().unwrap();
    assert_eq!((stage.ready.len(), stage.haves.len()), (8, 8));
    assert!(stage.engine.peers.contains_key(&key));
    let times: std::collections::BTreeSet<_> = stage.haves.iter().collect();
    assert!(times.len() <= 5, "{} times", times.len());
    for told in stage.haves {
        assert!(told.since(last) <= Duration::from_millis(11));
    }
}

/// A read that was answered too late, and then nothing to ask for: that is no silence.
#[test]
fn who_answered_late_is_not_left_when_the_guest_rests() {
    for fast in [false, true] {
        let mut stage = Stage::new();
        // When two let a read wait, two others are asked in their place.
        let late = [0, 1].map(|_| {
            let script: Script = Box::new(|r| vec![(Duration::from_millis(800), right(r))]);
            stage.join(fast, RTT / 4, script)
        });
        for _ in 0..2 {
            stage.join(fast, RTT * 4, honest());
        }
        stage.run_for(Duration::from_millis(200));
        stage.read(0);
        for peer in late {
            assert!(stage.peers[peer].asked > 0, "it was not asked");
        }
        for _ in 0..12 {
            for peer in late {
                // Its word, as of an idle peer.
                let at = stage.now + Duration::from_secs(10);
                stage.happens(at, Happening::Heard(peer, WireMessage::KeepAlive));
            }
            stage.run_for(Duration::from_secs(10));
        }
        for peer in late {
            stage.assert_stays(peer);
            assert!(!stage.engine.peers[&stage.peers[peer].key].snubbed);
        }
    }
}

/// Blocks pushed at a piece that somebody else is asked for must not cost that one its name.
#[test]
fn blocks_pushed_at_another_s_piece_blame_nobody_but_the_pusher() {
    for fast in [false, true] {
        let mut stage = Stage::new();
        let pusher = stage.join(fast, RTT * 10, mute());
        let honest = stage.join(fast, RTT, honest());
        stage.run_for(Duration::from_millis(500));
        for piece in 0..40 {
            for begin in (0..4).map(|n| n * (16 << 10)) {
                let r = WireRequest {
                    piece,
                    begin,
                    length: 16 << 10,
                };
                // They arrive while the honest peer's are under way.
                let at = self::Happening::Heard(pusher, wrong(r));
                stage.happens(stage.now + Duration::from_millis(5), at);
            }
            let wait = stage.read(piece);
            assert!(wait < 2.0 * ONE_REREQUEST, "piece {piece}: {wait:.0} ms");
        }
        stage.assert_stays(honest);
    }
}

#[test]
fn several_peers_that_never_answer_cost_the_first_read_a_rerequest_for_every_two() {
    for (fast, count) in [(false, 2), (true, 2), (false, 5), (true, 5), (true, 20)] {
        let mut stage = Stage::new();
        for _ in 0..count {
            stage.join(fast, RTT / 2, mute());
        }
        let honest = stage.join(fast, RTT, honest());
        stage.run_for(Duration::from_millis(100));
        let waits = stage.reads(50);
        let bound = ONE_REREQUEST * (1.0 + f64::from(count) / 2.0);
        assert!(longest(&waits) < bound, "{count} of them: {waits:.0?}");
        let later = &waits[10..];
        let mean = later.iter().sum::<f64>() / later.len() as f64;
        assert!(mean < 40.0, "{count} of them, later: {later:.0?}");
        stage.assert_stays(honest);
    }
}

#[test]
fn a_peer_whose_blocks_are_always_late_is_asked_less_and_less() {
    for (waits, left) in
        beside_an_honest_one(|| Box::new(|r| vec![(Duration::from_secs(25), right(r))]))
    {
        let after = &waits[25..];
        let mean = after.iter().sum::<f64>() / after.len() as f64;
        assert!(mean < 40.0, "left: {left:?}, waits: {waits:.0?}");
    }
}

#[test]
fn a_peer_that_breaks_the_protocol_is_left_and_costs_one_rerequest() {
    let breaks: [fn(WireRequest) -> WireMessage; 5] = [
        |_| WireMessage::Have(200),
        |_| WireMessage::Bitfield(Bytes::from_static(&[0xff; 3])),
        |r| piece(r, vec![1; 77]),
        |r| piece(WireRequest { piece: 999, ..r }, vec![1; 16_384]),
        |r| WireMessage::Request(WireRequest { length: 0, ..r }),
    ];
    for message in breaks {
        let left = costs_one_rerequest(|| Box::new(move |r| at_once([message(r)])));
        for left in left {
            assert!(
                matches!(left, Some(DisconnectReason::Protocol(_))),
                "{left:?}"
            );
        }
    }
}

/// A download limit is a limit on what comes. What is asked for and refused must not use it up.
#[test]
fn a_download_limit_is_not_used_up_by_requests_that_are_refused() {
    let limit = 2_000_000;
    let refusals: [fn() -> Script; 2] = [
        || Box::new(|_| at_once([WireMessage::Choke, WireMessage::Unchoke])),
        || Box::new(|r| at_once([WireMessage::Reject(r)])),
    ];
    for refusal in refusals {
        for fast in [false, true] {
            let mut stage = Stage::with(Fill::Full, Some(limit));
            stage.join(fast, RTT / 2, refusal());
            stage.join(fast, RTT, honest());
            stage.run_for(Duration::from_secs(4));
            let fetched: u64 = stage.engine.traffic().fetched.iter().sum();
            assert!(
                fetched > 4 * limit * 8 / 10,
                "{fetched} bytes in 4 s at {limit} a second, fast: {fast}"
            );
        }
    }
}
