//! Invariant: a reader gets the bytes in their order, each once; what it was too slow for is left out from the old end
//! alone, and told.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Most that is kept for readers, bytes.
const KEPT: usize = 1 << 20;

/// What a guest's console has printed, and what it will print.
///
/// It begins with the machine's first output, of which the last MiB is kept. Any number of readers may read.
#[derive(Clone, Debug)]
pub struct Console {
    log: Arc<ConsoleLog>,
    changed: watch::Receiver<u64>,
    at: u64,
    skipped: u64,
}

impl Console {
    /// What came since the last call; waits for more, and gives `None` once the machine has ended and all was read. The
    /// bytes are as the guest sent them: not always UTF-8, not always whole lines. Dropping the future loses nothing.
    pub async fn read(&mut self) -> Option<Vec<u8>> {
        loop {
            self.changed.borrow_and_update();
            let (bytes, ended) = self.take();
            if !bytes.is_empty() {
                return Some(bytes);
            }
            if ended || self.changed.changed().await.is_err() {
                return None;
            }
        }
    }

    /// The same without waiting: empty when nothing came.
    pub fn try_read(&mut self) -> Vec<u8> {
        self.take().0
    }

    /// Bytes that were printed but no longer kept when they would have been read.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn take(&mut self) -> (Vec<u8>, bool) {
        let kept = self.log.kept.lock();
        let first = kept.total - kept.bytes.len() as u64;
        if self.at < first {
            self.skipped += first - self.at;
            self.at = first;
        }
        let from = (self.at - first) as usize;
        self.at = kept.total;
        (kept.bytes.range(from..).copied().collect(), kept.ended)
    }
}

/// Where the output is kept.
#[derive(Debug)]
pub(super) struct ConsoleLog {
    kept: Mutex<Kept>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: VecDeque<u8>,
    /// Bytes that ever came.
    total: u64,
    ended: bool,
}

impl ConsoleLog {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::default(),
            changed: watch::Sender::new(0),
        })
    }

    pub(super) fn push(&self, bytes: &[u8]) {
        let mut kept = self.kept.lock();
        kept.bytes.extend(bytes);
        kept.total += bytes.len() as u64;
        let over = kept.bytes.len().saturating_sub(KEPT);
        kept.bytes.drain(..over);
        drop(kept);
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// The last bytes, as text.
    pub(super) fn tail(&self, most: usize) -> String {
        let kept = self.kept.lock();
        let from = kept.bytes.len().saturating_sub(most);
        let bytes: Vec<u8> = kept.bytes.range(from..).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Nothing more will come.
    pub(super) fn end(&self) {
        self.kept.lock().ended = true;
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// A reader that begins with the oldest bytes that are kept.
    pub(super) fn reader(self: &Arc<Self>) -> Console {
        Console {
            log: self.clone(),
            changed: self.changed.subscribe(),
            at: 0,
            skipped: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_reader_gets_all_that_is_kept_and_then_the_end() {
        let log = ConsoleLog::new();
        log.push(b"one ");
        let mut early = log.reader();
        assert_eq!(early.read().await.unwrap(), b"one ");
        assert!(early.try_read().is_empty());
        log.push(b"two");
        log.end();
        assert_eq!(early.read().await.unwrap(), b"two");
        assert_eq!(early.read().await, None);
        let mut late = log.reader();
        assert_eq!(late.read().await.unwrap(), b"one two");
        assert_eq!(late.read().await, None);
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_missed() {
        let log = ConsoleLog::new();
        let mut reader = log.reader();
        log.push(b"lost");
        log.push(&vec![b'x'; KEPT]);
        assert_eq!(reader.read().await.unwrap().len(), KEPT);
        assert_eq!(reader.skipped(), 4);
    }
}
