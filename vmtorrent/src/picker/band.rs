//! Invariant: bands are totally ordered; a higher band is always served first at a peer that has both.

/// Why a piece is fetched, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Band {
    /// A guest's read waits for it.
    Demand,
    /// A sequential stream will soon come to it.
    Readahead,
    /// Earlier runs of the image read it about now.
    Profile,
    /// Nobody needs it yet: fetched to complete the local copy, rarest first.
    Background,
}

impl Band {
    /// All bands, most urgent first.
    pub const ALL: [Band; 4] = [
        Band::Demand,
        Band::Readahead,
        Band::Profile,
        Band::Background,
    ];

    /// An index into a table with one entry per band.
    pub fn index(self) -> usize {
        self as usize
    }
}
