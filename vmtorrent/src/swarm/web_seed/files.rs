//! Where the bytes of an image are on a web server. Invariant: every byte of the image is in exactly one segment, and
//! padding is never asked for.

use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use url::Url;

use crate::image::Image;

/// All but what RFC 3986 calls unreserved: some servers read `+` as a space.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A part of one file, or of the padding between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// The index of the file; `None` for padding, which is zeros.
    pub(super) file: Option<usize>,
    /// Bytes of the file.
    pub(super) range: Range<u64>,
}

/// The URL of a file below the URL of a web seed, as BEP 19 has it:
/// - an image of one file is where the URL says, or, if that ends with a slash, below it under its name;
/// - of an image of several, each is below the URL under the image's name and its path, whether or not the URL ends
///   with a slash.
///
/// Names are percent-encoded; a query stays.
pub(super) fn file_url(base: &Url, image: &Image, file: usize) -> Url {
    let mut url = base.clone();
    url.set_fragment(None);
    let mut path = url.path().to_owned();
    let mut add = |name: &str| {
        if !path.ends_with('/') {
            path.push('/');
        }
        path.extend(percent_encode(name.as_bytes(), ENCODED));
    };
    if image.is_single_file() {
        if base.path().ends_with('/') {
            add(image.name());
        }
    } else {
        add(image.name());
        for name in &image.files()[file].path {
            add(name);
        }
    }
    url.set_path(&path);
    url
}

/// The parts of the files that make up a range of the image.
pub(super) fn segments(image: &Image, range: Range<u64>) -> Vec<Segment> {
    let files = image.files();
    let first = files.partition_point(|f| f.offset + f.length <= range.start);
    let mut segments = Vec::new();
    for (index, file) in files.iter().enumerate().skip(first) {
        if file.offset >= range.end {
            break;
        }
        let start = range.start.max(file.offset);
        let end = range.end.min(file.offset + file.length);
        if start < end {
            segments.push(Segment {
                file: (!file.padding).then_some(index),
                range: start - file.offset..end - file.offset,
            });
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ImageFile;
    use crate::test_image::image_of;

    fn url(base: &str, image: &Image, file: usize) -> String {
        file_url(&Url::parse(base).unwrap(), image, file).into()
    }

    fn single(name: &str) -> Image {
        let mut image = image_of(&[1; 100], 16384);
        image.name = name.to_owned();
        image.files[0].path = vec![name.to_owned()];
        image
    }

    /// Three files with padding behind the first, and an empty one.
    fn several() -> Image {
        let mut image = image_of(&[1; 100_000], 16384);
        image.name = "my image".to_owned();
        image.single_file = false;
        let file = |path: &[&str], offset, length, padding| ImageFile {
            path: path.iter().map(|p| (*p).to_owned()).collect(),
            offset,
            length,
            padding,
        };
        image.files = vec![
            file(&["a.raw"], 0, 20_000, false),
            file(&[], 20_000, 12_768, true),
            file(&["sub dir", "ü+%2f#?.img"], 32_768, 40_000, false),
            file(&["empty"], 72_768, 0, false),
            file(&["z"], 72_768, 27_232, false),
        ];
        image
    }

    #[test]
    fn one_file_is_at_the_url_or_below_it_if_that_ends_with_a_slash() {
        let image = single("disk 1.img");
        for (base, expected) in [
            ("http://h/d/other.img", "http://h/d/other.img"),
            ("http://h/d/", "http://h/d/disk%201.img"),
            ("http://h", "http://h/disk%201.img"),
            ("http://h/%7Ea/x%20y?v=1#part", "http://h/%7Ea/x%20y?v=1"),
            (
                "https://h:8443/d/?key=a/b",
                "https://h:8443/d/disk%201.img?key=a/b",
            ),
        ] {
            assert_eq!(url(base, &image, 0), expected, "{base}");
        }
    }

    #[test]
    fn several_files_are_below_the_url_under_name_and_path() {
        let image = several();
        for base in ["http://h/pub", "http://h/pub/"] {
            assert_eq!(url(base, &image, 0), "http://h/pub/my%20image/a.raw");
        }
        assert_eq!(
            url("http://h", &image, 2),
            "http://h/my%20image/sub%20dir/%C3%BC%2B%252f%23%3F.img"
        );
    }

    #[test]
    fn names_can_not_lead_elsewhere() {
        for name in ["..%2f..", "%2e%2e", "a?b=c", "http://other/", "...", "a#b"] {
            let url = file_url(&Url::parse("http://h/d/").unwrap(), &single(name), 0);
            assert_eq!(url.host_str(), Some("h"));
            assert_eq!(url.path_segments().unwrap().count(), 2, "{url}");
            assert!(
                url.path().starts_with("/d/") && url.query().is_none(),
                "{url}"
            );
            let last = url.path_segments().unwrap().next_back().unwrap();
            let decoded = percent_encoding::percent_decode_str(last)
                .decode_utf8()
                .unwrap();
            assert_eq!(decoded, name);
        }
    }

    #[test]
    fn a_range_is_cut_at_the_ends_of_files_and_padding_is_no_file() {
        let image = several();
        let parts = |range: Range<u64>| -> Vec<(Option<usize>, Range<u64>)> {
            segments(&image, range)
                .into_iter()
                .map(|s| (s.file, s.range))
                .collect()
        };
        assert_eq!(parts(0..16_384), [(Some(0), 0..16_384)]);
        assert_eq!(
            parts(16_384..49_152),
            [
                (Some(0), 16_384..20_000),
                (None, 0..12_768),
                (Some(2), 0..16_384)
            ]
        );
        assert_eq!(
            parts(72_767..100_000),
            [(Some(2), 39_999..40_000), (Some(4), 0..27_232)]
        );
        assert_eq!(parts(20_000..20_001), [(None, 0..1)]);
        assert_eq!(parts(5..5), []);
    }
}
