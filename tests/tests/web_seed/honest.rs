//! What a good web server gives, and how it is asked.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use vmtorrent_tests::{Certificate, Host, Nginx, Reference, assert_same, command, fuse, publish};

use crate::{Web, assert_all_from_the_web, number, wait_complete};

#[test]
fn an_image_without_any_peer_is_read_whole_and_filled() {
    if !fuse() {
        return;
    }
    let web = Web::new(128 << 20, 31);
    let Some(nginx) = Nginx::start(web.dir.path(), &web.root(), "") else {
        return;
    };
    // As a publisher does it; private torrents have web seeds like others.
    let torrent = web.path("web.torrent");
    let url = nginx.url("/");
    publish(&web.file(), &torrent, &["--private", "--web-seed", &url]);

    let launch = web.host.launch(&torrent).discovery().fill("none").start();
    web.read_first(1 << 20);
    let progress = launch.wait_for("a report", crate::PATIENCE, |e| {
        e["event"] == "progress" && e["web_seeds"] == 1
    });
    assert_eq!(progress["peers"], 0);
    web.assert_read("read by read");
    assert_all_from_the_web(&launch.stop(), &web.image);

    let before = nginx.served().len();
    let other = Host::new(web.dir.path(), "other");
    let launch = other.launch(&torrent).discovery().fill("full").start();
    wait_complete(&launch);
    let disk = other.mount().join("disk.img");
    assert_same(&disk, web.image.bytes(), "filled");
    assert_all_from_the_web(&launch.stop(), &web.image);

    let served = nginx.served();
    assert!(
        served
            .iter()
            .all(|s| s.status == 206 && s.target == "/disk.img")
    );
    let filling = &served[before..];
    let connections: HashSet<u64> = filling.iter().map(|s| s.connection).collect();
    assert!(connections.len() <= 12, "{} connections", connections.len());
    // Blocks that lie beside each other are fetched by one request, as far as several wait at once: few do on loopback.
    let blocks = web.image.distinct_bytes() / (16 << 10);
    let requests = filling.len() as u64;
    assert!(
        requests < blocks * 9 / 10,
        "{requests} requests for {blocks} blocks"
    );
}

#[test]
fn files_of_a_directory_are_found_under_their_names_and_no_padding_is_asked_for() {
    if !fuse() {
        return;
    }
    let web = Web::new(1 << 20, 32);
    let Some(nginx) = Nginx::start(web.dir.path(), &web.root(), "") else {
        return;
    };
    let name = "an image, 50% + ü";
    let files = [
        ("a.raw", 300_001),
        ("sub dir/b#1?.raw", 3 << 20),
        ("sub dir/empty", 0),
        ("z", 99),
    ];
    let contents: Vec<Reference> = (40..)
        .zip(files)
        .map(|(n, (path, bytes))| {
            let content = Reference::new(bytes, n);
            let file = web.root().join(name).join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            content.write_to(&file);
            content
        })
        .collect();
    let torrent = web.path("several.torrent");
    let read_all = |torrent: &Path, host: &str, url: &str| {
        let host = Host::new(web.dir.path(), host);
        let launch = host
            .launch(torrent)
            .option("--web-seed", url)
            .fill("none")
            .start();
        for ((path, _), content) in files.iter().zip(&contents) {
            assert_same(&host.mount().join(path), content.bytes(), path);
        }
        let done = launch.stop();
        assert_eq!(done["wasted_bytes"], 0);
        done
    };
    publish(&web.root().join(name), &torrent, &[]);
    let done = read_all(&torrent, "plain", &nginx.url(""));
    assert_eq!(done["web_seed_bytes"], done["fetched_bytes"]);

    // libtorrent puts padding behind each file, and its own list of web seeds into the .torrent file.
    let padded = web.path("padded.torrent");
    let script = "
import os, sys, libtorrent as lt
source, output = sys.argv[1:]
files = lt.file_storage()
lt.add_files(files, source)
kind = lt.create_torrent.v1_only | lt.create_torrent.canonical_files
torrent = lt.create_torrent(files, 32768, flags=kind)
lt.set_piece_hashes(torrent, os.path.dirname(source))
open(output, 'wb').write(lt.bencode(torrent.generate()))
";
    let made = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .arg(web.root().join(name))
        .arg(&padded)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&made.stderr);
    if !vmtorrent_tests::require(!told.contains("ModuleNotFoundError"), "python3-libtorrent") {
        return;
    }
    assert!(made.status.success(), "{told}");
    let text = std::fs::read(&padded).unwrap();
    let has_padding = text.windows(9).any(|w| w == b"4:attr1:p");
    assert!(has_padding, "no padding to pass over");
    read_all(&padded, "padded", &nginx.url("/"));
    let served = nginx.served();
    assert!(served.iter().all(|s| s.status == 206), "{served:?}");
    assert!(!served.iter().any(|s| s.target.contains(".pad")));
    assert!(
        served
            .iter()
            .any(|s| s.target == "/an%20image%2C%2050%25%20%2B%20%C3%BC/sub%20dir/b%231%3F.raw")
    );
}

#[test]
fn redirects_are_followed_and_remembered() {
    if !fuse() {
        return;
    }
    let web = Web::new(8 << 20, 33);
    let moved =
        "location /old/ { return 302 /newer/disk.img; } location /newer/ { return 301 /disk.img; }";
    let Some(nginx) = Nginx::start(web.dir.path(), &web.root(), moved) else {
        return;
    };
    let launch = web
        .host
        .launch(&web.torrent())
        .option("--web-seed", nginx.url("/old/x"))
        .fill("none")
        .start();
    web.assert_read("behind two redirects");
    assert_all_from_the_web(&launch.stop(), &web.image);
    let served = nginx.served();
    let redirects = served.iter().filter(|s| s.status != 206).count();
    assert!(redirects <= 4, "{redirects} redirects");
}

#[test]
fn over_https_it_speaks_http_2_and_is_never_led_to_plain_http() {
    if !fuse() {
        return;
    }
    let web = Web::new(16 << 20, 34);
    let Some(certificate) = Certificate::new(web.dir.path()) else {
        return;
    };
    let Some(plain) = Nginx::start(web.dir.path(), &web.root(), "") else {
        return;
    };
    let away = format!(
        "location /away/ {{ return 302 {}; }}",
        plain.url("/disk.img")
    );
    let scratch = web.dir.path();
    let Some(nginx) = Nginx::start_tls(scratch, &web.root(), &away, &certificate) else {
        return;
    };
    let trusting = || {
        let mut command = command();
        command.env("SSL_CERT_FILE", &certificate.authority);
        command
    };
    let launch = web
        .host
        .launch_with(trusting(), &web.torrent(), "127.0.0.1:0")
        .option("--web-seed", nginx.url("/"))
        .fill("full")
        .start();
    wait_complete(&launch);
    web.assert_read("over TLS");
    assert_all_from_the_web(&launch.stop(), &web.image);
    let served = nginx.served();
    assert!(
        served
            .iter()
            .all(|s| s.protocol == "HTTP/2.0" && s.status == 206)
    );
    let connections: HashSet<u64> = served.iter().map(|s| s.connection).collect();
    assert_eq!(connections.len(), 1, "one connection for all");

    let peer = web.peer(&[]);
    let other = Host::new(web.dir.path(), "other");
    let launch = other
        .launch_with(trusting(), &web.torrent(), "127.0.0.1:0")
        .option("--web-seed", nginx.url("/away/"))
        .peer(&peer.listen())
        .fill("none")
        .start();
    launch.wait_stderr("it redirects from https to http");
    let disk = other.mount().join("disk.img");
    assert_same(&disk, web.image.bytes(), "from the peer");
    assert_eq!(number(&launch.stop(), "web_seed_bytes"), 0);
    assert_eq!(plain.served(), []);
    // Whom nobody vouches for is not believed.
    let third = Host::new(web.dir.path(), "third");
    let launch = third
        .launch(&web.torrent())
        .option("--web-seed", nginx.url("/"))
        .peer(&peer.listen())
        .fill("none")
        .start();
    let disk = third.mount().join("disk.img");
    assert_same(&disk, web.image.bytes(), "from the peer");
    assert_eq!(number(&launch.stop(), "web_seed_bytes"), 0);
    peer.stop();
}

#[test]
fn a_magnet_link_names_web_seeds_for_what_its_peers_describe() {
    if !fuse() {
        return;
    }
    let web = Web::new(8 << 20, 35);
    let Some(nginx) = Nginx::start(web.dir.path(), &web.root(), "") else {
        return;
    };
    // It describes the image, and goes then.
    let peer = web.peer(&[]);
    let magnet = peer.wait_event("ready")["magnet"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(magnet.contains("x.pe="));
    let magnet = format!("{magnet}&ws={}", nginx.url("/disk.img"));
    let launch = web
        .host
        .launch(Path::new(&magnet))
        .discovery()
        .fill("none")
        .start();
    peer.stop();
    web.assert_read("without the peer");
    let done = launch.stop();
    assert_eq!(number(&done, "fetched_bytes"), web.image.distinct_bytes());
    assert!(number(&done, "web_seed_bytes") > 0, "{done}");
}
