//! Invariant: events come in order, what was lost is told before what came later, and after the end nothing comes.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;
use vmtorrent::Event;

use crate::appliance_core::ApplianceCore;
use crate::failure::Failure;
use crate::options::seconds;
use crate::promise::spawn;
use crate::session::SessionCore;
use crate::wait::wait;

/// The events of an appliance from some moment on.
#[pyclass(frozen, module = "vmtorrent._vmtorrent")]
pub(crate) struct Events {
    receiver: Arc<Mutex<Receiver<Event>>>,
    closing: CancellationToken,
    appliance: std::sync::Weak<ApplianceCore>,
}

/// One of them, as the dictionary that Python gets.
pub(crate) struct EventDict {
    kind: &'static str,
    message: String,
    file: Option<usize>,
    offset: Option<u64>,
    peers: Option<u32>,
    lost: Option<u64>,
}

impl<'py> IntoPyObject<'py> for EventDict {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let dict = PyDict::new(py);
        dict.set_item("kind", self.kind)?;
        dict.set_item("message", self.message)?;
        dict.set_item("file", self.file)?;
        dict.set_item("offset", self.offset)?;
        dict.set_item("peers", self.peers)?;
        dict.set_item("lost", self.lost)?;
        Ok(dict)
    }
}

impl EventDict {
    fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            file: None,
            offset: None,
            peers: None,
            lost: None,
        }
    }

    /// `None` for what Python does not know of yet.
    fn of(event: Event, core: Option<&ApplianceCore>) -> Option<Self> {
        Some(match event {
            Event::Complete => Self::new("complete", "the whole image is here"),
            Event::ReadTimedOut {
                file,
                offset,
                peers,
            } => Self {
                file: core.and_then(|c| c.files.number(file)),
                offset: Some(offset),
                peers: Some(peers),
                ..Self::new(
                    "read-timed-out",
                    format!(
                        "a read at {offset} got no data in time and failed; {peers} peers are connected"
                    ),
                )
            },
            Event::StorageFailed { reason } => Self::new(
                "storage-failed",
                format!("what is downloaded can't be stored: {reason}"),
            ),
            Event::CacheFull { reason } => Self::new(
                "cache-full",
                format!("the downloaded copy can't grow: {reason}"),
            ),
            Event::WebSeedGivenUp { url, reason } => Self::new(
                "web-seed-given-up",
                format!("the web seed {url} is not counted on any more: {reason}"),
            ),
            _ => return None,
        })
    }
}

impl Events {
    pub(crate) fn new(core: &Arc<ApplianceCore>, receiver: Receiver<Event>) -> Self {
        Self {
            receiver: Arc::new(Mutex::new(receiver)),
            closing: core.closing.clone(),
            appliance: Arc::downgrade(core),
        }
    }

    /// The next one; `None` after the last.
    fn take(&self) -> impl Future<Output = Result<Option<EventDict>, Failure>> + Send + 'static {
        let (receiver, closing) = (self.receiver.clone(), self.closing.clone());
        let appliance = self.appliance.clone();
        async move {
            let mut receiver: OwnedMutexGuard<_> = receiver.lock_owned().await;
            loop {
                let event = tokio::select! {
                    biased;
                    event = receiver.recv() => event,
                    () = closing.cancelled() => return Ok(None),
                };
                let told = match event {
                    Ok(event) => EventDict::of(event, appliance.upgrade().as_deref()),
                    Err(RecvError::Lagged(lost)) => Some(EventDict {
                        lost: Some(lost),
                        ..EventDict::new(
                            "lost",
                            format!("{lost} events were lost: take them sooner"),
                        )
                    }),
                    Err(RecvError::Closed) => return Ok(None),
                };
                if told.is_some() {
                    return Ok(told);
                }
            }
        }
    }

    fn session(&self) -> Option<Arc<SessionCore>> {
        Some(self.appliance.upgrade()?.session.clone())
    }
}

#[pymethods]
impl Events {
    /// The next one, `None` after the last, or `False` when none came in time.
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let timeout = seconds("timeout", timeout)?;
        let session = self.session();
        if let Some(session) = &session {
            session.living.check()?;
        }
        let next = self.take();
        let found = match (timeout, session) {
            (Some(time), Some(session)) => {
                let late = session.sleep(time);
                wait(py, async move {
                    tokio::select! {
                        biased;
                        event = next => event.map(Some),
                        _ = late => Ok(None),
                    }
                })?
            }
            _ => Some(wait(py, next)?),
        };
        match found {
            None => Ok(false.into_pyobject(py)?.to_owned().into_any().unbind()),
            Some(event) => Ok(event.into_pyobject(py)?.unbind()),
        }
    }

    fn next_async<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(session) = self.session() else {
            return Ok(None);
        };
        session.living.check()?;
        spawn(py, session.runtime(), &session.deliverer, self.take()).map(Some)
    }
}
