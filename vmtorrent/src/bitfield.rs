//! Invariant: bits behind `len` are zero, so counts and comparisons need no masking.

use crate::image::PieceIndex;

/// One bit per piece, in the layout of the BITFIELD message: the highest bit of the first byte is piece 0 (BEP 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitfield {
    words: Vec<u64>,
    len: u32,
    ones: u32,
}

impl Bitfield {
    /// `len` bits, all zero.
    pub fn new(len: u32) -> Self {
        Self {
            words: vec![0; (len as usize).div_ceil(64)],
            len,
            ones: 0,
        }
    }

    /// A field of `len` pieces, all of them set.
    pub fn full(len: u32) -> Self {
        let mut words = vec![u64::MAX; (len as usize).div_ceil(64)];
        let spare = (64 - len % 64) % 64;
        if let Some(last) = words.last_mut() {
            *last <<= spare;
        }
        Self {
            words,
            len,
            ones: len,
        }
    }

    /// Reads the payload of a BITFIELD message or a have file; `None` when its length is wrong or a spare bit is set.
    pub fn from_wire(bytes: &[u8], len: u32) -> Option<Self> {
        if bytes.len() != (len as usize).div_ceil(8) {
            return None;
        }
        let mut field = Self::new(len);
        for (i, &byte) in bytes.iter().enumerate() {
            field.words[i / 8] |= u64::from(byte) << (56 - 8 * (i % 8));
        }
        let spare = (64 - len % 64) % 64;
        if spare > 0
            && let Some(last) = field.words.last()
            && last & ((1 << spare) - 1) != 0
        {
            return None;
        }
        field.ones = field.words.iter().map(|w| w.count_ones()).sum();
        Some(field)
    }

    /// The payload of a BITFIELD message.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|w| w.to_be_bytes()).collect();
        bytes.truncate((self.len as usize).div_ceil(8));
        bytes
    }

    /// Number of bits.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are no bits at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of ones.
    pub fn count_ones(&self) -> u32 {
        self.ones
    }

    /// Whether every bit is set.
    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// The bit of a piece; a piece out of range has none.
    pub fn get(&self, piece: PieceIndex) -> bool {
        piece.0 < self.len && self.words[piece.as_usize() / 64] & Self::mask(piece) != 0
    }

    /// Sets or clears a bit and says whether it changed. A piece out of range is left alone.
    pub fn set(&mut self, piece: PieceIndex, value: bool) -> bool {
        if piece.0 >= self.len || self.get(piece) == value {
            return false;
        }
        self.words[piece.as_usize() / 64] ^= Self::mask(piece);
        if value {
            self.ones += 1;
        } else {
            self.ones -= 1;
        }
        true
    }

    /// The pieces whose bit is set, in order.
    pub fn ones(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.words.iter().enumerate().flat_map(|(i, &word)| BitsOf {
            word,
            base: i as u32 * 64,
        })
    }

    /// The pieces whose bit is set here and not in `other`, in order.
    pub fn without<'a>(&'a self, other: &'a Bitfield) -> impl Iterator<Item = PieceIndex> + 'a {
        let words = self.words.iter().zip(&other.words).enumerate();
        words.flat_map(|(i, (&word, &other))| BitsOf {
            word: word & !other,
            base: i as u32 * 64,
        })
    }

    /// The first piece at or behind `start`, going round, whose bit is set in both fields.
    ///
    /// Looks at 64 pieces at a time: for the largest torrents that is some two thousand steps.
    pub fn first_common(&self, other: &Bitfield, start: PieceIndex) -> Option<PieceIndex> {
        let n = self.words.len().min(other.words.len());
        if n == 0 {
            return None;
        }
        let first = (start.as_usize() / 64) % n;
        let head = u64::MAX >> (start.0 % 64);
        for step in 0..=n {
            let i = (first + step) % n;
            let mut common = self.words[i] & other.words[i];
            if step == 0 {
                common &= head;
            }
            if common != 0 {
                return Some(PieceIndex(i as u32 * 64 + common.leading_zeros()));
            }
        }
        None
    }

    /// Whether `other` has a bit that this field has too.
    pub fn intersects(&self, other: &Bitfield) -> bool {
        if self.ones == 0 || other.ones == 0 {
            return false;
        }
        self.words.iter().zip(&other.words).any(|(a, b)| a & b != 0)
    }

    fn mask(piece: PieceIndex) -> u64 {
        1 << (63 - piece.0 % 64)
    }
}

struct BitsOf {
    word: u64,
    base: u32,
}

impl Iterator for BitsOf {
    type Item = PieceIndex;

    fn next(&mut self) -> Option<PieceIndex> {
        if self.word == 0 {
            return None;
        }
        let bit = self.word.leading_zeros();
        self.word &= !(1 << (63 - bit));
        Some(PieceIndex(self.base + bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_form_round_trips_and_spare_bits_are_refused() {
        let mut field = Bitfield::new(70);
        for p in [0, 1, 63, 64, 69] {
            assert!(field.set(PieceIndex(p), true));
        }
        assert!(!field.set(PieceIndex(0), true));
        assert!(!field.set(PieceIndex(70), true));
        let wire = field.to_wire();
        assert_eq!(wire.len(), 9);
        assert_eq!(wire[0], 0b1100_0000);
        assert_eq!(Bitfield::from_wire(&wire, 70).as_ref(), Some(&field));
        assert_eq!(
            field.ones().map(|p| p.0).collect::<Vec<_>>(),
            [0, 1, 63, 64, 69]
        );
        let mut bad = wire;
        bad[8] |= 1;
        assert_eq!(Bitfield::from_wire(&bad, 70), None);
        assert_eq!(Bitfield::from_wire(&[0; 8], 70), None);
    }

    #[test]
    fn a_full_field_has_every_piece_and_no_spare_bit() {
        for len in [1, 63, 64, 65, 200] {
            let field = Bitfield::full(len);
            assert!(field.is_full());
            assert_eq!(field.ones().count(), len as usize);
            assert_eq!(Bitfield::from_wire(&field.to_wire(), len), Some(field));
        }
    }

    #[test]
    fn what_is_new_is_found() {
        let mut old = Bitfield::new(130);
        old.set(PieceIndex(64), true);
        let new: Vec<u32> = Bitfield::full(130).without(&old).map(|p| p.0).collect();
        let expected: Vec<u32> = (0..130).filter(|p| *p != 64).collect();
        assert_eq!(new, expected);
    }

    #[test]
    fn first_common_goes_round() {
        let (mut a, mut b) = (Bitfield::new(200), Bitfield::new(200));
        for p in [3, 100, 199] {
            a.set(PieceIndex(p), true);
        }
        for p in [3, 150] {
            b.set(PieceIndex(p), true);
        }
        assert_eq!(a.first_common(&b, PieceIndex(0)), Some(PieceIndex(3)));
        assert_eq!(a.first_common(&b, PieceIndex(4)), Some(PieceIndex(3)));
        b.set(PieceIndex(199), true);
        assert_eq!(a.first_common(&b, PieceIndex(4)), Some(PieceIndex(199)));
        assert!(a.intersects(&b));
        assert_eq!(a.first_common(&Bitfield::new(200), PieceIndex(4)), None);
    }
}
