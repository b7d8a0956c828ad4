//! Invariant: a session belongs to one appliance or one seed, ends after it, and its threads are gone before it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use vmtorrent::image::{Image, Magnet, Source};
use vmtorrent::{Session, SessionOptions};

use crate::failure::Failure;
use crate::process::Living;
use crate::promise::Deliverer;

/// How long the threads of a session may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// What calls that are under way hold on to.
pub(crate) struct SessionCore {
    session: Session,
    pub(crate) deliverer: Arc<Deliverer>,
    pub(crate) living: Living,
}

impl SessionCore {
    pub(crate) async fn start(options: SessionOptions) -> Result<Arc<Self>, Failure> {
        let living = Living::begin()?;
        let session = Session::start(options).await?;
        Ok(Arc::new(Self {
            session,
            deliverer: Arc::default(),
            living,
        }))
    }

    pub(crate) fn get(&self) -> &Session {
        &self.session
    }

    pub(crate) fn runtime(&self) -> &Handle {
        self.session.runtime()
    }

    /// A timer, for whoever waits: it ends when it is dropped.
    pub(crate) fn sleep(&self, time: Duration) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(self.runtime().spawn(async move {
            // Made here, since a timer belongs to the runtime that it is made in.
            let timer = tokio::time::sleep(time);
            timer.await;
        }))
    }

    pub(crate) fn listen(&self) -> SocketAddr {
        self.session.listen_address()
    }

    /// What is asked for: an image that was loaded before, or one that is to be loaded.
    pub(crate) async fn load(
        &self,
        origin: Origin,
        peers: &[SocketAddr],
    ) -> Result<Image, Failure> {
        match origin {
            Origin::Image(image) => Ok(image),
            Origin::Source(source) => Ok(self.session.load(&source.with_peers(peers)).await?),
        }
    }

    /// The link to an image that is shared here. Addresses are in it only where they mean one host.
    pub(crate) fn magnet(&self, image: &Image, tracker: Option<SocketAddr>) -> Magnet {
        let mut magnet = image.magnet();
        if let Some(tracker) = tracker.filter(|t| !t.ip().is_unspecified())
            && let Ok(url) = announce_url(tracker).parse()
        {
            magnet.add_tracker(url);
        }
        if !self.listen().ip().is_unspecified() {
            magnet.add_peer(self.listen());
        }
        magnet
    }

    /// Says good-bye to peers and trackers.
    pub(crate) async fn shutdown(&self) -> Result<(), Failure> {
        Ok(self.session.clone().shutdown().await?)
    }

    /// Waits until its threads are gone. Not for a thread that is attached to the interpreter, nor one of its own.
    pub(crate) fn join(&self) {
        self.session.join_threads(GRACE);
        self.deliverer.end();
    }
}

impl Drop for SessionCore {
    fn drop(&mut self) {
        if self.living.is_forked() {
            // Its threads are those of another process, and what they hold is theirs.
            std::mem::forget(self.session.clone());
            std::mem::forget(self.deliverer.clone());
        } else {
            self.join();
        }
    }
}

pub(crate) fn announce_url(tracker: SocketAddr) -> String {
    format!("http://{tracker}/announce")
}

/// Where an image comes from.
pub(crate) enum Origin {
    Image(Image),
    Source(Source),
}
