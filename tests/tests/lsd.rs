//! Hosts on one network find each other by multicast (BEP 14): no tracker, no named peer.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use vmtorrent_tests::{Daemon, Host, Namespaces, Reference, assert_same, fuse, publish, require};

fn image(directory: &Path, seed: u64) -> Reference {
    let image = Reference::new((2 << 20) + 77, seed);
    image.write_to(&directory.join("disk.img"));
    image
}

fn seed(network: &Namespaces, host: usize, torrent: &Path, data: &Path) -> Daemon {
    seed_on(network, host, torrent, data, "0.0.0.0:0")
}

fn seed_on(network: &Namespaces, host: usize, torrent: &Path, data: &Path, listen: &str) -> Daemon {
    let mut command = network.command(host);
    command
        .arg("seed")
        .arg(torrent)
        .arg("--data")
        .arg(data)
        .args(["--json", "--listen", listen]);
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
    silent.wait_event("progress");
    assert_eq!(silent.latest("progress")["peers"], 0);
    hearing.stop();
    silent.stop();
    source.stop();
}

#[test]
fn hosts_that_have_only_ipv6_find_each_other() {
    let Some(network) = Namespaces::new() else {
        return;
    };
    if !fuse() || !network.only_ipv6() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), 76);
    let torrent = dir.path().join("disk.torrent");
    publish(&dir.path().join("disk.img"), &torrent, &[]);
    let source = seed_on(&network, 0, &torrent, dir.path(), "[::]:0");
    let host = Host::new(dir.path(), "six");
    let launched = host
        .launch_with(network.command(1), &torrent, "[::]:0")
        .local_discovery()
        .start();
    let when = "over IPv6";
    assert_same(&host.mount().join("disk.img"), image.bytes(), when);
    launched.stop();
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

#[test]
fn where_another_program_holds_the_port_others_still_find_us() {
    let Some(network) = Namespaces::new() else {
        return;
    };
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), 74);
    let torrent = dir.path().join("disk.torrent");
    publish(&dir.path().join("disk.img"), &torrent, &[]);
    let source = seed(&network, 0, &torrent, dir.path());
    let mut holder = network.run(1, "/usr/bin/python3");
    holder.arg("-c").arg(
        "import socket, time\n\
         v4 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         v4.bind(('', 6771))\n\
         print('{\"event\":\"ready\"}', flush=True)\n\
         time.sleep(600)",
    );
    let holder = Daemon::spawn(holder, &[]);
    holder.wait_event("ready");
    let host = Host::new(dir.path(), "deaf");
    let launched = host
        .launch_with(network.command(1), &torrent, "0.0.0.0:0")
        .local_discovery()
        .start();
    let when = "announced without hearing";
    assert_same(&host.mount().join("disk.img"), image.bytes(), when);
    launched.stop();
    source.stop();
    holder.kill_9();
}

#[test]
fn libtorrent_and_we_find_each_other() {
    let Some(network) = Namespaces::new() else {
        return;
    };
    let python = Command::new("/usr/bin/python3")
        .args(["-c", "import libtorrent"])
        .stderr(Stdio::null())
        .status();
    if !fuse() || !require(python.is_ok_and(|s| s.success()), "python3-libtorrent") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), 75);
    let torrent = dir.path().join("disk.torrent");
    publish(&dir.path().join("disk.img"), &torrent, &[]);
    let libtorrent = |host: usize, port: u16, data: &Path| {
        let mut command = network.run(host, "/usr/bin/python3");
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/libtorrent_peer.py"))
            .arg("run")
            .arg("--lsd")
            .arg("--listen")
            .arg(format!("{}:{port}", Namespaces::ADDRESSES[host]))
            .arg(data)
            .arg(&torrent);
        let daemon = Daemon::spawn(command, &[]);
        daemon.wait_event("ready");
        daemon
    };
    // It is there first, and hears of us.
    let source = libtorrent(0, 6881, dir.path());
    let host = Host::new(dir.path(), "host");
    let launched = host
        .launch_with(network.command(1), &torrent, "0.0.0.0:0")
        .local_discovery()
        .start();
    let when = "from libtorrent";
    assert_same(&host.mount().join("disk.img"), image.bytes(), when);
    source.stop();

    // It comes later, and we hear of it.
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let leech = libtorrent(0, 6882, &empty);
    leech.wait_for("all of the image", Duration::from_secs(60), |event| {
        event["event"] == "progress" && event["present_bytes"] == event["image_bytes"]
    });
    leech.stop();
    launched.stop();
}
