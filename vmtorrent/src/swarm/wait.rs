//! Invariant: a read is woken once, when the last of its pieces is here.

use std::collections::HashSet;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::image::PieceIndex;

/// A read that waits for pieces.
pub(super) struct Wait {
    left: Mutex<HashSet<PieceIndex>>,
    done: Mutex<Option<oneshot::Sender<()>>>,
}

impl Wait {
    /// A wait for `pieces`, and what tells its end.
    pub(super) fn new(pieces: &[PieceIndex]) -> (Self, oneshot::Receiver<()>) {
        let (done, receiver) = oneshot::channel();
        let wait = Self {
            left: Mutex::new(pieces.iter().copied().collect()),
            done: Mutex::new(Some(done)),
        };
        (wait, receiver)
    }

    /// Whether the reader has given up.
    pub(super) fn is_abandoned(&self) -> bool {
        self.done.lock().as_ref().is_none_or(|d| d.is_closed())
    }

    pub(super) fn ready(&self, piece: PieceIndex) {
        let mut left = self.left.lock();
        left.remove(&piece);
        if left.is_empty()
            && let Some(done) = self.done.lock().take()
        {
            // The reader may have given up.
            let _ = done.send(());
        }
    }
}
