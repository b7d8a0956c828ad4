//! Invariant: a name that passed [`Values::check`] means one machine to every VMM: no wildcard, no path, no option.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::appliance::{Appliance, boot_disk};
use crate::error::{Error, ErrorKind, Result};

/// Formats of disk images, by the names that templates and `--format` use, with the endings of file names that tell
/// them.
pub(super) const FORMATS: [(&str, &[&str]); 6] = [
    ("raw", &[]),
    ("qcow2", &["qcow2", "qcow"]),
    ("vmdk", &["vmdk"]),
    ("vdi", &["vdi"]),
    ("vhd", &["vhd", "vpc"]),
    ("vhdx", &["vhdx"]),
];

const MIB: u64 = 1 << 20;

/// Most characters of a machine's name.
const LONGEST_NAME: usize = 80;

/// What the placeholders of a preset stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values {
    /// `{disk}`: the disk to boot from, an absolute path.
    pub disk: PathBuf,
    /// Length of the disk's file, bytes; `{sectors}` and `{cylinders}` come of it.
    pub disk_bytes: u64,
    /// `{format}`: one of raw, qcow2, vmdk, vdi, vhd, vhdx.
    pub format: String,
    /// `{dir}`: the directory of all files of the image.
    pub directory: PathBuf,
    /// `{work}`: a directory of this run alone, removed at its end by whoever made it. Generated files and sockets are
    /// there; on Unix its path should be short, since a socket's is at most 107 bytes.
    pub work: PathBuf,
    /// `{keep}`: a directory that stays from run to run of this machine; made when a preset uses it.
    pub keep: PathBuf,
    /// `{name}`: what the VMM calls the machine.
    pub name: String,
    /// `{memory}` in bytes, `{memory_mib}` in MiB: whole MiB. Default 1 GiB.
    pub memory: u64,
    /// `{cpus}`. Default 1.
    pub cpus: u32,
    /// Variables of the preset that are set to another value than their default.
    pub set: BTreeMap<String, String>,
    /// Words that are put behind the command line that runs the machine.
    pub extra: Vec<OsString>,
}

impl Values {
    /// Memory of a machine for which nobody says how much, bytes.
    pub const MEMORY: u64 = 1 << 30;

    /// The values for a disk of that length, with defaults for the rest: the format is told by the end of the disk's
    /// name, and raw without a known one. The content is not looked at: a guest that writes a raw disk could make it
    /// look like another format, one that names files of the host.
    pub fn new(disk: impl Into<PathBuf>, disk_bytes: u64, work: impl Into<PathBuf>) -> Self {
        let (disk, work) = (disk.into(), work.into());
        Self {
            format: format_of(&disk).to_owned(),
            name: Self::name_for(&disk.file_stem().unwrap_or_default().to_string_lossy()),
            directory: disk.parent().map(Path::to_owned).unwrap_or_default(),
            keep: work.join("keep"),
            disk,
            disk_bytes,
            work,
            memory: Self::MEMORY,
            cpus: 1,
            set: BTreeMap::new(),
            extra: Vec::new(),
        }
    }

    /// The values for the boot disk of an appliance that is mounted; `{keep}` is `vmm` in its state directory.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is not mounted.
    pub fn for_appliance(appliance: &Appliance, work: impl Into<PathBuf>) -> Result<Self> {
        let disk = appliance.disk_path();
        let (Some(disk), Some(directory)) = (disk, appliance.directory()) else {
            let text = "the appliance is not mounted, so a VMM can't open its disk: set ApplianceOptions::mount";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        };
        let bytes =
            boot_disk(appliance.image()).map_or(Ok(0), |(index, _)| appliance.len(index))?;
        Ok(Self {
            directory: directory.to_owned(),
            keep: appliance.state_directory().join("vmm"),
            name: Self::name_for(appliance.image().name()),
            ..Self::new(disk, bytes, work)
        })
    }

    /// A name like this one that every VMM takes.
    pub fn name_for(text: &str) -> String {
        let fit = |c: char| if name_may_hold(c) { c } else { '_' };
        let name: String = text.chars().take(LONGEST_NAME).map(fit).collect();
        let name = name.trim().trim_start_matches('-');
        if name.is_empty() {
            "vmtorrent".to_owned()
        } else {
            name.to_owned()
        }
    }

    /// What a preset relies on, whatever it is.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::new(ErrorKind::InvalidInput, text));
        let paths = [&self.disk, &self.directory, &self.work, &self.keep];
        if let Some(path) = paths.into_iter().find(|path| !path.is_absolute()) {
            return refuse(format!(
                "{} is not an absolute path: give the whole path",
                path.display()
            ));
        }
        if self.memory == 0 || !self.memory.is_multiple_of(MIB) {
            return refuse(format!(
                "{} bytes of memory are not whole MiB: give for example 1G",
                self.memory
            ));
        }
        if self.cpus == 0 {
            return refuse("a machine needs a processor: give at least 1".to_owned());
        }
        let name = &self.name;
        let fits = !name.is_empty()
            && name.chars().count() <= LONGEST_NAME
            && name.chars().all(name_may_hold)
            && name.trim() == name
            && !name.starts_with('-');
        if !fits {
            return refuse(format!(
                "{name:?} can't name a machine: use at most {LONGEST_NAME} characters, no space at the ends, no - at \
                 the beginning, and none of * ? [ ] < > | \" / \\ : and control characters"
            ));
        }
        if !FORMATS.iter().any(|(known, _)| *known == self.format) {
            let known = FORMATS.map(|(known, _)| known).join(", ");
            return refuse(format!(
                "{:?} is no format of disk images that is known here: give one of {known}",
                self.format
            ));
        }
        Ok(())
    }

    /// Sectors of 512 bytes on the disk.
    pub(super) fn sectors(&self) -> Result<u64, String> {
        match self.disk_bytes % 512 {
            0 if self.disk_bytes > 0 => Ok(self.disk_bytes / 512),
            _ => Err(format!(
                "the disk has {} bytes, which are not whole sectors of 512: a raw image for this VMM has to",
                self.disk_bytes
            )),
        }
    }
}

/// Wildcards would name other machines too, separators another place.
fn name_may_hold(c: char) -> bool {
    !c.is_control() && !"*?[]<>|\"/\\:".contains(c)
}

/// By the end of the name.
fn format_of(disk: &Path) -> &'static str {
    let end = disk.extension().unwrap_or_default().to_string_lossy();
    let end = end.to_ascii_lowercase();
    let found = FORMATS
        .iter()
        .find(|(_, ends)| ends.contains(&end.as_str()));
    found.map_or("raw", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_that_of_the_name_and_never_of_the_content() {
        for (name, format) in [
            ("a.img", "raw"),
            ("a", "raw"),
            ("a.QCOW2", "qcow2"),
            ("a.vhd", "vhd"),
            ("a.vhdx", "vhdx"),
            ("a.qcow2.img", "raw"),
        ] {
            assert_eq!(format_of(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn names_that_would_hit_other_machines_are_refused_and_others_are_made_to_fit() {
        let values = |name: &str| Values {
            name: name.to_owned(),
            ..Values::new("/m/a.img", 512, "/w")
        };
        for good in ["debian", "it's, mine (2)", "ä", "a-b"] {
            values(good).check().unwrap();
            assert_eq!(Values::name_for(good), good);
        }
        let long = "x".repeat(LONGEST_NAME + 1);
        for bad in [
            "", "*", "a?", "a[1]", "-rf", " a", "a ", "a/b", "a\nb", "a\"b", "a\0", &long,
        ] {
            let error = values(bad).check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
            values(&Values::name_for(bad)).check().unwrap();
        }
    }

    #[test]
    fn values_that_no_machine_can_have_are_refused() {
        let good = Values::new("/m/a.img", 1024, "/w");
        good.check().unwrap();
        assert_eq!(good.sectors(), Ok(2));
        for bad in [
            Values {
                disk: "a.img".into(),
                ..good.clone()
            },
            Values {
                work: "w".into(),
                ..good.clone()
            },
            Values {
                memory: 0,
                ..good.clone()
            },
            Values {
                memory: MIB + 1,
                ..good.clone()
            },
            Values {
                cpus: 0,
                ..good.clone()
            },
            Values {
                format: "iso".into(),
                ..good.clone()
            },
        ] {
            bad.check().unwrap_err();
        }
        assert!(
            Values {
                disk_bytes: 513,
                ..good.clone()
            }
            .sectors()
            .is_err()
        );
        assert!(
            Values {
                disk_bytes: 0,
                ..good
            }
            .sectors()
            .is_err()
        );
    }
}
