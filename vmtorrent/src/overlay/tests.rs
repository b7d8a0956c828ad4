//! The overlay on a real file system, and from several threads.
#![expect(
    clippy::single_range_in_vec_init,
    reason = "lists of one range are meant"
)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use tempfile::TempDir;
use vmtorrent_platform::ZeroMode;

use super::simulated_disk::{Fault, SimulatedDisk, Survival};
use super::*;

const BLOCK: u64 = OVERLAY_BLOCK;
const ZERO: ZeroMode = ZeroMode::Zero { keep_size: true };

fn make(base_length: u64) -> (TempDir, Overlay) {
    let dir = tempfile::tempdir().unwrap();
    let overlay = Overlay::open(dir.path(), "7", base_length).unwrap();
    (dir, overlay)
}

#[track_caller]
fn done(result: Result<WriteOutcome>) {
    assert_eq!(result.unwrap(), WriteOutcome::Done);
}

fn kinds(overlay: &Overlay) -> Vec<(Range<u64>, ExtentKind)> {
    let extents = overlay.extents(0..u64::MAX);
    extents.into_iter().map(|e| (e.range, e.kind)).collect()
}

fn data(overlay: &Overlay, range: Range<u64>) -> Vec<u8> {
    let mut buffer = vec![0xEE; (range.end - range.start) as usize];
    assert!(overlay.read_data(range.start, &mut buffer, false).unwrap());
    buffer
}

#[test]
fn only_parts_of_unwritten_blocks_need_base_data_and_asking_changes_nothing() {
    use ExtentKind::{Base, Data};
    let (_dir, overlay) = make(10 * BLOCK);
    done(overlay.write(BLOCK, &[1; 2 * BLOCK as usize], &[]));
    done(overlay.write(BLOCK + 10, &[2; 100], &[]));
    let before = kinds(&overlay);
    assert_eq!(
        before,
        [
            (0..BLOCK, Base),
            (BLOCK..3 * BLOCK, Data),
            (3 * BLOCK..10 * BLOCK, Base)
        ]
    );
    // From the middle of block 2 (written) into block 3, and from block 4 over block 5 into block 6.
    let outcome = overlay.write(2 * BLOCK + 9, &[3; BLOCK as usize], &[]);
    let needs = vec![3 * BLOCK + 9..4 * BLOCK];
    assert_eq!(outcome.unwrap(), WriteOutcome::NeedsBase(needs));
    let outcome = overlay.write(4 * BLOCK + 1, &[3; 2 * BLOCK as usize], &[]);
    let needs = vec![4 * BLOCK..4 * BLOCK + 1, 6 * BLOCK + 1..7 * BLOCK];
    assert_eq!(outcome.unwrap(), WriteOutcome::NeedsBase(needs.clone()));
    assert_eq!(kinds(&overlay), before);
    assert_eq!(data(&overlay, 2 * BLOCK..3 * BLOCK), [1; BLOCK as usize]);

    let fill = |range: &Range<u64>, byte| Fill {
        offset: range.start,
        bytes: Bytes::from(vec![byte; (range.end - range.start) as usize]),
    };
    // Half of what is needed is not enough.
    let outcome = overlay.write(
        4 * BLOCK + 1,
        &[3; 2 * BLOCK as usize],
        &[fill(&needs[0], 8)],
    );
    assert_eq!(
        outcome.unwrap(),
        WriteOutcome::NeedsBase(vec![needs[1].clone()])
    );
    let fills = [fill(&needs[0], 8), fill(&needs[1], 9)];
    // Meanwhile someone else writes block 4: its bytes count, not the base's.
    done(overlay.write(4 * BLOCK, &[5; BLOCK as usize], &[]));
    done(overlay.write(4 * BLOCK + 1, &[3; 2 * BLOCK as usize], &fills));
    let expected = [
        vec![5],
        vec![3; 2 * BLOCK as usize],
        vec![9; BLOCK as usize - 1],
    ];
    assert_eq!(data(&overlay, 4 * BLOCK..7 * BLOCK), expected.concat());
    assert_eq!(overlay.data_blocks(), 5);
}

#[test]
fn the_end_of_the_base_needs_no_more_than_there_is() {
    let (_dir, overlay) = make(BLOCK + 100);
    let outcome = overlay.write(BLOCK + 50, &[1; 10], &[]).unwrap();
    let needs = vec![BLOCK..BLOCK + 50, BLOCK + 60..BLOCK + 100];
    assert_eq!(outcome, WriteOutcome::NeedsBase(needs));
    // Up to the end, and behind it: zeros follow.
    let outcome = overlay.write(BLOCK + 50, &[1; 50], &[]).unwrap();
    assert_eq!(outcome, WriteOutcome::NeedsBase(vec![BLOCK..BLOCK + 50]));
    done(overlay.write(5 * BLOCK + 3, &[1; 3], &[]));
    assert_eq!(overlay.len(), 5 * BLOCK + 6);
    use ExtentKind::{Base, Data, Zero};
    assert_eq!(
        kinds(&overlay),
        [
            (0..BLOCK + 100, Base),
            (BLOCK + 100..5 * BLOCK, Zero),
            (5 * BLOCK..5 * BLOCK + 6, Data)
        ]
    );
    assert_eq!(data(&overlay, 5 * BLOCK..5 * BLOCK + 6), [0, 0, 0, 1, 1, 1]);
    // Cut and grown: the base is gone where it was cut.
    overlay.set_len(60).unwrap();
    overlay.set_len(3 * BLOCK).unwrap();
    assert_eq!(kinds(&overlay), [(0..60, Base), (60..3 * BLOCK, Zero)]);
    assert_eq!(overlay.data_blocks(), 0);
}

#[test]
fn zeroed_blocks_give_their_storage_back_and_edges_keep_their_bytes() {
    use ExtentKind::{Base, Data, Zero};
    let (_dir, overlay) = make(64 * BLOCK);
    done(overlay.write(0, &[1; 32 * BLOCK as usize], &[]));
    overlay.flush().unwrap();
    let full = overlay.allocated().unwrap();
    assert!(full >= 32 * BLOCK);
    done(overlay.zero(100, 31 * BLOCK, ZERO, &[]));
    assert!(overlay.allocated().unwrap() <= full - 30 * BLOCK);
    assert_eq!(
        kinds(&overlay),
        [
            (0..BLOCK, Data),
            (BLOCK..31 * BLOCK, Zero),
            (31 * BLOCK..32 * BLOCK, Data),
            (32 * BLOCK..64 * BLOCK, Base)
        ]
    );
    assert_eq!(data(&overlay, 98..102), [1, 1, 0, 0]);
    assert_eq!(
        data(&overlay, 31 * BLOCK + 98..31 * BLOCK + 102),
        [0, 0, 1, 1]
    );
    // Edges in the base are asked for, whole blocks are not.
    let outcome = overlay.zero(40 * BLOCK, 2 * BLOCK + 5, ZeroMode::Discard, &[]);
    let needs = vec![42 * BLOCK + 5..43 * BLOCK];
    assert_eq!(outcome.unwrap(), WriteOutcome::NeedsBase(needs));
    done(overlay.zero(40 * BLOCK, 2 * BLOCK, ZeroMode::Discard, &[]));
    // To the end of the file and behind it.
    done(overlay.zero(60 * BLOCK, 10 * BLOCK, ZeroMode::Discard, &[]));
    assert_eq!(overlay.len(), 64 * BLOCK);
    let grow = ZeroMode::Zero { keep_size: false };
    done(overlay.zero(63 * BLOCK, 10 * BLOCK, grow, &[]));
    assert_eq!(overlay.len(), 73 * BLOCK);
    assert_eq!(
        kinds(&overlay).last(),
        Some(&(60 * BLOCK..73 * BLOCK, Zero))
    );
    // A part of a zeroed block is written with zeros around it.
    done(overlay.write(5 * BLOCK + 1, &[7], &[]));
    assert_eq!(data(&overlay, 5 * BLOCK..5 * BLOCK + 3), [0, 7, 0]);
}

#[test]
fn a_killed_process_loses_nothing_that_was_flushed() {
    let (dir, overlay) = make(10 * BLOCK);
    done(overlay.write(0, &[1; BLOCK as usize], &[]));
    done(overlay.zero(2 * BLOCK, BLOCK, ZERO, &[]));
    overlay.set_len(12 * BLOCK + 5).unwrap();
    overlay.flush().unwrap();
    let flushed = kinds(&overlay);
    done(overlay.write(4 * BLOCK, &[2; BLOCK as usize], &[]));
    drop(overlay);
    let overlay = Overlay::open(dir.path(), "7", 10 * BLOCK).unwrap();
    assert_eq!(kinds(&overlay), flushed);
    assert_eq!(overlay.len(), 12 * BLOCK + 5);
    assert_eq!(data(&overlay, 0..BLOCK), [1; BLOCK as usize]);
}

#[test]
fn a_flush_without_changes_writes_no_record() {
    let (dir, overlay) = make(10 * BLOCK);
    done(overlay.write(0, &[1; BLOCK as usize], &[]));
    overlay.flush().unwrap();
    let map = dir.path().join("7.map");
    let length = fs::metadata(&map).unwrap().len();
    done(overlay.write(5, &[2; 100], &[]));
    overlay.flush().unwrap();
    assert_eq!(fs::metadata(&map).unwrap().len(), length);
    assert!(!overlay.unsynced.load(Ordering::Relaxed));
}

#[test]
fn a_long_journal_is_replaced_by_a_short_one() {
    let (dir, overlay) = make(1 << 30);
    let map = dir.path().join("7.map");
    let mut longest = 0;
    let mut compacted = false;
    for round in 0..12_000_u64 {
        let mut state = overlay.state.write();
        // As writes would: a block here and there.
        let block = round * 7919 % 100_000;
        state.change(
            block..block + 1,
            if round % 3 == 0 {
                BlockState::Zero
            } else {
                BlockState::Data
            },
        );
        drop(state);
        // Records of about 17 bytes would take long to fill a mebibyte: make them bigger.
        overlay.state.write().dirty.insert(0..1 << 18);
        if round % 50 == 0 {
            overlay.flush().unwrap();
            let length = fs::metadata(&map).unwrap().len();
            compacted |= length < longest;
            longest = longest.max(length);
        }
    }
    assert!(compacted);
    assert!(longest < 2 << 20, "{longest}");
    overlay.flush().unwrap();
    let before = kinds(&overlay);
    drop(overlay);
    let overlay = Overlay::open(dir.path(), "7", 1 << 30).unwrap();
    assert_eq!(kinds(&overlay), before);
    assert!(!dir.path().join("7.map.new").exists());
}

#[test]
fn huge_lengths_cost_only_what_is_touched() {
    let (dir, overlay) = make(10 * BLOCK);
    overlay.set_len(MAX_LENGTH).unwrap();
    done(overlay.write(1 << 40, &[1; BLOCK as usize], &[]));
    done(overlay.zero(0, MAX_LENGTH, ZERO, &[]));
    done(overlay.write((1 << 42) + 1, &[1; 10], &[]));
    assert_eq!(kinds(&overlay).len(), 3);
    overlay.flush().unwrap();
    assert!(fs::metadata(dir.path().join("7.map")).unwrap().len() < 1000);
    let before = kinds(&overlay);
    drop(overlay);
    let overlay = Overlay::open(dir.path(), "7", 10 * BLOCK).unwrap();
    assert_eq!(kinds(&overlay), before);
    for result in [
        overlay.set_len(MAX_LENGTH + 1),
        overlay.write(MAX_LENGTH, &[1], &[]).map(|_| ()),
        overlay.write(u64::MAX, &[1, 2], &[]).map(|_| ()),
        overlay
            .zero(MAX_LENGTH, 1, ZeroMode::Zero { keep_size: false }, &[])
            .map(|_| ()),
    ] {
        assert_eq!(
            result.unwrap_err().errno(),
            vmtorrent_platform::Errno::EFBIG
        );
    }
    done(overlay.zero(u64::MAX, u64::MAX, ZeroMode::Discard, &[]));
    done(overlay.write(5, &[], &[]));
}

#[test]
fn zeroing_a_huge_base_is_one_run() {
    let (_dir, overlay) = make(1 << 50);
    done(overlay.zero(BLOCK, (1 << 50) - BLOCK, ZeroMode::Discard, &[]));
    assert_eq!(
        kinds(&overlay),
        [
            (0..BLOCK, ExtentKind::Base),
            (BLOCK..1 << 50, ExtentKind::Zero)
        ]
    );
    overlay.flush().unwrap();
}

#[test]
fn damage_and_mismatches_are_told_apart() {
    let (dir, overlay) = make(10 * BLOCK);
    done(overlay.write(0, &[1; BLOCK as usize], &[]));
    overlay.flush().unwrap();
    drop(overlay);
    let error = Overlay::open(dir.path(), "7", 11 * BLOCK).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let data = dir.path().join("7.data");
    let aside = dir.path().join("aside");
    fs::rename(&data, &aside).unwrap();
    let error = Overlay::open(dir.path(), "7", 10 * BLOCK).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("7.data"), "{error}");
    fs::rename(&aside, &data).unwrap();
    drop(Overlay::open(dir.path(), "7", 10 * BLOCK).unwrap());
    let map = File::options().write(true).open(dir.path().join("7.map"));
    map.unwrap().write_all_at(b"X", 70).unwrap();
    let error = Overlay::open(dir.path(), "7", 10 * BLOCK).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("7.map"), "{error}");
}

#[test]
fn a_lost_data_file_is_reported_at_each_opening() {
    let (dir, overlay) = make(10 * BLOCK);
    done(overlay.write(0, &[1; BLOCK as usize], &[]));
    overlay.flush().unwrap();
    drop(overlay);
    fs::remove_file(dir.path().join("7.data")).unwrap();
    for _ in 0..2 {
        let error = Overlay::open(dir.path(), "7", 10 * BLOCK).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn a_lost_block_map_is_reported_and_what_was_written_stays() {
    let (dir, overlay) = make(10 * BLOCK);
    done(overlay.write(0, &[1; BLOCK as usize], &[]));
    overlay.flush().unwrap();
    drop(overlay);
    fs::remove_file(dir.path().join("7.map")).unwrap();
    for _ in 0..2 {
        let error = LazyOverlay::open(dir.path(), "7", 10 * BLOCK)
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("7.map"), "{error}");
    }
    let left = fs::read(dir.path().join("7.data")).unwrap();
    assert_eq!(left, [1; BLOCK as usize]);
    // An overlay that was just made, without anything in it, is no loss.
    fs::write(dir.path().join("7.data"), "").unwrap();
    drop(LazyOverlay::open(dir.path(), "7", 10 * BLOCK).unwrap());
}

#[test]
fn a_data_file_that_cannot_be_opened_for_a_flush_is_no_lost_write() {
    let disk = SimulatedDisk::new(1);
    let overlay = Overlay::open_in(Arc::new(disk.clone()), "7", 10 * BLOCK, compact_above);
    let overlay = overlay.unwrap();
    done(overlay.write(0, &[1; BLOCK as usize], &[]));
    disk.refuse_opening(Some(Fault::Io));
    for _ in 0..2 {
        overlay.flush().unwrap_err();
    }
    disk.refuse_opening(None);
    overlay.flush().unwrap();
    assert!(disk.open("7.lost").unwrap().is_none());
    disk.lose_power(Survival::RANDOM);
    drop(overlay);
    let overlay = Overlay::open_in(Arc::new(disk), "7", 10 * BLOCK, compact_above).unwrap();
    assert_eq!(data(&overlay, 0..BLOCK), [1; BLOCK as usize]);
}

#[test]
fn a_mark_of_lost_writes_that_could_not_be_made_is_made_later() {
    for by_flush in [true, false] {
        let disk = SimulatedDisk::new(1);
        let open = || Overlay::open_in(Arc::new(disk.clone()), "7", 10 * BLOCK, compact_above);
        let overlay = open().unwrap();
        done(overlay.write(0, &[1; BLOCK as usize], &[]));
        // The sync of the data file fails, and so does making the mark.
        disk.fail_after(0, Fault::Io);
        let other = disk.clone();
        disk.interrupt_after(1, move || other.fail_after(0, Fault::Space));
        overlay.flush().unwrap_err();
        assert!(disk.open("7.lost").unwrap().is_none());
        if by_flush {
            overlay.flush().unwrap_err();
        } else {
            drop(overlay);
        }
        assert!(disk.open("7.lost").unwrap().is_some());
    }
}

#[test]
fn a_search_looks_at_no_more_than_it_needs() {
    let (_dir, overlay) = make(1000 * BLOCK);
    for block in (1..1000).step_by(2) {
        done(overlay.zero(block * BLOCK, BLOCK, ZERO, &[]));
    }
    let mut looks = 0;
    let found = overlay.find(10..u64::MAX, |part, kind| {
        looks += 1;
        (kind == ExtentKind::Zero).then(|| part.clone())
    });
    assert_eq!((found, looks), (Some(BLOCK..2 * BLOCK), 2));
    // It sees what a reader sees.
    let mut all = Vec::new();
    let end = overlay.find(0..u64::MAX, |part, kind| {
        all.push((part.clone(), kind));
        None::<()>
    });
    assert_eq!((end, all), (None, kinds(&overlay)));
    assert_eq!(overlay.find(1000 * BLOCK..u64::MAX, |_, _| Some(())), None);
}

#[test]
fn threads_that_write_zero_read_and_flush_see_whole_blocks_of_their_own() {
    const THREADS: u64 = 3;
    const BLOCKS: u64 = 40;
    let (dir, overlay) = make(THREADS * BLOCKS * BLOCK);
    let flushes = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let last: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let (overlay, flushes, stop) = (&overlay, &flushes, &stop);
        let flusher = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                overlay.flush().unwrap();
                flushes.fetch_add(1, Ordering::Relaxed);
            }
        });
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    // Blocks of the threads lie between each other.
                    let mut last = vec![0; BLOCKS as usize];
                    for round in 0..600_u64 {
                        let i = round * 17 % BLOCKS;
                        let offset = (i * THREADS + thread) * BLOCK;
                        let byte = (round % 255) as u8 + 1;
                        if round % 5 == 0 {
                            done(overlay.zero(offset, BLOCK, ZERO, &[]));
                            last[i as usize] = 0;
                        } else {
                            done(overlay.write(offset, &[byte; BLOCK as usize], &[]));
                            last[i as usize] = byte;
                        }
                        let mut bytes = vec![0; BLOCK as usize];
                        let extents = overlay.extents(offset..offset + BLOCK);
                        assert_eq!(extents.len(), 1);
                        if extents[0].kind == ExtentKind::Data {
                            overlay.read_data(offset, &mut bytes, false).unwrap();
                        }
                        assert!(bytes.iter().all(|&b| b == last[i as usize]));
                    }
                    last
                })
            })
            .collect();
        let last = writers.into_iter().map(|w| w.join().unwrap()).collect();
        stop.store(true, Ordering::Relaxed);
        flusher.join().unwrap();
        last
    });
    assert!(flushes.load(Ordering::Relaxed) > 0);
    overlay.flush().unwrap();
    drop(overlay);
    let overlay = Overlay::open(dir.path(), "7", THREADS * BLOCKS * BLOCK).unwrap();
    for (thread, last) in last.iter().enumerate() {
        for (i, &byte) in last.iter().enumerate() {
            let offset = (i as u64 * THREADS + thread as u64) * BLOCK;
            match overlay.extents(offset..offset + 1)[0].kind {
                ExtentKind::Data => assert_eq!(data(&overlay, offset..offset + 1), [byte]),
                kind => assert_eq!((kind, byte), (ExtentKind::Zero, 0)),
            }
        }
    }
}

#[test]
fn threads_that_write_parts_of_the_same_blocks_lose_nothing_of_each_other() {
    const THREADS: usize = 4;
    const PART: usize = 300;
    const LENGTH: usize = 16 * BLOCK as usize;
    let base: Vec<u8> = (0..LENGTH).map(|i| (i % 250) as u8 + 1).collect();
    for round in 0..20 {
        // Odd rounds begin with a short file, which grows under them.
        let length = if round % 2 == 0 { LENGTH } else { 5000 };
        let (_dir, overlay) = make(LENGTH as u64);
        overlay.set_len(length as u64).unwrap();
        let stripes = LENGTH / (THREADS * PART);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (overlay, base) = (&overlay, &base);
                scope.spawn(move || {
                    for stripe in 0..stripes {
                        let offset = ((stripe * THREADS + thread) * PART) as u64;
                        let data = [thread as u8 * 50 + 5; PART];
                        let fills = match overlay.write(offset, &data, &[]).unwrap() {
                            WriteOutcome::Done => continue,
                            WriteOutcome::NeedsBase(ranges) => ranges.into_iter().map(|r| Fill {
                                offset: r.start,
                                bytes: Bytes::copy_from_slice(
                                    &base[r.start as usize..r.end as usize],
                                ),
                            }),
                        };
                        let fills: Vec<_> = fills.collect();
                        done(overlay.write(offset, &data, &fills));
                    }
                });
            }
        });
        let end = stripes * THREADS * PART;
        let found = data(&overlay, 0..end as u64);
        for (part, bytes) in found.chunks(PART).enumerate() {
            let expected = (part % THREADS) as u8 * 50 + 5;
            assert!(
                bytes.iter().all(|b| *b == expected),
                "round {round}, part {part}"
            );
        }
        assert_eq!(overlay.len(), length.max(end) as u64);
    }
}
