//! uTP over real sockets on loopback: sessions that only UDP connects.

#![cfg(feature = "utp")]
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

mod common;

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vmtorrent::image::{Magnet, PublishOptions};
use vmtorrent::{Appliance, ApplianceOptions, ErrorKind, Fill, Session, SessionOptions, State};

use self::common::{loopback, published, random};

const MIB: usize = 1 << 20;

async fn session(cache: &Path, utp: bool) -> Session {
    let options = SessionOptions {
        listen: loopback(),
        cache: Some(cache.to_owned()),
        // Only those are asked that a test names.
        discovery: false,
        utp,
        ..SessionOptions::default()
    };
    Session::start(options).await.unwrap()
}

fn options(state: &Path, peer: SocketAddr, read_timeout: Duration) -> ApplianceOptions {
    ApplianceOptions {
        state: State::Directory(state.to_owned()),
        peers: vec![peer],
        fill: Fill::None,
        read_timeout: Some(read_timeout),
        ..ApplianceOptions::default()
    }
}

async fn read(appliance: &Appliance, range: Range<usize>) -> Vec<u8> {
    let mut all = Vec::with_capacity(range.len());
    while all.len() < range.len() {
        let at = range.start + all.len();
        let part = appliance
            .read_at(0, at as u64, 300_000.min(range.end - at))
            .await;
        let part = part.unwrap();
        assert!(!part.is_empty());
        all.extend_from_slice(&part);
    }
    all
}

/// The value of a session's figure for its only image.
fn figure(session: &Session, name: &str) -> u64 {
    let page = session.metrics();
    let lines = page.lines().filter(|l| l.starts_with(&format!("{name}{{")));
    let values = lines.map(|l| l.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    values.sum()
}

/// An address where TCP is refused and datagrams are passed on to `to`, of those that come back too, but that every
/// `lost`th is lost. It is there for as long as the process is.
fn udp_only(to: SocketAddr, lost: u64) -> SocketAddr {
    // It is bound and does not listen: nobody else can take its number, and whoever connects is refused.
    let (entrance, closed) = loop {
        let entrance = UdpSocket::bind(loopback()).unwrap();
        let address = entrance.local_addr().unwrap();
        let domain = socket2::Domain::for_address(address);
        let closed = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
        if closed.bind(&address.into()).is_ok() {
            break (Arc::new(entrance), closed);
        }
    };
    let address = entrance.local_addr().unwrap();
    std::thread::spawn(move || {
        let _closed = closed;
        let mut exits = HashMap::<SocketAddr, Arc<UdpSocket>>::new();
        let mut buffer = [0; 2048];
        for count in 1.. {
            let (length, from) = entrance.recv_from(&mut buffer).unwrap();
            if count % lost == 0 {
                continue;
            }
            let exit = exits.entry(from).or_insert_with(|| {
                let exit = Arc::new(UdpSocket::bind(loopback()).unwrap());
                exit.connect(to).unwrap();
                let (entrance, back) = (entrance.clone(), exit.clone());
                std::thread::spawn(move || {
                    let mut buffer = [0; 2048];
                    for count in 1.. {
                        // An error is the host's word that nobody takes what was sent.
                        let Ok(length) = back.recv(&mut buffer) else {
                            continue;
                        };
                        if count % lost != 0 {
                            entrance.send_to(&buffer[..length], from).unwrap();
                        }
                    }
                });
                exit
            });
            let _ = exit.send(&buffer[..length]);
        }
    });
    address
}

/// What comes over UDP alone, of whose datagrams every `lost`th is lost.
async fn an_image_comes(size: usize, seed_of_content: u64, lost: u64) {
    let scratch = tempfile::tempdir().unwrap();
    let data = random(size, seed_of_content);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    let origin = session(&scratch.path().join("unused"), true).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();
    let entrance = udp_only(origin.listen_address(), lost);
    assert!(std::net::TcpStream::connect(entrance).is_err());

    let host = session(&scratch.path().join("cache"), true).await;
    let state = scratch.path().join("state");
    let launch = options(&state, entrance, Duration::from_secs(60));
    let appliance = host.launch(image, launch).await.unwrap();
    // Who has all leaves a seed: the figures are looked at while more is missing than is read ahead at most, 2 MiB.
    assert!(read(&appliance, 0..MIB).await == data[..MIB]);
    for (side, direction) in [(&host, "outgoing"), (&origin, "incoming")] {
        assert_eq!(figure(side, "vmtorrent_image_peers"), 1, "{direction}");
        assert_eq!(figure(side, "vmtorrent_image_utp_peers"), 1, "{direction}");
    }
    assert_eq!(figure(&host, "vmtorrent_image_dial_failures_total"), 0);
    assert!(read(&appliance, MIB..size).await == data[MIB..]);
    let stats = appliance.shutdown().await.unwrap();
    assert_eq!(stats.fetched_bytes, size as u64);
    host.shutdown().await.unwrap();
    seed.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_image_comes_over_utp_where_tcp_is_refused() {
    an_image_comes(16 * MIB + 12_345, 0x2545_f491_4f6c_dd1d, u64::MAX).await;
}

#[tokio::test]
async fn lost_datagrams_are_sent_again() {
    an_image_comes(4 * MIB, 0x1234_5678_9abc_def1, 97).await;
}

#[tokio::test]
async fn a_magnet_link_leads_to_a_peer_that_only_utp_reaches() {
    let scratch = tempfile::tempdir().unwrap();
    let data = random(2 * MIB, 0xfeed_f00d_1357_9bdf);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    let origin = session(&scratch.path().join("unused"), true).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();
    let entrance = udp_only(origin.listen_address(), u64::MAX);
    let host = session(&scratch.path().join("cache"), true).await;
    let mut magnet = Magnet::new(image.info_hash());
    magnet.add_peer(entrance);
    let found = host.load(&magnet.into()).await.unwrap();
    assert_eq!(found.info_hash(), image.info_hash());
    host.shutdown().await.unwrap();
    seed.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
}

#[tokio::test]
async fn nothing_comes_over_udp_where_either_side_has_utp_turned_off() {
    for (ours, theirs) in [(false, true), (true, false)] {
        let scratch = tempfile::tempdir().unwrap();
        let data = random(2 * MIB, 0x0bad_cafe_2468_ace1);
        let image = published(scratch.path(), &data, &PublishOptions::default());
        let origin = session(&scratch.path().join("unused"), theirs).await;
        let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();
        let udp = UdpSocket::bind(origin.listen_address());
        assert_eq!(udp.is_ok(), !theirs, "whether the port is taken: {udp:?}");
        drop(udp);
        let entrance = udp_only(origin.listen_address(), u64::MAX);
        let host = session(&scratch.path().join("cache"), ours).await;
        let state = scratch.path().join("state");
        let launch = options(&state, entrance, Duration::from_secs(5));
        let appliance = host.launch(image, launch).await.unwrap();
        let read = appliance.read_at(0, 0, 4096).await;
        assert_eq!(read.unwrap_err().kind(), ErrorKind::TimedOut);
        // One each few seconds, whether somebody reads or not: what uTP takes puts off no next attempt by much.
        let tried_again = async {
            while figure(&host, "vmtorrent_image_dial_failures_total") < 2 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), tried_again);
        in_time.await.unwrap();
        assert_eq!(appliance.shutdown().await.unwrap().fetched_bytes, 0);
        assert_eq!(seed.stats().uploaded_bytes, 0);
        host.shutdown().await.unwrap();
        seed.shutdown().await.unwrap();
        origin.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn tcp_is_taken_where_it_reaches_and_the_end_frees_both_ports() {
    let scratch = tempfile::tempdir().unwrap();
    // More than is read and read ahead before the figures are looked at: who has all leaves a seed.
    let data = random(4 * MIB, 0x1357_2468_9bdf_ace3);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    let origin = session(&scratch.path().join("unused"), true).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();
    let at = origin.listen_address();
    let host = session(&scratch.path().join("cache"), true).await;
    let state = scratch.path().join("state");
    let launch = options(&state, at, Duration::from_secs(60));
    let appliance = host.launch(image, launch).await.unwrap();
    assert!(read(&appliance, 0..MIB).await == data[..MIB]);
    assert_eq!(figure(&host, "vmtorrent_image_peers"), 1);
    assert_eq!(figure(&host, "vmtorrent_image_utp_peers"), 0);
    assert!(
        UdpSocket::bind(at).is_err(),
        "uTP has the listener's number"
    );
    appliance.shutdown().await.unwrap();
    host.shutdown().await.unwrap();
    seed.shutdown().await.unwrap();
    origin.clone().shutdown().await.unwrap();
    // Though somebody still holds the session.
    assert!(UdpSocket::bind(at).is_ok());
    drop(origin);
}
