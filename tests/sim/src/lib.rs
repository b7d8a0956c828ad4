//! Flash crowds in virtual time: the production engine (picker, uploader, profiles) in a simulated network.
//!
//! Invariant: a run depends on its scenario and its seed, and on nothing else: neither on a clock nor on the number of
//! threads.

mod crowd;
mod events;
mod guest;
mod link;
mod mail;
mod moment;
mod node;
mod outcome;
mod plot;
mod report;
mod scenario;
mod trace;
mod world;

pub use outcome::{Figures, GuestOutcome, Outcome, Spread, fluid_bound};
pub use plot::plot;
pub use report::{Report, table};
pub use scenario::{Kind, Scenario};

use crowd::Crowd;
pub use crowd::Progress;

/// Runs a scenario on so many threads, and tells how far it is to whoever wants to know.
///
/// # Errors
/// A piece length that no image can have.
pub fn run(
    scenario: &Scenario,
    threads: usize,
    progress: Option<Progress>,
) -> Result<Outcome, String> {
    let mut crowd = Crowd::new(scenario.clone())?.telling(progress);
    Ok(world::run(&mut crowd, threads))
}

/// Seconds that a guest takes that is alone with the seed, on each kind of line of the scenario.
///
/// # Errors
/// As [`run`], and when it never ends.
pub fn alone(scenario: &Scenario) -> Result<Vec<f64>, String> {
    (0..scenario.lines().len())
        .map(|class| {
            let outcome = world::run(&mut Crowd::alone(scenario, class)?, 1);
            let took = outcome.guests.first().and_then(|guest| guest.took);
            took.ok_or_else(|| "a guest alone is never done".to_owned())
        })
        .collect()
}
