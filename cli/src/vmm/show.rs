//! `vmtorrent vmm show`.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use vmtorrent::vmm::{Argv, ConsoleSource, Plan, Presets, Step, Values};

use super::{ShowArgs, tell};
use crate::failure::Failure;
use crate::output::json_path;

/// Length of the disk of which nothing is there, bytes.
const EXAMPLE: u64 = 1 << 30;

/// What would run, as `--json` tells it; command lines are lists of words.
#[derive(Serialize)]
struct Shown {
    name: String,
    manual: Option<String>,
    /// The file that defines it; null for a built-in one.
    origin: Option<String>,
    directories: Vec<String>,
    files: Vec<File>,
    setup: Vec<Setup>,
    run: Vec<String>,
    stop: Option<Vec<String>>,
    grace_secs: u64,
    /// Everything that runs at the end, in order.
    teardown: Vec<Vec<String>>,
    /// `none`, `stdio`, or the path of a file.
    console: String,
}

#[derive(Serialize)]
struct File {
    path: String,
    text: String,
}

#[derive(Serialize)]
struct Setup {
    argv: Vec<String>,
    undo: Vec<Vec<String>>,
}

/// Prints what a VMM would run.
pub fn run(args: &ShowArgs) -> Result<ExitCode, Failure> {
    let presets = Presets::for_user(args.machine.vmm_file.as_deref())?;
    let preset = presets.get(&args.name)?;
    let disk = std::path::absolute(&args.disk)
        .map_err(|e| Failure::new(format!("{}: {e}; give another --disk", args.disk.display())))?;
    let bytes = std::fs::metadata(&disk).map_or(EXAMPLE, |found| found.len());
    let mut values = Values::new(disk, bytes, example("work"));
    values.keep = example("keep");
    args.machine.apply(&mut values);
    values.extra.clone_from(&args.extra);
    let formats: Vec<&str> = preset.formats().collect();
    if args.machine.disk_format.is_none() && !formats.contains(&values.format.as_str()) {
        // The example's name tells nothing.
        values.format = formats
            .first()
            .map_or(values.format, |format| (*format).to_owned());
    }
    let plan = preset.plan(&values)?;
    let (manual, origin) = (preset.manual(), preset.origin());
    tell(
        args.json,
        &shown(&plan, manual, origin),
        &text(&plan, manual, origin),
    )
}

/// A directory of which only the name is shown.
fn example(name: &str) -> std::path::PathBuf {
    let root = if cfg!(windows) { r"C:\" } else { "/" };
    Path::new(root).join("run").join("vmtorrent").join(name)
}

fn shown(plan: &Plan, manual: Option<&str>, origin: Option<&Path>) -> Shown {
    let files = plan.files.iter().map(|file| File {
        path: json_path(&file.path),
        text: file.text.clone(),
    });
    let setup = plan.setup.iter().map(|one| Setup {
        argv: words(&one.step.argv),
        undo: one.undo.iter().map(|step| words(&step.argv)).collect(),
    });
    Shown {
        name: plan.vmm.clone(),
        manual: manual.map(str::to_owned),
        origin: origin.map(json_path),
        directories: plan.directories.iter().map(|d| json_path(d)).collect(),
        files: files.collect(),
        setup: setup.collect(),
        run: words(&plan.run),
        stop: plan.stop.as_ref().map(|step| words(&step.argv)),
        grace_secs: plan.grace.as_secs(),
        teardown: plan.cleanup().map(|step| words(&step.argv)).collect(),
        console: match &plan.console {
            ConsoleSource::None => "none".to_owned(),
            ConsoleSource::Stdio => "stdio".to_owned(),
            ConsoleSource::File(path) => json_path(path),
        },
    }
}

fn words(argv: &Argv) -> Vec<String> {
    argv.words()
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

fn text(plan: &Plan, manual: Option<&str>, origin: Option<&Path>) -> String {
    let mut text = format!("# {}", plan.vmm);
    if let Some(origin) = origin {
        text.push_str(&format!(", of {}", origin.display()));
    }
    text.push('\n');
    if let Some(manual) = manual {
        text.push_str(&format!("# {manual}\n"));
    }
    for directory in &plan.directories {
        text.push_str(&format!("# makes {} and keeps it\n", directory.display()));
    }
    for file in &plan.files {
        text.push_str(&format!("# writes {}:\n", file.path.display()));
        for line in file.text.trim_end().lines() {
            text.push_str(&format!("#   {line}\n"));
        }
    }
    for one in &plan.setup {
        text.push_str(&format!("{}\n", one.step.argv));
    }
    text.push_str("# the machine:\n");
    text.push_str(&format!("{}\n", plan.run));
    match &plan.stop {
        Some(stop) => text.push_str(&format!(
            "# to end it, and kill it after {} s:\n{}\n",
            plan.grace.as_secs(),
            stop.argv
        )),
        None => text.push_str(&format!(
            "# to end it: SIGTERM, and SIGKILL after {} s\n",
            plan.grace.as_secs()
        )),
    }
    let cleanup: Vec<&Step> = plan.cleanup().collect();
    if !cleanup.is_empty() {
        text.push_str("# at the end:\n");
    }
    for step in cleanup {
        let note = if step.may_fail { "    # may fail" } else { "" };
        text.push_str(&format!("{}{note}\n", step.argv));
    }
    match &plan.console {
        ConsoleSource::None => {}
        ConsoleSource::Stdio => text.push_str("# console: standard input and output\n"),
        ConsoleSource::File(path) => text.push_str(&format!("# console: {}\n", path.display())),
    }
    text
}
