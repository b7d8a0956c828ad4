//! Invariant: `order` holds each candidate once, sorted by availability; `bounds[a]` is where the
//! candidates with availability `a` or more begin; `position` inverts `order`.

use rand::seq::SliceRandom;

use crate::Bitfield;
use crate::image::PieceIndex;

const ABSENT: u32 = u32::MAX;

/// The pieces that background fetching may begin, rarest first.
///
/// A change of availability by one moves a piece across one bucket border by a swap, so it costs O(1)
/// (the structure that libtorrent's piece picker made known). Peers that have everything are not
/// counted: they change no order. The start order is shuffled, so that peers that start together with
/// the same view pick different pieces and trade them.
#[derive(Debug)]
pub(super) struct Rarity {
    availability: Vec<u16>,
    order: Vec<u32>,
    position: Vec<u32>,
    bounds: Vec<u32>,
    candidates: Bitfield,
}

/// How many candidates are looked at in order of rarity before a pick settles for any that the peer has.
const SCAN: usize = 256;

impl Rarity {
    pub(super) fn new(
        pieces: u32,
        candidates: impl Iterator<Item = PieceIndex>,
        rng: &mut impl rand::Rng,
    ) -> Self {
        let mut order: Vec<u32> = candidates.map(|p| p.0).collect();
        order.shuffle(rng);
        let mut position = vec![ABSENT; pieces as usize];
        let mut field = Bitfield::new(pieces);
        for (i, &p) in order.iter().enumerate() {
            position[p as usize] = i as u32;
            field.set(PieceIndex(p), true);
        }
        let end = order.len() as u32;
        Self {
            availability: vec![0; pieces as usize],
            order,
            position,
            // Bucket 0 holds all; `bounds` always has one entry behind the highest availability.
            bounds: vec![0, end],
            candidates: field,
        }
    }

    pub(super) fn availability(&self, piece: PieceIndex) -> u16 {
        self.availability[piece.as_usize()]
    }

    pub(super) fn candidates(&self) -> &Bitfield {
        &self.candidates
    }

    pub(super) fn increase(&mut self, piece: PieceIndex) {
        let a = self.availability[piece.as_usize()];
        if a == u16::MAX {
            return;
        }
        if self.position[piece.as_usize()] != ABSENT {
            self.move_up(piece.0, a as usize);
        }
        self.availability[piece.as_usize()] = a + 1;
    }

    pub(super) fn decrease(&mut self, piece: PieceIndex) {
        let a = self.availability[piece.as_usize()];
        if a == 0 {
            return;
        }
        if self.position[piece.as_usize()] != ABSENT {
            self.move_down(piece.0, a as usize);
        }
        self.availability[piece.as_usize()] = a - 1;
    }

    /// The piece is no candidate any more: begun, had, or wanted by a higher band.
    pub(super) fn remove(&mut self, piece: PieceIndex) {
        if self.position[piece.as_usize()] == ABSENT {
            return;
        }
        // Bubble it to the end, one swap for each bucket above its own.
        for a in self.availability[piece.as_usize()] as usize..self.bounds.len() - 1 {
            self.move_up(piece.0, a);
        }
        self.order.pop();
        let end = self.order.len() as u32;
        for bound in self.bounds.iter_mut().rev().take_while(|b| **b > end) {
            *bound = end;
        }
        self.position[piece.as_usize()] = ABSENT;
        self.candidates.set(piece, false);
    }

    /// The piece is a candidate (again).
    pub(super) fn insert(&mut self, piece: PieceIndex) {
        if self.position[piece.as_usize()] != ABSENT {
            return;
        }
        let a = self.availability[piece.as_usize()] as usize;
        self.reserve_bucket(a);
        self.position[piece.as_usize()] = self.order.len() as u32;
        self.order.push(piece.0);
        self.candidates.set(piece, true);
        if let Some(last) = self.bounds.last_mut() {
            *last += 1;
        }
        for bucket in (a + 1..self.bounds.len() - 1).rev() {
            self.move_down(piece.0, bucket);
        }
    }

    /// The rarest candidate that `field` has. Exact for the first few hundred candidates in order of
    /// rarity; behind them any candidate will do, so that a pick stays cheap for a peer that has little.
    pub(super) fn rarest(
        &self,
        field: &Bitfield,
        start: impl FnOnce(u32) -> u32,
    ) -> Option<PieceIndex> {
        if self.order.is_empty() {
            return None;
        }
        // A peer that has a piece is itself counted, unless it has everything.
        let first = if field.is_full() {
            0
        } else {
            self.bounds.get(1).copied().unwrap_or(0)
        };
        let found = self
            .order
            .iter()
            .skip(first as usize)
            .take(SCAN)
            .map(|&p| PieceIndex(p))
            .find(|&p| field.get(p));
        found.or_else(|| {
            self.candidates
                .first_common(field, PieceIndex(start(self.candidates.len())))
        })
    }

    /// From bucket `a` to `a + 1`.
    fn move_up(&mut self, piece: u32, a: usize) {
        self.reserve_bucket(a + 1);
        self.bounds[a + 1] -= 1;
        let to = self.bounds[a + 1];
        self.swap(self.position[piece as usize], to);
    }

    /// From bucket `a` to `a - 1`.
    fn move_down(&mut self, piece: u32, a: usize) {
        let to = self.bounds[a];
        self.bounds[a] += 1;
        self.swap(self.position[piece as usize], to);
    }

    fn reserve_bucket(&mut self, a: usize) {
        let end = self.order.len() as u32;
        while self.bounds.len() < a + 2 {
            self.bounds.push(end);
        }
    }

    fn swap(&mut self, i: u32, j: u32) {
        self.order.swap(i as usize, j as usize);
        self.position[self.order[i as usize] as usize] = i;
        self.position[self.order[j as usize] as usize] = j;
    }

    #[cfg(test)]
    fn check(&self) {
        assert_eq!(self.bounds[0], 0);
        assert_eq!(*self.bounds.last().unwrap(), self.order.len() as u32);
        assert!(self.bounds.is_sorted());
        for (i, &p) in self.order.iter().enumerate() {
            assert_eq!(self.position[p as usize], i as u32);
            let a = self.availability[p as usize] as usize;
            assert!(self.bounds[a] as usize <= i && i < self.bounds[a + 1] as usize);
            assert!(self.candidates.get(PieceIndex(p)));
        }
        assert_eq!(self.candidates.count_ones() as usize, self.order.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;

    proptest! {
        #[test]
        fn order_follows_availability(ops in proptest::collection::vec((0u8..4, 0u32..20), 0..300)) {
            let mut rng = rand::rngs::StdRng::seed_from_u64(1);
            let mut r = Rarity::new(20, (0..20).map(PieceIndex), &mut rng);
            for (op, p) in ops {
                let p = PieceIndex(p);
                match op {
                    0 => r.increase(p),
                    1 => r.decrease(p),
                    2 => r.remove(p),
                    _ => r.insert(p),
                }
                r.check();
            }
            // What is picked for a peer is as rare as any candidate that it has.
            let mut field = Bitfield::new(20);
            for p in (0..20).step_by(3).map(PieceIndex) {
                field.set(p, true);
                r.increase(p);
            }
            let best = r.candidates().ones().filter(|p| field.get(*p)).map(|p| r.availability(p)).min();
            let picked = r.rarest(&field, |_| 0).map(|p| r.availability(p));
            prop_assert_eq!(picked, best);
        }
    }
}
