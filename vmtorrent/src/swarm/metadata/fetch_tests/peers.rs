//! What becomes of the description among good, bad and slow peers.

use super::*;

#[test]
fn one_peer_gives_all_and_each_piece_is_asked_for_once() {
    for length in [
        1,
        METADATA_PIECE as usize,
        METADATA_PIECE as usize + 1,
        LENGTH,
    ] {
        let mut net = Net::new(length);
        net.add(Script::Honest);
        net.run(Duration::from_secs(5));
        assert!(net.is_right());
        assert_eq!(
            net.requests,
            length.div_ceil(METADATA_PIECE as usize) as u32
        );
    }
}

#[test]
fn several_peers_share_the_work() {
    let mut net = Net::new(LENGTH);
    for _ in 0..4 {
        net.add(Script::Honest);
    }
    net.run(Duration::from_secs(5));
    assert!(net.is_right());
    assert_eq!(net.requests, PIECES);
    let helped = net.peers.values().filter(|p| p.answered > 0).count();
    assert!(helped >= 3, "{helped} of 4 were asked");
}

#[test]
fn each_kind_of_bad_peer_is_left_for_its_reason_and_holds_up_nobody() {
    let protocol = |why: &FetchEnd| matches!(why, FetchEnd::Protocol(_));
    let without = |why: &FetchEnd| *why == FetchEnd::Without;
    type Expected = fn(&FetchEnd) -> bool;
    let cases: [(Script, Expected); 14] = [
        (Script::Plain, without),
        (Script::Without, without),
        (Script::Zero, without),
        (Script::Huge, protocol),
        (Script::Fickle, protocol),
        (Script::Mute, |why| *why == FetchEnd::Silent),
        (Script::Silent, |why| *why == FetchEnd::Silent),
        (Script::Garbage, |why| *why == FetchEnd::WrongHash),
        (Script::WrongTotal, protocol),
        (Script::Short, protocol),
        (Script::Unasked, protocol),
        (Script::Rejects, without),
        (Script::Chatters, protocol),
        (Script::Blocks, protocol),
    ];
    for (script, expected) in cases {
        // Alone, it is found out.
        let mut net = Net::new(LENGTH);
        let key = net.add(script);
        net.run(Duration::from_secs(30));
        assert!(net.result.is_none(), "{script:?}");
        assert!(expected(&net.ends[&key]), "{script:?}: {:?}", net.ends);

        // Beside an honest one, it costs little.
        let mut net = Net::new(LENGTH);
        net.add(script);
        let honest = net.add(Script::Honest);
        net.run(Duration::from_secs(30));
        assert!(net.is_right(), "{script:?}");
        assert!(
            !net.ends.contains_key(&honest),
            "{script:?}: {:?}",
            net.ends
        );
        assert!(
            net.elapsed() < Duration::from_secs(2),
            "{script:?}: {:?}",
            net.elapsed()
        );
    }
}

#[test]
fn a_liar_among_several_contributors_is_told_from_the_others() {
    for spoilt in [1, 2, 7] {
        let mut net = Net::new(LENGTH);
        let liar = net.add(Script::Spoils(spoilt));
        let honest = [net.add(Script::Honest), net.add(Script::Honest)];
        net.run(Duration::from_secs(30));
        assert!(net.is_right());
        assert!(
            honest.iter().all(|k| !net.ends.contains_key(k)),
            "{:?}",
            net.ends
        );
        assert!(net.elapsed() < Duration::from_secs(1));
        // Nobody else is there: now it gives all of a copy, and is known by it.
        for key in honest {
            net.fetch.disconnected(net.now, key);
        }
        net.result = None;
        net.run(Duration::from_secs(30));
        assert_eq!(net.ends.get(&liar), Some(&FetchEnd::WrongHash));
    }
}

#[test]
fn liars_in_the_majority_with_one_wrong_length_do_not_win() {
    let mut net = Net::new(LENGTH);
    let liars: Vec<PeerKey> = (0..6).map(|_| net.add(Script::WrongSize(50_000))).collect();
    net.add(Script::HangsUp(3));
    net.run(Duration::from_secs(60));
    assert!(net.result.is_none());
    for liar in &liars {
        assert_eq!(net.ends.get(liar), Some(&FetchEnd::WrongHash));
    }
    // What the honest one gave before it left was kept.
    let before = net.requests;
    net.add(Script::Honest);
    net.run(Duration::from_secs(60));
    assert!(net.is_right());
    assert_eq!(net.requests - before, PIECES - 3);
}

#[test]
fn a_peer_that_refuses_at_first_is_asked_again_later() {
    let mut net = Net::new(LENGTH);
    let key = net.add(Script::RejectsFirst(PIPELINE as u32 + 1));
    net.run(Duration::from_secs(30));
    assert!(net.is_right());
    assert!(!net.ends.contains_key(&key));
    assert!(net.elapsed() >= REJECT_PAUSE);
}

#[test]
fn a_slow_peer_does_not_hold_back_the_last_piece() {
    let mut net = Net::new(LENGTH);
    net.add(Script::Dribbles);
    net.add(Script::Honest);
    net.run(Duration::from_secs(30));
    assert!(net.is_right());
    assert!(
        net.elapsed() < Duration::from_secs(2),
        "{:?}",
        net.elapsed()
    );
}

#[test]
fn a_peer_that_gives_little_loses_its_place_to_those_that_wait() {
    let mut net = Net::new(LENGTH);
    let key = net.add(Script::Dribbles);
    net.run(PATIENCE + TICK);
    assert!(net.ends.is_empty(), "nobody waited");
    net.fetch.tick(net.now, true);
    net.carry_out();
    assert_eq!(net.ends.get(&key), Some(&FetchEnd::Slow));
}

#[test]
fn claims_cost_no_memory_and_what_is_kept_is_bounded() {
    let mut net = Net::new(LENGTH);
    let size = MAX_TORRENT_BYTES as u32;
    // Each claims another length, and sends what it can.
    for n in 0..8 {
        net.add(Script::WrongSize(size - n));
    }
    net.run(Duration::from_secs(20));
    assert!(net.result.is_none());
    assert!(
        net.most_held <= 2 * BUDGET,
        "{} bytes are kept",
        net.most_held
    );
    // A short one still gets through.
    net.add(Script::Honest);
    net.run(Duration::from_secs(1));
    assert!(net.is_right());
    // They come and go: little is left of them.
    let keys: Vec<PeerKey> = net.peers.keys().copied().collect();
    for key in keys {
        net.fetch.disconnected(net.now, key);
        assert!(net.fetch.assemblies.len() <= 8 + MAX_ORPHANS);
    }
    assert!(net.fetch.held() <= MAX_ORPHANED, "{}", net.fetch.held());
}

fn script() -> impl Strategy<Value = Script> {
    let spoils = (1u32..25).prop_map(Script::Spoils);
    let wrong_size = (1u32..600_000).prop_map(Script::WrongSize);
    let hangs_up = (0u32..25).prop_map(Script::HangsUp);
    let rejects = (0u32..12).prop_map(Script::RejectsFirst);
    let plain = prop::sample::select(vec![
        Script::Plain,
        Script::Without,
        Script::Zero,
        Script::Huge,
        Script::Fickle,
        Script::Mute,
        Script::Silent,
        Script::Dribbles,
        Script::Garbage,
        Script::WrongTotal,
        Script::Short,
        Script::Unasked,
        Script::Rejects,
        Script::Chatters,
        Script::Blocks,
    ]);
    prop_oneof![4 => plain, 2 => spoils, 1 => wrong_size, 1 => hangs_up, 1 => rejects]
}

#[test]
fn two_slow_peers_hold_up_no_third() {
    let mut net = Net::new(81_921);
    net.add(Script::Dribbles);
    net.add(Script::Dribbles);
    net.add(Script::Honest);
    net.run(Duration::from_secs(45));
    assert!(net.is_right());
    let elapsed = net.elapsed();
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// With one honest peer among any others, the right bytes come, soon, and the honest one is not blamed.
    #[test]
    fn whoever_else_is_there_one_honest_peer_is_enough(
        length in 1usize..400_000,
        others in proptest::collection::vec((script(), 0u64..3000), 0..7),
        place in 0usize..7,
    ) {
        let mut net = Net::new(length);
        let mut honest = None;
        for (n, (script, pause)) in others.into_iter().enumerate() {
            if n == place {
                honest = Some(net.add(Script::Honest));
            }
            net.add(script);
            net.run(Duration::from_millis(pause));
        }
        let honest = honest.or_else(|| net.result.is_none().then(|| net.add(Script::Honest)));
        net.run(Duration::from_secs(45));
        prop_assert!(net.is_right());
        if let Some(honest) = honest {
            prop_assert!(!net.ends.contains_key(&honest), "{:?}", net.ends);
        }
    }
}

#[test]
fn a_seed_that_tells_each_of_its_pieces_is_asked_all_the_same() {
    let mut net = Net::new(50_000);
    let key = net.add(Script::Honest);
    for piece in 0..=2 * MAX_CHATTER {
        net.say(key, WireMessage::Have(piece));
    }
    net.run(Duration::from_secs(5));
    assert!(net.is_right());
    assert!(net.ends.is_empty(), "{:?}", net.ends);
}
