//! Invariant: at most [`MAX_IMAGES`] images are kept, the closest to our id, and of each at most [`MAX_PEERS`] peers, none
//! for longer than [`LIFE`].

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use super::id::Id;
use crate::clock::Time;
use crate::swarm::Origin;

const MAX_IMAGES: usize = 1_000;
const MAX_PEERS: usize = 100;
/// Peers of one image at one address: programs behind one router.
const MAX_OF_ONE: usize = 8;
/// Who announces does so again within a quarter of an hour.
const LIFE: Duration = Duration::from_secs(30 * 60);

/// What others announced to us.
#[derive(Debug)]
pub(super) struct Store {
    id: Id,
    images: HashMap<Id, BTreeMap<SocketAddr, Time>>,
}

impl Store {
    pub(super) fn new(id: Id) -> Self {
        Self {
            id,
            images: HashMap::new(),
        }
    }

    /// Our id is another one from now on.
    pub(super) fn move_to(&mut self, id: Id) {
        self.id = id;
    }

    pub(super) fn add(&mut self, now: Time, image: Id, peer: SocketAddr) {
        if !self.images.contains_key(&image) && self.images.len() >= MAX_IMAGES {
            let distance = |image: &Id| image.distance(self.id);
            let farthest = self.images.keys().copied().max_by_key(distance);
            match farthest.filter(|f| distance(f) > distance(&image)) {
                Some(farthest) => self.images.remove(&farthest),
                None => return,
            };
        }
        let peers = self.images.entry(image).or_default();
        if !peers.contains_key(&peer) {
            let origin = Origin::of(peer.ip());
            let rivals = |a: &SocketAddr| origin.is_some() && Origin::of(a.ip()) == origin;
            let among_its_own = peers.keys().filter(|a| rivals(a)).count() >= MAX_OF_ONE;
            if among_its_own || peers.len() >= MAX_PEERS {
                let candidates = peers.iter().filter(|(a, _)| !among_its_own || rivals(a));
                let oldest = candidates
                    .min_by_key(|(a, at)| (**at, **a))
                    .map(|(a, _)| *a);
                oldest.map(|oldest| peers.remove(&oldest));
            }
        }
        peers.insert(peer, now);
    }

    /// At most `most` peers of an image, others each time.
    pub(super) fn some(&self, image: Id, most: usize, chance: u64) -> Vec<SocketAddr> {
        let Some(peers) = self.images.get(&image) else {
            return Vec::new();
        };
        let skipped = if peers.len() > most {
            (chance % peers.len() as u64) as usize
        } else {
            0
        };
        let round = peers.keys().cycle().skip(skipped);
        round.take(most.min(peers.len())).copied().collect()
    }

    /// Forgets what is old.
    pub(super) fn expire(&mut self, now: Time) {
        self.images.retain(|_, peers| {
            peers.retain(|_, at| now.since(*at) < LIFE);
            !peers.is_empty()
        });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.images.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_closest_stays() {
        let mut store = Store::new(Id([0; 20]));
        let peer = ([192, 0, 2, 1], 1).into();
        for n in (0..5_000_u32).rev() {
            let mut id = [0; 20];
            id[..4].copy_from_slice(&n.to_be_bytes());
            store.add(at(0), Id(id), peer);
        }
        assert_eq!(store.len(), MAX_IMAGES);
        assert_eq!(store.some(Id([0; 20]), 9, 7), [peer]);
        assert_eq!(store.some(Id([255; 20]), 9, 7), []);
        store.add(at(0), Id([255; 20]), peer);
        assert_eq!(store.some(Id([255; 20]), 9, 7), []);
        store.expire(at(1_799));
        assert_eq!(store.len(), MAX_IMAGES);
        store.expire(at(1_800));
        assert_eq!(store.len(), 0);
    }

    #[test]
    fn of_one_address_few_peers_are_kept_and_of_all_some_are_given() {
        let mut store = Store::new(Id([0; 20]));
        let image = Id([1; 20]);
        for port in 1..1_000 {
            store.add(at(port.into()), image, ([192, 0, 2, 1], port).into());
        }
        let kept = store.some(image, 200, 0);
        let newest: Vec<SocketAddr> = (992..1_000).map(|p| ([192, 0, 2, 1], p).into()).collect();
        assert_eq!(kept, newest);
        for n in 0..1_000_u32 {
            let [_, _, a, b] = n.to_be_bytes();
            store.add(at(2_000 + u64::from(n)), image, ([20, 0, a, b], 1).into());
        }
        assert_eq!(store.some(image, 500, 3).len(), MAX_PEERS);
        let mut given: Vec<_> = (0..100).flat_map(|c| store.some(image, 30, c)).collect();
        given.sort();
        given.dedup();
        assert_eq!(given.len(), MAX_PEERS);
    }
}
