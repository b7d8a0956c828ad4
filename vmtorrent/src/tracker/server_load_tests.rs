//! A crowd at a real tracker, over loopback, with nonsense between its announces.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream as Plain, UdpSocket as Datagrams};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::tracker::announce::AnnounceAnswer;

/// Peers, each of which announces twice.
const PEERS: usize = 5_000;
const CLIENTS: usize = 4;
/// What the tracker is to bear (announces in a second), with nonsense beside.
const RATE: f64 = 1_000.0;

fn exchange(server: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = Plain::connect(server).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    // The server may hang up in the middle of nonsense.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn request(peer: usize, left: u32) -> String {
    let port = 1_024 + peer;
    format!(
        "GET /announce?info_hash={}&peer_id=-XX0000-{peer:012}&port={port}&uploaded=0&downloaded=0&left={left}\
         &compact=1 HTTP/1.1\r\nHost: tracker\r\n\r\n",
        "%01".repeat(20)
    )
}

/// The answer to a good announce, whose peers and counts are looked at.
fn announce(server: SocketAddr, peer: usize) -> AnnounceAnswer {
    let answer = exchange(server, request(peer, 5).as_bytes());
    let text = answer.escape_ascii().to_string();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{text}");
    let body = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    AnnounceAnswer::parse(&answer[body..]).unwrap()
}

/// Requests that are damaged, or none, of which most reach the parser.
fn nonsense(rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = request(rng.random_range(0..PEERS), rng.random()).into_bytes();
    match rng.random_range(0..4) {
        0 => (0..rng.random_range(0..2_000))
            .map(|_| rng.random())
            .collect(),
        1 => {
            bytes.truncate(rng.random_range(0..bytes.len()));
            bytes.extend(b"\r\n\r\n");
            bytes
        }
        _ => {
            for _ in 0..rng.random_range(1..20) {
                let at = rng.random_range(4..bytes.len() - 20);
                bytes[at] = rng.random();
            }
            bytes
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_announces_a_second_are_answered_while_others_send_nonsense() {
    let options = TrackerServerOptions {
        images: Some(vec![InfoHash([1; 20])]),
        ..Default::default()
    };
    let server = TrackerServer::bind((Ipv4Addr::LOCALHOST, 0).into(), options).unwrap();
    let server = server.spawn(&Handle::current()).unwrap();
    let address = server.local_addr();
    let (ended, bad) = (AtomicBool::new(false), AtomicUsize::new(0));
    let crowd = || {
        thread::scope(|scope| {
            for seed in 0..2 {
                let (ended, bad) = (&ended, &bad);
                scope.spawn(move || {
                    let mut rng = StdRng::seed_from_u64(seed);
                    while !ended.load(Ordering::Relaxed) {
                        let answer = exchange(address, &nonsense(&mut rng));
                        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 "));
                        bad.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let (ended, bad) = (&ended, &bad);
            scope.spawn(move || {
                let mut rng = StdRng::seed_from_u64(7);
                let socket = Datagrams::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                while !ended.load(Ordering::Relaxed) {
                    let length = rng.random_range(0..1_500);
                    let bytes: Vec<u8> = (0..length).map(|_| rng.random()).collect();
                    let _ = socket.send_to(&bytes, address);
                    bad.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_micros(100));
                }
            });
            let begin = Instant::now();
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    scope.spawn(move || {
                        for peer in (0..2 * PEERS).filter(|p| p % CLIENTS == client) {
                            announce(address, peer % PEERS);
                        }
                    })
                })
                .collect();
            let done = clients.into_iter().all(|c| c.join().is_ok());
            let took = begin.elapsed();
            ended.store(true, Ordering::Relaxed);
            assert!(done, "an announce was not answered well");
            took
        })
    };
    let took = tokio::task::block_in_place(crowd);
    let rate = (2 * PEERS) as f64 / took.as_secs_f64();
    let bad = bad.load(Ordering::Relaxed);
    eprintln!("{rate:.0} announces a second over HTTP, beside {bad} requests that were nonsense");
    assert!(rate >= RATE, "{rate:.0} announces a second");
    assert!(bad > 100, "{bad}");
    // It still knows its peers.
    let last = tokio::task::block_in_place(|| announce(address, 0));
    assert_eq!(last.peers.len(), DEFAULT_NUM_WANT);
    server.stop().await;
}
