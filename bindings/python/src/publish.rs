//! Invariant: what is published is only read.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use vmtorrent::image::{PublishOptions, publish_unless};

use crate::failure::Failure;
use crate::image::Image;
use crate::options::PublishSettings;
use crate::profile::Profile;
use crate::promise::operate;

/// How often Python hears of the progress, and a signal of its main thread is looked for.
const TICK: Duration = Duration::from_millis(50);

/// Calls `told` with the bytes done and the bytes in all, now and then and at the end.
fn run(
    path: &Path,
    options: &PublishOptions,
    profile: Option<vmtorrent::profile::Profile>,
    mut told: impl FnMut(u64, u64) -> PyResult<()>,
) -> PyResult<Image> {
    let mut last: Option<Instant> = None;
    let mut raised = None;
    let published = publish_unless(path, options, |done, total| {
        let due = done == total || last.is_none_or(|at| at.elapsed() >= TICK);
        if !due {
            return ControlFlow::Continue(());
        }
        last = Some(Instant::now());
        match told(done, total) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                raised = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    let published = published.map_err(Failure::from)?;
    let Some(mut published) = published else {
        return Err(raised.unwrap_or_else(|| Failure::cancelled().into()));
    };
    if let Some(profile) = profile {
        published = published.with_profile(&profile).map_err(Failure::from)?;
    }
    Ok(Image::new(published.image))
}

/// Describes a file or directory. `progress` is called with bytes.
#[pyfunction]
pub(crate) fn publish(
    py: Python<'_>,
    path: PathBuf,
    settings: PublishSettings,
    profile: Option<PyRef<'_, Profile>>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Image> {
    let profile = profile.map(|p| p.copy());
    let options: PublishOptions = settings.into();
    py.detach(|| {
        run(&path, &options, profile, |done, total| {
            Python::attach(|py| {
                py.check_signals()?;
                if let Some(progress) = &progress {
                    progress.call1(py, (done, total))?;
                }
                Ok(())
            })
        })
    })
}

/// As `publish`, for asyncio.
#[pyfunction]
pub(crate) fn publish_async<'py>(
    py: Python<'py>,
    path: PathBuf,
    settings: PublishSettings,
    profile: Option<PyRef<'_, Profile>>,
) -> PyResult<Bound<'py, PyAny>> {
    let profile = profile.map(|p| p.copy());
    let options: PublishOptions = settings.into();
    operate(py, move |cancel| {
        let published = publish_unless(&path, &options, |_, _| match cancel.is_cancelled() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })?;
        let mut published = published.ok_or_else(Failure::cancelled)?;
        if let Some(profile) = profile {
            published = published.with_profile(&profile)?;
        }
        Ok(Image::new(published.image))
    })
}
