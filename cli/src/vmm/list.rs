//! `vmtorrent vmm list`.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use vmtorrent::vmm::{Preset, Presets, Values};

use super::{ListArgs, find, tell};
use crate::failure::Failure;
use crate::output::json_path;

/// A VMM, as `--json` tells it.
#[derive(Serialize)]
struct Known {
    name: String,
    summary: String,
    manual: Option<String>,
    /// The file that defines it; null for a built-in one.
    origin: Option<String>,
    formats: Vec<String>,
    variables: Vec<Variable>,
    /// What runs the machine.
    program: Option<String>,
    /// Where that is; null when it is not installed.
    path: Option<String>,
}

#[derive(Serialize)]
struct Variable {
    name: String,
    /// Null when it has to be set.
    default: Option<String>,
}

#[derive(Serialize)]
struct All {
    vmms: Vec<Known>,
}

/// Tells which VMMs there are.
pub fn run(args: &ListArgs) -> Result<ExitCode, Failure> {
    let presets = Presets::for_user(args.vmm_file.as_deref())?;
    let vmms: Vec<Known> = presets.iter().map(known).collect();
    let text = text(&vmms);
    tell(args.json, &All { vmms }, &text)
}

/// A line or two for each.
fn text(vmms: &[Known]) -> String {
    let width = vmms.iter().map(|vmm| vmm.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for vmm in vmms {
        let found = match (&vmm.program, &vmm.path) {
            (_, Some(path)) => path.clone(),
            (Some(program), None) => format!("{program} is not installed"),
            (None, None) => String::new(),
        };
        text.push_str(&format!("{:width$}  {} ({found})\n", vmm.name, vmm.summary));
        if let Some(origin) = &vmm.origin {
            text.push_str(&format!("{:width$}  of {origin}\n", ""));
        }
    }
    text
}

fn known(preset: &Preset) -> Known {
    let program = program(preset);
    let path = program
        .as_ref()
        .and_then(|program| find(Path::new(program)));
    let variables = preset.variables().map(|(name, default)| Variable {
        name: name.to_owned(),
        default: default.map(str::to_owned),
    });
    Known {
        name: preset.name().to_owned(),
        summary: preset.summary().to_owned(),
        manual: preset.manual().map(str::to_owned),
        origin: preset.origin().map(json_path),
        formats: preset.formats().map(str::to_owned).collect(),
        variables: variables.collect(),
        program,
        path: path.map(|path| json_path(&path)),
    }
}

/// What it would run for some disk; none when that depends on what is not known here.
fn program(preset: &Preset) -> Option<String> {
    let format = preset.formats().next()?;
    let mut values = Values::new("/disk", 512, "/work");
    values.format = format.to_owned();
    // What has to be set does not name the program, as a rule.
    let unset = preset.variables().filter(|(_, default)| default.is_none());
    values.set = unset
        .map(|(name, _)| (name.to_owned(), "unset".to_owned()))
        .collect();
    let plan = preset.plan(&values).ok()?;
    Some(plan.run.program().to_string_lossy().into_owned())
}
