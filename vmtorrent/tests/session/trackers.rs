//! Peers find each other by a tracker, and whoever leaves says so before it is gone.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use vmtorrent::image::{Image, PublishOptions};

use super::common::{loopback, published};
use super::{MIB, content, options, read_all, session};

/// What a tracker counts: peers that have all, and peers that lack something.
fn scrape(tracker: SocketAddr, image: &Image) -> String {
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
