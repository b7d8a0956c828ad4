//! What peers say. Invariant: nothing that a peer says is believed beyond what BEP 3 lets it say, and
//! what breaks the protocol ends the connection.

use bytes::{Bytes, BytesMut};

use super::{Assembly, DisconnectReason, Engine, MAX_REQUEST, Peer};
use crate::Bitfield;
use crate::clock::Time;
use crate::image::{BLOCK_LENGTH, BlockIndex, PieceIndex};
use crate::picker::{Band, BlockArrival, PeerKey};
use crate::swarm::engine::Output;
use crate::swarm::wire::{WireMessage, WireRequest};

/// A block as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came<'a> {
    pub(super) data: &'a [u8],
    /// What it took on the wire.
    pub(super) wire: u32,
    /// Its bytes there, if others may be given them as they are.
    pub(super) frame: Option<&'a Bytes>,
}

impl Engine {
    pub(super) fn on_have(&mut self, now: Time, key: PeerKey, piece: PieceIndex) {
        if !self.image.geometry().contains(piece) {
            let reason = format!("HAVE for piece {piece}, the image has fewer");
            self.disconnect(now, key, DisconnectReason::Protocol(reason));
            return;
        }
        self.uploads.came(now, key, piece.0);
        if self.picker.add_have(key, piece) {
            self.after_have(now, key, piece);
        }
    }

    pub(super) fn on_bitfield(&mut self, now: Time, key: PeerKey, bits: &[u8]) {
        match Bitfield::from_wire(bits, self.image.geometry().piece_count()) {
            Some(field) => self.on_field(now, key, field),
            None => {
                let reason = "BITFIELD of a wrong length".to_owned();
                self.disconnect(now, key, DisconnectReason::Protocol(reason));
            }
        }
    }

    /// A message of the fast extension (BEP 6).
    pub(super) fn on_fast(&mut self, now: Time, key: PeerKey, message: &WireMessage) {
        if self.peers.get(&key).is_none_or(|p| !p.fast) {
            let reason = "the fast extension was not agreed on".to_owned();
            self.disconnect(now, key, DisconnectReason::Protocol(reason));
            return;
        }
        let pieces = self.image.geometry().piece_count();
        match *message {
            // Said once more, it costs nothing.
            WireMessage::HaveAll if self.picker.field(key).is_some_and(Bitfield::is_full) => {}
            WireMessage::HaveAll => self.on_field(now, key, Bitfield::full(pieces)),
            WireMessage::HaveNone => self.on_field(now, key, Bitfield::new(pieces)),
            WireMessage::Reject(request) => self.on_reject(now, key, request),
            WireMessage::AllowedFast(piece) if piece < pieces => {
                if let Some(peer) = self.peers.get_mut(&key) {
                    peer.allow_fast(PieceIndex(piece));
                }
                if self.picker.has_free(Band::Demand) {
                    self.schedule(now);
                }
            }
            // A hint about another's disk: our order is the guest's.
            _ => {}
        }
    }

    /// What a peer has. aria2 says it again in place of many HAVEs; what is said later adds to what was said before.
    fn on_field(&mut self, now: Time, key: PeerKey, field: Bitfield) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if !std::mem::replace(&mut peer.said_field, true) {
            self.picker.set_field(key, field);
            self.note_peers();
        } else {
            // The work is bounded by the pieces that are new and by the bytes that came.
            let Some(known) = self.picker.field(key) else {
                return;
            };
            let new: Vec<_> = field.without(known).collect();
            if new.is_empty() {
                return;
            }
            for piece in new {
                self.picker.add_have(key, piece);
            }
        }
        self.after_news(now, key);
    }

    /// A peer has one piece more. With all its peers' HAVEs this is what a host hears most of: nothing is looked through
    /// but for that piece.
    fn after_have(&mut self, now: Time, key: PeerKey, piece: PieceIndex) {
        if self.leave_if_both_full(now, key) {
            return;
        }
        self.show_interest(now, key);
        if !self.picker.has_free_block(piece) {
            return;
        }
        self.go_on_with(now, key);
    }

    fn leave_if_both_full(&mut self, now: Time, key: PeerKey) -> bool {
        let full = self.picker.field(key).is_some_and(Bitfield::is_full);
        if full {
            // It was one to trade with.
            self.note_peers();
        }
        let both = full && self.is_complete();
        if both {
            self.disconnect(now, key, DisconnectReason::BothSeeds);
        }
        both
    }

    /// A peer said what it has: perhaps we want some of it, perhaps it is done.
    fn after_news(&mut self, now: Time, key: PeerKey) {
        if self.leave_if_both_full(now, key) {
            return;
        }
        self.show_interest(now, key);
        self.go_on_with(now, key);
    }

    /// Says that a peer has what we lack, if it does and was not told yet.
    pub(super) fn show_interest(&mut self, now: Time, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(&key)
            && !peer.we_are_interested
            && self.picker.is_interesting(key)
        {
            peer.we_are_interested = true;
            self.send(now, key, WireMessage::Interested);
        }
    }

    pub(super) fn on_request(&mut self, now: Time, key: PeerKey, request: WireRequest) {
        let piece = PieceIndex(request.piece);
        let geometry = self.image.geometry();
        let fits = geometry.contains(piece)
            && (1..=MAX_REQUEST).contains(&request.length)
            && u64::from(request.begin) + u64::from(request.length)
                <= u64::from(geometry.piece_length(piece));
        if !fits {
            let reason = format!("request outside the image: {request:?}");
            self.disconnect(now, key, DisconnectReason::Protocol(reason));
            return;
        }
        let may_ask = |p: &mut Peer| !p.we_choke || p.may_ask_choked.admit(request);
        if !self.peers.get_mut(&key).is_some_and(may_ask) {
            self.reject(now, key, request);
            return;
        }
        if !self.have.get(piece) {
            self.refuse(now, key, request);
            return;
        }
        let copies = self.picker.availability(piece);
        if self.uploads.push(now, key, request, copies) {
            self.pump_uploads(now);
        } else {
            self.reject(now, key, request);
        }
    }

    /// A peer takes a request back. With the fast extension each request is answered, this one too.
    pub(super) fn on_cancel(&mut self, now: Time, key: PeerKey, request: WireRequest) {
        if self.uploads.cancel(now, key, request) {
            self.reject(now, key, request);
        }
    }

    /// Tells a peer that a request will not be answered, if it knows the fast extension.
    pub(super) fn reject(&mut self, now: Time, key: PeerKey, request: WireRequest) -> bool {
        let fast = self.peers.get(&key).is_some_and(|p| p.fast);
        if fast {
            self.send(now, key, WireMessage::Reject(request));
        }
        fast
    }

    /// A block can't be served. Without the fast extension nobody can be told so, and the peer would wait
    /// for it; when it connects again, it sees what we really have.
    pub(super) fn refuse(&mut self, now: Time, key: PeerKey, request: WireRequest) {
        if self.reject(now, key, request) {
            return;
        }
        let piece = PieceIndex(request.piece);
        let reason = format!("piece {piece} can't be served");
        self.disconnect(now, key, DisconnectReason::Protocol(reason));
    }

    /// A block.
    pub(super) fn on_block(
        &mut self,
        now: Time,
        key: PeerKey,
        piece: u32,
        begin: u32,
        came: Came<'_>,
    ) {
        let Came { data, wire, .. } = came;
        let Some(block) = self
            .image
            .geometry()
            .block_from_wire(piece, begin, data.len() as u32)
        else {
            let reason = format!("a block that nobody asks for: piece {piece} at {begin}");
            self.disconnect(now, key, DisconnectReason::Protocol(reason));
            return;
        };
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        if !peer.note_block(now, block, wire) {
            // Nobody asked it for this block, so it is no answer, and may be meant to spoil a piece.
            self.traffic.wasted += data.len() as u64;
            if peer.floods() {
                let reason = "many blocks that nobody asked for".to_owned();
                self.disconnect(now, key, DisconnectReason::Protocol(reason));
            }
            return;
        }
        let saved = (data.len() as u64).saturating_sub(wire.into());
        if saved > 0 {
            // The limit is on what the line carries, and the whole block was charged when it was asked for.
            self.download.lock().refund(saved);
        }
        match self.picker.receive(key, block) {
            BlockArrival::Unwanted => self.traffic.wasted += data.len() as u64,
            BlockArrival::New {
                band,
                others,
                complete,
            } => {
                self.traffic.fetched[band.index()] += data.len() as u64;
                self.traffic.fetched_wire += u64::from(wire);
                self.choker.gave(key, data.len() as u64);
                for other in others.into_iter().flatten() {
                    self.cancel(now, other, block);
                }
                self.assemble(key, block, band, came, complete);
            }
        }
        self.choose_form(now, key);
        self.go_on_with(now, key);
    }

    fn assemble(
        &mut self,
        key: PeerKey,
        block: BlockIndex,
        band: Band,
        came: Came<'_>,
        complete: bool,
    ) {
        let Came { data, wire, frame } = came;
        let frame = frame.filter(|_| self.gives_frames());
        let length = self.image.geometry().piece_length(block.piece) as usize;
        let kept = if self.keeps_bodies { length } else { 0 };
        let assembly = self
            .assembly
            .entry(block.piece)
            .or_insert_with(|| Assembly {
                data: BytesMut::zeroed(kept),
                kept: Bytes::new(),
                givers: vec![None; length.div_ceil(BLOCK_LENGTH as usize)],
                received: [0; 4],
                of_web_seeds: 0,
                wire: 0,
                frames: Vec::new(),
            });
        let begin = block.block as usize * BLOCK_LENGTH as usize;
        if self.keeps_bodies {
            assembly.data[begin..begin + data.len()].copy_from_slice(data);
        }
        assembly.received[band.index()] += data.len() as u64;
        assembly.wire += u64::from(wire);
        if let Some(frame) = frame {
            // What it lies in is as large as what came at once.
            let frame = Bytes::copy_from_slice(frame);
            assembly.frames.push((block.block, frame));
        }
        if self.peers.get(&key).is_some_and(Peer::is_web_seed) {
            assembly.of_web_seeds += data.len() as u64;
            self.traffic.web_seeds += data.len() as u64;
        }
        if let Some(giver) = assembly.givers.get_mut(block.block as usize) {
            *giver = Some(key);
        }
        if complete {
            assembly.kept = std::mem::take(&mut assembly.data).freeze();
            let data = assembly.kept.clone();
            let frames = std::mem::take(&mut assembly.frames);
            if !frames.is_empty() {
                self.outputs.push(Output::Frames(block.piece, frames));
            }
            self.storing += length as u64;
            self.outputs.push(Output::Store(block.piece, data));
        }
    }

    /// What came of a piece was in vain.
    pub(super) fn forget_assembly(&mut self, piece: PieceIndex) -> Option<Assembly> {
        let assembly = self.assembly.remove(&piece)?;
        for (fetched, received) in self.traffic.fetched.iter_mut().zip(assembly.received) {
            *fetched -= received;
            self.traffic.wasted += received;
        }
        self.traffic.web_seeds -= assembly.of_web_seeds;
        self.traffic.fetched_wire -= assembly.wire;
        Some(assembly)
    }
}
