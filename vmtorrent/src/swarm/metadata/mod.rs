//! The info dictionary over the wire (BEP 9): what a magnet link leaves out.
//!
//! [`MetadataFetch`] decides whom to ask for what and whom to believe, [`MetadataServe`] who is answered when;
//! both are plain data that take `now`. [`fetch_metadata`] carries the first out on tokio before there is an
//! [`Image`](crate::image::Image); the engine carries out the second.
//!
//! Profiles travel in the same form and are served by [`MetadataServe`] too; fetching them is the engine's.
//!
//! Invariant: of [`fetch_metadata`] nothing comes out but bytes whose SHA-1 is the info-hash.

mod assembly;
mod client;
mod fetch;
mod message;
mod report;
mod serve;

pub(crate) use client::{MetadataJob, fetch_metadata};
pub(super) use message::MetadataMessage;
pub(super) use serve::{MetadataServe, ServeNext};

/// The unit in which the info dictionary is asked for, bytes (BEP 9). All pieces but the last have this length.
pub(super) const METADATA_PIECE: u32 = 16 << 10;

/// How many pieces an info dictionary of `size` bytes has.
pub(super) fn piece_count(size: u32) -> u32 {
    size.div_ceil(METADATA_PIECE)
}

/// The length of a piece; 0 when there is no such piece.
pub(super) fn piece_length(size: u32, piece: u32) -> u32 {
    let begin = u64::from(piece) * u64::from(METADATA_PIECE);
    u64::from(size)
        .saturating_sub(begin)
        .min(METADATA_PIECE.into()) as u32
}
