//! Futures of asyncio that are settled from Rust.
//!
//! Invariant: a promise is settled exactly once, in its event loop's thread, unless that loop gave it up. No thread of a
//! session ever waits for the interpreter: a Python thread that holds it may be waiting for that session's disk.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::process;

/// What a future gives that gives nothing: `None`, where a unit would become a tuple.
pub(crate) const NOTHING: Option<bool> = None;

/// Tells a promise that its future was cancelled.
#[pyclass(frozen, module = "vmtorrent._vmtorrent")]
struct OnDone(CancellationToken);

#[pymethods]
impl OnDone {
    fn __call__(&self, _future: &Bound<'_, PyAny>) {
        self.0.cancel();
    }
}

/// Settles a future in its loop's thread, unless it was cancelled meanwhile.
#[pyclass(frozen, module = "vmtorrent._vmtorrent")]
struct Settle;

#[pymethods]
impl Settle {
    fn __call__(&self, future: &Bound<'_, PyAny>, method: &str, value: Py<PyAny>) -> PyResult<()> {
        if !future.call_method0("done")?.is_truthy()? {
            future.call_method1(method, (value,))?;
        }
        Ok(())
    }
}

/// Half of an asyncio future: the one that settles it.
struct Promise {
    event_loop: Py<PyAny>,
    future: Py<PyAny>,
}

impl Promise {
    /// A future of the running loop, its other half, and a token that is cancelled with it.
    fn new(py: Python<'_>) -> PyResult<(Bound<'_, PyAny>, Self, CancellationToken)> {
        let event_loop = py.import("asyncio")?.call_method0("get_running_loop")?;
        let future = event_loop.call_method0("create_future")?;
        let cancel = process::ends_with_interpreter();
        future.call_method1("add_done_callback", (OnDone(cancel.clone()),))?;
        let promise = Self {
            event_loop: event_loop.unbind(),
            future: future.clone().unbind(),
        };
        Ok((future, promise, cancel))
    }

    fn settle(self, py: Python<'_>, result: PyResult<Py<PyAny>>) {
        let (method, value) = match result {
            Ok(value) => ("set_result", value),
            Err(error) => ("set_exception", error.into_value(py).into_any()),
        };
        // A loop that was closed has nobody who waits.
        let _ = self.event_loop.call_method1(
            py,
            "call_soon_threadsafe",
            (Settle, self.future, method, value),
        );
    }
}

type Job = Box<dyn FnOnce(Python<'_>) + Send>;

/// A session's thread that settles promises; it is started by the first one.
#[derive(Default)]
pub(crate) struct Deliverer {
    running: Mutex<Stage>,
}

#[derive(Default)]
enum Stage {
    #[default]
    Before,
    Now(Sender<Job>, JoinHandle<()>),
    Ended,
}

impl Deliverer {
    fn start(&self) -> Result<(), Failure> {
        let mut stage = self.running.lock();
        if let Stage::Before = *stage {
            let (sender, jobs) = channel::<Job>();
            let thread = std::thread::Builder::new()
                .name("vmtorrent-aio".to_owned())
                .spawn(move || {
                    vmtorrent::leave_signals_to_others();
                    for job in jobs {
                        Python::try_attach(job);
                    }
                })
                .map_err(|e| vmtorrent::Error::io("starting a thread", e))?;
            *stage = Stage::Now(sender, thread);
        }
        Ok(())
    }

    fn post(&self, job: Job) {
        if let Stage::Now(sender, _) = &*self.running.lock() {
            // It ends after all that is sent.
            let _ = sender.send(job);
        }
    }

    /// Ends the thread behind all that was posted. Must not be called attached to the interpreter.
    pub(crate) fn end(&self) {
        let stage = std::mem::replace(&mut *self.running.lock(), Stage::Ended);
        if let Stage::Now(sender, thread) = stage {
            drop(sender);
            if thread.thread().id() != std::thread::current().id() {
                // What it ran has reported its own panics.
                let _ = thread.join();
            }
        }
    }
}

/// A promise that is settled even if its task is dropped.
struct Owed {
    promise: Option<Promise>,
    deliverer: Arc<Deliverer>,
}

impl Owed {
    fn settle<T>(mut self, result: Result<T, Failure>)
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        if let Some(promise) = self.promise.take() {
            self.deliverer.post(Box::new(move |py| {
                let result = result.map_err(PyErr::from);
                promise.settle(py, result.and_then(|value| value.into_py_any(py)));
            }));
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(promise) = self.promise.take() {
            self.deliverer.post(Box::new(move |py| {
                promise.settle(py, Err(Failure::closed("session").into()));
            }));
        }
    }
}

/// An asyncio future of what `work` gives, which runs in a session's threads.
pub(crate) fn spawn<'py, T>(
    py: Python<'py>,
    runtime: &tokio::runtime::Handle,
    deliverer: &Arc<Deliverer>,
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> PyResult<Bound<'py, PyAny>>
where
    T: for<'a> IntoPyObject<'a> + Send + 'static,
{
    deliverer.start()?;
    let (future, promise, cancel) = Promise::new(py)?;
    let owed = Owed {
        promise: Some(promise),
        deliverer: deliverer.clone(),
    };
    runtime.spawn(async move {
        let result = tokio::select! {
            biased;
            // Its loop waits no more; settling it does no harm.
            () = cancel.cancelled() => Err(Failure::cancelled()),
            done = work => done,
        };
        owed.settle(result);
    });
    Ok(future)
}

/// An asyncio future of what `work` gives, which has a thread of its own and is told when it is given up.
pub(crate) fn operate<'py, T>(
    py: Python<'py>,
    work: impl FnOnce(&CancellationToken) -> Result<T, Failure> + Send + 'static,
) -> PyResult<Bound<'py, PyAny>>
where
    T: for<'a> IntoPyObject<'a> + Send + 'static,
{
    let (future, promise, cancel) = Promise::new(py)?;
    let counted = process::operation();
    let run = move || {
        vmtorrent::leave_signals_to_others();
        let result = work(&cancel);
        Python::try_attach(|py| {
            let result = result.map_err(PyErr::from);
            promise.settle(py, result.and_then(|value| value.into_py_any(py)));
        });
        drop(counted);
    };
    std::thread::Builder::new()
        .name("vmtorrent-aio".to_owned())
        .spawn(run)
        .map_err(|e| vmtorrent::Error::io("starting a thread", e))
        .map_err(Failure::from)?;
    Ok(future)
}
