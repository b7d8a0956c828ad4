//! Invariant: each piece is hashed exactly once, from files that are unchanged; holes are neither read nor hashed.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::{io, thread};

use sha1::{Digest, Sha1};
use vmtorrent_platform::PositionedFile;

use super::pieces::hash_of_zeros;
use super::tree::TreeFile;
use super::{Geometry, PieceIndex};
use crate::Result;

/// Bytes read at once.
const CHUNK: usize = 1 << 20;
/// Bytes of pieces that a thread takes at once, so that the disk is read nearly in sequence.
const BATCH: u32 = 4 << 20;

/// The SHA-1 of every piece of the files, which lie one behind the other; uses all cores.
///
/// `progress` is called on this thread with the bytes done and the bytes in all. When it gives false, the hashing is given
/// up, and the hashes are worth nothing.
pub(super) fn hash_pieces(
    files: &[TreeFile],
    geometry: &Geometry,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Vec<[u8; 20]>> {
    let offsets: Vec<u64> = files
        .iter()
        .scan(0, |end, file| {
            let start = *end;
            *end += file.length;
            Some(start)
        })
        .collect();
    let nominal = u64::from(geometry.nominal_piece_length());
    let zero = (nominal, hash_of_zeros(nominal));
    let count = geometry.piece_count();
    let batch = (BATCH / geometry.nominal_piece_length()).max(1);
    let threads = thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let next = AtomicU32::new(0);
    let stop = AtomicBool::new(false);
    let mut hashes = vec![[0; 20]; count as usize];

    thread::scope(|scope| {
        let (sender, results) = mpsc::channel::<Result<(PieceIndex, [u8; 20])>>();
        for _ in 0..threads.min(count.div_ceil(batch)) {
            let (sender, next, stop, offsets) = (sender.clone(), &next, &stop, &offsets);
            scope.spawn(move || {
                let mut hasher = Hasher::new(files, offsets, zero);
                loop {
                    let first = next.fetch_add(batch, Ordering::Relaxed);
                    for piece in (first..count.min(first.saturating_add(batch))).map(PieceIndex) {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let hash = hasher.piece(geometry.piece_range(piece));
                        if sender.send(hash.map(|hash| (piece, hash))).is_err() {
                            return;
                        }
                    }
                    if first >= count {
                        return;
                    }
                }
            });
        }
        drop(sender);

        let total = geometry.total_length();
        let mut done = 0;
        for result in results {
            let (piece, hash) = result.inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            hashes[piece.as_usize()] = hash;
            done += u64::from(geometry.piece_length(piece));
            if !progress(done, total) {
                stop.store(true, Ordering::Relaxed);
                break;
            }
        }
        Ok::<(), crate::Error>(())
    })?;

    for file in files {
        file.open()?;
    }
    Ok(hashes)
}

/// What one thread hashes with.
struct Hasher<'a> {
    files: &'a [TreeFile],
    /// Where each file begins in the image.
    offsets: &'a [u64],
    /// The length of a full piece, and its hash when it is zeros.
    zero: (u64, [u8; 20]),
    open: Option<(usize, PositionedFile)>,
    buffer: Vec<u8>,
    sha1: Sha1,
    /// Zeros at the end of what was read of the piece that were not hashed: perhaps there is nothing else.
    pending_zeros: u64,
    /// Whether a byte of the piece was hashed.
    begun: bool,
}

impl<'a> Hasher<'a> {
    fn new(files: &'a [TreeFile], offsets: &'a [u64], zero: (u64, [u8; 20])) -> Self {
        Self {
            files,
            offsets,
            zero,
            open: None,
            buffer: vec![0; CHUNK],
            sha1: Sha1::new(),
            pending_zeros: 0,
            begun: false,
        }
    }

    /// The hash of the piece that covers these bytes of the image.
    fn piece(&mut self, range: Range<u64>) -> Result<[u8; 20]> {
        self.pending_zeros = 0;
        self.begun = false;
        // The last file that begins at or before the piece: empty ones before it hold none of it.
        let mut index = self.offsets.partition_point(|o| *o <= range.start) - 1;
        let mut at = range.start;
        while at < range.end {
            let offset = self.offsets[index];
            let end = range.end.min(offset + self.files[index].length);
            self.part(index, at - offset..end - offset)?;
            at = end;
            index += 1;
        }
        if !self.begun && self.pending_zeros == self.zero.0 {
            return Ok(self.zero.1);
        }
        self.hash_pending_zeros();
        Ok(self.sha1.finalize_reset().into())
    }

    /// Takes in a range of one file.
    fn part(&mut self, index: usize, range: Range<u64>) -> Result<()> {
        let file = &self.files[index];
        let mut at = range.start;
        while at < range.end {
            let step = (range.end - at).min(CHUNK as u64);
            if file.has_data(&(at..at + step)) {
                self.read(index, at, step as usize)?;
            } else {
                self.pending_zeros += step;
            }
            at += step;
        }
        Ok(())
    }

    /// Reads and takes in at most a chunk of one file.
    fn read(&mut self, index: usize, at: u64, length: usize) -> Result<()> {
        let listed = &self.files[index];
        let file = match &self.open {
            Some((open, file)) if *open == index => file,
            _ => &self.open.insert((index, listed.open()?)).1,
        };
        let buffer = &mut self.buffer[..length];
        file.read_exact_at(buffer, at).map_err(|e| {
            if e.kind() == io::ErrorKind::UnexpectedEof {
                listed.changed()
            } else {
                listed.unreadable(e)
            }
        })?;
        if is_zero(buffer) {
            self.pending_zeros += length as u64;
        } else {
            self.hash_pending_zeros();
            self.sha1.update(&self.buffer[..length]);
            self.begun = true;
        }
        Ok(())
    }

    fn hash_pending_zeros(&mut self) {
        while self.pending_zeros > 0 {
            let step = self.pending_zeros.min(ZEROS.len() as u64);
            self.sha1.update(&ZEROS[..step as usize]);
            self.pending_zeros -= step;
            self.begun = true;
        }
    }
}

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

fn is_zero(bytes: &[u8]) -> bool {
    // Compared in large steps: a comparison of slices is a `memcmp`.
    bytes
        .chunks(ZEROS.len())
        .all(|chunk| chunk == &ZEROS[..chunk.len()])
}
