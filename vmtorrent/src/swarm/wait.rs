//! Invariant: a read is woken once, when the last of its pieces is here.

use std::collections::HashSet;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::image::PieceIndex;

/// A read that waits for pieces.
pub(super) struct Wait {
    left: Mutex<Left>,
    done: Mutex<Option<oneshot::Sender<()>>>,
}

/// What a read waits for.
struct Left {
    /// Not stored.
    pieces: HashSet<PieceIndex>,
    /// Of these, what has not come.
    to_come: HashSet<PieceIndex>,
}

impl Wait {
    /// A wait for `pieces`, and what tells its end.
    pub(super) fn new(pieces: &[PieceIndex]) -> (Self, oneshot::Receiver<()>) {
        let (done, receiver) = oneshot::channel();
        let pieces: HashSet<PieceIndex> = pieces.iter().copied().collect();
        let to_come = pieces.clone();
        let wait = Self {
            left: Mutex::new(Left { pieces, to_come }),
            done: Mutex::new(Some(done)),
        };
        (wait, receiver)
    }

    /// Whether the reader has given up.
    pub(super) fn is_abandoned(&self) -> bool {
        self.done.lock().as_ref().is_none_or(|d| d.is_closed())
    }

    /// A piece came and is to be stored; true when it was the last that was to come.
    pub(super) fn came(&self, piece: PieceIndex) -> bool {
        let mut left = self.left.lock();
        left.to_come.remove(&piece) && left.to_come.is_empty()
    }

    /// A piece that came must come again.
    pub(super) fn is_to_come(&self, piece: PieceIndex) {
        let mut left = self.left.lock();
        if left.pieces.contains(&piece) {
            left.to_come.insert(piece);
        }
    }

    /// What is not stored.
    pub(super) fn left(&self) -> Vec<PieceIndex> {
        self.left.lock().pieces.iter().copied().collect()
    }

    /// A piece can be read.
    pub(super) fn ready(&self, piece: PieceIndex) {
        let mut left = self.left.lock();
        left.pieces.remove(&piece);
        left.to_come.remove(&piece);
        if left.pieces.is_empty()
            && let Some(done) = self.done.lock().take()
        {
            // The reader may have given up.
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_comes_is_known_also_when_one_must_come_again() {
        let pieces = [1, 2, 3].map(PieceIndex);
        let (wait, mut done) = Wait::new(&pieces);
        assert!(!wait.came(PieceIndex(1)));
        assert!(!wait.came(PieceIndex(2)));
        wait.is_to_come(PieceIndex(1));
        assert!(!wait.came(PieceIndex(3)));
        assert!(wait.came(PieceIndex(1)));
        assert!(!wait.came(PieceIndex(1)), "only once");
        wait.ready(PieceIndex(2));
        wait.is_to_come(PieceIndex(2));
        let mut left = wait.left();
        left.sort_unstable();
        assert_eq!(left, [1, 3].map(PieceIndex));
        wait.ready(PieceIndex(1));
        assert!(done.try_recv().is_err());
        wait.ready(PieceIndex(3));
        assert_eq!(done.try_recv(), Ok(()));
    }
}
