//! Blocks in compressed form, in virtual time: what they save, when they are wanted, and what is refused.

use super::network::{Net, image, piece_data};
use super::stage::{PIECE, Stage, at_once, honest, mute, right};
use super::*;
use crate::swarm::compression::{CompressedBlock, ZstdMessage};
use crate::swarm::wire::{ExtendedHello, VMT_ZSTD};

const PIECES: u32 = 200;
/// About what blocks of a VM's image save.
const SHARE: f64 = 0.4;

/// A seed and a leech on a line; whether each of them has compression on.
fn pair(mbit: f64, seed_on: bool, leech_on: bool) -> (Net, usize, usize) {
    pair_at(20, mbit, seed_on, leech_on)
}

fn pair_at(rtt_ms: u64, mbit: f64, seed_on: bool, leech_on: bool) -> (Net, usize, usize) {
    let mut net = Net::new(image(PIECES, PIECE), rtt_ms);
    let seed = net.node(mbit, true, Fill::None);
    let leech = net.node(mbit, false, Fill::Full);
    net.nodes[seed].share = SHARE;
    for (node, on) in [(seed, seed_on), (leech, leech_on)] {
        if on {
            net.nodes[node].engine.enable_compression();
        }
    }
    net.link(leech, seed);
    (net, seed, leech)
}

/// Seconds until the leech has everything.
fn complete(net: &mut Net, leech: usize) -> f64 {
    let start = net.now;
    while !net.nodes[leech].engine.is_complete() {
        net.run_for(1);
        assert!(net.now.since(start) < Duration::from_secs(600));
    }
    net.now.since(start).as_secs_f64()
}

fn traffic(net: &Net, node: usize) -> Traffic {
    net.nodes[node].engine.traffic()
}

#[test]
fn a_slow_line_carries_an_image_in_the_share_of_the_time_that_its_blocks_take() {
    let (mut plain, _, leech) = pair(25.0, true, false);
    let without = complete(&mut plain, leech);
    let (mut net, seed, leech) = pair(25.0, true, true);
    let with = complete(&mut net, leech);
    assert!(with < 0.5 * without, "{with} s, {without} s without");
    let length = net.image.geometry().total_length();
    let (got, sent) = (traffic(&net, leech), traffic(&net, seed));
    assert_eq!(got.fetched.iter().sum::<u64>(), length);
    assert_eq!(sent.uploaded, length);
    for wire in [got.fetched_wire, sent.uploaded_wire] {
        let share = wire as f64 / length as f64;
        assert!((share - SHARE).abs() < 0.01, "{share}");
    }
}

#[test]
fn who_does_not_announce_it_gets_plain_blocks() {
    for (seed_on, leech_on) in [(false, true), (true, false), (false, false)] {
        let (mut net, seed, leech) = pair(25.0, seed_on, leech_on);
        complete(&mut net, leech);
        let (got, sent) = (traffic(&net, leech), traffic(&net, seed));
        assert_eq!(got.fetched_wire, got.fetched.iter().sum::<u64>());
        assert_eq!(sent.uploaded_wire, sent.uploaded);
    }
}

#[test]
fn a_fast_line_is_given_plain_blocks_and_a_slow_one_compressed_ones_again() {
    let (mut net, seed, leech) = pair_at(2, 2000.0, true, true);
    net.nodes[leech].engine.set_fill(net.now, Fill::None);
    let mut first = 0;
    let mut take = |net: &mut Net, count: u32| {
        let before = traffic(net, leech);
        for piece in first..first + count {
            net.demand(leech, piece);
        }
        first += count;
        while !(0..first).all(|p| net.nodes[leech].ready.contains_key(&p)) {
            net.run_for(1);
        }
        let after = traffic(net, leech);
        let plain: u64 = after.fetched.iter().sum::<u64>() - before.fetched.iter().sum::<u64>();
        (after.fetched_wire - before.fetched_wire) as f64 / plain as f64
    };
    // Nothing is known of it at first.
    assert!(take(&mut net, 2) < 0.5);
    take(&mut net, 80);
    assert_eq!(take(&mut net, 20), 1.0, "fast");
    net.nodes[seed].rate = 5e6;
    for _ in 0..4 {
        net.run_for(700);
        take(&mut net, 15);
    }
    net.run_for(700);
    assert!(take(&mut net, 20) < 0.5, "slow again");
}

#[test]
fn limits_count_what_the_line_carries() {
    for at_seed in [true, false] {
        let (mut net, seed, leech) = pair(1000.0, true, true);
        let node = if at_seed { seed } else { leech };
        let engine = &mut net.nodes[node].engine;
        let limiter = if at_seed {
            &engine.upload
        } else {
            &engine.download
        };
        *limiter.lock() = Limiter::new(Some(1_000_000));
        net.run_for(2000);
        let got = traffic(&net, leech);
        let rate = got.fetched_wire as f64 / 2.0;
        assert!((0.85e6..=1.1e6).contains(&rate), "{at_seed}: {rate}");
        let plain = got.fetched.iter().sum::<u64>() as f64;
        assert!(plain * SHARE <= got.fetched_wire as f64 + 32_768.0);
    }
}

#[test]
fn a_read_overtakes_a_fill_of_compressed_blocks() {
    let (mut net, _, leech) = pair(25.0, true, true);
    net.run_for(400);
    let wait = net.timed_demand(leech, PIECES - 1);
    // A round trip, what is on the line, and the piece.
    assert!(wait < 80.0, "{wait} ms");
}

#[test]
fn wrong_bytes_in_compressed_form_are_blamed_and_taken_out_of_what_was_fetched() {
    let (mut net, seed, leech) = pair(25.0, true, true);
    net.nodes[leech].engine.set_fill(net.now, Fill::None);
    net.nodes[seed].liar = true;
    net.demand(leech, 3);
    net.run_for(500);
    assert_eq!(net.nodes[leech].disconnects, [DisconnectReason::BadData]);
    let got = traffic(&net, leech);
    assert_eq!((got.fetched, got.fetched_wire), ([0; 4], 0));
    assert_eq!(got.wasted, u64::from(PIECE));
}

/// What a peer that says `hello` and then `message` is left for.
fn left_for(on: bool, message: WireMessage) -> Option<DisconnectReason> {
    let mut stage = Stage::new();
    if on {
        stage.engine.enable_compression();
    }
    let peer = stage.join(true, Duration::from_millis(10), honest());
    let key = stage.peers[peer].key;
    let hello = ExtendedHello {
        vmt_zstd: Some(9),
        ..ExtendedHello::default()
    };
    for message in [WireMessage::ExtendedHello(hello), message] {
        stage.engine.received(stage.now, key, message);
        stage.collect();
    }
    stage.peers[peer].left.clone()
}

#[test]
fn what_was_not_agreed_on_ends_the_connection() {
    let zstd = |message| WireMessage::Zstd {
        extension: VMT_ZSTD,
        message,
    };
    let block = ZstdMessage::Block(CompressedBlock {
        block: WireRequest {
            piece: 0,
            begin: 0,
            length: 16_384,
        },
        frame: Bytes::from_static(b"frame"),
    });
    for message in [block, ZstdMessage::Wanted(true)] {
        let left = left_for(false, zstd(message));
        assert!(matches!(left, Some(DisconnectReason::Protocol(_))));
    }
    for wanted in [true, false] {
        assert_eq!(left_for(true, zstd(ZstdMessage::Wanted(wanted))), None);
    }
}

/// The form of blocks that the driver is told of.
fn forms(engine: &mut Engine) -> Vec<Option<u8>> {
    let outputs = engine.take_outputs().into_iter();
    let forms = outputs.filter_map(|output| match output {
        Output::Compress(_, extension) => Some(extension.map(NonZeroU8::get)),
        _ => None,
    });
    forms.collect()
}

#[test]
fn the_number_of_the_extension_may_change_and_a_peer_may_have_enough_of_it() {
    let mut stage = Stage::new();
    stage.engine.enable_compression();
    let peer = stage.join(true, Duration::from_millis(10), honest());
    let key = stage.peers[peer].key;
    let hello = |number| {
        WireMessage::ExtendedHello(ExtendedHello {
            vmt_zstd: number,
            ..ExtendedHello::default()
        })
    };
    let wanted = |wanted| WireMessage::Zstd {
        extension: VMT_ZSTD,
        message: ZstdMessage::Wanted(wanted),
    };
    for (message, expected) in [
        (hello(None), &[][..]),
        (hello(Some(7)), &[Some(7)]),
        (hello(Some(8)), &[Some(8)]),
        (wanted(true), &[]),
        (wanted(false), &[None]),
        (wanted(false), &[]),
        (hello(Some(8)), &[None]),
        (wanted(true), &[Some(8)]),
        // Left out, it stays as it was.
        (hello(None), &[]),
        (hello(Some(0)), &[None]),
    ] {
        stage.engine.received(stage.now, key, message);
        assert_eq!(forms(&mut stage.engine), expected);
    }
}

#[test]
fn blocks_that_nobody_asked_for_end_the_connection_in_compressed_form_too() {
    let mut stage = Stage::new();
    stage.engine.enable_compression();
    let peer = stage.join(true, Duration::from_millis(10), honest());
    let key = stage.peers[peer].key;
    let data = Bytes::from(piece_data(0, PIECE)).slice(..16_384);
    for _ in 0..300 {
        let block = WireMessage::Expanded {
            piece: 0,
            begin: 0,
            data: data.clone(),
            wire: 20,
            frame: Bytes::new(),
        };
        stage.engine.received(stage.now, key, block);
        stage.collect();
    }
    let left = &stage.peers[peer].left;
    assert!(matches!(left, Some(DisconnectReason::Protocol(_))));
    let traffic = stage.engine.traffic();
    assert_eq!((traffic.fetched, traffic.fetched_wire), ([0; 4], 0));
}

#[test]
fn what_came_compressed_goes_on_as_it_came_while_somebody_may_ask_for_it() {
    let mut stage = Stage::new();
    stage.engine.enable_compression();
    let compressed = |r: WireRequest| {
        let WireMessage::Piece { piece, begin, data } = right(r) else {
            unreachable!()
        };
        let frame = Bytes::from(vec![begin as u8; 20]);
        at_once([WireMessage::Expanded {
            piece,
            begin,
            data,
            wire: 20,
            frame,
        }])
    };
    let seed = stage.join(true, Duration::from_millis(10), Box::new(compressed));
    let hello = || {
        WireMessage::ExtendedHello(ExtendedHello {
            vmt_zstd: Some(3),
            ..ExtendedHello::default()
        })
    };
    let key = stage.peers[seed].key;
    stage.engine.received(stage.now, key, hello());
    stage.read(0);
    assert_eq!(stage.frames, [], "the seed needs none");
    let nothing = Bitfield::new(200);
    let guest = stage.join_with(true, Duration::from_millis(10), mute(), &nothing);
    stage.read(1);
    assert_eq!(stage.frames, [], "it has not said that it takes frames");
    let key = stage.peers[guest].key;
    stage.engine.received(stage.now, key, hello());
    stage.frames.clear();
    stage.read(2);
    let blocks = PIECE / 16_384;
    let came = (0..blocks).map(|block| (block, Bytes::from(vec![(block * 16_384) as u8; 20])));
    assert!(stage.frames.contains(&(2, came.collect())));
}
