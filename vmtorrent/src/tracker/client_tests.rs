use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::tracker::{TrackerServer, TrackerServerHandle, TrackerServerOptions};

const IMAGE: InfoHash = InfoHash([1; 20]);

fn server() -> TrackerServerHandle {
    let options = TrackerServerOptions {
        images: Some(vec![IMAGE]),
        min_interval: Duration::from_secs(1),
        ..Default::default()
    };
    TrackerServer::bind("127.0.0.1:0".parse().unwrap(), options)
        .unwrap()
        .spawn(&Handle::current())
        .unwrap()
}

fn url(server: &TrackerServerHandle) -> Url {
    format!("http://{}/announce", server.local_addr())
        .parse()
        .unwrap()
}

/// A URL at which nobody listens.
fn dead() -> Url {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/announce", listener.local_addr().unwrap())
        .parse()
        .unwrap()
}

/// A client for a peer on this port, of which `left` bytes are missing.
fn client(
    port: u16,
    tiers: Vec<Vec<Url>>,
    left: &Arc<AtomicU64>,
) -> (TrackerHandle, mpsc::Receiver<SocketAddr>) {
    let mut peer_id = [0; 20];
    peer_id[..2].copy_from_slice(&port.to_be_bytes());
    let config = TrackerConfig {
        info_hash: IMAGE,
        peer_id,
        port,
        tiers,
        http: HttpClient::new().unwrap(),
        seed: u64::from(port),
    };
    let left = left.clone();
    let stats = move || TransferStats {
        left: Some(left.load(Ordering::Relaxed)),
        ..Default::default()
    };
    let (sender, receiver) = mpsc::channel(16);
    (
        TrackerClient::spawn(&Handle::current(), config, stats, sender),
        receiver,
    )
}

fn missing(bytes: u64) -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(bytes))
}

/// Seeders, leechers and completions, as a scrape tells.
async fn scrape(server: &TrackerServerHandle) -> String {
    let url = url(server).join("/scrape").unwrap();
    let http = HttpClient::new().unwrap();
    let answer = http
        .get(url, 100_000, Duration::from_secs(10))
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let counts = text
        .split_once("8:complete")
        .map_or("none", |(_, counts)| counts);
    counts.to_owned()
}

/// Scrapes until the counts are these; a test that hangs here has failed.
async fn until(server: &TrackerServerHandle, counts: &str) {
    let wait = async {
        while scrape(server).await != counts {
            tokio::task::yield_now().await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .is_err()
    {
        panic!("expected {counts}, found {}", scrape(server).await);
    }
}

fn at(port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::from(([127, 0, 0, 1], port)))
}

#[tokio::test]
async fn two_peers_find_each_other_through_our_tracker() {
    let server = server();
    let (first, mut found_by_first) = client(1001, vec![vec![url(&server)]], &missing(5));
    until(&server, "i0e10:downloadedi0e10:incompletei1eeee").await;
    let (second, mut found_by_second) = client(1002, vec![vec![url(&server)]], &missing(5));
    assert_eq!(found_by_second.recv().await, at(1001));
    first.announce_now();
    assert_eq!(found_by_first.recv().await, at(1002));
    first.stop().await;
    second.stop().await;
    assert_eq!(
        scrape(&server).await,
        "i0e10:downloadedi0e10:incompletei0eeee"
    );
}

#[tokio::test]
async fn completion_is_told_once_and_a_dropped_handle_stops() {
    let server = server();
    let left = missing(5);
    let (handle, _found) = client(1001, vec![vec![url(&server)]], &left);
    until(&server, "i0e10:downloadedi0e10:incompletei1eeee").await;
    left.store(0, Ordering::Relaxed);
    handle.completed();
    until(&server, "i1e10:downloadedi1e10:incompletei0eeee").await;
    handle.announce_now();
    drop(handle);
    until(&server, "i0e10:downloadedi1e10:incompletei0eeee").await;
}

#[tokio::test]
async fn a_dead_tracker_leads_to_the_next_tier() {
    let server = server();
    let tiers = vec![
        vec!["wss://127.0.0.1:1/".parse().unwrap()],
        vec![dead(), dead()],
        vec![url(&server)],
    ];
    let (handle, _found) = client(1001, tiers, &missing(5));
    until(&server, "i0e10:downloadedi0e10:incompletei1eeee").await;
    handle.stop().await;
}

fn udp_url(server: &TrackerServerHandle) -> Url {
    format!("udp://{}/announce", server.local_addr())
        .parse()
        .unwrap()
}

#[tokio::test]
async fn udp_and_http_peers_find_each_other_and_all_events_are_told() {
    let server = server();
    let left = missing(5);
    let (first, mut found_by_first) = client(1001, vec![vec![udp_url(&server)]], &left);
    until(&server, "i0e10:downloadedi0e10:incompletei1eeee").await;
    let (second, mut found_by_second) = client(1002, vec![vec![url(&server)]], &missing(5));
    assert_eq!(found_by_second.recv().await, at(1001));
    left.store(0, Ordering::Relaxed);
    first.completed();
    assert_eq!(found_by_first.recv().await, at(1002));
    until(&server, "i1e10:downloadedi1e10:incompletei1eeee").await;
    first.stop().await;
    second.stop().await;
    assert_eq!(
        scrape(&server).await,
        "i0e10:downloadedi1e10:incompletei0eeee"
    );
}

#[tokio::test]
async fn both_transports_scrape_the_same_counts() {
    let server = server();
    let (handle, _found) = client(1001, vec![vec![udp_url(&server)]], &missing(5));
    until(&server, "i0e10:downloadedi0e10:incompletei1eeee").await;
    let expected = crate::tracker::SwarmCounts {
        leechers: 1,
        ..Default::default()
    };
    for tracker in [url(&server), udp_url(&server)] {
        let timeout = Duration::from_secs(20);
        let counts = crate::tracker::scrape(&tracker, IMAGE, 1, timeout).await;
        assert_eq!(counts.unwrap(), Some(expected), "{tracker}");
    }
    handle.stop().await;
}

#[tokio::test]
async fn a_peer_that_knows_no_length_yet_is_no_seed() {
    let server = server();
    let config = TrackerConfig {
        info_hash: IMAGE,
        peer_id: [7; 20],
        port: 1003,
        tiers: vec![vec![url(&server)]],
        http: HttpClient::new().unwrap(),
        seed: 1,
    };
    let (sender, _found) = mpsc::channel(16);
    let handle = TrackerClient::spawn(&Handle::current(), config, TransferStats::default, sender);
    until(&server, "i0e10:downloadedi0e10:incompletei1eeee").await;
    handle.stop().await;
}

#[tokio::test]
async fn stopping_waits_for_no_tracker_that_does_not_answer() {
    // It accepts connections, for the system does, but says nothing.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tracker: Url = format!("http://{}/announce", mute.local_addr().unwrap())
        .parse()
        .unwrap();
    let (handle, _found) = client(1001, vec![vec![tracker]], &missing(5));
    let begin = std::time::Instant::now();
    handle.stop().await;
    assert!(begin.elapsed() < 2 * STOP_TIMEOUT);
}

#[tokio::test]
async fn a_client_without_trackers_can_be_stopped() {
    let (handle, mut found) = client(1001, vec![], &missing(5));
    handle.announce_now();
    handle.stop().await;
    assert_eq!(found.recv().await, None);
}

#[tokio::test]
async fn an_unread_channel_does_not_hold_the_client_up() {
    let server = server();
    let mut others = Vec::new();
    for port in 2000..2020 {
        others.push(client(port, vec![vec![url(&server)]], &missing(5)));
    }
    until(&server, "i0e10:downloadedi0e10:incompletei20eeee").await;
    let (full, _unread) = client(1001, vec![vec![url(&server)]], &missing(0));
    until(&server, "i1e10:downloadedi0e10:incompletei20eeee").await;
    full.completed();
    until(&server, "i1e10:downloadedi1e10:incompletei20eeee").await;
    full.stop().await;
}

#[tokio::test]
async fn who_was_told_started_and_did_not_answer_is_told_stopped() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let (client, _peers) = client(1, vec![vec![url.parse().unwrap()]], &missing(5));
    let (told, mut asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4_096];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            // It hears everything, and answers to a good-bye alone.
            if request.contains("event=stopped") {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nde";
                stream.write_all(answer).await.unwrap();
            }
            told.send(request).unwrap();
        }
    });
    assert!(asked.recv().await.unwrap().contains("event=started"));
    while client.counts().failed.get() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    client.stop().await;
    let mut last = String::new();
    while let Ok(request) = asked.try_recv() {
        last = request;
    }
    assert!(last.contains("event=stopped"), "{last}");
}
