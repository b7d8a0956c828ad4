//! What the engine makes of web seeds, in virtual time: the scripts answer as the task of a web seed does.

use std::cell::RefCell;
use std::rc::Rc;

use super::stage::*;
use super::*;
use crate::image::BLOCK_LENGTH;

/// See the tests of hostile peers: a late block is asked again after about 70 ms, and comes 26 ms later.
const ONE_REREQUEST: f64 = 150.0;
const BLOCKS: usize = (PIECE / BLOCK_LENGTH) as usize;

fn longest(waits: &[f64]) -> f64 {
    waits.iter().copied().fold(0.0, f64::max)
}

/// A web seed that is near, which follows `script`, and an honest peer that is not.
fn beside_a_peer(script: Script) -> (Stage, usize, usize) {
    let mut stage = Stage::new();
    let web = stage.join_web_seed(RTT / 2, script);
    let peer = stage.join(true, RTT, honest());
    stage.run_for(Duration::from_millis(100));
    (stage, web, peer)
}

#[test]
fn a_web_seed_alone_serves_reads_and_is_told_nothing_else() {
    let mut stage = Stage::new();
    let web = stage.join_web_seed(RTT, honest());
    let waits = stage.reads(20);
    assert!(longest(&waits) < 30.0, "{waits:.0?}");
    assert_eq!(stage.peers[web].asked, 20 * BLOCKS);
    assert_eq!(stage.peers[web].urgent, 20 * BLOCKS);
    assert!(stage.haves.is_empty());
    let traffic = stage.engine.traffic();
    assert_eq!(traffic.web_seeds, 20 * u64::from(PIECE));
    assert_eq!(traffic.fetched, [traffic.web_seeds, 0, 0, 0]);
    assert_eq!(
        (stage.engine.peer_count(), stage.engine.web_seed_count()),
        (0, 1)
    );
}

#[test]
fn reads_go_where_they_are_expected_first() {
    let (mut stage, web, peer) = beside_a_peer(honest());
    let waits = stage.reads(30);
    assert!(longest(&waits) < 30.0, "{waits:.0?}");
    let (near, far) = (stage.peers[web].asked, stage.peers[peer].asked);
    assert!(near > far, "{near} of the web seed, {far} of the peer");

    let mut stage = Stage::new();
    let web = stage.join_web_seed(RTT * 20, honest());
    let peer = stage.join(true, RTT, honest());
    stage.run_for(Duration::from_millis(100));
    let waits = stage.reads(30);
    assert!(longest(&waits) < 40.0, "{waits:.0?}");
    let (far, near) = (stage.peers[web].asked, stage.peers[peer].asked);
    assert!(near > 10 * far, "{far} of the web seed, {near} of the peer");
}

#[test]
fn a_web_seed_that_does_not_answer_costs_one_rerequest() {
    let (mut stage, web, peer) = beside_a_peer(mute());
    let waits = stage.reads(50);
    assert!(longest(&waits) < ONE_REREQUEST, "{waits:.0?}");
    assert!(stage.peers[web].asked > 0);
    stage.assert_stays(peer);
}

#[test]
fn a_web_seed_that_pauses_gives_back_what_it_was_asked_for() {
    // As the task says it: a choke, then a reject for each request.
    let script: Script = Box::new(|r| at_once([WireMessage::Choke, WireMessage::Reject(r)]));
    let (mut stage, web, peer) = beside_a_peer(script);
    let waits = stage.reads(20);
    assert!(longest(&waits) < 60.0, "{waits:.0?}");
    let asked = stage.peers[web].asked;
    assert!(asked > 0 && asked <= BLOCKS, "{asked}");
    stage.assert_stays(web);
    // It is asked again when it says so.
    stage.peers[web].script = honest();
    stage.peers[peer].script = mute();
    stage.happens(stage.now, Happening::Said(web, WireMessage::Unchoke));
    let waits = stage.reads(20);
    assert!(longest(&waits) < ONE_REREQUEST, "{waits:.0?}");
    assert!(stage.peers[web].asked > asked);
}

#[test]
fn wrong_bytes_count_against_it_and_another_source_is_asked() {
    let (mut stage, web, peer) = beside_a_peer(Box::new(|r| at_once([wrong(r)])));
    let waits = stage.reads(50);
    assert_eq!(stage.peers[web].left, Some(DisconnectReason::BadData));
    stage.assert_stays(peer);
    assert!(longest(&waits) < 2.0 * ONE_REREQUEST, "{waits:.0?}");
    assert_eq!(stage.engine.traffic().web_seeds, 0, "none of it was kept");
    assert_eq!(stage.engine.web_seed_count(), 0);
}

#[test]
fn a_web_seed_that_is_not_asked_stays() {
    let mut stage = Stage::new();
    let web = stage.join_web_seed(RTT, honest());
    stage.read(1);
    stage.run_for(Duration::from_secs(1000));
    stage.assert_stays(web);
    assert!(stage.read(2) < 60.0);
}

#[test]
fn the_background_asks_it_for_pieces_that_follow_each_other() {
    let asked = Rc::new(RefCell::new(Vec::new()));
    let noted = asked.clone();
    let mut stage = Stage::with(Fill::Full, None);
    let script: Script = Box::new(move |r| {
        noted
            .borrow_mut()
            .push(r.piece * BLOCKS as u32 + r.begin / BLOCK_LENGTH);
        at_once([right(r)])
    });
    stage.join_web_seed(RTT, script);
    stage.run_for(Duration::from_secs(3));
    assert!(stage.engine.is_complete());
    let asked = asked.borrow();
    assert_eq!(asked.len(), 200 * BLOCKS);
    let breaks = asked.windows(2).filter(|w| w[1] != w[0] + 1).count();
    // 200 pieces in runs of 16, but for the ends of what is free.
    assert!((10..40).contains(&breaks), "{breaks}");
}

#[test]
fn what_the_background_asked_for_gives_way_to_a_read() {
    let mut stage = Stage::with(Fill::Full, None);
    let web = stage.join_web_seed(RTT, honest());
    stage.run_for(Duration::from_millis(300));
    let missing = (0..200).find(|p| {
        stage.engine.picker.band(PieceIndex(*p)).is_none()
            && stage.engine.picker.is_missing(PieceIndex(*p))
    });
    let wait = stage.read(missing.unwrap());
    assert!(wait < 60.0, "{wait:.0} ms");
    assert_eq!(stage.peers[web].urgent, BLOCKS);
    stage.assert_stays(web);
}
