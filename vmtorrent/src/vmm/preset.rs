//! Invariant: a preset is data: what it runs follows from it and the values alone, without a shell and without a look at
//! the host.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::escape::Escape;
use super::plan::{Argv, ConsoleSource, Plan, PlannedFile, SetupStep, Step};
use super::template::{Template, Value};
use super::values::Values;
use crate::error::{Error, ErrorKind, Result};

/// The placeholders that every preset may use; its variables come beside them.
pub(super) const PLACES: [&str; 14] = [
    "console",
    "cpus",
    "cylinders",
    "dir",
    "disk",
    "disk_bytes",
    "format",
    "image",
    "keep",
    "memory",
    "memory_mib",
    "name",
    "sectors",
    "work",
];

/// The name of the file in `{work}` that `{console}` stands for.
const CONSOLE: &str = "console.log";

/// A VMM as data: how it is told of a disk, run, stopped and cleaned up after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preset {
    pub(super) name: String,
    pub(super) summary: String,
    pub(super) manual: Option<String>,
    /// The file that it is from; none for a built-in one.
    pub(super) origin: Option<PathBuf>,
    pub(super) escape: Escape,
    pub(super) console: ConsoleKind,
    /// By format of the image, how this VMM is told of it: `{image}`.
    pub(super) formats: BTreeMap<String, Template>,
    /// With their defaults; without one it has to be set.
    pub(super) variables: BTreeMap<String, Option<String>>,
    pub(super) files: Vec<FileTemplate>,
    pub(super) setup: Vec<SetupTemplate>,
    pub(super) run: Words,
    pub(super) stop: Option<Words>,
    pub(super) grace: Duration,
    pub(super) teardown: Vec<StepTemplate>,
}

/// The words of a command line.
pub(super) type Words = Vec<Template>;

/// Where a VMM puts the guest's console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConsoleKind {
    None,
    Stdio,
    File,
}

/// A file to be written in `{work}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileTemplate {
    pub(super) path: Template,
    pub(super) text: Template,
    pub(super) escape: Escape,
    /// Formats of the image for which it is written; none: all.
    pub(super) formats: Option<BTreeSet<String>>,
}

/// A step and what takes it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetupTemplate {
    pub(super) argv: Words,
    pub(super) undo: Vec<Words>,
    pub(super) undo_tries: u32,
}

/// A step at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StepTemplate {
    pub(super) argv: Words,
    pub(super) tries: u32,
    pub(super) may_fail: bool,
}

impl Preset {
    /// The name by which it is asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One line about it.
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// Where the VMM's options are documented.
    pub fn manual(&self) -> Option<&str> {
        self.manual.as_deref()
    }

    /// The file that defines it; `None` for a built-in one.
    pub fn origin(&self) -> Option<&Path> {
        self.origin.as_deref()
    }

    /// The image formats that the VMM opens.
    pub fn formats(&self) -> impl Iterator<Item = &str> {
        self.formats.keys().map(String::as_str)
    }

    /// Its variables by name, with the default of those that have one; [`Values::set`] changes them.
    pub fn variables(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let all = self.variables.iter();
        all.map(|(name, default)| (name.as_str(), default.as_deref()))
    }

    /// What is run for these values.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when a value can't be told to this VMM (a name, a format, a path that its syntax has
    /// no escape for), and when a variable is unknown or has no value.
    ///
    /// ```
    /// # fn main() -> vmtorrent::Result<()> {
    /// use vmtorrent::vmm::{Presets, Values};
    ///
    /// let presets = Presets::builtin();
    /// let values = Values::new("/mnt/web/debian,12.img", 1 << 30, "/run/web");
    /// let plan = presets.get("qemu")?.plan(&values)?;
    /// assert!(plan.run.to_string().contains("file=/mnt/web/debian,,12.img,format=raw"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn plan(&self, values: &Values) -> Result<Plan> {
        values.check()?;
        let filling = Filling::new(self, values).map_err(|text| self.refuse(text))?;
        let mut run = self.words(&self.run, &filling)?;
        run.extend(values.extra.iter().cloned());
        let step = |argv: &Words, tries, may_fail| {
            Ok::<_, Error>(Step {
                argv: self.argv(argv, &filling)?,
                tries,
                may_fail,
            })
        };
        let files = self.files.iter().filter(|file| file.is_for(&values.format));
        let files = files.map(|file| self.file(file, values, &filling));
        let setup = self.setup.iter().map(|one| {
            let undo = one
                .undo
                .iter()
                .map(|argv| step(argv, one.undo_tries, false));
            Ok(SetupStep {
                step: step(&one.argv, 1, false)?,
                undo: undo.collect::<Result<_>>()?,
            })
        });
        let teardown = self.teardown.iter();
        let teardown = teardown.map(|one| step(&one.argv, one.tries, one.may_fail));
        let directories = match self.uses("keep") {
            true => vec![values.keep.clone()],
            false => Vec::new(),
        };
        Ok(Plan {
            vmm: self.name.clone(),
            directories,
            files: files.collect::<Result<_>>()?,
            setup: setup.collect::<Result<_>>()?,
            run: Argv::new(run)?,
            stop: self
                .stop
                .as_ref()
                .map(|argv| step(argv, 1, false))
                .transpose()?,
            grace: self.grace,
            teardown: teardown.collect::<Result<_>>()?,
            console: match self.console {
                ConsoleKind::None => ConsoleSource::None,
                ConsoleKind::Stdio => ConsoleSource::Stdio,
                ConsoleKind::File => ConsoleSource::File(values.work.join(CONSOLE)),
            },
        })
    }

    fn file(
        &self,
        file: &FileTemplate,
        values: &Values,
        filling: &Filling<'_>,
    ) -> Result<PlannedFile> {
        let fill = |template: &Template, escape| {
            let filled = template.fill(escape, &|name| filling.value(name));
            filled.map_err(|text| self.refuse(text))
        };
        let path = PathBuf::from(fill(&file.path, Escape::Plain)?);
        let inside = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !inside || path.as_os_str().is_empty() {
            return Err(self.refuse(format!(
                "the file {} would be outside the work directory: write a name without .. and /",
                path.display()
            )));
        }
        let text = fill(&file.text, file.escape)?;
        let text = text.into_string().map_err(|_| {
            self.refuse(format!(
                "the file {} would hold a path that is not Unicode: rename it",
                path.display()
            ))
        })?;
        Ok(PlannedFile {
            path: values.work.join(path),
            text,
        })
    }

    fn argv(&self, words: &Words, filling: &Filling<'_>) -> Result<Argv> {
        Argv::new(self.words(words, filling)?)
    }

    fn words(&self, words: &Words, filling: &Filling<'_>) -> Result<Vec<OsString>> {
        let words = words
            .iter()
            .map(|word| word.fill(self.escape, &|name| filling.value(name)));
        words
            .collect::<Result<_, _>>()
            .map_err(|text| self.refuse(text))
    }

    fn uses(&self, place: &str) -> bool {
        self.templates().any(|template| template.uses(place))
    }

    /// All of its templates.
    pub(super) fn templates(&self) -> impl Iterator<Item = &Template> {
        let steps = self
            .setup
            .iter()
            .flat_map(|one| one.argv.iter().chain(one.undo.iter().flatten()));
        let files = self.files.iter().flat_map(|file| [&file.path, &file.text]);
        let ends = self
            .stop
            .iter()
            .flatten()
            .chain(self.teardown.iter().flat_map(|one| &one.argv));
        self.formats
            .values()
            .chain(files)
            .chain(steps)
            .chain(&self.run)
            .chain(ends)
    }

    fn refuse(&self, text: impl std::fmt::Display) -> Error {
        Error::new(
            ErrorKind::InvalidInput,
            format!("VMM {}: {text}", self.name),
        )
    }
}

impl FileTemplate {
    fn is_for(&self, format: &str) -> bool {
        self.formats
            .as_ref()
            .is_none_or(|formats| formats.contains(format))
    }
}

/// The values as a preset's places want them.
struct Filling<'a> {
    preset: &'a Preset,
    values: &'a Values,
    image: &'a Template,
}

impl<'a> Filling<'a> {
    fn new(preset: &'a Preset, values: &'a Values) -> Result<Self, String> {
        if let Some(unknown) = values
            .set
            .keys()
            .find(|name| !preset.variables.contains_key(*name))
        {
            let known: Vec<&str> = preset.variables.keys().map(String::as_str).collect();
            return Err(match known.as_slice() {
                [] => format!("it has no variable {unknown:?}, and none at all: leave it out"),
                known => format!(
                    "it has no variable {unknown:?}: set one of {}",
                    known.join(", ")
                ),
            });
        }
        let Some(image) = preset.formats.get(&values.format) else {
            let known: Vec<&str> = preset.formats().collect();
            return Err(format!(
                "it can't open images of the format {}, only {}: choose another VMM, or publish the image in another \
                 format (qemu-img convert)",
                values.format,
                known.join(", ")
            ));
        };
        Ok(Self {
            preset,
            values,
            image,
        })
    }

    fn value(&self, name: &str) -> Result<Value<'a>, String> {
        let values = self.values;
        Ok(Value::Plain(match name {
            "image" => return Ok(Value::Template(self.image)),
            "console" => values.work.join(CONSOLE).into(),
            "cpus" => values.cpus.to_string().into(),
            // The geometry that disks of more than 8 GB have too: heads 16, sectors 63.
            "cylinders" => (values.sectors()? / (16 * 63))
                .clamp(1, 16_383)
                .to_string()
                .into(),
            "dir" => values.directory.clone().into(),
            "disk" => values.disk.clone().into(),
            "disk_bytes" => values.disk_bytes.to_string().into(),
            "format" => values.format.clone().into(),
            "keep" => values.keep.clone().into(),
            "memory" => values.memory.to_string().into(),
            "memory_mib" => (values.memory >> 20).to_string().into(),
            "name" => values.name.clone().into(),
            "sectors" => values.sectors()?.to_string().into(),
            "work" => values.work.clone().into(),
            variable => {
                let set = values.set.get(variable);
                let default = self.preset.variables.get(variable).and_then(Option::as_ref);
                let value = set.or(default).ok_or_else(|| {
                    format!("its variable {variable} has no default: set it with --vmm-set {variable}=VALUE")
                })?;
                value.clone().into()
            }
        }))
    }
}
