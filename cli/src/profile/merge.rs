//! Invariant: the output is written only when all inputs were read and fit.

use std::process::ExitCode;

use vmtorrent::profile::{Mismatch, Profile};

use super::MergeArgs;
use crate::failure::Failure;
use crate::output::{LiveLine, Output};
use vmtorrent::text::{Plain, grouped};

/// Merges profiles into one.
pub fn run(args: &MergeArgs, line: LiveLine) -> Result<ExitCode, Failure> {
    let output = Output::new(false, false, line);
    let (first, others) = args
        .profiles
        .split_first()
        .ok_or_else(|| Failure::new("no profile to merge: name at least one"))?;
    let mut sum = Profile::load(first)?;
    let mut reports = Vec::new();
    for path in others {
        let other = Profile::load(path)?;
        if args.force && other.info_hash() != sum.info_hash() {
            let found = sum.merge_by_force(&other);
            reports.push(report(&path.display().to_string(), &other, &found));
        } else {
            sum.merge(&other).map_err(|error| {
                Failure::new(format!(
                    "cannot merge {} into {}: {error} (--force)",
                    path.display(),
                    first.display()
                ))
            })?;
        }
    }
    sum.save(&args.output)?;
    for report in reports {
        output.say(report);
    }
    output.say(format_args!(
        "{}: {} runs, {} blocks of {} ({})",
        args.output.display(),
        sum.runs(),
        grouped(sum.block_count() as u64),
        Plain(sum.name()),
        sum.info_hash()
    ));
    Ok(ExitCode::SUCCESS)
}

/// How far a profile of another image fitted.
fn report(path: &str, other: &Profile, found: &Mismatch) -> String {
    let rows = [
        (found.same, "match by their content: merged"),
        (
            found.different,
            "differ in their content, or it is not known: left out",
        ),
        (found.unknown, "are known to this profile alone: taken over"),
        (
            found.elsewhere,
            "lie in files that the first image does not have: left out",
        ),
    ];
    let mut text = format!(
        "{path} is of another image, {} ({}). Of its blocks",
        Plain(other.name()),
        other.info_hash()
    );
    for (blocks, what) in rows {
        text.push_str(&format!("\n  {:>9} {what}", grouped(blocks)));
    }
    text
}
