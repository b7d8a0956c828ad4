//! Invariant: a peer is only blamed for bytes that it sent: alone for a whole piece, or shown by the right bytes.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::Remote;
use crate::image::{BLOCK_LENGTH, PieceIndex};
use crate::picker::PeerKey;

/// Pieces that came with a wrong hash from several peers, kept until the right bytes tell who lied.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    spoilt: VecDeque<Spoilt>,
    /// Peers that went before it was known whether what they had given is right.
    gone: VecDeque<(PeerKey, Remote)>,
}

#[derive(Debug)]
struct Spoilt {
    piece: PieceIndex,
    data: Bytes,
    /// Who sent each block.
    givers: Vec<Option<PeerKey>>,
}

impl Evidence {
    /// Spoilt pieces that are kept; older ones are forgotten, and their liars are found by another piece.
    const MAX_PIECES: usize = 8;
    /// Bytes that are kept, but at least one piece.
    const MAX_BYTES: usize = 16 << 20;
    /// Peers that went and are remembered; older ones are forgotten.
    const MAX_GONE: usize = 256;

    /// Keeps a spoilt piece.
    pub(super) fn keep(&mut self, piece: PieceIndex, data: Bytes, givers: Vec<Option<PeerKey>>) {
        self.spoilt.push_back(Spoilt {
            piece,
            data,
            givers,
        });
        while self.spoilt.len() > Self::MAX_PIECES
            || (self.spoilt.len() > 1 && self.bytes() > Self::MAX_BYTES)
        {
            self.spoilt.pop_front();
        }
    }

    /// A peer went that had given a part of something that is not checked yet.
    pub(super) fn went(&mut self, key: PeerKey, remote: Remote) {
        self.gone.push_back((key, remote));
        if self.gone.len() > Self::MAX_GONE {
            self.gone.pop_front();
        }
    }

    /// Who a peer was that went and turned out to have lied. Told once, so that it counts once.
    pub(super) fn take_gone(&mut self, key: PeerKey) -> Option<Remote> {
        let at = self.gone.iter().position(|(gone, _)| *gone == key)?;
        self.gone.remove(at).map(|(_, remote)| remote)
    }

    /// Whether a peer gave a part of what is kept.
    pub(super) fn concerns(&self, key: PeerKey) -> bool {
        self.spoilt.iter().any(|s| s.givers.contains(&Some(key)))
    }

    /// The right bytes of a piece are known: tells of each who had given it spoilt whether it lied.
    pub(super) fn judge(&mut self, piece: PieceIndex, right: &[u8]) -> BTreeMap<PeerKey, bool> {
        let mut lied = BTreeMap::new();
        self.spoilt.retain(|spoilt| {
            if spoilt.piece != piece {
                return true;
            }
            let length = BLOCK_LENGTH as usize;
            let blocks = spoilt.data.chunks(length).zip(right.chunks(length));
            for ((sent, right), giver) in blocks.zip(&spoilt.givers) {
                if let Some(giver) = giver {
                    *lied.entry(*giver).or_default() |= sent != right;
                }
            }
            false
        });
        lied
    }

    fn bytes(&self) -> usize {
        self.spoilt.iter().map(|s| s.data.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = BLOCK_LENGTH as usize;

    #[test]
    fn only_who_sent_other_bytes_is_blamed() {
        let right = vec![7; 3 * BLOCK + 5];
        let mut wrong = right.clone();
        wrong[BLOCK] ^= 1;
        wrong[3 * BLOCK + 4] ^= 1;
        let givers = [1, 2, 1, 3].map(|k| Some(PeerKey(k))).to_vec();
        let mut evidence = Evidence::default();
        evidence.keep(PieceIndex(4), wrong.into(), givers);
        assert!(evidence.judge(PieceIndex(5), &right).is_empty());
        let lied: Vec<_> = evidence.judge(PieceIndex(4), &right).into_iter().collect();
        let expected = [(PeerKey(1), false), (PeerKey(2), true), (PeerKey(3), true)];
        assert_eq!(lied, expected);
        assert!(evidence.judge(PieceIndex(4), &right).is_empty());
    }

    #[test]
    fn who_went_is_told_once_and_the_oldest_is_forgotten() {
        let mut evidence = Evidence::default();
        let address = |n: usize| Remote::Peer(([10, 0, 0, 1], n as u16).into());
        for n in 0..=Evidence::MAX_GONE {
            evidence.went(PeerKey(n), address(n));
        }
        assert_eq!(evidence.take_gone(PeerKey(0)), None);
        assert_eq!(evidence.take_gone(PeerKey(7)), Some(address(7)));
        assert_eq!(evidence.take_gone(PeerKey(7)), None);
    }

    #[test]
    fn what_is_kept_is_bounded_by_number_and_by_bytes() {
        let mut evidence = Evidence::default();
        for piece in 0..100 {
            evidence.keep(PieceIndex(piece), vec![0; BLOCK].into(), vec![None]);
        }
        assert_eq!(evidence.spoilt.len(), Evidence::MAX_PIECES);
        for piece in 0..4 {
            evidence.keep(PieceIndex(piece), vec![0; 10 << 20].into(), vec![None]);
        }
        assert_eq!(evidence.spoilt.len(), 1);
    }
}
