//! The native side of `vmtorrent.Appliance` and `vmtorrent.aio.Appliance`, which say what each call does.
//!
//! Invariant: a call with `_async` and the one without have one body; nothing waits attached to the interpreter.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use vmtorrent::FileExtentKind;

use crate::appliance_core::ApplianceCore;
use crate::events::Events;
use crate::failure::Failure;
use crate::image::{Image, OriginArgument};
use crate::options::{ApplianceSettings, SessionSettings, Settings, seconds};
use crate::process::unless_cancelled;
use crate::profile::Profile;
use crate::promise::{NOTHING, operate, spawn};
use crate::session::Origin;
use crate::stats::StatsDict;
use crate::vmm::{self, Process, VmmSettings};
use crate::wait::{detached, wait};

/// A running appliance.
#[pyclass(frozen, module = "vmtorrent._vmtorrent")]
pub(crate) struct Appliance {
    core: Arc<ApplianceCore>,
}

impl Drop for Appliance {
    fn drop(&mut self) {
        // Nobody closed it. It ends now, which may take a moment.
        if !self.core.session.living.is_forked() && !self.core.closing.is_cancelled() {
            detached(|| self.core.break_off());
        }
    }
}

impl Appliance {
    fn index(&self, file: usize) -> Result<usize, Failure> {
        self.core.session.living.check()?;
        self.core.files.index(file)
    }

    /// A future of asyncio for what runs in the session.
    fn spawn<'py, T>(
        &self,
        py: Python<'py>,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> PyResult<Bound<'py, PyAny>>
    where
        T: for<'a> IntoPyObject<'a> + Send + 'static,
    {
        self.core.session.living.check()?;
        let session = &self.core.session;
        spawn(py, session.runtime(), &session.deliverer, work)
    }
}

/// The bodies that calls with and without `_async` have in common.
mod body {
    use super::{ApplianceCore, Failure, PathBuf};
    use std::sync::Arc;
    use vmtorrent::profile::Profile;

    pub(super) async fn flush(core: Arc<ApplianceCore>, file: usize) -> Result<(), Failure> {
        Ok(core.enter()?.flush(file).await?)
    }

    pub(super) async fn zero(
        core: Arc<ApplianceCore>,
        file: usize,
        offset: u64,
        length: u64,
        discard: bool,
    ) -> Result<(), Failure> {
        let appliance = core.enter()?;
        let work = async {
            match discard {
                true => appliance.discard(file, offset, length).await,
                false => appliance.write_zeroes(file, offset, length).await,
            }
        };
        core.unless_closing(work).await
    }

    pub(super) async fn profile(core: Arc<ApplianceCore>) -> Result<Profile, Failure> {
        Ok(core.enter()?.profile().await?)
    }

    pub(super) async fn export(core: Arc<ApplianceCore>, output: PathBuf) -> Result<u64, Failure> {
        let appliance = core.enter()?;
        core.unless_closing(appliance.export(&output)).await
    }
}

#[pymethods]
impl Appliance {
    #[getter]
    fn directory(&self) -> Option<PathBuf> {
        self.core.directory.clone()
    }

    #[getter]
    fn state_directory(&self) -> PathBuf {
        self.core.state.clone()
    }

    #[getter]
    fn listen_address(&self) -> String {
        self.core.session.listen().to_string()
    }

    #[getter]
    fn image(&self) -> Image {
        Image::new(self.core.image.clone())
    }

    #[getter]
    fn boot_file(&self) -> usize {
        self.core.files.boot()
    }

    #[getter]
    fn closed(&self) -> bool {
        self.core.closing.is_cancelled()
    }

    fn find(&self, path: &str) -> PyResult<usize> {
        Ok(self.core.files.find(path)?)
    }

    fn pread<'py>(
        &self,
        py: Python<'py>,
        length: u64,
        offset: u64,
        file: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (index, length) = self.bounds(file, offset, length)?;
        let mut read = 0;
        let data = PyBytes::new_with(py, length, |buffer| {
            read = wait(py, self.core.read(index, offset, buffer))?;
            Ok(())
        })?;
        match data.as_bytes().get(..read) {
            // The file was cut meanwhile.
            Some(part) if read < length => Ok(PyBytes::new(py, part)),
            _ => Ok(data),
        }
    }

    /// What is at hand, without waiting; `None` when something is not.
    fn try_pread<'py>(
        &self,
        py: Python<'py>,
        length: u64,
        offset: u64,
        file: usize,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let (index, length) = self.bounds(file, offset, length)?;
        let appliance = self.core.enter()?;
        let mut read = Some(0);
        let data = PyBytes::new_with(py, length, |buffer| {
            let found = py.detach(|| appliance.try_read_at(index, offset, buffer));
            read = found.map_err(Failure::from)?;
            Ok(())
        })?;
        Ok(match read {
            Some(read) if read < length => {
                Some(PyBytes::new(py, data.as_bytes().get(..read).unwrap_or(&[])))
            }
            Some(_) => Some(data),
            None => None,
        })
    }

    fn pread_async<'py>(
        &self,
        py: Python<'py>,
        length: u64,
        offset: u64,
        file: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (index, length) = self.bounds(file, offset, length)?;
        let core = self.core.clone();
        self.spawn(py, async move {
            let mut buffer = vec![0; length];
            let read = core.read(index, offset, &mut buffer).await?;
            buffer.truncate(read);
            Ok(buffer)
        })
    }

    fn pwrite(&self, py: Python<'_>, data: &[u8], offset: u64, file: usize) -> PyResult<usize> {
        let index = self.index(file)?;
        wait(py, self.core.write(index, offset, data))?;
        Ok(data.len())
    }

    fn pwrite_async<'py>(
        &self,
        py: Python<'py>,
        data: &[u8],
        offset: u64,
        file: usize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let index = self.index(file)?;
        let (core, data) = (self.core.clone(), data.to_vec());
        self.spawn(py, async move {
            core.write(index, offset, &data).await?;
            Ok(data.len())
        })
    }

    fn flush(&self, py: Python<'_>, file: usize) -> PyResult<()> {
        wait(py, body::flush(self.core.clone(), self.index(file)?))
    }

    fn flush_async<'py>(&self, py: Python<'py>, file: usize) -> PyResult<Bound<'py, PyAny>> {
        let work = body::flush(self.core.clone(), self.index(file)?);
        self.spawn(py, async { work.await.map(|()| NOTHING) })
    }

    fn zero(
        &self,
        py: Python<'_>,
        offset: u64,
        length: u64,
        file: usize,
        discard: bool,
    ) -> PyResult<()> {
        let index = self.index(file)?;
        let work = body::zero(self.core.clone(), index, offset, length, discard);
        wait(py, work)
    }

    fn zero_async<'py>(
        &self,
        py: Python<'py>,
        offset: u64,
        length: u64,
        file: usize,
        discard: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let index = self.index(file)?;
        let work = body::zero(self.core.clone(), index, offset, length, discard);
        self.spawn(py, async { work.await.map(|()| NOTHING) })
    }

    fn length(&self, file: usize) -> PyResult<u64> {
        let index = self.index(file)?;
        Ok(self.core.enter()?.len(index).map_err(Failure::from)?)
    }

    fn set_length(&self, py: Python<'_>, length: u64, file: usize) -> PyResult<()> {
        let index = self.index(file)?;
        let appliance = self.core.enter()?;
        let set = py.detach(|| appliance.set_len(index, length));
        Ok(set.map_err(Failure::from)?)
    }

    fn prefetch(&self, offset: u64, length: u64, file: usize) -> PyResult<u64> {
        let index = self.index(file)?;
        let missing = self.core.enter()?.prefetch(index, offset, length);
        Ok(missing.map_err(Failure::from)?)
    }

    fn extents(
        &self,
        py: Python<'_>,
        offset: u64,
        length: u64,
        file: usize,
    ) -> PyResult<Vec<(u64, u64, &'static str)>> {
        let index = self.index(file)?;
        let appliance = self.core.enter()?;
        let mut found = Vec::new();
        let told = py.detach(|| {
            appliance.extents(index, offset, length, |extent| {
                let kind = match extent.kind {
                    FileExtentKind::Missing => "missing",
                    FileExtentKind::Present => "present",
                    FileExtentKind::Zero => "zero",
                    FileExtentKind::Written => "written",
                    FileExtentKind::Zeroed => "zeroed",
                };
                found.push((extent.offset, extent.length, kind));
                true
            })
        });
        told.map_err(Failure::from)?;
        Ok(found)
    }

    fn stats(&self) -> PyResult<StatsDict> {
        Ok(StatsDict(self.core.enter()?.stats()))
    }

    fn events(&self) -> PyResult<Events> {
        Ok(Events::new(&self.core, self.core.enter()?.events()))
    }

    fn profile(&self, py: Python<'_>) -> PyResult<Profile> {
        wait(py, body::profile(self.core.clone())).map(Profile::new)
    }

    fn profile_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let work = body::profile(self.core.clone());
        self.spawn(py, async { work.await.map(Profile::new) })
    }

    fn export(&self, py: Python<'_>, output: PathBuf) -> PyResult<u64> {
        wait(py, body::export(self.core.clone(), output))
    }

    fn export_async<'py>(&self, py: Python<'py>, output: PathBuf) -> PyResult<Bound<'py, PyAny>> {
        self.spawn(py, body::export(self.core.clone(), output))
    }

    /// Begins to run a VMM on the boot disk.
    fn start_vmm(&self, settings: VmmSettings) -> PyResult<Process> {
        Ok(vmm::start(&self.core, settings)?)
    }

    /// Ends it in order. Who is interrupted or late breaks it off.
    fn shutdown(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<StatsDict>> {
        self.core.session.living.check()?;
        let timeout = seconds("timeout", timeout)?;
        let ended = wait(py, self.core.shutdown_within(timeout));
        py.detach(|| match &ended {
            Ok(_) => self.core.session.join(),
            Err(_) => self.core.break_off(),
        });
        Ok(ended?.map(StatsDict))
    }

    fn shutdown_async<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.core.session.living.check()?;
        let timeout = seconds("timeout", timeout)?;
        let core = self.core.clone();
        operate(py, move |cancel| {
            let ended = unless_cancelled(cancel, core.shutdown_within(timeout));
            match &ended {
                Ok(_) => core.session.join(),
                Err(_) => core.break_off(),
            }
            ended.map(|stats| stats.map(StatsDict))
        })
    }

    /// Ends it without a flush, as after a power failure.
    fn break_off(&self, py: Python<'_>) {
        if !self.core.session.living.is_forked() {
            py.detach(|| self.core.break_off());
        }
    }
}

impl Appliance {
    /// The file's index, and how much of it a read can give.
    fn bounds(&self, file: usize, offset: u64, length: u64) -> PyResult<(usize, usize)> {
        let index = self.index(file)?;
        let end = self.core.enter()?.len(index).map_err(Failure::from)?;
        let length = length.min(end.saturating_sub(offset));
        let length = usize::try_from(length)
            .map_err(|_| Failure::invalid("so much does not fit into memory: read less at once"))?;
        Ok((index, length))
    }
}

fn settings(
    session: SessionSettings,
    appliance: ApplianceSettings<'_>,
) -> Result<Settings, Failure> {
    Ok(Settings {
        session: session.try_into()?,
        appliance: appliance.try_into()?,
    })
}

/// Starts an appliance in a session of its own.
#[pyfunction]
pub(crate) fn launch(
    py: Python<'_>,
    source: OriginArgument<'_>,
    session: SessionSettings,
    appliance: ApplianceSettings<'_>,
) -> PyResult<Appliance> {
    let (origin, settings): (Origin, _) = (source.try_into()?, settings(session, appliance)?);
    let core = wait(py, ApplianceCore::launch(origin, settings))?;
    Ok(Appliance { core })
}

/// As `launch`, for asyncio.
#[pyfunction]
pub(crate) fn launch_async<'py>(
    py: Python<'py>,
    source: OriginArgument<'_>,
    session: SessionSettings,
    appliance: ApplianceSettings<'_>,
) -> PyResult<Bound<'py, PyAny>> {
    let (origin, settings): (Origin, _) = (source.try_into()?, settings(session, appliance)?);
    operate(py, move |cancel| {
        let core = unless_cancelled(cancel, ApplianceCore::launch(origin, settings))?;
        Ok(Appliance { core })
    })
}
