//! What monitoring is told of a session, in Prometheus' text format. `docs/metrics.md` lists every name.
//!
//! Invariant: a counter of something never falls while that something is there, and a scrape changes nothing and
//! waits for nothing but short locks.

mod counter;
mod exposition;
mod figures;
mod high_water;
mod process;
mod server;

pub(crate) use counter::Counter;
pub(crate) use exposition::Labels;
pub(crate) use figures::{ApplianceEntry, ImageFigures, SessionCounters};
pub(crate) use high_water::HighWater;
pub(crate) use server::MetricsServer;

use std::net::SocketAddr;
use std::sync::Arc;

use self::exposition::Exposition;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Session, Shared};

impl Session {
    /// The figures of all that the session runs, in Prometheus' text exposition format 0.0.4
    /// (`Content-Type: text/plain; version=0.0.4`), for a program that serves its own metrics page. All names
    /// begin with `vmtorrent_`; `docs/metrics.md` tells what they mean.
    pub fn metrics(&self) -> String {
        page(self.shared()).into_text()
    }

    /// Serves [`metrics`](Self::metrics), and the usual figures of the process, at
    /// `http://ADDRESS/metrics` until the session ends. Port 0 takes any free one; gives the address with the port that
    /// was taken.
    ///
    /// There is no access control: what is served names images and directories, so choose the address
    /// accordingly.
    ///
    /// # Errors
    /// [`ErrorKind::InUse`] when the port is taken, or when this session serves its metrics already.
    pub async fn serve_metrics(&self, address: SocketAddr) -> Result<SocketAddr> {
        let shared = self.shared();
        let mut server = shared.metrics_server.lock();
        if let Some(server) = &*server {
            let text = format!(
                "this session serves its metrics on {} already",
                server.address()
            );
            return Err(Error::new(ErrorKind::InUse, text));
        }
        let session = Arc::downgrade(shared);
        let render = move || {
            let mut page = page(&*session.upgrade()?);
            process::write(&mut page);
            Some(page.into_text())
        };
        let started = MetricsServer::start(address, shared.handle(), render)?;
        let address = started.address();
        tracing::info!(%address, "metrics are served");
        *server = Some(started);
        Ok(address)
    }
}

fn page(session: &Shared) -> Exposition {
    let mut page = Exposition::default();
    figures::write(&mut page, session);
    page
}
