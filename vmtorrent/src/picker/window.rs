//! Invariant: what is taken out is eligible at that moment; of what may be taken of a peer in order, it is due first.

use crate::image::PieceIndex;

/// What is to be fetched next because a profile foretells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// In the order in which they are due.
    pub pieces: Vec<PieceIndex>,
    /// Which of them are ours to bring into the swarm, if other peers are at the same place of a profile: those should
    /// fetch different ones of whoever has everything, and trade them. `None`: nobody to trade with.
    pub ours: Option<Vec<bool>>,
}

impl Window {
    /// Takes out what is to be asked of a peer: of one that has a part the first that it has.
    ///
    /// Of one that has everything (`whole`) ours come first, as far as nobody who lacks something has them
    /// (`availability` 0); then the rarest of the others, and of several that are as rare the one that `choose`, which is
    /// given their number, names.
    pub(super) fn take(
        &mut self,
        whole: bool,
        eligible: impl Fn(PieceIndex) -> bool,
        availability: impl Fn(PieceIndex) -> u16,
        choose: impl FnOnce(usize) -> usize,
    ) -> Option<PieceIndex> {
        let index = match self.ours.as_ref().filter(|_| whole) {
            None => self.pieces.iter().position(|p| eligible(*p))?,
            Some(ours) => {
                let all = self.pieces.iter().copied().enumerate();
                let mut own = all.clone().zip(ours).filter(|(_, own)| **own);
                let found = own.find(|((_, p), _)| availability(*p) == 0 && eligible(*p));
                match found {
                    Some(((index, _), _)) => index,
                    None => rarest(all.filter(|(_, p)| eligible(*p)), availability, choose)?,
                }
            }
        };
        if let Some(ours) = &mut self.ours {
            ours.remove(index);
        }
        Some(self.pieces.remove(index))
    }
}

fn rarest(
    pieces: impl Iterator<Item = (usize, PieceIndex)>,
    availability: impl Fn(PieceIndex) -> u16,
    choose: impl FnOnce(usize) -> usize,
) -> Option<usize> {
    let mut rarest = u16::MAX;
    let mut found = Vec::new();
    for (index, piece) in pieces {
        let availability = availability(piece);
        if availability < rarest {
            rarest = availability;
            found.clear();
        }
        if availability == rarest {
            found.push(index);
        }
    }
    if found.is_empty() {
        return None;
    }
    found.get(choose(found.len())).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(ours: Option<[bool; 6]>) -> Window {
        Window {
            pieces: (0..6).map(PieceIndex).collect(),
            ours: ours.map(Into::into),
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
        let ours = Some([false, true, true, false, true, true]);
        let availability = [3, 0, 0, 1, 0, 2];
        let mut window = window(ours);
        assert_eq!(taken(&mut window, true, availability), [1, 4, 3, 5, 0]);
        assert_eq!((window.pieces.len(), window.ours), (1, Some(vec![true])));
    }

    #[test]
    fn of_a_peer_that_has_a_part_all_comes_in_order() {
        let ours = Some([false, true, true, false, true, true]);
        assert_eq!(taken(&mut window(ours), false, [1; 6]), [0, 1, 3, 4, 5]);
    }
}
