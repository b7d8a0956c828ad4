//! Which images a session runs, and how one is opened and ended.
//!
//! Invariant: whoever is given a torrent is among its users already, so nobody else's going can end it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::OwnedMutexGuard;
use url::Url;

use super::{Member, Shared, on_this_host};
use crate::appliance::{Appliance, ApplianceParts};
use crate::directories;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image, InfoHash};
use crate::options::{ApplianceOptions, Fill, State};
use crate::overlay::StateDirectory;
use crate::pristine::Pristine;
use crate::profile::{KeptProfiles, Profile};
use crate::seed::Seed;
use crate::swarm::{PeersFile, ProfileRank, SwarmConfig};
use crate::torrent::{Torrent, TorrentConfig};
use crate::tracker::TrackerConfig;

impl Shared {
    pub(super) async fn launch(
        self: Arc<Self>,
        image: Image,
        mut options: ApplianceOptions,
    ) -> Result<Appliance> {
        check_web_seeds(&options.web_seeds)?;
        let image = Arc::new(image);
        let state = self.open_state(&image, &options).await?;
        let member = self.join_cached(image.clone(), options.fill).await?;
        for peer in options.peers.iter().chain(image.peers()) {
            member.torrent().swarm().add_address(*peer, true);
        }
        let of_image = image.web_seeds().iter().filter(|_| self.options.discovery);
        let web_seeds = options.web_seeds.iter().chain(of_image);
        member
            .torrent()
            .swarm()
            .add_web_seeds(web_seeds, &self.http);
        let (profile, kept) = self.choose_profile(&image, &mut options).await?;
        let parts = ApplianceParts {
            session: self,
            member,
            state,
            options,
            profile,
            kept,
        };
        Appliance::start(parts).await
    }

    /// What the guest is expected to read, and where its run is kept.
    async fn choose_profile(
        self: &Arc<Self>,
        image: &Arc<Image>,
        options: &mut ApplianceOptions,
    ) -> Result<(Option<Profile>, Option<KeptProfiles>)> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let kept = options
            .auto_profile
            .then(|| KeptProfiles::new(&self.cache, image.info_hash(), now.as_micros()));
        let (image, named) = (image.clone(), options.profile.take());
        self.blocking(move || {
            if let Some(named) = named {
                let profile = Profile::for_image(&image, &named)?;
                if named.info_hash() != image.info_hash() {
                    tracing::warn!(
                        name = named.name(),
                        info_hash = %named.info_hash(),
                        image = image.name(),
                        "the profile is of another image with the same files: it helps as far as they hold the same"
                    );
                }
                return Ok((Some(profile), kept));
            }
            let attached = image.profile().unwrap_or_else(|error| {
                tracing::warn!(%error, "the profile in the .torrent file is left out");
                None
            });
            let own = kept.as_ref().and_then(|kept| kept.read(&image));
            let profile = match (attached, own) {
                (Some(mut attached), Some(own)) => {
                    attached.merge(&own)?;
                    Some(attached)
                }
                (attached, own) => attached.or(own),
            };
            Ok((profile, kept))
        })
        .await
    }

    pub(super) async fn open_state(
        self: &Arc<Self>,
        image: &Arc<Image>,
        options: &ApplianceOptions,
    ) -> Result<StateDirectory> {
        let state = options.state.clone();
        let image = image.clone();
        let cache = self.cache.clone();
        let named = options.peers.iter().chain(image.peers());
        let peers: Vec<String> = named.map(ToString::to_string).collect();
        let web_seeds = options.web_seeds.iter().map(Url::to_string).collect();
        self.blocking(move || {
            let state = match state {
                State::Ephemeral => StateDirectory::ephemeral(None, &image)?,
                State::Directory(path) => StateDirectory::open(&path, &image)?,
                State::Default => StateDirectory::open(&directories::state(image.name())?, &image)?,
            };
            state.note(Some(&cache), peers.into(), web_seeds)?;
            Ok(state)
        })
        .await
    }

    /// Makes somebody a user of an image in the cache; the image's torrent is opened if nobody runs it yet.
    pub(super) async fn join_cached(
        self: &Arc<Self>,
        image: Arc<Image>,
        fill: Fill,
    ) -> Result<Member> {
        let _guard = self.opening(image.info_hash()).await;
        if let Some(torrent) = self.torrent(image.info_hash()) {
            return Ok(Member::join(self, torrent, fill));
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
        Ok(Member::join(self, torrent, fill))
    }

    pub(super) async fn seed(self: Arc<Self>, image: Image, data: PathBuf) -> Result<Seed> {
        let _guard = self.opening(image.info_hash()).await;
        if self.torrent(image.info_hash()).is_some() {
            let text = format!(
                "{} is launched or seeded by this session already",
                image.name()
            );
            return Err(Error::new(ErrorKind::InUse, text));
        }
        let (pristine, profile) = self
            .blocking(move || {
                let profile = attached_text(&image);
                Ok((Pristine::open_published(Arc::new(image), &data)?, profile))
            })
            .await?;
        let own = self.own_tracker.lock().as_ref().map(|(url, _)| url.clone());
        let torrent = self.start_torrent(Arc::new(pristine), None, false, own);
        if let Some(profile) = profile {
            // For those that come by a magnet link.
            torrent.swarm().offer_profile(profile, ProfileRank::InUse);
        }
        Ok(Seed::new(Member::join(&self, torrent, Fill::None)))
    }

    /// Waits for the right to open or end this image's torrent. Other images do not wait for it: an end takes as long
    /// as trackers and disks let it.
    pub(super) async fn opening(&self, info_hash: InfoHash) -> OwnedMutexGuard<()> {
        let lock = {
            let mut opening = self.opening.lock();
            opening.retain(|_, lock| lock.strong_count() > 0);
            match opening.get(&info_hash).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::default();
                    opening.insert(info_hash, Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }

    /// The images that are launched or seeded now.
    pub(crate) fn torrents(&self) -> Vec<Arc<Torrent>> {
        let torrents = self.torrents.lock();
        torrents.values().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn torrent(&self, info_hash: InfoHash) -> Option<Arc<Torrent>> {
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
        // Before it is announced there.
        self.track(image.info_hash());
        let known = self.take_known(image.info_hash());
        // A private image's peers come from its trackers only (BEP 27).
        let dht = self.dht.clone().filter(|_| !image.is_private());
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
                upload_slots: self.options.upload_slots,
                places: self.places.clone(),
                dialler: self.dialler(),
                discovery: self.options.discovery,
                profile_exchange: self.options.profile_exchange,
                compression: self.codec.clone(),
                peer_exchange: self.options.discovery && self.options.peer_exchange,
                nodes: dht.as_ref().map(|dht| dht.exchange()),
                seed: rand::random(),
                // Of the highest level, so that every line that is logged at all bears the name.
                span: tracing::error_span!("swarm", image = image.name()),
            },
            tracker,
            local: self.local.clone().filter(|_| !image.is_private()),
            dht,
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
        drop(torrents);
        // And behind the insertion: a tracker that started meanwhile asked for what was there.
        self.track(image.info_hash());
        torrent
    }

    /// Our own tracker, if there is one, tracks this image from now on: peers may need each other even when it is
    /// no longer served here.
    pub(super) fn track(&self, image: InfoHash) {
        if let Some((_, tracker)) = &*self.own_tracker.lock() {
            tracker.track(image);
        }
    }

    /// A user of a torrent goes; with the last one the torrent ends.
    pub(super) async fn release(self: &Arc<Self>, member: Member) -> Result<()> {
        let shared = self.clone();
        self.run(async move {
            let info_hash = member.torrent().image().info_hash();
            let _guard = shared.opening(info_hash).await;
            // In here, so that the store is closed before somebody else may open it.
            let torrent = member.torrent().clone();
            if member.give_up() {
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
}

fn check_web_seeds(urls: &[Url]) -> Result<()> {
    let wrong = |url: &&Url| !matches!(url.scheme(), "http" | "https") || !url.has_host();
    match urls.iter().find(wrong) {
        None => Ok(()),
        Some(url) => Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "the web seed {url} is no web server; give a URL that begins with http:// or https://"
            ),
        )),
    }
}

/// The text of the profile in a .torrent file, if it is a profile of the image.
fn attached_text(image: &Image) -> Option<Bytes> {
    match image.profile() {
        Ok(profile) => image.profile.clone().filter(|_| profile.is_some()),
        Err(error) => {
            tracing::warn!(%error, "the profile in the .torrent file is not given to peers");
            None
        }
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
