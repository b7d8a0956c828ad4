//! The native side of `vmtorrent.Process`: a VMM that runs on an appliance's disk.
//!
//! Invariant: the VMM ends before its disk does, and in the process that started it alone.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use vmtorrent::vmm::{self, Ended, Output, Plan, Presets, ProcessOptions, Values};

use crate::appliance_core::ApplianceCore;
use crate::failure::Failure;
use crate::options::seconds;
use crate::process::{self, Running};
use crate::promise::{NOTHING, spawn};
use crate::session::SessionCore;
use crate::wait::{block_on, detached, wait};

/// What runs, and where.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct VmmSettings {
    vmm: VmmArgument,
    memory: Option<u64>,
    cpus: Option<u32>,
    name: Option<String>,
    format: Option<String>,
    set: BTreeMap<String, String>,
    extra: Vec<OsString>,
    file: Option<PathBuf>,
    work: PathBuf,
    console: bool,
}

/// A preset's name, or the words of a command line.
#[derive(FromPyObject)]
enum VmmArgument {
    Preset(String),
    Words(Vec<OsString>),
}

struct ProcessCore {
    process: vmm::Process,
    words: Vec<OsString>,
    session: Arc<SessionCore>,
}

/// A VMM's process.
#[pyclass(frozen, module = "vmtorrent._vmtorrent")]
pub(crate) struct Process {
    // `None` in `drop` alone.
    core: Option<Arc<ProcessCore>>,
}

/// What a guest's console prints.
#[pyclass(frozen, module = "vmtorrent._vmtorrent")]
pub(crate) struct Console {
    console: Arc<tokio::sync::Mutex<vmm::Console>>,
    /// What was read and not taken yet; so a wait that is given up loses nothing.
    read: Arc<Mutex<Vec<u8>>>,
    session: Arc<SessionCore>,
}

/// Exit status as `subprocess` tells it (`None`: it never ran), and what could not be taken back.
type End = (Option<i32>, Vec<String>);

fn end_of(ended: Ended) -> End {
    (ended.status.map(returncode), ended.left)
}

fn returncode(status: ExitStatus) -> i32 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return -signal;
    }
    status.code().unwrap_or(-1)
}

fn plan(appliance: &ApplianceCore, settings: VmmSettings) -> Result<(Plan, bool), Failure> {
    let using = appliance.enter()?;
    let mut values = Values::for_appliance(&using, settings.work)?;
    if let Some(memory) = settings.memory {
        values.memory = memory;
    }
    if let Some(cpus) = settings.cpus {
        values.cpus = cpus;
    }
    if let Some(name) = settings.name {
        values.name = name;
    }
    if let Some(format) = settings.format {
        values.format = format;
    }
    values.set = settings.set;
    values.extra = settings.extra;
    let plan = match settings.vmm {
        VmmArgument::Words(words) => Plan::command(&words, &values)?,
        VmmArgument::Preset(name) => {
            let presets = Presets::for_user(settings.file.as_deref())?;
            presets.get(&name)?.plan(&values)?
        }
    };
    Ok((plan, settings.console))
}

/// Begins to run a VMM on an appliance's boot disk.
pub(crate) fn start(appliance: &ApplianceCore, settings: VmmSettings) -> Result<Process, Failure> {
    let (plan, console) = plan(appliance, settings)?;
    let words = plan.run.words().map(Into::into).collect();
    let options = ProcessOptions {
        output: match console {
            true => Output::Piped,
            false => Output::Inherit,
        },
        ..ProcessOptions::default()
    };
    let core = Arc::new(ProcessCore {
        process: vmm::Process::spawn(plan, options)?,
        words,
        session: appliance.session.clone(),
    });
    let running: Weak<dyn Running> = Arc::downgrade(&(core.clone() as Arc<dyn Running>));
    process::run(running);
    Ok(Process { core: Some(core) })
}

impl Running for ProcessCore {
    fn break_off(&self) {
        // How it ended interests nobody any more.
        let _ = block_on(self.process.kill());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(core) = self.core.take() else {
            return;
        };
        if core.session.living.is_forked() {
            std::mem::forget(core);
        } else {
            // It is killed if it runs, and what was set up for it taken back.
            detached(|| drop(core));
        }
    }
}

impl Process {
    fn core(&self) -> Result<Arc<ProcessCore>, Failure> {
        let core = self.core.clone().ok_or_else(|| Failure::closed("VMM"))?;
        core.session.living.check()?;
        Ok(core)
    }

    fn spawn<'py, T>(
        &self,
        py: Python<'py>,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> PyResult<Bound<'py, PyAny>>
    where
        T: for<'a> IntoPyObject<'a> + Send + 'static,
    {
        let session = &self.core()?.session;
        spawn(py, session.runtime(), &session.deliverer, work)
    }
}

/// The bodies that calls with and without `_async` have in common.
mod body {
    use super::{Arc, End, Failure, ProcessCore, end_of};

    pub(super) async fn started(core: Arc<ProcessCore>) -> Result<(), Failure> {
        Ok(core.process.started().await?)
    }

    pub(super) async fn wait(core: Arc<ProcessCore>) -> Result<End, Failure> {
        Ok(end_of(core.process.wait().await?))
    }

    pub(super) async fn end(core: Arc<ProcessCore>, kill: bool) -> Result<End, Failure> {
        let ended = match kill {
            true => core.process.kill().await,
            false => core.process.stop().await,
        };
        Ok(end_of(ended?))
    }
}

#[pymethods]
impl Process {
    #[getter]
    fn words(&self) -> PyResult<Vec<OsString>> {
        Ok(self.core()?.words.clone())
    }

    #[getter]
    fn pid(&self) -> PyResult<Option<u32>> {
        Ok(self.core()?.process.id())
    }

    fn started(&self, py: Python<'_>) -> PyResult<()> {
        wait(py, body::started(self.core()?))
    }

    fn started_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let work = body::started(self.core()?);
        self.spawn(py, async { work.await.map(|()| NOTHING) })
    }

    fn poll(&self) -> PyResult<Option<End>> {
        let ended = self.core()?.process.try_wait().map_err(Failure::from)?;
        Ok(ended.map(end_of))
    }

    /// Its end, or `None` when that did not come in time.
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<End>> {
        let core = self.core()?;
        let work = body::wait(core.clone());
        let Some(time) = seconds("timeout", timeout)? else {
            return wait(py, work).map(Some);
        };
        let late = core.session.sleep(time);
        wait(py, async {
            tokio::select! {
                biased;
                ended = work => ended.map(Some),
                _ = late => Ok(None),
            }
        })
    }

    fn wait_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.spawn(py, body::wait(self.core()?))
    }

    fn end(&self, py: Python<'_>, kill: bool) -> PyResult<End> {
        wait(py, body::end(self.core()?, kill))
    }

    fn end_async<'py>(&self, py: Python<'py>, kill: bool) -> PyResult<Bound<'py, PyAny>> {
        self.spawn(py, body::end(self.core()?, kill))
    }

    /// Kills it and waits, whatever signals come.
    fn break_off(&self, py: Python<'_>) {
        if let Ok(core) = self.core() {
            py.detach(|| core.break_off());
        }
    }

    fn console(&self) -> PyResult<Option<Console>> {
        let core = self.core()?;
        Ok(core.process.console().map(|console| Console {
            console: Arc::new(tokio::sync::Mutex::new(console)),
            read: Arc::default(),
            session: core.session.clone(),
        }))
    }
}

impl Console {
    /// Waits until more was read; false after the end.
    fn reading(&self) -> impl Future<Output = Result<bool, Failure>> + Send + 'static {
        let (console, read) = (self.console.clone(), self.read.clone());
        async move {
            let mut console = console.lock_owned().await;
            match console.read().await {
                Some(bytes) => {
                    read.lock().extend(bytes);
                    Ok(true)
                }
                None => Ok(false),
            }
        }
    }
}

#[pymethods]
impl Console {
    /// Whether more was read: `False` after the end, `None` when nothing came in time.
    fn more(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<bool>> {
        self.session.living.check()?;
        let work = self.reading();
        let Some(time) = seconds("timeout", timeout)? else {
            return wait(py, work).map(Some);
        };
        let late = self.session.sleep(time);
        wait(py, async {
            tokio::select! {
                biased;
                more = work => more.map(Some),
                _ = late => Ok(None),
            }
        })
    }

    fn more_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.session.living.check()?;
        let work = self.reading();
        spawn(py, self.session.runtime(), &self.session.deliverer, work)
    }

    /// What was read since the last call.
    fn take<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        // What lies there already is read without a wait.
        if let Ok(mut console) = self.console.try_lock() {
            self.read.lock().extend(console.try_read());
        }
        PyBytes::new(py, &std::mem::take(&mut *self.read.lock()))
    }
}

/// The VMMs that can be named: name, one line about it, formats, variables, and the file that defines it.
type Told = (
    String,
    String,
    Vec<String>,
    BTreeMap<String, Option<String>>,
    Option<PathBuf>,
);

/// All VMMs that a user can name.
#[pyfunction]
pub(crate) fn vmms(py: Python<'_>, file: Option<PathBuf>) -> PyResult<Vec<Told>> {
    let presets = py.detach(|| Presets::for_user(file.as_deref()));
    let presets = presets.map_err(Failure::from)?;
    let told = presets.iter().map(|preset| {
        let variables = preset.variables();
        let variables = variables.map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
        (
            preset.name().to_owned(),
            preset.summary().to_owned(),
            preset.formats().map(str::to_owned).collect(),
            variables.collect(),
            preset.origin().map(Into::into),
        )
    });
    Ok(told.collect())
}
