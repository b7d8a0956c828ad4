//! Invariant: a profile is whole at any time: runs that don't fit change nothing.

use std::path::PathBuf;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::failure::Failure;

/// When runs first read each block: the native side of `vmtorrent.Profile`.
#[pyclass(frozen, module = "vmtorrent._vmtorrent")]
pub(crate) struct Profile {
    profile: Mutex<vmtorrent::profile::Profile>,
}

/// File, block, runs, mean, variance, earliest and latest time.
type Row = (usize, u32, u32, f64, f64, u64, u64);

impl Profile {
    pub(crate) fn new(profile: vmtorrent::profile::Profile) -> Self {
        Self {
            profile: Mutex::new(profile),
        }
    }

    /// As it is at this moment.
    pub(crate) fn copy(&self) -> vmtorrent::profile::Profile {
        self.profile.lock().clone()
    }
}

#[pymethods]
impl Profile {
    #[classattr]
    const BLOCK: u64 = vmtorrent::profile::BLOCK;

    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let loaded = py.detach(|| vmtorrent::profile::Profile::load(&path));
        Ok(Self::new(loaded.map_err(Failure::from)?))
    }

    #[staticmethod]
    fn from_json(py: Python<'_>, text: &[u8]) -> PyResult<Self> {
        let parsed = py.detach(|| vmtorrent::profile::Profile::from_json(text));
        Ok(Self::new(parsed.map_err(Failure::from)?))
    }

    fn to_json<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &py.detach(|| self.copy().to_json()))
    }

    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let saved = py.detach(|| self.copy().save(&path));
        Ok(saved.map_err(Failure::from)?)
    }

    #[getter]
    fn info_hash(&self) -> String {
        self.profile.lock().info_hash().to_string()
    }

    #[getter]
    fn name(&self) -> String {
        self.profile.lock().name().to_owned()
    }

    #[getter]
    fn runs(&self) -> u32 {
        self.profile.lock().runs()
    }

    #[getter]
    fn block_count(&self) -> usize {
        self.profile.lock().block_count()
    }

    /// Path and length of each file.
    #[getter]
    fn files(&self) -> Vec<(String, u64)> {
        let profile = self.profile.lock();
        let files = profile.files().iter();
        files.map(|f| (f.path().join("/"), f.length())).collect()
    }

    /// Every block, in the order of the mean time.
    fn blocks(&self, py: Python<'_>) -> Vec<Row> {
        py.detach(|| {
            let blocks = self.copy().in_order().into_iter();
            blocks
                .map(|(file, block, a)| {
                    (
                        file,
                        block,
                        a.runs(),
                        a.mean(),
                        a.variance(),
                        a.min(),
                        a.max(),
                    )
                })
                .collect()
        })
    }

    fn copied(&self) -> Self {
        Self::new(self.copy())
    }

    fn merge(&self, py: Python<'_>, other: &Self) -> PyResult<()> {
        // A copy first: it may be the same one.
        let other = other.copy();
        let merged = py.detach(|| self.profile.lock().merge(&other));
        Ok(merged.map_err(Failure::from)?)
    }

    /// Adds what fits: blocks that are the same, different, unknown here, and elsewhere.
    fn merge_by_force(&self, py: Python<'_>, other: &Self) -> (u64, u64, u64, u64) {
        let other = other.copy();
        let found = py.detach(|| self.profile.lock().merge_by_force(&other));
        (found.same, found.different, found.unknown, found.elsewhere)
    }

    fn equals(&self, other: &Self) -> bool {
        let other = other.copy();
        *self.profile.lock() == other
    }
}
