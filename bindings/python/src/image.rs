//! Invariant: an image never changes.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use vmtorrent::image::Published;

use crate::failure::Failure;
use crate::files::Files;
use crate::profile::Profile;
use crate::session::Origin;

/// What is published: the native side of `vmtorrent.Image`.
#[pyclass(frozen, module = "vmtorrent._vmtorrent")]
pub(crate) struct Image {
    image: vmtorrent::image::Image,
}

impl Image {
    pub(crate) fn new(image: vmtorrent::image::Image) -> Self {
        Self { image }
    }
}

/// An image that was loaded before, or the path, URL or magnet link of one.
#[derive(FromPyObject)]
pub(crate) enum OriginArgument<'py> {
    Image(PyRef<'py, Image>),
    Source(String),
}

impl TryFrom<OriginArgument<'_>> for Origin {
    type Error = Failure;

    fn try_from(given: OriginArgument<'_>) -> Result<Self, Failure> {
        Ok(match given {
            OriginArgument::Image(image) => Self::Image(image.image.clone()),
            OriginArgument::Source(text) => Self::Source(text.parse()?),
        })
    }
}

#[pymethods]
impl Image {
    /// From the content of a .torrent file.
    #[staticmethod]
    fn from_bytes(torrent: &[u8]) -> PyResult<Self> {
        let image = vmtorrent::image::Image::from_bytes(torrent.to_vec());
        Ok(Self::new(image.map_err(Failure::from)?))
    }

    #[getter]
    fn name(&self) -> &str {
        self.image.name()
    }

    #[getter]
    fn info_hash(&self) -> String {
        self.image.info_hash().to_string()
    }

    #[getter]
    fn magnet(&self) -> String {
        self.image.magnet().to_string()
    }

    #[getter]
    fn length(&self) -> u64 {
        self.image.geometry().total_length()
    }

    #[getter]
    fn piece_length(&self) -> u32 {
        self.image.geometry().nominal_piece_length()
    }

    #[getter]
    fn piece_count(&self) -> u32 {
        self.image.geometry().piece_count()
    }

    #[getter]
    fn private(&self) -> bool {
        self.image.is_private()
    }

    #[getter]
    fn trackers(&self) -> Vec<Vec<String>> {
        let tiers = self.image.trackers().iter();
        tiers
            .map(|tier| tier.iter().map(ToString::to_string).collect())
            .collect()
    }

    #[getter]
    fn web_seeds(&self) -> Vec<String> {
        self.image
            .web_seeds()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// Path and length of each file.
    #[getter]
    fn files(&self) -> Vec<(String, u64)> {
        let files = Files::new(&self.image);
        files.iter().map(|f| (f.path.clone(), f.length)).collect()
    }

    /// The profile that came with it.
    fn profile(&self) -> PyResult<Option<Profile>> {
        let found = self.image.profile().map_err(Failure::from)?;
        Ok(found.map(Profile::new))
    }

    /// The whole .torrent file.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.image.torrent_bytes())
    }

    /// Writes the .torrent file in one step.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let published = Published {
            torrent: self.image.torrent_bytes().clone(),
            image: self.image.clone(),
        };
        let written = py.detach(|| published.write_to(&path));
        Ok(written.map_err(Failure::from)?)
    }
}
