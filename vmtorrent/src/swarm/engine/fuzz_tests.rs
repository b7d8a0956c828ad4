//! Streams of messages, valid and mutated, in any fragmentation, into the decoder and from there into a live engine:
//! nothing panics, and what the engine keeps of a peer is bounded.

use proptest::prelude::*;
use proptest::sample::Index;

use super::network::{image, piece_data};
use super::*;
use crate::profile::Profile;
use crate::swarm::compression::{Codec, CompressedBlock, ZstdMessage};
use crate::swarm::metadata::{METADATA_PIECE, MetadataMessage, piece_length};
use crate::swarm::peer_exchange::{Neighbour, PeerExchange};
use crate::swarm::wire::{Decoder, UT_PEX, VMT_URGENT, VMT_ZSTD, encode};

const PIECES: u32 = 11;
const PIECE: u32 = 40_000;
/// Parts of a profile that a peer may owe an answer for.
const PROFILE_PARTS: usize = 4;

/// What happens to an engine.
#[derive(Clone, Debug)]
enum Event {
    /// A peer sends bytes.
    Bytes(Index, Vec<u8>),
    Connect(bool, bool),
    Disconnect(Index),
    Demand(u32),
    ReadAhead(u32),
    Damaged(u32),
    SetFill(u8),
    /// Milliseconds pass.
    Time(u32),
    /// What the engine asked to be sent is sent, or can't be read.
    Sent(bool),
    /// What it asked to be stored is stored, or the disk is full.
    Stored(bool),
    /// What a peer gave as a profile is one, or not.
    Checked(bool),
    WantProfile,
    /// A peer says that it has a profile of this length.
    Offered(Index, u32),
    /// Peers answer what they were asked of a profile, or refuse it: as many of the requests.
    Parts(usize, bool),
    /// There is a text of this length for others.
    OfferProfile(u32),
}

fn request() -> impl Strategy<Value = WireRequest> {
    let begin = prop_oneof![
        6 => (0..3_u32).prop_map(|n| n * 16_384),
        1 => 0..PIECE + 2,
        1 => any::<u32>(),
    ];
    let length = prop_oneof![
        4 => Just(16_384_u32),
        2 => Just(PIECE - 2 * 16_384),
        1 => 0..140_000_u32,
        1 => any::<u32>(),
    ];
    (number(), begin, length).prop_map(|(piece, begin, length)| WireRequest {
        piece,
        begin,
        length,
    })
}

/// The number of a piece, mostly of one that exists.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![12 => 0..PIECES, 1 => Just(PIECES), 1 => any::<u32>()]
}

fn message() -> impl Strategy<Value = WireMessage> {
    let simple = prop_oneof![
        1 => Just(WireMessage::KeepAlive),
        1 => Just(WireMessage::Choke),
        4 => Just(WireMessage::Unchoke),
        1 => Just(WireMessage::Interested),
        1 => Just(WireMessage::NotInterested),
        2 => Just(WireMessage::HaveAll),
        1 => Just(WireMessage::HaveNone),
    ];
    let block = (request(), any::<bool>()).prop_map(|(r, lie)| {
        let whole = piece_data(r.piece % PIECES, PIECE);
        let start = (r.begin as usize).min(whole.len());
        let end = start.saturating_add(r.length as usize).min(whole.len());
        let mut data = whole[start..end].to_vec();
        if lie && let Some(first) = data.first_mut() {
            *first ^= 1;
        }
        WireMessage::Piece {
            piece: r.piece,
            begin: r.begin,
            data: data.into(),
        }
    });
    let hello = (
        any::<Option<u32>>(),
        any::<Option<u16>>(),
        any::<Option<u32>>(),
        any::<Option<u8>>(),
        any::<Option<u8>>(),
        any::<Option<u8>>(),
        proptest::option::of(profile_size()),
        any::<Option<u8>>(),
        any::<(Option<u8>, Option<u16>)>(),
    );
    let hello = hello.prop_map(
        |(
            reqq,
            port,
            metadata_size,
            ut_metadata,
            vmt_profile,
            vmt_zstd,
            vmt_profile_size,
            vmt_urgent,
            pex,
        )| {
            WireMessage::ExtendedHello(ExtendedHello {
                client: None,
                request_queue: reqq,
                listen_port: port.filter(|p| *p != 0),
                metadata_size,
                ut_metadata,
                vmt_profile,
                vmt_profile_size,
                vmt_zstd,
                vmt_urgent,
                ut_pex: pex.0,
                vmt_pex_interval: pex.1.filter(|n| *n != 0),
            })
        },
    );
    // What an honest peer says, and the parts that it then is asked for.
    let offer = profile_size().prop_map(offer);
    let part = (0..6_u32, profile_size(), 0..3_u32).prop_map(|(piece, total_size, wrong)| {
        let length = piece_length(total_size, piece) + wrong / 2;
        let data = vec![b'p'; length.clamp(1, METADATA_PIECE) as usize].into();
        WireMessage::Metadata {
            extension: VMT_PROFILE,
            message: MetadataMessage::Data {
                piece,
                total_size,
                data,
            },
        }
    });
    let compressed = (request(), any::<bool>(), 0..4_u8).prop_map(|(r, lie, damage)| {
        let whole = piece_data(r.piece % PIECES, PIECE);
        let start = (r.begin as usize).min(whole.len());
        let end = start.saturating_add(r.length as usize).min(whole.len());
        let mut plain = whole[start..end].to_vec();
        if lie && let Some(first) = plain.first_mut() {
            *first ^= 1;
        }
        let mut frame = vec![0; zstd_safe::compress_bound(plain.len())];
        let length = zstd_safe::compress(&mut frame[..], &plain, 1).unwrap();
        frame.truncate(length);
        if damage == 0 {
            frame.truncate(length / 2 + 1);
        }
        WireMessage::Zstd {
            extension: VMT_ZSTD,
            message: ZstdMessage::Block(CompressedBlock {
                block: r,
                frame: frame.into(),
            }),
        }
    });
    let wanted = any::<bool>().prop_map(|wanted| WireMessage::Zstd {
        extension: VMT_ZSTD,
        message: ZstdMessage::Wanted(wanted),
    });
    let metadata = (0..12_u32, any::<u32>(), 1..3_u8);
    let metadata = metadata.prop_map(|(kind, piece, extension)| WireMessage::Metadata {
        extension,
        message: match kind {
            0 => MetadataMessage::Data {
                piece,
                total_size: piece,
                data: Bytes::from_static(b"de"),
            },
            1 => MetadataMessage::Reject { piece },
            2 => MetadataMessage::Request { piece },
            _ => MetadataMessage::Request { piece: 0 },
        },
    });
    let neighbours = proptest::collection::vec(any::<([u8; 4], u16, u8)>(), 0..300);
    let exchange = neighbours.prop_map(|neighbours| WireMessage::PeerExchange {
        extension: UT_PEX,
        message: PeerExchange {
            added: neighbours
                .iter()
                .map(|&(ip, port, flags)| Neighbour {
                    address: (ip, port).into(),
                    flags,
                })
                .collect(),
            dropped: neighbours
                .iter()
                .map(|&(ip, port, _)| (ip, port).into())
                .collect(),
        },
    });
    prop_oneof![
        1 => exchange,
        6 => simple,
        3 => number().prop_map(WireMessage::Have),
        2 => proptest::collection::vec(any::<u8>(), 0..4).prop_map(|b| WireMessage::Bitfield(b.into())),
        1 => Just(WireMessage::Bitfield(Bytes::from_static(&[0xff, 0xe0]))),
        4 => request().prop_map(WireMessage::Request),
        2 => request().prop_map(WireMessage::Cancel),
        2 => request().prop_map(|request| WireMessage::Urgent { extension: VMT_URGENT, request }),
        6 => block,
        2 => request().prop_map(WireMessage::Reject),
        1 => number().prop_map(WireMessage::Suggest),
        1 => number().prop_map(WireMessage::AllowedFast),
        1 => hello,
        2 => metadata,
        1 => offer,
        2 => part,
        4 => compressed,
        1 => wanted,
    ]
}

/// A hello that offers a profile.
fn offer(size: u32) -> WireMessage {
    WireMessage::ExtendedHello(ExtendedHello {
        vmt_profile: Some(7),
        vmt_profile_size: Some(size),
        ..ExtendedHello::default()
    })
}

/// The length of a profile's text, mostly of a few parts.
fn profile_size() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => (1..6_u32).prop_map(|n| n * 16_000),
        1 => 1..u32::MAX,
    ]
}

/// Messages on the wire, now and then damaged there.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let whole = proptest::collection::vec(message(), 1..12).prop_map(|messages| {
        let mut out = BytesMut::new();
        for message in &messages {
            encode(message, &mut out);
        }
        out.to_vec()
    });
    let damage = (any::<Index>(), any::<u8>(), 0..4_u8);
    let damages = prop_oneof![
        3 => Just(Vec::new()),
        1 => proptest::collection::vec(damage, 1..4),
    ];
    let garbage = proptest::collection::vec(any::<u8>(), 0..300);
    let mutated = (whole, damages).prop_map(|(mut bytes, damages)| {
        for (at, value, kind) in damages {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] ^= value,
                1 => bytes.insert(at, value),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        bytes
    });
    prop_oneof![20 => mutated, 1 => garbage]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (any::<Index>(), stream()).prop_map(|(peer, bytes)| Event::Bytes(peer, bytes)),
        2 => any::<(bool, bool)>().prop_map(|(extended, fast)| Event::Connect(extended, fast)),
        1 => any::<Index>().prop_map(Event::Disconnect),
        4 => (0..PIECES).prop_map(Event::Demand),
        1 => (0..PIECES).prop_map(Event::ReadAhead),
        1 => (0..PIECES).prop_map(Event::Damaged),
        1 => (0..3_u8).prop_map(Event::SetFill),
        4 => prop_oneof![0..50_u32, 0..30_000_u32].prop_map(Event::Time),
        4 => any::<bool>().prop_map(Event::Sent),
        4 => proptest::bool::weighted(0.9).prop_map(Event::Stored),
        1 => any::<bool>().prop_map(Event::Checked),
        1 => Just(Event::WantProfile),
        3 => (any::<Index>(), profile_size()).prop_map(|(peer, size)| Event::Offered(peer, size)),
        3 => (0..8_usize, proptest::bool::weighted(0.8)).prop_map(|(n, well)| Event::Parts(n, well)),
        1 => (0..100_000_u32).prop_map(Event::OfferProfile),
    ]
}

/// A peer's side of a connection: the bytes that are not decoded yet.
struct Line {
    key: PeerKey,
    buffer: BytesMut,
}

struct Rig {
    engine: Engine,
    image: Arc<Image>,
    decoder: Decoder,
    codec: Codec,
    now: Time,
    lines: Vec<Line>,
    to_send: Vec<(PeerKey, WireRequest)>,
    to_store: Vec<(PieceIndex, Bytes)>,
    to_check: Vec<PeerKey>,
    /// Parts of a profile that peers were asked for.
    parts: Vec<(PeerKey, u32)>,
}

impl Rig {
    fn new(have: &[bool]) -> Self {
        let image = image(PIECES, PIECE);
        let mut field = Bitfield::new(PIECES);
        for (piece, have) in have.iter().enumerate() {
            field.set(PieceIndex(piece as u32), *have);
        }
        let limiter = || Arc::new(Mutex::new(Limiter::new(Some(10_000_000))));
        let config = EngineConfig {
            image: image.clone(),
            have: field,
            fill: Fill::Full,
            download: limiter(),
            upload: limiter(),
            upload_slots: None,
            listen_port: 1,
            peer_id: [0; 20],
            profile_exchange: true,
            peer_exchange: true,
            seed: 7,
        };
        let mut engine = Engine::new(Time::default(), config);
        engine.enable_compression();
        engine.want_profile(Time::default());
        Self {
            engine,
            image,
            decoder: Decoder::new(PIECES),
            codec: Codec::new(0),
            now: Time::default(),
            lines: Vec::new(),
            to_send: Vec::new(),
            to_store: Vec::new(),
            to_check: Vec::new(),
            parts: Vec::new(),
        }
    }

    fn happen(&mut self, event: Event, fragment: usize) {
        let now = self.now;
        match event {
            Event::Bytes(peer, bytes) => {
                for part in bytes.chunks(fragment) {
                    if self.lines.is_empty() {
                        return;
                    }
                    let line = peer.index(self.lines.len());
                    self.receive(line, part);
                }
            }
            Event::Connect(extended, fast) => {
                let address = SocketAddr::from(([127, 0, 0, 1], 1));
                let abilities = Abilities {
                    extended,
                    fast,
                    ..Abilities::default()
                };
                let key = self.engine.connected(now, address, None, abilities);
                let buffer = BytesMut::new();
                self.lines.push(Line { key, buffer });
            }
            Event::Disconnect(peer) if !self.lines.is_empty() => {
                let line = self.lines.remove(peer.index(self.lines.len()));
                self.engine.disconnected(now, line.key);
            }
            Event::Disconnect(_) => {}
            Event::Demand(piece) => {
                self.engine.demand(now, &[PieceIndex(piece)]);
            }
            Event::ReadAhead(piece) => self.engine.read_ahead(now, &[PieceIndex(piece)]),
            Event::Damaged(piece) => self.engine.damaged(now, PieceIndex(piece)),
            Event::SetFill(fill) => {
                let fill = [Fill::None, Fill::Idle, Fill::Full][usize::from(fill)];
                self.engine.set_fill(now, fill);
            }
            Event::Time(ms) => {
                self.now = now + Duration::from_millis(ms.into());
                self.engine.tick(self.now);
            }
            Event::Sent(well) => {
                for (key, request) in std::mem::take(&mut self.to_send) {
                    self.engine.block_sent(now, key, request, well);
                }
            }
            Event::Stored(well) => {
                for (piece, data) in std::mem::take(&mut self.to_store) {
                    if !well {
                        self.engine.not_stored(now, piece);
                    } else if crate::test_image::sha1(&data) == *self.image.piece_hash(piece) {
                        self.engine.stored(now, piece);
                    } else {
                        self.engine.mismatched(now, piece);
                    }
                }
            }
            Event::Checked(good) => {
                for key in std::mem::take(&mut self.to_check) {
                    self.engine.profile_checked(now, key, good);
                }
            }
            Event::WantProfile => self.engine.want_profile(now),
            Event::Offered(_, _) if self.lines.is_empty() => {}
            Event::Offered(peer, size) => {
                let key = self.lines[peer.index(self.lines.len())].key;
                self.engine.received(now, key, offer(size));
            }
            Event::Parts(count, well) => {
                for _ in 0..count.min(self.parts.len()) {
                    let (key, piece) = self.parts.remove(0);
                    self.answer(key, piece, well);
                }
            }
            Event::OfferProfile(length) => {
                let text = Bytes::from(vec![b'{'; length as usize]);
                self.engine.offer_profile(now, text, ProfileRank::OwnRun);
            }
        }
        self.collect();
    }

    /// A peer answers a request for a part of a profile, as one that it has announced.
    fn answer(&mut self, key: PeerKey, piece: u32, well: bool) {
        let total_size = self.engine.profiles.fetching().unwrap_or(1);
        let length = piece_length(total_size, piece).max(1);
        let message = if well {
            MetadataMessage::Data {
                piece,
                total_size,
                data: vec![b'p'; length as usize].into(),
            }
        } else {
            MetadataMessage::Reject { piece }
        };
        let message = WireMessage::Metadata {
            extension: VMT_PROFILE,
            message,
        };
        self.engine.received(self.now, key, message);
        self.collect();
    }

    /// Bytes of one peer. What breaks the framing ends the connection, as the driver does it.
    fn receive(&mut self, line: usize, bytes: &[u8]) {
        let Some(Line { key, buffer }) = self.lines.get_mut(line) else {
            return;
        };
        let key = *key;
        buffer.extend_from_slice(bytes);
        let mut messages = Vec::new();
        let mut broken = loop {
            match self.decoder.decode(buffer) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert!(
            buffer.len() <= (1 << 20) + 4,
            "an unbounded message is buffered"
        );
        // Now and then as if it had not been agreed on.
        if messages.len() % 16 != 0 {
            broken |= self.codec.expand_all(&mut messages).is_err();
        }
        for message in messages {
            self.engine.received(self.now, key, message);
            self.collect();
        }
        if broken {
            self.engine.disconnected(self.now, key);
            self.lines.retain(|l| l.key != key);
            self.collect();
        }
    }

    fn collect(&mut self) {
        for output in self.engine.take_outputs() {
            match output {
                Output::Send(key, WireMessage::Request(r)) => {
                    assert!(self.lines.iter().any(|l| l.key == key));
                    let piece = PieceIndex(r.piece);
                    assert!(self.image.geometry().contains(piece), "{r:?}");
                }
                Output::Send(
                    key,
                    WireMessage::Metadata {
                        message: MetadataMessage::Request { piece },
                        ..
                    },
                ) => self.parts.push((key, piece)),
                Output::SendBlock(key, request) => self.to_send.push((key, request)),
                Output::Disconnect(key, _) => self.lines.retain(|l| l.key != key),
                Output::Store(piece, data) => {
                    let length = self.image.geometry().piece_length(piece);
                    assert_eq!(data.len(), length as usize);
                    self.to_store.push((piece, data));
                }
                Output::Profile(key, text) => {
                    assert!(text.len() <= Profile::MAX_ATTACHED);
                    self.to_check.push(key);
                }
                Output::Told(_, addresses) => assert!(addresses.len() <= PeerExchange::MOST_KEPT),
                Output::Send(..)
                | Output::Fetch { .. }
                | Output::Ready(_)
                | Output::Completed
                | Output::Liar(_)
                | Output::Compress(..) => {}
            }
        }
        self.check();
    }

    /// What is kept is bounded, whatever was said.
    fn check(&self) {
        let engine = &self.engine;
        assert_eq!(engine.peer_count(), self.lines.len());
        assert!(engine.assembly.len() <= PIECES as usize);
        for peer in engine.peers.values() {
            assert!(peer.outstanding.len() <= 2000);
            assert!(peer.taken_back.len() <= 4096);
            assert!(peer.refused.len() <= PIECES as usize);
            let in_flight: usize = peer.outstanding.len() * 16_384;
            assert!(peer.path.in_flight() <= in_flight as u64);
        }
        assert!(engine.profiles.held() <= Profile::MAX_ATTACHED);
        assert!(engine.profiles.owed() <= PROFILE_PARTS * self.lines.len());
        assert!(
            self.to_check.len() <= 1,
            "one profile is looked at at a time"
        );
        assert!(engine.exchange.most_told() <= 512);
        let queued = self.to_send.len();
        // 64 small blocks or 16 whole ones for each connection that there is or was since the last were sent.
        assert!(queued <= 64 * engine.next_key.max(1), "{queued} blocks");
        assert!(engine.next_timeout(self.now) <= self.now + Duration::from_secs(3600));
    }
}

proptest! {
    // PROPTEST_CASES makes it more.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(300)))]

    #[test]
    fn whatever_peers_send_nothing_panics_and_all_is_bounded(
        have in proptest::collection::vec(any::<bool>(), PIECES as usize),
        events in proptest::collection::vec(event(), 1..60),
        fragment in prop_oneof![1..40_usize, 40..20_000_usize],
    ) {
        let mut rig = Rig::new(&have);
        rig.happen(Event::Connect(true, true), 1);
        rig.happen(Event::Connect(true, false), 1);
        for event in events {
            rig.happen(event, fragment);
        }
        // And after all of it an honest peer completes what is missing.
        while let Some(line) = rig.lines.pop() {
            rig.engine.disconnected(rig.now, line.key);
        }
        rig.happen(Event::Sent(true), 1);
        rig.happen(Event::Stored(true), 1);
        rig.happen(Event::SetFill(2), 1);
        rig.happen(Event::Time(60_000), 1);
        prop_assert!(completes(&mut rig), "{} are missing", rig.engine.picker.missing());
    }
}

/// Whether one honest peer is enough to complete the image.
fn completes(rig: &mut Rig) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let abilities = Abilities::default();
    let key = rig.engine.connected(rig.now, address, None, abilities);
    let all = Bitfield::full(PIECES).to_wire();
    let mut said = vec![WireMessage::Bitfield(all.into()), WireMessage::Unchoke];
    for _ in 0..2000 {
        if rig.engine.is_complete() {
            return true;
        }
        for message in std::mem::take(&mut said) {
            rig.engine.received(rig.now, key, message);
        }
        rig.now = rig.now + Duration::from_millis(20);
        rig.engine.tick(rig.now);
        for output in rig.engine.take_outputs() {
            match output {
                Output::Send(_, WireMessage::Request(r)) => {
                    let data = piece_data(
                        r.piece,
                        rig.image.geometry().piece_length(PieceIndex(r.piece)),
                    );
                    let data = data[r.begin as usize..][..r.length as usize].to_vec();
                    said.push(WireMessage::Piece {
                        piece: r.piece,
                        begin: r.begin,
                        data: data.into(),
                    });
                }
                Output::Store(piece, data) => {
                    // Blocks that others gave before may have spoilt it: then it comes again, whole.
                    if crate::test_image::sha1(&data) == *rig.image.piece_hash(piece) {
                        rig.engine.stored(rig.now, piece);
                    } else {
                        rig.engine.mismatched(rig.now, piece);
                    }
                }
                _ => {}
            }
        }
    }
    rig.engine.is_complete()
}
