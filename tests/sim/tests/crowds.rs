//! Small crowds: what docs/scaling.md says of large ones holds for them too, in seconds.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::time::Duration;

use vmtorrent_sim::{Figures, Kind, Outcome, Scenario, alone, run};

fn scenario(kind: Kind) -> Scenario {
    Scenario {
        arrivals: Duration::from_secs(5),
        ..Scenario::new(kind, 10, 1)
    }
}

fn figures(scenario: &Scenario) -> (Outcome, Figures) {
    let outcome = run(scenario, 2, None).unwrap();
    let rates: Vec<_> = scenario.lines().iter().map(|l| (l.1, l.2)).collect();
    let figures = outcome.figures(&alone(scenario).unwrap(), &rates);
    assert_eq!(figures.unfinished, 0);
    (outcome, figures)
}

#[test]
fn ten_guests_cost_each_hardly_more_than_one_and_the_seed_far_less_than_ten() {
    let (outcome, figures) = figures(&scenario(Kind::Plain));
    assert!(figures.slowdown.max <= 1.25, "{figures:?}");
    assert!(figures.seed_upload <= 4.0, "{figures:?}");
    // Nobody is faster than its reads, and nobody has less than it needs.
    for guest in &outcome.guests {
        assert!(guest.took.unwrap() > outcome.guest_time * 0.9, "{guest:?}");
        assert!(
            guest.fetched.iter().sum::<u64>() >= outcome.needed,
            "{guest:?}"
        );
    }
    let sent: u64 = outcome.guests.iter().map(|g| g.uploaded).sum();
    let came: u64 = outcome
        .guests
        .iter()
        .map(|g| g.fetched.iter().sum::<u64>() + g.wasted)
        .sum();
    assert!(
        sent + outcome.seed_uploaded >= came,
        "bytes come from somewhere"
    );
}

#[test]
fn the_same_seed_gives_the_same_run_on_any_number_of_threads_and_another_does_not() {
    let scenario = scenario(Kind::Churn);
    let once = run(&scenario, 1, None).unwrap();
    for threads in [1, 2, 3] {
        assert!(
            run(&scenario, threads, None).unwrap() == once,
            "{threads} threads"
        );
    }
    let other = Scenario {
        seed: 2,
        ..scenario
    };
    assert!(run(&other, 2, None).unwrap() != once);
}

#[test]
fn a_crowd_outlives_its_seed() {
    let scenario = Scenario {
        arrivals: Duration::from_secs(60),
        ..scenario(Kind::SeedLoss)
    };
    let (_, figures) = figures(&scenario);
    assert!(figures.slowdown.max <= 1.5, "{figures:?}");
}
