//! A publisher's files in place of a copy. Invariant: nothing is ever written there, and they have the lengths that the
//! image has.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::file_set::FileSet;
use super::home::Home;
use super::piece_states::PieceStates;
use super::{PieceState, Pristine};
use crate::file_pool::FilePool;
use crate::image::Image;
use crate::{Error, ErrorKind, Result};

impl Pristine {
    /// Opens published files for seeding: `data_dir` holds the image's file or directory under its name.
    /// Nothing is ever written there.
    ///
    /// # Errors
    /// `NotFound` or `InvalidInput` when a file is absent or has another length than the image's.
    pub(crate) fn open_published(image: Arc<Image>, data_dir: &Path) -> Result<Self> {
        let directory = if image.is_single_file() {
            data_dir.to_path_buf()
        } else {
            data_dir.join(image.name())
        };
        let files = FileSet::new(&FilePool::of_process(), &image, &directory, false);
        for (index, file) in image.files().iter().enumerate() {
            if !file.padding {
                check_published(files.path(index), file.length, image.name(), data_dir)?;
            }
        }
        let mut states = PieceStates::new(&image);
        for piece in image.geometry().pieces() {
            if image.canonical(piece) == piece && states.get(piece) == PieceState::Missing {
                states.set(piece, PieceState::Unverified);
            }
        }
        Ok(Self::assemble(image, files, states, None, Home::Published))
    }
}

fn check_published(path: &Path, length: u64, name: &str, data_dir: &Path) -> Result<()> {
    let path_text = path.display();
    let data_dir = data_dir.display();
    let metadata = fs::metadata(path).map_err(|e| {
        Error::io(
            format!(
                "looking at the published file {path_text} (expected: {length} bytes); the data directory is \
                 the one that holds {name}, not {name} itself ({data_dir} was named)"
            ),
            e,
        )
    })?;
    let found = metadata.len();
    if !metadata.is_file() || found != length {
        let found = if metadata.is_file() {
            format!("has {found} bytes")
        } else {
            "is not a file".to_owned()
        };
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "the published file {path_text} {found}, the .torrent file says {length} bytes: restore it, or \
                 publish again and use the new .torrent file"
            ),
        ));
    }
    Ok(())
}
