//! Blocks of the pristine copy for other peers.
//!
//! Invariant: a block goes out only when its piece was found right; the thread that serves sockets waits for no disk and
//! hashes nothing.

use std::collections::VecDeque;
use std::num::NonZeroU8;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::Swarm;
use super::compression::{Form, Packer};
use super::wire::{WireRequest, encode_compressed, encode_piece_header};
use crate::error::Result;
use crate::image::PieceIndex;
use crate::pristine::{Pristine, ReadOutcome, TryRead};

/// What a request is answered with.
enum Answer {
    Plain(Vec<u8>),
    Frame(Bytes),
    /// The piece is not there any more.
    Missing,
}

impl Swarm {
    /// Appends the blocks of requests that wait, until `buffer` holds `most` bytes; notes in `done` for each what it takes
    /// on the wire, or that it could not be read. With `compress`, the peer's number for vmt_zstd, blocks go in compressed
    /// form where that saves something.
    pub(super) async fn append_blocks(
        &self,
        waiting: &mut VecDeque<WireRequest>,
        compress: Option<NonZeroU8>,
        most: usize,
        buffer: &mut BytesMut,
        done: &mut Vec<(WireRequest, Option<u32>)>,
    ) {
        let compress = compress.zip(self.packer.as_ref());
        while buffer.len() < most
            && let Some(&request) = waiting.front()
        {
            match compress.map_or(Form::Plain, |(_, packer)| packer.form(request)) {
                Form::Frame(frame) => {
                    waiting.pop_front();
                    // It is a use of the piece, as a read is.
                    let offset = self.offset(request);
                    self.pristine
                        .touch(&(offset..offset + u64::from(request.length)));
                    done.push((request, append_frame(compress, request, &frame, buffer)));
                    continue;
                }
                Form::Plain => {
                    let start = buffer.len();
                    let data = append_header(request, buffer);
                    let offset = self.offset(request);
                    if let Ok(TryRead::Done) = self.pristine.try_read(offset, &mut buffer[data..]) {
                        waiting.pop_front();
                        done.push((request, Some(request.length)));
                        continue;
                    }
                    buffer.truncate(start);
                }
                Form::Unknown => {}
            }
            // The next ones have probably to wait for the disk, or to be compressed, too: they go there together.
            let mut batch = Vec::new();
            let mut length = buffer.len();
            while length < most
                && let Some(request) = waiting.pop_front()
            {
                length += request.length as usize;
                batch.push(request);
            }
            self.append_from_pool(batch, compress, buffer, done).await;
        }
    }

    /// The same for a batch, by a thread that may wait for the disk and compress.
    async fn append_from_pool(
        &self,
        batch: Vec<WireRequest>,
        compress: Option<(NonZeroU8, &Arc<Packer>)>,
        buffer: &mut BytesMut,
        done: &mut Vec<(WireRequest, Option<u32>)>,
    ) {
        let pristine = self.pristine.clone();
        let packer = compress.map(|(_, packer)| packer.clone());
        let offsets: Vec<u64> = batch.iter().map(|r| self.offset(*r)).collect();
        let requests = batch.clone();
        let answers = self.runtime.spawn_blocking(move || {
            let requests = requests.iter().zip(offsets);
            let answer = |(request, offset): (&WireRequest, u64)| {
                answer(&pristine, packer.as_deref(), *request, offset)
            };
            requests.map(answer).collect::<Vec<Result<Answer>>>()
        });
        // Without an answer the session ends.
        let answers = answers.await.unwrap_or_default();
        let mut answers = answers.into_iter();
        for request in batch {
            let piece = PieceIndex(request.piece);
            let sent = match answers.next() {
                Some(Ok(Answer::Plain(bytes))) => {
                    let data = append_header(request, buffer);
                    buffer[data..].copy_from_slice(&bytes);
                    Some(request.length)
                }
                Some(Ok(Answer::Frame(frame))) => append_frame(compress, request, &frame, buffer),
                Some(Ok(Answer::Missing)) => {
                    self.damaged(self.image.canonical(piece));
                    None
                }
                Some(Err(error)) => {
                    if let Some(repeated) = self.log.unreadable.admit(self.clock.now()) {
                        // This runs in the connection's task, which bears the name.
                        tracing::warn!(%piece, %error, repeated, "a piece can't be read for a peer");
                    }
                    None
                }
                None => None,
            };
            done.push((request, sent));
        }
    }

    fn offset(&self, request: WireRequest) -> u64 {
        let piece = PieceIndex(request.piece);
        self.image.geometry().piece_offset(piece) + u64::from(request.begin)
    }
}

/// Reads a block, from the disk if need be, and compresses it if that is wanted and not known to save nothing.
fn answer(
    pristine: &Pristine,
    packer: Option<&Packer>,
    request: WireRequest,
    offset: u64,
) -> Result<Answer> {
    let form = packer.map_or(Form::Plain, |packer| packer.form(request));
    if let Form::Frame(frame) = form {
        return Ok(Answer::Frame(frame));
    }
    let mut data = vec![0; request.length as usize];
    if let ReadOutcome::Missing(_) = pristine.read(offset, &mut data)? {
        return Ok(Answer::Missing);
    }
    let frame = packer
        .filter(|_| form == Form::Unknown)
        .and_then(|packer| packer.pack(request, &data));
    Ok(frame.map_or(Answer::Plain(data), Answer::Frame))
}

/// Appends a compressed block, and gives what it takes on the wire without the message's header.
fn append_frame(
    compress: Option<(NonZeroU8, &Arc<Packer>)>,
    request: WireRequest,
    frame: &[u8],
    buffer: &mut BytesMut,
) -> Option<u32> {
    let (extension, _) = compress?;
    encode_compressed(extension.get(), request, frame, buffer);
    Some(frame.len() as u32)
}

/// Appends the head of a PIECE message and room for its data, and gives where that begins.
fn append_header(request: WireRequest, buffer: &mut BytesMut) -> usize {
    encode_piece_header(request.piece, request.begin, request.length, buffer);
    let data = buffer.len();
    buffer.resize(data + request.length as usize, 0);
    data
}
