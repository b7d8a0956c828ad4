//! A scripted tracker on loopback. The clock is paused: it moves on when both sides wait, so that lost datagrams cost
//! no real time.

use tokio::sync::mpsc;

use super::super::exchange::FIRST_PATIENCE;
use super::super::packet::{ServerReply, ServerRequest, read_request, write_reply};
use super::*;

/// What the tracker does with a datagram.
enum Act {
    Lose,
    Reply(ServerReply),
    /// First these bytes, then the reply.
    Garbage(Vec<Vec<u8>>, ServerReply),
    /// A reply to another transaction, then the reply.
    WrongTransaction(ServerReply),
    /// After that time.
    Slow(Duration, ServerReply),
}

/// A tracker that does one act for each datagram; what it was asked comes out of the channel.
async fn tracker(script: Vec<Act>) -> (Url, mpsc::UnboundedReceiver<ServerRequest>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let url = format!("udp://{}/ann?k=1", socket.local_addr().unwrap());
    let (told, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut buffer = [0; 2_048];
        for act in script {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let (transaction, request) = read_request(&buffer[..length]).unwrap();
            let _ = told.send(request);
            let say = async |datagram: &[u8]| {
                socket.send_to(datagram, from).await.unwrap();
            };
            match act {
                Act::Lose => {}
                Act::Reply(reply) => say(&write_reply(transaction, &reply)).await,
                Act::Garbage(junk, reply) => {
                    for datagram in junk {
                        say(&datagram).await;
                    }
                    say(&write_reply(transaction, &reply)).await;
                }
                Act::WrongTransaction(reply) => {
                    say(&write_reply(transaction.wrapping_add(1), &reply)).await;
                    say(&write_reply(transaction, &reply)).await;
                }
                Act::Slow(pause, reply) => {
                    tokio::time::sleep(pause).await;
                    say(&write_reply(transaction, &reply)).await;
                }
            }
        }
        // The socket stays open: a closed one would be answered for by the system.
        std::future::pending::<()>().await;
    });
    (url.parse().unwrap(), asked)
}

fn request() -> Announce {
    Announce {
        info_hash: InfoHash([1; 20]),
        peer_id: [2; 20],
        port: 6881,
        uploaded: 0,
        downloaded: 0,
        left: 5,
        num_want: 50,
        key: 1,
        event: None,
        tracker_id: None,
    }
}

fn peer() -> SocketAddr {
    "192.0.2.9:99".parse().unwrap()
}

fn connected() -> ServerReply {
    ServerReply::Connected(77)
}

fn announced() -> ServerReply {
    ServerReply::Announced {
        interval: 120,
        leechers: 1,
        seeders: 0,
        peers: vec![peer()],
    }
}

const LONG: Duration = Duration::from_secs(200);

#[tokio::test(start_paused = true)]
async fn an_answer_is_lost_only_if_the_question_was_sent() {
    let (url, _asked) = tracker(vec![Act::Lose]).await;
    let transport = UdpTransport::new(1);
    let error = transport.announce(&url, request(), FIRST_PATIENCE).await;
    assert!(!AnswerLost::is_why(&error.unwrap_err()));
    let (url, _asked) = tracker(vec![Act::Reply(connected()), Act::Lose]).await;
    let error = transport.announce(&url, request(), FIRST_PATIENCE).await;
    assert!(AnswerLost::is_why(&error.unwrap_err()));
}

#[tokio::test(start_paused = true)]
async fn an_announce_gives_peers_and_the_next_one_needs_no_new_connection() {
    let script = vec![
        Act::Reply(connected()),
        Act::Reply(announced()),
        Act::Reply(announced()),
    ];
    let (url, mut asked) = tracker(script).await;
    let transport = UdpTransport::new(1);
    for _ in 0..2 {
        let answer = transport.announce(&url, request(), LONG).await.unwrap();
        assert_eq!(answer.peers, [peer()]);
        assert_eq!(answer.interval, Duration::from_secs(120));
        // Should the link be lost, the address that answers is the first one to be tried.
        let turns: Vec<usize> = transport.state.lock().turns.values().copied().collect();
        assert_eq!(turns, [0]);
    }
    assert_eq!(asked.recv().await, Some(ServerRequest::Connect));
    for _ in 0..2 {
        assert_eq!(
            asked.recv().await,
            Some(ServerRequest::Announce(77, request()))
        );
    }
    assert!(asked.is_empty());
}

#[tokio::test(start_paused = true)]
async fn lost_slow_foreign_and_garbled_datagrams_only_cost_time() {
    let junk = vec![
        Vec::new(),
        vec![0],
        vec![0; 7],
        vec![0xff; 1_500],
        b"d5:peers0:e".to_vec(),
    ];
    let script = vec![
        Act::Lose,
        Act::WrongTransaction(connected()),
        Act::Garbage(junk, announced()),
    ];
    let (url, _asked) = tracker(script).await;
    let transport = UdpTransport::new(1);
    let begin = Instant::now();
    let answer = transport.announce(&url, request(), LONG).await.unwrap();
    assert_eq!(answer.peers, [peer()]);
    assert_eq!(begin.elapsed().as_secs(), 15);

    let pause = Duration::from_secs(12);
    let script = vec![Act::Slow(pause, connected()), Act::Slow(pause, announced())];
    let (url, _asked) = tracker(script).await;
    let answer = transport.announce(&url, request(), LONG).await.unwrap();
    assert_eq!(answer.peers, [peer()]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_tracker_is_given_up_in_time() {
    let (url, mut asked) = tracker(vec![Act::Lose, Act::Lose, Act::Lose]).await;
    let transport = UdpTransport::new(1);
    let begin = Instant::now();
    let patience = Duration::from_secs(105);
    let error = transport
        .announce(&url, request(), patience)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(begin.elapsed().as_secs(), 105);
    for _ in 0..3 {
        assert_eq!(asked.recv().await, Some(ServerRequest::Connect));
    }
    assert!(asked.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_gives_its_reason() {
    let refused = ServerReply::Refused("not\x1bhere\0");
    let (url, _asked) = tracker(vec![Act::Reply(connected()), Act::Reply(refused)]).await;
    let error = UdpTransport::new(1)
        .announce(&url, request(), LONG)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), r#"the tracker refuses: "not\u{1b}here""#);
}

#[tokio::test(start_paused = true)]
async fn a_port_where_nobody_listens_fails_at_once_and_frees_the_way_for_others() {
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("udp://{}/", closed.local_addr().unwrap())
        .parse()
        .unwrap();
    drop(closed);
    let begin = Instant::now();
    let error = UdpTransport::new(1)
        .announce(&url, request(), LONG)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network);
    assert!(begin.elapsed() < Duration::from_secs(15));
}

#[tokio::test(start_paused = true)]
async fn counts_come_in_the_order_that_was_asked_for() {
    let count = |n| ScrapeCounts {
        seeders: n,
        completions: n,
        leechers: n,
    };
    let scraped = ServerReply::Scraped(vec![count(1), count(2)]);
    let short = ServerReply::Scraped(vec![count(1)]);
    let script = vec![
        Act::Reply(connected()),
        Act::Reply(scraped),
        Act::Reply(short),
    ];
    let (url, _asked) = tracker(script).await;
    let transport = UdpTransport::new(1);
    let images = [InfoHash([1; 20]), InfoHash([2; 20])];
    let counts = transport.scrape(&url, &images, LONG).await.unwrap();
    assert_eq!(counts, [count(1), count(2)]);
    assert!(transport.scrape(&url, &images, LONG).await.is_err());
    assert!(
        transport
            .scrape(&url, &[images[0]; 75], LONG)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn ipv6_trackers_name_ipv6_peers() {
    let Ok(socket) = UdpSocket::bind("[::1]:0").await else {
        eprintln!("skipped: IPv6 is missing");
        return;
    };
    let url: Url = format!("udp://{}/", socket.local_addr().unwrap())
        .parse()
        .unwrap();
    let six: SocketAddr = "[2001:db8::9]:99".parse().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2_048];
        for reply in [
            connected(),
            ServerReply::Announced {
                interval: 60,
                leechers: 0,
                seeders: 1,
                peers: vec![six],
            },
        ] {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let (transaction, _) = read_request(&buffer[..length]).unwrap();
            socket
                .send_to(&write_reply(transaction, &reply), from)
                .await
                .unwrap();
        }
    });
    let answer = UdpTransport::new(1)
        .announce(&url, request(), LONG)
        .await
        .unwrap();
    assert_eq!(answer.peers, [six]);
}

#[test]
fn urls_without_a_port_are_refused_and_path_and_query_are_told() {
    let url = |text: &str| text.parse::<Url>().unwrap();
    assert_eq!(
        address(&url("udp://[::1]:80/x")).unwrap(),
        ("::1".into(), 80)
    );
    assert_eq!(
        address(&url("udp://tracker.example:80")).unwrap(),
        ("tracker.example".into(), 80)
    );
    assert_eq!(
        address(&url("udp://tracker.example")).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(url_data(&url("udp://a:1")), "");
    assert_eq!(url_data(&url("udp://a:1/")), "");
    assert_eq!(url_data(&url("udp://a:1/announce")), "/announce");
    assert_eq!(url_data(&url("udp://a:1/p%20q?k=v&x")), "/p%20q?k=v&x");
}
