//! Invariant: every failure becomes an exception of `vmtorrent._errors`, with the number and the words of its cause.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyModule;
use vmtorrent::{Error, ErrorKind};

/// What is to be raised.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Name of the class in `vmtorrent._errors`.
    class: &'static str,
    errno: i32,
    text: String,
}

impl Failure {
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Error::new(ErrorKind::InvalidInput, text).into()
    }

    /// `what` was shut down.
    pub(crate) fn closed(what: &str) -> Self {
        Error::new(ErrorKind::Closed, format!("the {what} was closed")).into()
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Error::new(ErrorKind::NotFound, text).into()
    }

    /// It did not end in order within the time that it was given.
    pub(crate) fn late(timeout: Duration) -> Self {
        let text = format!(
            "it did not end in order within {} s: what was not flushed may be lost; allow more time",
            timeout.as_secs_f64()
        );
        Error::new(ErrorKind::TimedOut, text).into()
    }

    /// Used in a process that was forked off.
    pub(crate) fn forked(text: &str) -> Self {
        Self {
            class: "ForkedError",
            ..Error::new(ErrorKind::Unavailable, text).into()
        }
    }

    /// Given up by who asked for it; nobody waits for the answer any more.
    pub(crate) fn cancelled() -> Self {
        Error::new(ErrorKind::Closed, "it was cancelled").into()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let class = match error.kind() {
            ErrorKind::InvalidInput => "InvalidInputError",
            ErrorKind::InvalidTorrent => "InvalidTorrentError",
            ErrorKind::NotFound => "NotFoundError",
            ErrorKind::PermissionDenied => "PermissionDeniedError",
            ErrorKind::InUse => "InUseError",
            ErrorKind::Unavailable => "UnavailableError",
            ErrorKind::Network => "NetworkError",
            ErrorKind::TimedOut => "TimedOutError",
            ErrorKind::NoSpace => "NoSpaceError",
            ErrorKind::Corrupt => "CorruptError",
            ErrorKind::Closed => "ClosedError",
            // The kinds may grow.
            _ => "IoError",
        };
        Self {
            class,
            errno: error.errno().raw(),
            text: error.to_string(),
        }
    }
}

static CLASSES: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        Python::attach(|py| {
            let raised = CLASSES
                .get_or_try_init(py, || py.import("vmtorrent._errors").map(Bound::unbind))
                .and_then(|classes| classes.bind(py).getattr(failure.class))
                .and_then(|class| class.call1((failure.errno, failure.text)));
            match raised {
                Ok(exception) => PyErr::from_value(exception),
                Err(instead) => instead,
            }
        })
    }
}
