//! Random histories, and short ones that such histories led to.

use super::*;

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
