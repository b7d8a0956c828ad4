//! `vmtorrent-sim`: simulates flash crowds, and tells and draws what came of them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use vmtorrent_sim::{Kind, Report, Scenario, plot, table};

/// Flash crowds in virtual time: the production engine in a simulated network.
#[derive(Debug, Parser)]
#[command(name = "vmtorrent-sim")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs one scenario, and prints its figures as one line of JSON.
    Run {
        /// What is special about it.
        #[arg(long, value_enum, default_value = "plain")]
        kind: Kind,
        /// Guests that arrive.
        #[arg(long, default_value_t = 10)]
        guests: u32,
        /// Seconds over which they arrive.
        #[arg(long, default_value_t = 60.0)]
        arrivals: f64,
        /// KiB of a piece.
        #[arg(long, default_value_t = 16)]
        piece: u32,
        /// Simulates the whole image, also what no guest reads: it takes more memory and time.
        #[arg(long)]
        whole_image: bool,
        /// Mbit/s of every line that is not special.
        #[arg(long, default_value_t = 100.0)]
        rate: f64,
        /// Connections of a guest at most.
        #[arg(long, default_value_t = 55)]
        connections: usize,
        /// Connections of the seed at most.
        #[arg(long, default_value_t = 200)]
        seed_connections: usize,
        /// Everything that is left to chance follows from it.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Threads; the outcome does not depend on it.
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// Tells on stderr how far the run is.
        #[arg(long)]
        progress: bool,
    },
    /// Prints files of such lines as a table in Markdown.
    Table {
        /// The files.
        files: Vec<PathBuf>,
    },
    /// Prints an SVG picture: slowdown and upload of the seed against the number of guests.
    Plot {
        /// The files.
        files: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    match carry_out(Args::parse().command) {
        Ok(text) => {
            #[expect(clippy::print_stdout, reason = "it is what the program is for")]
            {
                println!("{}", text.trim_end());
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("vmtorrent-sim: {why}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: Command) -> Result<String, String> {
    match command {
        Command::Run {
            kind,
            guests,
            arrivals,
            piece,
            whole_image,
            rate,
            connections,
            seed_connections,
            seed,
            threads,
            progress,
        } => {
            let bad = |what: &str| Err(format!("{what}: a positive number is expected"));
            if !(0.0..1e6).contains(&arrivals) {
                return bad("--arrivals");
            }
            if !(0.001..1e6).contains(&rate) {
                return bad("--rate");
            }
            let scenario = Scenario {
                arrivals: Duration::from_secs_f64(arrivals),
                piece_length: piece.saturating_mul(1024),
                whole_image,
                rate: rate * 125_000.0,
                connections: connections.max(2),
                seed_connections: seed_connections.max(1),
                ..Scenario::new(kind, guests, seed)
            };
            let report = Report::make(&scenario, threads, progress.then_some(tell))?;
            serde_json::to_string(&report).map_err(|e| e.to_string())
        }
        Command::Table { files } => Ok(table(&load(&files)?)),
        Command::Plot { files } => Ok(plot(&load(&files)?)),
    }
}

fn tell(seconds: f64, running: usize, to_come: u32, sent: f64) {
    eprintln!(
        "{seconds:.1} s: {running} guests run, {to_come} to come, the seed has sent {sent:.2} F"
    );
}

fn load(files: &[PathBuf]) -> Result<Vec<Report>, String> {
    let mut reports = Vec::new();
    for file in files {
        let shown = file.display();
        let text = std::fs::read_to_string(file).map_err(|e| format!("{shown}: {e}"))?;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            reports.push(serde_json::from_str(line).map_err(|e| format!("{shown}: {e}"))?);
        }
    }
    Ok(reports)
}
