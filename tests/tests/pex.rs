//! Peers tell each other of peers (BEP 11): a host that knows one of them finds the others, unless the image is private.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vmtorrent_tests::clients::{Client, Job, Libtorrent};
use vmtorrent_tests::{
    Daemon, Host, Network, Reference, assert_same, fuse, publish, seed, seed_on,
};

const PATIENCE: Duration = Duration::from_secs(60);

fn publish_image(dir: &TempDir, seed: u64, options: &[&str]) -> (Reference, PathBuf) {
    let image = Reference::new((2 << 20) + 99, seed);
    image.write_to(&dir.path().join("disk.img"));
    let torrent = dir.path().join(format!("disk{}.torrent", options.len()));
    publish(&dir.path().join("disk.img"), &torrent, options);
    (image, torrent)
}

fn wait_peers(launch: &Daemon, count: u64) {
    launch.wait_for(&format!("{count} peers"), PATIENCE, |event| {
        event["event"] == "progress" && event["peers"] == count
    });
}

/// One that knows the seed and fetches nothing, and one that knows only that one.
struct Chain {
    middle: Daemon,
    end: Daemon,
    end_host: Host,
}

impl Chain {
    /// `options`: of the middle; `read_timeout`: of the end, seconds.
    fn start(
        dir: &Path,
        name: &str,
        torrent: &Path,
        source: &Daemon,
        options: &[&str],
        read_timeout: &str,
    ) -> Self {
        let host = Host::new(dir, &format!("{name}-middle"));
        let mut launch = host.launch(torrent).fill("none").peer(&source.listen());
        for option in options {
            launch = launch.flag(option);
        }
        // Else it would fetch what the other reads.
        let launch = launch.flag("--no-profile-exchange");
        let middle = launch.discovery().start();
        wait_peers(&middle, 1);
        let end_host = Host::new(dir, &format!("{name}-end"));
        let launch = end_host.launch(torrent).fill("none").peer(&middle.listen());
        let launch = launch.option("--read-timeout", read_timeout).discovery();
        Self {
            middle,
            end: launch.start(),
            end_host,
        }
    }

    fn image(&self) -> PathBuf {
        self.end_host.mount().join("disk.img")
    }

    fn stop(self) {
        assert_eq!(
            self.middle.stop()["fetched_bytes"],
            0,
            "the middle had something"
        );
        self.end.stop();
    }
}

#[test]
fn who_knows_one_that_has_nothing_finds_the_seed_through_it_within_seconds() {
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, torrent) = publish_image(&dir, 81, &[]);
    let source = seed(&torrent, dir.path(), &[]);
    let chain = Chain::start(dir.path(), "public", &torrent, &source, &[], "30");
    let begin = Instant::now();
    assert_same(&chain.image(), image.bytes(), "of the seed");
    let took = begin.elapsed();
    eprintln!("the seed was found and all of it fetched within {took:?}");
    // Later messages are a minute apart.
    assert!(took < Duration::from_secs(30), "{took:?}");
    chain.stop();
    source.stop();
}

#[test]
fn private_images_and_those_that_want_no_exchange_find_nobody_so() {
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_, torrent) = publish_image(&dir, 82, &[]);
    let (_, private) = publish_image(&dir, 82, &["--private"]);
    let sources = [&torrent, &private].map(|t| seed(t, dir.path(), &[]));
    let no_pex: &[&str] = &["--no-pex"];
    let off = Chain::start(dir.path(), "off", &torrent, &sources[0], no_pex, "10");
    let hidden = Chain::start(dir.path(), "private", &private, &sources[1], &[], "10");
    for chain in [off, hidden] {
        let read = std::fs::read(chain.image());
        assert!(read.is_err(), "the seed was found");
        assert_eq!(chain.end.latest("progress")["peers"], 1);
        chain.stop();
    }
    for source in sources {
        source.stop();
    }
}

#[test]
fn libtorrent_leads_us_to_a_peer_and_we_lead_libtorrent_to_one() {
    let Some(network) = Network::new() else {
        return;
    };
    if !fuse() || !Libtorrent.is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (image, torrent) = publish_image(&dir, 83, &[]);
    let job = |images: &Path, peer: &str, name: &str| {
        let state = dir.path().join(name);
        std::fs::create_dir(&state).unwrap();
        let mut job = Job::new(&[&torrent], images, &state);
        job.pex = true;
        job.peers = vec![peer.to_owned()];
        job
    };
    let empty = |name: &str| {
        let directory = dir.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        directory
    };
    // It is between our seed and our launch, and has not everything yet: two that have leave each other.
    let slow = ["--upload-limit", "20K"];
    let source = seed_on(&network.host(), &torrent, dir.path(), &slow);
    let between = empty("between");
    let middle = Libtorrent.start(&network.host(), &job(&between, &source.listen(), "one"));
    let host = Host::new(dir.path(), "end");
    let launch = host.launch_on(&network.host(), &torrent).fill("none");
    let end = launch.peer(middle.listen()).discovery().start();
    end.wait_stderr(&format!("told of by a peer address={}", source.listen()));
    wait_peers(&end, 2);
    end.stop();
    middle.stop();
    source.stop();

    // We are between our seed and it, and have nothing.
    let source = seed_on(&network.host(), &torrent, dir.path(), &[]);
    let host = Host::new(dir.path(), "middle");
    let launch = host.launch_on(&network.host(), &torrent).fill("none");
    let launch = launch.peer(&source.listen()).flag("--no-profile-exchange");
    let middle = launch.discovery().start();
    wait_peers(&middle, 1);
    let copies = empty("copies");
    let end = Libtorrent.start(&network.host(), &job(&copies, &middle.listen(), "two"));
    end.wait_complete();
    end.stop();
    assert_same(&copies.join("disk.img"), image.bytes(), "libtorrent");
    assert_eq!(middle.stop()["fetched_bytes"], 0);
    source.stop();
}
