//! Invariant: the published data is only read.

use std::process::ExitCode;

use vmtorrent::image::Source;
use vmtorrent::{Seed, Session, SessionOptions};

use crate::args::SeedArgs;
use crate::failure::Failure;
use crate::output::{LiveLine, Output, Ready, View, metrics_url};
use crate::signals::Signals;
use crate::ticks;

/// Serves a published image until a signal comes.
pub async fn run(args: SeedArgs, line: LiveLine) -> Result<ExitCode, Failure> {
    let mut signals = Signals::catch()?;
    let mut output = Output::new(args.json, false, line);
    let (session, seed) = tokio::select! {
        started = start(&args, &output) => started?,
        caught = signals.next() => return Ok(caught.exit_code()),
    };

    let mut ticks = ticks::each_second();
    loop {
        tokio::select! {
            _ = signals.next() => break,
            _ = ticks.tick() => output.progress(seed.stats(), View::Seed),
        }
    }
    let end = async {
        let stats = seed.shutdown().await?;
        session.shutdown().await?;
        Ok::<_, vmtorrent::Error>(stats)
    };
    let stats = tokio::select! {
        stats = end => stats?,
        caught = signals.next() => return Ok(caught.exit_code()),
    };
    output.done(&stats, View::Seed);
    Ok(ExitCode::SUCCESS)
}

async fn start(args: &SeedArgs, output: &Output) -> Result<(Session, Seed), Failure> {
    let source: Source = args.torrent.parse()?;
    let image = source.load().await?;
    let defaults = SessionOptions::default();
    let session = Session::start(SessionOptions {
        listen: args.listen.unwrap_or(defaults.listen),
        upload_limit: args.upload_limit,
        local_discovery: !args.network.no_lsd,
        max_connections: args.network.max_connections.into(),
        ..defaults
    })
    .await?;
    // First, because the torrent may well name this tracker.
    let tracker = match args.tracker {
        Some(address) => Some(session.serve_tracker(address).await?),
        None => None,
    };
    let metrics = match args.metrics {
        Some(address) => Some(session.serve_metrics(address).await?),
        None => None,
    };
    let seed = session.seed(image, &args.data).await?;

    let listen = session.listen_address();
    let tracker = tracker.map(|address| format!("http://{address}/announce"));
    let image = seed.image();
    let info_hash = image.info_hash().to_string();
    let mut text = format!("seeding {} ({info_hash}) on {listen}", image.name());
    if let Some(url) = &tracker {
        text += &format!(", tracker at {url}");
    }
    let ready = Ready::Seed {
        listen,
        tracker,
        metrics: metrics.map(metrics_url),
        info_hash,
        image_bytes: image.geometry().total_length(),
    };
    output.ready(ready, text);
    Ok((session, seed))
}
