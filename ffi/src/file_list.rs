//! Invariant: the files that C sees are those that a guest sees, by the order of their bytes in the image; padding
//! has no number here.

use std::ffi::{CString, c_char};

use vmtorrent::image::Image;

use crate::error::Failure;
use crate::text::{c_string, pointer};

/// The files of an image.
pub(crate) struct FileList {
    files: Vec<File>,
}

struct File {
    /// Its place among all files of the image.
    index: usize,
    path: CString,
    length: u64,
}

impl FileList {
    pub(crate) fn new(image: &Image) -> Self {
        let files = image.files().iter().enumerate();
        let shown = files.filter(|(_, file)| !file.padding);
        let files = shown.map(|(index, file)| File {
            index,
            path: c_string(file.path.join("/")),
            length: file.length,
        });
        Self {
            files: files.collect(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.files.len()
    }

    pub(crate) fn path(&self, file: usize) -> *const c_char {
        pointer(self.files.get(file).map(|f| &f.path))
    }

    /// The length in the image.
    pub(crate) fn length(&self, file: usize) -> u64 {
        self.files.get(file).map_or(0, |f| f.length)
    }

    /// The place among all files of the image.
    pub(crate) fn index(&self, file: usize) -> Result<usize, Failure> {
        self.files.get(file).map(|f| f.index).ok_or_else(|| {
            let count = self.files.len();
            Failure::invalid(format!(
                "there is no file {file}: the image has {count}, numbered from 0"
            ))
        })
    }

    /// The number of what has this place among all files of the image.
    pub(crate) fn number(&self, index: usize) -> Option<usize> {
        self.files.iter().position(|f| f.index == index)
    }

    pub(crate) fn find(&self, path: &str) -> Option<usize> {
        self.files
            .iter()
            .position(|f| f.path.to_bytes() == path.as_bytes())
    }

    /// The largest file: the disk to boot from.
    pub(crate) fn boot(&self) -> usize {
        // Of equal ones the last, as the core has it.
        let files = self.files.iter().enumerate();
        files
            .max_by_key(|(_, f)| f.length)
            .map_or(0, |(number, _)| number)
    }
}
