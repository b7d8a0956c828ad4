//! Invariant: whatever ends it, the VMM ends before its disk does, and what the guest wrote is flushed before the
//! mount goes; only a second signal hurries past that.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use vmtorrent::image::{Image, Source};
use vmtorrent::profile::Profile;
use vmtorrent::vmm::Ended;
use vmtorrent::{Appliance, ApplianceOptions, Event, Session, SessionOptions, State};

use crate::args::{LaunchArgs, Switch};
use crate::failure::Failure;
use crate::mount_point::MountPoint;
use crate::output::{LiveLine, Output, Ready, View, json_path, metrics_url};
use crate::report::{Follower, Phase};
use crate::signals::{Caught, Signals};
use crate::ticks;
use crate::vmm::{self, Choice, Vmm};

/// What ended the wait.
enum End {
    Vmm(Ended),
    Signal(Caught, Option<Ended>),
}

/// Shows the image, runs the VMM, and cleans up.
pub async fn run(mut args: LaunchArgs, line: LiveLine) -> Result<ExitCode, Failure> {
    let mut signals = Signals::catch()?;
    let report = Follower::begin(std::mem::take(&mut args.report))?;
    let choice = args.take_choice();
    choice.check()?;
    let shares_terminal = !choice.is_none() && io::stdout().is_terminal();
    let mut output = Output::new(args.json, shares_terminal, line);
    let mount = MountPoint::choose(args.mount.as_deref())?;
    let source = args.source.parse::<Source>()?.with_peers(&args.peers);
    if matches!(source, Source::Magnet(_)) {
        output.work("asking peers for the image's description");
    }
    let (session, appliance, metrics) = tokio::select! {
        started = start(args, &source, &mount, &report) => started?,
        caught = signals.next() => return Ok(caught.exit_code()),
    };

    let attended = attend(
        &session,
        &appliance,
        metrics,
        &choice,
        &mut signals,
        &mut output,
        &report,
    );
    let ended = tokio::select! {
        ended = attended => ended,
        never = report.watch(&appliance) => match never {},
    };
    let reported = report.finish(&appliance);
    if let Err(failure) = &reported {
        output.warn(failure);
    }
    let end = async {
        let stats = appliance.shutdown().await?;
        session.shutdown().await?;
        Ok::<_, vmtorrent::Error>(stats)
    };
    let stats = tokio::select! {
        stats = end => stats,
        caught = signals.next() => {
            mount.detach();
            return Ok(caught.exit_code());
        }
    };
    // The first failure is the one that explains the others.
    let ended = ended?;
    output.done(&stats?, View::Appliance);
    let (code, vmm) = match ended {
        End::Vmm(ended) => (
            ended.status.map_or(ExitCode::FAILURE, vmm::exit_code),
            Some(ended),
        ),
        End::Signal(_, _) if choice.is_none() => (ExitCode::SUCCESS, None),
        End::Signal(caught, ended) => (caught.exit_code(), ended),
    };
    let left = vmm.map(|vmm| vmm.left).unwrap_or_default();
    for text in &left {
        output.warn(text);
    }
    // What was asked for is not there, or something is that should be gone.
    if (reported.is_err() || !left.is_empty()) && code == ExitCode::SUCCESS {
        return Ok(ExitCode::FAILURE);
    }
    Ok(code)
}

async fn start(
    args: LaunchArgs,
    source: &Source,
    mount: &MountPoint,
    report: &Follower,
) -> Result<(Session, Appliance, Option<SocketAddr>), Failure> {
    let read_timeout = args.read_timeout();
    let metadata_timeout = args.metadata_timeout();
    // Before anything is begun that would have to be undone.
    let profile = args.profile.as_deref().map(Profile::load).transpose()?;
    let session = Session::start(SessionOptions {
        listen: args.listen.unwrap_or(SessionOptions::default().listen),
        cache: args.cache,
        download_limit: args.download_limit,
        upload_limit: args.upload_limit,
        discovery: !args.no_discovery,
        local_discovery: !args.network.no_lsd,
        dht: !args.network.no_dht,
        dht_bootstrap: args.network.dht_bootstrap(),
        utp: !args.network.no_utp,
        peer_exchange: !args.network.no_pex,
        profile_exchange: !args.network.no_profile_exchange,
        compression: args.network.compression == Switch::On,
        max_connections: args.network.max_connections.into(),
        upload_slots: args.network.upload_slots.map(usize::from),
        metadata_timeout,
        max_disk: args.max_disk,
        ..SessionOptions::default()
    })
    .await?;
    let metrics = match args.metrics {
        Some(address) => Some(session.serve_metrics(address).await?),
        None => None,
    };
    report.mark(Phase::Session);
    let image = session.load(source).await?;
    report.mark(Phase::Image);
    let state = match args.state {
        _ if args.ephemeral => State::Ephemeral,
        Some(directory) => State::Directory(directory),
        None => State::Default,
    };
    let options = ApplianceOptions {
        state,
        mount: Some(mount.path().to_owned()),
        allow_other: args.allow_other,
        peers: args.peers,
        web_seeds: args.web_seeds,
        fill: args.fill.into(),
        profile,
        auto_profile: args.auto_profile == Switch::On,
        record: args.record,
        read_timeout,
        trace: args.trace,
    };
    let appliance = session.launch(image, options).await?;
    report.mark(Phase::Appliance);
    Ok((session, appliance, metrics))
}

/// Starts the VMM, if there is one, and waits for its end or for a signal, which ends it.
async fn attend(
    session: &Session,
    appliance: &Appliance,
    metrics: Option<SocketAddr>,
    choice: &Choice,
    signals: &mut Signals,
    output: &mut Output,
    report: &Follower,
) -> Result<End, Failure> {
    let (Some(disk), Some(dir)) = (appliance.disk_path(), appliance.directory()) else {
        return Err(Failure::new(
            "the appliance has no mount point: report this",
        ));
    };
    let image = appliance.image();
    let ready = Ready::Launch {
        disk: &json_path(&disk),
        dir: &json_path(dir),
        listen: session.listen_address(),
        metrics: metrics.map(metrics_url),
        info_hash: image.info_hash().to_string(),
        image_bytes: image.geometry().total_length(),
    };
    output.ready(ready, format_args!("ready: {}", disk.display()));

    let vmm = match choice.is_none() {
        true => None,
        false => {
            let vmm = Vmm::begin(choice, appliance, output.is_json())?;
            tokio::select! {
                started = vmm.started() => started?,
                caught = signals.next() => return Ok(End::Signal(caught, Some(vmm.stop(signals).await?))),
            }
            report.mark(Phase::Vmm);
            Some(vmm)
        }
    };
    let mut events = appliance.events();
    let mut told = Told::default();
    let mut ticks = ticks::each_second();
    loop {
        let vmm_ended = async {
            match &vmm {
                Some(vmm) => vmm.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = vmm_ended => return ended.map(End::Vmm),
            caught = signals.next() => {
                let ended = match &vmm {
                    Some(vmm) => Some(vmm.stop(signals).await?),
                    None => None,
                };
                return Ok(End::Signal(caught, ended));
            }
            event = next_event(&mut events) => told.tell(&event, image, output),
            _ = ticks.tick() => output.progress(appliance.stats(), View::Appliance),
        }
    }
}

/// The next event; nothing more once there are none.
async fn next_event(events: &mut Receiver<Event>) -> Event {
    loop {
        match events.recv().await {
            Ok(event) => return event,
            // The counters tell what was missed.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// What was said to a person.
#[derive(Default)]
struct Told {
    time_out: Option<Instant>,
}

/// How long nothing is said of further reads that time out: a guest tries again and again.
const TIME_OUT_PAUSE: Duration = Duration::from_secs(10);

impl Told {
    /// Names what a person should know at once.
    fn tell(&mut self, event: &Event, image: &Image, output: &Output) {
        match event {
            Event::ReadTimedOut {
                file,
                offset,
                peers,
            } => {
                let now = Instant::now();
                if self.time_out.is_some_and(|last| now - last < TIME_OUT_PAUSE) {
                    return;
                }
                self.time_out = Some(now);
                let name = image.files().get(*file).map(|f| f.path.join("/"));
                output.warn(format_args!(
                    "a read of {} at {offset} got no data in time and failed; {peers} peers are connected: \
                     check the network, add a --peer or a --web-seed, or set a longer --read-timeout",
                    name.unwrap_or_default()
                ));
            }
            Event::StorageFailed { reason } => output.warn(format_args!(
                "what is downloaded can't be stored: {reason}; check the disk of the cache directory. What reads need \
                 is kept in memory for a while"
            )),
            Event::CacheFull { reason } => output.warn(format_args!(
                "the downloaded copy can't grow: {reason}. Nothing is fetched in the background any more; what reads \
                 need is fetched again each time it is no longer here. Free some space, or set a larger --max-disk"
            )),
            Event::WebSeedGivenUp { url, reason } => output.warn(format_args!(
                "the web seed {url} is not counted on any more: {reason}. Others that have the image are asked; check \
                 the server, or name another with --web-seed"
            )),
            // The progress shows it.
            _ => {}
        }
    }
}
