//! What a .torrent file says: names, lengths, pieces and their hashes.
//!
//! [`Image`] is the validated form that the rest of the crate works with.

mod geometry;
mod hasher;
mod magnet;
mod metainfo;
mod pieces;
mod publish;
mod source;
mod tree;

pub use geometry::{BLOCK_LENGTH, BlockIndex, Geometry, PieceIndex};
pub use magnet::{Magnet, PeerAddress};
pub(crate) use metainfo::{MAX_PIECES, MAX_TORRENT_BYTES};
pub use publish::{
    PublishOptions, Published, default_piece_size, publish, publish_unless, publish_with_progress,
};
pub use source::Source;

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use url::Url;

use crate::error::Result;
use crate::profile::Profile;

/// SHA-1 of the info dictionary: the identity of an image (BEP 3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InfoHash(pub [u8; 20]);

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// Path below the appliance's directory: one or more plain names, none empty, `.` or `..`.
    ///
    /// An image of one file has its name here; an image of several has the names below its directory.
    /// Empty for padding.
    pub path: Vec<String>,
    /// Where the file begins in the image.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Whether these are only zeros between two files (BEP 47): part of the pieces, but never shown.
    pub padding: bool,
}

/// What is known of a piece from the metainfo alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceClass {
    /// Its hash is that of zeros: it is never fetched, reads give zeros.
    Zero,
    /// The first piece with its hash.
    Unique,
    /// It has the hash of an earlier piece, which is fetched and stored in its place.
    DuplicateOf(PieceIndex),
}

/// A validated .torrent file.
///
/// Invariant: there is at least one visible file and one byte; files lie one behind the other and fill
/// the geometry exactly; no two visible files have one path, and none is a directory of another; there
/// is one hash and one class for each piece.
#[derive(Clone, Debug)]
pub struct Image {
    pub(crate) info_hash: InfoHash,
    pub(crate) name: String,
    pub(crate) files: Vec<ImageFile>,
    pub(crate) single_file: bool,
    pub(crate) geometry: Geometry,
    pub(crate) hashes: Vec<[u8; 20]>,
    pub(crate) classes: Vec<PieceClass>,
    pub(crate) trackers: Vec<Vec<Url>>,
    pub(crate) web_seeds: Vec<Url>,
    pub(crate) private: bool,
    pub(crate) info_bytes: Bytes,
    pub(crate) torrent_bytes: Bytes,
    /// The text of a profile that came with it.
    pub(crate) profile: Option<Bytes>,
    pub(crate) peers: Vec<SocketAddr>,
}

impl Image {
    /// The image's identity.
    pub fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// The suggested name of the file or directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The files in the order of their bytes, padding among them.
    pub fn files(&self) -> &[ImageFile] {
        &self.files
    }

    /// The files that an appliance shows: all but padding.
    pub fn visible_files(&self) -> impl Iterator<Item = &ImageFile> {
        self.files.iter().filter(|f| !f.padding)
    }

    /// Whether the image is one file rather than a directory.
    pub fn is_single_file(&self) -> bool {
        self.single_file
    }

    /// How the bytes are cut into pieces.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The SHA-1 of a piece.
    pub fn piece_hash(&self, piece: PieceIndex) -> &[u8; 20] {
        &self.hashes[piece.as_usize()]
    }

    /// What the metainfo alone tells of a piece.
    pub fn piece_class(&self, piece: PieceIndex) -> PieceClass {
        self.classes[piece.as_usize()]
    }

    /// The piece that is fetched and stored in place of `piece`: itself, or the first with the same hash.
    pub fn canonical(&self, piece: PieceIndex) -> PieceIndex {
        match self.piece_class(piece) {
            PieceClass::DuplicateOf(first) => first,
            PieceClass::Zero | PieceClass::Unique => piece,
        }
    }

    /// Trackers in tiers (BEP 12).
    pub fn trackers(&self) -> &[Vec<Url>] {
        &self.trackers
    }

    /// Web seeds (BEP 19).
    pub fn web_seeds(&self) -> &[Url] {
        &self.web_seeds
    }

    /// Whether peers may come from the trackers only (BEP 27).
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// The profile that its publisher put beside it, if there is one.
    ///
    /// # Errors
    /// Those of [`Profile::from_json`], and `InvalidInput` when it is of another image.
    pub fn profile(&self) -> Result<Option<Profile>> {
        let Some(text) = &self.profile else {
            return Ok(None);
        };
        let profile = Profile::from_json(text)?;
        Profile::for_image(self, &profile).map(Some)
    }

    /// Peers that a magnet link named: a launch connects to them. None for an image of a .torrent file.
    pub fn peers(&self) -> &[SocketAddr] {
        &self.peers
    }

    /// A magnet link to the image, with its trackers and web seeds.
    pub fn magnet(&self) -> Magnet {
        let mut magnet = Magnet::new(self.info_hash).with_name(&*self.name);
        for tracker in self.trackers.iter().flatten() {
            magnet.add_tracker(tracker.clone());
        }
        for web_seed in &self.web_seeds {
            magnet.add_web_seed(web_seed.clone());
        }
        magnet
    }

    /// The info dictionary as it stands in the file.
    pub fn info_bytes(&self) -> &Bytes {
        &self.info_bytes
    }

    /// The whole .torrent file.
    pub fn torrent_bytes(&self) -> &Bytes {
        &self.torrent_bytes
    }
}
