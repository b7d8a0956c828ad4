//! Property tests: random swarms, wants and losses against the promises in the module's header.

use std::collections::HashSet;

use proptest::prelude::*;

use super::pick::MAX_OPEN_BYTES;
use super::*;

const PIECES: u32 = 12;
const PIECE: u32 = 32 * 1024;

#[derive(Clone, Debug)]
enum Op {
    Join(usize, Vec<bool>),
    Have(usize, u32),
    Leave(usize),
    Choke(usize),
    Want(u32, usize),
    Pick(usize, usize),
    Deliver(usize),
    Verified(u32, bool),
    Damaged(u32),
    DropReadahead,
}

fn op() -> impl Strategy<Value = Op> {
    let peer = 0usize..4;
    let piece = 0u32..PIECES;
    prop_oneof![
        1 => (peer.clone(), proptest::collection::vec(any::<bool>(), PIECES as usize))
            .prop_map(|(p, f)| Op::Join(p, f)),
        1 => (peer.clone(), piece.clone()).prop_map(|(p, i)| Op::Have(p, i)),
        1 => peer.clone().prop_map(Op::Leave),
        1 => peer.clone().prop_map(Op::Choke),
        1 => (piece.clone(), 0usize..3).prop_map(|(i, b)| Op::Want(i, b)),
        4 => (peer.clone(), 0usize..4).prop_map(|(p, b)| Op::Pick(p, b)),
        4 => peer.prop_map(Op::Deliver),
        2 => (piece.clone(), any::<bool>()).prop_map(|(i, ok)| Op::Verified(i, ok)),
        1 => piece.prop_map(Op::Damaged),
        1 => Just(Op::DropReadahead),
    ]
}

/// What the picker was told and what it gave, kept apart from it.
struct Model {
    picker: Picker,
    skipped: HashSet<u32>,
    had: HashSet<u32>,
    verifying: HashSet<u32>,
    wanted: HashMap<u32, Band>,
    asked: HashSet<(usize, BlockIndex)>,
    received: HashSet<BlockIndex>,
}

impl Model {
    fn new(skipped: HashSet<u32>, had: HashSet<u32>) -> Self {
        let geometry = Geometry::new(u64::from(PIECES * PIECE) - 1000, PIECE).unwrap();
        let picker = Picker::new(
            geometry,
            |p| skipped.contains(&p.0),
            |p| had.contains(&p.0),
            7,
        );
        let had = had.difference(&skipped).copied().collect();
        Self {
            picker,
            skipped,
            had,
            verifying: HashSet::new(),
            wanted: HashMap::default(),
            asked: HashSet::new(),
            received: HashSet::new(),
        }
    }

    fn fetchable(&self, piece: u32) -> bool {
        !self.skipped.contains(&piece)
            && !self.had.contains(&piece)
            && !self.verifying.contains(&piece)
    }

    /// Blocks that nobody was asked for and that `peer` has, by the best band that wants them.
    fn free_for(&self, peer: usize) -> Vec<(Band, BlockIndex)> {
        let Some(field) = self.picker.field(PeerKey(peer)) else {
            return Vec::new();
        };
        let geometry = self.picker.geometry();
        field
            .ones()
            .filter(|p| self.fetchable(p.0))
            .flat_map(|piece| {
                let band = self
                    .wanted
                    .get(&piece.0)
                    .copied()
                    .unwrap_or(Band::Background);
                (0..geometry.block_count(piece))
                    .map(move |block| (band, BlockIndex { piece, block }))
            })
            .filter(|(_, b)| !self.received.contains(b))
            .filter(|(_, b)| !self.asked.iter().any(|(_, a)| a == b))
            .collect()
    }

    fn lose(&mut self, piece: u32) {
        self.asked.retain(|(_, b)| b.piece.0 != piece);
        self.received.retain(|b| b.piece.0 != piece);
        self.verifying.remove(&piece);
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Join(p, bits) => {
                let key = PeerKey(p);
                if self.picker.field(key).is_some() {
                    return;
                }
                let mut field = Bitfield::new(PIECES);
                for (i, b) in bits.into_iter().enumerate() {
                    field.set(PieceIndex(i as u32), b);
                }
                self.picker.add_peer(key);
                self.picker.set_field(key, field);
            }
            Op::Have(p, i) => {
                self.picker.add_have(PeerKey(p), PieceIndex(i));
            }
            Op::Leave(p) => {
                self.picker.remove_peer(PeerKey(p));
                self.asked.retain(|(q, _)| *q != p);
            }
            Op::Choke(p) => {
                self.picker.release(PeerKey(p));
                self.asked.retain(|(q, _)| *q != p);
            }
            Op::Want(i, b) => {
                let band = Band::ALL[b];
                self.picker.want(PieceIndex(i), band);
                if self.fetchable(i) || self.verifying.contains(&i) {
                    let best = self.wanted.entry(i).or_insert(band);
                    *best = (*best).min(band);
                }
            }
            Op::Pick(p, b) => self.pick(p, Band::ALL[b]),
            Op::Deliver(p) => {
                let Some(&(_, block)) = self.asked.iter().find(|(q, _)| *q == p) else {
                    return;
                };
                match self.picker.receive(PeerKey(p), block) {
                    BlockArrival::New {
                        complete, others, ..
                    } => {
                        assert!(self.received.insert(block));
                        assert_eq!(
                            others.iter().flatten().count(),
                            self.asked
                                .iter()
                                .filter(|(q, b)| *q != p && *b == block)
                                .count()
                        );
                        self.asked.retain(|(_, b)| *b != block);
                        if complete {
                            self.verifying.insert(block.piece.0);
                        }
                        let n = self.picker.geometry().block_count(block.piece);
                        let here = self
                            .received
                            .iter()
                            .filter(|b| b.piece == block.piece)
                            .count();
                        assert_eq!(complete, here == n as usize);
                    }
                    BlockArrival::Unwanted => panic!("an asked block was not wanted"),
                }
            }
            Op::Verified(i, ok) => {
                if !self.verifying.contains(&i) {
                    return;
                }
                self.lose(i);
                if ok {
                    self.picker.have(PieceIndex(i));
                    self.had.insert(i);
                    self.wanted.remove(&i);
                } else {
                    self.picker.lost(PieceIndex(i));
                }
            }
            Op::Damaged(i) => {
                if self.had.remove(&i) {
                    self.picker.lost(PieceIndex(i));
                }
            }
            Op::DropReadahead => {
                self.picker.drop_wants(Band::Readahead, |_| false);
                let open: HashSet<u32> = self
                    .asked
                    .iter()
                    .map(|(_, b)| b.piece.0)
                    .chain(self.received.iter().map(|b| b.piece.0))
                    .collect();
                let picker = &self.picker;
                self.wanted.retain(|i, band| {
                    *band != Band::Readahead
                        || open.contains(i)
                        || picker.band(PieceIndex(*i)).is_some()
                });
            }
        }
        let missing = (0..PIECES).filter(|i| !self.skipped.contains(i) && !self.had.contains(i));
        assert_eq!(self.picker.missing() as usize, missing.count());
    }

    fn pick(&mut self, p: usize, lowest: Band) {
        let free = self.free_for(p);
        let best = free.iter().map(|(band, _)| *band).min();
        match self.picker.pick(PeerKey(p), lowest) {
            Some(pick) => {
                assert!(
                    self.fetchable(pick.block.piece.0),
                    "{pick:?} is not to be fetched"
                );
                assert!(self.picker.has(PeerKey(p), pick.block.piece));
                assert!(pick.band <= lowest);
                // Nothing outside the policy.
                if pick.band != Band::Background {
                    assert_eq!(self.wanted.get(&pick.block.piece.0), Some(&pick.band));
                }
                // Never a lower band before a higher one.
                assert_eq!(Some(pick.band), best, "picked {pick:?} of {free:?}");
                assert!(
                    free.iter().any(|(_, b)| *b == pick.block),
                    "asked twice: {pick:?}"
                );
                self.asked.insert((p, pick.block));
            }
            // No piece is starved.
            None => assert!(
                best.is_none_or(|b| b > lowest),
                "nothing picked of {free:?}"
            ),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn bands_are_strict_and_nothing_is_starved_or_fetched_in_vain(
        skipped in proptest::collection::hash_set(0u32..PIECES, 0..4),
        had in proptest::collection::hash_set(0u32..PIECES, 0..4),
        ops in proptest::collection::vec(op(), 1..200),
    ) {
        let mut model = Model::new(skipped, had);
        for op in ops {
            model.apply(op);
        }
    }

    #[test]
    fn a_full_fill_ends_with_every_piece(
        skipped in proptest::collection::hash_set(0u32..PIECES, 0..4),
        seed in any::<u64>(),
    ) {
        let geometry = Geometry::new(u64::from(PIECES * PIECE) - 1000, PIECE).unwrap();
        let mut picker = Picker::new(geometry, |p| skipped.contains(&p.0), |_| false, seed);
        for (peer, start) in [(PeerKey(0), 0), (PeerKey(1), PIECES / 2)] {
            picker.add_peer(peer);
            let mut field = Bitfield::new(PIECES);
            for i in start..start + PIECES / 2 {
                field.set(PieceIndex(i), true);
            }
            picker.set_field(peer, field);
        }
        let mut blocks = HashSet::new();
        for peer in [PeerKey(0), PeerKey(1)].into_iter().cycle() {
            let Some(pick) = picker.pick(peer, Band::Background) else {
                if picker.missing() == 0 {
                    break;
                }
                continue;
            };
            prop_assert!(blocks.insert(pick.block));
            if let BlockArrival::New { complete: true, .. } = picker.receive(peer, pick.block) {
                picker.have(pick.block.piece);
            }
        }
        let expected: u32 = geometry
            .pieces()
            .filter(|p| !skipped.contains(&p.0))
            .map(|p| geometry.block_count(p))
            .sum();
        prop_assert_eq!(blocks.len(), expected as usize);
    }
}

#[test]
fn a_late_block_is_asked_of_one_other_peer_and_the_loser_is_named() {
    let geometry = Geometry::new(u64::from(PIECE), PIECE).unwrap();
    let mut picker = Picker::new(geometry, |_| false, |_| false, 1);
    let mut field = Bitfield::new(1);
    field.set(PieceIndex(0), true);
    for p in 0..3 {
        picker.add_peer(PeerKey(p));
        picker.set_field(PeerKey(p), field.clone());
    }
    picker.want(PieceIndex(0), Band::Demand);
    let block = BlockIndex {
        piece: PieceIndex(0),
        block: 0,
    };
    assert!(picker.ask(PeerKey(0), block));
    assert_eq!(picker.asked_of(block), [PeerKey(0)]);
    assert!(picker.ask(PeerKey(1), block));
    assert!(
        !picker.ask(PeerKey(2), block),
        "a third peer is one too many"
    );
    let arrival = picker.receive(PeerKey(1), block);
    let expected = BlockArrival::New {
        band: Band::Demand,
        others: [Some(PeerKey(0)), None],
        complete: false,
    };
    assert_eq!(arrival, expected);
    assert_eq!(picker.receive(PeerKey(0), block), BlockArrival::Unwanted);
}

#[test]
fn demand_overtakes_a_piece_that_was_begun_in_the_background() {
    let geometry = Geometry::new(u64::from(PIECE) * 2, PIECE).unwrap();
    let mut picker = Picker::new(geometry, |_| false, |_| false, 1);
    let peer = PeerKey(0);
    picker.add_peer(peer);
    let mut field = Bitfield::new(2);
    field.set(PieceIndex(0), true);
    field.set(PieceIndex(1), true);
    picker.set_field(peer, field);
    let first = picker.pick(peer, Band::Background).unwrap();
    let other = PieceIndex(1 - first.block.piece.0);
    picker.want(other, Band::Demand);
    assert_eq!(
        picker.pick(peer, Band::Background).unwrap().block.piece,
        other
    );
    assert!(picker.want(first.block.piece, Band::Demand));
    assert_eq!(picker.band(first.block.piece), Some(Band::Demand));
}

#[test]
fn peers_fill_different_pieces_and_help_out_only_at_the_end() {
    let geometry = Geometry::new(u64::from(PIECE) * 2, PIECE).unwrap();
    let mut picker = Picker::new(geometry, |_| false, |_| false, 1);
    for p in 0..3 {
        picker.add_peer(PeerKey(p));
        let mut field = Bitfield::new(2);
        field.set(PieceIndex(0), true);
        field.set(PieceIndex(1), true);
        picker.set_field(PeerKey(p), field);
    }
    let mut next = |p| {
        picker
            .pick(PeerKey(p), Band::Background)
            .map(|k| k.block.piece)
    };
    let (first, second) = (next(0), next(1));
    assert_ne!(first, second);
    assert_eq!(next(0), first, "a peer goes on with what it began");
    assert_eq!(next(2), second, "nothing new is left: it helps");
    assert_eq!(next(2), None);
}

#[test]
fn peers_help_each_other_rather_than_begin_more_than_memory_should_hold() {
    let length = 32 << 20;
    let geometry = Geometry::new(u64::from(length) * 10, length).unwrap();
    let mut picker = Picker::new(geometry, |_| false, |_| false, 1);
    let mut begun = HashSet::new();
    for p in 0..6 {
        picker.add_peer(PeerKey(p));
        picker.set_field(PeerKey(p), Bitfield::full(10));
        begun.insert(
            picker
                .pick(PeerKey(p), Band::Background)
                .unwrap()
                .block
                .piece,
        );
    }
    assert_eq!(begun.len() as u64 * u64::from(length), MAX_OPEN_BYTES);
}

#[test]
fn a_peer_that_prefers_runs_is_asked_for_pieces_in_a_row_and_anew_after_a_while() {
    let geometry = Geometry::new(u64::from(PIECE) * 1000, PIECE).unwrap();
    let mut picker = Picker::new(geometry, |_| false, |p| p.0 % 100 == 50, 1);
    let peer = PeerKey(0);
    picker.add_peer(peer);
    picker.set_field(peer, Bitfield::full(1000));
    picker.prefer_runs(peer);
    let mut pieces = Vec::new();
    while let Some(pick) = picker.pick(peer, Band::Background) {
        if pieces.last() != Some(&pick.block.piece.0) {
            pieces.push(pick.block.piece.0);
        }
        picker.receive(peer, pick.block);
    }
    assert_eq!(pieces.len(), 990, "each once, and none that is here");
    let runs: Vec<usize> = pieces
        .chunk_by(|a, b| *b == a + 1)
        .map(<[u32]>::len)
        .collect();
    let longest = (1 << 20) / PIECE as usize;
    assert!(runs.iter().all(|r| *r <= 2 * longest), "{runs:?}");
    assert!(runs.len() < 990 / 5, "{} runs", runs.len());
}

/// Pieces in the order in which they are begun at a peer, up to the end.
fn begun_at(picker: &mut Picker, peer: PeerKey) -> Vec<u32> {
    let mut pieces = Vec::new();
    while let Some(pick) = picker.pick(peer, Band::Background) {
        if pieces.last() != Some(&pick.block.piece.0) {
            pieces.push(pick.block.piece.0);
        }
        picker.receive(peer, pick.block);
    }
    pieces
}

#[test]
fn extents_come_whole_and_in_another_order_for_each_who_fetches() {
    let geometry = Geometry::new(u64::from(PIECE) * 1000, PIECE).unwrap();
    let extent = Extents::new(PIECE).pieces();
    let order = |seed| {
        let mut picker = Picker::new(geometry, |_| false, |p| p.0 == 83, seed);
        let peer = PeerKey(0);
        picker.add_peer(peer);
        picker.set_field(peer, Bitfield::full(1000));
        let pieces = begun_at(&mut picker, peer);
        assert_eq!(pieces.len(), 999);
        let extents: Vec<&[u32]> = pieces
            .chunk_by(|a, b| *b == a + 1 && b % extent != 0)
            .collect();
        let parts = extents.iter().filter(|e| e.len() < extent as usize);
        assert_eq!(parts.count(), 2, "before and behind the piece that is here");
        extents.iter().map(|e| e[0]).collect::<Vec<u32>>()
    };
    assert_ne!(order(1), order(2));
}

#[test]
fn what_is_rarer_comes_before_the_rest_of_an_extent() {
    let extent = Extents::new(PIECE).pieces();
    let geometry = Geometry::new(u64::from(Extents::LENGTH) * 2, PIECE).unwrap();
    let mut picker = Picker::new(geometry, |_| false, |_| false, 3);
    let (seed, trader) = (PeerKey(0), PeerKey(1));
    picker.add_peer(trader);
    for p in (0..extent).filter(|p| *p != 3) {
        picker.add_have(trader, PieceIndex(p));
    }
    picker.add_peer(seed);
    picker.set_field(seed, Bitfield::full(extent * 2));
    let pieces = begun_at(&mut picker, seed);
    let (rare, others) = pieces.split_at(extent as usize + 1);
    assert!(rare.iter().all(|p| *p == 3 || *p >= extent), "{rare:?}");
    let others: HashSet<u32> = others.iter().copied().collect();
    assert_eq!(others, (0..extent).filter(|p| *p != 3).collect());
}
