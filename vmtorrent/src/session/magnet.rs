//! From a magnet link to an image.
//!
//! Invariant: an image comes of a link only if its info dictionary has the link's hash, wherever it was found.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::{Shared, ended};
use crate::announcer::Announcer;
use crate::image::{Image, InfoHash, Magnet, PeerAddress, Source};
use crate::swarm::{MetadataJob, PeerHandshake, PeerStream, fetch_metadata};
use crate::tracker::TrackerConfig;
use crate::{Error, ErrorKind, Result};

/// What a session keeps about images that it knows by their info-hash only.
#[derive(Default)]
pub(super) struct Magnets {
    /// Where peers that connect for an image go whose description is being fetched.
    searches: HashMap<InfoHash, mpsc::Sender<(PeerStream, PeerHandshake)>>,
    /// What a search found, for the launch that follows.
    known: HashMap<InfoHash, Known>,
}

/// What a launch need not find out again.
#[derive(Default)]
pub(super) struct Known {
    pub(super) announcer: Option<Announcer>,
    pub(super) peers: Vec<SocketAddr>,
}

/// How long a host name may take to be looked up, and how many of its addresses are tried.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(5);
const MAX_ADDRESSES: usize = 8;
/// How long trackers are told of an image whose description was fetched and that nobody launches.
const LAUNCH_PATIENCE: Duration = Duration::from_secs(60);

/// A search that peers can connect to, for as long as it lives.
struct Search {
    shared: Arc<Shared>,
    info_hash: InfoHash,
    sender: mpsc::Sender<(PeerStream, PeerHandshake)>,
}

impl Search {
    fn begin(
        shared: &Arc<Shared>,
        info_hash: InfoHash,
    ) -> (Self, mpsc::Receiver<(PeerStream, PeerHandshake)>) {
        let (sender, arrivals) = mpsc::channel(4);
        let mut magnets = shared.magnets.lock();
        magnets.searches.insert(info_hash, sender.clone());
        let search = Self {
            shared: shared.clone(),
            info_hash,
            sender,
        };
        (search, arrivals)
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        let mut magnets = self.shared.magnets.lock();
        // Two may look for one image; the later one has the place.
        let found = magnets.searches.get(&self.info_hash);
        if found.is_some_and(|s| s.same_channel(&self.sender)) {
            magnets.searches.remove(&self.info_hash);
        }
    }
}

impl Shared {
    /// The image that a magnet link names. Dropping the future ends the search.
    pub(super) async fn load_magnet(self: &Arc<Self>, magnet: Magnet) -> Result<Image> {
        let shared = self.clone();
        let task = self
            .handle()
            .spawn(async move { shared.find_image(magnet).await });
        match AbortOnDropHandle::new(task).await {
            Ok(result) => result,
            Err(error) => Err(ended(error)),
        }
    }

    async fn find_image(self: Arc<Self>, magnet: Magnet) -> Result<Image> {
        let named = look_up(magnet.peers()).await;
        let info_hash = magnet.info_hash();
        if let Some(torrent) = self.torrent(info_hash) {
            let image = Image::clone(torrent.image());
            return Ok(image.reached_by(&magnet, &named));
        }
        if let Some(image) = self.find_in_cache(info_hash).await {
            return Ok(image.reached_by(&magnet, &named));
        }
        let info = self.search(&magnet, named.clone()).await?;
        self.blocking(move || {
            let image = Image::from_info(&info, &magnet).map_err(|e| {
                Error::new(
                    e.kind(),
                    format!("{}: {}", Source::Magnet(magnet.clone()), e.context()),
                )
            })?;
            Ok(image.reached_by(&magnet, &named))
        })
        .await
    }

    /// What an earlier launch left in the cache, if it is what the link names.
    async fn find_in_cache(&self, info_hash: InfoHash) -> Option<Image> {
        let entry = self.cache.join(info_hash.to_string());
        let path = entry.join("image.torrent");
        match Source::File(path).load().await {
            Ok(image) if image.info_hash() == info_hash => Some(image),
            Ok(image) => {
                let other = image.info_hash();
                tracing::warn!(%info_hash, %other, "the cache holds another image's .torrent file; peers are asked");
                None
            }
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(%info_hash, %error, "the .torrent file in the cache can't be used; peers are asked");
                }
                None
            }
        }
    }

    /// Asks peers for the info dictionary, and keeps what was found of them for the launch that follows.
    async fn search(self: &Arc<Self>, magnet: &Magnet, named: Vec<SocketAddr>) -> Result<Bytes> {
        let info_hash = magnet.info_hash();
        let trackers = magnet.trackers().iter().filter(|_| self.options.discovery);
        let tiers: Vec<Vec<Url>> = trackers.map(|t| vec![t.clone()]).collect();
        let in_dht = self.dht.as_ref().is_some_and(|dht| dht.knows_anybody());
        if named.is_empty() && tiers.is_empty() && self.local.is_none() && !in_dht {
            let text = format!(
                "the magnet link of {info_hash} leads to nobody: it names no peer that can be reached, and no \
                 tracker that may be asked; name a peer with the option `peer`, or pass the .torrent file"
            );
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        tracing::info!(%info_hash, "asking peers for the image's description");
        let (_search, arrivals) = Search::begin(self, info_hash);
        let (neighbours, nearby) = mpsc::channel(16);
        let _local = self
            .local
            .as_ref()
            .map(|local| local.register(info_hash, neighbours.clone()));
        let _dht = self
            .dht
            .as_ref()
            .map(|dht| dht.register(info_hash, neighbours));
        let (announcer, found) = if tiers.is_empty() {
            (None, mpsc::channel(1).1)
        } else {
            let config = TrackerConfig {
                info_hash,
                peer_id: self.peer_id,
                port: self.listen.port(),
                tiers,
                http: self.http.clone(),
                seed: rand::random(),
            };
            let (announcer, found) = Announcer::start(self.handle(), config);
            (Some(announcer), found)
        };
        // When it fails the announcer is dropped, which tells the trackers in the background.
        let fetched = fetch_metadata(MetadataJob {
            info_hash,
            peer_id: self.peer_id,
            listen_port: self.listen.port(),
            dialler: self.dialler(),
            clock: self.clock,
            named,
            found,
            nearby,
            arrivals,
            patience: self.options.metadata_timeout,
            seed: rand::random(),
        })
        .await?;
        let known = Known {
            announcer: announcer.map(|a| a.found_by(fetched.found)),
            peers: fetched.peers,
        };
        self.keep_known(info_hash, known);
        Ok(fetched.info)
    }

    fn keep_known(self: &Arc<Self>, info_hash: InfoHash, known: Known) {
        // Of two searches the later one's is kept; the other's trackers are told in the background.
        self.magnets.lock().known.insert(info_hash, known);
        let shared = Arc::downgrade(self);
        self.handle().spawn(async move {
            tokio::time::sleep(LAUNCH_PATIENCE).await;
            if let Some(shared) = shared.upgrade() {
                shared.take_known(info_hash);
            }
        });
    }

    /// What a search found out about an image that is launched now.
    pub(super) fn take_known(&self, info_hash: InfoHash) -> Known {
        let known = self.magnets.lock().known.remove(&info_hash);
        known.unwrap_or_default()
    }

    /// Tells the trackers of all images that were searched for and not launched.
    pub(super) async fn forget_magnets(&self) {
        let known = std::mem::take(&mut self.magnets.lock().known);
        let announcers = known.into_values().filter_map(|k| k.announcer);
        join_all(announcers.map(Announcer::stop)).await;
    }

    /// Whether peers are being asked for the description of this image.
    pub(super) fn awaits(&self, info_hash: InfoHash) -> bool {
        self.magnets.lock().searches.contains_key(&info_hash)
    }

    /// A peer has connected for an image whose description is being fetched.
    pub(super) fn arrived(&self, stream: PeerStream, handshake: PeerHandshake) {
        if let Some(search) = self.magnets.lock().searches.get(&handshake.info_hash) {
            // When too many come at once, they may come again.
            let _ = search.try_send((stream, handshake));
        }
    }
}

/// The addresses of peers. A name that can't be looked up is left out.
async fn look_up(peers: &[PeerAddress]) -> Vec<SocketAddr> {
    let lookups = peers.iter().map(|peer| async move {
        let (name, port) = match peer {
            PeerAddress::Ip(address) => return vec![*address],
            PeerAddress::Host(name, port) => (name.as_str(), *port),
        };
        let lookup = tokio::net::lookup_host((name, port));
        match tokio::time::timeout(LOOKUP_PATIENCE, lookup).await {
            Ok(Ok(addresses)) => addresses.take(MAX_ADDRESSES).collect(),
            Ok(Err(error)) => {
                tracing::warn!(%peer, %error, "a peer's host name can't be looked up");
                Vec::new()
            }
            Err(_) => {
                tracing::warn!(%peer, "looking up a peer's host name takes too long");
                Vec::new()
            }
        }
    });
    join_all(lookups).await.concat()
}
