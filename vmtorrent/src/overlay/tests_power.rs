//! The overlay against a plain array, on a disk that fills up and loses its power at any call.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use vmtorrent_platform::ZeroMode;

use super::simulated_disk::{SECTOR, SimulatedDisk};
use super::*;

/// Five blocks and a part: not a whole number of sectors either.
const BASE_LENGTH: usize = 5 * 4096 + 700;
const LONGEST: u64 = 10 * 4096;

#[derive(Clone, Debug)]
enum Op {
    Write {
        offset: u64,
        length: u64,
        byte: u8,
    },
    Zero {
        offset: u64,
        length: u64,
        mode: ZeroMode,
    },
    SetLen(u64),
    Flush,
    /// The process is killed; the page cache stays.
    Kill,
    /// The power goes at once.
    PowerLoss,
    /// The power goes some changing calls later, inside whatever is going on.
    PowerFor(u32),
    /// One call fails some changing calls later.
    SpaceFor(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let offset = prop_oneof![
        0..LONGEST,
        (0..9_u64).prop_map(|b| b * 4096),
        (0..70_u64).prop_map(|s| s * 512)
    ];
    let length = prop_oneof![
        1..600_u64,
        1..9000_u64,
        (1..3_u64).prop_map(|b| b * 4096),
        Just(512)
    ];
    let mode = prop_oneof![
        Just(ZeroMode::Discard),
        any::<bool>().prop_map(|keep_size| ZeroMode::Zero { keep_size })
    ];
    prop_oneof![
        6 => (offset.clone(), length.clone(), 1..=255_u8)
            .prop_map(|(offset, length, byte)| Op::Write { offset, length, byte }),
        3 => (offset.clone(), length, mode)
            .prop_map(|(offset, length, mode)| Op::Zero { offset, length, mode }),
        2 => offset.prop_map(Op::SetLen),
        3 => Just(Op::Flush),
        1 => Just(Op::Kill),
        2 => Just(Op::PowerLoss),
        2 => (0..8_u32).prop_map(Op::PowerFor),
        2 => (0..8_u32).prop_map(Op::SpaceFor),
    ]
}

fn base() -> Vec<u8> {
    (0..BASE_LENGTH)
        .map(|i| (i / 64) as u8 ^ i as u8 | 1)
        .collect()
}

fn open(disk: &SimulatedDisk) -> Result<Overlay> {
    // With the shortest limit every other flush replaces the journal.
    let compact_above = [|_| 150, |_| 400][usize::from(disk.seed().is_multiple_of(2))];
    let disk = Arc::new(disk.clone());
    Overlay::open_in(disk, "0", BASE_LENGTH as u64, compact_above)
}

fn read_all(overlay: &Overlay, base: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut last = None;
    for Extent { range, kind } in overlay.extents(0..u64::MAX) {
        assert_eq!(range.start, bytes.len() as u64);
        assert_ne!(last, Some(kind));
        last = Some(kind);
        let length = (range.end - range.start) as usize;
        match kind {
            ExtentKind::Zero => bytes.resize(bytes.len() + length, 0),
            ExtentKind::Base => bytes.extend(&base[range.start as usize..range.end as usize]),
            ExtentKind::Data => {
                let mut buffer = vec![0xEE; length];
                assert!(overlay.read_data(range.start, &mut buffer, false).unwrap());
                bytes.extend(buffer);
            }
        }
    }
    assert_eq!(bytes.len() as u64, overlay.len());
    bytes
}

/// Does what a caller does: gives the base data that is asked for, once.
fn with_base(base: &[u8], call: impl Fn(&[Fill]) -> Result<WriteOutcome>) -> Result<()> {
    match call(&[])? {
        WriteOutcome::Done => Ok(()),
        WriteOutcome::NeedsBase(ranges) => {
            assert!(!ranges.is_empty());
            let fills = ranges.into_iter().map(|range| Fill {
                offset: range.start,
                bytes: Bytes::copy_from_slice(&base[range.start as usize..range.end as usize]),
            });
            let fills: Vec<_> = fills.collect();
            assert_eq!(call(&fills)?, WriteOutcome::Done);
            Ok(())
        }
    }
}

fn run(overlay: &Overlay, base: &[u8], op: &Op) -> Result<()> {
    match *op {
        Op::Write {
            offset,
            length,
            byte,
        } => with_base(base, |fill| {
            overlay.write(offset, &vec![byte; length as usize], fill)
        }),
        Op::Zero {
            offset,
            length,
            mode,
        } => with_base(base, |fill| overlay.zero(offset, length, mode, fill)),
        Op::SetLen(length) => overlay.set_len(length),
        _ => Ok(()),
    }
}

/// What `op` makes of the content.
fn apply(op: &Op, content: &[u8]) -> Vec<u8> {
    let mut after = content.to_vec();
    match *op {
        Op::Write {
            offset,
            length,
            byte,
        } => {
            let end = (offset + length) as usize;
            after.resize(after.len().max(end), 0);
            after[offset as usize..end].fill(byte);
        }
        Op::Zero {
            offset,
            length,
            mode,
        } => {
            let end = (offset + length) as usize;
            if mode == (ZeroMode::Zero { keep_size: false }) {
                after.resize(after.len().max(end), 0);
            }
            let end = end.min(after.len());
            after[(offset as usize).min(end)..end].fill(0);
        }
        Op::SetLen(length) => after.resize(length as usize, 0),
        _ => {}
    }
    after
}

/// Whether each sector of `found`, and its length, is that of one of `allowed`; zeros lie behind the end.
fn is_mixed_of(found: &[u8], allowed: &[Vec<u8>]) -> std::result::Result<(), String> {
    if !allowed.iter().any(|a| a.len() == found.len()) {
        return Err(format!("the length is {}", found.len()));
    }
    for (index, sector) in found.chunks(SECTOR).enumerate() {
        let start = index * SECTOR;
        let matches = |content: &Vec<u8>| {
            (0..sector.len()).all(|i| sector[i] == content.get(start + i).copied().unwrap_or(0))
        };
        if !allowed.iter().any(matches) {
            return Err(format!(
                "sector {index} is {:?}",
                &sector[..8.min(sector.len())]
            ));
        }
    }
    Ok(())
}

fn check(ops: &[Op], seed: u64) -> std::result::Result<(), TestCaseError> {
    let base = base();
    let disk = SimulatedDisk::new(seed);
    let mut overlay = open(&disk).unwrap();
    let mut now = base.clone();
    // Everything that the file was since the last acknowledged flush.
    let mut allowed = vec![now.clone()];
    let mut doomed = false;
    for op in ops {
        let mut power_lost = false;
        match op {
            Op::PowerFor(calls) => {
                disk.power_for(*calls);
                doomed = true;
            }
            Op::SpaceFor(calls) => disk.space_for(*calls),
            Op::PowerLoss => power_lost = true,
            Op::Kill => {
                drop(overlay);
                disk.calm();
                doomed = false;
                overlay = open(&disk).unwrap();
                now = read_all(&overlay, &base);
                is_mixed_of(&now, &allowed).map_err(TestCaseError::fail)?;
                allowed.push(now.clone());
                continue;
            }
            Op::Flush => match overlay.flush() {
                Ok(()) => allowed = vec![now.clone()],
                Err(_) => power_lost = doomed,
            },
            Op::Write { .. } | Op::Zero { .. } | Op::SetLen(_) => {
                let after = apply(op, &now);
                allowed.push(after.clone());
                match run(&overlay, &base, op) {
                    Ok(()) => now = after,
                    Err(_) if doomed => power_lost = true,
                    Err(_) => {
                        let found = read_all(&overlay, &base);
                        is_mixed_of(&found, &[now, after]).map_err(TestCaseError::fail)?;
                        now = found;
                        allowed.push(now.clone());
                    }
                }
            }
        }
        if power_lost {
            drop(overlay);
            disk.lose_power();
            // It may go away again while the overlay is opened.
            disk.power_for((seed % 7) as u32);
            if open(&disk).and_then(|o| o.flush()).is_err() {
                disk.lose_power();
            }
            disk.calm();
            doomed = false;
            overlay = open(&disk).unwrap();
            now = read_all(&overlay, &base);
            is_mixed_of(&now, &allowed).map_err(TestCaseError::fail)?;
            allowed.push(now.clone());
        }
        prop_assert!(read_all(&overlay, &base) == now, "after {:?}", op);
    }
    // Nothing is lost when the cause of an error is gone.
    if !doomed {
        disk.calm();
        overlay.flush().unwrap();
        drop(overlay);
        disk.lose_power();
        let overlay = open(&disk).unwrap();
        prop_assert!(read_all(&overlay, &base) == now);
        let counted: u64 = overlay
            .extents(0..u64::MAX)
            .iter()
            .filter(|e| e.kind == ExtentKind::Data)
            .map(|e| (e.range.end - e.range.start).div_ceil(4096))
            .sum();
        prop_assert_eq!(overlay.data_blocks(), counted);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn flushed_data_survives_and_the_rest_is_old_or_new(
        ops in proptest::collection::vec(op(), 1..40), seed in any::<u64>()
    ) {
        check(&ops, seed)?;
    }
}

#[test]
fn a_cut_that_a_kill_took_back_leaves_no_file_that_ends_inside_a_sector() {
    for seed in 0..50 {
        let ops = [
            Op::Write {
                offset: 0,
                length: 8192,
                byte: 1,
            },
            Op::Flush,
            Op::SetLen(0),
            Op::Kill,
            Op::Write {
                offset: 6656,
                length: 513,
                byte: 2,
            },
            Op::PowerLoss,
        ];
        check(&ops, seed).unwrap();
    }
}

#[test]
fn an_unflushed_tail_does_not_show_when_the_file_grows_after_a_power_loss() {
    for seed in 0..50 {
        let ops = [
            Op::SetLen(100),
            Op::Write {
                offset: 0,
                length: 100,
                byte: 1,
            },
            Op::Flush,
            Op::Write {
                offset: 100,
                length: 400,
                byte: 2,
            },
            Op::PowerLoss,
            Op::SetLen(600),
            Op::Flush,
            Op::PowerLoss,
        ];
        check(&ops, seed).unwrap();
    }
}
