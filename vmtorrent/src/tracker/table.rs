//! Invariant: there are never more peers than the limit, none that has been silent too long, and no asker is told of itself.

use std::collections::{BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::index;
use rand::{RngExt, SeedableRng};

use super::Event;
use crate::clock::Time;
use crate::image::InfoHash;
use crate::swarm::Origin;

/// Most images that an open tracker knows at once.
const MAX_SWARMS: usize = 1_024;
/// Most peers of one origin in one swarm. Generous: many machines may stand behind one address.
const MAX_OF_ONE: usize = 64;
/// When the table is full, this part of it makes room at once, so that looking for whom costs little for each announce.
const ROOM: usize = 64;
/// How often the silent ones are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// Who has or wants which image. Pure: time is passed in, chance comes from a seed.
#[derive(Debug)]
pub(super) struct PeerTable {
    swarms: HashMap<InfoHash, Swarm>,
    open: bool,
    expiry: Duration,
    max_peers: usize,
    peers: usize,
    swept: Time,
    rng: StdRng,
}

#[derive(Debug, Default)]
struct Swarm {
    peers: Vec<Peer>,
    /// Where each address stands in `peers`.
    places: HashMap<SocketAddr, usize>,
    seeders: usize,
    completions: u64,
}

#[derive(Debug)]
struct Peer {
    address: SocketAddr,
    id: [u8; 20],
    seeding: bool,
    /// It has reported that it got the last piece.
    completed: bool,
    seen: Time,
}

/// An announce as the table needs it.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub(super) info_hash: InfoHash,
    pub(super) peer_id: [u8; 20],
    /// Where the asker came from, with the port on which it listens.
    pub(super) address: SocketAddr,
    /// The tracker's own address, as the asker reaches it.
    pub(super) local: IpAddr,
    /// Whether the asker has the whole image.
    pub(super) seeding: bool,
    pub(super) event: Option<Event>,
    pub(super) num_want: usize,
}

/// What the table knows of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) seeders: usize,
    pub(super) leechers: usize,
    /// How many peers have reported that they got the last piece.
    pub(super) completions: u64,
}

impl PeerTable {
    /// A table for these images only, or for any.
    pub(super) fn new(
        images: Option<&[InfoHash]>,
        expiry: Duration,
        max_peers: usize,
        seed: u64,
    ) -> Self {
        let listed = images.into_iter().flatten();
        Self {
            swarms: listed.map(|h| (*h, Swarm::default())).collect(),
            open: images.is_none(),
            expiry,
            max_peers: max_peers.max(1),
            peers: 0,
            swept: Time::default(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// From now on this image is tracked too.
    pub(super) fn track(&mut self, image: InfoHash) {
        self.swarms.entry(image).or_default();
    }

    /// Registers the asker and names others at random; `None`: this image isn't tracked here.
    pub(super) fn announce(
        &mut self,
        query: &Query,
        now: Time,
    ) -> Option<(Vec<SocketAddr>, Counts)> {
        self.sweep(now);
        if self.open && self.swarms.len() < MAX_SWARMS {
            self.swarms.entry(query.info_hash).or_default();
        }
        let known = |s: &Swarm| s.places.contains_key(&query.address);
        let newcomer =
            query.event != Some(Event::Stopped) && !known(self.swarms.get(&query.info_hash)?);
        if newcomer && self.peers >= self.max_peers {
            self.make_room();
        }
        let swarm = self.swarms.get_mut(&query.info_hash)?;
        let before = swarm.peers.len();
        if query.event == Some(Event::Stopped) {
            swarm.remove(query.address);
        } else {
            if newcomer {
                swarm.make_room_of(query.address);
            }
            swarm.put(query, now);
        }
        self.peers = self.peers - before + swarm.peers.len();

        let found = match query.event {
            Some(Event::Stopped) => Vec::new(),
            _ => swarm.choose(query, &mut self.rng),
        };
        Some((found, swarm.counts()))
    }

    /// What is known of an image; `None`: it isn't tracked here.
    pub(super) fn counts(&mut self, image: &InfoHash, now: Time) -> Option<Counts> {
        self.sweep(now);
        self.swarms.get(image).map(Swarm::counts)
    }

    /// The images that are tracked, at most `limit`.
    pub(super) fn images(&self, limit: usize) -> Vec<InfoHash> {
        self.swarms.keys().take(limit).copied().collect()
    }

    /// Lets some peers go: those of the origin that has most of them, so that no flood drives out others. Among
    /// equals chance decides. This host's own, which may be the seed, stay while there are others.
    fn make_room(&mut self) {
        let mut origins: HashMap<Origin, Vec<(InfoHash, SocketAddr)>> = HashMap::new();
        for (image, swarm) in &self.swarms {
            for peer in &swarm.peers {
                let origin = Origin::or_this_host(peer.address.ip());
                let of_one = origins.entry(origin).or_default();
                of_one.push((*image, peer.address));
            }
        }
        let rng = &mut self.rng;
        // In an order that depends on nothing but the peers.
        let mut origins: Vec<_> = origins.into_values().collect();
        origins.sort_by_key(|of_one| of_one[0].1);
        let mut largest: BinaryHeap<_> = origins
            .iter()
            .enumerate()
            .map(|(n, of_one)| {
                let others = !of_one[0].1.ip().to_canonical().is_loopback();
                (others, of_one.len(), rng.random::<u32>(), n)
            })
            .collect();
        for _ in 0..(self.max_peers / ROOM).max(1) {
            let Some((others, count, tie, n)) = largest.pop() else {
                return;
            };
            let place = rng.random_range(0..count);
            let (image, address) = origins[n].swap_remove(place);
            if let Some(swarm) = self.swarms.get_mut(&image) {
                swarm.remove(address);
                self.peers -= 1;
            }
            if count > 1 {
                largest.push((others, count - 1, tie, n));
            }
        }
    }

    fn sweep(&mut self, now: Time) {
        if now.since(self.swept) < SWEEP {
            return;
        }
        self.swept = now;
        for swarm in self.swarms.values_mut() {
            let silent: Vec<_> = swarm
                .peers
                .iter()
                .filter(|p| now.since(p.seen) >= self.expiry)
                .map(|p| p.address)
                .collect();
            for address in silent {
                swarm.remove(address);
            }
        }
        if self.open {
            self.swarms.retain(|_, swarm| !swarm.peers.is_empty());
        }
        self.peers = self.swarms.values().map(|s| s.peers.len()).sum();
    }
}

impl Swarm {
    fn counts(&self) -> Counts {
        Counts {
            seeders: self.seeders,
            leechers: self.peers.len() - self.seeders,
            completions: self.completions,
        }
    }

    /// Before another peer comes from there: if its origin has as many as it may, the one goes that was silent for the
    /// longest.
    fn make_room_of(&mut self, address: SocketAddr) {
        let Some(origin) = Origin::of(address.ip()) else {
            return;
        };
        let of_one = self.peers.iter();
        let of_one = of_one.filter(|p| Origin::of(p.address.ip()) == Some(origin));
        let (count, oldest) = of_one.fold((0, None), |(count, oldest): (_, Option<&Peer>), p| {
            let older = oldest.is_none_or(|o| p.seen < o.seen);
            (count + 1, if older { Some(p) } else { oldest })
        });
        if count >= MAX_OF_ONE
            && let Some(address) = oldest.map(|p| p.address)
        {
            self.remove(address);
        }
    }

    fn put(&mut self, query: &Query, now: Time) {
        let before = self.remove(query.address);
        let mut completed = before.is_some_and(|p| p.completed);
        if query.event == Some(Event::Completed) && !completed {
            completed = true;
            self.completions += 1;
        }
        self.places.insert(query.address, self.peers.len());
        self.seeders += usize::from(query.seeding);
        self.peers.push(Peer {
            address: query.address,
            id: query.peer_id,
            seeding: query.seeding,
            completed,
            seen: now,
        });
    }

    fn remove(&mut self, address: SocketAddr) -> Option<Peer> {
        let place = self.places.remove(&address)?;
        let peer = self.peers.swap_remove(place);
        self.seeders -= usize::from(peer.seeding);
        if let Some(moved) = self.peers.get(place) {
            self.places.insert(moved.address, place);
        }
        Some(peer)
    }

    /// Peers at random, as the asker can reach them.
    fn choose(&self, query: &Query, rng: &mut StdRng) -> Vec<SocketAddr> {
        // One more, because the asker itself may be among them.
        let amount = self.peers.len().min(query.num_want.saturating_add(1));
        index::sample(rng, self.peers.len(), amount)
            .into_iter()
            .map(|i| &self.peers[i])
            .filter(|p| p.address != query.address && p.id != query.peer_id)
            .take(query.num_want)
            .map(|p| reachable(p.address, query.local))
            .collect()
    }
}

/// A peer's address as it looks from elsewhere: one that announced over the tracker's loopback
/// interface is on the tracker's host.
fn reachable(peer: SocketAddr, tracker: IpAddr) -> SocketAddr {
    if peer.ip().is_loopback() && !tracker.is_loopback() {
        SocketAddr::new(tracker, peer.port())
    } else {
        peer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: InfoHash = InfoHash([1; 20]);

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    fn table(max_peers: usize) -> PeerTable {
        PeerTable::new(Some(&[IMAGE]), Duration::from_secs(90), max_peers, 1)
    }

    fn query(host: u8, port: u16) -> Query {
        let mut peer_id = [host; 20];
        peer_id[..2].copy_from_slice(&port.to_be_bytes());
        Query {
            info_hash: IMAGE,
            peer_id,
            address: ([10, 0, 0, host], port).into(),
            local: [10, 0, 0, 254].into(),
            seeding: false,
            event: None,
            num_want: 50,
        }
    }

    fn ask(table: &mut PeerTable, query: &Query, seconds: u64) -> Vec<SocketAddr> {
        let mut found = table.announce(query, at(seconds)).unwrap().0;
        found.sort();
        found
    }

    #[test]
    fn peers_learn_of_each_other_but_not_of_themselves() {
        let mut t = table(100);
        assert_eq!(ask(&mut t, &query(1, 1), 0), []);
        assert_eq!(
            ask(&mut t, &query(2, 2), 0),
            ["10.0.0.1:1".parse().unwrap()]
        );
        assert_eq!(
            ask(&mut t, &query(1, 1), 0),
            ["10.0.0.2:2".parse().unwrap()]
        );
        // The same peer by another way.
        let mut other_way = query(1, 1);
        other_way.address = "[::9]:1".parse().unwrap();
        assert_eq!(ask(&mut t, &other_way, 0), ["10.0.0.2:2".parse().unwrap()]);
    }

    #[test]
    fn who_stops_or_falls_silent_is_forgotten() {
        let mut t = table(100);
        for host in 1..=4 {
            ask(&mut t, &query(host, 1), 0);
        }
        let mut stop = query(2, 1);
        stop.event = Some(Event::Stopped);
        assert_eq!(ask(&mut t, &stop, 1), []);
        ask(&mut t, &query(3, 1), 60);
        assert_eq!(ask(&mut t, &query(4, 1), 89).len(), 2);
        assert_eq!(
            ask(&mut t, &query(4, 1), 90),
            ["10.0.0.3:1".parse().unwrap()]
        );
        assert_eq!(ask(&mut t, &query(4, 1), 150), []);
    }

    #[test]
    fn no_more_peers_are_named_than_wanted_and_all_get_their_turn() {
        let mut t = table(100);
        for host in 1..=20 {
            ask(&mut t, &query(host, 1), 0);
        }
        let mut few = query(1, 1);
        few.num_want = 3;
        let mut seen = std::collections::HashSet::new();
        for _ in 0..200 {
            let found = ask(&mut t, &few, 0);
            assert_eq!(found.len(), 3);
            seen.extend(found);
        }
        assert_eq!(seen.len(), 19);
        few.num_want = 0;
        assert_eq!(ask(&mut t, &few, 0), []);
    }

    #[test]
    fn the_number_of_peers_is_bounded() {
        let mut t = table(10);
        for port in 1..1_000 {
            ask(&mut t, &query(1, port), 0);
            assert!(t.peers <= 10);
        }
        let counts = t.counts(&IMAGE, at(0)).unwrap();
        assert_eq!(counts.leechers, 10);
        // A newcomer finds its place.
        ask(&mut t, &query(2, 1), 0);
        assert!(t.swarms[&IMAGE].places.contains_key(&query(2, 1).address));
    }

    #[test]
    fn the_number_of_images_is_bounded_and_unknown_ones_are_refused() {
        let mut closed = table(10);
        let mut other = query(1, 1);
        other.info_hash = InfoHash([2; 20]);
        assert!(closed.announce(&other, at(0)).is_none());
        assert!(closed.counts(&other.info_hash, at(0)).is_none());

        let mut open = PeerTable::new(None, Duration::from_secs(90), 10_000, 1);
        for n in 0..2_000_u16 {
            let mut q = query(1, 1);
            q.info_hash.0[..2].copy_from_slice(&n.to_be_bytes());
            assert_eq!(
                open.announce(&q, at(0)).is_some(),
                usize::from(n) < MAX_SWARMS
            );
        }
        assert_eq!(open.images(5).len(), 5);
        open.sweep(at(1_000));
        assert!(open.swarms.is_empty());
    }

    #[test]
    fn a_flood_from_one_address_drives_out_nobody_else() {
        let mut t = table(100);
        let mut seed = query(1, 1);
        seed.seeding = true;
        ask(&mut t, &seed, 0);
        for host in 2..=60 {
            ask(&mut t, &query(host, 1), 0);
        }
        for port in 1..10_000 {
            ask(&mut t, &query(99, port), 0);
            assert!(t.peers <= 100);
        }
        let places = &t.swarms[&IMAGE].places;
        for host in 1..=60 {
            assert!(places.contains_key(&query(host, 1).address), "{host}");
        }
        assert!(places.contains_key(&query(99, 9_999).address));
    }

    #[test]
    fn one_address_has_a_bounded_number_of_peers_and_this_host_any() {
        let mut t = table(10_000);
        for port in 1..1_000 {
            ask(&mut t, &query(1, port), u64::from(port));
        }
        assert_eq!(t.swarms[&IMAGE].peers.len(), MAX_OF_ONE.min(90));
        assert!(t.swarms[&IMAGE].places.contains_key(&query(1, 999).address));
        for port in 1..1_000 {
            let mut local = query(1, port);
            local.address.set_ip([127, 0, 0, 1].into());
            ask(&mut t, &local, 1_000);
        }
        assert!(t.swarms[&IMAGE].peers.len() >= 999);
    }

    #[test]
    fn images_may_be_added_and_others_are_refused() {
        let mut t = PeerTable::new(Some(&[]), Duration::from_secs(90), 10, 1);
        assert!(t.announce(&query(1, 1), at(0)).is_none());
        t.track(IMAGE);
        assert_eq!(ask(&mut t, &query(1, 1), 0), []);
        t.track(IMAGE);
        assert_eq!(ask(&mut t, &query(2, 1), 0), [query(1, 1).address]);
    }

    #[test]
    fn seeders_leechers_and_completions_are_counted() {
        let mut t = table(100);
        ask(&mut t, &query(1, 1), 0);
        let mut q = query(2, 1);
        ask(&mut t, &q, 0);
        q.seeding = true;
        q.event = Some(Event::Completed);
        // Once, however often it is told.
        for _ in 0..3 {
            ask(&mut t, &q, 1);
        }
        let counts = |t: &mut PeerTable| t.counts(&IMAGE, at(1)).unwrap();
        assert_eq!(
            counts(&mut t),
            Counts {
                seeders: 1,
                leechers: 1,
                completions: 1
            }
        );
        q.event = Some(Event::Stopped);
        ask(&mut t, &q, 1);
        assert_eq!(counts(&mut t).seeders, 0);
    }

    #[test]
    fn a_seed_on_the_tracker_s_own_host_is_reachable_from_elsewhere() {
        let mut t = table(100);
        let mut seed = query(1, 7);
        seed.address = "127.0.0.1:7".parse().unwrap();
        seed.local = [127, 0, 0, 1].into();
        ask(&mut t, &seed, 0);
        assert_eq!(
            ask(&mut t, &query(2, 2), 0),
            ["10.0.0.254:7".parse().unwrap()]
        );
        let mut neighbour = query(3, 3);
        neighbour.address = "127.0.0.1:3".parse().unwrap();
        neighbour.local = [127, 0, 0, 1].into();
        assert!(ask(&mut t, &neighbour, 0).contains(&seed.address));
    }
}
