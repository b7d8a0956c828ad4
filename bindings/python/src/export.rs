//! Invariant: when an export returns, no thread of the session that it needed is left.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pyo3::prelude::*;
use vmtorrent::{ExportOptions, Session};

use crate::failure::Failure;
use crate::options::seconds;
use crate::process::{Living, unless_cancelled};
use crate::promise::operate;
use crate::wait::wait;

/// How long the session's threads are waited for.
const GRACE: Duration = Duration::from_secs(10);

/// Joins the threads of the export's session, however it ends.
#[derive(Default)]
struct Ended(Option<Session>);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            session.join_threads(GRACE);
        }
    }
}

async fn run(state: &Path, output: &Path, options: ExportOptions) -> Result<u64, Failure> {
    let _living = Living::begin()?;
    let mut ended = Ended::default();
    let started = |session: &Session| ended.0 = Some(session.clone());
    Ok(vmtorrent::export_in(state, output, options, started).await?)
}

/// Writes out the image of a state directory. Gives the bytes that were written.
#[pyfunction]
pub(crate) fn export(
    py: Python<'_>,
    state: PathBuf,
    output: PathBuf,
    cache: Option<PathBuf>,
    read_timeout: Option<f64>,
) -> PyResult<u64> {
    let read_timeout = seconds("read_timeout", read_timeout)?;
    let options = ExportOptions {
        cache,
        read_timeout,
    };
    wait(py, run(&state, &output, options))
}

/// As `export`, for asyncio.
#[pyfunction]
pub(crate) fn export_async<'py>(
    py: Python<'py>,
    state: PathBuf,
    output: PathBuf,
    cache: Option<PathBuf>,
    read_timeout: Option<f64>,
) -> PyResult<Bound<'py, PyAny>> {
    let read_timeout = seconds("read_timeout", read_timeout)?;
    let options = ExportOptions {
        cache,
        read_timeout,
    };
    operate(py, move |cancel| {
        unless_cancelled(cancel, run(&state, &output, options))
    })
}
