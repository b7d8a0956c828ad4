//! What an engine and peers that are played by the test say of nodes of the DHT.

use super::network::image;
use super::*;
use crate::dht::NodePorts;

const PORTS: NodePorts = NodePorts {
    four: Some(7),
    six: Some(8),
};

fn engine(dht: bool, private: bool) -> Engine {
    let mut image = Image::clone(&image(4, 16_384));
    image.private = private;
    let limiter = || Arc::new(Mutex::new(Limiter::new(None)));
    let config = EngineConfig {
        image: Arc::new(image),
        have: Bitfield::new(4),
        fill: Fill::None,
        download: limiter(),
        upload: limiter(),
        upload_slots: None,
        listen_port: 1,
        peer_id: [0; 20],
        profile_exchange: false,
        peer_exchange: false,
        seed: 1,
    };
    let mut engine = Engine::new(Time::default(), config);
    if dht {
        engine.enable_dht();
    }
    engine
}

fn connect(engine: &mut Engine, at: &str, dht: bool) -> PeerKey {
    let abilities = Abilities {
        extended: true,
        fast: true,
        dht,
        ..Abilities::default()
    };
    engine.connected(Time::default(), at.parse().unwrap(), None, abilities)
}

/// What peers were told, and which nodes are to be asked.
fn collect(engine: &mut Engine) -> (Vec<(PeerKey, u16)>, Vec<SocketAddr>) {
    let (mut told, mut heard) = (Vec::new(), Vec::new());
    for output in engine.take_outputs() {
        match output {
            Output::Send(key, WireMessage::Port(port)) => told.push((key, port)),
            Output::Node(address) => heard.push(address),
            _ => {}
        }
    }
    (told, heard)
}

fn at(seconds: u64) -> Time {
    Time::from_start(Duration::from_secs(seconds))
}

#[test]
fn who_has_a_node_is_told_of_ours_of_its_family_once() {
    let mut engine = engine(true, false);
    // Before our nodes are there nothing is said.
    let early = connect(&mut engine, "192.0.2.1:1", true);
    let without = connect(&mut engine, "192.0.2.2:1", false);
    assert_eq!(collect(&mut engine).0, []);
    engine.own_nodes(at(0), PORTS);
    assert_eq!(collect(&mut engine).0, [(early, 7)]);
    let six = connect(&mut engine, "[2001:db8::1]:1", true);
    let after = engine.take_outputs();
    // What has to be first is first (BEP 3, BEP 6).
    assert!(matches!(
        after[..],
        [
            Output::Send(_, WireMessage::HaveNone),
            Output::Send(_, WireMessage::ExtendedHello(_)),
            Output::Send(key, WireMessage::Port(8)),
            ..
        ] if key == six
    ));
    engine.own_nodes(at(1), PORTS);
    assert_eq!(collect(&mut engine).0, []);
    // Who is told nothing may tell us.
    engine.received(at(1), without, WireMessage::Port(9));
    let node = "192.0.2.2:9".parse().unwrap();
    assert_eq!(collect(&mut engine).1, [node]);
}

#[test]
fn a_peer_leads_to_its_own_host_alone_and_not_often() {
    let mut engine = engine(true, false);
    let peer = connect(&mut engine, "192.0.2.1:50000", true);
    engine.received(at(0), peer, WireMessage::Port(0));
    assert_eq!(collect(&mut engine).1, []);
    let mut heard = Vec::new();
    for second in 0..120 {
        for port in 1..100 {
            engine.received(at(second), peer, WireMessage::Port(port));
        }
        heard.extend(collect(&mut engine).1);
    }
    let node: SocketAddr = "192.0.2.1:1".parse().unwrap();
    assert_eq!(heard, [node, node]);
    engine.disconnected(at(120), peer);
    engine.received(at(200), peer, WireMessage::Port(1));
    assert_eq!(collect(&mut engine).1, []);
}

#[test]
fn nothing_is_told_or_heard_of_a_private_image_or_without_the_dht() {
    for (dht, private) in [(true, true), (false, false)] {
        let mut engine = engine(dht, private);
        engine.own_nodes(at(0), PORTS);
        let peer = connect(&mut engine, "192.0.2.1:1", true);
        engine.received(at(0), peer, WireMessage::Port(9));
        assert_eq!(collect(&mut engine), (vec![], vec![]));
        assert_eq!(engine.peer_count(), 1);
    }
}
