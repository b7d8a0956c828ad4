//! Invariant: the files that Python sees are those that a guest sees, by the order of their bytes in the image; padding
//! has no number here.

use vmtorrent::image::Image;

use crate::failure::Failure;

/// The files of an image.
pub(crate) struct Files(Vec<File>);

pub(crate) struct File {
    /// Its place among all files of the image.
    index: usize,
    pub(crate) path: String,
    /// Bytes in the image.
    pub(crate) length: u64,
}

impl Files {
    pub(crate) fn new(image: &Image) -> Self {
        let files = image.files().iter().enumerate();
        let shown = files.filter(|(_, file)| !file.padding);
        let files = shown.map(|(index, file)| File {
            index,
            path: file.path.join("/"),
            length: file.length,
        });
        Self(files.collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &File> {
        self.0.iter()
    }

    /// The place of a file among all files of the image.
    pub(crate) fn index(&self, file: usize) -> Result<usize, Failure> {
        self.0.get(file).map(|f| f.index).ok_or_else(|| {
            let count = self.0.len();
            Failure::invalid(format!(
                "there is no file {file}: the image has {count}, numbered from 0"
            ))
        })
    }

    /// The number of what has this place among all files of the image.
    pub(crate) fn number(&self, index: usize) -> Option<usize> {
        self.0.iter().position(|f| f.index == index)
    }

    /// The number of the file with this path.
    pub(crate) fn find(&self, path: &str) -> Result<usize, Failure> {
        let found = self.0.iter().position(|f| f.path == path);
        found.ok_or_else(|| {
            Failure::not_found(format!("the image has no file {path:?}: look at `files`"))
        })
    }

    /// The number of the largest file: the disk to boot from.
    pub(crate) fn boot(&self) -> usize {
        let files = self.0.iter().enumerate();
        files.max_by_key(|(_, f)| f.length).map_or(0, |(n, _)| n)
    }
}
