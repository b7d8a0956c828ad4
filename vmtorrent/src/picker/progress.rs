//! Invariant: each block of an open piece is in exactly one state: free, asked of one or more peers, or received.

use super::{Band, PeerKey};

#[derive(Clone, Debug, PartialEq, Eq)]
enum BlockState {
    Free,
    /// Asked of these peers. Two at most: a block that is late at one peer is asked of one other.
    Asked(PeerKey, Option<PeerKey>),
    Received,
}

/// The blocks of a piece that is being fetched.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) band: Band,
    /// The peer that was asked first, while it stays: in the background the others leave the piece to it.
    pub(super) owner: Option<PeerKey>,
    blocks: Vec<BlockState>,
    free: u32,
    received: u32,
}

/// What the arrival of a block meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It was missing. The other peers that were asked for it.
    New {
        others: [Option<PeerKey>; 2],
        complete: bool,
    },
    /// It was there already.
    Duplicate,
}

impl Progress {
    pub(super) fn new(band: Band, blocks: u32) -> Self {
        Self {
            band,
            owner: None,
            blocks: vec![BlockState::Free; blocks as usize],
            free: blocks,
            received: 0,
        }
    }

    pub(super) fn has_free(&self) -> bool {
        self.free > 0
    }

    /// Whether every block is free.
    pub(super) fn is_untouched(&self) -> bool {
        self.free as usize == self.blocks.len()
    }

    pub(super) fn first_free(&self) -> Option<u32> {
        if self.free == 0 {
            return None;
        }
        self.blocks
            .iter()
            .position(|b| *b == BlockState::Free)
            .map(|i| i as u32)
    }

    /// Free blocks, in order.
    pub(super) fn free_blocks(&self) -> impl Iterator<Item = u32> + '_ {
        self.blocks
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == BlockState::Free)
            .map(|(i, _)| i as u32)
    }

    /// Notes that `peer` is asked for `block`; false when the block needs no further asking by it.
    pub(super) fn ask(&mut self, block: u32, peer: PeerKey) -> bool {
        let Some(state) = self.blocks.get_mut(block as usize) else {
            return false;
        };
        match state {
            BlockState::Free => {
                *state = BlockState::Asked(peer, None);
                self.free -= 1;
                self.owner.get_or_insert(peer);
                true
            }
            BlockState::Asked(first, second @ None) if *first != peer => {
                *second = Some(peer);
                true
            }
            BlockState::Asked(..) | BlockState::Received => false,
        }
    }

    /// The peers that were asked for this block.
    pub(super) fn asked_of(&self, block: u32) -> impl Iterator<Item = PeerKey> + '_ {
        let peers = match self.blocks.get(block as usize) {
            Some(BlockState::Asked(first, second)) => [Some(*first), *second],
            _ => [None, None],
        };
        peers.into_iter().flatten()
    }

    /// `peer` will not deliver `block`; true when the block became free by that.
    pub(super) fn give_up(&mut self, block: u32, peer: PeerKey) -> bool {
        let Some(state) = self.blocks.get_mut(block as usize) else {
            return false;
        };
        let BlockState::Asked(first, second) = *state else {
            return false;
        };
        match (first == peer, second) {
            (true, None) => {
                *state = BlockState::Free;
                self.free += 1;
                true
            }
            (true, Some(other)) => {
                *state = BlockState::Asked(other, None);
                false
            }
            (false, Some(other)) if other == peer => {
                *state = BlockState::Asked(first, None);
                false
            }
            (false, _) => false,
        }
    }

    pub(super) fn receive(&mut self, block: u32, from: PeerKey) -> Arrival {
        let Some(state) = self.blocks.get_mut(block as usize) else {
            return Arrival::Duplicate;
        };
        let others = match *state {
            BlockState::Received => return Arrival::Duplicate,
            BlockState::Free => {
                self.free -= 1;
                [None, None]
            }
            BlockState::Asked(first, second) => {
                [Some(first), second].map(|p| p.filter(|p| *p != from))
            }
        };
        *state = BlockState::Received;
        self.received += 1;
        Arrival::New {
            others,
            complete: self.received as usize == self.blocks.len(),
        }
    }

    /// The peers that are asked for a block of this piece, with the block.
    pub(super) fn asked(&self) -> impl Iterator<Item = (u32, PeerKey)> + '_ {
        self.blocks.iter().enumerate().flat_map(|(i, state)| {
            let peers = match *state {
                BlockState::Asked(first, second) => [Some(first), second],
                BlockState::Free | BlockState::Received => [None, None],
            };
            peers.into_iter().flatten().map(move |p| (i as u32, p))
        })
    }
}
