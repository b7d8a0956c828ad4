//! Invariant: a session owns one runtime, one listener, one cache and the limits; all that it started
//! ends with it.

mod magnet;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};
use url::Url;

use self::magnet::Magnets;
use crate::appliance::{Appliance, ApplianceParts};
use crate::clock::SystemClock;
use crate::directories;
use crate::error::{Error, ErrorKind, Result};
use crate::http::HttpClient;
use crate::image::{Image, InfoHash, Source};
use crate::log_limit::LogLimit;
use crate::lsd::LocalDiscovery;
use crate::metrics::{ApplianceEntry, MetricsServer, SessionCounters};
use crate::options::{ApplianceOptions, Fill, SessionOptions, State};
use crate::overlay::StateDirectory;
use crate::pristine::{DiskBudget, Pristine};
use crate::seed::Seed;
use crate::swarm::{ACCEPT_PAUSE, Door, Limiter, PeersFile, Places, SwarmConfig, answer, greet};
use crate::torrent::{Torrent, TorrentConfig};
use crate::tracker::{TrackerConfig, TrackerServer, TrackerServerHandle, TrackerServerOptions};

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
    disk: Option<Arc<DiskBudget>>,
    torrents: Mutex<HashMap<InfoHash, Weak<Torrent>>>,
    /// Held while a torrent is opened, so that two launches of one image share it.
    opening: tokio::sync::Mutex<()>,
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
    // Last, so that everything above is gone before its tasks are.
    runtime: OwnRuntime,
}

/// A runtime that can be dropped from anywhere, also from inside another runtime.
struct OwnRuntime {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
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
    /// and there is no home directory.
    pub async fn start(options: SessionOptions) -> Result<Self> {
        let cache = match &options.cache {
            Some(path) => std::path::absolute(path)
                .map_err(|e| Error::io(format!("finding the cache {}", path.display()), e))?,
            None => directories::cache()?,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(MAX_BLOCKING_THREADS)
            .thread_name("vmtorrent")
            .enable_all()
            .build()
            .map_err(|e| Error::io("starting the session's threads", e))?;
        let handle = runtime.handle().clone();
        // From here on an early return is safe: a bare runtime must not be dropped in async code.
        let runtime = OwnRuntime {
            runtime: Some(runtime),
            handle: handle.clone(),
        };
        let listener = {
            let _entered = handle.enter();
            listen(options.listen)?
        };
        let address = listener
            .local_addr()
            .map_err(|e| Error::io("asking for the listener's address", e))?;
        let clock = SystemClock::start();
        let local = (options.discovery && options.local_discovery)
            .then(|| LocalDiscovery::new(&handle, clock, address, rand::random()));
        let shared = Arc::new(Shared {
            cache,
            listen: address,
            peer_id: new_peer_id(),
            clock,
            download: Arc::new(Mutex::new(Limiter::new(options.download_limit))),
            upload: Arc::new(Mutex::new(Limiter::new(options.upload_limit))),
            places: Places::new(options.max_connections),
            disk: options.max_disk.map(DiskBudget::new).map(Arc::new),
            torrents: Mutex::new(HashMap::new()),
            opening: tokio::sync::Mutex::new(()),
            own_tracker: Mutex::new(None),
            magnets: Mutex::default(),
            metrics_server: Mutex::new(None),
            counters: SessionCounters::default(),
            appliances: Mutex::new(Vec::new()),
            http: HttpClient::new()?,
            local,
            runtime,
            options,
        });
        tracing::info!(listen = %address, cache = %shared.cache.display(), "a session has started");
        handle.spawn(accept(listener, Arc::downgrade(&shared)));
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

    /// Runs a small HTTP tracker, and announces this session's seeds to it. Gives the address with the
    /// port that was taken.
    ///
    /// # Errors
    /// [`ErrorKind::InUse`] when the port is taken, or when this session runs a tracker already.
    pub async fn serve_tracker(&self, address: SocketAddr) -> Result<SocketAddr> {
        let shared = self.shared.clone();
        self.run(async move { shared.serve_tracker(address).await })
            .await
    }

    /// Ends what is left of the session's torrents in an orderly way. Appliances and seeds should be
    /// shut down before.
    ///
    /// # Errors
    /// None today; the result leaves room for a report.
    pub async fn shutdown(self) -> Result<()> {
        let shared = self.shared.clone();
        self.run(async move {
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

    async fn launch(self: Arc<Self>, image: Image, options: ApplianceOptions) -> Result<Appliance> {
        let image = Arc::new(image);
        let state = self.open_state(&image, &options).await?;
        let torrent = self.open_cached(image.clone()).await?;
        for peer in options.peers.iter().chain(image.peers()) {
            torrent.swarm().add_address(*peer, true);
        }
        let parts = ApplianceParts {
            session: self,
            torrent,
            state,
            options,
        };
        Appliance::start(parts).await
    }

    async fn open_state(
        self: &Arc<Self>,
        image: &Arc<Image>,
        options: &ApplianceOptions,
    ) -> Result<StateDirectory> {
        let state = options.state.clone();
        let image = image.clone();
        let cache = self.cache.clone();
        let named = options.peers.iter().chain(image.peers());
        let peers: Vec<String> = named.map(ToString::to_string).collect();
        self.blocking(move || {
            let state = match state {
                State::Ephemeral => StateDirectory::ephemeral(None, &image)?,
                State::Directory(path) => StateDirectory::open(&path, &image)?,
                State::Default => StateDirectory::open(&directories::state(image.name())?, &image)?,
            };
            state.note(Some(&cache), peers.into())?;
            Ok(state)
        })
        .await
    }

    async fn open_cached(self: &Arc<Self>, image: Arc<Image>) -> Result<Arc<Torrent>> {
        let _guard = self.opening.lock().await;
        if let Some(torrent) = self.torrent(image.info_hash()) {
            return Ok(torrent);
        }
        let (cache, address) = (self.cache.clone(), on_this_host(self.listen));
        let (for_store, disk) = (image.clone(), self.disk.clone());
        let opened = self
            .blocking(move || Pristine::open_cache(for_store, &cache, Some(address), disk))
            .await?;
        let pristine = opened.pristine;
        if pristine.is_follower() {
            tracing::info!(image = pristine.image().name(), leader = ?opened.leader, "another process holds the cache entry: its pieces come over loopback");
        }
        // A private image's peers come from its trackers only (BEP 27).
        let remembers = self.options.discovery && !pristine.image().is_private();
        let peers = if remembers {
            let name = pristine.image().info_hash().to_string();
            let file = PeersFile::new(&self.cache.join(name));
            let read = self.blocking(move || Ok((file.read(), file))).await?;
            Some(read)
        } else {
            None
        };
        let leads = !pristine.is_follower();
        let torrent = self.start_torrent(Arc::new(pristine), opened.leader, true, None);
        if let Some((known, file)) = peers {
            torrent.remember_peers(&known, leads.then_some(file));
        }
        Ok(torrent)
    }

    async fn seed(self: Arc<Self>, image: Image, data: PathBuf) -> Result<Seed> {
        let _guard = self.opening.lock().await;
        if self.torrent(image.info_hash()).is_some() {
            let text = format!(
                "{} is launched or seeded by this session already",
                image.name()
            );
            return Err(Error::new(ErrorKind::InUse, text));
        }
        let pristine = self
            .blocking(move || Pristine::open_published(Arc::new(image), &data))
            .await?;
        let own = self.own_tracker.lock().as_ref().map(|(url, _)| url.clone());
        let torrent = self.start_torrent(Arc::new(pristine), None, false, own);
        Ok(Seed::new(self.clone(), torrent))
    }

    /// The images that are launched or seeded now.
    pub(crate) fn torrents(&self) -> Vec<Arc<Torrent>> {
        let torrents = self.torrents.lock();
        torrents.values().filter_map(Weak::upgrade).collect()
    }

    fn torrent(&self, info_hash: InfoHash) -> Option<Arc<Torrent>> {
        self.torrents.lock().get(&info_hash).and_then(Weak::upgrade)
    }

    fn start_torrent(
        self: &Arc<Self>,
        pristine: Arc<Pristine>,
        leader: Option<SocketAddr>,
        writable: bool,
        own_tracker: Option<Url>,
    ) -> Arc<Torrent> {
        let image = pristine.image().clone();
        let mut tiers = image.trackers().to_vec();
        if let Some(own) = own_tracker
            && !tiers.iter().flatten().any(|t| *t == own)
        {
            tiers.push(vec![own]);
        }
        let tracker = (self.options.discovery && !tiers.is_empty()).then(|| TrackerConfig {
            info_hash: image.info_hash(),
            peer_id: self.peer_id,
            port: self.listen.port(),
            tiers,
            http: self.http.clone(),
            seed: rand::random(),
        });
        let known = self.take_known(image.info_hash());
        let torrent = Torrent::start(TorrentConfig {
            swarm: SwarmConfig {
                pristine,
                runtime: self.handle().clone(),
                clock: self.clock,
                peer_id: self.peer_id,
                listen_port: self.listen.port(),
                fill: Fill::None,
                download: self.download.clone(),
                upload: self.upload.clone(),
                places: self.places.clone(),
                seed: rand::random(),
                // Of the highest level, so that every line that is logged at all bears the name.
                span: tracing::error_span!("swarm", image = image.name()),
            },
            tracker,
            // A private image's peers come from its trackers only (BEP 27).
            local: self.local.clone().filter(|_| !image.is_private()),
            announcer: known.announcer,
            leader,
            writable,
        });
        for peer in known.peers {
            torrent.swarm().add_address(peer, false);
        }
        let mut torrents = self.torrents.lock();
        torrents.retain(|_, t| t.strong_count() > 0);
        torrents.insert(image.info_hash(), Arc::downgrade(&torrent));
        torrent
    }

    async fn serve_tracker(self: Arc<Self>, address: SocketAddr) -> Result<SocketAddr> {
        if self.own_tracker.lock().is_some() {
            let text = "this session runs a tracker already";
            return Err(Error::new(ErrorKind::InUse, text));
        }
        let options = TrackerServerOptions {
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
        Ok(bound)
    }

    /// A user of a torrent goes; with the last one the torrent ends.
    pub(crate) async fn release(self: &Arc<Self>, torrent: Arc<Torrent>, user: u64) -> Result<()> {
        let shared = self.clone();
        self.run(async move {
            let _guard = shared.opening.lock().await;
            // In here, so that the store is closed before somebody else may open it.
            let torrent = torrent;
            if torrent.leave(user) {
                let info_hash = torrent.image().info_hash();
                shared.torrents.lock().remove(&info_hash);
                torrent.end().await;
                let store = Arc::downgrade(torrent.pristine());
                drop(torrent);
                closed(store).await;
            }
            Ok(())
        })
        .await
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

    /// Answers a peer that connected: whichever of our torrents it names.
    async fn welcome(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let failed = |_: &std::io::Error| self.counters.refused_handshake.increment();
        let handshake = greet(&mut stream).await.inspect_err(failed)?;
        let Some(torrent) = self.torrent(handshake.info_hash) else {
            if self.awaits(handshake.info_hash) {
                answer(&mut stream, handshake.info_hash, self.peer_id).await?;
                self.arrived(stream, handshake);
                return Ok(());
            }
            self.counters.refused_unknown.increment();
            return Err(std::io::Error::other(
                "it asks for an image that is not here",
            ));
        };
        answer(&mut stream, handshake.info_hash, self.peer_id)
            .await
            .inspect_err(failed)?;
        torrent.swarm().accept(stream, handshake);
        Ok(())
    }
}

/// Waits until a store is closed, so that the next launch of the image finds its lock free: a piece that is
/// just being stored, or a sync, may hold it for a moment. Not for ever: a mount that could only be detached may, too.
async fn closed(store: Weak<Pristine>) {
    const STEP: Duration = Duration::from_millis(2);
    const STEPS: u32 = 500;
    for _ in 0..STEPS {
        if store.strong_count() == 0 {
            return;
        }
        tokio::time::sleep(STEP).await;
    }
    tracing::debug!("the store of an image that ended is still in use");
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

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let context = || {
        format!(
            "listening for peers on {address}: choose another address or port with --listen, or port 0 for any"
        )
    };
    let bind = || -> std::io::Result<TcpListener> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|e| Error::io(context(), e))
}

/// The Azureus form: two letters, a version, then random bytes.
fn new_peer_id() -> [u8; 20] {
    let mut id = *b"-VT0100-000000000000";
    id[8..].copy_from_slice(&rand::random::<[u8; 12]>());
    id
}

async fn accept(listener: TcpListener, shared: Weak<Shared>) {
    let door = Arc::new(Door::default());
    let failures = LogLimit::default();
    let clock = SystemClock::start();
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: give others time to close some.
                if let Some(repeated) = failures.admit(clock.now()) {
                    tracing::warn!(%error, repeated, "accepting a peer failed: raise the limit of open files, if that is the cause");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let (handle, now) = (shared.handle().clone(), shared.clock.now());
        let host = shared.clone();
        let greeting = async move {
            if let Err(error) = host.welcome(stream).await {
                tracing::debug!(%address, %error, "a peer was not let in");
            }
        };
        if !door.greet(&handle, now, address.ip(), greeting) {
            shared.counters.refused_busy.increment();
            tracing::debug!(%address, "it connects too often");
        }
    }
}
