//! Invariant: the images that tests make here keep the promises of [`Image`].

use std::collections::HashMap;

use bytes::Bytes;
use sha1::{Digest, Sha1};

use crate::image::{Geometry, Image, ImageFile, InfoHash, PieceClass, PieceIndex};

/// SHA-1.
pub(crate) fn sha1(bytes: &[u8]) -> [u8; 20] {
    Sha1::digest(bytes).into()
}

/// An image of one file, `disk.img`.
pub(crate) fn image_of(content: &[u8], piece_length: u32) -> Image {
    let file = ("disk.img", content.len() as u64, false);
    image_of_files(content, piece_length, &[file])
}

/// An image of files, each with its path, length and whether it is padding. One file makes a single-file image.
pub(crate) fn image_of_files(
    content: &[u8],
    piece_length: u32,
    files: &[(&str, u64, bool)],
) -> Image {
    let geometry = Geometry::new(content.len() as u64, piece_length).unwrap();
    let mut offset = 0;
    let files: Vec<ImageFile> = files
        .iter()
        .map(|&(path, length, padding)| {
            offset += length;
            let names = path.split('/').filter(|_| !padding);
            ImageFile {
                path: names.map(str::to_owned).collect(),
                offset: offset - length,
                length,
                padding,
            }
        })
        .collect();
    assert_eq!(offset, content.len() as u64);
    let pieces: Vec<&[u8]> = content.chunks(piece_length as usize).collect();
    let hashes: Vec<[u8; 20]> = pieces.iter().map(|p| sha1(p)).collect();
    let mut first = HashMap::new();
    let classes = geometry.pieces().map(|piece| {
        let i = piece.as_usize();
        let canonical: PieceIndex = *first.entry(hashes[i]).or_insert(piece);
        if pieces[i].iter().all(|&b| b == 0) {
            PieceClass::Zero
        } else if canonical == piece {
            PieceClass::Unique
        } else {
            PieceClass::DuplicateOf(canonical)
        }
    });
    let classes = classes.collect();
    Image {
        info_hash: InfoHash(sha1(&hashes.concat())),
        name: "disk.img".into(),
        single_file: files.len() == 1,
        files,
        geometry,
        hashes,
        classes,
        trackers: Vec::new(),
        web_seeds: Vec::new(),
        private: false,
        info_bytes: Bytes::from_static(b"de"),
        torrent_bytes: Bytes::from_static(b"d4:infodee"),
        profile: None,
        peers: Vec::new(),
    }
}
