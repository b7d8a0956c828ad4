//! Magnet links over real sockets on loopback: an image's description comes from peers, among them hostile ones.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vmtorrent::image::{Image, Magnet, PublishOptions, Source};
use vmtorrent::{ApplianceOptions, Error, ErrorKind, Fill, Session, SessionOptions, State};

use self::common::loopback;

const PIECE: usize = 16 << 10;
/// The number under which the scripted peers take ut_metadata.
const THEIRS: u8 = 9;

async fn session(cache: &Path) -> Session {
    session_with(cache, Some(Duration::from_secs(60))).await
}

async fn session_with(cache: &Path, metadata_timeout: Option<Duration>) -> Session {
    let options = SessionOptions {
        listen: loopback(),
        cache: Some(cache.to_owned()),
        // Only those whom a link names are asked.
        local_discovery: false,
        metadata_timeout,
        ..SessionOptions::default()
    };
    Session::start(options).await.unwrap()
}

/// Random bytes that begin with `mark`, so that each test has an image of its own.
fn content(length: usize, mark: u8) -> Vec<u8> {
    let mut data = common::random(length, 0x2545_f491_4f6c_dd1d);
    data[0] = mark;
    data
}

/// An image in the smallest pieces, so that its info dictionary is long: 20 bytes for each.
fn published(directory: &Path, data: &[u8]) -> Image {
    let options = PublishOptions {
        piece_size: Some(16 << 10),
        ..PublishOptions::default()
    };
    common::published(directory, data, &options)
}

fn link(image: &Image, peers: &[SocketAddr]) -> Source {
    let mut magnet = Magnet::new(image.info_hash());
    peers.iter().for_each(|peer| magnet.add_peer(*peer));
    magnet.into()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    /// Answers everything.
    Honest,
    /// Has no metadata.
    Without,
    /// Claims 2 GiB.
    Huge,
    /// The right length, but garbage.
    Garbage,
    /// One piece of it is garbage.
    SpoilsOne,
    /// Shakes hands, and then says nothing.
    Mute,
    /// Says what it has, and answers nothing.
    Silent,
    /// Sends pieces that nobody asked for, without end.
    Floods,
    /// Hello of nested lists.
    Nested,
}

/// A peer with a codec of its own, so that a mistake is not shared with the one under test.
#[derive(Clone, Debug)]
struct Scripted {
    image: Image,
    script: Script,
}

impl Scripted {
    /// Listens for as long as the process lives.
    fn listen(image: &Image, script: Script) -> SocketAddr {
        let listener = TcpListener::bind(loopback()).unwrap();
        let address = listener.local_addr().unwrap();
        let peer = Self {
            image: image.clone(),
            script,
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let peer = peer.clone();
                // It ends when the other side hangs up.
                std::thread::spawn(move || peer.talk(stream, false));
            }
        });
        address
    }

    fn handshake(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let id: [u8; 20] = std::array::from_fn(|n| self.script as u8 * 20 + n as u8);
        let hash = self.image.info_hash().0;
        let reserved = [0, 0, 0, 0, 0, 0x10, 0, 0];
        stream.write_all(&[&b"\x13BitTorrent protocol"[..], &reserved, &hash, &id].concat())
    }

    /// `calls`: it has connected to us, and speaks first.
    fn talk(&self, mut stream: TcpStream, calls: bool) -> Option<()> {
        if calls {
            self.handshake(&mut stream).ok()?;
        }
        stream.read_exact(&mut [0; 68]).ok()?;
        if !calls {
            self.handshake(&mut stream).ok()?;
        }
        let info = self.image.info_bytes().to_vec();
        let size = match self.script {
            Script::Huge => 2 << 30,
            _ => info.len(),
        };
        let hello = match self.script {
            Script::Mute => None,
            Script::Without => Some(b"d1:md11:ut_metadatai9eee".to_vec()),
            Script::Nested => Some(vec![b'l'; 900_000]),
            _ => Some(
                format!("d1:md11:ut_metadatai{THEIRS}ee13:metadata_sizei{size}ee").into_bytes(),
            ),
        };
        if let Some(hello) = hello {
            extended(&mut stream, 0, &hello)?;
        }
        // What other peers say beside: HAVE, unchoke, an unknown message.
        stream
            .write_all(&[0, 0, 0, 5, 4, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 200])
            .ok()?;
        let mut ours = 0;
        loop {
            let mut length = [0; 4];
            stream.read_exact(&mut length).ok()?;
            let mut message = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut message).ok()?;
            match message.get(..2) {
                Some([20, 0]) => ours = number_after(&message, "11:ut_metadatai")? as u8,
                Some([20, THEIRS]) => {
                    assert_eq!(number_after(&message, "8:msg_typei"), Some(0));
                    let piece = number_after(&message, "5:piecei")?;
                    if self.script == Script::Floods {
                        for piece in 0.. {
                            answer(&mut stream, ours, piece, &info, &[0; PIECE])?;
                        }
                    }
                    if self.script != Script::Silent {
                        let end = info.len().min((piece + 1) * PIECE);
                        let mut data = info[piece * PIECE..end].to_vec();
                        let spoilt = self.script == Script::SpoilsOne && piece == 1;
                        if self.script == Script::Garbage || spoilt {
                            data.fill(b'x');
                        }
                        answer(&mut stream, ours, piece, &info, &data)?;
                    }
                }
                _ => {}
            }
        }
    }
}

fn answer(stream: &mut TcpStream, id: u8, piece: usize, info: &[u8], data: &[u8]) -> Option<()> {
    let head = format!(
        "d8:msg_typei1e5:piecei{piece}e10:total_sizei{}ee",
        info.len()
    );
    extended(stream, id, &[head.as_bytes(), data].concat())
}

fn extended(stream: &mut TcpStream, id: u8, payload: &[u8]) -> Option<()> {
    let length = (payload.len() as u32 + 2).to_be_bytes();
    stream
        .write_all(&[&length[..], &[20, id], payload].concat())
        .ok()
}

fn number_after(message: &[u8], key: &str) -> Option<usize> {
    let at = message
        .windows(key.len())
        .position(|w| w == key.as_bytes())?;
    let digits = message[at + key.len()..]
        .iter()
        .take_while(|b| b.is_ascii_digit());
    String::from_utf8(digits.copied().collect())
        .ok()?
        .parse()
        .ok()
}

fn assert_is(found: &Image, image: &Image) {
    assert_eq!(found.info_hash(), image.info_hash());
    assert!(found.info_bytes() == image.info_bytes());
}

async fn first_bytes(session: &Session, image: Image, state: &Path) -> Vec<u8> {
    let options = ApplianceOptions {
        state: State::Directory(state.to_owned()),
        fill: Fill::None,
        read_timeout: Some(Duration::from_secs(30)),
        ..ApplianceOptions::default()
    };
    let appliance = session.launch(image, options).await.unwrap();
    let bytes = appliance.read_at(0, 0, 5000).await.unwrap().to_vec();
    appliance.shutdown().await.unwrap();
    bytes
}

#[tokio::test]
async fn an_image_is_launched_by_its_link_and_later_without_any_peer() {
    let scratch = tempfile::tempdir().unwrap();
    let data = content(5 << 20, 1);
    let image = published(scratch.path(), &data);
    let origin = session(&scratch.path().join("unused")).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();

    let cache = scratch.path().join("cache");
    let host = session(&cache).await;
    let source = link(&image, &[origin.listen_address()]);
    let found = host.load(&source).await.unwrap();
    assert_is(&found, &image);
    assert_eq!(found.peers(), [origin.listen_address()]);
    // Nobody names the seed again: the image leads there.
    let state = scratch.path().join("state");
    assert!(first_bytes(&host, found, &state).await == data[..5000]);
    host.shutdown().await.unwrap();
    seed.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();

    let later = session(&cache).await;
    let found = later.load(&link(&image, &[])).await.unwrap();
    assert_is(&found, &image);
    assert!(first_bytes(&later, found, &state).await == data[..5000]);
    later.shutdown().await.unwrap();

    // What lies in the cache is believed only if it is the image.
    let stored = cache
        .join(image.info_hash().to_string())
        .join("image.torrent");
    let mut bytes = std::fs::read(&stored).unwrap();
    let last = bytes.len() - 100;
    bytes[last] ^= 1;
    std::fs::write(&stored, bytes).unwrap();
    let later = session(&cache).await;
    let refused = later.load(&link(&image, &[])).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(refused.to_string().contains("leads to nobody"), "{refused}");
}

/// A tracker that knows one peer, and notes the `event` of each announce.
fn scripted_tracker(peer: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    let events: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = events.clone();
    let mut body = b"d8:intervali60e5:peers6:\x7f\0\0\x01".to_vec();
    body.extend_from_slice(&peer.port().to_be_bytes());
    body.push(b'e');
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte) {
                    Ok(1) => request.push(byte[0]),
                    _ => break,
                }
            }
            let line = String::from_utf8_lossy(&request).into_owned();
            let event = line
                .split(['?', '&', ' '])
                .find_map(|p| p.strip_prefix("event="));
            noted
                .lock()
                .unwrap()
                .push(event.unwrap_or("none").to_owned());
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    (address, events)
}

#[tokio::test]
async fn a_links_tracker_finds_peers_and_sees_one_start_and_one_end() {
    let scratch = tempfile::tempdir().unwrap();
    let data = content(5 << 20, 2);
    let image = published(scratch.path(), &data);
    let origin = session(&scratch.path().join("unused")).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();

    for launched in [true, false] {
        let (tracker, events) = scripted_tracker(origin.listen_address());
        let mut magnet = image.magnet();
        magnet.add_tracker(format!("http://{tracker}/announce").parse().unwrap());
        let host = session(&scratch.path().join(format!("cache-{launched}"))).await;
        let found = host.load(&magnet.clone().into()).await.unwrap();
        assert_is(&found, &image);
        assert_eq!(found.trackers().concat(), magnet.trackers());
        if launched {
            let state = scratch.path().join("state");
            assert!(first_bytes(&host, found, &state).await == data[..5000]);
        }
        host.shutdown().await.unwrap();
        let mut told = events.lock().unwrap().clone();
        told.retain(|event| event != "none");
        assert_eq!(told, ["started", "stopped"], "launched: {launched}");
    }
    seed.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
}

#[tokio::test]
async fn hostile_peers_beside_a_seed_do_not_keep_the_description_away() {
    let scratch = tempfile::tempdir().unwrap();
    let image = published(scratch.path(), &content(40 << 20, 3));
    assert!(image.info_bytes().len() > 3 * PIECE);
    let origin = session(&scratch.path().join("unused")).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();
    for script in [
        Script::Without,
        Script::Huge,
        Script::Garbage,
        Script::SpoilsOne,
        Script::Mute,
        Script::Silent,
        Script::Floods,
        Script::Nested,
    ] {
        let bad = Scripted::listen(&image, script);
        let host = session(&scratch.path().join("cache")).await;
        let source = link(&image, &[bad, origin.listen_address()]);
        let found = host.load(&source).await;
        assert_is(&found.unwrap_or_else(|e| panic!("{script:?}: {e}")), &image);
        host.shutdown().await.unwrap();
    }
    // All at once, some of them several times.
    let all = [
        Script::Garbage,
        Script::SpoilsOne,
        Script::Garbage,
        Script::Silent,
        Script::Mute,
        Script::Floods,
        Script::SpoilsOne,
    ];
    let mut peers: Vec<SocketAddr> = all.map(|s| Scripted::listen(&image, s)).into();
    peers.push(origin.listen_address());
    let host = session(&scratch.path().join("cache")).await;
    assert_is(&host.load(&link(&image, &peers)).await.unwrap(), &image);
    host.shutdown().await.unwrap();
    seed.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_connects_to_us_may_give_the_description() {
    let scratch = tempfile::tempdir().unwrap();
    let image = published(scratch.path(), &content(20 << 20, 4));
    let host = session(&scratch.path().join("cache")).await;
    // Somebody has to be asked: one that never answers.
    let mute = Scripted::listen(&image, Script::Mute);
    let address = host.listen_address();
    let caller = Scripted {
        image: image.clone(),
        script: Script::Honest,
    };
    // Before the search begins it is turned away: it calls until it is let in.
    std::thread::spawn(move || {
        while let Ok(stream) = TcpStream::connect(address) {
            caller.talk(stream, true);
        }
    });
    assert_is(&host.load(&link(&image, &[mute])).await.unwrap(), &image);
    host.shutdown().await.unwrap();
}

async fn failure(image: &Image, peers: &[SocketAddr]) -> Error {
    let scratch = tempfile::tempdir().unwrap();
    let host = session_with(scratch.path(), Some(Duration::from_secs(4))).await;
    let failed = host.load(&link(image, peers)).await.unwrap_err();
    host.shutdown().await.unwrap();
    failed
}

#[tokio::test]
async fn a_search_that_fails_tells_what_was_tried_and_what_to_do() {
    let scratch = tempfile::tempdir().unwrap();
    let image = published(scratch.path(), &content(1 << 20, 5));
    let without = [(); 2].map(|()| Scripted::listen(&image, Script::Without));
    let garbage = Scripted::listen(&image, Script::Garbage);
    // Nobody listens there any more.
    let gone = TcpListener::bind(loopback()).unwrap().local_addr().unwrap();

    let e = failure(&image, &without[..1]).await;
    assert_eq!(e.kind(), ErrorKind::TimedOut);
    let text = e.to_string();
    assert!(
        text.contains("1 of 1 peers answered, 1 had no metadata"),
        "{text}"
    );
    assert!(text.contains("option `peer`"), "{text}");
    assert!(text.contains(&image.info_hash().to_string()), "{text}");

    let text = failure(&image, &[without[1], garbage, gone])
        .await
        .to_string();
    let told = "2 of 3 peers answered, 1 had no metadata, 1 sent wrong data";
    assert!(text.contains(told), "{text}");

    let e = failure(&image, &[]).await;
    assert_eq!(e.kind(), ErrorKind::InvalidInput);
    assert!(e.to_string().contains("leads to nobody"), "{e}");
}
