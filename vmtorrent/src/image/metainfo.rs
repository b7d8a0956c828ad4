//! Invariant: an [`Image`] comes out only if every field that it rests on was checked; nothing in the file is trusted.
//!
//! Optional fields that only help to find peers (trackers, web seeds) are taken as far as they make
//! sense; everything that decides over names, lengths and hashes is refused when it is wrong.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use bytes::Bytes;
use sha1::{Digest, Sha1};
use url::Url;

use super::{BLOCK_LENGTH, Geometry, Image, ImageFile, InfoHash, Magnet, pieces};
use crate::bencode::{Encoder, Node};
use crate::profile::Profile;
use crate::{Error, ErrorKind, Result};

/// Largest .torrent file, bytes.
pub(crate) const MAX_TORRENT_BYTES: usize = 64 << 20;
/// Largest image, bytes.
const MAX_IMAGE_BYTES: u64 = 1 << 60;
/// Most pieces of an image.
pub(crate) const MAX_PIECES: u64 = 4 << 20;
/// Piece sizes that are taken, bytes; also a multiple of the block length.
pub(super) const PIECE_SIZES: RangeInclusive<u32> = BLOCK_LENGTH..=128 << 20;
/// Most files of an image, padding included.
const MAX_FILES: usize = 256 * 1024;
/// Most names in the path of a file.
const MAX_PATH_NAMES: usize = 32;
/// Longest name of a file or directory, bytes: what common file systems hold.
const MAX_NAME_BYTES: usize = 255;
/// Most trackers, and most web seeds, that are kept.
const MAX_URLS: usize = 256;

impl Image {
    /// Reads a .torrent file (BitTorrent v1, BEP 3; hybrid ones are read as v1).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidTorrent`], naming the field and the remedy. Names must be UTF-8, either
    /// themselves or in `name.utf-8` and `path.utf-8`.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self> {
        let torrent_bytes: Bytes = bytes.into();
        if torrent_bytes.len() > MAX_TORRENT_BYTES {
            return Err(refuse(format_args!(
                "the .torrent file is larger than 64 MiB; publish the image with larger pieces"
            )));
        }
        let root = Node::parse(&torrent_bytes)
            .map_err(|e| refuse(format_args!("not a .torrent file: {e}; {REFETCH}")))?;
        let root = Field::root(root)?;
        let info = root.dictionary("info")?;

        let piece_length = piece_length(&info)?;
        let name = info.name("name")?;
        let (files, single_file) = files(&info, &name)?;
        let total: u64 = files.iter().map(|f| f.length).sum();
        let geometry = Geometry::new(total, piece_length)
            .filter(|g| u64::from(g.piece_count()) <= MAX_PIECES)
            .ok_or_else(|| info.unsupported("piece length", "gives more than 4 million pieces"))?;
        let hashes = hashes(&info, &geometry)?;
        let classes = pieces::classify(&geometry, &hashes);
        let info_bytes = torrent_bytes.slice_ref(info.node.raw());

        Ok(Self {
            info_hash: InfoHash(Sha1::digest(&info_bytes).into()),
            name,
            files,
            single_file,
            geometry,
            hashes,
            classes,
            trackers: trackers(root.node),
            web_seeds: web_seeds(root.node),
            private: info
                .optional("private")?
                .is_some_and(|n| n.as_integer() == Some(1)),
            profile: profile(root.node, &torrent_bytes),
            info_bytes,
            torrent_bytes,
            peers: Vec::new(),
        })
    }

    /// Makes a .torrent file of an info dictionary and what a magnet link adds, and reads it. The dictionary's
    /// hash must have been checked.
    pub(crate) fn from_info(info: &[u8], magnet: &Magnet) -> Result<Self> {
        // What is to become a value of the file must be one.
        Node::parse(info)
            .map_err(|e| refuse(format_args!("no info dictionary: {e}; {REFETCH}")))?;
        let torrent = Encoder::encode(|d| {
            if let Some(first) = magnet.trackers().first() {
                d.string("announce").string(first.as_str());
            }
            if magnet.trackers().len() > 1 {
                d.string("announce-list").list(|tiers| {
                    for tracker in magnet.trackers() {
                        tiers.list(|tier| {
                            tier.string(tracker.as_str());
                        });
                    }
                });
            }
            d.string("info").raw(info);
            if !magnet.web_seeds().is_empty() {
                d.string("url-list").list(|list| {
                    for web_seed in magnet.web_seeds() {
                        list.string(web_seed.as_str());
                    }
                });
            }
        });
        let image = Self::from_bytes(torrent)?;
        debug_assert_eq!(image.info_hash, magnet.info_hash());
        Ok(image)
    }

    /// Adds what a magnet link tells beside the image itself: trackers and web seeds, and the addresses of its peers.
    pub(crate) fn reached_by(mut self, magnet: &Magnet, peers: &[SocketAddr]) -> Self {
        for tracker in magnet.trackers() {
            if !self.trackers.iter().flatten().any(|t| t == tracker) {
                self.trackers.push(vec![tracker.clone()]);
            }
        }
        for web_seed in magnet.web_seeds() {
            if !self.web_seeds.contains(web_seed) {
                self.web_seeds.push(web_seed.clone());
            }
        }
        for peer in peers {
            if !self.peers.contains(peer) {
                self.peers.push(*peer);
            }
        }
        self
    }
}

/// The key of the profile, beside the info dictionary: it doesn't change the info-hash.
pub(super) const PROFILE_KEY: &str = "vmtorrent profile";

/// The text of a profile, if there is one that is not too large. Like trackers it only helps, and is looked at when it is
/// used.
fn profile(root: Node<'_>, torrent: &Bytes) -> Option<Bytes> {
    let text = root.get(PROFILE_KEY).ok()??.as_bytes()?;
    (text.len() <= Profile::MAX_ATTACHED).then(|| torrent.slice_ref(text))
}

const REFETCH: &str = "get it again from its publisher";

fn refuse(message: fmt::Arguments<'_>) -> Error {
    Error::new(ErrorKind::InvalidTorrent, message.to_string())
}

/// A dictionary and what it is called in messages.
struct Field<'a> {
    node: Node<'a>,
    /// With a dot at its end, unless it is empty.
    prefix: String,
}

impl<'a> Field<'a> {
    fn root(node: Node<'a>) -> Result<Self> {
        if node.as_dictionary().is_none() {
            return Err(refuse(format_args!(
                "not a .torrent file: it is no dictionary; {REFETCH}"
            )));
        }
        Ok(Self {
            node,
            prefix: String::new(),
        })
    }

    /// The error that `key` has a broken or hostile value.
    fn wrong(&self, key: &str, what: impl fmt::Display) -> Error {
        refuse(format_args!(
            "torrent field {}{key} {what}; {REFETCH}",
            self.prefix
        ))
    }

    /// The error that `key` has a value that other clients may take, but this one doesn't.
    fn unsupported(&self, key: &str, what: &str) -> Error {
        refuse(format_args!(
            "torrent field {}{key} {what}; publish the image anew with `vmtorrent publish`",
            self.prefix
        ))
    }

    fn optional(&self, key: &str) -> Result<Option<Node<'a>>> {
        self.node
            .get(key)
            .map_err(|_| self.wrong(key, "stands there twice"))
    }

    fn required(&self, key: &str) -> Result<Node<'a>> {
        self.optional(key)?
            .ok_or_else(|| self.wrong(key, "is missing"))
    }

    fn dictionary(&self, key: &str) -> Result<Field<'a>> {
        let node = self.required(key)?;
        if node.as_dictionary().is_none() {
            return Err(self.wrong(key, "is no dictionary"));
        }
        Ok(Field {
            node,
            prefix: format!("{}{key}.", self.prefix),
        })
    }

    /// A number that is not negative.
    fn size(&self, key: &str) -> Result<u64> {
        let value = self
            .required(key)?
            .as_integer()
            .ok_or_else(|| self.wrong(key, "is no integer"))?;
        u64::try_from(value).map_err(|_| self.wrong(key, "is negative"))
    }

    /// The `.utf-8` variant of a key, which goes before the plain one, or the plain one.
    fn localised(&self, key: &str) -> Result<(String, Node<'a>)> {
        let utf8 = format!("{key}.utf-8");
        match self.optional(&utf8)? {
            Some(node) => Ok((utf8, node)),
            None => Ok((key.to_owned(), self.required(key)?)),
        }
    }

    /// The name of a file or directory.
    fn name(&self, key: &str) -> Result<String> {
        let (key, node) = self.localised(key)?;
        plain_name(node).map_err(|what| self.wrong(&key, what))
    }

    /// The path of a file.
    fn path(&self, key: &str) -> Result<Vec<String>> {
        let (key, node) = self.localised(key)?;
        let names = node
            .as_list()
            .ok_or_else(|| self.wrong(&key, "is no list"))?;
        let mut path = Vec::new();
        for (i, name) in names.enumerate() {
            if i == MAX_PATH_NAMES {
                return Err(self.wrong(&key, "has more than 32 names"));
            }
            path.push(plain_name(name).map_err(|what| self.wrong(&format!("{key}[{i}]"), what))?);
        }
        if path.is_empty() {
            return Err(self.wrong(&key, "is empty"));
        }
        Ok(path)
    }
}

/// A name that is safe below any directory, or why it is not.
fn plain_name(node: Node<'_>) -> Result<String, &'static str> {
    let bytes = node.as_bytes().ok_or("is no string")?;
    let name = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    match name {
        "" => Err("is empty"),
        "." | ".." => Err("is `.` or `..`, which would lead out of the image"),
        _ if name.contains(['/', '\\']) => {
            Err("holds a path separator, which could lead out of the image")
        }
        _ if name.contains('\0') => Err("holds a NUL"),
        _ if name.len() > MAX_NAME_BYTES => Err("is longer than 255 bytes"),
        _ => Ok(name.to_owned()),
    }
}

fn piece_length(info: &Field<'_>) -> Result<u32> {
    const KEY: &str = "piece length";
    u32::try_from(info.size(KEY)?)
        .ok()
        .filter(|n| PIECE_SIZES.contains(n) && n.is_multiple_of(BLOCK_LENGTH))
        .ok_or_else(|| info.unsupported(KEY, "is no multiple of 16 KiB between 16 KiB and 128 MiB"))
}

/// The files and whether there is but one, which stands by itself rather than in a directory.
fn files(info: &Field<'_>, name: &str) -> Result<(Vec<ImageFile>, bool)> {
    match (info.optional("length")?, info.optional("files")?) {
        (Some(_), Some(_)) => Err(info.wrong("length", "and info.files exclude each other")),
        (None, None) => Err(match info.optional("file tree")? {
            Some(_) => info.unsupported(
                "file tree",
                "makes this a v2-only torrent, which is not read yet",
            ),
            None => info.wrong("length", "and info.files are both missing"),
        }),
        (Some(_), None) => {
            let length = info.size("length")?;
            let (symlink, padding) = attributes(info)?;
            if symlink || padding {
                return Err(info.wrong("attr", "makes the only file a symbolic link or padding"));
            }
            if length == 0 {
                return Err(info.wrong("length", "is zero: there is nothing to share"));
            }
            if length > MAX_IMAGE_BYTES {
                return Err(info.wrong("length", "is absurd: more than 2^60 bytes"));
            }
            let file = ImageFile {
                path: vec![name.to_owned()],
                offset: 0,
                length,
                padding: false,
            };
            Ok((vec![file], true))
        }
        (None, Some(list)) => Ok((several_files(info, list)?, false)),
    }
}

fn several_files(info: &Field<'_>, list: Node<'_>) -> Result<Vec<ImageFile>> {
    let list = list
        .as_list()
        .ok_or_else(|| info.wrong("files", "is no list"))?;
    let mut files = Vec::new();
    let mut offset = 0_u64;
    for (i, node) in list.enumerate() {
        if i == MAX_FILES {
            return Err(info.wrong("files", "has more than 262144 entries"));
        }
        if node.as_dictionary().is_none() {
            return Err(info.wrong(&format!("files[{i}]"), "is no dictionary"));
        }
        let field = Field {
            node,
            prefix: format!("{}files[{i}].", info.prefix),
        };
        let length = field.size("length")?;
        let (symlink, padding) = attributes(&field)?;
        if symlink {
            return Err(field.unsupported("attr", "makes the file a symbolic link"));
        }
        let path = if padding {
            Vec::new()
        } else {
            field.path("path")?
        };
        files.push(ImageFile {
            path,
            offset,
            length,
            padding,
        });
        offset = offset
            .checked_add(length)
            .filter(|total| *total <= MAX_IMAGE_BYTES)
            .ok_or_else(|| field.wrong("length", "makes the image absurd: more than 2^60 bytes"))?;
    }
    if offset == 0 {
        return Err(info.wrong("files", "has no byte: there is nothing to share"));
    }
    if files.iter().all(|f| f.padding) {
        return Err(info.wrong("files", "has nothing but padding"));
    }
    check_tree(info, &files)?;
    Ok(files)
}

/// Refuses two files of one path, and a file that is also the directory of another.
fn check_tree(info: &Field<'_>, files: &[ImageFile]) -> Result<()> {
    let mut order: Vec<usize> = (0..files.len()).filter(|&i| !files[i].padding).collect();
    // Compared name by name, everything below a path follows directly behind it.
    order.sort_by(|&a, &b| files[a].path.cmp(&files[b].path));
    for pair in order.windows(2) {
        let (first, second) = (&files[pair[0]].path, &files[pair[1]].path);
        if first == second {
            let what = format!("is the same as that of info.files[{}]", pair[0]);
            return Err(info.wrong(&format!("files[{}].path", pair[1]), what));
        }
        if second.starts_with(first) {
            let what = format!("is also a directory of info.files[{}]", pair[1]);
            return Err(info.wrong(&format!("files[{}].path", pair[0]), what));
        }
    }
    Ok(())
}

/// Whether a file is a symbolic link, and whether it is padding (BEP 47).
fn attributes(file: &Field<'_>) -> Result<(bool, bool)> {
    let Some(node) = file.optional("attr")? else {
        return Ok((false, false));
    };
    let attr = node
        .as_bytes()
        .ok_or_else(|| file.wrong("attr", "is no string"))?;
    Ok((attr.contains(&b'l'), attr.contains(&b'p')))
}

fn hashes(info: &Field<'_>, geometry: &Geometry) -> Result<Vec<[u8; 20]>> {
    const KEY: &str = "pieces";
    let bytes = info
        .required(KEY)?
        .as_bytes()
        .ok_or_else(|| info.wrong(KEY, "is no string"))?;
    let (hashes, rest) = bytes.as_chunks::<20>();
    if !rest.is_empty() || hashes.len() != geometry.piece_count() as usize {
        let what = format!(
            "has {} bytes, but {} pieces need {}",
            bytes.len(),
            geometry.piece_count(),
            u64::from(geometry.piece_count()) * 20
        );
        return Err(info.wrong(KEY, what));
    }
    Ok(hashes.to_vec())
}

/// The tiers of `announce-list` (BEP 12), or else `announce`, as far as they are URLs of a known kind.
fn trackers(root: Node<'_>) -> Vec<Vec<Url>> {
    let mut left = MAX_URLS;
    let mut tiers = Vec::new();
    if let Ok(Some(list)) = root.get("announce-list") {
        for tier in list.as_list().into_iter().flatten() {
            let urls = urls(tier, &["http", "https", "udp"], &mut left);
            if !urls.is_empty() {
                tiers.push(urls);
            }
        }
    }
    if tiers.is_empty()
        && let Ok(Some(one)) = root.get("announce")
    {
        let urls = urls(one, &["http", "https", "udp"], &mut left);
        tiers.extend((!urls.is_empty()).then_some(urls));
    }
    tiers
}

fn web_seeds(root: Node<'_>) -> Vec<Url> {
    match root.get("url-list") {
        Ok(Some(list)) => urls(list, &["http", "https"], &mut { MAX_URLS }),
        _ => Vec::new(),
    }
}

/// The URLs of a string or of a list of strings: those with a host and one of `schemes`, at most `left`.
fn urls(node: Node<'_>, schemes: &[&str], left: &mut usize) -> Vec<Url> {
    let many = node.as_list().into_iter().flatten();
    let mut urls = Vec::new();
    for text in many.chain([node]).filter_map(|n| n.as_str()).take(*left) {
        if let Ok(url) = Url::parse(text.trim())
            && schemes.contains(&url.scheme())
            && url.has_host()
            && !urls.contains(&url)
        {
            urls.push(url);
        }
    }
    *left -= urls.len();
    urls
}

#[cfg(test)]
#[path = "metainfo_tests.rs"]
mod tests;
