//! Invariant: a node is in the table only if it answered a question of ours, under the id and from the address that stand
//! there; none has our own id; one origin has at most [`MAX_OF_ONE`]. One whose id does not fit its address (BEP 42) is there
//! only as long as nobody else wants its place, and takes that of nobody whose id does.

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
    /// Its id fits its address.
    fits: bool,
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

    /// Our id is another one from now on. Of the nodes as many stay as have a place around it.
    pub(super) fn move_to(&mut self, id: Id) {
        let mut entries: Vec<Entry> = self.buckets.iter_mut().flat_map(std::mem::take).collect();
        entries.sort_by_key(|e| (!e.fits, e.failures));
        self.id = id;
        for entry in entries {
            // None for our own id.
            if let Some(bucket) = self.buckets.get_mut(id.common_bits(entry.contact.id))
                && bucket.len() < K
            {
                bucket.push(entry);
            }
        }
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
        let room = bucket.len() < K || victim(bucket, contact.fits()).is_some();
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
        let fits = contact.fits();
        if bucket.len() >= K
            && let Some(victim) = victim(bucket, fits)
        {
            bucket.swap_remove(victim);
        }
        bucket.push(Entry {
            contact,
            fits,
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

/// Which node of a full bucket gives its place to a new one. `fits`: the new one's id fits its address.
fn victim(bucket: &[Entry], fits: bool) -> Option<usize> {
    let gives_way = |e: &Entry| {
        if fits {
            !e.fits || e.failures > 0
        } else {
            !e.fits && e.failures > 0
        }
    };
    let some = (0..bucket.len()).filter(|n| gives_way(&bucket[*n]));
    some.max_by_key(|n| (!bucket[*n].fits, bucket[*n].failures))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dht::binding;

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

    /// Of the first bucket of [0; 20], at an address of its own; `fits`: with an id that fits it.
    fn bound(n: u8, fits: bool) -> Contact {
        let address = ([20, 1, n, 1], 6881).into();
        let chosen = |last: u8| binding::id_at(SocketAddr::ip(&address), [last; 20]);
        // About half of the eight beginnings have this bit.
        let fitting = (0..8).map(chosen).find(|id| id.0[0] & 0x80 != 0);
        let mut id = fitting.expect("another address is needed");
        if !fits {
            id.0[1] ^= 0xff;
        }
        Contact { id, address }
    }

    #[test]
    fn nodes_whose_ids_fit_their_addresses_are_preferred() {
        let mut table = Table::new(Id([0; 20]));
        for n in 0..8 {
            assert!(table.answered(at(0), bound(n, false)));
        }
        // Of one kind those that were there before stay.
        assert!(!table.wants(bound(8, false)) && !table.answered(at(0), bound(8, false)));
        for n in 10..18 {
            assert!(table.wants(bound(n, true)));
            assert!(table.answered(at(0), bound(n, true)), "{n}");
        }
        assert_eq!(table.len(), 8);
        assert!(table.good().all(Contact::fits));
        assert!(!table.wants(bound(18, true)));
        // One that was silent once gives way, but not to one whose id does not fit.
        table.failed(bound(12, true));
        assert!(!table.wants(bound(8, false)) && !table.answered(at(1), bound(8, false)));
        assert!(table.answered(at(1), bound(18, true)));
        assert!(table.good().all(|c| c != bound(12, true)));
        // Where there is room both are taken.
        table.move_to(Id([0xff; 20]));
        let all = table.len();
        let mut stranger = bound(8, false);
        stranger.id.0[0] ^= 0x80;
        assert!(table.answered(at(2), stranger));
        assert_eq!(table.len(), all + 1);
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
            let mut all: Vec<Contact> = table.good().collect();
            prop_assert!(table.buckets.iter().all(|b| b.len() <= K));
            let closest = table.closest(target, K);
            prop_assert_eq!(closest.len(), all.len().min(K));
            for one in &closest {
                let closer = all.iter().filter(|o| o.id.distance(target) < one.id.distance(target));
                prop_assert!(closer.count() < K);
            }
            // With another id it is a table around that.
            table.move_to(target);
            prop_assert!(table.len() <= all.len());
            for (bits, bucket) in table.buckets.iter().enumerate() {
                prop_assert!(bucket.len() <= K);
                prop_assert!(bucket.iter().all(|e| target.common_bits(e.contact.id) == bits));
            }
            all.retain(|c| c.id != target);
            // Nobody is left out for whom there is room.
            for left in all.iter().filter(|c| !table.good().any(|g| g == **c)) {
                prop_assert_eq!(table.buckets[target.common_bits(left.id)].len(), K);
            }
        }
    }
}
