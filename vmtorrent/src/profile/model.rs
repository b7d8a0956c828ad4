//! Invariant: no block lies behind the end of its file, and none was read in more runs than there were.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Access, BLOCK};
use crate::image::{Image, InfoHash};
use crate::{Error, ErrorKind, Result};

/// When the runs of a machine first read each block of its image.
///
/// Keyed by file and place, not by piece: it stays good when the image is published in other pieces.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    pub(super) info_hash: InfoHash,
    pub(super) name: String,
    pub(super) runs: u32,
    pub(super) files: Vec<ProfileFile>,
}

/// What was read of one file.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileFile {
    pub(super) path: Vec<String>,
    pub(super) length: u64,
    pub(super) blocks: BTreeMap<u32, Access>,
}

/// How much of a profile of another image fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Blocks that both know, with the same bytes.
    pub same: u64,
    /// Blocks that both know, with other bytes or with bytes that one doesn't know: left out.
    pub different: u64,
    /// Blocks that only the other one knows: taken over, since nothing speaks against them.
    pub unknown: u64,
    /// Blocks of files that this image does not have: left out.
    pub elsewhere: u64,
}

impl Profile {
    /// No run yet.
    pub fn new(image: &Image) -> Self {
        let shown = image.files().iter().filter(|f| !f.padding);
        Self {
            info_hash: image.info_hash(),
            name: image.name().to_owned(),
            runs: 0,
            files: shown
                .map(|file| ProfileFile {
                    path: file.path.clone(),
                    length: file.length,
                    blocks: BTreeMap::new(),
                })
                .collect(),
        }
    }

    /// Identity of the image that was run.
    pub fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// Name of that image.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs that it is made of.
    pub fn runs(&self) -> u32 {
        self.runs
    }

    /// The files of the image, with what was read of each.
    pub fn files(&self) -> &[ProfileFile] {
        &self.files
    }

    /// Distinct blocks that were read.
    pub fn block_count(&self) -> usize {
        self.files.iter().map(|f| f.blocks.len()).sum()
    }

    /// Every block with its file's index, by mean time.
    pub fn in_order(&self) -> Vec<(usize, u32, Access)> {
        let files = self.files.iter().enumerate();
        let mut all: Vec<_> = files
            .flat_map(|(i, f)| {
                f.blocks
                    .iter()
                    .map(move |(block, access)| (i, *block, *access))
            })
            .collect();
        all.sort_by(|a, b| {
            let times = a.2.mean().total_cmp(&b.2.mean());
            times.then((a.0, a.1).cmp(&(b.0, b.1)))
        });
        all
    }

    /// The same with no more than `count` blocks: those that are read first.
    pub(super) fn first(&self, count: usize) -> Self {
        let mut first = Self {
            info_hash: self.info_hash,
            name: self.name.clone(),
            runs: self.runs,
            files: self.files.iter().map(ProfileFile::emptied).collect(),
        };
        for (file, block, access) in self.in_order().into_iter().take(count) {
            if let Some(file) = first.files.get_mut(file) {
                file.blocks.insert(block, access);
            }
        }
        first
    }

    /// Says of how many runs it is made.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn set_runs(&mut self, runs: u32) {
        self.runs = runs;
    }

    /// Notes a block of a file.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn insert(&mut self, file: usize, block: u32, access: Access) {
        self.files[file].blocks.insert(block, access);
    }

    /// A profile that an image can be run with: of the image itself, or of the same files published in another way, in
    /// other pieces for instance.
    ///
    /// # Errors
    /// `InvalidInput` when it is of another image, naming both.
    pub fn for_image(image: &Image, other: &Profile) -> Result<Self> {
        let mut own = Self::new(image);
        let same_files = || {
            let (ours, theirs) = (own.files.iter(), other.files.iter());
            own.files.len() == other.files.len()
                && ours
                    .zip(theirs)
                    .all(|(a, b)| a.path == b.path && a.length == b.length)
        };
        if other.info_hash != own.info_hash && !same_files() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "the profile is of another image: of {} ({}), not of {} ({}); record one of this image",
                    other.name, other.info_hash, own.name, own.info_hash
                ),
            ));
        }
        own.add(other, |_, _| true);
        Ok(own)
    }

    /// Adds the runs of another profile of the same image.
    ///
    /// # Errors
    /// `InvalidInput` when it is of another image, naming both.
    pub fn merge(&mut self, other: &Profile) -> Result<()> {
        if other.info_hash != self.info_hash {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "profiles of two images can't be merged: {} ({}) and {} ({}); leave one out, or have what \
                     they have in common merged by force",
                    self.name, self.info_hash, other.name, other.info_hash
                ),
            ));
        }
        self.add(other, |_, _| true);
        Ok(())
    }

    /// Adds what fits of the runs of a profile, also of another image: an older version of this one, for instance.
    pub fn merge_by_force(&mut self, other: &Profile) -> Mismatch {
        let mut found = Mismatch::default();
        let paths: HashSet<_> = self.files.iter().map(|f| f.path.clone()).collect();
        for file in other.files.iter().filter(|f| !paths.contains(&f.path)) {
            found.elsewhere += file.blocks.len() as u64;
        }
        let same_image = other.info_hash == self.info_hash;
        self.add(other, |ours, theirs| match ours {
            None => {
                found.unknown += 1;
                true
            }
            Some(ours) => {
                let known = ours.content().is_some() && ours.content() == theirs.content();
                let same = same_image || known;
                found.same += u64::from(same);
                found.different += u64::from(!same);
                same
            }
        });
        found
    }

    fn add(&mut self, other: &Profile, mut fits: impl FnMut(Option<&Access>, &Access) -> bool) {
        self.runs = self.runs.saturating_add(other.runs);
        // There may be as many files as a text has room for.
        let places = self.files.iter().enumerate();
        let places: HashMap<Vec<String>, usize> =
            places.map(|(n, file)| (file.path.clone(), n)).collect();
        for theirs in &other.files {
            let place = places.get(&theirs.path);
            let Some(ours) = place.and_then(|n| self.files.get_mut(*n)) else {
                continue;
            };
            let end = ours.block_end();
            for (block, access) in theirs.blocks.range(..end) {
                let known = ours.blocks.get_mut(block);
                if !fits(known.as_deref(), access) {
                    continue;
                }
                match known {
                    Some(known) => known.add(access),
                    None => {
                        ours.blocks.insert(*block, *access);
                    }
                }
            }
        }
    }
}

impl ProfileFile {
    /// Path below the appliance's directory.
    pub fn path(&self) -> &[String] {
        &self.path
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Blocks of [`BLOCK`] bytes that were read, by their number.
    pub fn blocks(&self) -> &BTreeMap<u32, Access> {
        &self.blocks
    }

    fn emptied(&self) -> Self {
        Self {
            path: self.path.clone(),
            length: self.length,
            blocks: BTreeMap::new(),
        }
    }

    /// Behind the last block.
    pub(super) fn block_end(&self) -> u32 {
        u32::try_from(self.length.div_ceil(BLOCK)).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_image::image_of;

    fn profile(seed: u8, reads: &[(u32, u64, u32)]) -> Profile {
        let image = image_of(&vec![seed; 10 * BLOCK as usize + 1], 64 << 10);
        let mut profile = Profile::new(&image);
        profile.runs = 1;
        for &(block, time, content) in reads {
            profile.files[0]
                .blocks
                .insert(block, Access::once(time, Some(content)));
        }
        profile
    }

    #[test]
    fn runs_of_one_image_are_merged_and_stand_in_the_order_of_their_mean() {
        let mut sum = profile(1, &[(0, 100, 5), (3, 900, 6)]);
        sum.merge(&profile(1, &[(3, 100, 6), (10, 40, 7)])).unwrap();
        assert_eq!((sum.runs(), sum.block_count()), (2, 3));
        let order: Vec<_> = sum
            .in_order()
            .iter()
            .map(|(_, b, a)| (*b, a.runs()))
            .collect();
        assert_eq!(order, [(10, 1), (0, 1), (3, 2)]);
        let third = sum.files()[0].blocks()[&3];
        assert_eq!((third.mean(), third.min(), third.max()), (500.0, 100, 900));
    }

    #[test]
    fn runs_of_another_image_are_refused_with_both_names_or_merged_where_they_fit() {
        let mut sum = profile(1, &[(0, 100, 5), (3, 900, 6)]);
        let other = profile(2, &[(0, 300, 5), (3, 100, 66), (4, 50, 7)]);
        let error = sum.merge(&other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        for hash in [sum.info_hash(), other.info_hash()] {
            assert!(error.to_string().contains(&hash.to_string()), "{error}");
        }
        assert_eq!(sum, profile(1, &[(0, 100, 5), (3, 900, 6)]));
        let found = sum.merge_by_force(&other);
        let expected = Mismatch {
            same: 1,
            different: 1,
            unknown: 1,
            elsewhere: 0,
        };
        assert_eq!(found, expected);
        assert_eq!(sum.files()[0].blocks()[&0].mean(), 200.0);
        assert_eq!(sum.files()[0].blocks()[&3].runs(), 1);
    }

    #[test]
    fn as_many_files_as_a_text_may_name_are_merged_in_no_time() {
        let mut many = profile(1, &[]);
        let file = many.files[0].clone();
        many.files = (0..20_000)
            .map(|n| ProfileFile {
                path: vec!["directory".to_owned(), format!("file {n:05}")],
                ..file.clone()
            })
            .collect();
        let began = std::time::Instant::now();
        let other = many.clone();
        many.merge(&other).unwrap();
        assert_eq!(many.merge_by_force(&other), Mismatch::default());
        let took = began.elapsed();
        assert!(took.as_secs() < 2, "{took:?}");
        assert_eq!(many.runs(), 3);
    }
}
