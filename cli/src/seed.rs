//! Invariant: the published data is only read.

use std::net::SocketAddr;
use std::process::ExitCode;

use vmtorrent::image::{Image, Magnet, Source};
use vmtorrent::{Seed, Session, SessionOptions};

use crate::args::{SeedArgs, Switch};
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
    let defaults = SessionOptions::default();
    let session = Session::start(SessionOptions {
        listen: args.listen.unwrap_or(defaults.listen),
        upload_limit: args.upload_limit,
        local_discovery: !args.network.no_lsd,
        dht: !args.network.no_dht,
        dht_bootstrap: args.network.dht_bootstrap(),
        utp: !args.network.no_utp,
        peer_exchange: !args.network.no_pex,
        profile_exchange: !args.network.no_profile_exchange,
        compression: args.network.compression == Switch::On,
        max_connections: args.network.max_connections.into(),
        upload_slots: args.network.upload_slots.map(usize::from),
        ..defaults
    })
    .await?;
    let image = session.load(&source).await?;
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
    let image = seed.image();
    let magnet = magnet(image, listen, tracker);
    let tracker = tracker.map(announce_url);
    let info_hash = image.info_hash().to_string();
    let mut text = format!("seeding {} ({info_hash}) on {listen}", image.name());
    if let Some(url) = &tracker {
        text += &format!(", tracker at {url}");
    }
    text += &format!("\n{magnet}");
    let ready = Ready::Seed {
        listen,
        tracker,
        metrics: metrics.map(metrics_url),
        info_hash,
        image_bytes: image.geometry().total_length(),
        magnet: magnet.to_string(),
    };
    output.ready(ready, text);
    Ok((session, seed))
}

fn announce_url(tracker: SocketAddr) -> String {
    format!("http://{tracker}/announce")
}

/// The link to what is seeded. Addresses are in it only where they mean one host: 0.0.0.0 would lead nowhere.
fn magnet(image: &Image, listen: SocketAddr, tracker: Option<SocketAddr>) -> Magnet {
    let mut magnet = image.magnet();
    let tracker = tracker.filter(|address| !address.ip().is_unspecified());
    if let Some(Ok(url)) = tracker.map(|address| announce_url(address).parse()) {
        magnet.add_tracker(url);
    }
    if !listen.ip().is_unspecified() {
        magnet.add_peer(listen);
    }
    magnet
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmtorrent::image::{PublishOptions, publish};

    #[test]
    fn a_link_names_only_addresses_that_lead_somewhere() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("disk"), [7; 1000]).unwrap();
        let image = publish(&dir.path().join("disk"), &PublishOptions::default())
            .unwrap()
            .image;
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let anywhere = magnet(&image, address("0.0.0.0:1"), Some(address("0.0.0.0:2")));
        assert_eq!(
            anywhere.to_string(),
            format!("magnet:?xt=urn:btih:{}&dn=disk", image.info_hash())
        );
        let here = magnet(&image, address("192.0.2.7:1"), Some(address("[::1]:2")));
        let tail = "&dn=disk&tr=http%3A%2F%2F%5B%3A%3A1%5D%3A2%2Fannounce&x.pe=192.0.2.7:1";
        assert!(here.to_string().ends_with(tail), "{here}");
    }
}
