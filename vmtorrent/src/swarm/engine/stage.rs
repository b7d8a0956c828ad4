//! A stage in virtual time, for what peers do to one engine.
//!
//! One engine reads; around it stand peers that follow a script instead of an engine: a function from a request to the
//! messages that go back, each with a delay.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use sha1::{Digest, Sha1};

use super::network::{image, piece_data};
use super::*;

pub(super) const PIECE: u32 = 64 << 10;
pub(super) const RTT: Duration = Duration::from_millis(20);
/// Bytes per second from each peer: 100 Mbit/s.
pub(super) const RATE: f64 = 12.5e6;
/// What goes back for a request, and how long after it came.
pub(super) type Answers = Vec<(Duration, WireMessage)>;
pub(super) type Script = Box<dyn FnMut(WireRequest) -> Answers>;

pub(super) struct Scripted {
    pub(super) key: PeerKey,
    rtt: Duration,
    busy_until: Time,
    pub(super) script: Script,
    /// Requests that reached it.
    pub(super) asked: usize,
    /// Requests to it that a read waits for, if it is a web seed.
    pub(super) urgent: usize,
    pub(super) left: Option<DisconnectReason>,
    /// It answers CANCEL.
    pub(super) rejects_cancelled: bool,
}

pub(super) enum Happening {
    /// A request reaches a scripted peer.
    Asked(usize, WireRequest),
    /// A scripted peer sends.
    Said(usize, WireMessage),
    /// What it sent reaches the engine.
    Heard(usize, WireMessage),
    Stored(PieceIndex, Bytes),
}

pub(super) struct Stage {
    pub(super) now: Time,
    last_tick: Time,
    pub(super) engine: Engine,
    image: Arc<Image>,
    pub(super) peers: Vec<Scripted>,
    queue: BinaryHeap<Reverse<(Time, usize)>>,
    happenings: Vec<Option<Happening>>,
    pub(super) ready: BTreeMap<u32, Time>,
    /// While set, pieces wait for the disk.
    pub(super) disk_is_slow: bool,
    /// HAVEs that went out, with their time.
    pub(super) haves: Vec<Time>,
    /// The same, with who was told of what.
    pub(super) told: Vec<(PeerKey, u32)>,
    /// Liars that were found out after they had gone.
    pub(super) liars: usize,
    /// Pieces with the frames in which their blocks came, if they are to be given on so.
    pub(super) frames: Vec<(u32, Vec<(u32, Bytes)>)>,
}

pub(super) fn right(r: WireRequest) -> WireMessage {
    let data = piece_data(r.piece, PIECE)[r.begin as usize..][..r.length as usize].to_vec();
    piece(r, data)
}

pub(super) fn wrong(r: WireRequest) -> WireMessage {
    piece(r, vec![0xbd; r.length as usize])
}

pub(super) fn piece(r: WireRequest, data: Vec<u8>) -> WireMessage {
    WireMessage::Piece {
        piece: r.piece,
        begin: r.begin,
        data: data.into(),
    }
}

pub(super) fn at_once(messages: impl IntoIterator<Item = WireMessage>) -> Answers {
    messages.into_iter().map(|m| (Duration::ZERO, m)).collect()
}

pub(super) fn honest() -> Script {
    Box::new(|r| at_once([right(r)]))
}

pub(super) fn mute() -> Script {
    Box::new(|_| Vec::new())
}

impl Stage {
    pub(super) fn new() -> Self {
        Self::with(Fill::None, None)
    }

    pub(super) fn with(fill: Fill, download_limit: Option<u64>) -> Self {
        let image = image(200, PIECE);
        let limiter = |limit| Arc::new(Mutex::new(Limiter::new(limit)));
        let config = EngineConfig {
            image: image.clone(),
            have: Bitfield::new(image.geometry().piece_count()),
            fill,
            download: limiter(download_limit),
            upload: limiter(None),
            upload_slots: None,
            listen_port: 1,
            peer_id: [0; 20],
            profile_exchange: true,
            peer_exchange: true,
            seed: 1,
        };
        Self {
            now: Time::default(),
            last_tick: Time::default(),
            engine: Engine::new(Time::default(), config),
            image,
            peers: Vec::new(),
            queue: BinaryHeap::new(),
            happenings: Vec::new(),
            ready: BTreeMap::new(),
            disk_is_slow: false,
            haves: Vec::new(),
            told: Vec::new(),
            liars: 0,
            frames: Vec::new(),
        }
    }

    /// A peer that says it has everything and lets us request.
    pub(super) fn join(&mut self, fast: bool, rtt: Duration, script: Script) -> usize {
        let all = Bitfield::full(self.image.geometry().piece_count());
        self.join_with(fast, rtt, script, &all)
    }

    /// A peer that says what it has and lets us request.
    pub(super) fn join_with(
        &mut self,
        fast: bool,
        rtt: Duration,
        script: Script,
        field: &Bitfield,
    ) -> usize {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let abilities = Abilities {
            extended: true,
            fast,
            ..Abilities::default()
        };
        let key = self
            .engine
            .connected(self.now, address, Some(rtt), abilities);
        self.peers.push(Scripted {
            key,
            rtt,
            busy_until: self.now,
            script,
            asked: 0,
            urgent: 0,
            left: None,
            rejects_cancelled: false,
        });
        let peer = self.peers.len() - 1;
        self.happens(
            self.now,
            Happening::Said(peer, WireMessage::Bitfield(field.to_wire().into())),
        );
        self.happens(self.now, Happening::Said(peer, WireMessage::Unchoke));
        self.collect();
        peer
    }

    /// A web seed.
    pub(super) fn join_web_seed(&mut self, rtt: Duration, script: Script) -> usize {
        let number = self.peers.len();
        let key = self.engine.web_seed_connected(self.now, number, Some(rtt));
        self.peers.push(Scripted {
            key,
            rtt,
            busy_until: self.now,
            script,
            asked: 0,
            urgent: 0,
            left: None,
            rejects_cancelled: false,
        });
        self.collect();
        number
    }

    pub(super) fn happens(&mut self, at: Time, what: Happening) {
        self.queue.push(Reverse((at, self.happenings.len())));
        self.happenings.push(Some(what));
    }

    pub(super) fn collect(&mut self) {
        for output in self.engine.take_outputs() {
            match output {
                Output::Send(key, WireMessage::Request(request)) => {
                    let peer = self.peers.iter().position(|p| p.key == key).unwrap();
                    let at = self.now + self.peers[peer].rtt / 2;
                    self.happens(at, Happening::Asked(peer, request));
                }
                Output::Disconnect(key, reason) => {
                    let peer = self.peers.iter_mut().find(|p| p.key == key).unwrap();
                    peer.left = Some(reason);
                }
                Output::Store(piece, data) => {
                    let wait = if self.disk_is_slow { 1_000_000 } else { 200 };
                    let at = self.now + Duration::from_micros(wait);
                    self.happens(at, Happening::Stored(piece, data));
                }
                Output::Ready(piece) => {
                    self.ready.insert(piece.0, self.now);
                }
                Output::Fetch {
                    key,
                    request,
                    urgent,
                } => {
                    let peer = self.peers.iter().position(|p| p.key == key).unwrap();
                    self.peers[peer].urgent += usize::from(urgent);
                    let at = self.now + self.peers[peer].rtt / 2;
                    self.happens(at, Happening::Asked(peer, request));
                }
                Output::Send(key, WireMessage::Cancel(request)) => {
                    // One that was not answered yet (BEP 6).
                    let peer = self.peers.iter().position(|p| p.key == key).unwrap();
                    if self.peers[peer].rejects_cancelled {
                        let at = self.now + self.peers[peer].rtt / 2;
                        self.happens(at, Happening::Said(peer, WireMessage::Reject(request)));
                    }
                }
                Output::Send(key, WireMessage::Have(piece)) => {
                    self.haves.push(self.now);
                    self.told.push((key, piece));
                }
                Output::Liar(_) => self.liars += 1,
                Output::Frames(piece, frames) => self.frames.push((piece.0, frames)),
                Output::Send(..)
                | Output::SendBlock(..)
                | Output::Compress(..)
                | Output::Completed
                | Output::Profile(..)
                | Output::Told(..)
                | Output::Node(_) => {}
            }
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Asked(n, request) => {
                let peer = &mut self.peers[n];
                if peer.left.is_some() {
                    return;
                }
                peer.asked += 1;
                for (delay, message) in (peer.script)(request) {
                    self.happens(self.now + delay, Happening::Said(n, message));
                }
            }
            Happening::Said(n, message) => {
                let bytes = match &message {
                    WireMessage::Piece { data, .. } => data.len() + 13,
                    WireMessage::Expanded { wire, .. } => *wire as usize + 19,
                    _ => 20,
                };
                let peer = &mut self.peers[n];
                let start = peer.busy_until.max(self.now);
                peer.busy_until = start + Duration::from_secs_f64(bytes as f64 / RATE);
                let at = peer.busy_until + peer.rtt / 2;
                self.happens(at, Happening::Heard(n, message));
            }
            Happening::Heard(n, message) => {
                let key = self.peers[n].key;
                self.engine.received(self.now, key, message);
            }
            Happening::Stored(piece, data) => {
                let hash: [u8; 20] = Sha1::digest(&data).into();
                if hash == *self.image.piece_hash(piece) {
                    self.engine.stored(self.now, piece);
                } else {
                    self.engine.mismatched(self.now, piece);
                }
            }
        }
        self.collect();
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let step = self.last_tick + Duration::from_millis(1);
            let tick = self.engine.next_timeout(self.last_tick).max(step);
            let event = self.queue.peek().map(|Reverse((at, _))| *at);
            match event {
                Some(at) if at <= tick && at <= until => {
                    self.now = at.max(self.now);
                    if let Some(Reverse((_, id))) = self.queue.pop()
                        && let Some(what) = self.happenings[id].take()
                    {
                        self.happen(what);
                    }
                }
                _ if tick <= until => {
                    self.now = tick.max(self.now);
                    self.last_tick = self.now;
                    self.engine.tick(self.now);
                    self.collect();
                }
                _ => {
                    self.now = until;
                    return;
                }
            }
        }
    }

    /// Milliseconds that a read of a piece waits.
    pub(super) fn read(&mut self, piece: u32) -> f64 {
        let start = self.now;
        self.engine.demand(self.now, &[PieceIndex(piece)]);
        self.collect();
        while !self.ready.contains_key(&piece) {
            self.run_for(Duration::from_millis(1));
            let waited = self.now.since(start);
            assert!(
                waited < Duration::from_secs(120),
                "piece {piece} never comes"
            );
        }
        self.ready[&piece].since(start).as_secs_f64() * 1000.0
    }

    /// The waits of reads one after the other, with a pause between them.
    pub(super) fn reads(&mut self, count: u32) -> Vec<f64> {
        let first = self.ready.len() as u32;
        (first..first + count)
            .map(|piece| {
                self.run_for(Duration::from_millis(30));
                self.read(piece)
            })
            .collect()
    }

    pub(super) fn assert_stays(&self, peer: usize) {
        assert_eq!(self.peers[peer].left, None, "peer {peer} stays");
    }
}
