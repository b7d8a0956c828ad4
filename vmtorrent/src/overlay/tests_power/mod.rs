//! The overlay against a plain array, on a disk that loses its power, fills up or fails at any call.
//!
//! Random histories find what nobody thought of; short ones are gone through completely: the power goes at each of
//! their calls, every part of what was not synced survives or does not, and it goes again at each call of the
//! recovery.

mod every_call;
mod faults;
mod pairs;
mod random;

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use proptest::prelude::*;
use vmtorrent_platform::ZeroMode;

use super::simulated_disk::{Fault, Pick, SECTOR, SimulatedDisk, Survival};
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
    FailAfter(u32, Fault),
}

fn change() -> impl Strategy<Value = Op> {
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
        4 => Just(Op::Flush),
    ]
}

static BASE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    (0..BASE_LENGTH)
        .map(|i| (i / 64) as u8 ^ i as u8 | 1)
        .collect()
});

/// From which length on the journal is replaced: with the first, by every other flush; with the last never.
const COMPACT_ABOVE: [fn(u64) -> u64; 3] = [|_| 150, |_| 400, |_| 1 << 20];

fn open(disk: &SimulatedDisk, compact_above: fn(u64) -> u64) -> Result<Overlay> {
    let disk = Arc::new(disk.clone());
    Overlay::open_in(disk, "0", BASE_LENGTH as u64, compact_above)
}

fn read_all(overlay: &Overlay) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut last = None;
    for Extent { range, kind } in overlay.extents(0..u64::MAX) {
        assert_eq!(range.start, bytes.len() as u64);
        assert_ne!(last, Some(kind));
        last = Some(kind);
        let length = (range.end - range.start) as usize;
        match kind {
            ExtentKind::Zero => bytes.resize(bytes.len() + length, 0),
            ExtentKind::Base => bytes.extend(&BASE[range.start as usize..range.end as usize]),
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
fn with_base(call: impl Fn(&[Fill]) -> Result<WriteOutcome>) -> Result<()> {
    match call(&[])? {
        WriteOutcome::Done => Ok(()),
        WriteOutcome::NeedsBase(ranges) => {
            assert!(!ranges.is_empty());
            let fills = ranges.into_iter().map(|range| Fill {
                offset: range.start,
                bytes: Bytes::copy_from_slice(&BASE[range.start as usize..range.end as usize]),
            });
            let fills: Vec<_> = fills.collect();
            assert_eq!(call(&fills)?, WriteOutcome::Done);
            Ok(())
        }
    }
}

fn run(overlay: &Overlay, op: &Op) -> Result<()> {
    match *op {
        Op::Write {
            offset,
            length,
            byte,
        } => with_base(|fill| overlay.write(offset, &vec![byte; length as usize], fill)),
        Op::Zero {
            offset,
            length,
            mode,
        } => with_base(|fill| overlay.zero(offset, length, mode, fill)),
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

type Checked = std::result::Result<(), TestCaseError>;

/// Runs changes and flushes until the power is gone, and gives everything that the file may be afterwards.
fn run_until_dark(ops: &[Op], disk: &SimulatedDisk, compact_above: fn(u64) -> u64) -> Vec<Vec<u8>> {
    let mut now = BASE.to_vec();
    let mut allowed = vec![now.clone()];
    let Ok(overlay) = open(disk, compact_above) else {
        return allowed;
    };
    for op in ops {
        let done = if let Op::Flush = op {
            let flushed = overlay.flush();
            if flushed.is_ok() {
                allowed.clear();
                allowed.push(now.clone());
            }
            flushed
        } else {
            now = apply(op, &now);
            allowed.push(now.clone());
            run(&overlay, op)
        };
        if done.is_err() {
            break;
        }
    }
    allowed
}

/// After a loss of power: what is there must be of `allowed`, stay, and nothing may come up behind its end.
fn check_recovered(
    disk: &SimulatedDisk,
    allowed: &[Vec<u8>],
    compact_above: fn(u64) -> u64,
) -> Checked {
    let overlay = open(disk, compact_above).unwrap();
    let mut found = read_all(&overlay);
    is_mixed_of(&found, allowed).map_err(TestCaseError::fail)?;
    found.resize(LONGEST as usize + 5000, 0);
    overlay.set_len(found.len() as u64).unwrap();
    prop_assert!(read_all(&overlay) == found, "the grown part");
    overlay.flush().unwrap();
    drop(overlay);
    disk.lose_power(Survival {
        data: Pick::Oldest,
        maps: Pick::Oldest,
        lengths: Pick::Oldest,
        names: Pick::Oldest,
    });
    let overlay = open(disk, compact_above).unwrap();
    prop_assert!(read_all(&overlay) == found, "after another loss");
    Ok(())
}

fn write(offset: u64, length: u64, byte: u8) -> Op {
    Op::Write {
        offset,
        length,
        byte,
    }
}

fn zero(offset: u64, length: u64) -> Op {
    let mode = ZeroMode::Zero { keep_size: true };
    Op::Zero {
        offset,
        length,
        mode,
    }
}

fn discard(offset: u64, length: u64) -> Op {
    let mode = ZeroMode::Discard;
    Op::Zero {
        offset,
        length,
        mode,
    }
}

/// Short histories, each about one thing that the overlay does.
fn histories() -> Vec<(&'static str, Vec<Op>)> {
    use Op::{Flush, SetLen};
    vec![
        ("a new block", vec![write(4096, 4096, 1), Flush]),
        (
            "written again in place",
            vec![write(0, 8192, 1), Flush, write(512, 5000, 2), Flush],
        ),
        (
            "a part of a block of the base",
            vec![
                write(100, 600, 1),
                Flush,
                write(5 * 4096 + 650, 40, 2),
                Flush,
            ],
        ),
        (
            "zeroed and written again",
            vec![
                write(0, 12_288, 1),
                Flush,
                zero(4096, 4096),
                write(5000, 100, 2),
                Flush,
            ],
        ),
        (
            "discarded with edges, then flushed",
            vec![write(0, 16_384, 1), Flush, discard(1000, 9000), Flush],
        ),
        (
            "discarded, not flushed, written anew",
            vec![
                write(0, 8192, 1),
                Flush,
                discard(0, 8192),
                write(4096, 4096, 2),
            ],
        ),
        (
            "cut inside a sector and grown",
            vec![
                write(0, 8192, 1),
                Flush,
                SetLen(4096 + 700),
                Flush,
                SetLen(8192),
                Flush,
            ],
        ),
        (
            "cut, not flushed, grown and written",
            vec![write(0, 8192, 1), Flush, SetLen(100), write(9000, 100, 2)],
        ),
        (
            "cut below the base and grown",
            vec![
                SetLen(5000),
                SetLen(12_000),
                Flush,
                write(11_000, 10, 1),
                Flush,
            ],
        ),
        (
            "grown by a write behind the end",
            vec![
                write(30_000, 700, 1),
                Flush,
                write(30_700, 5000, 2),
                write(35_700, 9, 3),
            ],
        ),
        (
            "grown by zeros",
            vec![
                Op::Zero {
                    offset: 20_000,
                    length: 9000,
                    mode: ZeroMode::Zero { keep_size: false },
                },
                Flush,
                write(28_990, 5, 1),
            ],
        ),
        (
            "flushed often enough for a snapshot",
            vec![
                write(0, 4096, 1),
                Flush,
                write(8192, 4096, 2),
                Flush,
                zero(0, 4096),
                Flush,
                write(16_384, 4096, 3),
                Flush,
                SetLen(9000),
                Flush,
            ],
        ),
    ]
}
