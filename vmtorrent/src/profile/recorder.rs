//! Invariant: each block is noted once, when it is read for the first time, and what is kept of a run is bounded.

use std::ops::Range;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Access, BLOCK, FirstRead, Profile, RunLog, Stall};
use crate::Bitfield;
use crate::image::{Image, PieceClass, PieceIndex};
use crate::pristine::{Pristine, ReadOutcome};

/// A moment of a run, microseconds since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunTime {
    /// Wall time.
    pub(crate) at: u64,
    /// Wall time less the time during which a read waited for the swarm.
    pub(crate) guest: u64,
}

/// How much is known of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Blocks that were noted.
    pub(crate) blocks: usize,
    /// Those of them whose bytes were looked at.
    pub(crate) contents: usize,
}

/// Notes the first read of each block of an image that reaches the pristine copy, whether it was there or not.
///
/// Blocks of zeros are left out: they are never fetched.
pub(crate) struct Recorder {
    image: Arc<Image>,
    files: Vec<Seen>,
    log: Mutex<Log>,
}

struct Log {
    reads: Vec<FirstRead>,
    /// CRC-32C of the blocks of `reads`, as far as they were looked at.
    contents: Vec<Option<u32>>,
    /// Pieces that were here when the recording began, or that a read was counted for.
    counted: Bitfield,
    truncated: bool,
}

/// Most blocks that are noted of a run: 16 GiB of distinct reads, 40 MiB of memory.
const MAX_READS: usize = 1 << 20;

impl Recorder {
    /// Records from now on; `had` tells what is here.
    pub(crate) fn new(image: Arc<Image>, had: Bitfield) -> Self {
        let files = image
            .files()
            .iter()
            .map(|f| Seen::new(f.length.div_ceil(BLOCK)));
        Self {
            files: files.collect(),
            log: Mutex::new(Log {
                reads: Vec::new(),
                contents: Vec::new(),
                counted: had,
                truncated: false,
            }),
            image,
        }
    }

    /// The blocks of a range of a file that were not read before. From now on they were.
    pub(crate) fn first_blocks(&self, file: usize, range: &Range<u64>) -> Vec<u32> {
        let Some(seen) = self.files.get(file) else {
            return Vec::new();
        };
        let blocks = range.start / BLOCK..range.end.div_ceil(BLOCK);
        blocks
            .filter(|block| seen.insert(*block))
            .filter_map(|block| u32::try_from(block).ok())
            .filter(|block| self.pieces(file, *block).next().is_some())
            .collect()
    }

    /// Notes what [`first_blocks`](Self::first_blocks) gave; `expected` tells for each whether a profile foretold it,
    /// `missing` which pieces it has to wait for.
    pub(crate) fn note(
        &self,
        file: usize,
        blocks: &[u32],
        expected: &[bool],
        time: RunTime,
        missing: impl Fn(PieceIndex) -> bool,
    ) {
        let mut log = self.log.lock();
        for (n, &block) in blocks.iter().enumerate() {
            if log.reads.len() >= MAX_READS {
                log.truncated = true;
                return;
            }
            let (mut needed, mut missed) = (0, false);
            for piece in self.pieces(file, block) {
                missed |= missing(piece);
                if log.counted.set(piece, true) {
                    needed += self.image.geometry().piece_length(piece);
                }
            }
            log.reads.push(FirstRead {
                file: file as u32,
                block,
                at: time.at,
                guest_time: time.guest,
                needed,
                missed,
                expected: expected.get(n).copied().unwrap_or(false),
            });
            log.contents.push(None);
        }
    }

    /// The pieces that hold a block and that are not zeros; in place of a duplicate the one that it is fetched as.
    fn pieces(&self, file: usize, block: u32) -> impl Iterator<Item = PieceIndex> + '_ {
        pieces_of(&self.image, file, block)
    }

    /// What was noted so far, with the stalls that the caller knows.
    pub(crate) fn log(&self, stalls: Vec<Stall>) -> RunLog {
        let log = self.log.lock();
        let mut first_reads = log.reads.clone();
        // Two threads may have noted theirs in the other order.
        first_reads.sort_by_key(|read| read.at);
        RunLog {
            first_reads,
            stalls,
            truncated: log.truncated,
        }
    }

    /// Looks at the bytes of blocks that were not here when it was last done. Gives how many blocks were noted so far, and
    /// of how many of them the bytes are known. Waits for the disk.
    pub(crate) fn look(&self, pristine: &Pristine) -> Known {
        let unknown: Vec<(usize, FirstRead)> = {
            let log = self.log.lock();
            let all = log.reads.iter().zip(&log.contents).enumerate();
            all.filter(|(_, (_, content))| content.is_none())
                .map(|(n, (read, _))| (n, *read))
                .collect()
        };
        let mut buffer = vec![0; BLOCK as usize];
        let found: Vec<(usize, u32)> = unknown
            .into_iter()
            .filter_map(|(n, read)| Some((n, self.content(pristine, &read, &mut buffer)?)))
            .collect();
        let mut log = self.log.lock();
        for (n, content) in found {
            log.contents[n] = Some(content);
        }
        Known {
            blocks: log.reads.len(),
            contents: log.contents.iter().flatten().count(),
        }
    }

    /// What was noted so far, as a profile of one run, with what is known of the bytes since they were last
    /// [looked at](Self::look).
    pub(crate) fn profile(&self) -> Profile {
        let (reads, contents) = {
            let log = self.log.lock();
            (log.reads.clone(), log.contents.clone())
        };
        let mut profile = Profile::new(&self.image);
        profile.runs = 1;
        // The image's files with padding, which a profile leaves out.
        let shown: Vec<Option<usize>> = self
            .image
            .files()
            .iter()
            .scan(0, |next, file| {
                let index = (!file.padding).then_some(*next);
                *next += usize::from(!file.padding);
                Some(index)
            })
            .collect();
        for (read, content) in reads.iter().zip(contents) {
            if let Some(Some(index)) = shown.get(read.file as usize) {
                let access = Access::once(read.guest_time, content);
                profile.files[*index].blocks.insert(read.block, access);
            }
        }
        profile
    }

    fn content(&self, pristine: &Pristine, read: &FirstRead, buffer: &mut [u8]) -> Option<u32> {
        let file = self.image.files().get(read.file as usize)?;
        let start = u64::from(read.block) * BLOCK;
        let length = BLOCK.min(file.length.checked_sub(start)?) as usize;
        let buffer = buffer.get_mut(..length)?;
        match pristine.read(file.offset + start, buffer) {
            Ok(ReadOutcome::Done) => Some(crc32c::crc32c(buffer)),
            // It may still be on its way; it is looked at again the next time.
            Ok(ReadOutcome::Missing(_)) => None,
            Err(error) => {
                tracing::debug!(%error, "a block's content can't be noted");
                None
            }
        }
    }
}

/// The pieces that hold a block of a file and that are not zeros; in place of a duplicate the one that it is fetched as.
pub(super) fn pieces_of(
    image: &Image,
    file: usize,
    block: u32,
) -> impl Iterator<Item = PieceIndex> + '_ {
    let range = image.files().get(file).map_or(0..0, |file| {
        let start = (u64::from(block) * BLOCK).min(file.length);
        let end = (start + BLOCK).min(file.length);
        file.offset + start..file.offset + end
    });
    let pieces = image.geometry().pieces_in(range).map(PieceIndex);
    pieces
        .filter(|p| image.piece_class(*p) != PieceClass::Zero)
        .map(|p| image.canonical(p))
}

/// One bit for each block of a file; memory is taken where it is read.
struct Seen {
    chunks: Box<[OnceLock<Box<Chunk>>]>,
}

type Chunk = [AtomicU64; Seen::WORDS];

impl Seen {
    const WORDS: usize = 512;
    const BLOCKS: u64 = 64 * Self::WORDS as u64;

    fn new(blocks: u64) -> Self {
        // What a profile can name.
        let blocks = blocks.min(1 << 32);
        let chunks = (0..blocks.div_ceil(Self::BLOCKS)).map(|_| OnceLock::new());
        Self {
            chunks: chunks.collect(),
        }
    }

    /// False when it was there already, or can't be.
    fn insert(&self, block: u64) -> bool {
        let Some(chunk) = self.chunks.get((block / Self::BLOCKS) as usize) else {
            return false;
        };
        let chunk = chunk.get_or_init(|| Box::new([const { AtomicU64::new(0) }; Self::WORDS]));
        let within = block % Self::BLOCKS;
        let Some(word) = chunk.get((within / 64) as usize) else {
            return false;
        };
        let bit = 1 << (within % 64);
        // Mostly set already: a plain load spares the write.
        word.load(Ordering::Relaxed) & bit == 0 && word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pristine::Stored;
    use crate::test_image::image_of;

    const PIECE: u32 = 64 << 10;

    /// Three pieces that differ, one of zeros, one that repeats the first.
    fn recorder(had: &[u32]) -> Recorder {
        let piece = PIECE as usize;
        let mut data: Vec<u8> = (0..3 * piece)
            .map(|n| (n / 512 + n / piece) as u8 | 1)
            .collect();
        data.resize(4 * piece, 0);
        data.extend_from_within(..piece);
        let image = Arc::new(image_of(&data, PIECE));
        let mut field = Bitfield::new(image.geometry().piece_count());
        for piece in had {
            field.set(PieceIndex(*piece), true);
        }
        Recorder::new(image, field)
    }

    fn read(recorder: &Recorder, range: Range<u64>, at: u64) -> Vec<u32> {
        let blocks = recorder.first_blocks(0, &range);
        // The second piece is here, and the first one comes at 15.
        let missing = |piece: PieceIndex| piece.0 == 2 || (piece.0 == 0 && at < 15);
        recorder.note(0, &blocks, &[], RunTime { at, guest: at / 2 }, missing);
        blocks
    }

    #[test]
    fn a_block_is_noted_at_its_first_read_with_what_it_was_the_first_to_need() {
        let recorder = recorder(&[1]);
        assert_eq!(read(&recorder, BLOCK - 1..BLOCK + 1, 10), [0, 1]);
        assert_eq!(read(&recorder, 0..BLOCK * 3, 20), [2]);
        // Here already; zeros; a piece that repeats one that was counted.
        assert_eq!(read(&recorder, BLOCK * 4..BLOCK * 5, 30), [4]);
        assert!(read(&recorder, BLOCK * 12..BLOCK * 16, 40).is_empty());
        assert_eq!(read(&recorder, BLOCK * 16..BLOCK * 17, 50), [16]);
        let log = recorder.log(Vec::new());
        let noted: Vec<_> = log
            .first_reads
            .iter()
            .map(|r| (r.block, r.guest_time, r.needed, r.missed))
            .collect();
        let expected = [
            (0, 5, PIECE, true),
            // It needs nothing that the one before does not, and waits as long.
            (1, 5, 0, true),
            (2, 10, 0, false),
            (4, 15, 0, false),
            (16, 25, 0, false),
        ];
        assert_eq!(noted, expected);
    }

    #[test]
    fn what_a_block_holds_is_noted_once_it_is_here_also_if_nothing_is_read_any_more() {
        let content: Vec<u8> = (0..2 * PIECE).map(|n| (n / 512) as u8 | 1).collect();
        let image = Arc::new(image_of(&content, PIECE));
        let cache = tempfile::tempdir().unwrap();
        let opened = Pristine::open_cache(image.clone(), cache.path(), None, None).unwrap();
        let pristine = opened.pristine;
        let recorder = Recorder::new(image, pristine.have_field());
        read(&recorder, 0..BLOCK, 10);
        read(&recorder, u64::from(PIECE)..u64::from(PIECE) + BLOCK, 20);
        let known = |contents| Known {
            blocks: 2,
            contents,
        };
        assert_eq!(recorder.look(&pristine), known(0));
        let noted = |block| recorder.profile().files()[0].blocks()[&block].content();
        assert_eq!((noted(0), noted(4)), (None, None));
        let second = &content[PIECE as usize..];
        assert_eq!(pristine.store(PieceIndex(1), second).unwrap(), Stored::New);
        assert_eq!(recorder.look(&pristine), known(1));
        let right = crc32c::crc32c(&second[..BLOCK as usize]);
        assert_eq!((noted(0), noted(4)), (None, Some(right)));
    }

    #[test]
    fn places_outside_the_image_are_not_noted() {
        let recorder = recorder(&[]);
        assert!(recorder.first_blocks(7, &(0..10)).is_empty());
        let end = 5 * u64::from(PIECE);
        assert!(recorder.first_blocks(0, &(end..end + 10)).is_empty());
    }

    #[test]
    fn blocks_without_end_cost_no_memory_until_they_are_read() {
        let seen = Seen::new(u64::MAX);
        assert!(seen.insert(0) && !seen.insert(0));
        assert!(seen.insert((1 << 32) - 1));
        assert!(!seen.insert(1 << 32));
        let made = seen.chunks.iter().filter(|c| c.get().is_some()).count();
        assert_eq!(made, 2);
    }
}
