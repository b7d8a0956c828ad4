//! Invariant: what is seeded is only read; a seed ends before its session does.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pyo3::prelude::*;
use vmtorrent::{SessionOptions, Stats};

use crate::failure::Failure;
use crate::image::{Image, OriginArgument};
use crate::options::{SessionSettings, address};
use crate::process::{self, Running, unless_cancelled};
use crate::promise::operate;
use crate::session::{Origin, SessionCore, announce_url};
use crate::stats::StatsDict;
use crate::wait::{detached, wait};

struct SeedCore {
    seed: Mutex<Option<vmtorrent::Seed>>,
    image: vmtorrent::image::Image,
    tracker: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    // Last: it outlives the seed.
    session: Arc<SessionCore>,
}

/// Serves a published file: the native side of `vmtorrent.Seed`.
#[pyclass(frozen, module = "vmtorrent._vmtorrent")]
pub(crate) struct Seed {
    core: Arc<SeedCore>,
}

/// What is asked of a seed.
struct Request {
    origin: Origin,
    data: PathBuf,
    session: SessionOptions,
    tracker: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
}

impl SeedCore {
    async fn start(request: Request) -> Result<Arc<Self>, Failure> {
        let session = SessionCore::start(request.session).await?;
        let image = session.load(request.origin, &[]).await?;
        // First, because the image may well name this tracker.
        let tracker = match request.tracker {
            Some(address) => Some(session.get().serve_tracker(address).await?),
            None => None,
        };
        let metrics = match request.metrics {
            Some(address) => Some(session.get().serve_metrics(address).await?),
            None => None,
        };
        let seed = session.get().seed(image, &request.data).await?;
        let core = Arc::new(Self {
            image: seed.image().clone(),
            seed: Mutex::new(Some(seed)),
            tracker,
            metrics,
            session,
        });
        let running: Weak<dyn Running> = Arc::downgrade(&(core.clone() as Arc<dyn Running>));
        process::run(running);
        Ok(core)
    }

    async fn shutdown(&self) -> Result<Option<Stats>, Failure> {
        let seed = self.seed.lock().take();
        let stats = match seed {
            Some(seed) => Some(seed.shutdown().await?),
            None => None,
        };
        self.session.shutdown().await?;
        Ok(stats)
    }

    fn break_off(&self) {
        drop(self.seed.lock().take());
        self.session.join();
    }
}

impl Running for SeedCore {
    fn break_off(&self) {
        SeedCore::break_off(self);
    }
}

impl Drop for SeedCore {
    fn drop(&mut self) {
        if self.session.living.is_forked() {
            std::mem::forget(self.seed.get_mut().take());
        }
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if !self.core.session.living.is_forked() && self.core.seed.lock().is_some() {
            detached(|| self.core.break_off());
        }
    }
}

#[pymethods]
impl Seed {
    #[getter]
    fn image(&self) -> Image {
        Image::new(self.core.image.clone())
    }

    #[getter]
    fn magnet(&self) -> String {
        let core = &self.core;
        core.session.magnet(&core.image, core.tracker).to_string()
    }

    #[getter]
    fn listen_address(&self) -> String {
        self.core.session.listen().to_string()
    }

    #[getter]
    fn tracker_url(&self) -> Option<String> {
        self.core.tracker.map(announce_url)
    }

    #[getter]
    fn metrics_url(&self) -> Option<String> {
        self.core.metrics.map(|at| format!("http://{at}/metrics"))
    }

    fn stats(&self) -> PyResult<StatsDict> {
        self.core.session.living.check()?;
        let seed = self.core.seed.lock();
        let seed = seed.as_ref().ok_or_else(|| Failure::closed("seed"))?;
        Ok(StatsDict(seed.stats()))
    }

    fn shutdown(&self, py: Python<'_>) -> PyResult<Option<StatsDict>> {
        self.core.session.living.check()?;
        let ended = wait(py, self.core.shutdown());
        py.detach(|| self.core.session.join());
        Ok(ended?.map(StatsDict))
    }

    fn shutdown_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.core.session.living.check()?;
        let core = self.core.clone();
        operate(py, move |cancel| {
            let ended = unless_cancelled(cancel, core.shutdown());
            core.session.join();
            ended.map(|stats| stats.map(StatsDict))
        })
    }

    /// Ends it at once.
    fn break_off(&self, py: Python<'_>) {
        if !self.core.session.living.is_forked() {
            py.detach(|| self.core.break_off());
        }
    }
}

fn request(
    source: OriginArgument<'_>,
    data: PathBuf,
    session: SessionSettings,
    tracker: Option<&str>,
    metrics: Option<&str>,
) -> Result<Request, Failure> {
    Ok(Request {
        origin: source.try_into()?,
        data,
        session: session.try_into()?,
        tracker: tracker.map(|a| address("tracker", a)).transpose()?,
        metrics: metrics.map(|a| address("metrics", a)).transpose()?,
    })
}

/// Starts a seed in a session of its own.
#[pyfunction]
pub(crate) fn seed(
    py: Python<'_>,
    source: OriginArgument<'_>,
    data: PathBuf,
    session: SessionSettings,
    tracker: Option<&str>,
    metrics: Option<&str>,
) -> PyResult<Seed> {
    let request = request(source, data, session, tracker, metrics)?;
    let core = wait(py, SeedCore::start(request))?;
    Ok(Seed { core })
}

/// As `seed`, for asyncio.
#[pyfunction]
pub(crate) fn seed_async<'py>(
    py: Python<'py>,
    source: OriginArgument<'_>,
    data: PathBuf,
    session: SessionSettings,
    tracker: Option<&str>,
    metrics: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let request = request(source, data, session, tracker, metrics)?;
    operate(py, move |cancel| {
        let core = unless_cancelled(cancel, SeedCore::start(request))?;
        Ok(Seed { core })
    })
}
