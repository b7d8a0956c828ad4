//! Invariant: a peer's queue holds each piece at most once, and over any time t a peer is sent at most one whole
//! copy of each edition that it was told of and `RATE x t` bytes; all of it is of the edition that it was told of last.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::{METADATA_PIECE, MetadataMessage, piece_count, piece_length};
use crate::clock::Time;
use crate::picker::PeerKey;
use crate::swarm::wire::WireMessage;

/// Who is sent which piece of the info dictionary, or of the profile, next. Peers take turns, one piece each.
#[derive(Debug)]
pub(crate) struct MetadataServe {
    /// What is served, the newest last. Only a profile has more than one edition.
    editions: VecDeque<Bytes>,
    /// The number of the newest edition.
    newest: u64,
    /// Peers that said under which number they take the extension, and those that were told of an edition.
    peers: BTreeMap<PeerKey, Asker>,
    /// Peers whose queue is not empty, in the order of their turns.
    turns: VecDeque<PeerKey>,
    /// Bytes of blocks that had been sent when the last message went out.
    blocks_before: Option<u64>,
}

#[derive(Debug)]
struct Asker {
    /// 0: it takes none.
    extension: u8,
    /// The edition that it was told of.
    edition: u64,
    queue: VecDeque<u32>,
    /// Bytes that it may be sent now; the last message may overdraw it.
    allowance: f64,
    updated: Time,
}

/// What [`MetadataServe`] would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServeNext {
    /// Nobody asks.
    Nothing,
    /// Who asks has had enough until then.
    At(Time),
    /// [`MetadataServe::pop`] has a message.
    Ready,
}

/// Bytes per second that one peer is sent when it asks for more than one copy.
const RATE: f64 = 128.0 * 1024.0;
/// The least that a peer may be sent at once, however short the info dictionary.
const LEAST_BURST: f64 = 64.0 * 1024.0;
/// What a message costs beside its data: refusals are not free.
const OVERHEAD: u32 = 64;
/// Requests for pieces that don't exist that are kept to be refused; further ones are dropped.
const MAX_ABSURD: usize = 16;
/// Editions that are kept for peers that were told of them and not of a newer one.
const MAX_EDITIONS: usize = 3;

impl MetadataServe {
    /// Serves an info dictionary, or a profile; of nothing, every piece is refused.
    pub(crate) fn new(info: Bytes) -> Self {
        Self {
            editions: [info].into(),
            newest: 0,
            peers: BTreeMap::new(),
            turns: VecDeque::new(),
            blocks_before: None,
        }
    }

    /// The length of the newest edition, bytes.
    pub(crate) fn size(&self) -> u32 {
        self.size_of(self.newest)
    }

    /// The length of an edition, bytes; 0 when it is not kept any more.
    fn size_of(&self, edition: u64) -> u32 {
        // A .torrent file has at most 64 MiB.
        self.edition(edition).map_or(0, |text| text.len() as u32)
    }

    fn edition(&self, edition: u64) -> Option<&Bytes> {
        let age = usize::try_from(self.newest.checked_sub(edition)?).ok()?;
        self.editions.iter().rev().nth(age)
    }

    /// Serves something else from now on to those who are [told](Self::tell) of it.
    pub(crate) fn replace(&mut self, text: Bytes) {
        self.editions.push_back(text);
        self.newest += 1;
        if self.editions.len() > MAX_EDITIONS {
            self.editions.pop_front();
        }
    }

    /// A peer is told of the newest edition: from here on it is sent only that.
    pub(crate) fn tell(&mut self, now: Time, key: PeerKey) {
        let (newest, burst) = (self.newest, self.burst());
        let asker = self.asker(now, key);
        if std::mem::replace(&mut asker.edition, newest) != newest {
            asker.allowance = burst;
        }
    }

    /// Whether a peer takes the extension and was not told of the newest edition.
    pub(crate) fn is_behind(&self, key: PeerKey) -> bool {
        let asker = self.peers.get(&key);
        asker.is_some_and(|a| a.extension != 0 && a.edition < self.newest)
    }

    fn asker(&mut self, now: Time, key: PeerKey) -> &mut Asker {
        let (allowance, edition) = (self.burst(), self.newest);
        self.peers.entry(key).or_insert(Asker {
            extension: 0,
            edition,
            queue: VecDeque::new(),
            allowance,
            updated: now,
        })
    }

    /// A peer said under which number it takes the extension; 0 means that it does no more.
    pub(crate) fn hello(&mut self, now: Time, key: PeerKey, extension: Option<u8>) {
        match extension {
            None => {}
            Some(0) => {
                // Not forgotten: what it was sent must go on to count.
                if let Some(asker) = self.peers.get_mut(&key) {
                    asker.extension = 0;
                    asker.queue.clear();
                }
                self.turns.retain(|k| *k != key);
            }
            Some(extension) => self.asker(now, key).extension = extension,
        }
    }

    /// A peer asks for a piece. One that never said how it takes answers gets none.
    pub(crate) fn request(&mut self, key: PeerKey, piece: u32) {
        let told = self.peers.get(&key).map_or(0, |a| a.edition);
        let count = piece_count(self.size_of(told));
        let Some(asker) = self.peers.get_mut(&key).filter(|a| a.extension != 0) else {
            return;
        };
        let absurd = asker.queue.iter().filter(|p| **p >= count).count();
        if asker.queue.contains(&piece) || (piece >= count && absurd >= MAX_ABSURD) {
            return;
        }
        if asker.queue.is_empty() {
            self.turns.push_back(key);
        }
        asker.queue.push_back(piece);
    }

    /// A connection has ended.
    pub(crate) fn remove(&mut self, key: PeerKey) {
        if self.peers.remove(&key).is_some_and(|a| !a.queue.is_empty()) {
            self.turns.retain(|k| *k != key);
        }
    }

    /// Whether there is something to send now, or when. Whoever may be sent something comes to the front.
    pub(crate) fn next(&mut self, now: Time) -> ServeNext {
        let burst = self.burst();
        let mut soonest: Option<Duration> = None;
        for _ in 0..self.turns.len() {
            let Some(asker) = self.turns.front().and_then(|k| self.peers.get_mut(k)) else {
                return ServeNext::Nothing;
            };
            let gained = now.since(asker.updated).as_secs_f64() * RATE;
            asker.allowance = (asker.allowance + gained).min(burst);
            asker.updated = asker.updated.max(now);
            if asker.allowance > 0.0 {
                return ServeNext::Ready;
            }
            let wait = Duration::from_secs_f64(-asker.allowance / RATE) + Duration::from_millis(1);
            soonest = Some(soonest.map_or(wait, |s| s.min(wait)));
            self.turns.rotate_left(1);
        }
        soonest.map_or(ServeNext::Nothing, |wait| ServeNext::At(now + wait))
    }

    /// The next message and what it counts for, bytes. To be asked when [`next`](Self::next) said
    /// [`ServeNext::Ready`].
    pub(crate) fn pop(&mut self, now: Time) -> Option<(PeerKey, WireMessage, u32)> {
        if self.next(now) != ServeNext::Ready {
            return None;
        }
        let key = self.turns.pop_front()?;
        let told = self.peers.get(&key)?.edition;
        let text = self.edition(told).cloned().unwrap_or_default();
        let total_size = text.len() as u32;
        let asker = self.peers.get_mut(&key)?;
        let piece = asker.queue.pop_front()?;
        if !asker.queue.is_empty() {
            self.turns.push_back(key);
        }
        let message = match piece_length(total_size, piece) {
            0 => MetadataMessage::Reject { piece },
            length => {
                let begin = piece as usize * METADATA_PIECE as usize;
                MetadataMessage::Data {
                    piece,
                    total_size,
                    data: text.slice(begin..begin + length as usize),
                }
            }
        };
        let bytes = piece_length(total_size, piece) + OVERHEAD;
        asker.allowance -= f64::from(bytes);
        let message = WireMessage::Metadata {
            extension: asker.extension,
            message,
        };
        Some((key, message, bytes))
    }

    /// Whether blocks went out since the last message; `blocks`: bytes of blocks sent so far.
    pub(crate) fn has_turn(&self, blocks: u64) -> bool {
        self.blocks_before != Some(blocks)
    }

    /// A message goes out.
    pub(crate) fn took_turn(&mut self, blocks: u64) {
        self.blocks_before = Some(blocks);
    }

    /// One whole copy with its overhead.
    fn burst(&self) -> f64 {
        let overhead = f64::from(piece_count(self.size())) * f64::from(OVERHEAD);
        (f64::from(self.size()) + overhead).max(LEAST_BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn info(length: usize) -> Bytes {
        (0..length).map(|i| (i ^ (i >> 9)) as u8).collect()
    }

    fn at(ms: u64) -> Time {
        Time::from_start(Duration::from_millis(ms))
    }

    /// Everything that can be sent at one moment.
    fn drain(serve: &mut MetadataServe, now: Time) -> Vec<(PeerKey, MetadataMessage)> {
        std::iter::from_fn(|| serve.pop(now))
            .map(|(key, message, _)| match message {
                WireMessage::Metadata { message, .. } => (key, message),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_whole_copy_is_sent_at_once_and_under_the_number_that_the_peer_named() {
        let info = info(5 * METADATA_PIECE as usize + 7);
        let mut serve = MetadataServe::new(info.clone());
        serve.hello(at(0), PeerKey(1), Some(9));
        for piece in 0..6 {
            serve.request(PeerKey(1), piece);
        }
        let mut copy = Vec::new();
        while let Some((key, message, _)) = serve.pop(at(0)) {
            let WireMessage::Metadata { extension, message } = message else {
                panic!("{message:?}");
            };
            assert_eq!((key, extension), (PeerKey(1), 9));
            let MetadataMessage::Data {
                total_size, data, ..
            } = message
            else {
                panic!("{message:?}");
            };
            assert_eq!(total_size as usize, info.len());
            copy.extend_from_slice(&data);
        }
        assert!(copy == info);
        assert_eq!(serve.next(at(0)), ServeNext::Nothing);
    }

    #[test]
    fn pieces_that_do_not_exist_are_refused_and_strangers_get_nothing() {
        let mut serve = MetadataServe::new(info(100));
        serve.request(PeerKey(7), 0);
        assert_eq!(serve.next(at(0)), ServeNext::Nothing);
        serve.hello(at(0), PeerKey(7), None);
        serve.hello(at(0), PeerKey(1), Some(2));
        for piece in [1, u32::MAX] {
            serve.request(PeerKey(1), piece);
            let refused = MetadataMessage::Reject { piece };
            assert_eq!(drain(&mut serve, at(0)), [(PeerKey(1), refused)]);
        }
        serve.request(PeerKey(1), 0);
        serve.hello(at(0), PeerKey(1), Some(0));
        serve.request(PeerKey(1), 0);
        assert_eq!(serve.next(at(0)), ServeNext::Nothing);
    }

    #[test]
    fn saying_hello_again_gives_no_second_copy() {
        let mut serve = MetadataServe::new(info(10 * METADATA_PIECE as usize));
        let mut sent = 0;
        for _ in 0..5 {
            serve.hello(at(0), PeerKey(1), Some(0));
            serve.hello(at(0), PeerKey(1), Some(1));
            for piece in 0..10 {
                serve.request(PeerKey(1), piece);
            }
            sent += drain(&mut serve, at(0)).len();
        }
        assert!(sent <= 11, "{sent} pieces");
    }

    #[test]
    fn a_peer_is_sent_the_edition_that_it_was_told_of_as_long_as_that_is_kept() {
        let text = |n: u8| Bytes::from(vec![n; METADATA_PIECE as usize + usize::from(n)]);
        let mut serve = MetadataServe::new(Bytes::new());
        let ask = |serve: &mut MetadataServe, key| {
            serve.request(PeerKey(key), 1);
            let sent = drain(serve, at(0));
            match &sent[..] {
                [
                    (
                        _,
                        MetadataMessage::Data {
                            data, total_size, ..
                        },
                    ),
                ] => {
                    assert_eq!(*total_size as usize, METADATA_PIECE as usize + data.len());
                    Some(data.len())
                }
                [(_, MetadataMessage::Reject { piece: 1 })] => None,
                other => panic!("{other:?}"),
            }
        };
        for key in 1..4 {
            serve.tell(at(0), PeerKey(key));
            serve.hello(at(0), PeerKey(key), Some(9));
        }
        assert_eq!(ask(&mut serve, 1), None, "there is nothing yet");
        serve.replace(text(1));
        assert!(serve.is_behind(PeerKey(1)));
        assert_eq!(ask(&mut serve, 1), None, "it was told of nothing");
        serve.tell(at(0), PeerKey(1));
        assert!(!serve.is_behind(PeerKey(1)));
        assert_eq!(ask(&mut serve, 1), Some(1));
        serve.replace(text(2));
        serve.tell(at(0), PeerKey(2));
        assert_eq!((ask(&mut serve, 1), ask(&mut serve, 2)), (Some(1), Some(2)));
        serve.replace(text(3));
        serve.replace(text(4));
        serve.hello(at(0), PeerKey(4), Some(1));
        assert_eq!((ask(&mut serve, 1), ask(&mut serve, 2)), (None, Some(2)));
        assert_eq!(ask(&mut serve, 4), Some(4));
        assert_eq!(serve.editions.len(), MAX_EDITIONS);
    }

    #[test]
    fn peers_take_turns_and_one_that_has_had_enough_holds_up_nobody() {
        let mut serve = MetadataServe::new(info(8 * METADATA_PIECE as usize));
        for key in [1, 2] {
            serve.hello(at(0), PeerKey(key), Some(1));
        }
        for _ in 0..2 {
            for piece in 0..8 {
                serve.request(PeerKey(1), piece);
            }
            drain(&mut serve, at(0));
        }
        assert!(matches!(
            serve.next(at(0)),
            ServeNext::Nothing | ServeNext::At(_)
        ));
        for piece in 0..8 {
            serve.request(PeerKey(1), piece);
            serve.request(PeerKey(2), piece);
        }
        let first: Vec<PeerKey> = drain(&mut serve, at(0)).iter().map(|(k, _)| *k).collect();
        assert_eq!(first, [PeerKey(2); 8]);
        let ServeNext::At(time) = serve.next(at(0)) else {
            panic!("the greedy one should wait");
        };
        assert_eq!(serve.next(time), ServeNext::Ready);
    }

    proptest! {
        /// Whatever a stranger asks, it gets one copy and then no more than the rate, and costs little memory.
        #[test]
        fn a_flood_gets_one_copy_and_then_the_rate(
            length in 1usize..200_000, pieces in proptest::collection::vec(0u32..20, 1..40), rounds in 1u64..300
        ) {
            let mut serve = MetadataServe::new(info(length));
            serve.hello(at(0), PeerKey(1), Some(1));
            let mut sent = 0.0;
            for round in 0..rounds {
                for piece in &pieces {
                    for _ in 0..3 {
                        serve.request(PeerKey(1), *piece);
                    }
                }
                prop_assert!(serve.peers[&PeerKey(1)].queue.len() <= piece_count(length as u32) as usize + MAX_ABSURD);
                while let Some((_, _, bytes)) = serve.pop(at(round * 50)) {
                    sent += f64::from(bytes);
                }
                let most = serve.burst() + RATE * round as f64 * 0.05;
                prop_assert!(sent <= most + f64::from(METADATA_PIECE + OVERHEAD), "{} of {}", sent, most);
            }
        }
    }
}
