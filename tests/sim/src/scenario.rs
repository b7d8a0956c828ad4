//! What is simulated. Invariant: a scenario is all that a run depends on.

use std::time::Duration;

use clap::ValueEnum;
use rand::RngExt;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use vmtorrent::Fill;

use crate::node::Line;

/// What is special about a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing: guests with the right profile, all lines alike.
    Plain,
    /// Lines of three kinds: 1000/1000, 100/40 and 50/10 Mbit/s down and up, a fifth, half, and the rest.
    Unequal,
    /// A twentieth of the hosts vanish before their guest is done; those that are done stay a minute in the mean.
    Churn,
    /// The seed vanishes half-way through the arrivals.
    SeedLoss,
    /// A fifth of the hosts let nobody request.
    FreeRiders,
    /// The seed has a tenth of the uplink of a guest.
    SlowSeed,
    /// All guests have a profile of other work.
    WrongProfile,
    /// No guest has a profile.
    NoProfile,
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct Scenario {
    /// What is special about it.
    pub kind: Kind,
    /// Guests that arrive.
    pub guests: u32,
    /// The time over which they arrive.
    pub arrivals: Duration,
    /// Bytes of a piece.
    pub piece_length: u32,
    /// Whether the image has all of what no guest reads, or little of it.
    pub whole_image: bool,
    /// Bytes per second of every line that is not special, either way.
    pub rate: f64,
    /// Least and greatest delay of a host's line, one way.
    pub delay: (Duration, Duration),
    /// Connections of a guest at most.
    pub connections: usize,
    /// Connections of the seed at most.
    pub seed_connections: usize,
    /// Everything that is left to chance follows from it.
    pub seed: u64,
    /// Virtual time after which a run is given up.
    pub limit: Duration,
}

/// Bytes per second.
const MBIT: f64 = 125_000.0;

impl Scenario {
    /// A run with the usual lines: 100 Mbit/s, round trips of 10 to 30 ms.
    pub fn new(kind: Kind, guests: u32, seed: u64) -> Self {
        Self {
            kind,
            guests,
            arrivals: Duration::from_secs(60),
            piece_length: 16 << 10,
            whole_image: false,
            rate: 100.0 * MBIT,
            delay: (Duration::from_micros(2500), Duration::from_micros(7500)),
            connections: 55,
            seed_connections: 200,
            seed,
            limit: Duration::from_secs(900),
        }
    }

    /// What is fetched that nobody asked for: nothing.
    pub const FILL: Fill = Fill::None;

    /// The shortest time from one host to another.
    pub fn least_delay(&self) -> Duration {
        self.delay.0 * 2
    }

    /// The seed's line.
    pub fn seed_line(&self) -> Line {
        let up = match self.kind {
            Kind::SlowSeed => self.rate / 10.0,
            _ => self.rate,
        };
        Line {
            up,
            down: self.rate,
            delay: (self.delay.0 + self.delay.1) / 2,
        }
    }

    /// The lines that a guest may have, with the share of the guests that have it.
    pub fn lines(&self) -> Vec<(f64, f64, f64)> {
        match self.kind {
            Kind::Unequal => vec![
                (0.2, 1000.0 * MBIT, 1000.0 * MBIT),
                (0.5, 40.0 * MBIT, 100.0 * MBIT),
                (0.3, 10.0 * MBIT, 50.0 * MBIT),
            ],
            _ => vec![(1.0, self.rate, self.rate)],
        }
    }

    /// A guest's line, and which of [`lines`](Self::lines) it is.
    pub fn line(&self, rng: &mut StdRng) -> (usize, Line) {
        let mut place = rng.random_range(0.0..1.0);
        let (least, greatest) = self.delay;
        let delay = least + (greatest - least).mul_f64(rng.random_range(0.0..1.0));
        let lines = self.lines();
        let class = lines.iter().position(|(share, ..)| {
            place -= share;
            place < 0.0
        });
        let class = class.unwrap_or(lines.len() - 1);
        let (_, up, down) = lines[class];
        (class, Line { up, down, delay })
    }

    /// When the seed vanishes.
    pub fn seed_leaves(&self) -> Option<Duration> {
        (self.kind == Kind::SeedLoss).then_some(self.arrivals / 2)
    }
}

impl Line {
    /// One of the guests' lines with a delay in the middle, for a guest alone.
    pub fn alone(scenario: &Scenario, class: usize) -> Self {
        let (_, up, down) = scenario.lines()[class];
        Self {
            up,
            down,
            delay: (scenario.delay.0 + scenario.delay.1) / 2,
        }
    }
}
