use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::appliance::ApplianceParts;
use crate::image::{PublishOptions, publish};
use crate::options::{Fill, State};

/// Far less than a silent stranger may take, far more than anything here needs.
const SOON: Duration = Duration::from_secs(8);

async fn session(cache: &Path) -> Session {
    let options = SessionOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        cache: Some(cache.to_owned()),
        local_discovery: false,
        ..SessionOptions::default()
    };
    Session::start(options).await.unwrap()
}

fn published(path: &Path, seed: u8) -> Image {
    let mut data: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    data[0] = seed;
    std::fs::write(path, data).unwrap();
    publish(path, &PublishOptions::default()).unwrap().image
}

fn options(state: &Path, session: &Session) -> ApplianceOptions {
    ApplianceOptions {
        state: State::Directory(state.to_owned()),
        peers: vec![session.listen_address()],
        fill: Fill::None,
        read_timeout: Some(Duration::from_secs(30)),
        ..ApplianceOptions::default()
    }
}

#[tokio::test]
async fn a_machine_that_is_being_launched_keeps_the_swarm_when_the_last_other_one_goes() {
    let scratch = tempfile::tempdir().unwrap();
    let image = published(&scratch.path().join("disk.img"), 7);
    let origin = session(&scratch.path().join("unused")).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();
    let host = session(&scratch.path().join("cache")).await;
    let first = host
        .launch(image.clone(), options(&scratch.path().join("a"), &origin))
        .await
        .unwrap();

    // What a launch does, with the other machine's end where it hurts most.
    let options = options(&scratch.path().join("b"), &origin);
    let image = Arc::new(image);
    let state = host.shared.open_state(&image, &options).await.unwrap();
    let joined = host.shared.join_cached(image, Fill::None).await.unwrap();
    first.shutdown().await.unwrap();
    let parts = ApplianceParts {
        session: host.shared.clone(),
        member: joined,
        state,
        options,
        profile: None,
        kept: None,
    };
    let second = Appliance::start(parts).await.unwrap();
    assert_eq!(second.read_at(0, 0, 2).await.unwrap()[..], [7, 1]);
    second.shutdown().await.unwrap();
    seed.shutdown().await.unwrap();
    host.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
}

/// A stranger that connected, was accepted, and says nothing.
async fn silent_stranger(session: &Session) -> TcpStream {
    let address = session.listen_address();
    let silent = TcpStream::connect(address).await.unwrap();
    // Connections are accepted in their order, and nonsense is answered with the end of the connection.
    let mut other = TcpStream::connect(address).await.unwrap();
    other.write_all(&[b'x'; 68]).await.unwrap();
    assert!(ends(&mut other).await);
    silent
}

/// Whether the other side ends the connection soon.
async fn ends(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    match tokio::time::timeout(SOON, stream.read(&mut byte)).await {
        Ok(Ok(0) | Err(_)) => true,
        Ok(Ok(_)) | Err(_) => false,
    }
}

#[tokio::test]
async fn after_a_shutdown_the_port_is_free_and_nobody_is_at_the_door() {
    let scratch = tempfile::tempdir().unwrap();
    let session = session(scratch.path()).await;
    let mut stranger = silent_stranger(&session).await;
    let address = session.listen_address();
    // Somebody else holds on to the session.
    let kept = session.clone();
    session.shutdown().await.unwrap();
    assert!(ends(&mut stranger).await);
    std::net::TcpListener::bind(address).unwrap();
    drop(kept);
}

#[tokio::test]
async fn a_silent_stranger_does_not_keep_a_session_alive() {
    let scratch = tempfile::tempdir().unwrap();
    let session = session(scratch.path()).await;
    let mut stranger = silent_stranger(&session).await;
    let shared = Arc::downgrade(&session.shared);
    drop(session);
    assert!(ends(&mut stranger).await);
    assert!(shared.upgrade().is_none());
}

#[tokio::test]
async fn an_image_does_not_wait_for_the_end_of_another() {
    let scratch = tempfile::tempdir().unwrap();
    let (one, two) = (
        published(&scratch.path().join("one.img"), 1),
        published(&scratch.path().join("two.img"), 2),
    );
    let session = session(&scratch.path().join("cache")).await;
    // As `release` does while it says good-bye.
    let _ending = session.shared.opening(one.info_hash()).await;
    let seeding = session.seed(two.clone(), scratch.path());
    let seed = tokio::time::timeout(SOON, seeding).await.unwrap().unwrap();
    let again = session.shared.opening(one.info_hash());
    let waits = tokio::time::timeout(Duration::from_millis(20), again).await;
    assert!(waits.is_err(), "two may open one image at once");
    seed.shutdown().await.unwrap();
    // What nobody holds is forgotten at the next occasion.
    let _third = session.shared.opening(InfoHash([3; 20])).await;
    assert_eq!(session.shared.opening.lock().len(), 2);
    session.shutdown().await.unwrap();
}

/// The handshake of a peer with that id that knows extensions (BEP 3, 10).
fn handshake(image: &Image, peer_id: [u8; 20]) -> Vec<u8> {
    let mut bytes = b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\0".to_vec();
    bytes.extend(image.info_hash().0);
    bytes.extend(peer_id);
    bytes
}

#[tokio::test]
async fn a_peer_that_comes_over_both_families_is_connected_once() {
    let scratch = tempfile::tempdir().unwrap();
    let image = published(&scratch.path().join("disk.img"), 7);
    let both_families = SessionOptions {
        listen: (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
        cache: Some(scratch.path().join("cache")),
        local_discovery: false,
        dht: false,
        ..SessionOptions::default()
    };
    let session = match Session::start(both_families).await {
        Ok(session) => session,
        Err(error) => {
            eprintln!("skipped: this machine has no IPv6: {error}");
            return;
        }
    };
    let theirs = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let state = ApplianceOptions {
        state: State::Ephemeral,
        peers: vec![theirs.local_addr().unwrap()],
        fill: Fill::None,
        ..ApplianceOptions::default()
    };
    let appliance = session.launch(image.clone(), state).await.unwrap();
    let (mut dialled, _) = theirs.accept().await.unwrap();
    // The greater id decides: the connection that its owner opened stays.
    dialled
        .write_all(&handshake(&image, [0xff; 20]))
        .await
        .unwrap();
    // Behind the handshake comes what is said to a peer that is in.
    let mut bytes = [0; 69];
    dialled.read_exact(&mut bytes).await.unwrap();

    let port = session.listen_address().port();
    let mut opened = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    opened
        .write_all(&handshake(&image, [0xff; 20]))
        .await
        .unwrap();
    opened.read_exact(&mut bytes).await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(SOON, dialled.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "both connections stay");
    assert_eq!(appliance.stats().peers, 1);
    appliance.shutdown().await.unwrap();
    session.shutdown().await.unwrap();
}

#[tokio::test]
async fn machines_that_have_ended_leave_nothing_behind_while_another_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let image = published(&scratch.path().join("disk.img"), 7);
    let session = session(&scratch.path().join("cache")).await;
    let machine = || ApplianceOptions {
        state: State::Ephemeral,
        fill: Fill::None,
        ..ApplianceOptions::default()
    };
    let lasting = session.launch(image.clone(), machine()).await.unwrap();
    for _ in 0..5 {
        let other = session.launch(image.clone(), machine()).await.unwrap();
        other.shutdown().await.unwrap();
    }
    // The last one that ended is forgotten at the next launch, or when somebody looks.
    assert!(session.shared.appliances.lock().len() <= 2);
    let torrent = session.shared.torrent(image.info_hash()).unwrap();
    let one_listens = async {
        while torrent.events().receiver_count() > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, one_listens).await.unwrap();
    drop(torrent);
    lasting.shutdown().await.unwrap();
    session.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_lost_all_others_asks_its_tracker_before_the_interval_is_over() {
    let scratch = tempfile::tempdir().unwrap();
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tracker = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = scratch.path().join("disk.img");
    std::fs::write(&path, vec![7; 100_000]).unwrap();
    let publishing = PublishOptions {
        trackers: vec![format!("http://{}/announce", tracker.local_addr().unwrap())],
        ..PublishOptions::default()
    };
    let image = publish(&path, &publishing).unwrap().image;
    let port = other.local_addr().unwrap().port();
    // Somebody is named, so that the peer is not lonely by the tracker's account.
    let mut body = b"d8:intervali1800e12:min intervali1e5:peers6:\x7f\0\0\x01".to_vec();
    body.extend(port.to_be_bytes());
    body.push(b'e');
    let (told, mut asked) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tracker.accept().await.unwrap();
            let mut request = vec![0; 4_096];
            let _ = stream.read(&mut request).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let answer = [head.as_bytes(), &body].concat();
            let _ = stream.write_all(&answer).await;
            let _ = told.send(());
        }
    });
    let session = session(&scratch.path().join("cache")).await;
    let options = ApplianceOptions {
        state: State::Ephemeral,
        fill: Fill::None,
        ..ApplianceOptions::default()
    };
    let appliance = session.launch(image.clone(), options).await.unwrap();
    asked.recv().await.unwrap();
    let (mut stream, _) = other.accept().await.unwrap();
    drop(other);
    stream
        .write_all(&handshake(&image, [0xff; 20]))
        .await
        .unwrap();
    stream.read_exact(&mut [0; 69]).await.unwrap();
    drop(stream);
    let again = tokio::time::timeout(SOON, asked.recv()).await;
    assert!(again.is_ok(), "it waits for the interval");
    appliance.shutdown().await.unwrap();
    session.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_tracker_of_a_session_tracks_what_the_session_runs_and_nothing_else() {
    let scratch = tempfile::tempdir().unwrap();
    let (before, after) = (
        published(&scratch.path().join("before.img"), 1),
        published(&scratch.path().join("after.img"), 2),
    );
    let session = session(&scratch.path().join("cache")).await;
    let seeds = [
        session.seed(before.clone(), scratch.path()).await.unwrap(),
        {
            session
                .serve_tracker(([127, 0, 0, 1], 0).into())
                .await
                .unwrap();
            session.seed(after.clone(), scratch.path()).await.unwrap()
        },
    ];
    let tracker = session
        .shared
        .own_tracker
        .lock()
        .as_ref()
        .unwrap()
        .0
        .clone();
    let announce = async |image: &str| {
        let query = format!("info_hash={image}&peer_id=-XX0000-000000000001&port=1&left=1");
        let mut url = tracker.clone();
        url.set_query(Some(&query));
        let http = HttpClient::new().unwrap();
        let answer = http.get_directly(url, 10_000, SOON).await.unwrap();
        String::from_utf8_lossy(&answer.body).into_owned()
    };
    for image in [&before, &after] {
        let escaped: String = image
            .info_hash()
            .0
            .iter()
            .map(|b| format!("%{b:02x}"))
            .collect();
        assert!(announce(&escaped).await.contains("8:interval"));
    }
    let unknown = "%07".repeat(20);
    assert!(announce(&unknown).await.contains("failure reason"));
    for seed in seeds {
        seed.shutdown().await.unwrap();
    }
    session.shutdown().await.unwrap();
}
