//! Invariant: what is not stored reads as zeros, and bytes of the last unit that lie behind the end are zeros.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::Errno;

/// What counts as one unit of storage, bytes: holes, and data that a partial write needs.
pub(super) const UNIT: u64 = 4096;

/// The longest file, bytes.
const MAX_LENGTH: u64 = 1 << 60;

/// Sparse bytes.
#[derive(Debug, Default)]
pub(super) struct Units {
    stored: BTreeMap<u64, Box<[u8]>>,
    pub length: u64,
}

/// The part of a unit that a range covers.
struct Part {
    unit: u64,
    /// In the unit.
    inner: Range<usize>,
    /// From the start of the range.
    outer: Range<usize>,
}

/// Cuts a range at the borders of units.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = Part> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let start = (at % UNIT) as usize;
        let piece = (UNIT as usize - start).min(length - done);
        let outer = done..done + piece;
        done += piece;
        Some(Part {
            unit: at / UNIT,
            inner: start..start + piece,
            outer,
        })
    })
}

impl Units {
    pub fn new(data: &[u8]) -> Self {
        let chunks = (0..).zip(data.chunks(UNIT as usize));
        let stored = chunks.filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0));
        let stored = stored.map(|(unit, chunk)| {
            let mut bytes = chunk.to_vec();
            bytes.resize(UNIT as usize, 0);
            (unit, bytes.into())
        });
        Self {
            stored: stored.collect(),
            length: data.len() as u64,
        }
    }

    /// Bytes of storage.
    pub fn allocated(&self) -> u64 {
        self.stored.len() as u64 * UNIT
    }

    /// How many units a write would add.
    pub fn missing(&self, offset: u64, length: u64) -> u64 {
        let units = offset / UNIT..offset.saturating_add(length).div_ceil(UNIT);
        let all = units.end.saturating_sub(units.start);
        all - self.stored.range(units).count() as u64
    }

    /// How much of a read lies inside the file.
    pub fn clip(&self, offset: u64, length: usize) -> usize {
        let left = self.length.saturating_sub(offset);
        usize::try_from(left).map_or(length, |left| left.min(length))
    }

    /// Fills `buffer`, all of which must lie inside the file.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) {
        for part in parts(offset, buffer.len()) {
            let target = &mut buffer[part.outer];
            match self.stored.get(&part.unit) {
                Some(unit) => target.copy_from_slice(&unit[part.inner]),
                None => target.fill(0),
            }
        }
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let end = offset.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?;
        if end > MAX_LENGTH {
            return Err(Errno::EFBIG);
        }
        if data.is_empty() {
            return Ok(());
        }
        self.length = self.length.max(end);
        for part in parts(offset, data.len()) {
            let unit = self.stored.entry(part.unit);
            let unit = unit.or_insert_with(|| vec![0; UNIT as usize].into());
            unit[part.inner].copy_from_slice(&data[part.outer]);
        }
        Ok(())
    }

    /// Makes the part of a range that lies inside the file zero.
    pub fn zero(&mut self, offset: u64, length: u64) {
        let end = offset.saturating_add(length).min(self.length);
        if offset >= end {
            return;
        }
        // Behind the end are zeros anyway, so the last unit can go as a whole.
        let whole_end = if end == self.length {
            end.div_ceil(UNIT)
        } else {
            end / UNIT
        };
        let whole = offset.div_ceil(UNIT)..whole_end;
        if whole.start < whole.end {
            let gone: Vec<u64> = self.stored.range(whole).map(|(unit, _)| *unit).collect();
            for unit in gone {
                self.stored.remove(&unit);
            }
        }
        for edge in [offset / UNIT, end / UNIT] {
            let Some(unit) = self.stored.get_mut(&edge) else {
                continue;
            };
            let start = offset.saturating_sub(edge * UNIT);
            let end = (end - edge * UNIT).min(UNIT);
            unit[start as usize..end as usize].fill(0);
        }
    }

    pub fn set_len(&mut self, length: u64) -> Result<(), Errno> {
        if length > MAX_LENGTH {
            return Err(Errno::EFBIG);
        }
        if length < self.length {
            self.zero(length, self.length - length);
        }
        self.length = length;
        Ok(())
    }

    /// The first byte from `offset` on that is stored.
    pub fn data_from(&self, offset: u64) -> Option<u64> {
        let (unit, _) = self.stored.range(offset / UNIT..).next()?;
        Some((unit * UNIT).max(offset))
    }

    /// The first byte from `offset` on that is not stored; the end counts as that.
    pub fn hole_from(&self, offset: u64) -> u64 {
        let mut hole = offset / UNIT;
        for (unit, _) in self.stored.range(hole..) {
            if *unit != hole {
                break;
            }
            hole += 1;
        }
        (hole * UNIT).max(offset).min(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(units: &Units) -> Vec<u8> {
        let mut all = vec![9; units.length as usize];
        units.read(0, &mut all);
        all
    }

    #[test]
    fn zeroing_a_part_leaves_the_rest_and_frees_whole_units() {
        let size = 5 * UNIT as usize + 100;
        for (start, end) in [(10, 20), (10, 5000), (4096, 12_288), (4000, 99_999), (0, 1)] {
            let mut units = Units::new(&vec![7; size]);
            units.zero(start, end - start);
            let mut expected = vec![7; size];
            expected[start as usize..(end as usize).min(size)].fill(0);
            assert_eq!(all(&units), expected, "{start}..{end}");
            let freed = (end.min(size as u64) / UNIT).saturating_sub(start.div_ceil(UNIT));
            assert!(units.allocated() <= (6 - freed) * UNIT);
        }
    }

    #[test]
    fn what_was_cut_off_is_zeros_after_growing() {
        let mut units = Units::new(&[7; 10_000]);
        units.set_len(5000).unwrap();
        units.set_len(9000).unwrap();
        let mut expected = vec![7; 5000];
        expected.resize(9000, 0);
        assert_eq!(all(&units), expected);
        assert_eq!(units.allocated(), 2 * UNIT);
        assert_eq!(units.set_len(u64::MAX), Err(Errno::EFBIG));
    }
}
