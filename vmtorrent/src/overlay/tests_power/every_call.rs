//! Short histories, taken apart at each of their calls.

use super::*;

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
