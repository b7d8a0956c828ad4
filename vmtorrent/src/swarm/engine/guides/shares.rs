//! Invariant: all peers that know each other come to the same ranks, without a word.

use crate::image::PieceIndex;
use crate::picker::PeerKey;

/// Who brings which piece into the swarm.
///
/// It is decided without a word: it is the peer with the greatest weight, and all peers that know each other come to the
/// same result (rendezvous hashing: D. G. Thaler, C. V. Ravishankar: *Using Name-Based Mappings to Increase Hit Rates*,
/// IEEE/ACM Transactions on Networking 6(1), 1998).
#[derive(Debug)]
pub(super) struct Shares {
    own: u64,
    others: Vec<u64>,
    /// Ranks from this one on are all the same.
    most: u16,
    /// What was found out, by piece: most of a window is looked at again and again.
    known: Vec<Option<u16>>,
}

impl Shares {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;

    pub(super) fn new<'a>(
        own: &[u8; 20],
        others: impl Iterator<Item = (PeerKey, &'a [u8; 20])>,
    ) -> Self {
        Self {
            own: Self::fold(Self::BASIS, own),
            others: others.map(|(_, id)| Self::fold(Self::BASIS, id)).collect(),
            most: 1,
            known: Vec::new(),
        }
    }

    /// How many there are besides us.
    pub(super) fn others(&self) -> usize {
        self.others.len()
    }

    /// Whether those among whom all is shared out are the same.
    pub(super) fn are_among(&self, other: &Shares) -> bool {
        self.others == other.others
    }

    /// Ranks below `most` are to be told apart.
    pub(super) fn tell_apart(&mut self, most: u16) {
        if std::mem::replace(&mut self.most, most) != most {
            self.known.clear();
        }
    }

    /// How many come before us to bring a piece, as far as it is told apart. It is ours if it is none.
    pub(super) fn rank(&self, piece: PieceIndex) -> u16 {
        let own = Self::weight(self.own, piece);
        let before = self
            .others
            .iter()
            .filter(|id| Self::weight(**id, piece) > own);
        before.take(self.most.into()).count() as u16
    }

    /// The same, found out once for each piece.
    pub(super) fn known_rank(&mut self, piece: PieceIndex) -> u16 {
        let at = piece.as_usize();
        if let Some(Some(known)) = self.known.get(at) {
            return *known;
        }
        let rank = self.rank(piece);
        if self.known.len() <= at {
            self.known.resize(at + 1, None);
        }
        self.known[at] = Some(rank);
        rank
    }

    fn weight(id: u64, piece: PieceIndex) -> u64 {
        let hash = Self::fold(id, &piece.0.to_be_bytes());
        // A mixing step that makes all bits depend on all.
        (hash ^ (hash >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// FNV-1a.
    fn fold(hash: u64, bytes: &[u8]) -> u64 {
        bytes.iter().fold(hash, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(Self::PRIME)
        })
    }
}
