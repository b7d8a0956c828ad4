//! A seed and the scripted peers that ask it, in virtual time: the seed's line takes one block after the other.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::super::network::image;
use super::super::*;
use super::waits::Waits;
use super::{BLOCKS, PIECE, block};
use crate::swarm::wire::VMT_URGENT;

const DELAY: Duration = Duration::from_micros(500);

enum Event {
    /// A message reaches the seed.
    Said(usize, WireMessage),
    /// The seed's socket has taken a block.
    Sent(usize, WireRequest),
    /// A block reaches a peer.
    Got(usize, WireRequest),
}

/// A peer, which asks as it is told.
pub(super) struct Asker {
    key: PeerKey,
    pub(super) next: u32,
    pub(super) asked: BTreeMap<WireRequest, Time>,
    /// How long each block took.
    pub(super) waits: Vec<Duration>,
    /// It asks for another block for each that comes.
    goes_on: bool,
    pub(super) unchoked: bool,
    pub(super) rejects: usize,
    pub(super) allowed: Vec<u32>,
    pub(super) said: Vec<WireMessage>,
}

/// A seed with a line of its own.
pub(super) struct Crowd {
    pub(super) engine: Engine,
    pub(super) now: Time,
    line: f64,
    busy_until: Time,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    events: HashMap<u64, Event>,
    number: u64,
    pub(super) peers: Vec<Asker>,
}

impl Crowd {
    pub(super) fn new(line: f64, limit: Option<u64>, slots: Option<usize>) -> Self {
        let image = image(BLOCKS / 4, PIECE);
        let limiter = |limit| Arc::new(Mutex::new(Limiter::new(limit)));
        let engine = Engine::new(
            Time::default(),
            EngineConfig {
                have: Bitfield::full(image.geometry().piece_count()),
                image,
                fill: Fill::None,
                download: limiter(None),
                upload: limiter(limit),
                upload_slots: slots,
                listen_port: 1,
                peer_id: [0; 20],
                profile_exchange: false,
                peer_exchange: false,
                seed: 3,
            },
        );
        Self {
            engine,
            now: Time::default(),
            line,
            busy_until: Time::default(),
            queue: BinaryHeap::new(),
            events: HashMap::default(),
            number: 0,
            peers: Vec::new(),
        }
    }

    /// A peer connects, and wants something. `knows`: the fast extension, and extension messages with vmt_urgent.
    pub(super) fn join(&mut self, knows: bool) -> usize {
        let n = self.peers.len();
        let address = SocketAddr::from(([198, 18, n as u8, 1], 1));
        let abilities = Abilities {
            extended: knows,
            fast: knows,
            id: [n as u8; 20],
            ..Abilities::default()
        };
        let key = self.engine.connected(self.now, address, None, abilities);
        self.peers.push(Asker {
            key,
            next: n as u32 * 37,
            asked: BTreeMap::new(),
            waits: Vec::new(),
            goes_on: false,
            unchoked: false,
            rejects: 0,
            allowed: Vec::new(),
            said: Vec::new(),
        });
        self.collect();
        self.say(n, WireMessage::Interested);
        n
    }

    fn at(&mut self, time: Time, event: Event) {
        self.number += 1;
        self.queue.push(Reverse((time, self.number)));
        self.events.insert(self.number, event);
    }

    pub(super) fn say(&mut self, n: usize, message: WireMessage) {
        self.at(self.now + DELAY, Event::Said(n, message));
    }

    pub(super) fn ask(&mut self, n: usize, urgent: bool) {
        let peer = &mut self.peers[n];
        let request = block(peer.next);
        peer.next += 1;
        peer.asked.insert(request, self.now);
        self.say(n, WireMessage::Request(request));
        if urgent {
            let extension = VMT_URGENT;
            self.say(n, WireMessage::Urgent { extension, request });
        }
    }

    /// Asks for so many blocks, and for one more with each that comes.
    pub(super) fn ask_on(&mut self, n: usize, outstanding: usize) {
        self.peers[n].goes_on = true;
        for _ in 0..outstanding {
            self.ask(n, false);
        }
    }

    fn collect(&mut self) {
        for output in self.engine.take_outputs() {
            match output {
                Output::SendBlock(key, request) => {
                    let n = self.by_key(key);
                    let bytes = f64::from(request.length) + 13.0;
                    self.busy_until =
                        self.busy_until.max(self.now) + Duration::from_secs_f64(bytes / self.line);
                    let gone = self.busy_until;
                    self.at(gone, Event::Sent(n, request));
                    self.at(gone + DELAY, Event::Got(n, request));
                }
                Output::Send(key, message) => self.hear(key, message),
                Output::Disconnect(_, reason) => panic!("{reason:?}"),
                _ => {}
            }
        }
    }

    fn by_key(&self, key: PeerKey) -> usize {
        self.peers.iter().position(|p| p.key == key).unwrap()
    }

    /// Small messages are there at once; what a choke or a reject takes away is asked for again after the unchoke.
    fn hear(&mut self, key: PeerKey, message: WireMessage) {
        let Some(n) = self.peers.iter().position(|p| p.key == key) else {
            // Said while it connects.
            return;
        };
        let peer = &mut self.peers[n];
        match &message {
            WireMessage::Choke => peer.unchoked = false,
            WireMessage::Unchoke => {
                peer.unchoked = true;
                let asked: Vec<WireRequest> = peer.asked.keys().copied().collect();
                for request in asked {
                    self.say(n, WireMessage::Request(request));
                }
            }
            WireMessage::Reject(_) => peer.rejects += 1,
            WireMessage::AllowedFast(piece) => peer.allowed.push(*piece),
            _ => {}
        }
        self.peers[n].said.push(message);
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        let mut last_tick = self.now;
        loop {
            let tick = self.engine.next_timeout(last_tick);
            let tick = tick.max(last_tick + Duration::from_millis(1));
            let event = self.queue.peek().map(|Reverse((at, _))| *at);
            if let Some(at) = event
                && at <= tick
                && at <= end
            {
                self.now = at.max(self.now);
                let Some(Reverse((_, id))) = self.queue.pop() else {
                    return;
                };
                self.happen(id);
            } else if tick <= end {
                self.now = tick.max(self.now);
                last_tick = self.now;
                self.engine.tick(self.now);
            } else {
                self.now = end;
                return;
            }
            self.collect();
        }
    }

    fn happen(&mut self, id: u64) {
        match self.events.remove(&id).unwrap() {
            Event::Said(n, message) => {
                let key = self.peers[n].key;
                self.engine.received(self.now, key, message);
            }
            Event::Sent(n, request) => {
                let key = self.peers[n].key;
                self.engine.block_sent(self.now, key, request, true);
            }
            Event::Got(n, request) => {
                let now = self.now;
                let peer = &mut self.peers[n];
                if let Some(at) = peer.asked.remove(&request) {
                    peer.waits.push(now.since(at));
                    if peer.goes_on {
                        self.ask(n, false);
                    }
                }
            }
        }
    }

    /// The waits of reads of one block each, five a second: less than the share of one of a hundred peers.
    pub(super) fn reads(&mut self, n: usize, count: usize, urgent: bool) -> Waits {
        let before = self.peers[n].waits.len();
        for turn in 0..count {
            self.ask(n, urgent);
            self.run_for(Duration::from_millis(195 + (turn % 11) as u64));
        }
        self.run_for(Duration::from_secs(5));
        Waits::of(&self.peers[n].waits[before..], count)
    }
}
