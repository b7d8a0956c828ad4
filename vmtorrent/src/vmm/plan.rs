//! Invariant: a plan is what runs, word for word: nothing in it is looked up, expanded or given to a shell any more.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::values::Values;
use crate::error::{Error, ErrorKind, Result};

/// A command line: a program and its arguments, as the system passes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argv {
    program: OsString,
    arguments: Vec<OsString>,
}

impl Argv {
    /// A command line of these words.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] without words, with an empty program, or with a NUL in a word.
    pub fn new(words: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let mut words = words.into_iter();
        let program = words.next().filter(|program| !program.is_empty());
        let Some(program) = program else {
            let text = "a command line has no program: name the program first";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        };
        let argv = Self {
            program,
            arguments: words.collect(),
        };
        if argv
            .words()
            .any(|word| word.as_encoded_bytes().contains(&0))
        {
            let text = format!(
                "a word of the command line of {} holds a NUL: leave it out",
                argv.name()
            );
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        Ok(argv)
    }

    /// What is started; looked for in `PATH` unless it holds a separator.
    pub fn program(&self) -> &OsStr {
        &self.program
    }

    /// What it is given.
    pub fn arguments(&self) -> &[OsString] {
        &self.arguments
    }

    /// The program and its arguments.
    pub fn words(&self) -> impl Iterator<Item = &OsStr> {
        std::iter::once(self.program()).chain(self.arguments.iter().map(OsString::as_os_str))
    }

    /// The program for messages.
    pub(super) fn name(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }
}

impl fmt::Display for Argv {
    /// The words for people, in the quotes of a POSIX shell where they need some.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.words().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            let word = word.to_string_lossy();
            let safe = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
            match !word.is_empty() && word.chars().all(safe) {
                true => f.write_str(&word)?,
                false => write!(f, "'{}'", word.replace('\'', r"'\''"))?,
            }
        }
        Ok(())
    }
}

/// A command that runs before or after the VMM, to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What runs.
    pub argv: Argv,
    /// How often it is tried, at least once, with a second between: some VMMs let go of a machine only a moment after
    /// it ended.
    pub tries: u32,
    /// Whether its failure means nothing: turning off a machine that is off, for example.
    pub may_fail: bool,
}

/// A step of the set-up, and what takes it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupStep {
    /// What runs.
    pub step: Step,
    /// What takes it back; runs only if the step succeeded.
    pub undo: Vec<Step>,
}

/// A file that is written before the first command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    /// Where.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// Where the guest's serial console can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleSource {
    /// Nowhere.
    None,
    /// On the VMM's standard output; its standard input is what is typed.
    Stdio,
    /// In a file that the VMM writes.
    File(PathBuf),
}

/// All that is done for one run of a VMM, in the order in which it is done.
///
/// [`Process`](super::Process) carries it out. Whoever does it by hand: make `directories`, write `files`, run each
/// step of `setup`, then `run`; to end it, `stop` or else SIGTERM; at last `teardown` if `run` was started, and the undo
/// steps of what was set up, the last one first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The preset's name, for messages.
    pub vmm: String,
    /// Directories that are made if they are absent, and stay.
    pub directories: Vec<PathBuf>,
    /// Files that are written.
    pub files: Vec<PlannedFile>,
    /// Commands that run to their end before the VMM.
    pub setup: Vec<SetupStep>,
    /// The command that runs as long as the machine does.
    pub run: Argv,
    /// Asks the machine to end; without it, SIGTERM to the process of `run` does.
    pub stop: Option<Step>,
    /// How long the machine may take to end after that.
    pub grace: Duration,
    /// Commands that run after the VMM, however it ended.
    pub teardown: Vec<Step>,
    /// Where the guest's console is.
    pub console: ConsoleSource,
}

impl Plan {
    /// How long a VMM may take to end when nothing else is said.
    pub const GRACE: Duration = Duration::from_secs(10);

    /// The plan that runs one given command, with `{disk}` and `{dir}` in its words replaced and all other braces left
    /// as they are.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when there is no program in it.
    pub fn command(words: &[OsString], values: &Values) -> Result<Self> {
        let words = words.iter();
        let words = words.map(|word| fill_in(word, &values.disk, &values.directory));
        let run = Argv::new(words)?;
        Ok(Self {
            vmm: run.name(),
            directories: Vec::new(),
            files: Vec::new(),
            setup: Vec::new(),
            run,
            stop: None,
            grace: Self::GRACE,
            teardown: Vec::new(),
            console: ConsoleSource::Stdio,
        })
    }

    /// All that runs after the VMM when everything before it succeeded, in order.
    pub fn cleanup(&self) -> impl Iterator<Item = &Step> {
        let undo = self.setup.iter().rev().flat_map(|step| &step.undo);
        self.teardown.iter().chain(undo)
    }
}

/// Replaces `{disk}` and `{dir}`. An argument that is not Unicode is passed as it is.
fn fill_in(word: &OsStr, disk: &Path, dir: &Path) -> OsString {
    let Some(mut rest) = word.to_str() else {
        return word.to_owned();
    };
    let mut filled = OsString::new();
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        filled.push(before);
        rest = if let Some(after) = from.strip_prefix("{disk}") {
            filled.push(disk);
            after
        } else if let Some(after) = from.strip_prefix("{dir}") {
            filled.push(dir);
            after
        } else {
            filled.push("{");
            &from[1..]
        };
    }
    filled.push(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_a_given_command_are_filled_in_anywhere_and_only_once() {
        let filled = |word: &str| {
            fill_in(OsStr::new(word), Path::new("/m/{dir}.img"), Path::new("/m"))
                .into_string()
                .unwrap()
        };
        assert_eq!(filled("{disk}"), "/m/{dir}.img");
        assert_eq!(
            filled("file={disk},format=raw"),
            "file=/m/{dir}.img,format=raw"
        );
        assert_eq!(filled("{dir}/{dir}"), "/m//m");
        assert_eq!(filled("{{disk}}"), "{/m/{dir}.img}");
        assert_eq!(filled("{\"a\":{}} {dis"), "{\"a\":{}} {dis");
    }

    #[cfg(unix)]
    #[test]
    fn a_path_need_not_be_unicode() {
        use std::os::unix::ffi::OsStrExt;
        let disk = OsStr::from_bytes(b"/m/\xff");
        let filled = fill_in(
            OsStr::new("file={disk},x"),
            Path::new(disk),
            Path::new("/m"),
        );
        assert_eq!(filled.as_bytes(), b"file=/m/\xff,x");
    }

    #[test]
    fn a_command_line_has_a_program_and_is_quoted_for_people() {
        let argv = |words: &[&str]| Argv::new(words.iter().map(OsString::from));
        for words in [&[][..], &[""], &["a", "b\0"]] {
            assert_eq!(argv(words).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        let shown = argv(&["qemu", "-drive", "file=/a b,,c", "", "it's"]).unwrap();
        assert_eq!(
            shown.to_string(),
            r"qemu -drive 'file=/a b,,c' '' 'it'\''s'"
        );
    }
}
