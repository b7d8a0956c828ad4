//! What a node looks for: nodes close to an id, and the peers of images. Invariant: an image is looked for by one lookup
//! at a time, and one that was forgotten is neither looked for nor announced.

use std::time::Duration;

use rand::RngExt;

use super::{MAX_VALUES, Node, Output};
use crate::clock::Time;
use crate::dht::id::Id;
use crate::dht::lookup::Lookup;
use crate::dht::message::Query;
use crate::dht::table::K;

/// How long after a lookup for an image the next one comes: soon at first, then more and more seldom.
const FIRST_SEARCH: Duration = Duration::from_secs(15);
const LAST_SEARCH: Duration = Duration::from_secs(15 * 60);
/// The same while the network is so small that not even [`K`] nodes were found.
const SMALL_SEARCH: Duration = Duration::from_secs(60);

/// What a lookup is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Nodes,
    Peers,
}

/// An image whose peers are looked for.
#[derive(Debug)]
pub(super) struct Search {
    /// Where we serve it.
    port: u16,
    pub(super) due: Time,
    pause: Duration,
    /// Nodes that were told of us the last time.
    pub(super) told: usize,
}

impl Node {
    /// From now on peers of an image are looked for, and others are told that we serve it on this port. Asked for anew, it
    /// is as if it had not been.
    pub(in crate::dht) fn search(&mut self, now: Time, image: Id, port: u16) {
        let search = Search {
            port,
            due: now,
            pause: FIRST_SEARCH,
            told: 0,
        };
        self.searches.insert(image, search);
    }

    /// And no more. Others forget us within half an hour.
    pub(in crate::dht) fn forget(&mut self, image: Id) {
        self.searches.remove(&image);
        self.lookups
            .retain(|_, (lookup, kind)| *kind == Kind::Nodes || lookup.target() != image);
    }

    pub(super) fn search_due(&mut self, now: Time) {
        if self.table.len() == 0 {
            return;
        }
        let due = self.searches.iter().filter(|(_, s)| s.due <= now);
        let due: Vec<Id> = due.map(|(image, _)| *image).collect();
        for image in due {
            if let Some(search) = self.searches.get_mut(&image) {
                search.due = now + search.pause;
                search.pause = (search.pause * 2).min(LAST_SEARCH);
                if search.told < K {
                    search.pause = search.pause.min(SMALL_SEARCH);
                }
            }
            // In a small network we may be among those who were told of them.
            let chance = self.rng.random();
            for peer in self.store.some(image, MAX_VALUES, chance) {
                self.outputs.push(Output::Found(image, peer));
            }
            self.look_for(image, Kind::Peers);
        }
    }

    pub(super) fn look_for(&mut self, target: Id, kind: Kind) {
        if self
            .lookups
            .values()
            .any(|(l, k)| l.target() == target && *k == kind)
        {
            return;
        }
        let mut lookup = Lookup::new(target);
        for contact in self.table.closest(target, K) {
            lookup.add(contact);
        }
        self.begin(lookup, kind);
    }

    pub(super) fn begin(&mut self, lookup: Lookup, kind: Kind) -> u64 {
        let number = self.next_lookup;
        self.next_lookup += 1;
        self.lookups.insert(number, (lookup, kind));
        number
    }

    /// Asks whom lookups want to ask, and ends those that are done.
    pub(super) fn go_on(&mut self, now: Time) {
        let numbers: Vec<u64> = self.lookups.keys().copied().collect();
        for number in numbers {
            while let Some((lookup, kind)) = self.lookups.get_mut(&number)
                && let Some(next) = lookup.next()
            {
                let query = match kind {
                    Kind::Nodes => Query::FindNode(lookup.target()),
                    Kind::Peers => Query::GetPeers(lookup.target()),
                };
                if !self.ask(now, next.address, Some(next.id), Some(number), query)
                    && let Some((lookup, _)) = self.lookups.get_mut(&number)
                {
                    lookup.failed(Some(next));
                }
            }
            if self.lookups.get(&number).is_some_and(|(l, _)| l.is_done())
                && let Some((lookup, Kind::Peers)) = self.lookups.remove(&number)
            {
                self.announce(now, lookup);
            }
        }
    }

    /// Tells the nodes that are closest to an image that we serve it.
    fn announce(&mut self, now: Time, lookup: Lookup) {
        let image = lookup.target();
        let Some(port) = self.searches.get(&image).map(|s| s.port) else {
            return;
        };
        let mut told = 0;
        for (contact, token) in lookup.holders() {
            let query = Query::Announce {
                info_hash: image,
                port: Some(port),
                token,
            };
            told += usize::from(self.ask(now, contact.address, Some(contact.id), None, query));
        }
        if let Some(search) = self.searches.get_mut(&image) {
            search.told = told;
        }
    }
}
