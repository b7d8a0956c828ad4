//! A profile as JSON.
//!
//! Invariant: what is read is bounded by the length of the text, and nothing in it is believed that can't be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Access, BLOCK, Profile, ProfileFile};
use crate::image::InfoHash;
use crate::whole_file;
use crate::{Error, ErrorKind, Result};

/// What every such file begins with.
const FORMAT: &str = "vmtorrent profile";
/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;
/// Bytes that a profile may have as a text.
const MAX_LENGTH: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Text {
    format: String,
    version: u32,
    info_hash: String,
    name: String,
    runs: u32,
    block_bytes: u64,
    /// For people: what the numbers of `accesses` mean.
    #[serde(default)]
    columns: Vec<String>,
    files: Vec<FileText>,
}

/// What tells another version apart, whatever else stands in it.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct FileText {
    path: Vec<String>,
    length: u64,
    accesses: Vec<Row>,
}

/// Block, runs, mean, variance, min, max, content. By mean time, so that a row's place is its rank.
type Row = (u32, u32, f64, f64, u64, u64, Option<u32>);

const COLUMNS: [&str; 7] = [
    "block",
    "runs",
    "mean_us",
    "variance_us2",
    "min_us",
    "max_us",
    "crc32c",
];

impl Profile {
    /// Bytes of text that a profile may have to travel in a .torrent file or from peer to peer: some 60,000 blocks.
    pub const MAX_ATTACHED: usize = 4 << 20;

    /// The profile as a text (JSON).
    pub fn to_json(&self) -> Vec<u8> {
        let file = |file: &ProfileFile| {
            let mut accesses: Vec<Row> = file.blocks.iter().map(|(b, a)| row(*b, a)).collect();
            accesses.sort_by(|a, b| a.2.total_cmp(&b.2).then(a.0.cmp(&b.0)));
            FileText {
                path: file.path.clone(),
                length: file.length,
                accesses,
            }
        };
        let text = Text {
            format: FORMAT.to_owned(),
            version: VERSION,
            info_hash: self.info_hash.to_string(),
            name: self.name.clone(),
            runs: self.runs,
            block_bytes: BLOCK,
            columns: COLUMNS.map(str::to_owned).to_vec(),
            files: self.files.iter().map(file).collect(),
        };
        // Only maps with keys that are no text, and writers that fail, make this fail.
        serde_json::to_vec(&text).unwrap_or_default()
    }

    /// The profile as a text of at most [`MAX_ATTACHED`](Self::MAX_ATTACHED) bytes, without what is read last if it
    /// would be longer; empty if not even the names of the files fit.
    pub(crate) fn to_attached(&self) -> Vec<u8> {
        self.to_json_within(Self::MAX_ATTACHED)
    }

    fn to_json_within(&self, most: usize) -> Vec<u8> {
        let text = self.to_json();
        if text.len() <= most {
            return text;
        }
        let mut count = self.block_count();
        let mut length = text.len();
        while count > 0 {
            // Some less than would fit on average, so that once is mostly enough.
            count = (count as f64 * 0.95 * most as f64 / length as f64) as usize;
            let text = self.first(count).to_json();
            if text.len() <= most {
                return text;
            }
            length = text.len();
        }
        Vec::new()
    }

    /// Reads a text that [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// `InvalidInput` when it is none, or can't be true; the message names the place.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        if text.len() as u64 > MAX_LENGTH {
            return Err(too_large());
        }
        let text: Text = serde_json::from_slice(text).map_err(|error| {
            // Of another version nothing needs to be as here.
            let head = serde_json::from_slice::<Head>(text).ok();
            let other = head.and_then(|head| check_head(&head.format, head.version).err());
            let none =
                || Error::with_source(ErrorKind::InvalidInput, "this is no whole profile", error);
            other.unwrap_or_else(none)
        })?;
        check_head(&text.format, text.version.into())?;
        if text.block_bytes != BLOCK {
            return Err(invalid(format!(
                "has blocks of {} bytes, not {BLOCK}",
                text.block_bytes
            )));
        }
        let info_hash = parse_hash(&text.info_hash)
            .ok_or_else(|| invalid(format!("names no info-hash: {:?}", text.info_hash)))?;
        let mut paths = BTreeSet::new();
        if let Some(twice) = text.files.iter().find(|f| !paths.insert(&f.path)) {
            let name = twice.path.join("/");
            return Err(invalid(format!("names the file {name:?} twice")));
        }
        let files = text.files.into_iter().map(|f| file(f, text.runs));
        Ok(Self {
            info_hash,
            name: text.name,
            runs: text.runs,
            files: files.collect::<Result<_>>()?,
        })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Those of the file system, and of [`from_json`](Self::from_json), naming the path.
    pub fn load(path: &Path) -> Result<Self> {
        let at = path.display();
        let failed = |e| Error::io(format!("cannot read the profile {at}"), e);
        let mut text = Vec::new();
        // Its length says nothing of a device, or of a file that grows.
        File::open(path)
            .and_then(|file| file.take(MAX_LENGTH + 1).read_to_end(&mut text))
            .map_err(failed)?;
        Self::from_json(&text).map_err(|e| {
            let remedy =
                "take another copy of it, or record it again with the option `record` of a launch";
            Error::with_source(
                ErrorKind::InvalidInput,
                format!("cannot use the profile {at} ({remedy})"),
                e,
            )
        })
    }

    /// Writes a file in one step: at no time is there half a profile at `path`. What is read last is left out when it
    /// would have more than the 64 MiB that [`load`](Self::load) takes.
    ///
    /// # Errors
    /// Those of the file system, naming the path.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.save_within(path, MAX_LENGTH as usize)
    }

    fn save_within(&self, path: &Path, most: usize) -> Result<()> {
        whole_file::write(path, &self.to_json_within(most))
    }
}

fn check_head(format: &str, version: u64) -> Result<()> {
    if format != FORMAT {
        return Err(invalid(format!(
            "begins with another format than {FORMAT:?}"
        )));
    }
    if version != u64::from(VERSION) {
        return Err(invalid(format!(
            "has version {version}, and only {VERSION} is known here: record it again, or use a newer vmtorrent"
        )));
    }
    Ok(())
}

fn too_large() -> Error {
    invalid(format!("is larger than {} MiB", MAX_LENGTH >> 20))
}

/// Forty hexadecimal digits.
fn parse_hash(text: &str) -> Option<InfoHash> {
    let mut hash = [0; 20];
    let digits = text.as_bytes().as_chunks::<2>();
    if digits.0.len() != hash.len() || !digits.1.is_empty() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits.0) {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|p| !p.starts_with('+'))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(InfoHash(hash))
}

fn row(block: u32, access: &Access) -> Row {
    // A tenth of a microsecond is enough for everybody.
    let round = |x: f64| (x * 10.0).round() / 10.0;
    (
        block,
        access.runs(),
        round(access.mean()),
        round(access.variance()),
        access.min(),
        access.max(),
        access.content(),
    )
}

fn file(text: FileText, runs: u32) -> Result<ProfileFile> {
    let mut file = ProfileFile {
        path: text.path,
        length: text.length,
        blocks: BTreeMap::new(),
    };
    let name = file.path.join("/");
    for (block, in_runs, mean, variance, min, max, content) in text.accesses {
        let wrong = |why: &str| invalid(format!("block {block} of {name:?} {why}"));
        if block >= file.block_end() {
            return Err(wrong("lies behind the end of the file"));
        }
        if in_runs > runs {
            return Err(wrong("was read in more runs than there were"));
        }
        let access = Access::from_parts(in_runs, mean, variance, min, max, content)
            .ok_or_else(|| wrong("has times that contradict each other"))?;
        if file.blocks.insert(block, access).is_some() {
            return Err(wrong("stands there twice"));
        }
    }
    Ok(file)
}

fn invalid(what: String) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("the profile {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_image::image_of;
    use serde_json::{Value, json};

    fn profile() -> Profile {
        let image = image_of(&vec![3; 9 * BLOCK as usize + 5], 64 << 10);
        let mut profile = Profile::new(&image);
        profile.runs = 2;
        for (block, time) in [(9, 5), (0, 1_000_000), (4, 70)] {
            let mut access = Access::once(time, Some(block * 3));
            if block != 4 {
                access.add(&Access::once(time + 31, None));
            }
            profile.files[0].blocks.insert(block, access);
        }
        profile
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let written = profile();
        let read = Profile::from_json(&written.to_json()).unwrap();
        assert_eq!(read.in_order().len(), 3);
        for (a, b) in read.in_order().iter().zip(written.in_order()) {
            assert_eq!((a.0, a.1), (b.0, b.1));
            assert_eq!(
                (a.2.runs(), a.2.min(), a.2.max()),
                (b.2.runs(), b.2.min(), b.2.max())
            );
            assert!((a.2.mean() - b.2.mean()).abs() < 0.1);
            assert!((a.2.variance() - b.2.variance()).abs() < 0.1);
        }
        // Once rounded, it stays so.
        assert_eq!(Profile::from_json(&read.to_json()).unwrap(), read);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.json");
        read.save(&path).unwrap();
        read.save(&path).unwrap();
        assert_eq!(Profile::load(&path).unwrap(), read);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_text_that_is_bounded_leaves_out_what_is_read_last() {
        let image = image_of(&vec![3; 1000 * BLOCK as usize], 64 << 10);
        let mut whole = Profile::new(&image);
        whole.runs = 1;
        for block in 0..1000 {
            let access = Access::once(10_000_000 - u64::from(block), None);
            whole.files[0].blocks.insert(block, access);
        }
        let length = whole.to_json().len();
        assert_eq!(whole.to_json_within(length), whole.to_json());
        for most in [length - 1, length / 2, 1000] {
            let text = whole.to_json_within(most);
            assert!(text.len() <= most);
            assert!(text.len() > most * 3 / 4, "{} of {most}", text.len());
            let cut = Profile::from_json(&text).unwrap();
            let kept: Vec<u32> = cut.files[0].blocks.keys().copied().collect();
            let first = 1000 - kept.len() as u32;
            assert_eq!(kept, (first..1000).collect::<Vec<_>>());
        }
        assert!(whole.to_json_within(100).is_empty());
        // What is written can be read again.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.json");
        whole.save_within(&path, length / 2).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() <= length as u64 / 2);
        assert!(Profile::load(&path).unwrap().block_count() > 300);
    }

    #[test]
    fn what_has_no_end_or_is_too_large_is_refused_without_reading_it_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.json");
        std::fs::File::create(&path)
            .unwrap()
            .set_len(MAX_LENGTH + 1)
            .unwrap();
        let mut paths = vec![path];
        if cfg!(unix) {
            paths.push("/dev/zero".into());
        }
        for path in paths {
            let error = Profile::load(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let message = error.to_string();
            for part in [
                path.to_str().unwrap(),
                "larger than 64 MiB",
                "record it again",
            ] {
                assert!(message.contains(part), "{message}");
            }
        }
    }

    fn refused(change: impl Fn(&mut Value), why: &str) {
        let mut text: Value = serde_json::from_slice(&profile().to_json()).unwrap();
        change(&mut text);
        let error = Profile::from_json(text.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(why), "{error}");
    }

    #[test]
    fn what_cannot_be_true_is_refused_with_its_place() {
        refused(|t| t["version"] = json!(2), "version 2");
        // In which nothing else is as here.
        refused(
            |t| *t = json!({"format": FORMAT, "version": 2, "runs": []}),
            "version 2",
        );
        refused(
            |t| *t = json!({"format": FORMAT, "version": 1, "runs": []}),
            "no whole profile",
        );
        refused(|t| t["format"] = json!("x"), "another format");
        refused(|t| t["block_bytes"] = json!(4096), "blocks of 4096");
        refused(|t| t["info_hash"] = json!("zz"), "no info-hash");
        refused(|t| t["runs"] = json!(1), "more runs");
        refused(|t| t["files"][0]["length"] = json!(100), "behind the end");
        refused(
            |t| t["files"][0]["accesses"][0][0] = json!(-1),
            "no whole profile",
        );
        refused(
            |t| t["files"][0]["accesses"][0][2] = json!(1e300),
            "contradict",
        );
        refused(
            |t| t["files"][0]["accesses"][0][3] = json!(-4.0),
            "contradict",
        );
        refused(
            |t| {
                let first = t["files"][0]["accesses"][0].clone();
                t["files"][0]["accesses"][1] = first;
            },
            "twice",
        );
        refused(
            |t| {
                let first = t["files"][0].clone();
                t["files"].as_array_mut().unwrap().push(first);
            },
            "\"disk.img\" twice",
        );
        let whole = profile().to_json();
        for end in [0, 1, whole.len() / 2, whole.len() - 1] {
            assert!(Profile::from_json(&whole[..end]).is_err());
        }
    }
}
