//! Invariant: a node is in the table only if it answered a question of ours, under the id and from the address that stand
//! there; none has our own id; one origin has at most [`MAX_OF_ONE`].

use std::net::SocketAddr;
use std::time::Duration;

use super::id::Id;
use super::message::Contact;
use crate::clock::Time;
use crate::swarm::Origin;

/// Nodes of a bucket, and those that a question is answered with (BEP 5).
pub(super) const K: usize = 8;
/// Questions in a row that a node may leave unanswered.
const MAX_FAILURES: u32 = 2;
/// A node that said nothing for so long is asked whether it is still there (BEP 5).
const QUESTIONABLE: Duration = Duration::from_secs(15 * 60);
/// Nodes of one origin, so that a host with many ports does not fill the table.
const MAX_OF_ONE: usize = 4;

/// The nodes that we know: many near to our id, few far from it.
#[derive(Debug)]
pub(super) struct Table {
    id: Id,
    /// By the number of bits that their nodes' ids have in common with ours.
    buckets: Vec<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    contact: Contact,
    /// When it answered last.
    heard: Time,
    failures: u32,
}

impl Table {
    pub(super) fn new(id: Id) -> Self {
        Self {
            id,
            buckets: (0..Id::BITS).map(|_| Vec::new()).collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.buckets.iter().map(Vec::len).sum()
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.buckets.iter().flatten()
    }

    /// Whether a node at this address is known.
    pub(super) fn is_at(&self, address: SocketAddr) -> bool {
        self.entries().any(|e| e.contact.address == address)
    }

    /// Whether this one would be taken in if it answered.
    pub(super) fn wants(&self, contact: Contact) -> bool {
        let Some(bucket) = self.buckets.get(self.id.common_bits(contact.id)) else {
            return false;
        };
        let origin = Origin::of(contact.address.ip());
        let of_one = self
            .entries()
            .filter(|e| origin.is_some() && Origin::of(e.contact.address.ip()) == origin);
        let room = bucket.len() < K || bucket.iter().any(|e| e.failures > 0);
        let new = !self
            .entries()
            .any(|e| e.contact.id == contact.id || e.contact.address == contact.address);
        new && room && of_one.count() < MAX_OF_ONE
    }

    /// A node answered. True when it is new in the table.
    pub(super) fn answered(&mut self, now: Time, contact: Contact) -> bool {
        if let Some(known) = self.find(|e| e.contact == contact) {
            known.heard = now;
            known.failures = 0;
            return false;
        }
        // It was started anew under another id.
        for bucket in &mut self.buckets {
            bucket.retain(|e| e.contact.address != contact.address);
        }
        // Under a known id from elsewhere: one of them says it wrongly, and the first one was there before.
        if !self.wants(contact) {
            return false;
        }
        let Some(bucket) = self.buckets.get_mut(self.id.common_bits(contact.id)) else {
            return false;
        };
        if bucket.len() >= K
            && let Some(worst) = (0..bucket.len()).max_by_key(|n| bucket[*n].failures)
        {
            bucket.swap_remove(worst);
        }
        bucket.push(Entry {
            contact,
            heard: now,
            failures: 0,
        });
        true
    }

    /// A node left a question unanswered.
    pub(super) fn failed(&mut self, contact: Contact) {
        for bucket in &mut self.buckets {
            bucket.retain_mut(|e| {
                if e.contact == contact {
                    e.failures += 1;
                }
                e.failures <= MAX_FAILURES
            });
        }
    }

    fn find(&mut self, is_it: impl Fn(&Entry) -> bool) -> Option<&mut Entry> {
        self.buckets.iter_mut().flatten().find(|e| is_it(e))
    }

    /// The nodes closest to a target, the closest first.
    pub(super) fn closest(&self, target: Id, most: usize) -> Vec<Contact> {
        let mut found: Vec<&Entry> = self.entries().collect();
        found.sort_by_key(|e| e.contact.id.distance(target));
        found.iter().take(most).map(|e| e.contact).collect()
    }

    /// The node that was silent for longest, if it was so for long.
    pub(super) fn questionable(&self, now: Time) -> Option<Contact> {
        let silent = self
            .entries()
            .filter(|e| now.since(e.heard) >= QUESTIONABLE);
        silent.min_by_key(|e| e.heard).map(|e| e.contact)
    }

    /// Something is known of the first buckets, so many.
    pub(super) fn depth(&self) -> usize {
        self.buckets
            .iter()
            .rposition(|b| !b.is_empty())
            .map_or(0, |n| n + 1)
    }

    /// The nodes that answer, those far from each other first.
    pub(super) fn good(&self) -> impl Iterator<Item = Contact> {
        let good = self.entries().filter(|e| e.failures == 0);
        good.map(|e| e.contact)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    fn contact(first: u8, n: u32) -> Contact {
        let mut id = [0; 20];
        id[0] = first;
        id[16..].copy_from_slice(&n.to_be_bytes());
        let [_, a, b, c] = n.to_be_bytes();
        Contact {
            id: Id(id),
            address: ([20, a, b, c], 6881).into(),
        }
    }

    #[test]
    fn a_bucket_keeps_those_that_answer() {
        let mut table = Table::new(Id([0; 20]));
        for n in 1..=20 {
            assert_eq!(table.answered(at(0), contact(0x80, n)), n <= 8);
        }
        assert_eq!(table.len(), 8);
        // A bucket of its own.
        assert!(table.answered(at(0), contact(0x40, 30)));
        assert_eq!(table.depth(), 2);
        assert!(!table.wants(contact(0x80, 9)));
        table.failed(contact(0x80, 3));
        assert!(table.wants(contact(0x80, 9)));
        assert!(table.answered(at(1), contact(0x80, 9)));
        assert_eq!(table.len(), 9);
        assert!(!table.good().any(|c| c == contact(0x80, 3)));
        for _ in 0..=MAX_FAILURES {
            table.failed(contact(0x80, 1));
        }
        assert_eq!(table.len(), 8);
        assert_eq!(table.questionable(at(899)), None);
        table.answered(at(899), contact(0x40, 30));
        let silent = table.questionable(at(900)).unwrap();
        assert_eq!(silent.id.0[0], 0x80);
    }

    #[test]
    fn ids_and_addresses_are_not_taken_over() {
        let mut table = Table::new(Id([0; 20]));
        table.answered(at(0), contact(0x80, 1));
        let mut thief = contact(0x80, 1);
        thief.address = ([20, 9, 9, 9], 1).into();
        assert!(!table.answered(at(1), thief));
        assert_eq!(table.closest(thief.id, 1), [contact(0x80, 1)]);
        // Started anew.
        let mut anew = contact(0x20, 7);
        anew.address = contact(0x80, 1).address;
        assert!(table.answered(at(2), anew));
        assert_eq!(table.good().collect::<Vec<_>>(), [anew]);
        // Ourselves.
        let own = Contact {
            id: Id([0; 20]),
            address: ([20, 1, 1, 1], 1).into(),
        };
        assert!(!table.wants(own) && !table.answered(at(3), own));
        // One host.
        for port in 1..100 {
            let mut one = contact(0x10, 50 + u32::from(port));
            one.id.0[0] = 0xff >> (port % 8);
            one.address = ([20, 7, 7, 7], port).into();
            table.answered(at(4), one);
        }
        assert_eq!(table.len(), 1 + MAX_OF_ONE);
    }

    proptest! {
        #[test]
        fn the_closest_are_the_closest_and_the_table_is_bounded(
            own: [u8; 20], target: [u8; 20], ids in proptest::collection::vec(any::<[u8; 20]>(), 0..200),
        ) {
            let (own, target) = (Id(own), Id(target));
            let mut table = Table::new(own);
            for (n, id) in ids.iter().enumerate() {
                let address = ([20, 1, (n / 256) as u8, n as u8], 1).into();
                table.answered(at(0), Contact { id: Id(*id), address });
            }
            let all: Vec<Contact> = table.good().collect();
            prop_assert!(table.buckets.iter().all(|b| b.len() <= K));
            let closest = table.closest(target, K);
            prop_assert_eq!(closest.len(), all.len().min(K));
            for one in &closest {
                let closer = all.iter().filter(|o| o.id.distance(target) < one.id.distance(target));
                prop_assert!(closer.count() < K);
            }
        }
    }
}
