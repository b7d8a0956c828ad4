use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

/// A TCP listener, as a session has one, and uTP beside it.
async fn beside_a_listener(address: &str) -> (tokio::net::TcpListener, SocketAddr, Arc<Utp>) {
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let at = listener.local_addr().unwrap();
    let utp = Utp::open(at, 10).unwrap();
    (listener, at, utp)
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * n % 251) as u8).collect()
}

async fn carries_both_ways(host: &str) {
    let (_listener, at, theirs) = beside_a_listener(host).await;
    let (_ours_listener, _, ours) = beside_a_listener(host).await;
    let acceptor = theirs.acceptors().remove(0);
    let echo = tokio::spawn(async move {
        let mut stream = acceptor.accept().await.unwrap();
        let mut heard = vec![0; 1 << 20];
        stream.read_exact(&mut heard).await.unwrap();
        stream.write_all(&heard).await.unwrap();
        // Until the other side ends it.
        stream.read(&mut [0]).await.unwrap()
    });
    let stream = ours.connect(at, PATIENCE).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let said = bytes(1 << 20);
    let sent = said.clone();
    let writing = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer
    });
    let mut heard = vec![0; 1 << 20];
    let read = tokio::time::timeout(PATIENCE, reader.read_exact(&mut heard));
    read.await.unwrap().unwrap();
    assert!(heard == said);
    drop((reader, writing.await.unwrap()));
    ours.stop().await;
    let ended = tokio::time::timeout(PATIENCE, echo).await.unwrap();
    assert_eq!(ended.unwrap(), 0);
}

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_and_its_end_is_told() {
    carries_both_ways("127.0.0.1:0").await;
}

#[tokio::test]
async fn a_stream_goes_over_ipv6_too() {
    if tokio::net::TcpListener::bind("[::1]:0").await.is_err() {
        eprintln!("skipped: no IPv6 on this host");
        return;
    }
    carries_both_ways("[::1]:0").await;
}

#[tokio::test]
async fn nobody_there_is_told_in_time() {
    let (_listener, _, utp) = beside_a_listener("127.0.0.1:0").await;
    // It takes datagrams and never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let patience = Duration::from_millis(700);
    let start = std::time::Instant::now();
    let connected = utp.connect(silent.local_addr().unwrap(), patience).await;
    assert_eq!(connected.err().unwrap().kind(), io::ErrorKind::TimedOut);
    assert!(start.elapsed() >= patience);
    let other_family = utp.connect("[::1]:1".parse().unwrap(), patience).await;
    assert_eq!(
        other_family.err().unwrap().kind(),
        io::ErrorKind::Unsupported
    );
}

#[tokio::test]
async fn a_lost_first_datagram_is_sent_again() {
    let (_listener, at, theirs) = beside_a_listener("127.0.0.1:0").await;
    let (_ours_listener, _, ours) = beside_a_listener("127.0.0.1:0").await;
    let lossy = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let entrance = lossy.local_addr().unwrap();
    let forwarding = tokio::spawn(async move {
        let (mut buffer, mut client, mut lost) = ([0; 2048], None, false);
        loop {
            let (length, from) = lossy.recv_from(&mut buffer).await.unwrap();
            if from != at && !std::mem::replace(&mut lost, true) {
                continue;
            }
            let to = match from == at {
                true => client.unwrap(),
                false => {
                    client = Some(from);
                    at
                }
            };
            lossy.send_to(&buffer[..length], to).await.unwrap();
        }
    });
    let acceptor = theirs.acceptors().remove(0);
    let (connected, accepted) = tokio::join!(ours.connect(entrance, PATIENCE), acceptor.accept());
    assert!(connected.is_ok() && accepted.is_some());
    forwarding.abort();
}

#[tokio::test]
async fn the_dht_has_its_part_of_the_socket_and_the_end_frees_it() {
    let (listener, at, utp) = beside_a_listener("127.0.0.1:0").await;
    let weak = utp.datagrams().remove(0);
    assert!(weak.for_dht(true).is_none(), "it is of the other family");
    let mut dht = weak.for_dht(false).unwrap();
    assert_eq!(dht.address(), at, "the listener's number");
    let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // Neither is the DHT's: one is of uTP, one of nobody.
    for stray in [&b"\x41\x02"[..], b""] {
        other.send_to(stray, at).await.unwrap();
    }
    other.send_to(b"d1:y1:qe", at).await.unwrap();
    let mut buffer = [0; 6];
    let heard = tokio::time::timeout(PATIENCE, dht.recv_from(&mut buffer));
    let (length, from) = heard.await.unwrap().unwrap();
    assert_eq!(
        (&buffer[..length], from),
        (&b"d1:y1:"[..], other.local_addr().unwrap())
    );
    dht.socket().send_to(b"d1:y1:re", from).await.unwrap();
    let mut buffer = [0; 100];
    let (length, from) = other.recv_from(&mut buffer).await.unwrap();
    assert_eq!((&buffer[..length], from), (&b"d1:y1:re"[..], at));
    drop(dht);
    utp.stop().await;
    assert!(!weak.is_open() && weak.for_dht(false).is_none());
    let again = UdpSocket::bind(at).await;
    assert!(again.is_ok(), "the port is free: {again:?}");
    drop(listener);
}

#[tokio::test]
async fn what_can_t_have_the_listeners_number_takes_another() {
    let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = taken.local_addr().unwrap();
    let utp = Utp::open(at, 10).unwrap();
    let (_listener, there, theirs) = beside_a_listener("127.0.0.1:0").await;
    let acceptor = theirs.acceptors().remove(0);
    let (connected, accepted) = tokio::join!(utp.connect(there, PATIENCE), acceptor.accept());
    assert!(connected.is_ok());
    assert_ne!(accepted.unwrap().remote_addr(), at);
}
