//! What `--metrics` serves is what docs/metrics.md says, and what happened.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;

use vmtorrent_tests::{Daemon, Host, PIECE, Reference, Scrape, fuse, http, publish, scrape, seed};

/// Type and labels by name.
type Catalogue = BTreeMap<String, (String, BTreeSet<String>)>;

/// What the documentation lists.
fn documented() -> Catalogue {
    let text = include_str!("../../docs/metrics.md");
    let unquoted = |cell: &str| cell.trim().trim_matches('`').to_owned();
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split('|').collect();
        let [name, kind, labels, _meaning, ""] = cells[..] else {
            return None;
        };
        let labels = labels.split(',').map(unquoted);
        let labels = labels.filter(|l| !l.is_empty()).collect();
        Some((unquoted(name), (kind.trim().to_owned(), labels)))
    });
    let mut catalogue = Catalogue::new();
    for (name, entry) in rows {
        assert!(
            catalogue.insert(name.clone(), entry).is_none(),
            "{name} stands there twice"
        );
    }
    catalogue
}

/// What is served.
fn served(scrapes: &[&Scrape]) -> Catalogue {
    let mut catalogue = Catalogue::new();
    for (name, family) in scrapes.iter().flat_map(|s| s.families()) {
        let labels = family
            .samples
            .iter()
            .flat_map(|(_, l, _)| l.keys().cloned());
        let entry = (family.kind.clone(), labels.collect());
        if let Some(other) = catalogue.insert(name.clone(), entry.clone()) {
            assert_eq!(other, entry, "{name} differs between seed and launch");
        }
    }
    catalogue
}

fn metrics_of(daemon: &Daemon) -> String {
    let ready = daemon.wait_event("ready");
    ready["metrics"].as_str().unwrap().to_owned()
}

/// Scrapes at each progress event until it holds.
fn scrape_until(daemon: &Daemon, url: &str, holds: impl Fn(&Scrape) -> bool) -> Scrape {
    let mut seen = daemon.event_count();
    for _ in 0..60 {
        let page = scrape(url);
        if holds(&page) {
            return page;
        }
        daemon.next_event(&mut seen);
    }
    panic!("it never holds: {:#?}", scrape(url));
}

#[test]
fn seed_and_launch_serve_what_the_documentation_lists_and_it_is_what_happened() {
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // A name that would break lines and quotes.
    let name = "odd \"disk\"\nx 1.img";
    let original = dir.path().join(name);
    let image = Reference::new((4 << 20) + 1_000, 11);
    image.write_to(&original);
    let length = image.bytes().len() as u64;
    let torrent = dir.path().join("disk.torrent");
    let tracker = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    publish(
        &original,
        &torrent,
        &["--tracker", &format!("http://{tracker}/announce")],
    );
    let source = seed(
        &torrent,
        dir.path(),
        &["--tracker", &tracker, "--metrics", "127.0.0.1:0"],
    );
    let host = Host::new(dir.path(), "host");
    let launch = host
        .launch(&torrent)
        .peer(&source.listen())
        .discovery()
        .fill("none")
        .option("--metrics", "127.0.0.1:0")
        .start();
    let (at_seed, at_launch) = (metrics_of(&source), metrics_of(&launch));
    let before = scrape(&at_launch);
    let info_hash = launch.wait_event("ready")["info_hash"].clone();
    let ours = [("image", name), ("info_hash", info_hash.as_str().unwrap())];
    let state = host.state().to_str().unwrap().to_owned();
    let guest = [ours[0], ours[1], ("appliance", "state"), ("state", &state)];
    assert_eq!(before.value("vmtorrent_image_bytes", &ours), length as f64);
    assert_eq!(
        before.value("vmtorrent_appliance_flushes_total", &guest),
        0.0
    );
    assert_eq!(before.value("vmtorrent_appliances", &[]), 1.0);

    let disk = File::options()
        .read(true)
        .write(true)
        .open(host.mount().join(name))
        .unwrap();
    // Two pieces that are far apart: the second is no sequential read.
    let mut buffer = [0; 4096];
    let pieces: Vec<usize> = image.distinct_pieces().map(|(index, _)| index).collect();
    for piece in [pieces[1], pieces[pieces.len() / 2]] {
        disk.read_exact_at(&mut buffer, (piece * PIECE) as u64)
            .unwrap();
    }
    disk.write_all_at(&[7; 8192], 4096).unwrap();
    disk.sync_data().unwrap();
    let page = scrape_until(&launch, &at_launch, |page| {
        page.value(
            "vmtorrent_image_tracker_announces_total",
            &[("result", "ok")],
        ) >= 1.0
            && page.sum("vmtorrent_image_peers") >= 1.0
            // What was guessed is here too.
            && page.sum("vmtorrent_image_fetched_bytes_total")
                == page.sum("vmtorrent_image_pieces_verified_total") * PIECE as f64
    });
    assert_eq!(page.fallen_since(&before), [""; 0]);

    let one = |name: &str| page.value(name, &guest);
    assert!(one("vmtorrent_appliance_reads_total") >= 2.0);
    assert!(one("vmtorrent_appliance_read_bytes_total") >= 8192.0);
    assert!(one("vmtorrent_appliance_writes_total") >= 1.0);
    assert_eq!(one("vmtorrent_appliance_written_bytes_total"), 8192.0);
    assert!(one("vmtorrent_appliance_flushes_total") >= 1.0);
    assert_eq!(one("vmtorrent_appliance_stalls_total"), 2.0);
    assert_eq!(one("vmtorrent_appliance_demand_wait_seconds_count"), 2.0);
    assert!(one("vmtorrent_appliance_demand_wait_seconds_sum") > 0.0);
    assert!(one("vmtorrent_appliance_stall_seconds_total") > 0.0);
    assert_eq!(one("vmtorrent_appliance_waiting_reads"), 0.0);
    assert_eq!(one("vmtorrent_appliance_read_timeouts_total"), 0.0);
    assert_eq!(page.sum("vmtorrent_appliance_errors_total"), 0.0);
    let fetched = page.value(
        "vmtorrent_image_fetched_bytes_total",
        &[ours[0], ("band", "demand")],
    );
    assert_eq!(fetched, 2.0 * PIECE as f64);
    let verified = page.value("vmtorrent_image_pieces_verified_total", &ours);
    assert!(verified >= 2.0, "{verified}");
    assert_eq!(
        page.value("vmtorrent_image_pieces_failed_total", &ours),
        0.0
    );
    let with_zeros = length - image.distinct_bytes();
    let present = page.value("vmtorrent_image_present_bytes", &ours);
    let all = verified * PIECE as f64;
    assert!(
        (all..=all + with_zeros as f64).contains(&present),
        "{present}"
    );

    let source_page = scrape_until(&source, &at_seed, |page| {
        page.value("vmtorrent_image_uploaded_bytes_total", &ours) >= fetched
    });
    let incoming = [ours[0], ("direction", "incoming")];
    assert!(source_page.value("vmtorrent_image_peers", &incoming) >= 1.0);
    assert_eq!(
        source_page.value("vmtorrent_image_present_bytes", &ours),
        length as f64
    );
    assert_eq!(source_page.value("vmtorrent_appliances", &[]), 0.0);

    let (served, documented) = (served(&[&page, &source_page]), documented());
    for (name, entry) in &served {
        assert_eq!(
            documented.get(name),
            Some(entry),
            "{name} in docs/metrics.md"
        );
    }
    for name in documented.keys() {
        assert!(
            served.contains_key(name),
            "{name} is documented, but not served"
        );
    }

    let progress = launch.stop();
    let shown = |field: &str| progress[field].as_f64().unwrap();
    assert_eq!(shown("demand_bytes"), fetched);
    assert_eq!(shown("stalls"), 2.0);
    source.stop();
}

#[test]
fn a_read_that_times_out_is_counted() {
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("disk.img");
    Reference::new(1 << 20, 3).write_to(&original);
    let torrent = dir.path().join("disk.torrent");
    publish(&original, &torrent, &[]);
    let host = Host::new(dir.path(), "host");
    // Nobody seeds, and nobody listens where the peer should be.
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let launch = host
        .launch(&torrent)
        .peer(&closed.to_string())
        // Longer than uTP is tried after TCP was refused.
        .option("--read-timeout", "3")
        .option("--metrics", "127.0.0.1:0")
        .start();
    let disk = File::open(host.mount().join("disk.img")).unwrap();
    assert!(disk.read_exact_at(&mut [0; 512], 0).is_err());
    // The first attempt to connect may end later than the read.
    let page = scrape_until(&launch, &metrics_of(&launch), |page| {
        page.sum("vmtorrent_image_dial_failures_total") >= 1.0
    });
    let timeouts = page.sum("vmtorrent_appliance_read_timeouts_total");
    assert!(timeouts >= 1.0);
    let errors = page.value("vmtorrent_appliance_errors_total", &[("operation", "read")]);
    assert_eq!(errors, timeouts);
    assert_eq!(page.sum("vmtorrent_appliance_reads_total"), 0.0);
    let waits = page.value(
        "vmtorrent_appliance_demand_wait_seconds_bucket",
        &[("le", "0.5")],
    );
    assert_eq!(waits, 0.0, "all waited for seconds");
    assert_eq!(
        page.sum("vmtorrent_appliance_demand_wait_seconds_count"),
        timeouts
    );
    drop(disk);
    launch.stop();
}

#[test]
fn other_paths_and_methods_are_refused_and_a_port_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("disk.img");
    Reference::new(300_000, 3).write_to(&original);
    let torrent = dir.path().join("disk.torrent");
    publish(&original, &torrent, &[]);
    let source = seed(&torrent, dir.path(), &["--metrics", "127.0.0.1:0"]);
    let url = metrics_of(&source);
    let address = url
        .strip_prefix("http://")
        .unwrap()
        .strip_suffix("/metrics")
        .unwrap();
    for (request, status) in [
        ("GET / HTTP/1.0", 404),
        ("GET /metrics/x HTTP/1.0", 404),
        ("POST /metrics HTTP/1.0", 405),
        ("DELETE /metrics HTTP/1.0", 405),
        ("HEAD /metrics HTTP/1.0", 405),
        ("nonsense", 400),
    ] {
        let answer = http(address, &format!("{request}\r\n\r\n"));
        let expected = format!(" {status} ");
        assert!(answer[..16].contains(&expected), "{request}: {answer}");
    }
    let mut command = vmtorrent_tests::command();
    command
        .arg("seed")
        .arg(&torrent)
        .arg("--data")
        .arg(dir.path());
    command.args(["--listen", "127.0.0.1:0", "--metrics", address]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains(address) && message.contains("choose another"),
        "{message}"
    );
    source.stop();
}
