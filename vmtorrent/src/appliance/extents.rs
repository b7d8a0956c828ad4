//! What a file is made of.
//!
//! Invariant: extents come in order, without gaps, inside the file; neighbours differ in kind.

use std::ops::Range;

use super::Appliance;
use super::disk::Disk;
use crate::error::Result;
use crate::image::{PieceClass, PieceIndex};
use crate::overlay::ExtentKind;
use crate::pristine::PieceState;

/// Bytes of a file that are looked at under one lock.
const WINDOW: u64 = 64 << 20;

/// What a part of a file is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileExtent {
    /// Where it begins in the file, bytes.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// What it is made of.
    pub kind: FileExtentKind,
}

/// Where the bytes of a [`FileExtent`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileExtentKind {
    /// In the image, and not downloaded yet.
    Missing,
    /// In the image, and downloaded. A piece that turns out to be damaged is fetched again.
    Present,
    /// In the image, which has zeros there.
    Zero,
    /// In the overlay: the guest wrote them.
    Written,
    /// Nowhere: the guest discarded or zeroed them, or grew the file.
    Zeroed,
}

impl Appliance {
    /// Tells what a range of a file is made of, as far as it lies inside the file: `visit` gets the extents in order,
    /// until it gives false. Nothing is fetched or read for that. What is downloaded or written meanwhile may be seen
    /// or not.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) when there is no such file.
    pub fn extents(
        &self,
        file: usize,
        offset: u64,
        length: u64,
        visit: impl FnMut(FileExtent) -> bool,
    ) -> Result<()> {
        let disk = self.disk_of(file)?;
        disk.visit_extents(offset..offset.saturating_add(length), visit);
        Ok(())
    }
}

impl Disk {
    fn visit_extents(&self, range: Range<u64>, mut visit: impl FnMut(FileExtent) -> bool) {
        let mut pending: Option<FileExtent> = None;
        // False when there was enough.
        let mut add = |part: Range<u64>, kind| match &mut pending {
            Some(last) if last.kind == kind => {
                last.length += part.end - part.start;
                true
            }
            pending => {
                let next = FileExtent {
                    offset: part.start,
                    length: part.end - part.start,
                    kind,
                };
                pending.replace(next).is_none_or(&mut visit)
            }
        };
        let mut at = range.start;
        while at < range.end {
            let window = at..range.end.min(at.saturating_add(WINDOW));
            let extents = self.overlay().extents(window.clone());
            // The end of the file, which may be cut at any time.
            let Some(last) = extents.last() else {
                break;
            };
            at = last.range.end;
            for extent in extents {
                let enough = match extent.kind {
                    ExtentKind::Data => !add(extent.range, FileExtentKind::Written),
                    ExtentKind::Zero => !add(extent.range, FileExtentKind::Zeroed),
                    ExtentKind::Base => !self.bases(&extent.range, &mut add),
                };
                if enough {
                    return;
                }
            }
            if at < window.end {
                break;
            }
        }
        if let Some(last) = pending {
            visit(last);
        }
    }

    /// The parts of a range that shows the image, by its pieces. False when there was enough.
    fn bases(
        &self,
        range: &Range<u64>,
        add: &mut impl FnMut(Range<u64>, FileExtentKind) -> bool,
    ) -> bool {
        let image = self.image();
        let in_image = self.in_image(range);
        let pieces = image.geometry().pieces_in(in_image.clone());
        pieces.map(PieceIndex).all(|piece| {
            let kind = match image.piece_class(piece) {
                PieceClass::Zero => FileExtentKind::Zero,
                _ => match self.config.pristine.state(image.canonical(piece)) {
                    PieceState::Missing => FileExtentKind::Missing,
                    _ => FileExtentKind::Present,
                },
            };
            let bytes = image.geometry().piece_range(piece);
            let start = bytes.start.max(in_image.start) - self.file.offset;
            let end = bytes.end.min(in_image.end) - self.file.offset;
            add(start..end, kind)
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::FileExtentKind::{Missing, Written, Zero, Zeroed};
    use super::*;
    use crate::options::{ApplianceOptions, SessionOptions, State};
    use crate::session::Session;
    use crate::test_image::image_of;

    const PIECE: u64 = 16384;

    fn found(appliance: &Appliance, offset: u64, length: u64) -> Vec<(u64, u64, FileExtentKind)> {
        let mut found = Vec::new();
        let add = |e: FileExtent| {
            found.push((e.offset, e.length, e.kind));
            true
        };
        appliance.extents(0, offset, length, add).unwrap();
        found
    }

    #[tokio::test]
    async fn extents_cover_a_range_and_neighbours_differ() {
        let directory = tempfile::tempdir().unwrap();
        let session = Session::start(SessionOptions {
            cache: Some(directory.path().join("cache")),
            listen: ([127, 0, 0, 1], 0).into(),
            discovery: false,
            ..SessionOptions::default()
        });
        let session = session.await.unwrap();
        // Data, zeros, data.
        let mut content = vec![1; 6 * PIECE as usize];
        content[2 * PIECE as usize..4 * PIECE as usize].fill(0);
        content[5 * PIECE as usize..].fill(2);
        let options = ApplianceOptions {
            state: State::Directory(directory.path().join("state")),
            ..ApplianceOptions::default()
        };
        let image = image_of(&content, PIECE as u32);
        let appliance = session.launch(image, options).await.unwrap();
        let untouched = [
            (0, 2 * PIECE, Missing),
            (2 * PIECE, 2 * PIECE, Zero),
            (4 * PIECE, 2 * PIECE, Missing),
        ];
        assert_eq!(found(&appliance, 0, u64::MAX), untouched);
        assert_eq!(found(&appliance, PIECE + 1, 2), [(PIECE + 1, 2, Missing)]);
        assert_eq!(found(&appliance, 6 * PIECE, 100), []);
        assert_eq!(found(&appliance, 10, 0), []);

        let whole = Bytes::from(vec![9; 8192]);
        appliance.write_at(0, 4096, whole).await.unwrap();
        appliance.discard(0, 4 * PIECE, 4096).await.unwrap();
        appliance.set_len(0, 6 * PIECE + 100).unwrap();
        let changed = [
            (0, 4096, Missing),
            (4096, 8192, Written),
            (12288, 2 * PIECE - 12288, Missing),
            (2 * PIECE, 2 * PIECE, Zero),
            (4 * PIECE, 4096, Zeroed),
            (4 * PIECE + 4096, 2 * PIECE - 4096, Missing),
            (6 * PIECE, 100, Zeroed),
        ];
        assert_eq!(found(&appliance, 0, u64::MAX), changed);
        let mut count = 0;
        let two = |_| {
            count += 1;
            count < 2
        };
        appliance.extents(0, 0, u64::MAX, two).unwrap();
        assert_eq!(count, 2);
        assert!(appliance.extents(1, 0, 1, |_| true).is_err());
        appliance.shutdown().await.unwrap();
        session.clone().shutdown().await.unwrap();
        // A session's threads can be waited for, though not in a task.
        let join = move || session.join_threads(std::time::Duration::from_secs(30));
        assert!(std::thread::spawn(join).join().unwrap());
    }
}
