//! What is told of runs. Invariant: each figure stands beside the scenario that it is of.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::outcome::{Figures, Spread};
use crate::scenario::{Kind, Scenario};
use crate::{Progress, alone, run};

/// A run, its figures, and what it cost.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// What is special about it.
    pub kind: Kind,
    /// Guests that arrived.
    pub guests: u32,
    /// Everything that was left to chance follows from it.
    pub seed: u64,
    /// Bytes of a piece.
    pub piece_length: u32,
    /// Whether the image had all of what no guest reads.
    pub whole_image: bool,
    /// Connections of the seed at most.
    pub seed_connections: usize,
    /// Seconds over which the guests arrived.
    pub arrivals: f64,
    /// Bytes that one guest needs: F.
    pub needed: u64,
    /// What came of it.
    pub figures: Figures,
    /// Seconds that the simulation took, without the guests alone.
    pub wall_seconds: f64,
    /// The most memory that the process had, bytes; none where the system does not tell.
    pub peak_memory: Option<u64>,
}

impl Report {
    /// Runs a scenario, and a guest alone beside it.
    ///
    /// # Errors
    /// Those of [`run`].
    pub fn make(
        scenario: &Scenario,
        threads: usize,
        progress: Option<Progress>,
    ) -> Result<Self, String> {
        let alone = alone(scenario)?;
        let began = std::time::Instant::now();
        let outcome = run(scenario, threads, progress)?;
        let wall_seconds = began.elapsed().as_secs_f64();
        let rates: Vec<(f64, f64)> = scenario
            .lines()
            .iter()
            .map(|(_, up, down)| (*up, *down))
            .collect();
        Ok(Self {
            kind: scenario.kind,
            guests: scenario.guests,
            seed: scenario.seed,
            piece_length: scenario.piece_length,
            whole_image: scenario.whole_image,
            seed_connections: scenario.seed_connections,
            arrivals: scenario.arrivals.as_secs_f64(),
            needed: outcome.needed,
            figures: outcome.figures(&alone, &rates),
            wall_seconds,
            peak_memory: peak_memory(),
        })
    }
}

/// From what Linux tells of this process.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// A table in Markdown.
pub fn table(reports: &[Report]) -> String {
    let mut out = String::from(
        "| scenario | guests | seed's places | alone, s | slowdown p50 | p95 | slowest | seed upload, F | fetched, F | in vain, F | bound, s \
         | simulated in | memory |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for report in reports {
        let figures = &report.figures;
        let alone: Vec<String> = figures.alone.iter().map(|s| format!("{s:.1}")).collect();
        let Spread { p50, p95, max } = figures.slowdown;
        let memory = report.peak_memory.map_or("-".to_owned(), |b| {
            format!("{:.2} GiB", b as f64 / (1_u64 << 30) as f64)
        });
        let _ = writeln!(
            out,
            "| {}{} | {} | {} | {} | {p50:.2} | {p95:.2} | {max:.2} | {:.2} | {:.2} | {:.3} | {:.1} | {:.0} s | {memory} |",
            name(report.kind),
            if figures.unfinished > 0 {
                format!(" ({} never done)", figures.unfinished)
            } else {
                String::new()
            },
            report.guests,
            report.seed_connections,
            alone.join(", "),
            figures.seed_upload,
            figures.fetched,
            figures.wasted,
            figures.bound,
            report.wall_seconds,
        );
        if let Some(Spread { p50, p95, max }) = figures.free_riders {
            let _ = writeln!(
                out,
                "| - the free-riders | | | | {p50:.2} | {p95:.2} | {max:.2} | | | | | | |"
            );
        }
    }
    out
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Plain => "flash crowd",
        Kind::Unequal => "unequal lines",
        Kind::Churn => "churn",
        Kind::SeedLoss => "loss of the seed",
        Kind::FreeRiders => "20 % free-riders",
        Kind::SlowSeed => "slow seed",
        Kind::WrongProfile => "wrong profile",
        Kind::NoProfile => "no profile",
    }
}
