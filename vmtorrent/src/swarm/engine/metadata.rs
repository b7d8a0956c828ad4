//! The info dictionary for peers that have only a magnet link, and the profile for those that have none. Invariant: what
//! is sent of them counts against the upload limit, and takes turns with blocks where that limit is felt.

use std::time::Duration;

use super::{DisconnectReason, Engine};
use crate::clock::Time;
use crate::image::PieceIndex;
use crate::picker::PeerKey;
use crate::swarm::metadata::{MetadataMessage, MetadataServe, ServeNext};

/// How long to wait for a block to go out before looking again.
const TURN: Duration = Duration::from_millis(5);

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

    /// Sends what is due of the info dictionary and of the profile.
    pub(super) fn pump_metadata(&mut self, now: Time) {
        self.pump_served(now, |engine| &mut engine.metadata);
        self.pump_served(now, |engine| &mut engine.profiles.serve);
    }

    fn pump_served(&mut self, now: Time, served: impl Fn(&mut Self) -> &mut MetadataServe) {
        loop {
            match served(self).next(now) {
                ServeNext::Nothing => return,
                ServeNext::At(time) => return self.wake(time),
                ServeNext::Ready => {}
            }
            // Blocks that wait have their turn: one of them goes out between two messages.
            let uploaded = self.traffic.uploaded;
            let picker = &self.picker;
            let copies = |piece| picker.availability(PieceIndex(piece));
            if self.uploads.is_ready(now, copies) && !served(self).has_turn(uploaded) {
                return self.wake(now + TURN);
            }
            let ready = self.upload.lock().ready(now);
            if let Err(wait) = ready {
                return self.wake(now + wait);
            }
            let Some((key, message, bytes)) = served(self).pop(now) else {
                return;
            };
            self.upload.lock().charge(bytes);
            served(self).took_turn(uploaded);
            self.send(now, key, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use parking_lot::Mutex;

    use super::*;
    use crate::Bitfield;
    use crate::options::Fill;
    use crate::swarm::engine::{Abilities, EngineConfig, Output};
    use crate::swarm::limiter::Limiter;
    use crate::swarm::wire::{ExtendedHello, WireMessage, WireRequest};

    const STEP: Duration = Duration::from_millis(50);

    /// A seed with a peer that has said under which number it takes ut_metadata.
    fn seed(info_length: usize, upload: Option<u64>) -> (Engine, PeerKey) {
        let mut image = crate::test_image::image_of(&[7; 1 << 20], 16 << 10);
        image.info_bytes = Bytes::from(vec![b'i'; info_length]);
        let mut have = Bitfield::new(image.geometry().piece_count());
        for piece in image.geometry().pieces() {
            have.set(piece, true);
        }
        let limiter = |rate| Arc::new(Mutex::new(Limiter::new(rate)));
        let config = EngineConfig {
            image: Arc::new(image),
            have,
            fill: Fill::None,
            download: limiter(None),
            upload: limiter(upload),
            upload_slots: None,
            listen_port: 0,
            peer_id: [0; 20],
            profile_exchange: true,
            peer_exchange: true,
            seed: 1,
        };
        let mut engine = Engine::new(Time::default(), config);
        let address = ([127, 0, 0, 1], 1).into();
        let abilities = Abilities {
            extended: true,
            fast: true,
            ..Abilities::default()
        };
        let key = engine.connected(Time::default(), address, None, abilities);
        let hello = engine.take_outputs().into_iter().find_map(|o| match o {
            Output::Send(_, WireMessage::ExtendedHello(hello)) => Some(hello),
            _ => None,
        });
        assert_eq!(hello.unwrap().metadata_size, Some(info_length as u32));
        let hello = ExtendedHello {
            ut_metadata: Some(5),
            ..ExtendedHello::default()
        };
        engine.received(Time::default(), key, WireMessage::ExtendedHello(hello));
        (engine, key)
    }

    fn ask(engine: &mut Engine, now: Time, key: PeerKey, piece: u32) {
        let message = MetadataMessage::Request { piece };
        let extension = 1;
        engine.received(now, key, WireMessage::Metadata { extension, message });
    }

    /// Bytes of metadata and of blocks that go out now; blocks are sent at once.
    fn sent(engine: &mut Engine, now: Time) -> (usize, usize) {
        let (mut metadata, mut blocks) = (0, 0);
        loop {
            let outputs = engine.take_outputs();
            if outputs.is_empty() {
                return (metadata, blocks);
            }
            for output in outputs {
                match output {
                    Output::Send(_, WireMessage::Metadata { extension, message }) => {
                        assert_eq!(extension, 5);
                        if let MetadataMessage::Data { data, .. } = message {
                            metadata += data.len();
                        }
                    }
                    Output::SendBlock(key, request) => {
                        blocks += request.length as usize;
                        engine.block_sent(now, key, request, true);
                    }
                    Output::Disconnect(_, reason) => panic!("{reason:?}"),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn metadata_keeps_to_the_upload_limit_and_leaves_blocks_their_part() {
        let (mut engine, key) = seed(40 << 14, Some(200_000));
        let (mut metadata, mut blocks) = (0, 0);
        let mut now = Time::default();
        for round in 0..200u32 {
            for piece in 0..40 {
                ask(&mut engine, now, key, piece);
            }
            for _ in 0..2 {
                let request = WireRequest {
                    piece: round % 64,
                    begin: 0,
                    length: 16 << 10,
                };
                engine.received(now, key, WireMessage::Request(request));
            }
            engine.tick(now);
            let (m, b) = sent(&mut engine, now);
            (metadata, blocks) = (metadata + m, blocks + b);
            now = now + STEP;
        }
        let limit = 200_000 * 10 + (64 << 10);
        assert!(metadata + blocks <= limit, "{metadata} + {blocks} bytes");
        assert!(metadata > limit / 5, "{metadata} bytes of metadata");
        assert!(blocks > limit / 5, "{blocks} bytes of blocks");
    }

    #[test]
    fn answers_that_nobody_asked_for_end_the_connection() {
        let (mut engine, key) = seed(100, None);
        ask(&mut engine, Time::default(), key, 0);
        assert_eq!(sent(&mut engine, Time::default()), (100, 0));
        let message = MetadataMessage::Reject { piece: 0 };
        let extension = 1;
        let message = WireMessage::Metadata { extension, message };
        engine.received(Time::default(), key, message);
        let outputs = engine.take_outputs();
        let ended = |o: &Output| matches!(o, Output::Disconnect(_, DisconnectReason::Protocol(_)));
        assert!(outputs.iter().any(ended), "{outputs:?}");
    }
}
