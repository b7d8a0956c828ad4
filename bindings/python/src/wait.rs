//! Waiting in the caller's thread.
//!
//! Invariant: nobody waits attached to the interpreter, and a signal that Python handles ends a wait of the main thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::failure::Failure;

/// How long the main thread waits before it looks for signals: what a person takes for at once.
const SLICE: Duration = Duration::from_millis(20);

struct Parked {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Polls until it is done or the deadline has passed; it is looked at once at least.
fn poll_until<F: Future + ?Sized>(
    mut future: Pin<&mut F>,
    parked: &Arc<Parked>,
    deadline: Option<Instant>,
) -> Option<F::Output> {
    let waker = Waker::from(parked.clone());
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        // Others may unpark this thread too.
        while !parked.woken.swap(false, Ordering::Acquire) {
            match deadline {
                None => std::thread::park(),
                Some(at) => match at.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => std::thread::park_timeout(left),
                    _ => return None,
                },
            }
        }
    }
}

fn parked() -> Arc<Parked> {
    Arc::new(Parked {
        thread: std::thread::current(),
        // So that what was woken between two waits is polled again.
        woken: AtomicBool::new(false),
    })
}

/// Runs a future to its end in a thread that is not attached to the interpreter.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let parked = parked();
    loop {
        if let Some(output) = poll_until(future.as_mut(), &parked, None) {
            return output;
        }
    }
}

/// Runs a future to its end or for so long; `None`: for ever.
pub(crate) fn block_on_for<F: Future>(future: F, timeout: Option<Duration>) -> Option<F::Output> {
    let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
    poll_until(std::pin::pin!(future), &parked(), deadline)
}

/// Only there does Python handle signals.
fn is_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = py.import("threading")?;
    let main = threading.call_method0("main_thread")?.getattr("ident")?;
    main.eq(threading.call_method0("get_ident")?)
}

/// Does what may take a moment without holding the interpreter up: for `drop`, which may be called attached or not.
pub(crate) fn detached(work: impl FnOnce() + Send) {
    let mut work = Some(work);
    let mut run = || {
        if let Some(work) = work.take() {
            work();
        }
    };
    Python::try_attach(|py| py.detach(&mut run));
    // There is no interpreter any more.
    run();
}

/// Waits for what a future gives, detached from the interpreter. When a signal's handler raises an exception, as that of
/// Ctrl-C does, the future is dropped and the exception raised.
pub(crate) fn wait<T: Send>(
    py: Python<'_>,
    future: impl Future<Output = Result<T, Failure>> + Send,
) -> PyResult<T> {
    let mut future: Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + '_>> =
        Box::pin(future);
    let parked = parked();
    let now = Some(Instant::now());
    if let Some(output) = py.detach(|| poll_until(future.as_mut(), &parked, now)) {
        return Ok(output?);
    }
    let main = is_main_thread(py)?;
    loop {
        let slice = main.then(|| Instant::now() + SLICE);
        if let Some(output) = py.detach(|| poll_until(future.as_mut(), &parked, slice)) {
            return Ok(output?);
        }
        if let Err(raised) = py.check_signals() {
            // Ending what it began may take a moment.
            py.detach(|| drop(future));
            return Err(raised);
        }
    }
}
