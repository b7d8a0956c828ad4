//! Two calls at once: which hold each other up, and what the power leaves of both.

use super::*;

/// Pairs of which the second may happen while the first is under way: they touch different blocks, or one flushes.
fn pairs() -> Vec<(Op, Op)> {
    use Op::{Flush, SetLen};
    let changes = || {
        vec![
            write(4100, 600, 7),
            write(8192, 4096, 7),
            // Of blocks that were not written before.
            write(12_288, 4096, 7),
            write(13_000, 50, 7),
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

/// Does `inner` at moment `at` of `outer` (a beginning or an end of one of its calls), with the power going after
/// `power` calls. Gives 1 if they met.
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
