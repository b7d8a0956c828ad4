//! Invariant: the text for people and the JSON object tell the same figures.

use std::fmt::{self, Display};

use serde::Serialize;

use super::{Access, BLOCK, Profile, ProfileFile, block_bytes, bytes_of, path_text};
use crate::chart::{Bytes, Plain, grouped, micros, percent};

impl Profile {
    /// What it holds, in figures: `Display` is a text of several lines for people, and [`ProfileSummary::to_json`] one
    /// JSON object with the same.
    pub fn summary(&self) -> ProfileSummary {
        ProfileSummary::of(self)
    }
}

/// The figures of a [`Profile`]. Times are microseconds of guest time.
#[derive(Debug, PartialEq, Serialize)]
pub struct ProfileSummary {
    name: String,
    info_hash: String,
    runs: u32,
    block_bytes: u64,
    /// Bytes of the image.
    image_bytes: u64,
    blocks: u64,
    /// Bytes of these blocks.
    bytes: u64,
    /// Earliest and latest time of any run; absent when nothing was read.
    first_us: Option<u64>,
    last_us: Option<u64>,
    files: Vec<FileSummary>,
    runs_of_blocks: Vec<Readers>,
    /// Absent unless a block was read in two runs.
    deviation: Option<Deviation>,
}

#[derive(Debug, PartialEq, Serialize)]
struct FileSummary {
    path: String,
    length: u64,
    blocks: u64,
    bytes: u64,
    first_us: Option<u64>,
    last_us: Option<u64>,
}

/// Blocks that so many runs read.
#[derive(Debug, PartialEq, Serialize)]
struct Readers {
    runs: u32,
    blocks: u64,
    bytes: u64,
}

/// Standard deviations of the times of blocks that two runs read, or more.
#[derive(Debug, PartialEq, Serialize)]
struct Deviation {
    blocks: u64,
    median_us: f64,
    p90_us: f64,
    max_us: f64,
}

impl ProfileSummary {
    /// One JSON object, in one line.
    pub fn to_json(&self) -> String {
        // Writing to memory does not fail, and all keys are strings.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn of(profile: &Profile) -> Self {
        let files: Vec<_> = profile.files().iter().map(FileSummary::of).collect();
        Self {
            name: profile.name().to_owned(),
            info_hash: profile.info_hash().to_string(),
            runs: profile.runs(),
            block_bytes: BLOCK,
            image_bytes: files
                .iter()
                .fold(0, |sum: u64, f| sum.saturating_add(f.length)),
            blocks: files.iter().map(|f| f.blocks).sum(),
            bytes: files.iter().map(|f| f.bytes).sum(),
            first_us: files.iter().filter_map(|f| f.first_us).min(),
            last_us: files.iter().filter_map(|f| f.last_us).max(),
            files,
            runs_of_blocks: readers(profile),
            deviation: Deviation::of(profile),
        }
    }
}

impl FileSummary {
    fn of(file: &ProfileFile) -> Self {
        let accesses = || file.blocks().values();
        Self {
            path: path_text(file),
            length: file.length(),
            blocks: file.blocks().len() as u64,
            bytes: bytes_of(file),
            first_us: accesses().map(Access::min).min(),
            last_us: accesses().map(Access::max).max(),
        }
    }
}

fn readers(profile: &Profile) -> Vec<Readers> {
    let mut found = std::collections::BTreeMap::<u32, (u64, u64)>::new();
    for file in profile.files() {
        for (block, access) in file.blocks() {
            let (blocks, bytes) = found.entry(access.runs()).or_default();
            *blocks += 1;
            *bytes += block_bytes(file, *block);
        }
    }
    let row = |(runs, (blocks, bytes))| Readers {
        runs,
        blocks,
        bytes,
    };
    found.into_iter().map(row).collect()
}

impl Deviation {
    fn of(profile: &Profile) -> Option<Self> {
        let accesses = profile.files().iter().flat_map(|f| f.blocks().values());
        let mut all: Vec<f64> = accesses
            .filter(|a| a.runs() > 1)
            .map(|a| a.variance().sqrt())
            .collect();
        all.sort_by(f64::total_cmp);
        // The smallest that so many percent do not exceed.
        let at = |percent: usize| all.get((all.len() * percent).div_ceil(100).saturating_sub(1));
        Some(Self {
            blocks: all.len() as u64,
            median_us: *at(50)?,
            p90_us: *at(90)?,
            max_us: *at(100)?,
        })
    }
}

impl Display for ProfileSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "image       {}, {}",
            Plain(&self.name),
            Bytes(self.image_bytes)
        )?;
        writeln!(f, "info-hash   {}", self.info_hash)?;
        writeln!(f, "runs        {}", self.runs)?;
        writeln!(
            f,
            "blocks      {} of {}: {}, {} of the image",
            grouped(self.blocks),
            Bytes(self.block_bytes),
            Bytes(self.bytes),
            percent(self.bytes, self.image_bytes)
        )?;
        let (Some(first), Some(last)) = (self.first_us, self.last_us) else {
            return writeln!(f, "guest time  nothing was read");
        };
        writeln!(
            f,
            "guest time  {} to {}",
            micros(first as f64),
            micros(last as f64)
        )?;

        writeln!(
            f,
            "\n{:>9}  {:>10}  {:>8}  {:>8}  {:>8}  file",
            "blocks", "bytes", "of it", "first", "last"
        )?;
        let time = |time: Option<u64>| time.map_or("–".to_owned(), |t| micros(t as f64));
        for file in &self.files {
            writeln!(
                f,
                "{:>9}  {:>10}  {:>8}  {:>8}  {:>8}  {}",
                grouped(file.blocks),
                Bytes(file.bytes).to_string(),
                percent(file.bytes, file.length),
                time(file.first_us),
                time(file.last_us),
                Plain(&file.path)
            )?;
        }

        writeln!(
            f,
            "\n{:>9}  {:>10}  {:>8}  read in",
            "blocks", "bytes", "of all"
        )?;
        for row in &self.runs_of_blocks {
            writeln!(
                f,
                "{:>9}  {:>10}  {:>8}  {} of {} runs",
                grouped(row.blocks),
                Bytes(row.bytes).to_string(),
                percent(row.blocks, self.blocks),
                row.runs,
                self.runs
            )?;
        }
        if let Some(deviation) = &self.deviation {
            writeln!(
                f,
                "\nstandard deviation of a block's time, of {} blocks that two runs read, or more:\n\
                 half of them up to {}, 90 % up to {}, all up to {}",
                grouped(deviation.blocks),
                micros(deviation.median_us),
                micros(deviation.p90_us),
                micros(deviation.max_us)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{boot, profile};
    use super::*;

    #[test]
    fn figures_are_those_of_the_accesses() {
        let profile = profile(
            3,
            &[(
                "a.img",
                100_000,
                &[(0, 3, 1000.0, 0.0), (5, 2, 3e6, 4e6), (6, 3, 5e6, 1e10)],
            )],
        );
        let summary = ProfileSummary::of(&profile);
        // The last block of the file has 100,000 - 6 x 16,384 bytes.
        assert_eq!((summary.blocks, summary.bytes), (3, 2 * 16_384 + 1696));
        assert_eq!(
            (summary.first_us, summary.last_us),
            (Some(1000), Some(5_100_000))
        );
        let rows: Vec<_> = summary
            .runs_of_blocks
            .iter()
            .map(|r| (r.runs, r.blocks))
            .collect();
        assert_eq!(rows, [(2, 1), (3, 2)]);
        let deviation = summary.deviation.as_ref().unwrap();
        assert_eq!((deviation.median_us, deviation.max_us), (2000.0, 100_000.0));
        let text = summary.to_string();
        for part in ["1.0 ms to 5.10 s", "2 of 3 runs", "33.3 %", "up to 100 ms"] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
    }

    #[test]
    fn an_empty_profile_and_one_of_one_block_are_told() {
        let empty = ProfileSummary::of(&profile(0, &[("a\u{1b}[2J.img", 0, &[])]));
        let text = empty.to_string();
        assert!(text.contains("nothing was read"), "{text}");
        assert_eq!(empty.deviation, None);
        let one = ProfileSummary::of(&profile(1, &[("a\u{1b}[2J.img", 5, &[(0, 1, 0.0, 0.0)])]));
        let text = one.to_string();
        assert!(
            text.contains("0 s to 0 s") && text.contains("100 %"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn a_boot_is_told_in_few_lines() {
        let text = ProfileSummary::of(&boot(5)).to_string();
        assert!(text.lines().count() < 30, "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() < 140),
            "{text}"
        );
    }
}
