//! Peers find each other without a tracker (BEP 5), in closed networks: nothing here reaches a public node.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use vmtorrent_tests::clients::{Client, Job, Libtorrent};
use vmtorrent_tests::scripted_peer::{
    Connection, Message, handshake, parse_address, parse_info_hash, peer_id,
};
use vmtorrent_tests::{
    Daemon, Host, Network, Node, Reference, assert_same, fuse, publish, seed, seed_on,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A network with a node of the DHT that the others begin with, and an image.
struct Scene {
    dir: TempDir,
    network: Network,
    image: Reference,
}

impl Scene {
    fn new(seed: u64) -> Option<Self> {
        let network = Network::new().filter(|_| fuse())?;
        let dir = tempfile::tempdir().unwrap();
        let image = Reference::new((2 << 20) + 99, seed);
        image.write_to(&dir.path().join("disk.img"));
        Some(Self {
            dir,
            network,
            image,
        })
    }

    fn publish(&self, name: &str, options: &[&str]) -> PathBuf {
        let torrent = self.dir.path().join(format!("{name}.torrent"));
        publish(&self.dir.path().join("disk.img"), &torrent, options);
        torrent
    }

    /// A node that knows nobody: it serves another image than the tests look for.
    fn first(&self) -> Daemon {
        std::fs::write(self.dir.path().join("other.img"), [7; 70_000]).unwrap();
        let torrent = self.dir.path().join("other.torrent");
        publish(&self.dir.path().join("other.img"), &torrent, &[]);
        let node = self.network.host();
        self.seed(&node, &torrent, &node.at(1))
    }

    fn seed(&self, node: &Node, torrent: &Path, first: &str) -> Daemon {
        seed_on(node, torrent, self.dir.path(), &["--dht-bootstrap", first])
    }

    fn launch(&self, host: &Host, source: &Path, first: &str) -> Daemon {
        let launch = host.launch_on(&self.network.host(), source).fill("none");
        launch.option("--dht-bootstrap", first).discovery().start()
    }
}

/// A link that names the image and nobody who has it.
fn bare_link(seed: &Daemon) -> PathBuf {
    let ready: Value = seed.wait_event("ready");
    format!(
        "magnet:?xt=urn:btih:{}",
        ready["info_hash"].as_str().unwrap()
    )
    .into()
}

#[test]
fn a_launch_by_a_link_with_only_an_info_hash_finds_its_seed() {
    let Some(scene) = Scene::new(91) else {
        return;
    };
    let first = scene.first();
    let torrent = scene.publish("disk", &[]);
    let source = scene.seed(&scene.network.host(), &torrent, &first.listen());
    let host = Host::new(scene.dir.path(), "host");
    let launch = scene.launch(&host, &bare_link(&source), &first.listen());
    let when = "found in the DHT";
    assert_same(&host.mount().join("disk.img"), scene.image.bytes(), when);
    launch.stop();
    assert!(host.cache().join("dht-nodes").is_file());

    // The first node is not needed any more, nor its name.
    let second = scene.first();
    first.stop();
    let ready = source.wait_event("ready");
    let info_hash = ready["info_hash"].as_str().unwrap();
    std::fs::remove_dir_all(host.state()).unwrap();
    std::fs::remove_dir_all(host.cache().join(info_hash)).unwrap();
    let launch = host.launch_on(&scene.network.host(), &torrent).fill("none");
    let launch = launch
        .discovery()
        .env("VMTORRENT_DHT_BOOTSTRAP", "")
        .start();
    let when = "found by the nodes that were remembered";
    assert_same(&host.mount().join("disk.img"), scene.image.bytes(), when);
    // What is complete leaves its seed at once: that it was a peer once is told by what came.
    let done = launch.stop();
    assert!(done["fetched_bytes"].as_u64() > Some(0), "{done}");
    second.stop();
    source.stop();
}

#[test]
fn private_images_are_neither_announced_nor_looked_for() {
    let Some(scene) = Scene::new(92) else {
        return;
    };
    let first = scene.first();
    let torrents = ["private", "public"].map(|name| {
        let options: &[&str] = if name == "private" {
            &["--private"]
        } else {
            &[]
        };
        scene.publish(name, options)
    });
    let sources = torrents
        .each_ref()
        .map(|torrent| scene.seed(&scene.network.host(), torrent, &first.listen()));
    let hosts = ["private-host", "public-host"].map(|name| Host::new(scene.dir.path(), name));
    let launches = [0, 1].map(|n| {
        let launch = hosts[n].launch_on(&scene.network.host(), &torrents[n]);
        let launch = launch.fill("none").option("--read-timeout", "2");
        launch
            .option("--dht-bootstrap", first.listen())
            .discovery()
            .start()
    });
    launches[1].wait_for("the seed", PATIENCE, |event| {
        event["event"] == "progress" && event["peers"] == 1
    });
    // By then the private one would have been found as well.
    let read = std::fs::read(hosts[0].mount().join("disk.img"));
    assert!(read.is_err(), "a private image was found in the DHT");
    assert_eq!(launches[0].latest("progress")["peers"], 0);
    assert_eq!(launches[0].stderr().matches("found in the DHT").count(), 0);
    for launch in launches {
        launch.stop();
    }
    for source in sources {
        source.stop();
    }
    first.stop();
}

#[test]
fn a_launch_that_knows_no_node_joins_through_its_peer() {
    let Some(scene) = Scene::new(94) else {
        return;
    };
    let first = scene.first();
    let torrent = scene.publish("disk", &[]);
    // Nobody tells of peers but the DHT.
    let listen = first.listen();
    let options = ["--no-pex", "--dht-bootstrap", &listen];
    let data = scene.dir.path();
    let sources = [0, 1].map(|_| seed_on(&scene.network.host(), &torrent, data, &options));
    let host = Host::new(scene.dir.path(), "host");
    let launch = host.launch_on(&scene.network.host(), &torrent).fill("none");
    let launch = launch
        .peer(&sources[0].listen())
        .flag("--no-pex")
        .discovery()
        .env("VMTORRENT_DHT_BOOTSTRAP", "")
        .start();
    // One peer was named; its host's node leads to the other.
    launch.wait_for("both seeds", PATIENCE, |event| {
        event["event"] == "progress" && event["peers"] == 2
    });
    launch.stop();
    assert!(host.cache().join("dht-nodes").is_file());
    for source in sources {
        source.stop();
    }
    first.stop();
}

/// PORT (BEP 5).
const PORT: u8 = 9;

/// The bit in a seed's handshake that says it has a node, and the port that it tells a peer that has one too, if it does
/// before it lets the peer ask.
fn told_by(seed: &Daemon, patient: bool) -> (bool, Option<u16>) {
    let info_hash = seed.wait_event("ready")["info_hash"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut connection = Connection::dial(parse_address(&seed.listen())).unwrap();
    let mut ours = handshake(parse_info_hash(&info_hash), peer_id(1));
    ours[27] |= 1;
    connection.raw(&ours).unwrap();
    let theirs = connection.read_handshake().unwrap();
    let bit = theirs[27] & 1 != 0;
    loop {
        match connection.receive().unwrap() {
            Message::Other(PORT, port) => {
                return (bit, Some(u16::from_be_bytes(port.try_into().unwrap())));
            }
            Message::Unchoke if !patient => return (bit, None),
            _ => {}
        }
    }
}

#[test]
fn peers_are_told_of_our_node_unless_the_image_is_private_or_the_dht_is_off() {
    let dir = tempfile::tempdir().unwrap();
    let image = Reference::new(100_000, 95);
    image.write_to(&dir.path().join("disk.img"));
    let torrents = [&[][..], &["--private"]].map(|options| {
        let torrent = dir.path().join(format!("{}.torrent", options.len()));
        publish(&dir.path().join("disk.img"), &torrent, options);
        torrent
    });
    let nobody = ["--dht-bootstrap", "127.0.0.1:9"];
    let public = seed(&torrents[0], dir.path(), &nobody);
    let port = parse_address(&public.listen()).port();
    assert_eq!(told_by(&public, true), (true, Some(port)));
    let private = seed(&torrents[1], dir.path(), &nobody);
    assert_eq!(told_by(&private, false), (false, None));
    let off = seed(&torrents[0], dir.path(), &[]);
    assert_eq!(told_by(&off, false), (false, None));
    for seed in [public, private, off] {
        seed.stop();
    }
}

#[test]
fn libtorrent_and_we_are_nodes_of_one_network() {
    let Some(scene) = Scene::new(93) else {
        return;
    };
    if !Libtorrent.is_here() {
        return;
    }
    let other = scene.dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("other.img"), [7; 70_000]).unwrap();
    let other_torrent = scene.dir.path().join("other.torrent");
    publish(&other.join("other.img"), &other_torrent, &[]);
    let job = |source: &Path, images: &Path, first: &str| {
        let mut job = Job::new(&[source], images, images);
        job.dht = Some(first.to_owned());
        job
    };
    // A network of libtorrent alone, in which it holds what we announce.
    let routers: Vec<Node> = (0..3).map(|_| scene.network.host()).collect();
    let first = routers[0].at(6881);
    let routers: Vec<_> = routers
        .iter()
        .map(|node| Libtorrent.start(node, &job(&other_torrent, &other, &first)))
        .collect();
    let torrent = scene.publish("disk", &[]);
    let source = scene.seed(&scene.network.host(), &torrent, &first);
    let link = bare_link(&source);
    let host = Host::new(scene.dir.path(), "host");
    let launch = scene.launch(&host, &link, &first);
    let when = "found through libtorrent's nodes";
    assert_same(&host.mount().join("disk.img"), scene.image.bytes(), when);
    launch.stop();

    source.stop();

    // We find its seed, through a node of ours.
    for router in routers {
        router.stop();
    }
    let first = scene.first();
    let published = scene.dir.path();
    let seeder = Libtorrent.start(
        &scene.network.host(),
        &job(&torrent, published, &first.listen()),
    );
    let host = Host::new(scene.dir.path(), "later");
    let launch = scene.launch(&host, &link, &first.listen());
    let when = "from libtorrent's seed";
    assert_same(&host.mount().join("disk.img"), scene.image.bytes(), when);
    launch.stop();

    // Its node is the only one that a launch hears of.
    let host = Host::new(scene.dir.path(), "led");
    let launch = host.launch_on(&scene.network.host(), &torrent).fill("none");
    let launch = launch.peer(seeder.listen()).flag("--no-pex").discovery();
    let launch = launch.env("VMTORRENT_DHT_BOOTSTRAP", "").start();
    launch.wait_stderr("found in the DHT");
    launch.stop();
    assert!(host.cache().join("dht-nodes").is_file());
    seeder.stop();
    first.stop();
}
