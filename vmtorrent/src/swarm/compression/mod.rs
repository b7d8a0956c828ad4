//! Blocks in compressed form (vmt_zstd, see docs/protocol.md): between peers of our kind, while the line is what they
//! wait for.
//!
//! Invariant: what is compressed, and kept so, are verified bytes; what comes is decompressed into exactly the room of the
//! block that it says it is, and is believed no more than a plain block. The caches and contexts of a session are bounded,
//! whatever peers ask for.

mod cache;
mod codec;
mod contexts;
mod message;
mod packer;
mod verdicts;

pub(crate) use self::codec::Codec;
#[cfg(test)]
pub(super) use self::message::CompressedBlock;
pub(super) use self::message::{ZstdMessage, encode_block_header};
pub(super) use self::packer::{Form, Packer};
