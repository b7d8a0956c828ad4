//! Invariant: a piece is here, or asked for, or free; what is here was given by the contributor that is noted.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{METADATA_PIECE, piece_count, piece_length};
use crate::picker::PeerKey;

/// An info dictionary of one claimed length that is coming in.
#[derive(Debug)]
pub(super) struct Assembly {
    size: u32,
    slots: Vec<Slot>,
    /// Made when the first piece comes, so that a claim alone costs nothing.
    data: Vec<u8>,
    received: u32,
    contributors: BTreeSet<PeerKey>,
    checking: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Free,
    /// By how many peers.
    Asked(u8),
    Here,
}

impl Assembly {
    pub(super) fn new(size: u32) -> Self {
        Self {
            size,
            slots: vec![Slot::Free; piece_count(size) as usize],
            data: Vec::new(),
            received: 0,
            contributors: BTreeSet::new(),
            checking: false,
        }
    }

    /// Bytes that came.
    pub(super) fn received(&self) -> u32 {
        self.received
    }

    /// Bytes that are missing.
    pub(super) fn missing(&self) -> u32 {
        self.size - self.received
    }

    /// Whether its hash is being computed.
    pub(super) fn is_checking(&self) -> bool {
        self.checking
    }

    /// Who gave some of it.
    pub(super) fn contributors(&self) -> &BTreeSet<PeerKey> {
        &self.contributors
    }

    /// A piece that nobody was asked for.
    pub(super) fn free(&self, skip: impl Fn(u32) -> bool) -> Option<u32> {
        self.find(|slot| slot == Slot::Free, skip)
    }

    /// A piece that somebody was asked for.
    pub(super) fn asked(&self, skip: impl Fn(u32) -> bool) -> Option<u32> {
        self.find(|slot| matches!(slot, Slot::Asked(_)), skip)
    }

    fn find(&self, wanted: impl Fn(Slot) -> bool, skip: impl Fn(u32) -> bool) -> Option<u32> {
        if self.checking {
            return None;
        }
        let all = self.slots.iter().zip(0..);
        let mut found = all.filter(|(slot, _)| wanted(**slot)).map(|(_, n)| n);
        found.find(|piece| !skip(*piece))
    }

    /// A peer is asked for a piece.
    pub(super) fn ask(&mut self, piece: u32) {
        match self.slots.get_mut(piece as usize) {
            Some(slot @ Slot::Free) => *slot = Slot::Asked(1),
            Some(Slot::Asked(n)) => *n = n.saturating_add(1),
            Some(Slot::Here) | None => {}
        }
    }

    /// A peer that was asked will not answer.
    pub(super) fn release(&mut self, piece: u32) {
        match self.slots.get_mut(piece as usize) {
            Some(slot @ Slot::Asked(1)) => *slot = Slot::Free,
            Some(Slot::Asked(n)) => *n -= 1,
            Some(Slot::Free | Slot::Here) | None => {}
        }
    }

    /// A piece of the right length came. Gives all bytes when it was the last one; they are being checked from then on.
    pub(super) fn receive(&mut self, from: PeerKey, piece: u32, data: &[u8]) -> Option<Bytes> {
        debug_assert_eq!(data.len() as u32, piece_length(self.size, piece));
        let slot = self.slots.get_mut(piece as usize)?;
        if self.checking || *slot == Slot::Here {
            return None;
        }
        *slot = Slot::Here;
        if self.data.is_empty() {
            self.data = vec![0; self.size as usize];
        }
        let begin = piece as usize * METADATA_PIECE as usize;
        self.data[begin..begin + data.len()].copy_from_slice(data);
        self.received += data.len() as u32;
        self.contributors.insert(from);
        if self.missing() > 0 {
            return None;
        }
        self.checking = true;
        Some(std::mem::take(&mut self.data).into())
    }
}
