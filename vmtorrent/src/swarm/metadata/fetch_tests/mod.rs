//! Peers that follow a script, in virtual time.

mod peers;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;
use crate::test_image::sha1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    /// Answers everything.
    Honest,
    /// Answers everything, but only its first few requests before it hangs up.
    HangsUp(u32),
    /// Knows no extensions.
    Plain,
    /// Has only the link itself, as many in a swarm that has just begun.
    Without,
    /// Says that its metadata has no length.
    Zero,
    /// Says an absurd length.
    Huge,
    /// Says a wrong length and stays with it; what it sends is garbage.
    WrongSize(u32),
    /// Says one length, then another.
    Fickle,
    /// Says nothing.
    Mute,
    /// Says what it has, and nothing more.
    Silent,
    /// Sends one piece each nine seconds.
    Dribbles,
    /// Every piece is garbage.
    Garbage,
    /// One piece of several is garbage.
    Spoils(u32),
    /// The right bytes with a wrong total.
    WrongTotal,
    /// Pieces are cut short.
    Short,
    /// Sends pieces that nobody asked for.
    Unasked,
    /// Refuses everything.
    Rejects,
    /// Refuses the first requests, as one does that has a limit.
    RejectsFirst(u32),
    /// Sends HAVEs without end.
    Chatters,
    /// Sends a block of the image.
    Blocks,
}

/// Their number for the extension: another one than ours, so that mistaking them shows.
const THEIRS: u8 = 77;

struct Peer {
    script: Script,
    answered: u32,
    waiting: usize,
    spoke_at: Time,
    /// It was sent something.
    heard: bool,
}

struct Net {
    now: Time,
    fetch: MetadataFetch,
    info: Bytes,
    delay: Duration,
    peers: BTreeMap<PeerKey, Peer>,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    messages: BTreeMap<u64, (PeerKey, Option<WireMessage>)>,
    next: u64,
    ends: BTreeMap<PeerKey, FetchEnd>,
    requests: u32,
    result: Option<Bytes>,
    most_held: u64,
}

impl Net {
    fn new(length: usize) -> Self {
        Self {
            now: Time::default(),
            fetch: MetadataFetch::new(6881),
            info: (0..length).map(|i| (i * 7 + (i >> 9)) as u8).collect(),
            delay: Duration::from_millis(10),
            peers: BTreeMap::new(),
            queue: BinaryHeap::new(),
            messages: BTreeMap::new(),
            next: 0,
            ends: BTreeMap::new(),
            requests: 0,
            result: None,
            most_held: 0,
        }
    }

    fn add(&mut self, script: Script) -> PeerKey {
        let abilities = Abilities {
            extended: script != Script::Plain,
            fast: self.peers.len() % 2 == 1,
            ..Abilities::default()
        };
        let key = self.fetch.connected(self.now, abilities);
        let peer = Peer {
            script,
            answered: 0,
            waiting: 0,
            spoke_at: self.now,
            heard: false,
        };
        self.peers.insert(key, peer);
        let size = self.info.len() as u32;
        let hello = |metadata_size| {
            WireMessage::ExtendedHello(ExtendedHello {
                metadata_size,
                ut_metadata: Some(THEIRS),
                ..ExtendedHello::default()
            })
        };
        match script {
            Script::Mute | Script::Plain => {}
            Script::Without => self.say(key, hello(None)),
            Script::Zero => self.say(key, hello(Some(0))),
            Script::Huge => self.say(key, hello(Some(u32::MAX))),
            Script::WrongSize(size) => self.say(key, hello(Some(size))),
            Script::Fickle => {
                self.say(key, hello(Some(size)));
                self.say(key, hello(Some(size + 1)));
            }
            Script::Unasked => {
                self.say(key, hello(Some(size)));
                self.say(
                    key,
                    data(
                        size / METADATA_PIECE,
                        size,
                        vec![0; (size % METADATA_PIECE) as usize],
                    ),
                );
            }
            Script::Chatters => {
                for _ in 0..=MAX_CHATTER {
                    self.say(key, WireMessage::Interested);
                }
            }
            Script::Blocks => self.say(
                key,
                WireMessage::Piece {
                    piece: 0,
                    begin: 0,
                    data: Bytes::from_static(b"x"),
                },
            ),
            _ => self.say(key, hello(Some(size))),
        }
        self.carry_out();
        key
    }

    fn say(&mut self, key: PeerKey, message: WireMessage) {
        self.say_in(self.delay, key, Some(message));
    }

    /// `None`: it hangs up.
    fn say_in(&mut self, delay: Duration, key: PeerKey, message: Option<WireMessage>) {
        self.messages.insert(self.next, (key, message));
        self.queue.push(Reverse((self.now + delay, self.next)));
        self.next += 1;
    }

    fn carry_out(&mut self) {
        for output in self.fetch.take_outputs() {
            match output {
                FetchOutput::Send(key, WireMessage::ExtendedHello(hello)) => {
                    assert_eq!(hello.ut_metadata, Some(UT_METADATA));
                    assert_eq!(hello.metadata_size, None);
                    let heard =
                        std::mem::replace(&mut self.peers.get_mut(&key).unwrap().heard, true);
                    assert_eq!(heard, key.0 % 2 == 1, "BEP 6 wants to hear what we have");
                }
                FetchOutput::Send(key, WireMessage::Metadata { extension, message }) => {
                    assert_eq!(extension, THEIRS);
                    let MetadataMessage::Request { piece } = message else {
                        panic!("{message:?}");
                    };
                    self.requests += 1;
                    self.asked(key, piece);
                }
                FetchOutput::Send(key, WireMessage::HaveNone) => {
                    assert!(!self.peers[&key].heard, "not the first message");
                    assert_eq!(key.0 % 2, 1, "the peer does not know it");
                    self.peers.get_mut(&key).unwrap().heard = true;
                }
                FetchOutput::Send(_, other) => panic!("{other:?}"),
                FetchOutput::Disconnect(key, why) => {
                    self.ends.insert(key, why);
                    self.messages.retain(|_, (k, _)| *k != key);
                }
                FetchOutput::Check(group, info) => {
                    let right = sha1(&info) == sha1(&self.info);
                    if right {
                        self.result = Some(info);
                    }
                    self.fetch.checked(self.now, group, right);
                    self.carry_out();
                }
            }
        }
        self.most_held = self.most_held.max(self.fetch.held());
    }

    fn asked(&mut self, key: PeerKey, piece: u32) {
        let total = self.info.len() as u32;
        let peer = self.peers.get_mut(&key).unwrap();
        peer.waiting += 1;
        assert!(peer.waiting <= PIPELINE, "asked for too much at once");
        let script = peer.script;
        let size = match script {
            Script::WrongSize(size) => size,
            _ => total,
        };
        let length = piece_length(size, piece);
        assert!(length > 0, "asked for piece {piece}, which does not exist");
        let garbage = vec![piece as u8 ^ 0x5a; length as usize];
        let right = || {
            let begin = piece as usize * METADATA_PIECE as usize;
            self.info[begin..begin + length as usize].to_vec()
        };
        let reject = WireMessage::Metadata {
            extension: UT_METADATA,
            message: MetadataMessage::Reject { piece },
        };
        let answer = match script {
            Script::Silent => return,
            Script::Garbage | Script::WrongSize(_) => data(piece, size, garbage),
            Script::Spoils(every) if piece.is_multiple_of(every) => data(piece, size, garbage),
            Script::WrongTotal => data(piece, size + 1, right()),
            Script::Short => data(piece, size, right()[..length as usize - 1].to_vec()),
            Script::Rejects => reject,
            Script::RejectsFirst(n) if peer.answered < n => reject,
            Script::HangsUp(after) if peer.answered >= after => {
                return self.say_in(self.delay, key, None);
            }
            _ => data(piece, size, right()),
        };
        peer.answered += 1;
        let mut delay = self.delay;
        if script == Script::Dribbles {
            peer.spoke_at = peer.spoke_at.max(self.now) + Duration::from_secs(9);
            delay = peer.spoke_at.since(self.now);
        }
        self.say_in(delay, key, Some(answer));
    }

    /// Goes on until there is a result, at most for `limit`.
    fn run(&mut self, limit: Duration) {
        let end = self.now + limit;
        let mut tick = self.now;
        while self.result.is_none() && self.now < end {
            let due = self.queue.peek().map(|Reverse((time, _))| *time);
            if due.is_none_or(|due| due > tick) {
                self.now = tick;
                self.fetch.tick(self.now, false);
                tick = self.fetch.next_timeout(self.now).unwrap_or(tick + TICK);
            } else if let Some(Reverse((time, number))) = self.queue.pop() {
                self.now = time;
                match self.messages.remove(&number) {
                    Some((key, Some(message))) => {
                        if let WireMessage::Metadata { .. } = message {
                            let peer = self.peers.get_mut(&key).unwrap();
                            peer.waiting = peer.waiting.saturating_sub(1);
                        }
                        self.fetch.received(self.now, key, message);
                    }
                    Some((key, None)) => self.fetch.disconnected(self.now, key),
                    None => {}
                }
            }
            self.carry_out();
        }
    }

    fn is_right(&self) -> bool {
        self.result.as_ref() == Some(&self.info)
    }

    fn elapsed(&self) -> Duration {
        self.now.since(Time::default())
    }
}

fn data(piece: u32, total_size: u32, data: Vec<u8>) -> WireMessage {
    WireMessage::Metadata {
        extension: UT_METADATA,
        message: MetadataMessage::Data {
            piece,
            total_size,
            data: data.into(),
        },
    }
}

const LENGTH: usize = 20 * METADATA_PIECE as usize + 321;
const PIECES: u32 = 21;
