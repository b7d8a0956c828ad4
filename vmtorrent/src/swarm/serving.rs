//! Blocks of the pristine copy for other peers.
//!
//! Invariant: a block goes out only when its piece was found right; the thread that serves sockets waits for no disk and
//! hashes nothing.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::Swarm;
use super::wire::{WireRequest, encode_piece_header};
use crate::error::Result;
use crate::image::PieceIndex;
use crate::pristine::{ReadOutcome, TryRead};

impl Swarm {
    /// Appends PIECE messages for requests that wait, until `buffer` holds `most` bytes; notes in `done` for each whether
    /// it could be read.
    pub(super) async fn append_blocks(
        &self,
        waiting: &mut VecDeque<WireRequest>,
        most: usize,
        buffer: &mut BytesMut,
        done: &mut Vec<(WireRequest, bool)>,
    ) {
        while buffer.len() < most
            && let Some(&request) = waiting.front()
        {
            let start = buffer.len();
            let data = append_header(request, buffer);
            let offset = self.offset(request);
            if let Ok(TryRead::Done) = self.pristine.try_read(offset, &mut buffer[data..]) {
                waiting.pop_front();
                done.push((request, true));
                continue;
            }
            buffer.truncate(start);
            // The next ones have probably to wait for the disk too: they go to it together.
            let mut batch = Vec::new();
            let mut length = buffer.len();
            while length < most
                && let Some(request) = waiting.pop_front()
            {
                length += request.length as usize;
                batch.push(request);
            }
            self.append_from_disk(batch, buffer, done).await;
        }
    }

    async fn append_from_disk(
        &self,
        batch: Vec<WireRequest>,
        buffer: &mut BytesMut,
        done: &mut Vec<(WireRequest, bool)>,
    ) {
        let pristine = self.pristine.clone();
        let offsets: Vec<u64> = batch.iter().map(|r| self.offset(*r)).collect();
        let requests = batch.clone();
        let read = self.runtime.spawn_blocking(move || {
            let read = |(request, offset): (&WireRequest, u64)| {
                let mut data = vec![0; request.length as usize];
                let outcome = pristine.read(offset, &mut data)?;
                Ok((outcome, data))
            };
            let results: Vec<Result<_>> = requests.iter().zip(offsets).map(read).collect();
            results
        });
        // Without an answer the session ends.
        let results = read.await.unwrap_or_default();
        let mut results = results.into_iter();
        for request in batch {
            let piece = PieceIndex(request.piece);
            let sent = match results.next() {
                Some(Ok((ReadOutcome::Done, bytes))) => {
                    let data = append_header(request, buffer);
                    buffer[data..].copy_from_slice(&bytes);
                    true
                }
                Some(Ok((ReadOutcome::Missing(_), _))) => {
                    self.damaged(self.image.canonical(piece));
                    false
                }
                Some(Err(error)) => {
                    if let Some(repeated) = self.log.unreadable.admit(self.clock.now()) {
                        // This runs in the connection's task, which bears the name.
                        tracing::warn!(%piece, %error, repeated, "a piece can't be read for a peer");
                    }
                    false
                }
                None => false,
            };
            done.push((request, sent));
        }
    }

    fn offset(&self, request: WireRequest) -> u64 {
        let piece = PieceIndex(request.piece);
        self.image.geometry().piece_offset(piece) + u64::from(request.begin)
    }
}

/// Appends the head of a PIECE message and room for its data, and gives where that begins.
fn append_header(request: WireRequest, buffer: &mut BytesMut) -> usize {
    encode_piece_header(request.piece, request.begin, request.length, buffer);
    let data = buffer.len();
    buffer.resize(data + request.length as usize, 0);
    data
}
