//! The Rust API over a real swarm on loopback: sessions, seeds and appliances in one process, without a kernel mount.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use vmtorrent::image::{Image, PublishOptions};
use vmtorrent::{
    Appliance, ApplianceOptions, ErrorKind, Event, Fill, Session, SessionOptions, State,
};

use self::common::{loopback, published, random};

const MIB: usize = 1 << 20;

/// Content that has zeros, a repetition and a short last piece.
fn content(length: usize) -> Vec<u8> {
    let mut data = random(length, 0x2545_f491_4f6c_dd1d);
    data[MIB..2 * MIB].fill(0);
    let (first, rest) = data.split_at_mut(2 * MIB);
    rest[..MIB / 2].copy_from_slice(&first[..MIB / 2]);
    data
}

async fn session(cache: &Path) -> Session {
    let options = SessionOptions {
        listen: loopback(),
        cache: Some(cache.to_owned()),
        // Tests that run at the same time publish the same content.
        local_discovery: false,
        ..SessionOptions::default()
    };
    Session::start(options).await.unwrap()
}

fn options(state: &Path, peer: Option<SocketAddr>) -> ApplianceOptions {
    ApplianceOptions {
        state: State::Directory(state.to_owned()),
        peers: peer.into_iter().collect(),
        fill: Fill::None,
        read_timeout: Some(Duration::from_secs(30)),
        ..ApplianceOptions::default()
    }
}

async fn read_all(appliance: &Appliance, length: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(length);
    while all.len() < length {
        let part = appliance
            .read_at(0, all.len() as u64, 300_000)
            .await
            .unwrap();
        assert!(!part.is_empty());
        all.extend_from_slice(&part);
    }
    all
}

#[tokio::test]
async fn ten_appliances_of_one_image_cost_one_download_and_keep_ten_overlays() {
    let scratch = tempfile::tempdir().unwrap();
    let data = content(8 * MIB + 12_345);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    let origin = session(&scratch.path().join("unused")).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();

    let host = session(&scratch.path().join("cache")).await;
    let mut appliances = Vec::new();
    for n in 0..10 {
        let state = scratch.path().join(format!("state-{n}"));
        let peer = Some(origin.listen_address());
        appliances.push(
            host.launch(image.clone(), options(&state, peer))
                .await
                .unwrap(),
        );
    }
    for (n, appliance) in appliances.iter().enumerate() {
        // Not aligned to anything, so that the overlay needs the pristine bytes around it.
        let mark = Bytes::from(format!("machine {n}"));
        appliance.write_at(0, 5_000_000 + 7, mark).await.unwrap();
        appliance.flush(0).await.unwrap();
    }
    for (n, appliance) in appliances.iter().enumerate() {
        let mut expected = data.clone();
        let mark = format!("machine {n}");
        expected[5_000_007..5_000_007 + mark.len()].copy_from_slice(mark.as_bytes());
        assert!(
            read_all(appliance, data.len()).await == expected,
            "machine {n} reads something else"
        );
    }
    let stats = appliances[0].stats();
    let unique = (data.len() - MIB - MIB / 2) as u64;
    assert!(
        stats.fetched_bytes >= unique - (64 << 10) && stats.fetched_bytes <= unique + (64 << 10),
        "fetched {} of {unique} bytes",
        stats.fetched_bytes
    );
    assert_eq!(stats.present_bytes, data.len() as u64);
    let bands =
        stats.demand_bytes + stats.readahead_bytes + stats.profile_bytes + stats.background_bytes;
    assert_eq!(bands, stats.fetched_bytes);
    assert_eq!(stats.background_bytes, 0, "nobody asked for a fill");
    assert!(
        seed.stats().uploaded_bytes <= unique + (128 << 10),
        "one download, not ten"
    );

    for appliance in appliances {
        appliance.shutdown().await.unwrap();
    }
    host.shutdown().await.unwrap();
    seed.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
    // The published file was only read.
    assert!(std::fs::read(scratch.path().join("disk.img")).unwrap() == data);
}

#[tokio::test]
async fn writes_survive_a_relaunch_and_whole_blocks_fetch_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let data = content(4 * MIB);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    let state = scratch.path().join("state");
    // No seed at all: what must be fetched would time out.
    let host = session(&scratch.path().join("cache")).await;
    let appliance = host
        .launch(image.clone(), options(&state, None))
        .await
        .unwrap();
    let block = Bytes::from(vec![7; 8192]);
    appliance.write_at(0, 4096, block.clone()).await.unwrap();
    appliance.write_zeroes(0, 16_384, 4096).await.unwrap();
    appliance.discard(0, 32_768, 65_536).await.unwrap();
    appliance.set_len(0, 5 * MIB as u64).unwrap();
    appliance
        .write_at(0, 4 * MIB as u64 + 100, Bytes::from_static(b"behind"))
        .await
        .unwrap();
    let stats = appliance.shutdown().await.unwrap();
    assert_eq!((stats.fetched_bytes, stats.stalls), (0, 0));

    let appliance = host.launch(image, options(&state, None)).await.unwrap();
    assert_eq!(appliance.len(0).unwrap(), 5 * MIB as u64);
    assert_eq!(appliance.read_at(0, 4096, 8192).await.unwrap(), block);
    assert_eq!(
        appliance.read_at(0, 16_384, 4096).await.unwrap(),
        vec![0; 4096]
    );
    assert_eq!(
        appliance.read_at(0, 32_768, 65_536).await.unwrap(),
        vec![0; 65_536]
    );
    assert_eq!(
        &appliance.read_at(0, 4 * MIB as u64 + 100, 6).await.unwrap()[..],
        b"behind"
    );
    // The end of the file: fewer bytes, then none.
    assert_eq!(
        appliance
            .read_at(0, 5 * MIB as u64 - 10, 100)
            .await
            .unwrap()
            .len(),
        10
    );
    assert!(
        appliance
            .read_at(0, u64::MAX - 5, 100)
            .await
            .unwrap()
            .is_empty()
    );
    appliance.shutdown().await.unwrap();
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_read_past_its_deadline_fails_tells_so_and_later_reads_go_on() {
    let scratch = tempfile::tempdir().unwrap();
    let data = content(4 * MIB);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    let host = session(&scratch.path().join("cache")).await;
    let launch = ApplianceOptions {
        read_timeout: Some(Duration::from_millis(200)),
        ..options(&scratch.path().join("state"), None)
    };
    let appliance = host.launch(image.clone(), launch).await.unwrap();
    let mut events = appliance.events();
    let error = appliance.read_at(0, 0, 4096).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    let event = events.recv().await.unwrap();
    assert_eq!(
        event,
        Event::ReadTimedOut {
            file: 0,
            offset: 0,
            peers: 0
        }
    );

    // Somebody begins to seed.
    let origin = session(&scratch.path().join("cache-of-the-origin")).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();
    let late = ApplianceOptions {
        read_timeout: Some(Duration::from_secs(30)),
        ..options(
            &scratch.path().join("state-3"),
            Some(origin.listen_address()),
        )
    };
    let second = host.launch(image, late).await.unwrap();
    assert!(read_all(&second, data.len()).await == data);
    assert!(
        read_all(&appliance, data.len()).await == data,
        "the first appliance shares the copy"
    );
    second.shutdown().await.unwrap();
    appliance.shutdown().await.unwrap();
    seed.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
    host.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_damaged_pristine_byte_is_found_after_a_restart_and_fetched_again() {
    let scratch = tempfile::tempdir().unwrap();
    let data = content(4 * MIB);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    let cache = scratch.path().join("cache");
    let origin = session(&scratch.path().join("unused")).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();
    let peer = Some(origin.listen_address());
    let state = scratch.path().join("state");

    let host = session(&cache).await;
    let appliance = host
        .launch(image.clone(), options(&state, peer))
        .await
        .unwrap();
    assert!(read_all(&appliance, data.len()).await == data);
    appliance.shutdown().await.unwrap();
    host.shutdown().await.unwrap();

    let stored = cache
        .join(image.info_hash().to_string())
        .join("data")
        .join("disk.img");
    let mut bytes = std::fs::read(&stored).unwrap();
    bytes[100_000] ^= 1;
    std::fs::write(&stored, bytes).unwrap();

    let host = session(&cache).await;
    let appliance = host.launch(image, options(&state, peer)).await.unwrap();
    assert!(read_all(&appliance, data.len()).await == data);
    let page = host.metrics();
    let damaged = page
        .lines()
        .find(|l| l.starts_with("vmtorrent_image_pieces_damaged_total"));
    assert!(damaged.unwrap().ends_with(" 1"), "{page}");
    let stats = appliance.shutdown().await.unwrap();
    let piece = u64::from(vmtorrent::image::default_piece_size(data.len() as u64));
    assert_eq!(stats.fetched_bytes, piece, "only the damaged piece");
    host.shutdown().await.unwrap();
    seed.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_export_fetches_what_is_missing_and_holds_what_the_guest_wrote() {
    let scratch = tempfile::tempdir().unwrap();
    let data = content(4 * MIB + 1);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    let origin = session(&scratch.path().join("unused")).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();
    let state = scratch.path().join("state");
    let host = session(&scratch.path().join("cache")).await;
    let launched = options(&state, Some(origin.listen_address()));
    let appliance = host.launch(image, launched).await.unwrap();
    appliance
        .write_at(0, 3_000_001, Bytes::from_static(b"written"))
        .await
        .unwrap();
    appliance.shutdown().await.unwrap();
    host.shutdown().await.unwrap();

    let output = scratch.path().join("out.img");
    vmtorrent::export(&state, &output, vmtorrent::ExportOptions::default())
        .await
        .unwrap();
    let mut expected = data;
    expected[3_000_001..3_000_008].copy_from_slice(b"written");
    assert!(std::fs::read(&output).unwrap() == expected);
    let again = vmtorrent::export(&state, &output, vmtorrent::ExportOptions::default()).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::InUse);
    seed.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
}

/// The least of an executor.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::park();
    }
}

#[test]
fn the_api_works_from_any_executor() {
    // No tokio runtime here: the session brings its own.
    let scratch = tempfile::tempdir().unwrap();
    let data = content(4 * MIB);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    block_on(async {
        let host = session(&scratch.path().join("cache")).await;
        let appliance = host
            .launch(image, options(&scratch.path().join("state"), None))
            .await
            .unwrap();
        appliance
            .write_at(0, 0, Bytes::from(vec![1; 4096]))
            .await
            .unwrap();
        appliance.flush(0).await.unwrap();
        assert_eq!(appliance.read_at(0, 0, 4096).await.unwrap(), vec![1; 4096]);
        appliance.shutdown().await.unwrap();
        host.shutdown().await.unwrap();
    });
}

/// What a tracker counts: peers that have all, and peers that lack something.
fn scrape(tracker: SocketAddr, image: &Image) -> String {
    use std::io::{Read, Write};
    let hash: String = image
        .info_hash()
        .0
        .iter()
        .map(|b| format!("%{b:02x}"))
        .collect();
    let mut stream = std::net::TcpStream::connect(tracker).unwrap();
    let request = format!("GET /scrape?info_hash={hash} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn peers_find_each_other_by_the_seeds_tracker_and_say_good_bye() {
    let scratch = tempfile::tempdir().unwrap();
    let data = content(4 * MIB);
    let origin = session(&scratch.path().join("unused")).await;
    let tracker = origin.serve_tracker(loopback()).await.unwrap();
    let options_of = PublishOptions {
        trackers: vec![format!("http://{tracker}/announce")],
        ..PublishOptions::default()
    };
    let image = published(scratch.path(), &data, &options_of);
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();
    let host = session(&scratch.path().join("cache")).await;
    let launched = options(&scratch.path().join("state"), None);
    let appliance = host.launch(image.clone(), launched).await.unwrap();
    assert!(read_all(&appliance, data.len()).await == data);
    let counted = scrape(tracker, &image);
    assert!(
        counted.contains("8:completei1e") || counted.contains("8:completei2e"),
        "{counted}"
    );
    // The last user of the image tells the tracker.
    appliance.shutdown().await.unwrap();
    seed.shutdown().await.unwrap();
    let counted = scrape(tracker, &image);
    let gone = !counted.contains("8:complete")
        || (counted.contains("8:completei0e") && counted.contains("10:incompletei0e"));
    assert!(gone, "{counted}");
    host.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
}

/// A tracker that lets every peer wait half a second for the answer to its good-bye, and counts those answers.
fn slow_tracker() -> (SocketAddr, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    use std::io::{Read, Write};
    use std::sync::atomic::{AtomicUsize, Ordering};
    let listener = std::net::TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    let told = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = told.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), told) = (stream, counted.clone()) else {
                return;
            };
            std::thread::spawn(move || {
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0)
                {
                    request.push(byte[0]);
                }
                if String::from_utf8_lossy(&request).contains("event=stopped") {
                    // Not to wait for anything, but to be slow.
                    std::thread::sleep(Duration::from_millis(500));
                    told.fetch_add(1, Ordering::SeqCst);
                }
                let body = "d8:intervali1800e5:peers0:e";
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + body).as_bytes());
            });
        }
    });
    (address, told)
}

#[tokio::test]
async fn a_shutdown_ends_only_when_the_tracker_has_taken_the_good_bye() {
    use std::sync::atomic::Ordering;
    let scratch = tempfile::tempdir().unwrap();
    let (tracker, told) = slow_tracker();
    let options_of = PublishOptions {
        trackers: vec![format!("http://{tracker}/announce")],
        ..PublishOptions::default()
    };
    let image = published(scratch.path(), &content(4 * MIB), &options_of);
    let origin = session(&scratch.path().join("unused")).await;
    let seed = origin.seed(image.clone(), scratch.path()).await.unwrap();
    let host = session(&scratch.path().join("cache")).await;
    let peer = Some(origin.listen_address());
    let launch = |name: &str| host.launch(image.clone(), options(&scratch.path().join(name), peer));
    let (first, last) = (
        launch("first").await.unwrap(),
        launch("last").await.unwrap(),
    );
    // Both were registered once their announces were answered.
    let announced = "vmtorrent_image_tracker_announces_total";
    for session in [&origin, &host] {
        while !session
            .metrics()
            .lines()
            .any(|l| l.starts_with(announced) && l.contains("result=\"ok\"} 1"))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    first.shutdown().await.unwrap();
    assert_eq!(told.load(Ordering::SeqCst), 0, "the image is still in use");
    last.shutdown().await.unwrap();
    assert_eq!(
        told.load(Ordering::SeqCst),
        1,
        "the last appliance waits for it"
    );
    seed.shutdown().await.unwrap();
    assert_eq!(told.load(Ordering::SeqCst), 2, "and so does the seed");
    host.shutdown().await.unwrap();
    origin.shutdown().await.unwrap();
}

#[tokio::test]
async fn metrics_tell_appliances_of_one_image_apart_and_forget_those_that_ended() {
    let scratch = tempfile::tempdir().unwrap();
    let data = content(4 * MIB);
    let image = published(scratch.path(), &data, &PublishOptions::default());
    let host = session(&scratch.path().join("cache")).await;
    // Of the same name, in different directories.
    let state = |place: &str| scratch.path().join(place).join("web");
    for place in ["a", "b"] {
        std::fs::create_dir(scratch.path().join(place)).unwrap();
    }
    let launch = |place| host.launch(image.clone(), options(&state(place), None));
    let (a, b) = (launch("a").await.unwrap(), launch("b").await.unwrap());
    a.write_at(0, 0, Bytes::from(vec![1; 4096])).await.unwrap();
    a.discard(0, 8192, 12_288).await.unwrap();
    let lines = |name: &str| -> Vec<String> {
        let name = format!("vmtorrent_{name}");
        let page = host.metrics();
        page.lines()
            .filter(|l| l.starts_with(&name))
            .map(str::to_owned)
            .collect()
    };
    let labels = |place: &str| {
        format!(
            "{{image=\"disk.img\",info_hash=\"{}\",appliance=\"web\",state=\"{}\"}}",
            image.info_hash(),
            state(place).display()
        )
    };
    let written = "appliance_written_bytes_total";
    let expected = |place, bytes| format!("vmtorrent_{written}{} {bytes}", labels(place));
    assert_eq!(lines(written), [expected("a", 4096), expected("b", 0)]);
    let discarded = &lines("appliance_discarded_bytes_total")[0];
    assert!(discarded.ends_with(" 12288"), "{discarded}");
    assert_eq!(lines("images"), ["vmtorrent_images 1"]);
    assert!(
        !host.metrics().contains("process_"),
        "these are for the server"
    );
    a.shutdown().await.unwrap();
    assert_eq!(lines(written), [expected("b", 0)]);
    b.shutdown().await.unwrap();
    assert_eq!(lines("images"), ["vmtorrent_images 0"]);

    let address = host.serve_metrics(loopback()).await.unwrap();
    let error = host.serve_metrics(loopback()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    host.shutdown().await.unwrap();
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "it ends with the session"
    );
}

#[test]
fn public_types_go_where_an_embedder_needs_them() {
    fn everywhere<T: Send + Sync + 'static>() {}
    everywhere::<Session>();
    everywhere::<Appliance>();
    everywhere::<vmtorrent::Seed>();
    everywhere::<vmtorrent::Error>();
    everywhere::<Image>();
    everywhere::<vmtorrent::Stats>();
}
