//! Invariant: a document is taken whole or refused at its first mistake, with the line, the key and what to write there;
//! a key that is not known is a mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::escape::Escape;
use super::preset::{
    ConsoleKind, FileTemplate, PLACES, Preset, SetupTemplate, StepTemplate, Words,
};
use super::template::Template;
use super::values::FORMATS;
use crate::error::{Error, ErrorKind, Result};

type Node<'a> = Spanned<DeValue<'a>>;

/// Most presets in a document, most words in a command line, most steps in a list.
const MOST: usize = 1000;

/// The keys of a preset.
const PRESET: [&str; 12] = [
    "summary",
    "manual",
    "escape",
    "console",
    "formats",
    "variables",
    "file",
    "setup",
    "run",
    "stop",
    "grace",
    "teardown",
];

/// Reads the presets of a text; `origin` is the file that it is from.
pub(super) fn read(text: &str, origin: Option<&Path>) -> Result<BTreeMap<String, Preset>> {
    let reader = Reader { text, origin };
    let root = DeTable::parse(text).map_err(|e| {
        let at = e.span().map_or(text.len(), |span| span.start);
        reader.refuse(at, "", format_args!("{}; correct the TOML", e.message()))
    })?;
    let root = Table {
        reader: &reader,
        table: root.get_ref(),
        path: String::new(),
        at: root.span().start,
    };
    root.only(&["vmm"])?;
    let Some(vmms) = root.get("vmm") else {
        return Err(reader.refuse(0, "vmm", "it holds no VMM; begin one with [vmm.NAME]"));
    };
    let vmms = vmms.table()?;
    if vmms.table.len() > MOST {
        return Err(vmms.refuse(format_args!("more than {MOST} VMMs; leave some out")));
    }
    let mut presets = BTreeMap::new();
    for (key, _) in vmms.table.iter() {
        let name = key.get_ref().to_string();
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(fits) || name.starts_with('-') {
            let key = format!("vmm.{name:?}");
            let text = "use at most 64 letters, digits, -, _ and . for the name of a VMM";
            return Err(reader.refuse(key_at(key_span(vmms.table, &name)), &key, text));
        }
        if let Some(item) = vmms.get(&name) {
            presets.insert(name.clone(), preset(&name, &item.table()?, origin)?);
        }
    }
    if presets.is_empty() {
        return Err(vmms.refuse("it holds no VMM; begin one with [vmm.NAME]"));
    }
    Ok(presets)
}

fn preset(name: &str, table: &Table<'_>, origin: Option<&Path>) -> Result<Preset> {
    table.only(&PRESET)?;
    let variables = variables(table)?;
    let places: BTreeSet<&str> = PLACES
        .into_iter()
        .chain(variables.keys().map(String::as_str))
        .collect();
    let escape = escape(table, Escape::Plain)?;
    let console = match table.text("console")? {
        None => ConsoleKind::None,
        Some((kind, item)) => match kind.as_str() {
            "none" => ConsoleKind::None,
            "stdio" => ConsoleKind::Stdio,
            "file" => ConsoleKind::File,
            other => {
                return Err(item.refuse(format_args!(
                    "{other:?} is not known; write none, stdio or file"
                )));
            }
        },
    };
    let Some(run) = table.get("run") else {
        return Err(table.refuse("it has no command; add run = [\"PROGRAM\", \"ARGUMENT\"]"));
    };
    let steps = |key| -> Result<Vec<Item<'_>>> {
        table.get(key).map_or(Ok(Vec::new()), |item| item.list())
    };
    let files = steps("file")?
        .into_iter()
        .map(|item| file(&item, &places, escape));
    let setup = steps("setup")?.into_iter().map(|item| {
        let step = item.table()?;
        step.only(&["argv", "undo", "undo-tries"])?;
        let undo = step
            .get("undo")
            .map_or(Ok(Vec::new()), |item| item.list())?;
        Ok(SetupTemplate {
            argv: argv(&step, &places)?,
            undo: undo
                .iter()
                .map(|item| words(item, &places))
                .collect::<Result<_>>()?,
            undo_tries: step.number("undo-tries", 1, 1..=100)?,
        })
    });
    let teardown = steps("teardown")?.into_iter().map(|item| {
        let step = item.table()?;
        step.only(&["argv", "may-fail", "tries"])?;
        Ok(StepTemplate {
            argv: argv(&step, &places)?,
            tries: step.number("tries", 1, 1..=100)?,
            may_fail: step.flag("may-fail")?,
        })
    });
    Ok(Preset {
        name: name.to_owned(),
        summary: table
            .text("summary")?
            .map(|(text, _)| text)
            .unwrap_or_default(),
        manual: table.text("manual")?.map(|(text, _)| text),
        origin: origin.map(Path::to_owned),
        escape,
        console,
        formats: formats(table, &places)?,
        files: files.collect::<Result<_>>()?,
        setup: setup.collect::<Result<_>>()?,
        run: words(&run, &places)?,
        stop: table
            .get("stop")
            .map(|item| words(&item, &places))
            .transpose()?,
        grace: Duration::from_secs(table.number("grace", 10, 0..=86_400)?.into()),
        teardown: teardown.collect::<Result<_>>()?,
        variables,
    })
}

fn variables(table: &Table<'_>) -> Result<BTreeMap<String, Option<String>>> {
    let mut variables = BTreeMap::new();
    let Some(item) = table.get("variables") else {
        return Ok(variables);
    };
    let all = item.table()?;
    for (key, _) in all.table.iter() {
        let name = key.get_ref().to_string();
        let Some(item) = all.get(&name) else { continue };
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(fits) {
            return Err(
                item.refuse("use lower-case letters, digits and _ for the name of a variable")
            );
        }
        if PLACES.contains(&name.as_str()) {
            return Err(item.refuse("this placeholder has a meaning already; take another name"));
        }
        let text = item.text()?;
        // A default that is empty would hide that something has to be set.
        variables.insert(name, Some(text).filter(|text| !text.is_empty()));
    }
    Ok(variables)
}

fn formats(table: &Table<'_>, places: &BTreeSet<&str>) -> Result<BTreeMap<String, Template>> {
    let Some(item) = table.get("formats") else {
        // Whoever says nothing opens raw disks.
        let disk = Template::parse("{disk}").map_err(|text| table.refuse(text))?;
        return Ok(BTreeMap::from([("raw".to_owned(), disk)]));
    };
    let all = item.table()?;
    let mut formats = BTreeMap::new();
    for (key, _) in all.table.iter() {
        let name = key.get_ref().to_string();
        let Some(item) = all.get(&name) else { continue };
        known_format(&name, &item)?;
        let template = template(&item, places)?;
        if template.uses("image") {
            return Err(item.refuse("{image} stands for this text itself; write {disk}"));
        }
        formats.insert(name, template);
    }
    match formats.is_empty() {
        true => Err(all.refuse("no format; write for example raw = \"{disk}\"")),
        false => Ok(formats),
    }
}

fn file(item: &Item<'_>, places: &BTreeSet<&str>, default: Escape) -> Result<FileTemplate> {
    let table = item.table()?;
    table.only(&["path", "text", "escape", "formats"])?;
    let need = |key| {
        let item = table.get(key);
        item.ok_or_else(|| table.refuse(format_args!("a file needs {key}; add {key} = \"...\"")))
    };
    let formats = table.get("formats").map(|item| {
        let names = item.list()?.into_iter().map(|item| {
            let name = item.text()?;
            known_format(&name, &item)?;
            Ok(name)
        });
        names.collect::<Result<BTreeSet<String>>>()
    });
    Ok(FileTemplate {
        path: template(&need("path")?, places)?,
        text: template(&need("text")?, places)?,
        escape: escape(&table, default)?,
        formats: formats.transpose()?,
    })
}

fn known_format(name: &str, item: &Item<'_>) -> Result<()> {
    if FORMATS.iter().any(|(known, _)| *known == name) {
        return Ok(());
    }
    let known = FORMATS.map(|(known, _)| known).join(", ");
    Err(item.refuse(format_args!(
        "{name:?} is no format of disk images that is known here; write one of {known}"
    )))
}

fn escape(table: &Table<'_>, default: Escape) -> Result<Escape> {
    let Some((name, item)) = table.text("escape")? else {
        return Ok(default);
    };
    Escape::named(&name).ok_or_else(|| {
        let known = Escape::NAMES.map(|(known, _)| known).join(", ");
        item.refuse(format_args!(
            "{name:?} is no escape rule; write one of {known}"
        ))
    })
}

fn argv(table: &Table<'_>, places: &BTreeSet<&str>) -> Result<Words> {
    let Some(item) = table.get("argv") else {
        return Err(table.refuse("the step has no command; add argv = [\"PROGRAM\", \"ARGUMENT\"]"));
    };
    words(&item, places)
}

fn words(item: &Item<'_>, places: &BTreeSet<&str>) -> Result<Words> {
    let items = item.list()?;
    match items.first() {
        Some(program) if !program.text()?.is_empty() => {}
        _ => {
            return Err(item.refuse(
                "a command line begins with a program; write [\"PROGRAM\", \"ARGUMENT\"]",
            ));
        }
    }
    items.iter().map(|item| template(item, places)).collect()
}

fn template(item: &Item<'_>, places: &BTreeSet<&str>) -> Result<Template> {
    let text = item.text()?;
    if text.contains('\0') {
        return Err(item.refuse("it holds a NUL; leave it out"));
    }
    let template = Template::parse(&text).map_err(|text| item.refuse(text))?;
    if let Some(unknown) = template.places().find(|place| !places.contains(place)) {
        let known: Vec<&str> = places.iter().copied().collect();
        return Err(item.refuse(format_args!(
            "{{{unknown}}} stands for nothing here; write one of {}, or define it under variables",
            known.join(", ")
        )));
    }
    Ok(template)
}

/// Where the text is, for messages.
struct Reader<'a> {
    text: &'a str,
    origin: Option<&'a Path>,
}

impl Reader<'_> {
    fn refuse(&self, at: usize, key: &str, text: impl std::fmt::Display) -> Error {
        let before = self.text.as_bytes().iter().take(at);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        let file = match self.origin {
            Some(path) => path.display().to_string(),
            None => "the VMM definitions".to_owned(),
        };
        let key = if key.is_empty() {
            String::new()
        } else {
            format!(", {key}")
        };
        Error::new(
            ErrorKind::InvalidInput,
            format!("{file}, line {line}{key}: {text}"),
        )
    }
}

/// A table and how it is called.
struct Table<'a> {
    reader: &'a Reader<'a>,
    table: &'a DeTable<'a>,
    path: String,
    at: usize,
}

/// A value and how it is called.
struct Item<'a> {
    reader: &'a Reader<'a>,
    value: &'a Node<'a>,
    path: String,
}

impl<'a> Table<'a> {
    fn get(&self, key: &str) -> Option<Item<'a>> {
        let (_, value) = self
            .table
            .iter()
            .find(|(known, _)| known.get_ref() == key)?;
        Some(Item {
            reader: self.reader,
            value,
            path: if self.path.is_empty() {
                key.to_owned()
            } else {
                format!("{}.{key}", self.path)
            },
        })
    }

    /// Refuses all keys but these.
    fn only(&self, known: &[&str]) -> Result<()> {
        let unknown = self
            .table
            .keys()
            .find(|key| !known.contains(&key.get_ref().as_ref()));
        let Some(key) = unknown else { return Ok(()) };
        let path = match self.path.as_str() {
            "" => key.get_ref().to_string(),
            path => format!("{path}.{}", key.get_ref()),
        };
        let text = format_args!(
            "this key is not known; the keys here are {}",
            known.join(", ")
        );
        Err(self.reader.refuse(key.span().start, &path, text))
    }

    fn text(&self, key: &str) -> Result<Option<(String, Item<'a>)>> {
        let Some(item) = self.get(key) else {
            return Ok(None);
        };
        Ok(Some((item.text()?, item)))
    }

    fn flag(&self, key: &str) -> Result<bool> {
        let Some(item) = self.get(key) else {
            return Ok(false);
        };
        let flag = item.value.get_ref().as_bool();
        flag.ok_or_else(|| item.wrong("true or false"))
    }

    fn number(&self, key: &str, default: u32, range: std::ops::RangeInclusive<u32>) -> Result<u32> {
        let Some(item) = self.get(key) else {
            return Ok(default);
        };
        let number = item.value.get_ref().as_integer();
        let number = number.and_then(|n| u32::from_str_radix(n.as_str(), n.radix()).ok());
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                item.wrong(&format!(
                    "a whole number from {} to {}",
                    range.start(),
                    range.end()
                ))
            })
    }

    fn refuse(&self, text: impl std::fmt::Display) -> Error {
        self.reader.refuse(self.at, &self.path, text)
    }
}

impl<'a> Item<'a> {
    fn text(&self) -> Result<String> {
        let text = self.value.get_ref().as_str();
        text.map(str::to_owned)
            .ok_or_else(|| self.wrong("a string in quotes"))
    }

    fn table(&self) -> Result<Table<'a>> {
        let table = self.value.get_ref().as_table();
        Ok(Table {
            reader: self.reader,
            table: table.ok_or_else(|| self.wrong("a table"))?,
            path: self.path.clone(),
            at: self.value.span().start,
        })
    }

    fn list(&self) -> Result<Vec<Item<'a>>> {
        let list = self
            .value
            .get_ref()
            .as_array()
            .ok_or_else(|| self.wrong("a list in brackets"))?;
        if list.len() > MOST {
            return Err(self.refuse(format_args!("more than {MOST} entries; leave some out")));
        }
        let items = list.iter().enumerate().map(|(index, value)| Item {
            reader: self.reader,
            value,
            path: format!("{}[{index}]", self.path),
        });
        Ok(items.collect())
    }

    fn wrong(&self, wanted: &str) -> Error {
        let found = self.value.get_ref().type_str();
        self.refuse(format_args!("it is of the type {found}; write {wanted}"))
    }

    fn refuse(&self, text: impl std::fmt::Display) -> Error {
        self.reader
            .refuse(self.value.span().start, &self.path, text)
    }
}

fn key_span(table: &DeTable<'_>, name: &str) -> Option<std::ops::Range<usize>> {
    let key = table.keys().find(|key| key.get_ref() == name);
    key.map(Spanned::span)
}

fn key_at(span: Option<std::ops::Range<usize>>) -> usize {
    span.map_or(0, |span| span.start)
}
