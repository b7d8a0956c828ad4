//! Invariant: a tracker that was told `started` is told `stopped`, if it can be reached within a few seconds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::Instrument;
use url::Url;

use super::Event;
use super::announce::{Announce, AnnounceAnswer};
use super::schedule::{Action, Schedule};
use super::transport::{AnswerLost, Transports};
use crate::Result;
use crate::clock::SystemClock;
use crate::http::HttpClient;
use crate::image::InfoHash;
use crate::metrics::Counter;

/// How long the farewell may take: somebody waits for the end.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// How many peers are asked for.
const NUM_WANT: u32 = 100;
/// What is told to be missing while the image's length is not known. Not 0, which would make us a seed; nor so much
/// that a tracker takes it for a negative number.
const UNKNOWN_LEFT: u64 = 16 << 10;

/// How far the transfer of an image is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferStats {
    /// Bytes sent to peers.
    pub uploaded: u64,
    /// Bytes received from peers.
    pub downloaded: u64,
    /// Bytes of the image that are missing still; 0 for a seed. `None`: nobody knows, for the metainfo is still
    /// to come.
    pub left: Option<u64>,
    /// Connected peers. While there are none and bytes are missing, trackers are asked sooner.
    pub peers: u32,
}

/// What a [`TrackerClient`] announces.
#[derive(Clone, Debug)]
pub struct TrackerConfig {
    /// The image.
    pub info_hash: InfoHash,
    /// The session's peer id.
    pub peer_id: [u8; 20],
    /// The TCP port on which the session listens.
    pub port: u16,
    /// Trackers in tiers (BEP 12): [`Image::trackers`](crate::image::Image::trackers). http, https and udp ones
    /// are asked.
    pub tiers: Vec<Vec<Url>>,
    /// The session's HTTP client.
    pub http: HttpClient,
    /// What shuffling and jitter start from.
    pub seed: u64,
}

/// Announces one image to its trackers, for as long as its [`TrackerHandle`] lives.
#[derive(Debug)]
pub struct TrackerClient;

impl TrackerClient {
    /// Begins to announce, on the runtime's threads.
    ///
    /// `stats` is called before each announce and must not block. Found peers go to `peers`, the same
    /// ones again and again; what does not fit into the channel is dropped, for they come again.
    pub fn spawn(
        runtime: &Handle,
        config: TrackerConfig,
        stats: impl Fn() -> TransferStats + Send + Sync + 'static,
        peers: mpsc::Sender<SocketAddr>,
    ) -> TrackerHandle {
        let (wishes, received) = watch::channel(Wishes::default());
        let counts = Arc::<AnnounceCounts>::default();
        let worker = Worker {
            counts: counts.clone(),
            schedule: Schedule::new(&config.tiers, config.seed),
            transports: Transports::new(config.http.clone(), config.seed),
            config,
            stats,
            peers,
            clock: SystemClock::start(),
            requests_seen: 0,
        };
        let task = runtime.spawn(worker.run(received).in_current_span());
        TrackerHandle {
            wishes,
            task,
            counts,
        }
    }
}

/// A running [`TrackerClient`]. When it is dropped, the trackers are told so in the background.
#[derive(Debug)]
pub struct TrackerHandle {
    wishes: watch::Sender<Wishes>,
    task: JoinHandle<()>,
    counts: Arc<AnnounceCounts>,
}

/// How announces ended so far.
#[derive(Debug, Default)]
pub(crate) struct AnnounceCounts {
    pub(crate) answered: Counter,
    pub(crate) failed: Counter,
}

impl TrackerHandle {
    /// Tells the trackers that the last piece has come. Not to be called for an image that was complete
    /// from the beginning.
    pub fn completed(&self) {
        self.wishes.send_modify(|w| w.completed = true);
    }

    /// Asks for more peers as soon as the trackers allow.
    pub fn announce_now(&self) {
        self.wishes
            .send_modify(|w| w.requests = w.requests.wrapping_add(1));
    }

    pub(crate) fn counts(&self) -> &AnnounceCounts {
        &self.counts
    }

    /// Tells the trackers that the peer leaves; takes at most three seconds.
    pub async fn stop(self) {
        drop(self.wishes);
        // It can only have failed by a panic, and there is nobody to tell then.
        let _ = self.task.await;
    }
}

/// What the owner wants; that it has let go of the channel means to stop.
#[derive(Clone, Copy, Debug, Default)]
struct Wishes {
    completed: bool,
    /// Number of calls of `announce_now`.
    requests: u64,
}

struct Worker<S> {
    counts: Arc<AnnounceCounts>,
    config: TrackerConfig,
    schedule: Schedule,
    transports: Transports,
    stats: S,
    peers: mpsc::Sender<SocketAddr>,
    clock: SystemClock,
    requests_seen: u64,
}

impl<S: Fn() -> TransferStats + Send + Sync> Worker<S> {
    async fn run(mut self, mut wishes: watch::Receiver<Wishes>) {
        loop {
            self.heed(*wishes.borrow_and_update());
            match self.schedule.next(self.clock.now()) {
                Action::Announce { tracker, event } => {
                    let url = self.schedule.url(tracker).clone();
                    let patience = self.schedule.patience(tracker, self.clock.now());
                    let answer = self.announce(tracker, event, patience);
                    tokio::select! {
                        biased;
                        answer = answer => self.answered(tracker, &url, event, answer),
                        () = closed(wishes.clone()) => {
                            // It may have reached the tracker.
                            self.schedule.unanswered(tracker, event);
                            break;
                        }
                    }
                }
                Action::WaitUntil(time) => {
                    let time = self.clock.instant(time).into();
                    tokio::select! {
                        () = tokio::time::sleep_until(time) => {}
                        changed = wishes.changed() => if changed.is_err() { break },
                    }
                }
                Action::Nothing => {
                    if wishes.changed().await.is_err() {
                        break;
                    }
                }
            }
        }
        self.farewell().await;
    }

    fn heed(&mut self, wishes: Wishes) {
        if wishes.completed {
            self.schedule.complete();
        }
        if wishes.requests != self.requests_seen {
            self.requests_seen = wishes.requests;
            self.schedule.request();
        }
    }

    async fn announce(
        &self,
        tracker: usize,
        event: Option<Event>,
        timeout: Duration,
    ) -> Result<AnnounceAnswer> {
        let stats = (self.stats)();
        let announce = Announce {
            info_hash: self.config.info_hash,
            peer_id: self.config.peer_id,
            port: self.config.port,
            uploaded: stats.uploaded,
            downloaded: stats.downloaded,
            left: stats.left.unwrap_or(UNKNOWN_LEFT),
            num_want: if event == Some(Event::Stopped) {
                0
            } else {
                NUM_WANT
            },
            key: self.config.seed as u32,
            event,
            tracker_id: self.schedule.tracker_id(tracker).map(<[u8]>::to_vec),
        };
        let url = self.schedule.url(tracker);
        self.transports.announce(url, announce, timeout).await
    }

    fn answered(
        &mut self,
        tracker: usize,
        url: &Url,
        event: Option<Event>,
        answer: Result<AnnounceAnswer>,
    ) {
        let now = self.clock.now();
        // Paths and queries may hold the user's key for this tracker.
        let host = url.host_str().unwrap_or_default();
        match answer {
            Err(e) => {
                self.counts.failed.increment();
                tracing::debug!("tracker {host}: {e}");
                if AnswerLost::is_why(&e) {
                    self.schedule.unanswered(tracker, event);
                }
                self.schedule.failed(tracker, now);
            }
            Ok(answer) => {
                self.counts.answered.increment();
                tracing::debug!("tracker {host}: {} peers", answer.peers.len());
                let stats = (self.stats)();
                let lonely = answer.peers.is_empty() && stats.peers == 0 && stats.left != Some(0);
                self.schedule
                    .succeeded(tracker, event, &answer, lonely, now);
                for peer in answer.peers {
                    if self.peers.try_send(peer).is_err() {
                        break;
                    }
                }
            }
        }
    }

    async fn farewell(self) {
        let stops = self
            .schedule
            .registered()
            .map(|tracker| self.announce(tracker, Some(Event::Stopped), STOP_TIMEOUT));
        for e in join_all(stops).await.into_iter().filter_map(Result::err) {
            tracing::debug!("a tracker could not be told that the peer leaves: {e}");
        }
    }
}

/// Waits until the owner has let go.
async fn closed(mut wishes: watch::Receiver<Wishes>) {
    while wishes.changed().await.is_ok() {}
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
