//! Hosts on one network find each other by multicast (BEP 14): no tracker, no named peer.

use std::path::Path;
use std::time::Duration;

use vmtorrent_tests::{Daemon, Host, Namespaces, Reference, assert_same, fuse, publish};

fn image(directory: &Path, seed: u64) -> Reference {
    let image = Reference::new((2 << 20) + 77, seed);
    image.write_to(&directory.join("disk.img"));
    image
}

fn seed(network: &Namespaces, host: usize, torrent: &Path, data: &Path) -> Daemon {
    let mut command = network.command(host);
    command
        .arg("seed")
        .arg(torrent)
        .arg("--data")
        .arg(data)
        .args(["--json", "--listen", "0.0.0.0:0"]);
    let daemon = Daemon::spawn(command, &[]);
    daemon.wait_event("ready");
    daemon
}

#[test]
fn a_launch_reads_its_image_from_a_seed_on_the_same_network() {
    let Some(network) = Namespaces::new() else {
        return;
    };
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), 71);
    let torrent = dir.path().join("disk.torrent");
    publish(&dir.path().join("disk.img"), &torrent, &[]);
    // The seed is there first: it hears the newcomer, and dials it.
    let source = seed(&network, 0, &torrent, dir.path());
    let host = Host::new(dir.path(), "later");
    let launched = host
        .launch_with(network.command(1), &torrent, "0.0.0.0:0")
        .local_discovery()
        .start();
    let when = "found by local discovery";
    assert_same(&host.mount().join("disk.img"), image.bytes(), when);
    let done = launched.stop();
    assert_eq!(
        done["fetched_bytes"].as_u64().unwrap(),
        image.distinct_bytes()
    );
    source.stop();
}

#[test]
fn a_seed_that_comes_later_is_found_too_and_no_lsd_keeps_silent() {
    let Some(network) = Namespaces::new() else {
        return;
    };
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), 72);
    let torrent = dir.path().join("disk.torrent");
    publish(&dir.path().join("disk.img"), &torrent, &[]);
    let (open, shut) = (Host::new(dir.path(), "open"), Host::new(dir.path(), "shut"));
    let hearing = open
        .launch_with(network.command(1), &torrent, "0.0.0.0:0")
        .local_discovery()
        .start();
    let silent = shut
        .launch_with(network.command(1), &torrent, "0.0.0.0:0")
        .discovery()
        .start();
    let source = seed(&network, 0, &torrent, dir.path());
    assert_same(
        &open.mount().join("disk.img"),
        image.bytes(),
        "the seed came later",
    );
    assert_eq!(silent.latest("progress")["peers"], 0);
    hearing.stop();
    silent.stop();
    source.stop();
}

#[test]
fn private_images_are_not_announced() {
    let Some(network) = Namespaces::new() else {
        return;
    };
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), 73);
    let (private, public) = (dir.path().join("private"), dir.path().join("public"));
    publish(&dir.path().join("disk.img"), &private, &["--private"]);
    publish(&dir.path().join("disk.img"), &public, &[]);
    let sources = [&private, &public].map(|torrent| seed(&network, 0, torrent, dir.path()));
    let hosts = ["private-host", "public-host"].map(|name| Host::new(dir.path(), name));
    let launch = |host: &Host, torrent: &Path| {
        host.launch_with(network.command(1), torrent, "0.0.0.0:0")
            .local_discovery()
            .option("--read-timeout", "2")
            .start()
    };
    let private = launch(&hosts[0], &private);
    let public = launch(&hosts[1], &public);
    assert_same(
        &hosts[1].mount().join("disk.img"),
        image.bytes(),
        "the public one",
    );
    // By then the private one would have been found as well.
    let read = std::fs::read(hosts[0].mount().join("disk.img"));
    assert!(
        read.is_err(),
        "a private image was found on the local network"
    );
    private.wait_for("no peer", Duration::from_secs(60), |event| {
        event["event"] == "progress" && event["peers"] == 0
    });
    private.stop();
    public.stop();
    for source in sources {
        source.stop();
    }
}
