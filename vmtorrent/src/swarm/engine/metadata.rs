//! The info dictionary for peers that have only a magnet link. Invariant: what is sent of it counts against the
//! upload limit, and takes turns with blocks where that limit is felt.

use super::{DisconnectReason, Engine};
use crate::clock::Time;
use crate::picker::PeerKey;
use crate::swarm::metadata::{MetadataMessage, ServeNext};

impl Engine {
    pub(super) fn on_metadata(&mut self, now: Time, key: PeerKey, message: MetadataMessage) {
        match message {
            MetadataMessage::Request { piece } => {
                self.metadata.request(key, piece);
                self.pump_metadata(now);
            }
            MetadataMessage::Data { .. } | MetadataMessage::Reject { .. } => {
                let reason = "an answer of ut_metadata that nobody asked for".to_owned();
                self.disconnect(now, key, DisconnectReason::Protocol(reason));
            }
        }
    }

    /// Sends what is due of the info dictionary.
    pub(super) fn pump_metadata(&mut self, now: Time) {
        loop {
            match self.metadata.next(now) {
                ServeNext::Nothing => return,
                ServeNext::At(time) => return self.wake(time),
                ServeNext::Ready => {}
            }
            let ready = self.upload.lock().ready(now);
            if let Err(wait) = ready {
                return self.wake(now + wait);
            }
            let Some((key, message, bytes)) = self.metadata.pop(now) else {
                return;
            };
            self.upload.lock().charge(bytes);
            self.send(now, key, message);
            if self.uploads.is_ready() {
                // Blocks have their turn; the rest comes at the next tick.
                return self.wake(now);
            }
        }
    }
}
