//! A BitTorrent peer on the stock `librqbit` engine, for the interoperability tests.
//!
//! `librqbit_peer --listen IP:PORT [--peer IP:PORT]... [--upload-limit BYTES] DIR SOURCE...`
//!
//! It serves what `DIR` holds of the torrents (files or magnet links), fetches the rest, and goes on until SIGTERM.
//!
//! Invariant: it prints one JSON event a line and nothing else on stdout: `ready` (`listen`), `progress`
//! (`present_bytes`, `image_bytes`, `uploaded_bytes`, of all torrents together; while anything of a torrent is unknown,
//! `image_bytes` is 0), `done`. The log goes to stderr.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use librqbit::{
    AddTorrent, AddTorrentOptions, ListenerOptions, ManagedTorrent, Session, SessionOptions,
};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How often progress is told.
const BEAT: Duration = Duration::from_millis(200);

struct Settings {
    listen: SocketAddr,
    peers: Vec<SocketAddr>,
    upload_limit: Option<NonZeroU32>,
    directory: PathBuf,
    sources: Vec<String>,
}

impl Settings {
    fn from_words(mut words: impl Iterator<Item = String>) -> Outcome<Self> {
        let (mut listen, mut peers, mut upload_limit) = (None, Vec::new(), None);
        let mut rest = Vec::new();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--listen" => listen = Some(value()?.parse()?),
                "--peer" => peers.push(value()?.parse()?),
                "--upload-limit" => upload_limit = Some(value()?.parse()?),
                _ => rest.push(word),
            }
        }
        if rest.len() < 2 {
            return Err("a directory and a source are needed".into());
        }
        Ok(Self {
            listen: listen.ok_or("--listen is needed")?,
            peers,
            upload_limit,
            directory: rest.remove(0).into(),
            sources: rest,
        })
    }
}

fn tell(event: &Value) -> Outcome<()> {
    Ok(writeln!(std::io::stdout().lock(), "{event}")?)
}

fn progress(torrents: &[Arc<ManagedTorrent>], expected: usize) -> Value {
    let (mut present, mut total, mut uploaded) = (0, 0, 0);
    let mut known = torrents.len() == expected;
    for torrent in torrents {
        let stats = torrent.stats();
        present += stats.progress_bytes;
        total += stats.total_bytes;
        uploaded += stats.uploaded_bytes;
        known &= stats.error.is_none() && stats.live.is_some();
    }
    json!({
        "event": "progress",
        "present_bytes": present,
        "image_bytes": if known { total } else { 0 },
        "uploaded_bytes": uploaded,
    })
}

async fn run(settings: Settings) -> Outcome<()> {
    let mut end = signal(SignalKind::terminate())?;
    let mut options = SessionOptions {
        dht: None,
        listen: Some(ListenerOptions {
            listen_addr: settings.listen,
            ipv4_only: true,
            ..ListenerOptions::default()
        }),
        disable_local_service_discovery: true,
        ipv4_only: true,
        ..SessionOptions::default()
    };
    options.ratelimits.upload_bps = settings.upload_limit;
    let session = Session::new_with_opts(settings.directory, options).await?;
    let address = session.listen_addr().ok_or("it does not listen")?;

    let mut torrents = Vec::new();
    let magnets = settings.sources.iter().any(|s| s.starts_with("magnet:"));
    let ready = || tell(&json!({"event": "ready", "listen": address.to_string()}));
    if magnets {
        // Adding a magnet link waits for the metadata, and those who have it may wait for our address.
        ready()?;
    }
    for source in &settings.sources {
        let options = AddTorrentOptions {
            overwrite: true,
            initial_peers: Some(settings.peers.clone()),
            ..AddTorrentOptions::default()
        };
        let added = session.add_torrent(AddTorrent::from_cli_argument(source)?, Some(options));
        let added = tokio::select! {
            added = added => added?,
            _ = end.recv() => return tell(&json!({"event": "done"})),
        };
        let torrent = added.into_handle().ok_or("nothing was added")?;
        torrent.wait_until_initialized().await?;
        torrents.push(torrent);
    }
    if !magnets {
        ready()?;
    }
    let mut beat = tokio::time::interval(BEAT);
    loop {
        tokio::select! {
            _ = beat.tick() => tell(&progress(&torrents, settings.sources.len()))?,
            _ = end.recv() => break,
        }
    }
    session.stop().await;
    tell(&json!({"event": "done"}))
}

fn main() -> Outcome<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    // Where the whole workspace is built at once, its HTTP client has TLS without a choice of who computes it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = Settings::from_words(std::env::args().skip(1))?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run(settings))
}
