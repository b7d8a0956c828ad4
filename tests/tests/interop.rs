//! The BitTorrent clients that people use understand us, and we understand them.
//!
//! Each client runs as it is, on a host of its own in a test network; what was transferred is compared byte by byte.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use vmtorrent_tests::clients::{
    Aria2, Client, Foreign, Job, Librqbit, Libtorrent, Qbittorrent, Transmission,
};
use vmtorrent_tests::{
    Daemon, Host, Network, Node, PIECE, Random, Reference, assert_same, fuse, publish, seed_on,
};

/// Others let a new peer wait for the next round of their choker, ten seconds or more.
const PATIENCE: Duration = Duration::from_secs(90);
const TRACKER_PORT: u16 = 6969;
const OURS: &str = "our mount";
/// So many pieces that the metadata is longer than one piece of ut_metadata.
const SMALL_PIECES: &[&str] = &["--piece-size", "16K"];

/// A file and a directory to be published, and a network.
struct Scene {
    dir: TempDir,
    network: Network,
    image: Reference,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Scene {
    /// `None` where the test can't run, which was said then.
    fn new(client: &dyn Client, bytes: usize) -> Option<Self> {
        if !client.is_here() || !fuse() {
            return None;
        }
        let network = Network::new()?;
        let dir = tempfile::tempdir().unwrap();
        let image = Reference::new(bytes, 12);
        std::fs::create_dir(dir.path().join("published")).unwrap();
        let scene = Self {
            network,
            image,
            files: several_files(&dir.path().join("published/appliance")),
            dir,
        };
        scene.image.write_to(&scene.published().join("disk.img"));
        Some(scene)
    }

    fn published(&self) -> PathBuf {
        self.dir.path().join("published")
    }

    fn torrent(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.torrent"))
    }

    /// Publishes one of the two.
    fn publish(&self, name: &str, options: &[&str]) -> PathBuf {
        let torrent = self.torrent(name);
        publish(&self.published().join(name), &torrent, options);
        torrent
    }

    /// Publishes one of the two with a tracker on `node`.
    fn publish_tracked(&self, name: &str, node: &Node, options: &[&str]) -> PathBuf {
        let url = format!("http://{}/announce", node.at(TRACKER_PORT));
        self.publish(name, &[&["--tracker", url.as_str()], options].concat())
    }

    /// Seeds a published torrent with a tracker beside it.
    fn seed_tracked(&self, node: &Node, torrent: &Path) -> Daemon {
        let options = ["--tracker", &node.at(TRACKER_PORT)];
        seed_on(node, torrent, &self.published(), &options)
    }

    /// An empty directory.
    fn directory(&self, name: &str) -> PathBuf {
        let directory = self.dir.path().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    /// A client's task: from what it shall start, and where its images are.
    fn job(&self, sources: &[&Path], images: &Path) -> Job {
        Job::new(sources, images, &self.directory("client"))
    }

    /// A client that serves what is published.
    fn seeder(&self, client: &dyn Client, torrents: &[&Path]) -> Foreign {
        let job = self.job(torrents, &self.published());
        let peer = client.start(&self.network.host(), &job);
        peer.wait_complete();
        peer
    }

    fn assert_files(&self, directory: &Path, whose: &str) {
        for (name, content) in &self.files {
            let path = directory.join(name);
            // Transmission makes no empty files.
            if !content.is_empty() || path.exists() || whose == OURS {
                assert_same(&path, content, whose);
            }
        }
    }

    fn assert_image(&self, directory: &Path, whose: &str) {
        assert_same(&directory.join("disk.img"), self.image.bytes(), whose);
    }
}

/// A directory with files that share pieces, one of them empty.
fn several_files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    std::fs::create_dir_all(directory.join("sub")).unwrap();
    let mut random = Random::new(17);
    let files: Vec<_> = [
        ("a.img", 5 * PIECE + 77),
        ("b.empty", 0),
        ("sub/c.img", 9 * PIECE),
        ("z.small", 3),
    ]
    .map(|(name, size)| (PathBuf::from(name), random.bytes(size)))
    .into();
    for (name, content) in &files {
        std::fs::write(directory.join(name), content).unwrap();
    }
    files
}

fn number(event: &Value, field: &str) -> u64 {
    event[field].as_u64().unwrap()
}

fn wait_complete(daemon: &Daemon) {
    daemon.wait_for("all of the image", PATIENCE, |event| {
        event["event"] == "progress" && event["present_bytes"] == event["image_bytes"]
    });
}

/// Where a launch shows its image.
fn shown(launch: &Daemon) -> PathBuf {
    PathBuf::from(launch.wait_event("ready")["dir"].as_str().unwrap())
}

/// The client gets a file and a directory of ours, from a peer it was told of (where it can be) and through our
/// tracker.
fn client_downloads_what_we_publish_and_seed(client: &dyn Client) {
    let Some(scene) = Scene::new(client, (12 << 20) + 99) else {
        return;
    };
    let (one, two) = (scene.network.host(), scene.network.host());
    let tracked = scene.publish_tracked("appliance", &two, &[]);
    let second = scene.seed_tracked(&two, &tracked);
    let (direct, first) = if client.dials() {
        let torrent = scene.publish("disk.img", &[]);
        let seed = seed_on(&one, &torrent, &scene.published(), &[]);
        (torrent, seed)
    } else {
        let torrent = scene.publish_tracked("disk.img", &one, &[]);
        let seed = scene.seed_tracked(&one, &torrent);
        (torrent, seed)
    };

    let copies = scene.directory("copies");
    let mut job = scene.job(&[&direct, &tracked], &copies);
    job.peers = vec![first.listen()];
    let peer = client.start(&scene.network.host(), &job);
    peer.wait_complete();
    peer.stop();
    scene.assert_image(&copies, client.name());
    scene.assert_files(&copies.join("appliance"), client.name());
    assert!(number(&first.stop(), "uploaded_bytes") >= scene.image.distinct_bytes());
    second.stop();
}

/// We get everything of a file and of a directory that the client seeds, where it can from a torrent that it made.
fn we_fill_from_client(client: &dyn Client) {
    let Some(scene) = Scene::new(client, (12 << 20) + 99) else {
        return;
    };
    let torrents = ["disk.img", "appliance"].map(|name| {
        client.make_torrent(&scene.published().join(name), &scene.torrent(name));
        scene.torrent(name)
    });
    let peer = scene.seeder(client, &torrents.each_ref().map(PathBuf::as_path));
    let launches = ["single", "several"].map(|name| Host::new(scene.dir.path(), name));
    let launches: Vec<_> = std::iter::zip(&launches, &torrents)
        .map(|(host, torrent)| {
            let launch = host.launch_on(&scene.network.host(), torrent);
            launch.peer(peer.listen()).fill("full").start()
        })
        .collect();
    for launch in &launches {
        wait_complete(launch);
    }
    scene.assert_image(&shown(&launches[0]), OURS);
    scene.assert_files(&shown(&launches[1]), OURS);
    let done: Vec<_> = launches.into_iter().map(Daemon::stop).collect();
    assert_eq!(
        number(&done[0], "fetched_bytes"),
        scene.image.distinct_bytes()
    );
    for done in done {
        assert_eq!(number(&done, "wasted_bytes"), 0, "{done}");
    }
    peer.stop();
}

/// Reads that miss are served by the client alone, and nothing is fetched but what they need.
fn demand_reads_are_answered_by_client(client: &dyn Client) {
    let Some(scene) = Scene::new(client, (12 << 20) + 99) else {
        return;
    };
    let torrent = scene.publish("disk.img", &[]);
    let peer = scene.seeder(client, &[&torrent]);
    let host = Host::new(scene.dir.path(), "host");
    let launch = host.launch_on(&scene.network.host(), &torrent);
    let launch = launch.peer(peer.listen()).fill("none").start();
    let disk = File::open(shown(&launch).join("disk.img")).unwrap();
    let right = scene.image.bytes();
    let mut random = Random::new(3);
    let mut ranges = vec![(0, 512), (right.len() - 100, 100)];
    for _ in 0..8 {
        let start = random.below(right.len() as u64 - 50_000) as usize;
        ranges.push((start, 1 + random.below(50_000) as usize));
    }
    for (start, length) in ranges {
        let mut found = vec![0; length];
        disk.read_exact_at(&mut found, start as u64).unwrap();
        assert!(
            found == right[start..start + length],
            "{length} bytes at {start}"
        );
    }
    drop(disk);
    let done = launch.stop();
    eprintln!("{}: {done}", client.name());
    assert_eq!(number(&done, "background_bytes"), 0, "{done}");
    assert_eq!(number(&done, "wasted_bytes"), 0, "{done}");
    assert!(number(&done, "demand_bytes") > 0, "{done}");
    assert!(
        number(&done, "fetched_bytes") < scene.image.distinct_bytes(),
        "{done}"
    );
    peer.stop();
}

/// The client has one half of the image and we have the other; there is nobody else, and both become complete.
fn client_and_we_exchange(client: &dyn Client) {
    const PIECES: usize = 256;
    let Some(scene) = Scene::new(client, PIECES * PIECE) else {
        return;
    };
    let torrent = scene.publish("disk.img", &[]);
    let half = PIECES * PIECE / 2;
    let node = scene.network.host();
    let host = Host::new(scene.dir.path(), "host");
    let source = seed_on(&scene.network.host(), &torrent, &scene.published(), &[]);
    let launch = host.launch_on(&node, &torrent).fill("none");
    let launch = launch.peer(&source.listen()).start();
    let disk = File::open(shown(&launch).join("disk.img")).unwrap();
    disk.read_exact_at(&mut vec![0; half], half as u64).unwrap();
    drop(disk);
    let ours = number(&launch.stop(), "fetched_bytes");
    assert_eq!(ours, scene.image.distinct_bytes() / 2);
    source.stop();

    let copies = scene.directory("copies");
    let copy = File::create(copies.join("disk.img")).unwrap();
    copy.write_all_at(&scene.image.bytes()[..half], 0).unwrap();
    copy.set_len(2 * half as u64).unwrap();
    drop(copy);
    let peer = client.start(&scene.network.host(), &scene.job(&[&torrent], &copies));
    peer.wait("its half", |p| p.total > 0 && p.present >= half as u64);
    assert!(peer.progress().present < 2 * half as u64);

    let launch = host.launch_on(&node, &torrent).fill("full");
    let launch = launch.peer(peer.listen()).start();
    wait_complete(&launch);
    peer.wait_complete();
    scene.assert_image(&shown(&launch), OURS);
    let other_half = scene.image.distinct_bytes() - ours;
    // Its figures may be a second or two behind.
    peer.wait("that it says what it gave", |p| p.uploaded >= other_half);
    peer.stop();
    scene.assert_image(&copies, client.name());
    let done = launch.stop();
    assert_eq!(number(&done, "fetched_bytes"), other_half, "{done}");
    assert!(number(&done, "uploaded_bytes") >= ours, "{done}");
}

/// The client starts from the link that our seed shows: it gets the metadata from us, in several pieces, then the data.
fn client_starts_from_our_magnet(client: &dyn Client) {
    let Some(scene) = Scene::new(client, 20 << 20) else {
        return;
    };
    let node = scene.network.host();
    let torrent = scene.publish_tracked("disk.img", &node, SMALL_PIECES);
    let source = scene.seed_tracked(&node, &torrent);
    let ready = source.wait_event("ready");
    let link = Path::new(ready["magnet"].as_str().unwrap());
    let copies = scene.directory("copies");
    let peer = client.start(&scene.network.host(), &scene.job(&[link], &copies));
    peer.wait_complete();
    peer.stop();
    scene.assert_image(&copies, client.name());
    source.stop();
}

/// We start from a link to the client: it gives us the metadata, in several pieces, then the data.
fn we_start_from_a_magnet_of_client(client: &dyn Client) {
    let Some(scene) = Scene::new(client, 20 << 20) else {
        return;
    };
    let torrent = scene.publish("disk.img", SMALL_PIECES);
    let node = scene.network.host();
    let info_hash = {
        let ours = seed_on(&node, &torrent, &scene.published(), &[]);
        let ready = ours.wait_event("ready");
        ours.stop();
        ready["info_hash"].as_str().unwrap().to_owned()
    };
    let peer = scene.seeder(client, &[&torrent]);
    let link = format!("magnet:?xt=urn:btih:{info_hash}&x.pe={}", peer.listen());
    let host = Host::new(scene.dir.path(), "host");
    let launch = host.launch_on(&node, Path::new(&link)).fill("full").start();
    wait_complete(&launch);
    scene.assert_image(&shown(&launch), OURS);
    launch.stop();
    peer.stop();
}

/// We have no encryption: a client that insists on it gets nothing from us and gives us nothing. Both sides say so at
/// once, peers in the clear are served beside it, and a read that only it could answer fails in time.
fn client_that_insists_on_encryption_is_refused(client: &dyn Client) {
    let Some(scene) = Scene::new(client, (4 << 20) + 99) else {
        return;
    };
    let node = scene.network.host();
    let torrent = scene.publish_tracked("disk.img", &node, &[]);
    let source = scene.seed_tracked(&node, &torrent);
    let mut job = scene.job(&[&torrent], &scene.directory("copies"));
    job.encrypted_only = true;
    let peer = client.start(&scene.network.host(), &job);
    source.wait_stderr("does not speak BitTorrent");
    let host = Host::new(scene.dir.path(), "plain");
    let launch = host.launch_on(&scene.network.host(), &torrent);
    let launch = launch.peer(&source.listen()).fill("full").start();
    wait_complete(&launch);
    scene.assert_image(&shown(&launch), OURS);
    launch.stop();
    assert_eq!(peer.progress().present, 0, "it got data in the clear");
    peer.stop();
    source.stop();

    job.directory = scene.published();
    job.state = scene.directory("seeding client");
    let peer = client.start(&scene.network.host(), &job);
    peer.wait_complete();
    let host = Host::new(scene.dir.path(), "alone");
    let launch = host.launch_on(&scene.network.host(), &torrent);
    let launch = launch
        .peer(peer.listen())
        .option("--read-timeout", "2")
        .start();
    launch.wait_stderr("peer not reached");
    let disk = File::open(shown(&launch).join("disk.img")).unwrap();
    let error = disk.read_exact_at(&mut [0; 512], 0).unwrap_err();
    const EIO: i32 = 5;
    assert_eq!(error.raw_os_error(), Some(EIO));
    drop(disk);
    assert_eq!(number(&launch.stop(), "fetched_bytes"), 0);
    peer.stop();
}

macro_rules! with {
    ($module:ident, $client:expr $(, $encrypted:ident)?) => {
        mod $module {
            use super::*;

            #[test]
            fn downloads_what_we_publish_and_seed() {
                client_downloads_what_we_publish_and_seed(&$client);
            }

            #[test]
            fn serves_all_of_a_file_and_of_a_directory_to_us() {
                we_fill_from_client(&$client);
            }

            #[test]
            fn answers_our_demand_reads_alone() {
                demand_reads_are_answered_by_client(&$client);
            }

            #[test]
            fn exchanges_pieces_with_us() {
                client_and_we_exchange(&$client);
            }

            #[test]
            fn starts_from_a_magnet_link_of_ours() {
                client_starts_from_our_magnet(&$client);
            }

            #[test]
            fn gives_us_the_metadata_of_a_magnet_link() {
                we_start_from_a_magnet_of_client(&$client);
            }

            $(
                #[test]
                fn $encrypted() {
                    client_that_insists_on_encryption_is_refused(&$client);
                }
            )?
        }
    };
}

with!(
    libtorrent,
    Libtorrent,
    that_insists_on_encryption_is_refused
);
with!(
    transmission,
    Transmission,
    that_insists_on_encryption_is_refused
);
with!(
    qbittorrent,
    Qbittorrent,
    that_insists_on_encryption_is_refused
);
with!(aria2, Aria2, that_insists_on_encryption_is_refused);
// It knows no encryption.
with!(librqbit, Librqbit);

/// Over uTP alone: no TCP connection comes about, and libtorrent would take none.
mod libtorrent_over_utp {
    use super::*;

    #[test]
    fn downloads_what_we_seed() {
        let Some(scene) = Scene::new(&Libtorrent, (12 << 20) + 99) else {
            return;
        };
        let node = scene.network.host();
        node.without_tcp();
        let torrent = scene.publish("disk.img", &[]);
        let seed = seed_on(&node, &torrent, &scene.published(), &[]);
        let copies = scene.directory("copies");
        let mut job = scene.job(&[&torrent], &copies);
        job.peers = vec![seed.listen()];
        job.utp_only = true;
        let peer = Libtorrent.start(&scene.network.host(), &job);
        peer.wait_complete();
        peer.stop();
        scene.assert_image(&copies, "libtorrent");
        assert!(number(&seed.stop(), "uploaded_bytes") >= scene.image.distinct_bytes());
    }

    #[test]
    fn serves_all_of_a_file_to_us() {
        let Some(scene) = Scene::new(&Libtorrent, (12 << 20) + 99) else {
            return;
        };
        let torrent = scene.publish("disk.img", &[]);
        let mut job = scene.job(&[&torrent], &scene.published());
        job.utp_only = true;
        let peer = Libtorrent.start(&scene.network.host(), &job);
        peer.wait_complete();
        let node = scene.network.host();
        node.without_tcp();
        let host = Host::new(scene.dir.path(), "host");
        let launch = host.launch_on(&node, &torrent);
        let launch = launch.peer(peer.listen()).fill("full").start();
        wait_complete(&launch);
        scene.assert_image(&shown(&launch), OURS);
        let done = launch.stop();
        assert_eq!(number(&done, "fetched_bytes"), scene.image.distinct_bytes());
        assert_eq!(number(&done, "wasted_bytes"), 0, "{done}");

        // Turned off, nobody is reached.
        let host = Host::new(scene.dir.path(), "without");
        let launch = host.launch_on(&node, &torrent).flag("--no-utp");
        let launch = launch
            .peer(peer.listen())
            .option("--read-timeout", "4")
            .start();
        launch.wait_stderr("peer not reached");
        let disk = File::open(shown(&launch).join("disk.img")).unwrap();
        assert!(disk.read_exact_at(&mut [0; 512], 0).is_err());
        drop(disk);
        assert_eq!(number(&launch.stop(), "fetched_bytes"), 0);
        peer.stop();
    }
}
