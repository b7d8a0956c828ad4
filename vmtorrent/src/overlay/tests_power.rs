//! The overlay against a plain array, on a disk that loses its power, fills up or fails at any call.
//!
//! Random histories find what nobody thought of; short ones are gone through completely: the power goes at each of
//! their calls, every part of what was not synced survives or does not, and it goes again at each call of the
//! recovery.

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

fn op() -> impl Strategy<Value = Op> {
    let fault = prop_oneof![Just(Fault::Space), Just(Fault::Io)];
    prop_oneof![
        14 => change(),
        1 => Just(Op::Kill),
        2 => Just(Op::PowerLoss),
        2 => (0..8_u32).prop_map(Op::PowerFor),
        3 => (0..8_u32, fault).prop_map(|(calls, fault)| Op::FailAfter(calls, fault)),
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

fn check(ops: &[Op], seed: u64) -> Checked {
    let compact_above = COMPACT_ABOVE[(seed % 3) as usize];
    let disk = SimulatedDisk::new(seed);
    let open = || open(&disk, compact_above);
    let mut overlay = open().unwrap();
    let mut now = BASE.to_vec();
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
            Op::FailAfter(calls, fault) => disk.fail_after(*calls, *fault),
            Op::PowerLoss => power_lost = true,
            Op::Kill => {
                drop(overlay);
                disk.calm();
                doomed = false;
                overlay = open().unwrap();
                now = read_all(&overlay);
                is_mixed_of(&now, &allowed).map_err(TestCaseError::fail)?;
                allowed.push(now.clone());
                continue;
            }
            Op::Flush => {
                let lost = overlay.lost_writes.load(Ordering::Relaxed);
                match overlay.flush() {
                    Ok(()) => {
                        prop_assert!(!lost, "acknowledged what the disk has lost");
                        allowed = vec![now.clone()];
                    }
                    Err(_) => power_lost = doomed,
                }
            }
            Op::Write { .. } | Op::Zero { .. } | Op::SetLen(_) => {
                let after = apply(op, &now);
                allowed.push(after.clone());
                match run(&overlay, op) {
                    Ok(()) => now = after,
                    Err(_) if doomed => power_lost = true,
                    Err(_) => {
                        let found = read_all(&overlay);
                        is_mixed_of(&found, &[now, after]).map_err(TestCaseError::fail)?;
                        now = found;
                        allowed.push(now.clone());
                    }
                }
            }
        }
        if power_lost {
            drop(overlay);
            disk.lose_power(Survival::RANDOM);
            // It may go away again while the overlay is opened.
            disk.power_for((seed % 7) as u32);
            if open().and_then(|o| o.flush()).is_err() {
                disk.lose_power(Survival::RANDOM);
            }
            disk.calm();
            doomed = false;
            overlay = open().unwrap();
            now = read_all(&overlay);
            is_mixed_of(&now, &allowed).map_err(TestCaseError::fail)?;
            allowed.push(now.clone());
        }
        prop_assert!(read_all(&overlay) == now, "after {:?}", op);
    }
    if doomed {
        return Ok(());
    }
    // Nothing is lost when the cause of an error is gone; where the disk lost something, by opening it anew.
    disk.calm();
    if overlay.lost_writes.load(Ordering::Relaxed) {
        prop_assert!(overlay.flush().is_err());
        drop(overlay);
        overlay = open().unwrap();
        now = read_all(&overlay);
        is_mixed_of(&now, &allowed).map_err(TestCaseError::fail)?;
    }
    if overlay.flush().is_err() {
        // The announced failure was still to come.
        overlay.flush().unwrap();
    }
    drop(overlay);
    disk.lose_power(Survival::RANDOM);
    let overlay = open().unwrap();
    prop_assert!(read_all(&overlay) == now);
    let counted: u64 = overlay
        .extents(0..u64::MAX)
        .iter()
        .filter(|e| e.kind == ExtentKind::Data)
        .map(|e| (e.range.end - e.range.start).div_ceil(4096))
        .sum();
    prop_assert_eq!(overlay.data_blocks(), counted);
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

/// After a kill, which leaves the page cache: what the next process sees and flushes must survive a loss of power.
fn check_killed(
    disk: &SimulatedDisk,
    allowed: &[Vec<u8>],
    survivals: &[Survival],
    compact_above: fn(u64) -> u64,
) -> std::result::Result<u32, TestCaseError> {
    let overlay = open(disk, compact_above).unwrap();
    let mut found = read_all(&overlay);
    is_mixed_of(&found, allowed).map_err(TestCaseError::fail)?;
    // Once with nothing new to record, once with something.
    for op in [None, Some(write(12_288, 4096, 99))] {
        if let Some(op) = op {
            run(&overlay, &op).unwrap();
            found = apply(&op, &found);
        }
        overlay.flush().unwrap();
        for (i, &survival) in survivals.iter().enumerate() {
            let disk = disk.copy(i as u64);
            disk.lose_power(survival);
            check_recovered(&disk, std::slice::from_ref(&found), compact_above)?;
        }
    }
    Ok(2 * survivals.len() as u32)
}

/// Takes the power away at each call of `ops`, with each of `survivals`, and again at each call of the recovery; and
/// kills the process there.
/// Gives the number of endings that were looked at.
fn check_every_call(
    ops: &[Op],
    survivals: &[Survival],
    again: &[Survival],
    compact_above: fn(u64) -> u64,
) -> std::result::Result<u32, TestCaseError> {
    let mut endings = 0;
    let whole = SimulatedDisk::new(0);
    run_until_dark(ops, &whole, compact_above);
    for call in 0..=whole.calls() {
        let dark = SimulatedDisk::new(u64::from(call));
        dark.power_for(call);
        let allowed = run_until_dark(ops, &dark, compact_above);
        let some = &survivals[..survivals.len().min(5)];
        endings += check_killed(&dark.copy(7), &allowed, some, compact_above)
            .map_err(|e| TestCaseError::fail(format!("killed at call {call}: {e}")))?;
        for (i, &survival) in survivals.iter().enumerate() {
            let seed = u64::from(call) * 1000 + i as u64;
            let failed = |again: Option<(u32, Survival)>| {
                move |e: TestCaseError| {
                    TestCaseError::fail(format!(
                        "power lost at call {call}, left {survival:?}, again {again:?}: {e}"
                    ))
                }
            };
            let disk = dark.copy(seed);
            disk.lose_power(survival);
            let calls = {
                let probe = disk.copy(seed);
                open(&probe, compact_above).unwrap().flush().unwrap();
                probe.calls()
            };
            // Not after each of the others too: it would take minutes.
            let recovery_calls = if i % 4 == 0 { calls } else { 0 };
            for recovery_call in 0..recovery_calls {
                let turn = (call + recovery_call) as usize % again.len();
                for &left in &again[turn..=turn] {
                    let disk = disk.copy(seed + u64::from(recovery_call));
                    disk.power_for(recovery_call);
                    assert!(open(&disk, compact_above).and_then(|o| o.flush()).is_err());
                    disk.lose_power(left);
                    check_recovered(&disk, &allowed, compact_above)
                        .map_err(failed(Some((recovery_call, left))))?;
                    endings += 1;
                }
            }
            check_recovered(&disk, &allowed, compact_above).map_err(failed(None))?;
            endings += 1;
        }
    }
    Ok(endings)
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

#[test]
fn the_power_may_go_at_every_call_and_again_at_every_call_of_the_recovery() {
    let mut survivals: Vec<_> = Survival::extremes().collect();
    let again = [survivals[0], Survival::RANDOM];
    // Nothing, all, and anything: their recoveries are taken apart too.
    survivals.swap(4, 15);
    survivals.extend([Survival::RANDOM; 5]);
    for (what, ops) in histories() {
        for compact_above in [COMPACT_ABOVE[0], COMPACT_ABOVE[2]] {
            let endings = check_every_call(&ops, &survivals, &again, compact_above)
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(endings > 200, "{what}: {endings}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_power_may_go_at_every_call_of_any_history(
        ops in proptest::collection::vec(change(), 1..9), compaction in 0..3_usize
    ) {
        let survivals = [Survival::RANDOM; 5];
        check_every_call(&ops, &survivals, &survivals[..1], COMPACT_ABOVE[compaction])?;
    }
}

#[test]
fn a_fault_at_any_call_is_told_and_loses_nothing_that_was_acknowledged() {
    for (what, ops) in histories() {
        for compact_above in COMPACT_ABOVE {
            let whole = SimulatedDisk::new(0);
            run_until_dark(&ops, &whole, compact_above);
            for call in 0..whole.calls() {
                for (fault, seed) in [
                    (Fault::Space, 0),
                    (Fault::Io, 0),
                    (Fault::Io, 1),
                    (Fault::Io, 2),
                ] {
                    check_fault(&ops, call, fault, seed, compact_above)
                        .unwrap_or_else(|e| panic!("{what}: {fault:?} at call {call}: {e}"));
                }
            }
        }
    }
}

fn check_fault(
    ops: &[Op],
    call: u32,
    fault: Fault,
    seed: u64,
    compact_above: fn(u64) -> u64,
) -> Checked {
    let disk = SimulatedDisk::new(seed * 1000 + u64::from(call));
    disk.fail_after(call, fault);
    let mut told = None;
    let mut note = |error: &Error| told = Some(error.errno());
    let mut overlay = match open(&disk, compact_above) {
        Ok(overlay) => overlay,
        Err(error) => {
            note(&error);
            open(&disk, compact_above).unwrap()
        }
    };
    let mut now = read_all(&overlay);
    let mut allowed = vec![now.clone()];
    for op in ops {
        let after = apply(op, &now);
        allowed.push(after.clone());
        let done = match op {
            Op::Flush => overlay.flush(),
            _ => run(&overlay, op),
        };
        match (op, done) {
            (Op::Flush, Ok(())) => allowed = vec![now.clone()],
            (Op::Flush, Err(error)) => note(&error),
            (_, Ok(())) => now = after,
            (_, Err(error)) => {
                note(&error);
                now = read_all(&overlay);
                let either = &allowed[allowed.len() - 2..];
                is_mixed_of(&now, either).map_err(TestCaseError::fail)?;
                allowed.push(now.clone());
            }
        }
        if overlay.lost_writes.load(Ordering::Relaxed) {
            prop_assert!(overlay.flush().is_err(), "a later sync is not believed");
        }
        prop_assert!(read_all(&overlay) == now);
    }
    let expected = match fault {
        Fault::Space => vmtorrent_platform::Errno::ENOSPC,
        Fault::Io => vmtorrent_platform::Errno::EIO,
    };
    prop_assert!(told == Some(expected) || told == Some(vmtorrent_platform::Errno::EIO));
    // The next process: by a kill, so that the page cache stays.
    drop(overlay);
    overlay = open(&disk, compact_above).unwrap();
    now = read_all(&overlay);
    is_mixed_of(&now, &allowed).map_err(TestCaseError::fail)?;
    overlay.flush().unwrap();
    drop(overlay);
    for survival in Survival::extremes() {
        let disk = disk.copy(seed);
        disk.lose_power(survival);
        let overlay = open(&disk, compact_above).unwrap();
        prop_assert!(read_all(&overlay) == now, "after a loss of power");
    }
    Ok(())
}

/// Pairs of which the second may happen while the first is under way: they touch different blocks, or one flushes.
fn pairs() -> Vec<(Op, Op)> {
    use Op::{Flush, SetLen};
    let changes = || {
        vec![
            write(4100, 600, 7),
            write(8192, 4096, 7),
            write(16_384, 100, 7),
            zero(0, 8192),
            discard(100, 5000),
            SetLen(5000),
            SetLen(40_000),
            write(30_000, 10, 7),
        ]
    };
    let mut pairs = Vec::new();
    for change in changes() {
        pairs.push((Flush, change.clone()));
        // Growing calls nothing of the disk that could be interrupted.
        if !matches!(change, SetLen(40_000)) {
            pairs.push((change, Flush));
        }
    }
    pairs.extend([
        (write(0, 4096, 8), write(4096, 4096, 9)),
        (write(8192, 100, 8), write(16_384, 4096, 9)),
        (zero(0, 4096), write(5000, 100, 9)),
        (SetLen(9000), write(100, 8000, 9)),
        (write(30_000, 10, 8), discard(0, 12_288)),
    ]);
    pairs
}

#[test]
fn a_change_or_a_flush_in_the_middle_of_another_keeps_the_promise() {
    // Lengths follow the content here: the extremes of both are in the other tests.
    let survivals: Vec<_> = Survival::extremes()
        .filter(|s| s.lengths == s.data)
        .chain([Survival::RANDOM; 2])
        .collect();
    for (outer, inner) in pairs() {
        let mut met = 0;
        for compact_above in [COMPACT_ABOVE[0], COMPACT_ABOVE[2]] {
            for at in 0..10 {
                for power in (0..9).map(Some).chain([None]) {
                    let survivals = match power {
                        Some(_) => &survivals[survivals.len() - 3..],
                        None => &survivals[..],
                    };
                    met += check_pair(&outer, &inner, at, power, survivals, compact_above)
                        .unwrap_or_else(|e| {
                            panic!("{inner:?} at moment {at} of {outer:?}, power {power:?}: {e}")
                        });
                }
            }
        }
        assert!(met > 0, "{inner:?} never met {outer:?}");
    }
}

/// Does `inner` at moment `at` of `outer` (a beginning or an end of one of its calls), with the power going after `power` calls. Gives 1 if they met.
fn check_pair(
    outer: &Op,
    inner: &Op,
    at: u32,
    power: Option<u32>,
    survivals: &[Survival],
    compact_above: fn(u64) -> u64,
) -> std::result::Result<u32, TestCaseError> {
    let disk = SimulatedDisk::new(u64::from(at));
    let overlay = Arc::new(open(&disk, compact_above).unwrap());
    // Something durable, and something that waits for a flush.
    let mut now = BASE.to_vec();
    for op in [
        write(0, 12_288, 1),
        Op::Flush,
        write(4096, 1024, 2),
        write(20_000, 300, 3),
    ] {
        match op {
            Op::Flush => overlay.flush().unwrap(),
            _ => {
                run(&overlay, &op).unwrap();
                now = apply(&op, &now);
            }
        }
    }
    let durable = apply(&write(0, 12_288, 1), &BASE);
    // Both in either order; they do not depend on each other.
    let with_outer = apply(outer, &now);
    let with_inner = apply(inner, &now);
    let with_both = apply(inner, &with_outer);
    let halves = apply(&write(4096, 1024, 2), &durable);
    let mut allowed = vec![durable, halves, now.clone()];

    let acknowledged = Arc::new(AtomicU32::new(0));
    let failed = Arc::new(AtomicBool::new(false));
    let act = |overlay: &Overlay, op: &Op, acknowledged: &AtomicU32, failed: &AtomicBool| {
        let done = match op {
            Op::Flush => overlay.flush(),
            _ => run(overlay, op),
        };
        match done {
            Ok(()) if matches!(op, Op::Flush) => {
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(()) => {}
            Err(_) => failed.store(true, Ordering::Relaxed),
        }
    };
    {
        let (overlay, inner) = (overlay.clone(), inner.clone());
        let (acknowledged, failed) = (acknowledged.clone(), failed.clone());
        disk.interrupt_after(at, move || act(&overlay, &inner, &acknowledged, &failed));
    }
    if let Some(power) = power {
        disk.power_for(power);
    }
    act(&overlay, outer, &acknowledged, &failed);
    let met = !disk.is_interruption_due();
    if power.is_none() {
        disk.calm();
    }
    if acknowledged.load(Ordering::Relaxed) > 0 {
        allowed = vec![now];
    }
    allowed.push(with_outer.clone());
    if met {
        allowed.extend([with_inner, with_both.clone()]);
    }
    let done = !failed.load(Ordering::Relaxed);
    let last = if met { with_both } else { with_outer };
    if done {
        prop_assert!(read_all(&overlay) == last);
    }
    let flushed = done && power.is_none() && {
        let disk = disk.copy(1);
        for &survival in survivals {
            let disk = disk.copy(2);
            disk.lose_power(survival);
            check_recovered(&disk, &allowed, compact_above)?;
        }
        overlay.flush().is_ok()
    };
    if flushed {
        allowed = vec![last];
    }
    drop(overlay);
    for &survival in survivals {
        let disk = disk.copy(3);
        disk.lose_power(survival);
        check_recovered(&disk, &allowed, compact_above)?;
    }
    Ok(u32::from(met))
}

#[test]
fn a_change_holds_up_changes_of_its_own_blocks_only() {
    let nobody = COMPACT_ABOVE[2];
    for slow in [
        discard(0, 16_384),
        write(100, 16_000, 1),
        write(0, 16_384, 1),
    ] {
        let disk = SimulatedDisk::new(1);
        let overlay = Arc::new(open(&disk, nobody).unwrap());
        run(&overlay, &write(0, BASE_LENGTH as u64, 7)).unwrap();
        let met = Arc::new(AtomicBool::new(false));
        let (other, seen) = (overlay.clone(), met.clone());
        disk.interrupt_after(0, move || {
            let try_write = |offset| other.try_write(offset, &[9; 512], &[]).unwrap();
            for own in [0, 5000, 15_872] {
                assert_eq!(try_write(own), None);
            }
            assert_eq!(try_write(16_384), Some(WriteOutcome::Done));
            // A reader waits for nobody.
            assert!(!other.extents(0..16_384).is_empty());
            seen.store(true, Ordering::Relaxed);
        });
        run(&overlay, &slow).unwrap();
        assert!(met.load(Ordering::Relaxed), "{slow:?}");
        let free = overlay.try_write(5000, &[9; 512], &[]).unwrap();
        assert_ne!(free, None);
    }
}

#[test]
fn a_change_that_moves_the_end_holds_all_blocks_from_there_on() {
    for mover in [
        write(30_000, 10, 1),
        Op::SetLen(17_000),
        Op::Zero {
            offset: 20_000,
            length: 9000,
            mode: ZeroMode::Zero { keep_size: false },
        },
    ] {
        let disk = SimulatedDisk::new(1);
        let overlay = Arc::new(open(&disk, COMPACT_ABOVE[2]).unwrap());
        run(&overlay, &write(0, BASE_LENGTH as u64, 7)).unwrap();
        let met = Arc::new(AtomicBool::new(false));
        let (other, seen) = (overlay.clone(), met.clone());
        disk.interrupt_after(0, move || {
            let try_write = |offset| other.try_write(offset, &[9; 10], &[]).unwrap();
            for behind in [20_490, BASE_LENGTH as u64, 50_000] {
                assert_eq!(try_write(behind), None);
            }
            assert_eq!(try_write(100), Some(WriteOutcome::Done));
            seen.store(true, Ordering::Relaxed);
        });
        run(&overlay, &mover).unwrap();
        assert!(met.load(Ordering::Relaxed), "{mover:?}");
    }
}

#[test]
fn a_cut_that_a_kill_took_back_leaves_no_file_that_ends_inside_a_sector() {
    for seed in 0..50 {
        let ops = [
            write(0, 8192, 1),
            Op::Flush,
            Op::SetLen(0),
            Op::Kill,
            write(6656, 513, 2),
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
            write(0, 100, 1),
            Op::Flush,
            write(100, 400, 2),
            Op::PowerLoss,
            Op::SetLen(600),
            Op::Flush,
            Op::PowerLoss,
        ];
        check(&ops, seed).unwrap();
    }
}
