//! One node, and a test that plays all others.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::binding;
use super::id::Id;
use super::message::{Body, Contact, Message, PROTOCOL, Query, Response, UNKNOWN_METHOD};
use super::node::{Node, NodeConfig, Output};
use crate::clock::Time;

const OWN: Id = Id([0; 20]);

fn at(seconds: u64) -> Time {
    Time::from_start(Duration::from_secs(seconds))
}

/// Each in a network of its own.
fn address(n: u8) -> SocketAddr {
    ([20, 0, n, 9], 6881).into()
}

fn id(n: u8) -> Id {
    Id([n; 20])
}

fn node() -> Node {
    let config = NodeConfig {
        id: OWN,
        six: false,
        seed: 1,
    };
    Node::new(at(0), config)
}

fn question(from: u8, query: Query) -> Vec<u8> {
    let body = Body::Query {
        id: id(from),
        read_only: false,
        query,
    };
    let transaction = b"tt".to_vec();
    Message { transaction, body }.encode()
}

/// What was sent since: to whom, and what.
fn sent(node: &mut Node) -> Vec<(SocketAddr, Message)> {
    let outputs = node.take_outputs().into_iter();
    let sent = outputs.filter_map(|output| match output {
        Output::Send(to, datagram) => Some((to, Message::decode(&datagram).unwrap())),
        _ => None,
    });
    sent.collect()
}

/// Answers a question that the node asked.
fn answer(node: &mut Node, now: Time, from: SocketAddr, asked: &Message, response: Response) {
    let message = Message {
        transaction: asked.transaction.clone(),
        body: Body::Response(response),
    };
    node.received(now, from, &message.encode());
}

/// Lets the node know these others.
fn introduce(node: &mut Node, others: &[u8]) {
    let addresses: Vec<_> = others.iter().map(|n| address(*n)).collect();
    node.meet(at(0), &addresses);
    for (to, asked) in sent(node) {
        let SocketAddr::V4(v4) = to else { panic!() };
        answer(
            node,
            at(0),
            to,
            &asked,
            Response::of(id(v4.ip().octets()[2])),
        );
    }
    node.take_outputs();
    assert_eq!(node.known_nodes(), others.len());
}

#[test]
fn questions_are_answered_as_bep_5_says() {
    let mut node = node();
    introduce(&mut node, &[1, 2, 3]);
    let mut ask = |query| {
        node.received(at(1), address(9), &question(9, query));
        let (to, message) = sent(&mut node).remove(0);
        assert_eq!((to, message.transaction), (address(9), b"tt".to_vec()));
        message.body
    };
    // It is told where its question came from (BEP 42).
    let mut plain = Response::of(OWN);
    plain.asker = Some(address(9));
    let plain = Body::Response(plain);
    assert_eq!(ask(Query::Ping), plain);
    let Body::Response(found) = ask(Query::FindNode(id(2))) else {
        panic!()
    };
    assert_eq!(
        found.nodes[0],
        Contact {
            id: id(2),
            address: address(2)
        }
    );
    assert_eq!(found.nodes.len(), 3);
    let Body::Response(found) = ask(Query::GetPeers(id(7))) else {
        panic!()
    };
    assert!(found.values.is_empty());
    let token = found.token.unwrap();
    let announce = |token, port| Query::Announce {
        info_hash: id(7),
        port,
        token,
    };
    assert_eq!(
        ask(announce(b"wrong".to_vec(), Some(1))),
        Body::Error(PROTOCOL)
    );
    assert_eq!(ask(announce(token.clone(), Some(7_000))), plain);
    assert_eq!(ask(announce(token, None)), plain);
    let Body::Response(found) = ask(Query::GetPeers(id(7))) else {
        panic!()
    };
    let peers = [address(9), SocketAddr::new(address(9).ip(), 7_000)];
    assert_eq!(found.values, peers);
    assert_eq!(ask(Query::Unknown), Body::Error(UNKNOWN_METHOD));
    node.received(at(1), address(9), b"d1:q4:ping1:t2:tt1:y1:qe");
    assert_eq!(sent(&mut node).remove(0).1.body, Body::Error(PROTOCOL));
}

#[test]
fn an_answer_counts_once_and_only_from_whom_was_asked() {
    let mut node = node();
    node.meet(at(0), &[address(1)]);
    let asked = sent(&mut node).remove(0).1;
    answer(&mut node, at(0), address(2), &asked, Response::of(id(1)));
    let mut other = asked.clone();
    other.transaction[0] ^= 1;
    answer(&mut node, at(0), address(1), &other, Response::of(id(1)));
    assert_eq!(node.known_nodes(), 0);
    answer(&mut node, at(0), address(1), &asked, Response::of(id(1)));
    answer(&mut node, at(0), address(1), &asked, Response::of(id(2)));
    assert_eq!(node.known_nodes(), 1);
    assert_eq!(node.good_nodes().collect::<Vec<_>>(), [address(1)]);
}

#[test]
fn who_asks_is_taken_in_only_after_it_answered_and_not_if_it_is_read_only() {
    let mut node = node();
    node.received(at(0), address(1), &question(1, Query::Ping));
    let messages = sent(&mut node);
    assert_eq!(messages.len(), 2);
    assert_eq!(node.known_nodes(), 0);
    assert!(matches!(
        &messages[1].1.body,
        Body::Query {
            query: Query::Ping,
            ..
        }
    ));
    answer(
        &mut node,
        at(0),
        address(1),
        &messages[1].1,
        Response::of(id(1)),
    );
    assert_eq!(node.known_nodes(), 1);
    let body = Body::Query {
        id: id(2),
        read_only: true,
        query: Query::Ping,
    };
    let quiet = Message {
        transaction: b"tt".to_vec(),
        body,
    };
    node.received(at(0), address(2), &quiet.encode());
    assert_eq!(sent(&mut node).len(), 1);
}

#[test]
fn a_node_that_a_peer_tells_of_is_pinged_once_and_leads_to_others() {
    let mut node = node();
    let nowhere = ["20.0.0.1:0", "224.0.0.1:1", "[2001:db8::1]:1", "0.0.0.0:1"];
    for bad in nowhere {
        node.told_of(at(400), bad.parse().unwrap());
    }
    assert_eq!(sent(&mut node), []);
    for _ in 0..3 {
        node.told_of(at(400), address(1));
    }
    let (to, asked) = sent(&mut node).remove(0);
    assert_eq!(to, address(1));
    let Body::Query { query, .. } = &asked.body else {
        panic!()
    };
    assert_eq!(*query, Query::Ping);
    assert_eq!(node.kept().0, 1);
    answer(&mut node, at(400), to, &asked, Response::of(id(1)));
    assert_eq!(node.known_nodes(), 1);
    node.told_of(at(401), address(1));
    assert_eq!(sent(&mut node), []);
    // Soon it is asked for others.
    assert!(node.next_timeout() <= at(401));
    // Of many nodes some are asked.
    for n in 2..=255 {
        node.told_of(at(402), address(n));
    }
    assert_eq!(sent(&mut node).len(), 32);
}

#[test]
fn addresses_that_mean_another_host_here_are_neither_believed_nor_told() {
    let mut node = node();
    let near: SocketAddr = "10.0.0.1:1".parse().unwrap();
    node.meet(at(0), &[near]);
    let asked = sent(&mut node).remove(0).1;
    answer(&mut node, at(0), near, &asked, Response::of(id(1)));
    introduce_more(&mut node);
    // A stranger is not told of a private address.
    node.received(at(0), address(9), &question(9, Query::FindNode(id(1))));
    let Body::Response(told) = sent(&mut node).remove(0).1.body else {
        panic!()
    };
    assert_eq!(
        told.nodes.iter().map(|n| n.address).collect::<Vec<_>>(),
        [address(2)]
    );
    // Nor is he believed about ours, or about this host.
    node.search(at(0), id(7), 1);
    node.tick(at(0));
    let asked = sent(&mut node)
        .into_iter()
        .find(|(to, _)| *to == address(2))
        .unwrap()
        .1;
    let mut response = Response::of(id(2));
    let text = ["127.0.0.1:9", "10.0.0.9:9", "192.0.2.9:9", "192.0.2.9:0"];
    response.values = text.iter().map(|a| a.parse().unwrap()).collect();
    response.nodes = text[..2]
        .iter()
        .zip([50, 51])
        .map(|(a, n)| Contact {
            id: id(n),
            address: a.parse().unwrap(),
        })
        .collect();
    answer(&mut node, at(0), address(2), &asked, response);
    let outputs = node.take_outputs();
    let found: Vec<_> = outputs
        .iter()
        .filter(|o| matches!(o, Output::Found(..)))
        .collect();
    assert_eq!(
        found,
        [&Output::Found(id(7), "192.0.2.9:9".parse().unwrap())]
    );
    assert!(
        !outputs
            .iter()
            .any(|o| matches!(o, Output::Send(to, _) if to.ip().to_string() == "10.0.0.9"))
    );
}

fn introduce_more(node: &mut Node) {
    node.meet(at(0), &[address(2)]);
    for (to, asked) in sent(node) {
        if to == address(2) {
            answer(node, at(0), to, &asked, Response::of(id(2)));
        }
    }
    node.take_outputs();
    assert_eq!(node.known_nodes(), 2);
}

/// Lets nodes of so many networks say where our questions come from.
fn hear_of_ourselves(node: &mut Node, networks: std::ops::Range<u8>, seen: &str) {
    for n in networks {
        let from = address(n);
        node.meet(at(0), &[from]);
        let asked = sent(node).into_iter().find(|(to, _)| *to == from);
        let mut response = Response::of(id(n));
        response.asker = Some(seen.parse().unwrap());
        answer(node, at(0), from, &asked.unwrap().1, response);
    }
}

#[test]
fn our_id_fits_our_address_once_five_networks_have_told_it() {
    let seen: SocketAddr = "21.75.31.124:40000".parse().unwrap();
    let mut node = node();
    hear_of_ourselves(&mut node, 1..5, "21.75.31.124:40000");
    node.take_outputs();
    assert_eq!(node.id(), OWN);
    hear_of_ourselves(&mut node, 5..6, "21.75.31.124:40001");
    let own = node.id();
    assert!(own != OWN && binding::fits(own, seen), "{own:?}");
    // Those that it knows stay, it looks around its new place, and it goes by its new name.
    assert_eq!(node.known_nodes(), 5);
    let looks = sent(&mut node).into_iter().filter(|(_, message)| {
        matches!(&message.body, Body::Query { id, query: Query::FindNode(target), .. }
            if *id == own && *target == own)
    });
    assert!(looks.count() > 0);
    node.received(at(1), address(9), &question(9, Query::Ping));
    let Body::Response(response) = sent(&mut node).remove(0).1.body else {
        panic!()
    };
    assert_eq!(response.id, own);
    // Who comes with another address is not believed so soon, and nobody who was not asked is.
    hear_of_ourselves(&mut node, 10..40, "65.23.51.170:1");
    assert_eq!(node.id(), own);
}

#[test]
fn in_a_closed_network_our_id_stays() {
    let mut node = node();
    hear_of_ourselves(&mut node, 1..40, "10.0.0.7:6881");
    assert_eq!(node.id(), OWN);
}

#[test]
fn a_flood_of_questions_is_answered_in_part() {
    let mut node = node();
    let mut answers = 0;
    for n in 0..10_000_u64 {
        let now = Time::from_start(Duration::from_millis(n / 10));
        node.received(now, address(9), &question(9, Query::GetPeers(id(7))));
        answers += sent(&mut node)
            .iter()
            .filter(|(_, m)| matches!(m.body, Body::Response(_)))
            .count();
    }
    assert!((50..=61).contains(&answers), "{answers}");
}

#[derive(Clone, Debug)]
enum Event {
    Datagram(u8, Vec<u8>),
    Question(u8, u8, Query),
    /// Answers one of the questions that were asked.
    Answer(prop::sample::Index, u8, Vec<(u8, u8)>, Option<Vec<u8>>, u8),
    Search(u8),
    Forget(u8),
    Meet(Vec<u8>),
    ToldOf(u8),
    Time(u32),
}

fn event() -> impl Strategy<Value = Event> {
    let any_id = || any::<u8>().prop_map(id);
    let token = || proptest::collection::vec(any::<u8>(), 0..10);
    let query = prop_oneof![
        Just(Query::Ping),
        any_id().prop_map(Query::FindNode),
        any_id().prop_map(Query::GetPeers),
        (any_id(), any::<Option<u16>>(), token()).prop_map(|(info_hash, port, token)| {
            let port = port.filter(|p| *p != 0);
            Query::Announce {
                info_hash,
                port,
                token,
            }
        }),
    ];
    let contacts = proptest::collection::vec(any::<(u8, u8)>(), 0..9);
    prop_oneof![
        1 => (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..200)).prop_map(|(n, b)| Event::Datagram(n, b)),
        4 => (any::<u8>(), any::<u8>(), query).prop_map(|(n, i, q)| Event::Question(n, i, q)),
        8 => (any::<prop::sample::Index>(), any::<u8>(), contacts, proptest::option::of(token()), any::<u8>())
            .prop_map(|(at, id, contacts, token, seen)| Event::Answer(at, id, contacts, token, seen)),
        1 => any::<u8>().prop_map(Event::Search),
        1 => any::<u8>().prop_map(Event::Forget),
        1 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(Event::Meet),
        1 => any::<u8>().prop_map(Event::ToldOf),
        3 => (0..100_000_u32).prop_map(Event::Time),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_nothing_panics_and_all_is_bounded(events in proptest::collection::vec(event(), 1..200)) {
        let mut node = node();
        let mut now = at(0);
        let mut asked: Vec<(SocketAddr, Message)> = Vec::new();
        for event in events {
            match event {
                Event::Datagram(from, bytes) => node.received(now, address(from), &bytes),
                Event::Question(from, id, query) => {
                    node.received(now, address(from), &question(id, query));
                }
                Event::Answer(which, own, contacts, token, seen) if !asked.is_empty() => {
                    let (from, message) = asked.swap_remove(which.index(asked.len()));
                    let mut response = Response::of(id(own));
                    response.nodes = contacts.iter().map(|(i, n)| Contact { id: id(*i), address: address(*n) }).collect();
                    response.values = contacts.iter().map(|(_, n)| address(*n)).collect();
                    response.token = token;
                    response.asker = (seen > 100).then(|| ([21, 75, 31, seen / 64], 1).into());
                    answer(&mut node, now, from, &message, response);
                }
                Event::Answer(..) => {}
                Event::Search(image) => node.search(now, id(image), 1),
                Event::Forget(image) => node.forget(id(image)),
                Event::Meet(others) => {
                    let others: Vec<_> = others.into_iter().map(address).collect();
                    node.meet(now, &others);
                }
                Event::ToldOf(n) => node.told_of(now, address(n)),
                Event::Time(millis) => {
                    now = now + Duration::from_millis(millis.into());
                    node.tick(now);
                }
            }
            for (to, message) in sent(&mut node) {
                prop_assert!(message.encode().len() < 1_400);
                if matches!(message.body, Body::Query { .. }) {
                    asked.push((to, message));
                }
            }
            let (pending, lookups, stored) = node.kept();
            prop_assert!(pending <= 256 && stored <= 1_000);
            // One for each image, one for each try of first contacts, and refreshes.
            prop_assert!(lookups <= 256 + 40, "{lookups} lookups");
            prop_assert!(node.next_timeout() <= now + Duration::from_secs(300));
        }
        // All ends by itself.
        for _ in 0..500 {
            now = now + Duration::from_secs(3);
            node.tick(now);
            sent(&mut node);
        }
        for image in 0..=255 {
            node.forget(id(image));
        }
        now = now + Duration::from_secs(3);
        node.tick(now);
        prop_assert!(node.kept().0 <= 8, "{:?}", node.kept());
    }
}
