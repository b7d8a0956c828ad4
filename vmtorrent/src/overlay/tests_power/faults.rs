//! A call that fails: it is told, and what was acknowledged stays.

use super::*;

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
