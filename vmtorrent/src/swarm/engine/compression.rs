//! Which peers send and get blocks in compressed form (vmt_zstd, docs/protocol.md).
//!
//! Invariant: a peer gets compressed blocks only while it announces that it takes them and did not say that it would
//! rather not; none is taken unless we announced it. A peer is told what we want at most once in [`PAUSE`].

use std::num::NonZeroU8;
use std::time::Duration;

use super::{DisconnectReason, Engine, Output};
use crate::clock::Time;
use crate::picker::PeerKey;
use crate::swarm::compression::ZstdMessage;
use crate::swarm::wire::{ExtendedHello, VMT_ZSTD, WireMessage, WireRequest};

/// Bytes per second on the line to a peer above which plain blocks are wanted of it, and below which compressed ones are
/// again. At 400 Mbit/s a block of 16 KiB takes 0.33 ms, of which compression saves about 0.2 and costs 0.1 at both ends
/// together; on faster lines the processors would be waited for.
const FAST: f64 = 50e6;
const SLOW: f64 = 25e6;
/// The least time between two words about what we want, but for the first.
const PAUSE: Duration = Duration::from_secs(1);

/// What is agreed with one peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Agreed {
    /// Its number for the extension.
    extension: Option<NonZeroU8>,
    /// It would rather have plain blocks.
    likes_plain: bool,
    /// We said that we would, and when we last said anything of it.
    we_like_plain: bool,
    told: Option<Time>,
}

impl Engine {
    /// Blocks are taken and given in compressed form where peers do the same. To be said before there are any.
    pub(crate) fn enable_compression(&mut self) {
        self.compression = true;
    }

    /// What our hello says of it.
    pub(super) fn announce_compression(&self, hello: &mut ExtendedHello) {
        hello.vmt_zstd = self.compression.then_some(VMT_ZSTD);
    }

    /// A peer said that it takes compressed blocks, or no more. What a later handshake leaves out stays as it was (BEP 10).
    pub(super) fn on_compression_hello(&mut self, key: PeerKey, hello: &ExtendedHello) {
        if let Some(number) = hello.vmt_zstd
            && self.compression
            && let Some(peer) = self.peers.get_mut(&key)
        {
            peer.compression.extension = NonZeroU8::new(number);
            self.note_compression(key);
        }
    }

    /// A message of the extension. Blocks come [expanded](WireMessage::Expanded) if they were agreed on.
    pub(super) fn on_zstd_message(&mut self, now: Time, key: PeerKey, message: &ZstdMessage) {
        match *message {
            ZstdMessage::Wanted(wanted) if self.compression => {
                if let Some(peer) = self.peers.get_mut(&key)
                    && std::mem::replace(&mut peer.compression.likes_plain, !wanted) == wanted
                {
                    self.note_compression(key);
                }
            }
            _ => {
                let reason = "vmt_zstd was not agreed on".to_owned();
                self.disconnect(now, key, DisconnectReason::Protocol(reason));
            }
        }
    }

    /// Tells the driver in which form a peer's blocks may go from now on.
    fn note_compression(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get(&key) {
            let agreed = peer.compression;
            let extension = agreed.extension.filter(|_| !agreed.likes_plain);
            self.outputs.push(Output::Compress(key, extension));
        }
    }

    /// Whether there is anybody who lacks something and takes frames: what comes as one is then kept, so that it need not be
    /// compressed again.
    pub(super) fn gives_frames(&self) -> bool {
        let takes = |a: &Agreed| a.extension.is_some() && !a.likes_plain;
        let mut peers = self.peers.iter();
        peers.any(|(key, p)| takes(&p.compression) && !self.picker.is_whole(*key))
    }

    /// A block came: says in which form the next ones are wanted, if that has changed.
    pub(super) fn choose_form(&mut self, now: Time, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else {
            return;
        };
        let agreed = &mut peer.compression;
        let (Some(extension), Some(rate)) = (agreed.extension, peer.path.measured_rate()) else {
            return;
        };
        let like_plain = if agreed.we_like_plain {
            rate >= SLOW
        } else {
            rate > FAST
        };
        if like_plain == agreed.we_like_plain
            || agreed.told.is_some_and(|told| now.since(told) < PAUSE)
        {
            return;
        }
        agreed.we_like_plain = like_plain;
        agreed.told = Some(now);
        let message = WireMessage::Zstd {
            extension: extension.get(),
            message: ZstdMessage::Wanted(!like_plain),
        };
        self.send(now, key, message);
    }

    /// The driver has sent a block that took `wire` bytes, without the message's header.
    pub(crate) fn block_sent_as(
        &mut self,
        now: Time,
        key: PeerKey,
        request: WireRequest,
        wire: u32,
    ) {
        let saved = request.length.saturating_sub(wire);
        // The limit is on what the line carries.
        self.upload.lock().refund(saved.into());
        self.block_sent(now, key, request, true);
        self.traffic.uploaded_wire -= u64::from(saved);
    }
}
