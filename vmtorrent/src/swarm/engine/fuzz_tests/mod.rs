//! Streams of messages, valid and mutated, in any fragmentation, into the decoder and from there into a live engine:
//! nothing panics, and what the engine keeps of a peer is bounded.

mod events;
mod extensions;
mod messages;
mod rig;

use proptest::prelude::*;

use self::events::{Event, event};
use self::rig::Rig;
use super::network::piece_data;
use super::*;

const PIECES: u32 = 11;
const PIECE: u32 = 40_000;

proptest! {
    // PROPTEST_CASES makes it more.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(300)))]

    #[test]
    fn whatever_peers_send_nothing_panics_and_all_is_bounded(
        have in proptest::collection::vec(any::<bool>(), PIECES as usize),
        events in proptest::collection::vec(event(), 1..60),
        fragment in prop_oneof![1..40_usize, 40..20_000_usize],
    ) {
        let mut rig = Rig::new(&have);
        rig.happen(Event::Connect(true, true), 1);
        rig.happen(Event::Connect(true, false), 1);
        for event in events {
            rig.happen(event, fragment);
        }
        // And after all of it an honest peer completes what is missing.
        while let Some(line) = rig.lines.pop() {
            rig.engine.disconnected(rig.now, line.key);
        }
        rig.happen(Event::Sent(true), 1);
        rig.happen(Event::Stored(true), 1);
        rig.happen(Event::SetFill(2), 1);
        rig.happen(Event::Time(60_000), 1);
        prop_assert!(completes(&mut rig), "{} are missing", rig.engine.picker.missing());
    }
}

/// Whether one honest peer is enough to complete the image.
fn completes(rig: &mut Rig) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let abilities = Abilities::default();
    let key = rig.engine.connected(rig.now, address, None, abilities);
    let all = Bitfield::full(PIECES).to_wire();
    let mut said = vec![WireMessage::Bitfield(all.into()), WireMessage::Unchoke];
    for _ in 0..2000 {
        if rig.engine.is_complete() {
            return true;
        }
        for message in std::mem::take(&mut said) {
            rig.engine.received(rig.now, key, message);
        }
        rig.now = rig.now + Duration::from_millis(20);
        rig.engine.tick(rig.now);
        for output in rig.engine.take_outputs() {
            match output {
                Output::Send(_, WireMessage::Request(r)) => {
                    let data = piece_data(
                        r.piece,
                        rig.image.geometry().piece_length(PieceIndex(r.piece)),
                    );
                    let data = data[r.begin as usize..][..r.length as usize].to_vec();
                    said.push(WireMessage::Piece {
                        piece: r.piece,
                        begin: r.begin,
                        data: data.into(),
                    });
                }
                Output::Store(piece, data) => {
                    // Blocks that others gave before may have spoilt it: then it comes again, whole.
                    if crate::test_image::sha1(&data) == *rig.image.piece_hash(piece) {
                        rig.engine.stored(rig.now, piece);
                    } else {
                        rig.engine.mismatched(rig.now, piece);
                    }
                }
                _ => {}
            }
        }
    }
    rig.engine.is_complete()
}
