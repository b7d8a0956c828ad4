use std::io::{Read, Write};
use std::net::TcpStream as Plain;

use super::*;
use crate::ErrorKind;
use crate::http::HttpClient;
use crate::tracker::announce::AnnounceAnswer;

const IMAGE: &str = "%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01%01";

fn options() -> TrackerServerOptions {
    TrackerServerOptions {
        images: Some(vec![InfoHash([1; 20])]),
        ..Default::default()
    }
}

fn start(address: &str, options: TrackerServerOptions) -> TrackerServerHandle {
    TrackerServer::bind(address.parse().unwrap(), options)
        .unwrap()
        .spawn(&Handle::current())
        .unwrap()
}

/// The status and body of the answer to a GET.
async fn get(server: &TrackerServerHandle, path: &str) -> (u16, Bytes) {
    let url = format!("http://{}{path}", server.local_addr());
    let answer = HttpClient::new()
        .unwrap()
        .get(url.parse().unwrap(), 100_000, Duration::from_secs(10))
        .await
        .unwrap();
    (answer.status.as_u16(), answer.body)
}

fn announce(port: u16, more: &str) -> String {
    format!(
        "/announce?info_hash={IMAGE}&peer_id=-XX0000-{port:012}&port={port}&uploaded=0&downloaded=0{more}"
    )
}

async fn peers(server: &TrackerServerHandle, port: u16, more: &str) -> Vec<SocketAddr> {
    let (status, body) = get(server, &announce(port, more)).await;
    assert_eq!(status, 200);
    AnnounceAnswer::parse(&body).unwrap().peers
}

/// Sends raw bytes and gives all that comes back before the connection is closed.
async fn raw(server: &TrackerServerHandle, request: &[u8]) -> Vec<u8> {
    let (address, request) = (server.local_addr(), request.to_vec());
    tokio::task::spawn_blocking(move || {
        let mut stream = Plain::connect(address).unwrap();
        // The server may hang up in the middle of it, even with a reset.
        let _ = stream.write_all(&request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn peers_are_named_compactly_and_forgotten_when_they_stop() {
    let server = start("127.0.0.1:0", options());
    assert_eq!(
        peers(&server, 1001, "&left=5&compact=1&event=started").await,
        []
    );
    let first: SocketAddr = "127.0.0.1:1001".parse().unwrap();
    let second: SocketAddr = "127.0.0.1:1002".parse().unwrap();
    assert_eq!(peers(&server, 1002, "&left=5&event=started").await, [first]);
    assert_eq!(peers(&server, 1001, "&left=5").await, [second]);
    assert_eq!(peers(&server, 1001, "&left=5&numwant=0").await, []);
    assert_eq!(peers(&server, 1002, "&left=0&event=stopped").await, []);
    assert_eq!(peers(&server, 1001, "&left=5").await, []);
    let (_, body) = get(&server, &announce(1001, "&left=5")).await;
    let answer = AnnounceAnswer::parse(&body).unwrap();
    assert_eq!(answer.interval, Duration::from_secs(30));
    assert_eq!(answer.min_interval, Duration::from_secs(5));
    server.stop().await;
}

#[tokio::test]
async fn ipv6_peers_are_named_compactly() {
    // Without IPv6 there is nothing to prove.
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: no IPv6 here");
        return;
    }
    let server = start("[::1]:0", options());
    peers(&server, 1001, "&left=5").await;
    let expected: SocketAddr = "[::1]:1001".parse().unwrap();
    assert_eq!(peers(&server, 1002, "&left=5").await, [expected]);
}

#[tokio::test]
async fn an_ipv4_peer_of_a_dual_stack_tracker_is_named_as_ipv4() {
    let Ok(server) = TrackerServer::bind("[::]:0".parse().unwrap(), options()) else {
        eprintln!("skipped: no IPv6 here");
        return;
    };
    let mut server = server.spawn(&Handle::current()).unwrap();
    server.address = SocketAddr::from(([127, 0, 0, 1], server.address.port()));
    peers(&server, 1001, "&left=5").await;
    let expected: SocketAddr = "127.0.0.1:1001".parse().unwrap();
    assert_eq!(peers(&server, 1002, "&left=5").await, [expected]);
}

#[tokio::test]
async fn a_seed_that_announces_over_loopback_is_named_by_the_host_s_address_elsewhere() {
    // Connecting a UDP socket sends nothing; it only chooses an address of this host.
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let host = match probe
        .connect("192.0.2.1:9")
        .and_then(|()| probe.local_addr())
    {
        Ok(address) if !address.ip().is_loopback() => address.ip(),
        _ => {
            eprintln!("skipped: this host has no address but loopback");
            return;
        }
    };
    let mut server = start("0.0.0.0:0", options());
    server.address.set_ip([127, 0, 0, 1].into());
    assert_eq!(peers(&server, 1001, "&left=0").await, []);
    server.address.set_ip(host);
    let expected = SocketAddr::new(host, 1001);
    assert_eq!(peers(&server, 1002, "&left=5").await, [expected]);
}

#[tokio::test]
async fn a_scrape_counts() {
    let server = start("127.0.0.1:0", options());
    peers(&server, 1001, "&left=0&event=completed").await;
    peers(&server, 1002, "&left=5").await;
    let expected = [
        b"d5:filesd20:".as_slice(),
        &[1; 20],
        b"d8:completei1e10:downloadedi1e10:incompletei1eeee",
    ]
    .concat();
    assert_eq!(
        get(&server, &format!("/scrape?info_hash={IMAGE}")).await,
        (200, expected.clone().into())
    );
    assert_eq!(get(&server, "/scrape").await, (200, expected.into()));
    let other = format!("/scrape?info_hash={}", IMAGE.replace("01", "02"));
    assert_eq!(
        get(&server, &other).await,
        (200, b"d5:filesdee".as_slice().into())
    );
}

#[tokio::test]
async fn an_unknown_image_is_refused_in_a_way_that_clients_read() {
    let server = start("127.0.0.1:0", options());
    let (status, body) = get(&server, &announce(1, "").replace("%01", "%02")).await;
    assert_eq!(status, 200);
    assert!(
        AnnounceAnswer::parse(&body)
            .unwrap_err()
            .to_string()
            .contains("not tracked here")
    );
    let open = start("127.0.0.1:0", TrackerServerOptions::default());
    let (_, body) = get(&open, &announce(1, "").replace("%01", "%02")).await;
    assert!(AnnounceAnswer::parse(&body).is_ok());
}

#[tokio::test]
async fn wrong_requests_are_answered_with_the_reason() {
    let server = start("127.0.0.1:0", options());
    let good = announce(1, "&left=5");
    let cases = [
        ("/".to_owned(), 404, "only /announce"),
        ("/announce".to_owned(), 400, "port is missing"),
        (
            good.replace("&port=1&", "&port=0&"),
            400,
            "port is missing or wrong",
        ),
        (
            good.replace("&port=1&", "&port=65536&"),
            400,
            "port is missing or wrong",
        ),
        (good.replace("%01%01", "%01"), 400, "info_hash is missing"),
        (good.replace("-XX0000-", "-"), 400, "peer_id is missing"),
        (format!("{good}&left=1"), 400, "twice"),
        (good.replace("left=5", "left=x"), 400, "left is wrong"),
        (format!("{good}&numwant=x"), 400, "numwant is wrong"),
        ("/scrape?info_hash=1".to_owned(), 400, "not 20 bytes"),
        (
            format!("/scrape?{}", format!("info_hash={IMAGE}&").repeat(65)),
            400,
            "too many",
        ),
    ];
    for (path, status, reason) in cases {
        let (got, body) = get(&server, &path).await;
        assert_eq!(got, status, "{path}");
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(body.contains(reason), "{path}: {body}");
    }
    let (status, _) = get(
        &server,
        &format!("{good}&numwant=-1&event=paused&x&=&ip=9.9.9.9"),
    )
    .await;
    assert_eq!(status, 200);
    let answer = raw(&server, b"POST /announce HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with(b"HTTP/1.1 405"));
}

#[tokio::test]
async fn garbage_is_answered_with_400_and_endless_headers_are_cut_off() {
    let server = start("127.0.0.1:0", options());
    for garbage in [
        &b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0"[..],
        b"GET /announce\r\n\r\n",
        b"GET \xff\xfe HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    ] {
        let answer = raw(&server, garbage).await;
        assert!(
            answer.starts_with(b"HTTP/1.1 400"),
            "{}",
            answer.escape_ascii()
        );
    }
    for long in ["GET /announce?", "GET / HTTP/1.1\r\nx: "] {
        let request = [long.as_bytes(), &vec![b'a'; 1 << 20]].concat();
        let answer = raw(&server, &request).await;
        // Where the reset comes before the answer, nothing is read.
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{}",
            answer.escape_ascii()
        );
    }
    assert_eq!(peers(&server, 1001, "&left=5").await, []);
}

#[tokio::test]
async fn silent_connections_are_closed_and_hold_no_place_for_ever() {
    let server = start(
        "127.0.0.1:0",
        TrackerServerOptions {
            timeout: Duration::from_millis(200),
            max_connections: 2,
            ..options()
        },
    );
    let address = server.local_addr();
    let mut silent: Vec<Plain> = (0..4).map(|_| Plain::connect(address).unwrap()).collect();
    silent[0]
        .write_all(b"GET /announce HTTP/1.1\r\nx:")
        .unwrap();
    // It waits in the queue behind them, and gets its turn.
    assert_eq!(peers(&server, 1001, "&left=5").await, []);
    let closed = tokio::task::spawn_blocking(move || {
        silent
            .iter_mut()
            .all(|s| matches!(s.read(&mut [0; 100]), Ok(0)))
    });
    assert!(closed.await.unwrap());
}

#[tokio::test]
async fn a_port_in_use_is_an_error_with_the_remedy_and_stopping_frees_it() {
    let server = start("127.0.0.1:0", options());
    let address = server.local_addr();
    let e = TrackerServer::bind(address, options()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::InUse);
    assert!(e.to_string().contains(&address.to_string()), "{e}");
    assert!(e.to_string().contains("choose another"), "{e}");
    let mut open = Plain::connect(address).unwrap();
    // Served once, so that the open connection before it was accepted too.
    peers(&server, 1001, "&left=5").await;
    server.stop().await;
    TrackerServer::bind(address, options()).unwrap();
    let closed = tokio::task::spawn_blocking(move || open.read(&mut [0]).unwrap_or(0));
    assert_eq!(closed.await.unwrap(), 0);
}
