//! Invariant: what is taken out is eligible at that moment; with nobody to trade with it is due first.

use crate::image::PieceIndex;

/// What is to be fetched next because a profile foretells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// In the order in which they are due.
    pub pieces: Vec<PieceIndex>,
    /// For each of them, how many come before us to bring it into the swarm, if other peers are at the same place of a
    /// profile: those should fetch different ones of whoever has everything, and trade them. What nobody comes before us
    /// for is ours. `None`: nobody to trade with.
    pub ranks: Option<Vec<u16>>,
    /// What nobody has is asked of whoever has everything by so many besides the first.
    pub backups: u16,
    /// What so many of those that lack something have is left to them: it is not asked of whoever has everything.
    pub common: u16,
}

impl Window {
    /// So many of the pieces that a peer with a part has are looked at for the rarest, in the order in which they are due.
    /// With all of them guests wait longer for what is due, with few they have less to trade.
    const NEXT: usize = 64;

    /// Whether a piece that so many have who lack something is left to them.
    pub(super) fn is_common(&self, availability: u16) -> bool {
        self.ranks.is_some() && availability >= self.common
    }

    /// Takes out what is to be asked of a peer: with nobody to trade with, the first that it has.
    ///
    /// Else it is the rarest of the next ones (`availability`: how many of those that lack something have it), and of several that
    /// are as rare the one that `choose`, which is given their number, names. If it were the first, all who are at the same
    /// place would ask for the same at the few who are ahead of them, and have nothing to trade.
    ///
    /// Of whoever has everything (`whole`) ours come before that, as far as nobody who lacks something has them. Left to
    /// others is there what is common, and what nobody has while enough come before us.
    pub(super) fn take(
        &mut self,
        whole: bool,
        eligible: impl Fn(PieceIndex) -> bool,
        availability: impl Fn(PieceIndex) -> u16,
        choose: impl FnOnce(usize) -> usize,
    ) -> Option<PieceIndex> {
        let index = match self.ranks.as_ref() {
            None => self.pieces.iter().position(|p| eligible(*p))?,
            Some(ranks) => {
                let all = self.pieces.iter().copied().enumerate().zip(ranks);
                let mut own = all.clone().filter(|(_, rank)| whole && **rank == 0);
                let found = own.find(|((_, p), _)| availability(*p) == 0 && eligible(*p));
                match found {
                    Some(((index, _), _)) => index,
                    None => {
                        let left = |rank: u16, copies: u16| match copies {
                            _ if !whole => false,
                            0 => rank > self.backups,
                            copies => copies >= self.common,
                        };
                        let copies = all.map(|((_, p), rank)| (p, *rank, availability(p)));
                        let most = if whole { usize::MAX } else { Self::NEXT };
                        let found = rarest(most, copies, |piece, rank, copies| {
                            !left(rank, copies) && eligible(piece)
                        });
                        if found.is_empty() {
                            return None;
                        }
                        *found.get(choose(found.len()))?
                    }
                }
            }
        };
        if let Some(ranks) = &mut self.ranks {
            ranks.remove(index);
        }
        Some(self.pieces.remove(index))
    }
}

/// The places of the rarest pieces among the first `most` that are eligible.
fn rarest(
    most: usize,
    pieces: impl Iterator<Item = (PieceIndex, u16, u16)>,
    eligible: impl Fn(PieceIndex, u16, u16) -> bool,
) -> Vec<usize> {
    let mut rarest = u16::MAX;
    let mut found = Vec::new();
    let pieces = pieces
        .enumerate()
        .filter(|(_, (piece, rank, copies))| eligible(*piece, *rank, *copies));
    for (index, (_, _, copies)) in pieces.take(most) {
        if copies < rarest {
            rarest = copies;
            found.clear();
        }
        if copies == rarest {
            found.push(index);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(ranks: Option<[u16; 6]>) -> Window {
        Window {
            pieces: (0..6).map(PieceIndex).collect(),
            ranks: ranks.map(Into::into),
            backups: 2,
            common: 5,
        }
    }

    fn taken(window: &mut Window, whole: bool, availability: [u16; 6]) -> Vec<u32> {
        let next = || {
            let availability = |p: PieceIndex| availability[p.as_usize()];
            window.take(whole, |p| p.0 != 2, availability, |n| n - 1)
        };
        std::iter::from_fn(next).map(|p| p.0).collect()
    }

    #[test]
    fn alone_all_comes_in_the_order_in_which_it_is_due() {
        let availability = [1, 0, 0, 5, 0, 0];
        assert_eq!(
            taken(&mut window(None), true, availability),
            [0, 1, 3, 4, 5]
        );
    }

    #[test]
    fn of_a_seed_come_ours_that_nobody_has_then_the_rarest_of_the_others() {
        let ranks = Some([1, 0, 0, 9, 0, 0]);
        let availability = [3, 0, 0, 1, 0, 2];
        let mut window = window(ranks);
        assert_eq!(taken(&mut window, true, availability), [1, 4, 3, 5, 0]);
        assert_eq!((window.pieces.len(), window.ranks), (1, Some(vec![0])));
    }

    #[test]
    fn what_many_have_is_not_asked_of_a_seed_but_of_them() {
        let availability = [5, 0, 0, 4, 7, 5];
        let mut window = window(Some([0; 6]));
        assert_eq!(taken(&mut window, true, availability), [1, 3]);
        assert_eq!(taken(&mut window, false, availability), [5, 0, 4]);
    }

    #[test]
    fn what_nobody_has_is_asked_of_a_seed_by_the_first_and_few_backups() {
        let mut window = window(Some([3, 2, 0, 7, 1, 0]));
        assert_eq!(taken(&mut window, true, [0; 6]), [5, 4, 1]);
        assert_eq!(taken(&mut window, false, [1; 6]), [3, 0]);
    }

    #[test]
    fn of_a_peer_that_has_a_part_the_rarest_come_first_whosever_they_are() {
        let ranks = Some([1, 0, 0, 9, 0, 0]);
        let availability = [3, 1, 1, 9, 1, 2];
        let mut crowded = window(ranks);
        assert_eq!(taken(&mut crowded, false, availability), [4, 1, 5, 0, 3]);
    }

    #[test]
    fn alone_all_of_a_peer_that_has_a_part_comes_in_order() {
        assert_eq!(taken(&mut window(None), false, [1; 6]), [0, 1, 3, 4, 5]);
    }
}
