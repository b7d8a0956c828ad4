//! Invariant: distances of two ids from one target compare as Kademlia has it: as whole numbers of their exclusive or.

use std::fmt;

use crate::image::InfoHash;

/// Names a node, or what is looked for: both lie in one space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id(pub(crate) [u8; 20]);

/// How far an id is from a target; the smaller, the closer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Distance([u8; 20]);

impl Id {
    /// Bits of an id.
    pub(super) const BITS: usize = 160;

    /// Reads an id; `None`: it has another length.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(super) fn distance(self, other: Self) -> Distance {
        let mut distance = [0; 20];
        for (place, (a, b)) in distance.iter_mut().zip(self.0.iter().zip(other.0)) {
            *place = a ^ b;
        }
        Distance(distance)
    }

    /// How many bits both begin with in common: at most [`Self::BITS`].
    pub(super) fn common_bits(self, other: Self) -> usize {
        let Distance(distance) = self.distance(other);
        let zeros = distance.iter().take_while(|b| **b == 0).count();
        let rest = distance
            .get(zeros)
            .map_or(0, |b| b.leading_zeros() as usize);
        8 * zeros + rest
    }

    /// An id that has exactly `bits` first bits in common with this one; the others are those of `chance`.
    pub(super) fn beside(self, bits: usize, chance: [u8; 20]) -> Self {
        let mut id = chance;
        for bit in 0..=bits.min(Self::BITS - 1) {
            let (byte, mask) = (bit / 8, 0x80 >> (bit % 8));
            let own = self.0[byte] & mask;
            let wanted = if bit == bits { own ^ mask } else { own };
            id[byte] = (id[byte] & !mask) | wanted;
        }
        Self(id)
    }
}

impl From<InfoHash> for Id {
    fn from(hash: InfoHash) -> Self {
        Self(hash.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn distance_is_a_metric_with_one_point_at_each_distance(a: [u8; 20], b: [u8; 20], c: [u8; 20]) {
            let (a, b, c) = (Id(a), Id(b), Id(c));
            prop_assert_eq!(a.distance(b), b.distance(a));
            prop_assert_eq!(a.distance(a), Distance([0; 20]));
            prop_assert_eq!(a.distance(b) == a.distance(c), b == c);
            // Who shares more bits is closer.
            if a.common_bits(b) > a.common_bits(c) {
                prop_assert!(a.distance(b) < a.distance(c));
            }
        }

        #[test]
        fn an_id_beside_shares_exactly_so_many_bits(a: [u8; 20], chance: [u8; 20], bits in 0..160_usize) {
            prop_assert_eq!(Id(a).common_bits(Id(a).beside(bits, chance)), bits);
        }
    }
}
