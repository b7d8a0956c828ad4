//! Invariant: the extents of a range lie in order, without gaps, inside the file; neighbours differ in kind.

use std::ops::Range;

use smallvec::SmallVec;

/// Where the bytes of an [`Extent`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExtentKind {
    /// In the overlay: [`read_data`](super::Overlay::read_data) gives them.
    Data,
    /// Nowhere: they are zeros.
    Zero,
    /// In the pristine file, at the same offset.
    Base,
}

/// A run of bytes of an overlay that are found in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Offsets in the file, bytes.
    pub(crate) range: Range<u64>,
    /// Where they are.
    pub(crate) kind: ExtentKind,
}

/// Some extents. Those of a small read, which are one or two, take no allocation.
pub(crate) type Extents = SmallVec<[Extent; 4]>;

/// Adds a run behind the others, as part of the last one if that is of the same kind.
pub(super) fn push_extent(extents: &mut Extents, range: Range<u64>, kind: ExtentKind) {
    if range.is_empty() {
        return;
    }
    match extents.last_mut() {
        Some(last) if last.kind == kind && last.range.end == range.start => {
            last.range.end = range.end;
        }
        _ => extents.push(Extent { range, kind }),
    }
}
