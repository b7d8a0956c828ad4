//! Invariant: every request that the engine makes is answered by the block or a reject, unless the engine has lost the
//! web seed; while the server is left alone it chokes us.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::failure::{Failure, FailureKind, shown};
use super::fetch::Site;
use super::patience::{Patience, Verdict};
use super::queue::{FetchQueue, Job, Pushed};
use crate::image::PieceIndex;
use crate::picker::PeerKey;
use crate::swarm::Swarm;
use crate::swarm::wire::{WireMessage, WireRequest};

/// What the engine wants of a web seed.
#[derive(Clone, Copy, Debug)]
pub(in crate::swarm) enum Order {
    /// A block; `urgent`: a read waits for it.
    Fetch { request: WireRequest, urgent: bool },
    /// A request is taken back.
    Cancel(WireRequest),
}

/// Failures in a row of which people are told.
const WORTH_TELLING: u32 = 3;

/// Serves the engine from a web server until the engine loses it.
pub(in crate::swarm) async fn run(
    swarm: Arc<Swarm>,
    number: usize,
    site: Arc<Site>,
    mut orders: mpsc::Receiver<Order>,
) {
    let mut server = Server {
        swarm,
        number,
        site,
        key: None,
        queue: Arc::default(),
        work: JoinSet::new(),
        patience: Patience::default(),
        pause: None,
        given_up: false,
    };
    server.look();
    loop {
        let pause = server.pause;
        tokio::select! {
            order = orders.recv() => {
                let Some(order) = order else { return };
                server.take(order);
                // Blocks beside each other are asked for one by one.
                while let Ok(order) = orders.try_recv() {
                    server.take(order);
                }
                server.begin_jobs();
            }
            Some(done) = server.work.join_next() => match done {
                Ok(Done::Looked(Ok(time))) => {
                    if !server.answered(time) {
                        return;
                    }
                }
                Ok(Done::Looked(Err(failure))) => server.failed(&failure, &mut orders),
                Ok(Done::Fetched(job, result)) => server.fetched(&job, result, &mut orders),
                Err(error) => {
                    tracing::error!(%error, "a task of a web seed failed by a mistake in the library: please report it");
                    return server.swarm.web_seed_closed(server.number);
                }
            },
            () = sleep_until(pause), if pause.is_some() => {
                server.pause = None;
                server.look();
            }
        }
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

enum Done {
    /// How long the server took for one byte.
    Looked(Result<Duration, Failure>),
    Fetched(Job, Result<(), Failure>),
}

struct Server {
    swarm: Arc<Swarm>,
    number: usize,
    site: Arc<Site>,
    /// As what the engine knows it, while it does.
    key: Option<PeerKey>,
    queue: Arc<Mutex<FetchQueue>>,
    work: JoinSet<Done>,
    patience: Patience,
    /// Until when it is left alone.
    pause: Option<Instant>,
    /// It was told that nothing is expected of it any more.
    given_up: bool,
}

impl Server {
    /// Looks whether the server answers as it should.
    fn look(&mut self) {
        let site = self.site.clone();
        let look = async move { Done::Looked(site.look().await) };
        self.work.spawn(look.in_current_span());
    }

    /// It does: it may be asked. False when the swarm has no use for it.
    fn answered(&mut self, time: Duration) -> bool {
        if self.pause.is_some() {
            // What was under way failed meanwhile.
            return true;
        }
        if std::mem::take(&mut self.given_up) {
            tracing::info!(
                url = shown(self.site.url()),
                "the web seed can be used again"
            );
            self.swarm.web_seed_back(self.number);
        }
        if self.key.is_some() {
            self.say(vec![WireMessage::Unchoke]);
        } else {
            // The connection had to be opened first.
            self.key = self.swarm.web_seed_ready(self.number, time / 2);
        }
        self.key.is_some()
    }

    fn take(&mut self, order: Order) {
        let geometry = *self.swarm.image().geometry();
        let place =
            |r: WireRequest| geometry.piece_offset(PieceIndex(r.piece)) + u64::from(r.begin);
        match order {
            Order::Fetch { request, .. } if self.pause.is_some() => {
                // It was under way to us when we choked.
                self.say(vec![WireMessage::Reject(request)]);
            }
            Order::Fetch { request, urgent } => {
                let pushed = self.queue.lock().push(place(request), request, urgent);
                if pushed == Pushed::TakenOver {
                    self.say(vec![WireMessage::Reject(request)]);
                }
            }
            Order::Cancel(request) => {
                let waited = self.queue.lock().cancel(place(request), request);
                if waited {
                    self.say(vec![WireMessage::Reject(request)]);
                }
            }
        }
    }

    fn begin_jobs(&mut self) {
        while self.pause.is_none()
            && let Some(job) = self.next_job()
        {
            self.begin(job);
        }
    }

    fn next_job(&self) -> Option<Job> {
        self.queue.lock().next()
    }

    fn begin(&mut self, job: Job) {
        let Some(key) = self.key else { return };
        let (swarm, queue, site) = (self.swarm.clone(), self.queue.clone(), self.site.clone());
        let fetch = async move {
            let mut blocks = Blocks::new(&job);
            let range = job.start..job.start + job.bytes();
            let result = site
                .fetch(range, &mut |data| {
                    let mut messages = blocks.add(&data);
                    for message in &messages {
                        if let Some(request) = answered_by(message) {
                            queue.lock().received(request);
                        }
                    }
                    swarm.received(key, &mut messages);
                })
                .await;
            Done::Fetched(job, result)
        };
        self.work.spawn(fetch.in_current_span());
    }

    fn fetched(
        &mut self,
        job: &Job,
        result: Result<(), Failure>,
        orders: &mut mpsc::Receiver<Order>,
    ) {
        let left = self.queue.lock().ended(job);
        match result {
            Ok(()) => {
                self.patience.succeeded();
                // Those that were asked for again after they had come.
                self.reject(left);
            }
            Err(failure) => {
                let rest = job.blocks.len() - left.len();
                let again = failure.kind == FailureKind::Broken
                    && !job.retried
                    && self.pause.is_none()
                    && !left.is_empty()
                    && job.blocks[rest..] == left;
                if again {
                    tracing::debug!(number = self.number, %failure, "a range is asked for again");
                    let done: u64 = job.blocks[..rest].iter().map(|b| u64::from(b.length)).sum();
                    let job = self.queue.lock().again(job.start + done, job, left);
                    self.begin(job);
                } else {
                    self.fail(&failure, left, orders);
                }
            }
        }
        self.begin_jobs();
    }

    fn failed(&mut self, failure: &Failure, orders: &mut mpsc::Receiver<Order>) {
        self.fail(failure, Vec::new(), orders);
    }

    /// The server failed: it is left alone for a while, and what it was asked for is free for others.
    fn fail(
        &mut self,
        failure: &Failure,
        mut left: Vec<WireRequest>,
        orders: &mut mpsc::Receiver<Order>,
    ) {
        if self.pause.is_some() {
            // For the same reason, most likely.
            return self.reject(left);
        }
        let verdict = self.patience.failed(failure);
        let url = shown(self.site.url());
        match verdict {
            Verdict::Wait(wait) => {
                self.pause = Some(Instant::now() + wait);
                if self.patience.failures() == WORTH_TELLING {
                    tracing::warn!(url, %failure, "a web seed fails again and again; it is tried further");
                } else {
                    tracing::info!(url, %failure, ?wait, "a web seed failed; it is left alone for a while");
                }
                self.say(vec![WireMessage::Choke]);
                left.extend(self.queue.lock().drain());
                self.reject(left);
            }
            Verdict::GiveUp(wait) => {
                self.pause = Some(Instant::now() + wait);
                if !std::mem::replace(&mut self.given_up, true) {
                    self.swarm
                        .web_seed_given_up(self.number, failure.to_string());
                }
                if let Some(key) = self.key.take() {
                    self.swarm.web_seed_lost(key);
                }
                // Nothing is answered any more, and nothing is asked.
                self.work = JoinSet::new();
                self.queue = Arc::default();
                while orders.try_recv().is_ok() {}
            }
        }
    }

    fn reject(&self, requests: Vec<WireRequest>) {
        self.say(requests.into_iter().map(WireMessage::Reject).collect());
    }

    fn say(&self, mut messages: Vec<WireMessage>) {
        if let Some(key) = self.key {
            self.swarm.received(key, &mut messages);
        }
    }
}

/// Cuts what comes of a job into its blocks.
struct Blocks {
    waiting: std::vec::IntoIter<WireRequest>,
    next: Option<WireRequest>,
    data: BytesMut,
}

impl Blocks {
    fn new(job: &Job) -> Self {
        let mut waiting = job.blocks.clone().into_iter();
        let next = waiting.next();
        Self {
            waiting,
            next,
            data: BytesMut::new(),
        }
    }

    /// The blocks that are whole with this.
    fn add(&mut self, data: &Bytes) -> Vec<WireMessage> {
        self.data.extend_from_slice(data);
        let mut whole = Vec::new();
        while let Some(block) = self.next
            && self.data.len() >= block.length as usize
        {
            let data = self.data.split_to(block.length as usize).freeze();
            whole.push(WireMessage::Piece {
                piece: block.piece,
                begin: block.begin,
                data,
            });
            self.next = self.waiting.next();
        }
        whole
    }
}

/// The request that a block answers.
fn answered_by(message: &WireMessage) -> Option<WireRequest> {
    match message {
        WireMessage::Piece { piece, begin, data } => Some(WireRequest {
            piece: *piece,
            begin: *begin,
            length: data.len() as u32,
        }),
        _ => None,
    }
}
