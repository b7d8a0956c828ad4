//! One image in a session: its pristine copy, its swarm and its tracker, shared by everybody who runs it.
//!
//! Invariant: there is at most one [`Torrent`] for an info-hash in a session, and it lives exactly as
//! long as somebody uses it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc};
use tokio::task::AbortHandle;
use tracing::{Instrument, Span};

use crate::announcer::Announcer;
use crate::dht::{self, Dht};
use crate::events::Event;
use crate::image::Image;
use crate::lsd::{LocalDiscovery, Registration};
use crate::metrics::{HighWater, ImageFigures, Labels};
use crate::options::Fill;
use crate::pristine::{Pristine, Shortage};
use crate::stats::Stats;
use crate::swarm::{GivenUp, MAX_REMEMBERED, PeersFile, Swarm, SwarmConfig};
use crate::tracker::{TrackerClient, TrackerConfig, TrackerHandle, TransferStats};

/// How often what was stored is made durable.
const SYNC_EVERY: Duration = Duration::from_secs(10);
/// When the peers that are worth it are noted for a later run: soon, and then more and more seldom.
const FIRST_NOTE: Duration = Duration::from_secs(1);
const NOTE_EVERY: Duration = Duration::from_secs(60);

/// What a torrent is started with.
pub(crate) struct TorrentConfig {
    pub(crate) swarm: SwarmConfig,
    pub(crate) tracker: Option<TrackerConfig>,
    /// Where peers on the local network are looked for.
    pub(crate) local: Option<LocalDiscovery>,
    /// One that announces the image already: it goes on, and none is started.
    /// Looks for its peers in the distributed hash table, unless that is off or the image is private.
    pub(crate) dht: Option<Arc<Dht>>,
    pub(crate) announcer: Option<Announcer>,
    /// The process that holds the cache already, if there is one.
    pub(crate) leader: Option<SocketAddr>,
    /// Whether the store is ours to sync.
    pub(crate) writable: bool,
}

/// An image that takes part in its swarm.
pub(crate) struct Torrent {
    image: Arc<Image>,
    pristine: Arc<Pristine>,
    swarm: Arc<Swarm>,
    tracker: Mutex<Option<TrackerHandle>>,
    local: Mutex<Option<Registration>>,
    dht: Mutex<Option<dht::Registration>>,
    tasks: Vec<AbortHandle>,
    /// Where peers are noted, if they are, and by which task.
    remembered: Mutex<Option<(Arc<Mutex<PeersFile>>, AbortHandle)>>,
    fills: Mutex<HashMap<u64, Fill>>,
    next_user: Mutex<u64>,
    events: broadcast::Sender<Event>,
    runtime: Handle,
    /// Names the image in the log.
    span: Span,
    fetched_shown: HighWater,
    web_seed_shown: HighWater,
    wire_shown: HighWater,
}

impl Torrent {
    pub(crate) fn start(config: TorrentConfig) -> Arc<Self> {
        let runtime = config.swarm.runtime.clone();
        let pristine = config.swarm.pristine.clone();
        let image = pristine.image().clone();
        let span = config.swarm.span.clone();
        // The tasks that are started here take the name with them.
        let _named = span.enter();
        tracing::info!(
            info_hash = %image.info_hash(),
            bytes = image.geometry().total_length(),
            present = pristine.present_bytes(),
            "in the swarm"
        );
        let swarm = Swarm::start(config.swarm);
        let told = Arc::downgrade(&swarm);
        pristine.share_budget(move || {
            if let Some(swarm) = told.upgrade() {
                swarm.look_at_store();
            }
        });
        if let Some(leader) = config.leader {
            swarm.add_address(leader, true);
        }
        let (events, _) = broadcast::channel(256);
        let mut tasks = Vec::new();
        let local = config.local.map(|local| {
            let (sender, receiver) = mpsc::channel(64);
            let found = take_peers(Arc::downgrade(&swarm), receiver);
            tasks.push(runtime.spawn(found).abort_handle());
            local.register(image.info_hash(), sender)
        });
        let dht = config.dht.map(|dht| {
            let (sender, receiver) = mpsc::channel(256);
            let found = take_peers(Arc::downgrade(&swarm), receiver);
            tasks.push(runtime.spawn(found).abort_handle());
            dht.register(image.info_hash(), sender)
        });
        let stats = || transfer_stats(&swarm, &pristine);
        let announced = match (config.announcer, config.tracker) {
            (Some(announcer), _) => Some(announcer.take_over(stats())),
            (None, Some(tracker)) => {
                let (sender, receiver) = mpsc::channel(256);
                let handle = TrackerClient::spawn(&runtime, tracker, stats(), sender);
                Some((handle, receiver))
            }
            (None, None) => None,
        };
        let tracker = announced.map(|(handle, receiver)| {
            tasks.push(
                runtime
                    .spawn(take_peers(Arc::downgrade(&swarm), receiver))
                    .abort_handle(),
            );
            handle
        });
        Arc::new_cyclic(|me: &Weak<Self>| {
            let watch = watch(me.clone(), swarm.clone()).in_current_span();
            tasks.push(runtime.spawn(watch).abort_handle());
            if config.writable {
                let sync = sync_often(pristine.clone()).in_current_span();
                tasks.push(runtime.spawn(sync).abort_handle());
            }
            Self {
                image,
                pristine,
                swarm,
                tracker: Mutex::new(tracker),
                local: Mutex::new(local),
                dht: Mutex::new(dht),
                tasks,
                remembered: Mutex::new(None),
                fills: Mutex::new(HashMap::new()),
                next_user: Mutex::new(0),
                events,
                runtime,
                span: span.clone(),
                fetched_shown: HighWater::default(),
                web_seed_shown: HighWater::default(),
                wire_shown: HighWater::default(),
            }
        })
    }

    pub(crate) fn image(&self) -> &Arc<Image> {
        &self.image
    }

    pub(crate) fn pristine(&self) -> &Arc<Pristine> {
        &self.pristine
    }

    pub(crate) fn swarm(&self) -> &Arc<Swarm> {
        &self.swarm
    }

    pub(crate) fn events(&self) -> &broadcast::Sender<Event> {
        &self.events
    }

    /// Takes up the peers that an earlier run knew, and notes those of this run in `file` for a later one.
    pub(crate) fn remember_peers(&self, known: &[SocketAddr], file: Option<PeersFile>) {
        self.swarm.remember(known);
        if let Some(file) = file {
            let file = Arc::new(Mutex::new(file));
            let task = note_peers(Arc::downgrade(&self.swarm), file.clone());
            let task = self.runtime.spawn(task).abort_handle();
            *self.remembered.lock() = Some((file, task));
        }
    }

    /// Somebody uses the torrent with a policy of filling; the most eager one holds.
    pub(crate) fn join(&self, fill: Fill) -> u64 {
        let user = {
            let mut next = self.next_user.lock();
            *next += 1;
            *next
        };
        self.change_fills(|fills| {
            fills.insert(user, fill);
        });
        user
    }

    /// That user has gone. True when it was the last one; saying it twice does no harm.
    pub(crate) fn leave(&self, user: u64) -> bool {
        let mut last = false;
        self.change_fills(|fills| last = fills.remove(&user).is_some() && fills.is_empty());
        last
    }

    fn change_fills(&self, change: impl FnOnce(&mut HashMap<u64, Fill>)) {
        let mut fills = self.fills.lock();
        change(&mut fills);
        let eager = |fill: &Fill| match fill {
            Fill::None => 0,
            Fill::Idle => 1,
            Fill::Full => 2,
        };
        let fill = fills
            .values()
            .copied()
            .max_by_key(eager)
            .unwrap_or(Fill::None);
        self.swarm.set_fill(fill);
    }

    /// The figures that belong to the image rather than to one appliance.
    pub(crate) fn stats(&self) -> Stats {
        let traffic = self.swarm.traffic();
        let [
            demand_bytes,
            readahead_bytes,
            profile_bytes,
            background_bytes,
        ] = traffic.fetched;
        Stats {
            image_bytes: self.image.geometry().total_length(),
            present_bytes: self.pristine.present_bytes(),
            fetched_bytes: traffic.fetched.iter().sum(),
            fetched_wire_bytes: traffic.fetched_wire,
            demand_bytes,
            readahead_bytes,
            profile_bytes,
            background_bytes,
            uploaded_bytes: traffic.uploaded,
            uploaded_wire_bytes: traffic.uploaded_wire,
            wasted_bytes: traffic.wasted,
            web_seed_bytes: traffic.web_seeds,
            peers: self.swarm.peer_count() as u32,
            web_seeds: self.swarm.web_seed_count() as u32,
            ..Stats::default()
        }
    }

    /// Names the image in the log.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// What monitoring is told of the image.
    pub(crate) fn figures(&self) -> ImageFigures {
        let traffic = self.swarm.traffic();
        let tracker = self.tracker.lock();
        let announces = tracker.as_ref().map(|t| t.counts());
        let counters = self.swarm.counters();
        ImageFigures {
            labels: self.labels(),
            total_bytes: self.image.geometry().total_length(),
            present_bytes: self.pristine.present_bytes(),
            fetched_bytes: self.fetched_shown.raise(traffic.fetched),
            fetched_wire_bytes: self.wire_shown.raise([traffic.fetched_wire, 0, 0, 0])[0],
            wasted_bytes: traffic.wasted,
            uploaded_bytes: traffic.uploaded,
            uploaded_wire_bytes: traffic.uploaded_wire,
            web_seed_bytes: self.web_seed_shown.raise([traffic.web_seeds, 0, 0, 0])[0],
            web_seeds: self.swarm.web_seed_count() as u64,
            peers: self.swarm.peers(),
            storage_failing: self.swarm.storage_error().is_some()
                || self.pristine.shortage().is_some_and(|s| s.refuses()),
            announces_answered: announces.map_or(0, |a| a.answered.get()),
            announces_failed: announces.map_or(0, |a| a.failed.get()),
            pieces_verified: counters.verified.get(),
            pieces_failed: counters.failed.get(),
            pieces_damaged: self.pristine.damaged_pieces(),
            storage_errors: counters.storage_errors.get() + self.pristine.refused_pieces(),
            dials: counters.dials.get(),
            dial_failures: counters.dial_failures.get(),
            refused: counters.refused.get(),
        }
    }

    /// What names the image to monitoring.
    pub(crate) fn labels(&self) -> Labels {
        Labels::none()
            .with("image", self.image.name())
            .with("info_hash", &self.image.info_hash().to_string())
    }

    /// Tells the tracker that we go, and makes the pristine copy durable. To be called by the last user.
    pub(crate) async fn end(&self) {
        self.leave_swarm().instrument(self.span.clone()).await;
    }

    async fn leave_swarm(&self) {
        drop(self.local.lock().take());
        drop(self.dht.lock().take());
        let tracker = self.tracker.lock().take();
        if let Some(tracker) = tracker {
            tracker.stop().await;
        }
        let remembered = self.remembered.lock().take();
        if let Some((file, task)) = remembered {
            task.abort();
            note(&self.swarm, file).await;
        }
        self.swarm.close();
        let pristine = self.pristine.clone();
        let synced = self.runtime.spawn_blocking(move || pristine.sync()).await;
        if let Ok(Err(error)) = synced {
            // Not fatal: what is not durable is verified, and fetched again, at the next start.
            tracing::warn!(%error, "the pristine copy was not made durable");
        }
    }
}

impl Drop for Torrent {
    fn drop(&mut self) {
        self.swarm.close();
        for task in &self.tasks {
            task.abort();
        }
        if let Some((_, task)) = self.remembered.get_mut() {
            task.abort();
        }
    }
}

fn transfer_stats(
    swarm: &Arc<Swarm>,
    pristine: &Arc<Pristine>,
) -> impl Fn() -> TransferStats + Send + Sync + 'static {
    let (swarm, pristine) = (Arc::downgrade(swarm), pristine.clone());
    // What turns out wrong is taken out of the figures; a tracker takes a total that falls for nonsense.
    let told = HighWater::default();
    move || {
        let traffic = swarm.upgrade().map(|s| s.traffic()).unwrap_or_default();
        let total = pristine.image().geometry().total_length();
        TransferStats {
            uploaded: traffic.uploaded,
            downloaded: told.raise(traffic.fetched).iter().sum(),
            left: Some(total.saturating_sub(pristine.present_bytes())),
            peers: swarm.upgrade().map_or(0, |s| s.peer_count() as u32),
        }
    }
}

/// Hands what a tracker, the local network or the DHT finds to the swarm.
async fn take_peers(swarm: Weak<Swarm>, mut found: mpsc::Receiver<SocketAddr>) {
    while let Some(address) = found.recv().await {
        let Some(swarm) = swarm.upgrade() else { return };
        swarm.add_address(address, false);
    }
}

/// Tells the tracker and whoever listens when the image is complete, and when storing fails.
async fn watch(torrent: Weak<Torrent>, swarm: Arc<Swarm>) {
    let mut complete = swarm.is_complete();
    let mut failing = false;
    let mut short: Option<Shortage> = None;
    loop {
        tokio::select! {
            () = swarm.wait_complete(), if !complete => {
                complete = true;
                tracing::info!("the image is complete");
                let Some(torrent) = torrent.upgrade() else { return };
                if let Some(tracker) = torrent.tracker.lock().as_ref() {
                    tracker.completed();
                }
                // Nobody may be listening.
                let _ = torrent.events.send(Event::Complete);
            }
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                let Some(torrent) = torrent.upgrade() else { return };
                if swarm.was_left_alone()
                    && !complete
                    && let Some(tracker) = torrent.tracker.lock().as_ref()
                {
                    tracker.announce_now();
                }
                for GivenUp { url, reason } in swarm.take_given_up_web_seeds() {
                    let _ = torrent.events.send(Event::WebSeedGivenUp { url, reason });
                }
                let reason = swarm.storage_error();
                if let (false, Some(reason)) = (failing, &reason) {
                    let _ = torrent.events.send(Event::StorageFailed { reason: reason.clone() });
                }
                failing = reason.is_some();
                short = watch_room(&torrent, short).await;
            }
        }
    }
}

/// Tells once that the disk takes no more pieces, and tries whether it takes those again that are held in memory.
async fn watch_room(torrent: &Torrent, before: Option<Shortage>) -> Option<Shortage> {
    if torrent.pristine.shortage().is_some() {
        let pristine = torrent.pristine.clone();
        let tried = torrent
            .runtime
            .spawn_blocking(move || pristine.store_held());
        if tried.await.is_ok() {
            torrent.swarm.look_at_store();
        }
    }
    let short = torrent.pristine.shortage();
    if let Some(shortage) = &short
        && !before.is_some_and(|b| b.is_like(shortage))
    {
        let reason = shortage.to_string();
        // Nobody may be listening.
        let _ = torrent.events.send(match shortage {
            Shortage::Failing { .. } => Event::StorageFailed { reason },
            _ => Event::CacheFull { reason },
        });
    }
    short
}

async fn sync_often(pristine: Arc<Pristine>) {
    let mut failing = false;
    loop {
        tokio::time::sleep(SYNC_EVERY).await;
        let pristine = pristine.clone();
        let synced = tokio::task::spawn_blocking(move || pristine.sync()).await;
        match synced {
            Ok(Err(error)) if !failing => {
                failing = true;
                tracing::warn!(%error, "the pristine copy was not made durable; trying again every {SYNC_EVERY:?}");
            }
            Ok(Ok(())) if failing => {
                failing = false;
                tracing::info!("the pristine copy is made durable again");
            }
            _ => {}
        }
    }
}

async fn note_peers(swarm: Weak<Swarm>, file: Arc<Mutex<PeersFile>>) {
    let mut pause = FIRST_NOTE;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(NOTE_EVERY);
        let Some(swarm) = swarm.upgrade() else { return };
        note(&swarm, file.clone()).await;
    }
}

/// Notes the peers that are worth it. What goes wrong costs the next run some time, no more.
async fn note(swarm: &Swarm, file: Arc<Mutex<PeersFile>>) {
    let peers = swarm.worth_remembering(MAX_REMEMBERED);
    let write = move || file.lock().write(&peers);
    if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
        tracing::debug!(%error, "the peers were not noted for the next run");
    }
}
