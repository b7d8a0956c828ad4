//! Many appliances of one image in one session, for the benchmarks: the command starts one for each process.
//!
//! `many TORRENT PEER DIR COUNT`
//!
//! Mounts the image COUNT times, in DIR/mnt-0, DIR/mnt-1, ..., with the cache and the states below DIR too, fill none,
//! and PEER as the only peer. Prints events as the command does: `ready` with `disks`, and after SIGTERM `done` with the
//! common counters of the first appliance and `guest_read_bytes` of all.
//!
//! Invariant: all appliances share one session, and all are shut down before `done`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool of the benchmarks, which read its end and its stdout"
)]

use std::path::PathBuf;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use vmtorrent::image::Source;
use vmtorrent::{ApplianceOptions, Fill, Session, SessionOptions, State};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [torrent, peer, directory, count] = words.as_slice() else {
        panic!("usage: many TORRENT PEER DIR COUNT");
    };
    let mut end = signal(SignalKind::terminate()).unwrap();
    let directory = PathBuf::from(directory);
    let session = Session::start(SessionOptions {
        cache: Some(directory.join("cache")),
        discovery: false,
        ..SessionOptions::default()
    })
    .await
    .unwrap();
    let source: Source = torrent.parse().unwrap();
    let image = session.load(&source).await.unwrap();
    let mut appliances = Vec::new();
    for n in 0..count.parse::<usize>().unwrap() {
        let mount = directory.join(format!("mnt-{n}"));
        std::fs::create_dir(&mount).unwrap();
        let options = ApplianceOptions {
            state: State::Directory(directory.join(format!("state-{n}"))),
            mount: Some(mount),
            peers: vec![peer.parse().unwrap()],
            fill: Fill::None,
            ..ApplianceOptions::default()
        };
        appliances.push(session.launch(image.clone(), options).await.unwrap());
    }
    let disks: Vec<_> = appliances.iter().map(|a| a.disk_path()).collect();
    println!("{}", json!({"event": "ready", "disks": disks}));
    end.recv().await;

    let common = appliances.first().map(|a| a.stats()).unwrap_or_default();
    let read: u64 = appliances.iter().map(|a| a.stats().guest_read_bytes).sum();
    for appliance in appliances {
        appliance.shutdown().await.unwrap();
    }
    session.shutdown().await.unwrap();
    let mut done = serde_json::to_value(common).unwrap();
    done["event"] = json!("done");
    done["guest_read_bytes"] = json!(read);
    println!("{done}");
}
