//! Invariant: peers that wait get the same number of bytes, but for a block, however they cut their requests; a peer's
//! queue is bounded; a cancelled request is never answered once it was taken out.

use std::collections::VecDeque;

use super::wire::WireRequest;
use crate::hash::HashMap;
use crate::picker::PeerKey;

/// Requests of peers that wait to be served.
///
/// Deficit round robin (Shreedhar and Varghese, SIGCOMM 1995) with a quantum of one block. Nearly all blocks are of
/// that size, so a peer is served first and then sits out turns for what was larger.
#[derive(Debug, Default)]
pub(crate) struct UploadQueue {
    peers: HashMap<PeerKey, Waiting>,
    /// Peers that have requests and room, in the order of their turn.
    turn: VecDeque<PeerKey>,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: VecDeque<WireRequest>,
    /// Bytes handed to the peer's writer that it has not sent.
    sending: u64,
    /// Bytes beyond its share that it got.
    debt: u64,
    in_turn: bool,
}

impl UploadQueue {
    /// Requests that one peer may have waiting; we announce it as `reqq`.
    pub(crate) const MAX_REQUESTS: usize = 512;
    /// Bytes that are handed to one peer's writer at once: enough to keep a fast line busy, little
    /// enough that CANCEL and the order among peers mean something.
    const MAX_SENDING: u64 = 256 << 10;
    /// Bytes for each turn.
    const QUANTUM: u64 = 16 << 10;
    /// What the smallest request counts for: reading and sending it costs about as much as this many bytes.
    const MIN_COST: u64 = 4 << 10;

    /// A peer asks for a block. False: its queue is full, the request is dropped.
    pub(crate) fn push(&mut self, peer: PeerKey, request: WireRequest) -> bool {
        let waiting = self.peers.entry(peer).or_default();
        if waiting.requests.contains(&request) {
            return true;
        }
        if waiting.requests.len() >= Self::MAX_REQUESTS {
            return false;
        }
        waiting.requests.push_back(request);
        self.line_up(peer);
        true
    }

    /// A peer takes a request back. True when it was still waiting.
    pub(crate) fn cancel(&mut self, peer: PeerKey, request: WireRequest) -> bool {
        let Some(waiting) = self.peers.get_mut(&peer) else {
            return false;
        };
        let before = waiting.requests.len();
        waiting.requests.retain(|r| *r != request);
        before != waiting.requests.len()
    }

    /// A peer has gone.
    pub(crate) fn remove(&mut self, peer: PeerKey) {
        self.peers.remove(&peer);
        self.turn.retain(|p| *p != peer);
    }

    /// Whether any request could be served now.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.drop_idle();
        !self.turn.is_empty()
    }

    /// The next block to send.
    pub(crate) fn pop(&mut self) -> Option<(PeerKey, WireRequest)> {
        loop {
            self.drop_idle();
            let peer = self.turn.pop_front()?;
            let waiting = self.peers.get_mut(&peer)?;
            if waiting.debt >= Self::QUANTUM {
                waiting.debt -= Self::QUANTUM;
                self.turn.push_back(peer);
                continue;
            }
            waiting.in_turn = false;
            let request = waiting.requests.pop_front()?;
            let cost = Self::cost(request.length.into());
            waiting.sending += cost;
            waiting.debt += cost.saturating_sub(Self::QUANTUM);
            self.line_up(peer);
            return Some((peer, request));
        }
    }

    /// The peer's writer has sent a block of `bytes` that was popped.
    pub(crate) fn sent(&mut self, peer: PeerKey, bytes: u64) {
        if let Some(waiting) = self.peers.get_mut(&peer) {
            waiting.sending = waiting.sending.saturating_sub(Self::cost(bytes));
            self.line_up(peer);
        }
    }

    fn cost(bytes: u64) -> u64 {
        bytes.max(Self::MIN_COST)
    }

    fn line_up(&mut self, peer: PeerKey) {
        if let Some(waiting) = self.peers.get_mut(&peer)
            && !waiting.in_turn
            && !waiting.requests.is_empty()
            && waiting.sending < Self::MAX_SENDING
        {
            waiting.in_turn = true;
            self.turn.push_back(peer);
        }
    }

    /// Takes peers out of turn whose requests were all cancelled.
    fn drop_idle(&mut self) {
        while let Some(peer) = self.turn.front() {
            match self.peers.get_mut(peer) {
                Some(waiting) if !waiting.requests.is_empty() => break,
                Some(waiting) => waiting.in_turn = false,
                None => {}
            }
            self.turn.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(piece: u32) -> WireRequest {
        WireRequest {
            piece,
            begin: 0,
            length: 16_384,
        }
    }

    fn pop(q: &mut UploadQueue) -> Option<usize> {
        q.pop().map(|(p, _)| p.0)
    }

    #[test]
    fn peers_take_turns_block_by_block() {
        let mut q = UploadQueue::default();
        for n in 0..6 {
            q.push(PeerKey(1), block(n));
        }
        q.push(PeerKey(2), block(0));
        q.push(PeerKey(2), block(1));
        q.push(PeerKey(3), block(0));
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut q)).collect();
        assert_eq!(order, [1, 2, 3, 1, 2, 1, 1, 1, 1]);
    }

    #[test]
    fn large_requests_give_no_larger_share() {
        let mut q = UploadQueue::default();
        let mut given = [0; 2];
        for n in 0.. {
            // Both always have something to ask for, and read at once what they get.
            for (peer, length) in [(0, 128 << 10), (1, 16 << 10)] {
                let piece = n;
                let begin = 0;
                q.push(
                    PeerKey(peer),
                    WireRequest {
                        piece,
                        begin,
                        length,
                    },
                );
            }
            let Some((peer, request)) = q.pop() else {
                break;
            };
            q.sent(peer, request.length.into());
            given[peer.0] += request.length;
            if given[0] + given[1] > 20 << 20 {
                break;
            }
        }
        assert!(given[0].abs_diff(given[1]) <= 256 << 10, "{given:?}");
    }

    #[test]
    fn a_large_request_alone_is_served_at_once() {
        let mut q = UploadQueue::default();
        for piece in 0..8 {
            let length = 128 << 10;
            q.push(
                PeerKey(1),
                WireRequest {
                    piece,
                    begin: 0,
                    length,
                },
            );
            assert!(q.is_ready());
            assert_eq!(pop(&mut q), Some(1));
            q.sent(PeerKey(1), length.into());
        }
    }

    #[test]
    fn single_bytes_that_are_not_read_do_not_pile_up() {
        let mut q = UploadQueue::default();
        let mut handed = 0;
        for begin in 0..100_000 {
            q.push(
                PeerKey(1),
                WireRequest {
                    piece: 0,
                    begin,
                    length: 1,
                },
            );
            handed += std::iter::from_fn(|| pop(&mut q)).count();
        }
        assert_eq!(handed, 64);
        for _ in 0..64 {
            q.sent(PeerKey(1), 1);
        }
        assert_eq!(
            std::iter::from_fn(|| pop(&mut q)).count(),
            64,
            "what was sent makes room"
        );
    }

    #[test]
    fn a_cancelled_request_is_not_served() {
        let mut q = UploadQueue::default();
        q.push(PeerKey(1), block(0));
        q.push(PeerKey(1), block(1));
        assert!(q.cancel(PeerKey(1), block(0)));
        assert!(!q.cancel(PeerKey(1), block(0)));
        assert_eq!(q.pop(), Some((PeerKey(1), block(1))));
        assert!(!q.cancel(PeerKey(1), block(1)));
        assert!(!q.is_ready());
    }

    #[test]
    fn a_slow_reader_holds_up_nobody_and_queues_are_bounded() {
        let mut q = UploadQueue::default();
        for n in 0..UploadQueue::MAX_REQUESTS as u32 {
            assert!(q.push(PeerKey(1), block(n)));
        }
        assert!(!q.push(PeerKey(1), block(9999)));
        let handed = std::iter::from_fn(|| pop(&mut q)).count();
        assert_eq!(handed, 16, "256 KiB of blocks");
        q.push(PeerKey(2), block(0));
        assert_eq!(pop(&mut q), Some(2));
        q.sent(PeerKey(1), 16_384);
        assert_eq!(pop(&mut q), Some(1));
    }
}
