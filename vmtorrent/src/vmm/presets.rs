//! Invariant: every preset in it was read whole and checked; a file with one mistake gives none.

use std::collections::BTreeMap;
use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::document;
use super::preset::Preset;
use crate::directories;
use crate::error::{Error, ErrorKind, Result};

/// The largest file that is read, bytes.
const LARGEST: u64 = 1 << 20;

static BUILTIN: LazyLock<Presets> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "a constant, parsed by a test")]
    let presets =
        document::read(include_str!("presets.toml"), None).expect("presets.toml is well-formed");
    Presets { presets }
});

/// VMMs by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presets {
    presets: BTreeMap<String, Preset>,
}

impl Presets {
    /// Those that come with the library: qemu, cloud-hypervisor, virtualbox, vmware, hyperv.
    pub fn builtin() -> Self {
        BUILTIN.clone()
    }

    /// Those of a TOML file, in the form that docs/vmm.md describes, and no others.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidInput`] when the file is no such file; the message names file, line, key and remedy.
    /// - the kind of the system's error when it can't be read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::read(path)
            .map_err(|e| Error::io(format!("read the VMMs of {}", path.display()), e))?
    }

    /// The built-in ones, then those of `vmtorrent/vmm.toml` below the XDG configuration directory if there is that
    /// file, then those of `file`; of two with one name the later one holds.
    ///
    /// # Errors
    /// Those of [`load`](Self::load), for either file.
    pub fn for_user(file: Option<&Path>) -> Result<Self> {
        let mut all = Self::builtin();
        if let Some(path) = Self::user_file() {
            match Self::read(&path) {
                Ok(presets) => all.extend(presets?),
                Err(e)
                    if matches!(e.kind(), IoErrorKind::NotFound | IoErrorKind::NotADirectory) => {}
                Err(e) => return Err(Error::io(format!("read the VMMs of {}", path.display()), e)),
            }
        }
        if let Some(file) = file {
            all.extend(Self::load(file)?);
        }
        Ok(all)
    }

    /// The file that [`for_user`](Self::for_user) looks for: `$XDG_CONFIG_HOME/vmtorrent/vmm.toml`, or the system's
    /// equivalent; `None` when no home directory is known.
    pub fn user_file() -> Option<PathBuf> {
        Some(directories::config()?.join("vmm.toml"))
    }

    /// Those written in a text in the form of such a file.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] as for [`load`](Self::load).
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Self {
            presets: document::read(text, None)?,
        })
    }

    /// Takes those of `other` too; they replace those of the same name.
    pub fn extend(&mut self, other: Self) {
        self.presets.extend(other.presets);
    }

    /// The one of that name.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; the message names those that there are.
    pub fn get(&self, name: &str) -> Result<&Preset> {
        self.presets.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.presets.keys().map(String::as_str).collect();
            let text = format!(
                "there is no VMM {name:?}: choose one of {}, or define it in a file for --vmm-file",
                known.join(", ")
            );
            Error::new(ErrorKind::NotFound, text)
        })
    }

    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = &Preset> {
        self.presets.values()
    }

    fn read(path: &Path) -> std::io::Result<Result<Self>> {
        use std::io::Read;
        let mut bytes = Vec::new();
        std::fs::File::open(path)?
            .take(LARGEST + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST {
            let text = format!(
                "{}: more than {LARGEST} bytes are no list of VMMs: check the name",
                path.display()
            );
            return Ok(Err(Error::new(ErrorKind::InvalidInput, text)));
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => {
                let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
                let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
                let text = format!(
                    "{}, line {line}: not UTF-8; save the file as UTF-8",
                    path.display()
                );
                return Ok(Err(Error::new(ErrorKind::InvalidInput, text)));
            }
        };
        let presets = document::read(&text, Some(path));
        Ok(presets.map(|presets| Self { presets }))
    }
}
