//! Blocks in compressed form, through the real command: what they save on the wire, and who gets plain ones.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use vmtorrent_tests::clients::{Client, Job, Librqbit, Libtorrent};
use vmtorrent_tests::scripted_peer::{
    BLOCK, Block, Connection, Message, parse_address, parse_info_hash,
};
use vmtorrent_tests::{
    Daemon, Host, Network, Random, assert_same, fuse, number, publish, seed, seed_on,
};

const PATIENCE: Duration = Duration::from_secs(90);
const LENGTH: usize = (6 << 20) + 1234;
/// So slow that the line is what is waited for.
const LIMIT: &str = "2M";

/// What compresses about as far as a VM's image: words of a language with few of them.
fn text(length: usize) -> Vec<u8> {
    let mut random = Random::new(5);
    let words: Vec<Vec<u8>> = (0..150)
        .map(|_| {
            let length = 6 + random.below(8) as usize;
            random.bytes(length)
        })
        .collect();
    let mut text = Vec::with_capacity(length + 16);
    while text.len() < length {
        text.extend_from_slice(&words[random.below(words.len() as u64) as usize]);
    }
    text.truncate(length);
    text
}

/// A published image.
struct Scene {
    dir: TempDir,
    content: Vec<u8>,
}

impl Scene {
    fn new(content: Vec<u8>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let published = dir.path().join("published");
        std::fs::create_dir(&published).unwrap();
        std::fs::write(published.join("disk.img"), &content).unwrap();
        let scene = Self { dir, content };
        publish(&published.join("disk.img"), &scene.torrent(), &[]);
        scene
    }

    fn published(&self) -> PathBuf {
        self.dir.path().join("published")
    }

    fn torrent(&self) -> PathBuf {
        self.dir.path().join("disk.torrent")
    }

    fn seed(&self, options: &[&str]) -> Daemon {
        let options = [&["--upload-limit", LIMIT], options].concat();
        seed(&self.torrent(), &self.published(), &options)
    }

    /// Fetches all of it of a seed and compares it; what it and the seed say at the end.
    fn fetch(
        &self,
        name: &str,
        at_seed: &[&str],
        at_launch: Option<&str>,
    ) -> [serde_json::Value; 2] {
        let source = self.seed(at_seed);
        let host = Host::new(self.dir.path(), name);
        let mut launch = host.launch(&self.torrent());
        if let Some(compression) = at_launch {
            launch = launch.option("--compression", compression);
        }
        let launch = launch.peer(&source.listen()).fill("full").start();
        wait_complete(&launch);
        assert_same(&host.mount().join("disk.img"), &self.content, name);
        let done = launch.stop();
        assert_eq!(number(&done, "fetched_bytes"), LENGTH as u64, "{done}");
        [done, source.stop()]
    }
}

fn wait_complete(daemon: &Daemon) {
    daemon.wait_for("all of the image", PATIENCE, |event| {
        event["event"] == "progress" && event["present_bytes"] == event["image_bytes"]
    });
}

#[test]
fn an_image_that_compresses_takes_less_on_the_wire() {
    if !fuse() {
        return;
    }
    let scene = Scene::new(text(LENGTH));
    let [done, source] = scene.fetch("host", &[], None);
    let wire = number(&done, "fetched_wire_bytes");
    assert!((wire as f64) < 0.6 * LENGTH as f64, "{done}");
    assert_eq!(number(&source, "uploaded_wire_bytes"), wire, "{source}");
    assert_eq!(number(&source, "uploaded_bytes"), LENGTH as u64);
}

#[test]
fn nothing_is_compressed_where_either_side_has_it_off() {
    if !fuse() {
        return;
    }
    let scene = Scene::new(text(LENGTH));
    for (name, at_seed, at_launch) in [
        ("not-the-seed", &["--compression", "off"][..], None),
        ("not-the-launch", &[], Some("off")),
    ] {
        let [done, source] = scene.fetch(name, at_seed, at_launch);
        let wire = number(&done, "fetched_wire_bytes");
        assert_eq!(wire, LENGTH as u64, "{name}: {done}");
        assert_eq!(number(&source, "uploaded_wire_bytes"), wire, "{source}");
    }
}

#[test]
fn an_image_of_noise_goes_plain() {
    if !fuse() {
        return;
    }
    let scene = Scene::new(Random::new(9).bytes(LENGTH));
    let [done, source] = scene.fetch("host", &[], None);
    assert_eq!(number(&done, "fetched_wire_bytes"), LENGTH as u64, "{done}");
    assert_eq!(number(&source, "uploaded_wire_bytes"), LENGTH as u64);
}

/// Asks a seed for one block, and gives the message that answers.
fn ask(seed: &Daemon, number: u32, hello: Option<&[u8]>, block: Block) -> Message {
    let info_hash = seed.wait_event("ready")["info_hash"].clone();
    let info_hash = parse_info_hash(info_hash.as_str().unwrap());
    let to = parse_address(&seed.listen());
    let mut connection = Connection::greet(to, info_hash, number).unwrap();
    if let Some(hello) = hello {
        let payload = [&[0], hello].concat();
        connection.send(&Message::Other(20, payload)).unwrap();
    }
    connection.send(&Message::Request(block)).unwrap();
    let answer = |m: &Message| match m {
        Message::Piece(..) => true,
        Message::Other(20, payload) => payload[0] != 0,
        _ => false,
    };
    connection.receive_until(answer).unwrap()
}

#[test]
fn only_who_announces_it_gets_compressed_blocks_and_under_its_own_number() {
    let scene = Scene::new(text(LENGTH));
    let seed = scene.seed(&[]);
    let block = Block::nth(1, 2);
    let start = block.piece as usize * vmtorrent_tests::PIECE + block.begin as usize;
    let plain = &scene.content[start..start + BLOCK as usize];
    let piece = Message::Piece(block.piece, block.begin, plain.to_vec());
    for (number, hello) in [
        (1, None),
        (2, Some(&b"de"[..])),
        (3, Some(b"d1:md11:vmt_profilei2eee")),
        (4, Some(b"d1:md8:vmt_zstdi0eee")),
    ] {
        assert_eq!(ask(&seed, number, hello, block), piece, "{number}");
    }
    let hello = b"d1:md8:vmt_zstdi200eee";
    // The second time it comes from memory.
    for number in [5, 6] {
        let Message::Other(20, payload) = ask(&seed, number, Some(hello), block) else {
            panic!("it is sent plain");
        };
        let numbers = [block.piece, block.begin, block.length].map(u32::to_be_bytes);
        let head = [&[200, 0][..], &numbers.concat()].concat();
        assert_eq!(payload[..14], head);
        let mut found = vec![0; BLOCK as usize];
        let length = zstd_safe::decompress(&mut found[..], &payload[14..]).unwrap();
        assert_eq!(length, BLOCK as usize);
        assert!(found == plain);
        assert!(payload.len() < plain.len() * 6 / 10, "{}", payload.len());
    }
    seed.stop();
}

#[test]
fn libtorrent_does_not_know_it_and_gives_and_gets_plain_blocks() {
    gives_and_gets_plain_blocks(&Libtorrent);
}

#[test]
fn librqbit_does_not_know_it_and_gives_and_gets_plain_blocks() {
    gives_and_gets_plain_blocks(&Librqbit);
}

fn gives_and_gets_plain_blocks(client: &dyn Client) {
    if !client.is_here() || !fuse() {
        return;
    }
    let Some(network) = Network::new() else {
        return;
    };
    let scene = Scene::new(text(LENGTH));
    let directory = |name: &str| {
        let directory = scene.dir.path().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        directory
    };
    let torrent = scene.torrent();
    let sources: [&Path; 1] = [&torrent];

    // It from us.
    let source = seed_on(&network.host(), &torrent, &scene.published(), &[]);
    let copies = directory("copies");
    let mut job = Job::new(&sources, &copies, &directory("state"));
    job.peers.push(source.listen());
    let peer = client.start(&network.host(), &job);
    peer.wait_complete();
    peer.stop();
    assert_same(&copies.join("disk.img"), &scene.content, client.name());
    let source = source.stop();
    let sent = number(&source, "uploaded_bytes");
    assert!(sent >= LENGTH as u64, "{source}");
    assert_eq!(number(&source, "uploaded_wire_bytes"), sent, "{source}");

    // And we from it.
    let job = Job::new(&sources, &scene.published(), &directory("state-2"));
    let peer = client.start(&network.host(), &job);
    peer.wait_complete();
    let host = Host::new(scene.dir.path(), "host");
    let launch = host.launch_on(&network.host(), &torrent);
    let launch = launch.peer(peer.listen()).fill("full").start();
    wait_complete(&launch);
    assert_same(&host.mount().join("disk.img"), &scene.content, "our mount");
    let done = launch.stop();
    assert_eq!(number(&done, "fetched_wire_bytes"), LENGTH as u64, "{done}");
    peer.stop();
}
