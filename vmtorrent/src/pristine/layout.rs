//! Invariant: the spans of a range lie in order, without gaps, and each lies in one file.

use std::ops::Range;
use std::sync::Arc;

use crate::image::{Image, PieceIndex};

/// Where some bytes of the image are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The file's number; `None` for padding, which is zeros and kept nowhere.
    pub(super) file: Option<usize>,
    /// Where they begin in the file.
    pub(super) offset: u64,
    /// Number of bytes.
    pub(super) length: usize,
}

/// Which bytes of an image lie where in its files.
pub(super) struct Layout {
    image: Arc<Image>,
}

impl Layout {
    pub(super) fn new(image: Arc<Image>) -> Self {
        Self { image }
    }

    /// The spans of `bytes`, which must lie inside the image.
    pub(super) fn spans(&self, bytes: Range<u64>) -> impl Iterator<Item = Span> {
        let files = self.image.files();
        let mut index = files.partition_point(|f| f.offset + f.length <= bytes.start);
        let mut at = bytes.start;
        std::iter::from_fn(move || {
            while at < bytes.end {
                let file = files.get(index)?;
                let end = bytes.end.min(file.offset + file.length);
                index += 1;
                if end > at {
                    let span = Span {
                        file: (!file.padding).then_some(index - 1),
                        offset: at - file.offset,
                        length: (end - at) as usize,
                    };
                    at = end;
                    return Some(span);
                }
            }
            None
        })
    }

    /// The spans of a whole piece.
    pub(super) fn piece_spans(&self, piece: PieceIndex) -> impl Iterator<Item = Span> {
        self.spans(self.image.geometry().piece_range(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_image::image_of_files;

    #[test]
    fn a_range_is_cut_at_the_borders_of_files_and_padding_is_nowhere() {
        let files = [
            ("a", 10, false),
            ("empty", 0, false),
            ("", 6, true),
            ("b/c", 84, false),
        ];
        let layout = Layout::new(Arc::new(image_of_files(&[1; 100], 16384, &files)));
        let spans: Vec<_> = layout
            .spans(5..20)
            .map(|s| (s.file, s.offset, s.length))
            .collect();
        assert_eq!(spans, [(Some(0), 5, 5), (None, 0, 6), (Some(3), 0, 4)]);
        assert_eq!(layout.spans(10..10).count(), 0);
        let lengths: usize = layout.piece_spans(PieceIndex(0)).map(|s| s.length).sum();
        assert_eq!(lengths, 100);
    }
}
