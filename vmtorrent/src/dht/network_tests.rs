//! Networks of nodes in virtual time: seeded, without sockets.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::binding;
use super::id::Id;
use super::message::{Body, Message};
use super::node::{Node, NodeConfig, Output};
use crate::clock::Time;

const DELAY: Duration = Duration::from_millis(30);

struct Net {
    now: Time,
    nodes: Vec<Node>,
    /// Those that answer no more.
    dead: BTreeSet<usize>,
    queue: BinaryHeap<Reverse<(Time, u64)>>,
    datagrams: HashMap<u64, (usize, SocketAddr, Vec<u8>)>,
    next: u64,
    found: Vec<BTreeSet<SocketAddr>>,
    sent: u64,
    longest: usize,
    six: bool,
    /// Each node has a network of its own.
    spread: bool,
    /// Those that learn nothing of where they are.
    old: BTreeSet<usize>,
    rng: StdRng,
    /// How many of a thousand datagrams are lost.
    loss: u32,
}

impl Net {
    fn new(seed: u64, six: bool) -> Self {
        Self {
            now: Time::default(),
            nodes: Vec::new(),
            dead: BTreeSet::new(),
            queue: BinaryHeap::new(),
            datagrams: HashMap::new(),
            next: 0,
            found: Vec::new(),
            sent: 0,
            longest: 0,
            six,
            spread: false,
            old: BTreeSet::new(),
            rng: StdRng::seed_from_u64(seed),
            loss: 0,
        }
    }

    fn address(&self, node: usize) -> SocketAddr {
        let n = node as u32 + 1;
        if self.six {
            let [_, _, a, b] = n.to_be_bytes();
            let high = u16::from_be_bytes([a, b]);
            (
                std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, high, 0, 0, 0, 1),
                6881,
            )
                .into()
        } else {
            let [_, a, b, c] = n.to_be_bytes();
            let ip = if self.spread {
                [20, b, c, 7]
            } else {
                [20, a, b, c]
            };
            (ip, 6881).into()
        }
    }

    /// How many nodes have an id that fits their address.
    fn bound(&self) -> usize {
        let fits = |n: &usize| binding::fits(self.nodes[*n].id(), self.address(*n));
        (0..self.nodes.len()).filter(fits).count()
    }

    /// Where a node's peer serves.
    fn peer(&self, node: usize) -> SocketAddr {
        let mut address = self.address(node);
        address.set_port(7_000);
        address
    }

    fn node_at(&self, address: SocketAddr) -> Option<usize> {
        (0..self.nodes.len()).find(|n| self.address(*n) == address)
    }

    fn join(&mut self) -> usize {
        let config = NodeConfig {
            id: Id(self.rng.random()),
            six: self.six,
            seed: self.rng.random(),
        };
        self.nodes.push(Node::new(self.now, config));
        self.found.push(BTreeSet::new());
        let node = self.nodes.len() - 1;
        self.tick(node);
        node
    }

    fn tick(&mut self, node: usize) {
        let now = self.now;
        self.nodes[node].tick(now);
        self.collect(node);
    }

    fn collect(&mut self, node: usize) {
        for output in self.nodes[node].take_outputs() {
            match output {
                Output::Send(to, datagram) => {
                    self.sent += 1;
                    self.longest = self.longest.max(datagram.len());
                    let lost = self.rng.random_range(0..1_000) < self.loss;
                    if let Some(to) = self
                        .node_at(to)
                        .filter(|to| !lost && !self.dead.contains(to))
                    {
                        let datagram = if self.old.contains(&to) {
                            without_asker(&datagram)
                        } else {
                            datagram
                        };
                        self.next += 1;
                        self.queue.push(Reverse((self.now + DELAY, self.next)));
                        self.datagrams
                            .insert(self.next, (to, self.address(node), datagram));
                    }
                }
                Output::Found(_, peer) => {
                    self.found[node].insert(peer);
                }
                // All know the first one.
                Output::NeedContacts => {
                    let first = self.address(0);
                    let now = self.now;
                    self.nodes[node].meet(now, &[first]);
                    self.collect(node);
                }
            }
        }
    }

    fn run_for(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        loop {
            let arrival = self.queue.peek().map(|Reverse((at, _))| *at);
            let alive = (0..self.nodes.len()).filter(|n| !self.dead.contains(n));
            let (due, node) = alive
                .map(|n| (self.nodes[n].next_timeout(), n))
                .min()
                .unwrap();
            let due = due.max(self.now + Duration::from_millis(1));
            match arrival {
                Some(at) if at <= due && at <= until => {
                    self.now = at;
                    let Some(Reverse((_, number))) = self.queue.pop() else {
                        return;
                    };
                    let (to, from, datagram) = self.datagrams.remove(&number).unwrap();
                    if !self.dead.contains(&to) {
                        self.nodes[to].received(self.now, from, &datagram);
                        self.collect(to);
                    }
                }
                _ if due <= until => {
                    self.now = due;
                    self.tick(node);
                }
                _ => {
                    self.now = until;
                    return;
                }
            }
        }
    }

    fn search(&mut self, node: usize, image: Id) {
        let now = self.now;
        self.nodes[node].search(now, image, 7_000);
        self.tick(node);
    }
}

/// The same from a node that does not say where the question came from.
fn without_asker(datagram: &[u8]) -> Vec<u8> {
    let mut message = Message::decode(datagram).unwrap();
    if let Body::Response(response) = &mut message.body {
        response.asker = None;
    }
    message.encode()
}

/// A network of so many nodes that have got to know each other.
fn network(nodes: usize, seed: u64, six: bool) -> Net {
    let mut net = Net::new(seed, six);
    for _ in 0..nodes {
        net.join();
        net.run_for(1);
    }
    net.run_for(60);
    net
}

#[test]
fn who_announces_is_found_in_networks_of_any_size_and_family() {
    for (nodes, six) in [(2, false), (3, true), (20, false), (300, false), (60, true)] {
        let mut net = network(nodes, nodes as u64, six);
        let image = Id(net.rng.random());
        let seed = nodes - 1;
        net.search(seed, image);
        net.run_for(5);
        let leech = (nodes - 1) / 2;
        net.search(leech, image);
        net.run_for(5);
        let peer = net.peer(seed);
        assert!(
            net.found[leech].contains(&peer),
            "{nodes} nodes, six: {six}"
        );
        assert!(net.longest <= 1_400, "{} bytes", net.longest);
    }
}

#[test]
fn ids_come_to_fit_their_addresses_and_peers_are_found_among_any_number_of_others() {
    // So many of ten nodes know nothing of BEP 42.
    for old in [0, 3, 7, 10] {
        let mut net = Net::new(11, false);
        net.spread = true;
        net.old = (0..120).filter(|n| n % 10 < old).collect();
        for _ in 0..120 {
            net.join();
            net.run_for(1);
        }
        net.run_for(60);
        assert_eq!(net.bound(), 120 - net.old.len());
        let image = Id(net.rng.random());
        // Of both kinds, if there are both.
        let seeds = [60, 69];
        for seed in seeds {
            net.search(seed, image);
            net.run_for(5);
        }
        for leech in [110, 119] {
            net.search(leech, image);
            net.run_for(5);
            for seed in seeds {
                let peer = net.peer(seed);
                assert!(net.found[leech].contains(&peer), "{old}: {leech} of {seed}");
            }
        }
        assert!(net.longest <= 1_400, "{} bytes", net.longest);
    }
}

#[test]
fn who_comes_last_and_knows_one_node_finds_the_seed_within_seconds() {
    let mut net = network(200, 7, false);
    let image = Id(net.rng.random());
    net.search(5, image);
    net.run_for(10);
    let late = net.join();
    net.search(late, image);
    net.run_for(5);
    assert!(net.found[late].contains(&net.peer(5)));
}

#[test]
fn a_network_of_two_that_start_one_after_the_other_finds_itself() {
    let mut net = Net::new(1, false);
    let image = Id([7; 20]);
    let first = net.join();
    net.search(first, image);
    net.run_for(600);
    let second = net.join();
    net.search(second, image);
    net.run_for(5);
    assert!(net.found[second].contains(&net.peer(first)));
    assert!(net.found[first].contains(&net.peer(second)));
}

#[test]
fn peers_are_found_although_half_of_the_nodes_have_gone_and_datagrams_are_lost() {
    let mut net = network(120, 3, false);
    let image = Id(net.rng.random());
    let gone: Vec<usize> = (1..120).filter(|n| n % 2 == 0).collect();
    net.dead.extend(gone);
    net.loss = 100;
    net.search(5, image);
    net.run_for(60);
    net.search(77, image);
    net.run_for(60);
    assert!(net.found[77].contains(&net.peer(5)));
}

#[test]
fn a_network_at_rest_is_quiet() {
    let mut net = network(50, 9, false);
    let image = Id(net.rng.random());
    for node in 0..10 {
        net.search(node, image);
    }
    net.run_for(3_600);
    let before = net.sent;
    net.run_for(3_600);
    let each = (net.sent - before) / 50;
    // A lookup of a dozen questions each five minutes, one for its image, pings of who is silent; and as many answers.
    assert!(each < 3_000, "{each} datagrams of each node in an hour");
    for node in 0..10 {
        assert!(net.found[node].len() >= 9, "{:?}", net.found[node]);
    }
}
