//! Connections over real sockets: strangers at the door, the bound on connections, peers that were lost, peers that are
//! remembered.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use vmtorrent::image::{Image, PublishOptions, publish};
use vmtorrent::{Appliance, ApplianceOptions, Fill, Session, SessionOptions, State};

/// Longest wait for something that normally takes milliseconds: machines may be busy.
const PATIENCE: Duration = Duration::from_secs(40);
const LENGTH: usize = 300_000;

struct Stage {
    directory: tempfile::TempDir,
    image: Image,
}

impl Stage {
    /// An image that no other test has: its content is made from `name`.
    fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        let content: Vec<u8> = name.bytes().cycle().take(LENGTH).collect();
        std::fs::write(&path, content).unwrap();
        let image = publish(&path, &PublishOptions::default()).unwrap().image;
        Self { directory, image }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn options(&self, name: &str, peer: Option<SocketAddr>) -> ApplianceOptions {
        ApplianceOptions {
            state: State::Directory(self.path().join(name)),
            peers: peer.into_iter().collect(),
            fill: Fill::None,
            read_timeout: Some(PATIENCE),
            ..ApplianceOptions::default()
        }
    }

    /// A session; each `name` has a cache of its own.
    async fn session(&self, name: &str, max_connections: usize) -> Session {
        Session::start(SessionOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            cache: Some(self.path().join(name).join("cache")),
            local_discovery: false,
            max_connections,
            ..SessionOptions::default()
        })
        .await
        .unwrap()
    }

    /// A connection that has shaken hands as a peer that listens on `port`, or on none if that is 0.
    async fn peer(&self, seed: SocketAddr, id: u8, port: u16) -> TcpStream {
        let mut stream = TcpStream::connect(seed).await.unwrap();
        let mut bytes = b"\x13BitTorrent protocol\x00\x00\x00\x00\x00\x10\x00\x00".to_vec();
        bytes.extend(self.image.info_hash().0);
        bytes.extend([id; 20]);
        let hello = format!("d1:mde1:pi{port}ee");
        bytes.extend((hello.len() as u32 + 2).to_be_bytes());
        bytes.extend([20, 0]);
        bytes.extend(hello.as_bytes());
        stream.write_all(&bytes).await.unwrap();
        let mut answer = [0; 68];
        stream.read_exact(&mut answer).await.unwrap();
        stream
    }
}

async fn read(appliance: &Appliance) -> Vec<u8> {
    let data = appliance.read_at(0, 0, LENGTH).await.unwrap();
    data.to_vec()
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not in time"),
    }
}

/// Waits until the other side has closed.
async fn closed(stream: &mut TcpStream) {
    let mut buffer = [0; 4_096];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}

#[tokio::test]
async fn strangers_who_say_nothing_keep_no_peer_out() {
    let stage = Stage::new("strangers");
    let origin = stage.session("origin", 200).await;
    let address = origin.listen_address();
    let seed = origin
        .seed(stage.image.clone(), stage.path())
        .await
        .unwrap();
    let mut quick = false;
    // On a busy machine one time may tell nothing.
    for time in 0..3 {
        // More than fit at the door, silent for as long as this lasts.
        let mut silent = Vec::new();
        for _ in 0..150 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let host = stage.session(&format!("host-{time}"), 200).await;
        let started = std::time::Instant::now();
        let options = stage.options(&format!("state-{time}"), Some(address));
        let appliance = host.launch(stage.image.clone(), options).await.unwrap();
        assert_eq!(read(&appliance).await.len(), LENGTH);
        // A handshake may take ten seconds: nobody waited for one to be over.
        quick = started.elapsed() < Duration::from_secs(9);
        // The first ones had to go for the last ones.
        in_time("the end of the first stranger", closed(&mut silent[0])).await;
        appliance.shutdown().await.unwrap();
        if quick {
            break;
        }
    }
    assert!(quick, "a host waits for strangers");
    seed.shutdown().await.unwrap();
}

#[tokio::test]
async fn connections_are_bounded_and_a_named_peer_gets_one_nevertheless() {
    let stage = Stage::new("bounded");
    let origin = stage.session("origin", 200).await;
    let seed = origin
        .seed(stage.image.clone(), stage.path())
        .await
        .unwrap();
    let host = stage.session("host", 3).await;
    let appliance = host
        .launch(stage.image.clone(), stage.options("state", None))
        .await
        .unwrap();
    let mut strangers = Vec::new();
    for id in 1..=6 {
        let mut stranger = stage.peer(host.listen_address(), id, 0).await;
        if id <= 3 {
            // The first message tells that it has its place.
            in_time("a greeting", stranger.read_u32()).await.unwrap();
        }
        strangers.push(stranger);
    }
    // Three have a place; the others are let go.
    let mut refused = strangers.split_off(3);
    for stranger in &mut refused {
        in_time("the end of a stranger too many", closed(stranger)).await;
    }
    assert_eq!(appliance.stats().peers, 3);

    // The same image once more, with a peer that is named this time.
    let named = stage.options("state-2", Some(origin.listen_address()));
    let second = host.launch(stage.image.clone(), named).await.unwrap();
    assert_eq!(read(&second).await.len(), LENGTH);
    assert!(second.stats().peers <= 3);
    in_time("the end of the oldest stranger", closed(&mut strangers[0])).await;
    second.shutdown().await.unwrap();
    appliance.shutdown().await.unwrap();
    seed.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_connected_to_us_and_was_lost_is_dialled() {
    let stage = Stage::new("lost");
    let origin = stage.session("origin", 200).await;
    let seed = origin
        .seed(stage.image.clone(), stage.path())
        .await
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut stream = stage.peer(origin.listen_address(), 7, port).await;
    // What the seed says first tells that it has taken us for a peer; our own greeting went before.
    in_time("the seed's first message", stream.read_u32())
        .await
        .unwrap();
    drop(stream);
    for _ in 0..2 {
        let (mut dialled, _) = in_time("a call", listener.accept()).await.unwrap();
        let mut handshake = [0; 68];
        in_time("its handshake", dialled.read_exact(&mut handshake))
            .await
            .unwrap();
        assert_eq!(handshake[28..48], stage.image.info_hash().0);
    }
    seed.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_relaunch_finds_the_peers_of_the_last_run_without_any_tracker() {
    let stage = Stage::new("remembered");
    let origin = stage.session("origin", 200).await;
    let seed = origin
        .seed(stage.image.clone(), stage.path())
        .await
        .unwrap();
    let entry = stage
        .path()
        .join("host/cache")
        .join(stage.image.info_hash().to_string());

    // The seed dials the host, for nobody tells the host of the seed; so it is no named peer there.
    let host = stage.session("host", 200).await;
    let first = host
        .launch(stage.image.clone(), stage.options("state", None))
        .await
        .unwrap();
    let helper = stage.session("helper", 200).await;
    let helping = helper
        .launch(
            stage.image.clone(),
            stage.options("helper-state", Some(host.listen_address())),
        )
        .await
        .unwrap();
    let connected = async {
        while first.stats().peers == 0 {
            tokio::task::yield_now().await;
        }
    };
    in_time("the helper", connected).await;
    // The helper listens, and says where.
    let noted = async {
        let expected = format!("{}\n", helper.listen_address());
        loop {
            match std::fs::read_to_string(entry.join("peers")) {
                Ok(text) if text == expected => return,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    in_time("the note", noted).await;
    first.shutdown().await.unwrap();
    host.shutdown().await.unwrap();

    // The helper has the image by now. It does not dial us either: we listen elsewhere.
    let feed = stage.options("feed-state", Some(origin.listen_address()));
    let feeding = helper.launch(stage.image.clone(), feed).await.unwrap();
    read(&feeding).await;
    let again = stage.session("host", 200).await;
    assert_ne!(again.listen_address(), helper.listen_address());
    let second = again
        .launch(stage.image.clone(), stage.options("state", None))
        .await
        .unwrap();
    assert_eq!(read(&second).await.len(), LENGTH);
    second.shutdown().await.unwrap();
    feeding.shutdown().await.unwrap();
    helping.shutdown().await.unwrap();
    seed.shutdown().await.unwrap();
}
