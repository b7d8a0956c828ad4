//! Invariant: a session owns one runtime, one listener, one cache and the limits; all that it started
//! ends with it.

mod listener;
mod magnet;
mod member;
mod torrents;

pub(crate) use self::member::Member;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Handle, Runtime};
use url::Url;

use self::listener::{Listener, listen};
use self::magnet::Magnets;
use crate::appliance::Appliance;
use crate::clock::SystemClock;
use crate::dht::{self, Dht, DhtConfig};
use crate::directories;
use crate::error::{Error, ErrorKind, Result};
use crate::http::HttpClient;
use crate::image::{Image, InfoHash, Source};
use crate::lsd::LocalDiscovery;
use crate::metrics::{ApplianceEntry, MetricsServer, SessionCounters};
use crate::options::{ApplianceOptions, SessionOptions};
use crate::pristine::DiskBudget;
use crate::seed::Seed;
use crate::swarm::{Codec, Dialler, Limiter, Places};
use crate::torrent::Torrent;
use crate::tracker::{TrackerServer, TrackerServerHandle, TrackerServerOptions};
#[cfg(feature = "utp")]
use crate::utp::Utp;

/// Carries any number of appliances and seeds: one runtime, one listener, one cache, shared limits.
///
/// Appliances of one image share its pristine copy and its place in the swarm: ten machines of one
/// image cost one download. A session works from any executor; it brings its own tokio runtime.
///
/// ```no_run
/// # async fn run() -> vmtorrent::Result<()> {
/// use vmtorrent::{ApplianceOptions, Session, SessionOptions, image::Source};
///
/// let session = Session::start(SessionOptions::default()).await?;
/// let image = "debian.torrent".parse::<Source>()?.load().await?;
/// let appliance = session.launch(image, ApplianceOptions::default()).await?;
/// let boot_sector = appliance.read_at(0, 0, 512).await?;
/// appliance.shutdown().await?;
/// session.shutdown().await
/// # }
/// ```
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

/// What appliances keep of their session.
pub(crate) struct Shared {
    options: SessionOptions,
    cache: PathBuf,
    listen: SocketAddr,
    peer_id: [u8; 20],
    clock: SystemClock,
    download: Arc<Mutex<Limiter>>,
    upload: Arc<Mutex<Limiter>>,
    places: Arc<Places>,
    /// Sends and takes blocks in compressed form, unless that is off.
    codec: Option<Arc<Codec>>,
    disk: Option<Arc<DiskBudget>>,
    torrents: Mutex<HashMap<InfoHash, Weak<Torrent>>>,
    /// Held while an image's torrent is opened or ended; each image for itself.
    opening: Mutex<HashMap<InfoHash, Weak<tokio::sync::Mutex<()>>>>,
    listener: Mutex<Option<Listener>>,
    own_tracker: Mutex<Option<(Url, TrackerServerHandle)>>,
    /// Images whose description is being fetched, or was: see [`magnet`].
    magnets: Mutex<Magnets>,
    pub(crate) metrics_server: Mutex<Option<MetricsServer>>,
    pub(crate) counters: SessionCounters,
    /// For as long as their counters live.
    pub(crate) appliances: Mutex<Vec<ApplianceEntry>>,
    http: HttpClient,
    /// Looks for peers on the local network, unless it is off.
    local: Option<LocalDiscovery>,
    /// Looks for peers in the distributed hash table, unless it is off.
    dht: Option<Arc<Dht>>,
    /// Reaches peers where TCP does not, unless it is off.
    #[cfg(feature = "utp")]
    utp: Option<Arc<Utp>>,
    // Last, so that everything above is gone before its tasks are.
    runtime: OwnRuntime,
}

/// A runtime that can be dropped from anywhere, also from inside another runtime.
struct OwnRuntime {
    runtime: Mutex<Option<Runtime>>,
    handle: Handle,
    /// Threads that run.
    threads: Arc<AtomicUsize>,
}

impl OwnRuntime {
    fn start() -> std::io::Result<Self> {
        let threads = Arc::new(AtomicUsize::new(0));
        let (started, stopped) = (threads.clone(), threads.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .thread_name("vmtorrent")
            .on_thread_start(move || {
                vmtorrent_platform::leave_signals_to_others();
                started.fetch_add(1, Ordering::AcqRel);
            })
            .on_thread_stop(move || {
                stopped.fetch_sub(1, Ordering::AcqRel);
            })
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
            threads,
        })
    }

    /// Ends the threads, and waits so long for them. False when some were left.
    fn end(&self, timeout: Duration) -> bool {
        let runtime = self.runtime.lock().take();
        if let Some(runtime) = runtime {
            // In a task of another runtime nobody may wait.
            if timeout.is_zero() || Handle::try_current().is_ok() {
                runtime.shutdown_background();
            } else {
                runtime.shutdown_timeout(timeout);
            }
        }
        self.threads.load(Ordering::Acquire) == 0
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// Worker threads: the work is in the kernel, in hashing and on the disk, which have threads of their own.
const WORKERS: usize = 2;
const MAX_BLOCKING_THREADS: usize = 64;

impl Session {
    /// Starts a session: its threads and its listener.
    ///
    /// # Errors
    /// [`ErrorKind::InUse`] when the port is taken, [`ErrorKind::NotFound`] when no cache directory is named
    /// and there is no home directory, [`ErrorKind::InvalidInput`] when a node of
    /// [`dht_bootstrap`](SessionOptions::dht_bootstrap) is no `HOST:PORT`.
    pub async fn start(options: SessionOptions) -> Result<Self> {
        let cache = match &options.cache {
            Some(path) => std::path::absolute(path)
                .map_err(|e| Error::io(format!("finding the cache {}", path.display()), e))?,
            None => directories::cache()?,
        };
        dht::check_bootstrap(options.dht_bootstrap.as_deref())?;
        let runtime = OwnRuntime::start();
        let runtime = runtime.map_err(|e| Error::io("starting the session's threads", e))?;
        let handle = runtime.handle.clone();
        let listener = {
            let _entered = handle.enter();
            listen(options.listen)?
        };
        let address = listener
            .local_addr()
            .map_err(|e| Error::io("asking for the listener's address", e))?;
        #[cfg(feature = "utp")]
        let utp = if options.utp {
            let _entered = handle.enter();
            Utp::open(address, options.max_connections)
        } else {
            None
        };
        let clock = SystemClock::start();
        let local = (options.discovery && options.local_discovery)
            .then(|| LocalDiscovery::new(&handle, clock, address, rand::random()));
        let dht = (options.discovery && options.dht).then(|| {
            let config = DhtConfig {
                listener: address,
                bootstrap: options.dht_bootstrap.clone(),
                cache: cache.clone(),
                seed: rand::random(),
                #[cfg(feature = "utp")]
                shared: utp.as_ref().map(|u| u.datagrams()).unwrap_or_default(),
            };
            Arc::new(Dht::new(&handle, clock, config))
        });
        let shared = Arc::new(Shared {
            cache,
            listen: address,
            peer_id: new_peer_id(),
            clock,
            download: Arc::new(Mutex::new(Limiter::new(options.download_limit))),
            upload: Arc::new(Mutex::new(Limiter::new(options.upload_limit))),
            places: Places::new(options.max_connections),
            codec: (options.compression).then(|| Arc::new(Codec::new(options.compression_cache))),
            disk: options.max_disk.map(DiskBudget::new).map(Arc::new),
            torrents: Mutex::new(HashMap::new()),
            opening: Mutex::default(),
            listener: Mutex::default(),
            own_tracker: Mutex::new(None),
            magnets: Mutex::default(),
            metrics_server: Mutex::new(None),
            counters: SessionCounters::default(),
            appliances: Mutex::new(Vec::new()),
            http: HttpClient::new()?,
            local,
            dht,
            #[cfg(feature = "utp")]
            utp,
            runtime,
            options,
        });
        tracing::info!(listen = %address, cache = %shared.cache.display(), "a session has started");
        #[cfg_attr(not(feature = "utp"), expect(unused_mut, reason = "nothing is added"))]
        let mut listener = Listener::start(&handle, listener, Arc::downgrade(&shared));
        #[cfg(feature = "utp")]
        if let Some(utp) = &shared.utp {
            listener.add(&handle, utp, &Arc::downgrade(&shared));
        }
        *shared.listener.lock() = Some(listener);
        Ok(Self { shared })
    }

    /// The address on which peers may connect, with the port that was taken.
    pub fn listen_address(&self) -> SocketAddr {
        self.shared.listen
    }

    /// Loads an image's description. For a .torrent file [`Source::load`] does the same on the caller's tokio
    /// runtime; this works from any executor.
    ///
    /// With a magnet link it is in the cache after an earlier launch; else peers are asked for it, those that the
    /// link names and those that its trackers know.
    ///
    /// # Errors
    /// Those of [`Source::load`]; for a magnet link [`ErrorKind::TimedOut`] when no peer gave it within
    /// [`metadata_timeout`](SessionOptions::metadata_timeout), and [`ErrorKind::InvalidInput`] when there is
    /// nobody to ask.
    pub async fn load(&self, source: &Source) -> Result<Image> {
        if let Source::Magnet(magnet) = source {
            return self.shared.load_magnet(magnet.clone()).await;
        }
        let source = source.clone();
        self.run(async move { source.load().await }).await
    }

    /// Starts an appliance: opens or makes its state, joins the swarm, and mounts it if asked to.
    ///
    /// It returns as soon as the disk can be opened; nothing has to be downloaded for that.
    ///
    /// # Errors
    /// [`ErrorKind::InUse`] when the state directory is another appliance's or the mount point is taken,
    /// [`ErrorKind::Unavailable`] when there is no FUSE, and whatever the file systems report.
    pub async fn launch(&self, image: Image, options: ApplianceOptions) -> Result<Appliance> {
        let shared = self.shared.clone();
        self.run(async move { shared.launch(image, options).await })
            .await
    }

    /// Serves a published file or directory: `data` holds it under the image's name.
    ///
    /// Lengths are checked now, each piece on its first use.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] or [`ErrorKind::InvalidInput`] naming the file that is missing or has another length.
    pub async fn seed(&self, image: Image, data: &Path) -> Result<Seed> {
        let shared = self.shared.clone();
        let data = data.to_owned();
        self.run(async move { shared.seed(image, data).await })
            .await
    }

    /// Runs a small tracker for what this session seeds and launches, then and later, and announces its seeds to it.
    /// Gives the address with the port that was taken.
    ///
    /// # Errors
    /// [`ErrorKind::InUse`] when the port is taken, or when this session runs a tracker already.
    pub async fn serve_tracker(&self, address: SocketAddr) -> Result<SocketAddr> {
        let shared = self.shared.clone();
        self.run(async move { shared.serve_tracker(address).await })
            .await
    }

    /// Ends what is left of the session's torrents in an orderly way, and frees its port. Appliances and seeds
    /// should be shut down before.
    ///
    /// # Errors
    /// None today; the result leaves room for a report.
    pub async fn shutdown(self) -> Result<()> {
        let shared = self.shared.clone();
        self.run(async move {
            let listener = shared.listener.lock().take();
            if let Some(listener) = listener {
                listener.stop().await;
            }
            let torrents: Vec<_> = shared
                .torrents
                .lock()
                .drain()
                .filter_map(|(_, t)| t.upgrade())
                .collect();
            for torrent in torrents {
                torrent.end().await;
            }
            shared.forget_magnets().await;
            if let Some(dht) = &shared.dht {
                dht.stop().await;
            }
            #[cfg(feature = "utp")]
            if let Some(utp) = &shared.utp {
                utp.stop().await;
            }
            let tracker = shared.own_tracker.lock().take();
            if let Some((_, tracker)) = tracker {
                tracker.stop().await;
            }
            let metrics = shared.metrics_server.lock().take();
            if let Some(metrics) = metrics {
                metrics.stop().await;
            }
            tracing::info!(listen = %shared.listen, "a session has ended");
            Ok(())
        })
        .await
    }

    /// The runtime of the session, for work that belongs to it. Its tasks end with the session's threads.
    pub fn runtime(&self) -> &Handle {
        &self.shared.runtime.handle
    }

    /// Ends the session's threads, and waits until they are gone, for `timeout` at most: for a program that is about to
    /// unload this library, or wants to be sure. Else they end by themselves with the last user of the session.
    /// False when some were left, or when it was called in a task of a runtime, where it does not wait.
    ///
    /// Comes after [`shutdown`](Self::shutdown): what still runs in the session is broken off.
    pub fn join_threads(&self, timeout: Duration) -> bool {
        self.shared.runtime.end(timeout)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.shared.run(work).await
    }
}

impl Shared {
    pub(crate) fn handle(&self) -> &Handle {
        &self.runtime.handle
    }

    /// The ways to peers.
    fn dialler(&self) -> Dialler {
        Dialler {
            #[cfg(feature = "utp")]
            utp: self.utp.clone(),
        }
    }

    /// Whether profiles are exchanged with peers.
    pub(crate) fn exchanges_profiles(&self) -> bool {
        self.options.profile_exchange
    }

    pub(crate) fn clock(&self) -> SystemClock {
        self.clock
    }

    /// Runs work on the session's runtime, whatever executor asks.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match self.handle().spawn(work).await {
            Ok(result) => result,
            Err(error) => Err(ended(error)),
        }
    }

    async fn serve_tracker(self: Arc<Self>, address: SocketAddr) -> Result<SocketAddr> {
        if self.own_tracker.lock().is_some() {
            let text = "this session runs a tracker already";
            return Err(Error::new(ErrorKind::InUse, text));
        }
        let options = TrackerServerOptions {
            // This session's: an open tracker could be filled up by a stranger.
            images: Some(Vec::new()),
            seed: rand::random(),
            ..Default::default()
        };
        let server = TrackerServer::bind(address, options)?;
        let bound = server.local_addr();
        tracing::info!(address = %bound, "a tracker has started");
        let reachable = on_this_host(bound);
        let url = Url::parse(&format!("http://{reachable}/announce"))
            .map_err(|e| Error::with_source(ErrorKind::InvalidInput, "the tracker's address", e))?;
        let running = server.spawn(self.handle())?;
        *self.own_tracker.lock() = Some((url, running));
        for torrent in self.torrents() {
            self.track(torrent.image().info_hash());
        }
        Ok(bound)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match self.handle().spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => Err(ended(error)),
        }
    }
}

/// Why a task of the session gave no result.
pub(crate) fn ended(error: tokio::task::JoinError) -> Error {
    if error.is_panic() {
        let text = "a task of the session failed by a mistake in the library: please report it";
        return Error::with_source(ErrorKind::Io, text, error);
    }
    Error::new(ErrorKind::Closed, "the session was shut down")
}

/// Where a listener is reached from its own host.
fn on_this_host(mut listener: SocketAddr) -> SocketAddr {
    if listener.ip().is_unspecified() {
        listener.set_ip(match listener {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    listener
}

/// The Azureus form: two letters, a version, then random bytes.
fn new_peer_id() -> [u8; 20] {
    let mut id = *b"-VT0100-000000000000";
    id[8..].copy_from_slice(&rand::random::<[u8; 12]>());
    id
}

#[cfg(test)]
mod tests;
