//! Invariant: what was synced survives a loss of power; of what was not, each sector, each file's length and the
//! order of names survive in any state that they were in since then.
//!
//! A sync that fails behaves as Linux does: what it could not write is taken for clean, so it is still read, and no
//! later sync writes it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::storage::{StorageDirectory, StorageFile};
use crate::file_pool::SyncError;

/// Bytes that a disk writes at once or not at all.
pub(super) const SECTOR: usize = 512;

type Sector = [u8; SECTOR];

/// A directory in memory from which the power can be taken.
#[derive(Clone)]
pub(super) struct SimulatedDisk {
    inner: Arc<Mutex<Inner>>,
}

/// How a call fails, without effect or half done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No space is left.
    Space,
    /// The disk reports an I/O error.
    Io,
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Space => io::ErrorKind::StorageFull.into(),
            Self::Io => vmtorrent_platform::Errno::EIO.into(),
        }
    }
}

/// Which of the states since the last sync a loss of power leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    /// That of the sync: nothing later was written.
    Oldest,
    /// All of it was written.
    Newest,
    /// Any, for each sector by itself.
    Random,
}

/// What a loss of power leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Survival {
    /// Of the content of data files.
    pub(super) data: Pick,
    /// Of the content of all other files.
    pub(super) maps: Pick,
    /// Of the lengths of files.
    pub(super) lengths: Pick,
    /// Of the names.
    pub(super) names: Pick,
}

impl Survival {
    /// Anything may happen.
    pub(super) const RANDOM: Self = Self {
        data: Pick::Random,
        maps: Pick::Random,
        lengths: Pick::Random,
        names: Pick::Random,
    };

    /// Every way in which a part survives as a whole or not at all.
    pub(super) fn extremes() -> impl Iterator<Item = Self> {
        (0..16).map(|bits| {
            let pick = |bit| {
                if bits >> bit & 1 == 0 {
                    Pick::Oldest
                } else {
                    Pick::Newest
                }
            };
            Self {
                data: pick(0),
                maps: pick(1),
                lengths: pick(2),
                names: pick(3),
            }
        })
    }
}

impl Pick {
    /// The index of one of `states` that came after the synced one; `None` for that.
    fn choose(self, states: usize, random: &mut u64) -> Option<usize> {
        match self {
            Self::Oldest => None,
            Self::Newest => states.checked_sub(1),
            Self::Random => Some(draw(random, states + 1)).filter(|i| *i < states),
        }
    }
}

/// Something that happens while a call is under way.
type Interruption = Box<dyn FnOnce() + Send>;

struct Inner {
    files: Vec<FileState>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Every state of the names since the last sync of the directory.
    past_names: Vec<BTreeMap<String, usize>>,
    /// Changing calls so far.
    calls: u32,
    /// Changing calls until the power goes.
    power_for: Option<u32>,
    /// Changing calls until one fails.
    fault_after: Option<(u32, Fault)>,
    /// Beginnings and ends of changing calls until something happens.
    interrupt_after: Option<(u32, Interruption)>,
    /// Data files can't be opened to be synced.
    unopenable: Option<Fault>,
    random: u64,
}

#[derive(Clone, Default)]
struct FileState {
    is_data: bool,
    content: Vec<u8>,
    durable: Vec<u8>,
    /// What each sector held since the last sync, beside `durable`.
    past_sectors: BTreeMap<usize, Vec<Sector>>,
    past_lengths: Vec<usize>,
}

fn sector_of(bytes: &[u8], index: usize) -> Sector {
    let mut sector = [0; SECTOR];
    let start = (index * SECTOR).min(bytes.len());
    let end = (start + SECTOR).min(bytes.len());
    sector[..end - start].copy_from_slice(&bytes[start..end]);
    sector
}

fn put_sector(bytes: &mut [u8], index: usize, sector: &Sector) {
    let start = (index * SECTOR).min(bytes.len());
    let end = (start + SECTOR).min(bytes.len());
    bytes[start..end].copy_from_slice(&sector[..end - start]);
}

impl FileState {
    fn note(&mut self, start: usize, end: usize) {
        for index in start / SECTOR..end.div_ceil(SECTOR) {
            let sector = sector_of(&self.content, index);
            self.past_sectors.entry(index).or_default().push(sector);
        }
        self.past_lengths.push(self.content.len());
    }

    fn write(&mut self, data: &[u8], offset: usize) {
        let end = offset + data.len();
        if end > self.content.len() {
            self.content.resize(end, 0);
        }
        self.content[offset..end].copy_from_slice(data);
        self.note(offset, end);
    }

    fn set_len(&mut self, length: usize) {
        let before = self.content.len();
        self.content.resize(length, 0);
        self.note(length.min(before), before);
    }

    fn sync(&mut self) {
        self.durable.resize(self.content.len(), 0);
        for index in std::mem::take(&mut self.past_sectors).into_keys() {
            let sector = sector_of(&self.content, index);
            put_sector(&mut self.durable, index, &sector);
        }
        self.past_lengths.clear();
    }

    /// Some of it is written, the rest never will be, and is taken for written.
    fn fail_sync(&mut self, random: &mut u64) {
        self.durable.resize(self.content.len(), 0);
        self.past_lengths.clear();
        self.settle(Pick::Random, random);
    }

    /// Chooses what of each changed sector is on the disk.
    fn settle(&mut self, pick: Pick, random: &mut u64) {
        for (index, values) in std::mem::take(&mut self.past_sectors) {
            if let Some(chosen) = pick.choose(values.len(), random) {
                put_sector(&mut self.durable, index, &values[chosen]);
            }
        }
    }

    fn forget_cache(&mut self) {
        for index in 0..self.content.len().div_ceil(SECTOR) {
            if !self.past_sectors.contains_key(&index) {
                let sector = sector_of(&self.durable, index);
                put_sector(&mut self.content, index, &sector);
            }
        }
    }

    fn lose_power(&mut self, survival: Survival, random: &mut u64) {
        let chosen = survival.lengths.choose(self.past_lengths.len(), random);
        let length = chosen.map_or(self.durable.len(), |i| self.past_lengths[i]);
        self.durable.resize(length, 0);
        let pick = if self.is_data {
            survival.data
        } else {
            survival.maps
        };
        self.settle(pick, random);
        self.past_lengths.clear();
        self.content = self.durable.clone();
    }
}

/// A number below `bound`.
fn draw(random: &mut u64, bound: usize) -> usize {
    // SplitMix64.
    *random = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *random;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) % bound as u64) as usize
}

impl Inner {
    /// Counts a changing call: whether it may go on, or how it fails.
    fn spend(&mut self) -> io::Result<()> {
        self.calls += 1;
        match &mut self.power_for {
            Some(0) => return Err(io::Error::other("the power is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        match &mut self.fault_after {
            Some((0, fault)) => {
                let error = fault.error();
                self.fault_after = None;
                return Err(error);
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn is_powered(&self) -> bool {
        self.power_for != Some(0)
    }
}

impl SimulatedDisk {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                files: Vec::new(),
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                past_names: Vec::new(),
                calls: 0,
                power_for: None,
                fault_after: None,
                interrupt_after: None,
                unopenable: None,
                random: seed,
            })),
        }
    }

    /// Another disk in the same state, on which nothing is announced. `seed` decides what is left to chance.
    pub(super) fn copy(&self, seed: u64) -> Self {
        let inner = self.inner.lock();
        Self {
            inner: Arc::new(Mutex::new(Inner {
                files: inner.files.clone(),
                names: inner.names.clone(),
                durable_names: inner.durable_names.clone(),
                past_names: inner.past_names.clone(),
                calls: 0,
                power_for: None,
                fault_after: None,
                interrupt_after: None,
                unopenable: None,
                random: seed,
            })),
        }
    }

    /// Changing calls so far.
    pub(super) fn calls(&self) -> u32 {
        self.inner.lock().calls
    }

    /// Lets `calls` more changing calls through; from then on all fail, until [`lose_power`](Self::lose_power).
    pub(super) fn power_for(&self, calls: u32) {
        self.inner.lock().power_for = Some(calls);
    }

    /// Lets one changing call fail after `calls` others.
    pub(super) fn fail_after(&self, calls: u32, fault: Fault) {
        self.inner.lock().fault_after = Some((calls, fault));
    }

    /// While there is a fault, data files can't be opened to be synced.
    pub(super) fn refuse_opening(&self, fault: Option<Fault>) {
        self.inner.lock().unopenable = fault;
    }

    /// Does something at the beginning or the end of a changing call that follows on `moments` others, in its thread.
    pub(super) fn interrupt_after(&self, moments: u32, work: impl FnOnce() + Send + 'static) {
        self.inner.lock().interrupt_after = Some((moments, Box::new(work)));
    }

    /// Whether what [`interrupt_after`](Self::interrupt_after) has announced is still to come.
    pub(super) fn is_interruption_due(&self) -> bool {
        self.inner.lock().interrupt_after.is_some()
    }

    /// Calls off what was announced.
    pub(super) fn calm(&self) {
        let mut inner = self.inner.lock();
        inner.power_for = None;
        inner.fault_after = None;
        inner.interrupt_after = None;
    }

    /// Takes the power away and gives it back.
    pub(super) fn lose_power(&self, survival: Survival) {
        let inner = &mut *self.inner.lock();
        for file in &mut inner.files {
            file.lose_power(survival, &mut inner.random);
        }
        let chosen = survival
            .names
            .choose(inner.past_names.len(), &mut inner.random);
        if let Some(chosen) = chosen {
            inner.durable_names = inner.past_names[chosen].clone();
        }
        inner.past_names.clear();
        inner.names = inner.durable_names.clone();
        inner.power_for = None;
        inner.fault_after = None;
        inner.interrupt_after = None;
    }

    /// Makes a changing call; what others do comes before it or behind it.
    fn call<T>(&self, work: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        self.interrupted();
        let result = work(&mut self.inner.lock());
        self.interrupted();
        result
    }

    fn interrupted(&self) {
        let due = {
            let mut inner = self.inner.lock();
            match &mut inner.interrupt_after {
                Some((0, _)) => inner.interrupt_after.take(),
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some((_, work)) = due {
            work();
        }
    }

    fn file(&self, index: usize) -> Box<dyn StorageFile> {
        let disk = self.clone();
        Box::new(SimulatedFile { disk, index })
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    index: usize,
}

impl SimulatedFile {
    /// Makes a change, or where it fails the part of it before some sector.
    fn change(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.disk.call(|inner| {
            let result = inner.spend();
            let file = &mut inner.files[self.index];
            if result.is_ok() {
                file.write(data, offset as usize);
            } else {
                let end = offset as usize + draw(&mut inner.random, data.len() + 1);
                let part = (end / SECTOR * SECTOR).saturating_sub(offset as usize);
                file.write(&data[..part], offset as usize);
            }
            result
        })
    }
}

impl StorageFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let inner = self.disk.inner.lock();
        let tail = inner.files[self.index].content.get(offset as usize..);
        let tail = tail.unwrap_or_default();
        let length = tail.len().min(buffer.len());
        buffer[..length].copy_from_slice(&tail[..length]);
        Ok(length)
    }

    fn try_read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
        Ok(self.read_at(buffer, offset)? == buffer.len())
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.change(data, offset)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = self.len()?.min(offset + len);
        self.change(&vec![0; end.saturating_sub(offset) as usize], offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.call(|inner| {
            inner.spend()?;
            inner.files[self.index].set_len(len as usize);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.inner.lock().files[self.index].content.len() as u64)
    }

    fn allocated(&self) -> io::Result<u64> {
        self.len()
    }

    fn sync_data(&self) -> Result<(), SyncError> {
        let synced = self.disk.call(|inner| {
            if let Some(error) = inner
                .unopenable
                .as_ref()
                .filter(|_| inner.files[self.index].is_data)
            {
                return Ok(Err(SyncError::NotOpened(error.error())));
            }
            let powered = inner.is_powered();
            let result = inner.spend();
            let file = &mut inner.files[self.index];
            if result.is_ok() {
                file.sync();
            } else if powered {
                file.fail_sync(&mut inner.random);
            }
            Ok(result.map_err(SyncError::Failed))
        });
        synced.map_err(SyncError::Failed)?
    }

    fn forget_cache(&self) -> io::Result<()> {
        self.disk.inner.lock().files[self.index].forget_cache();
        Ok(())
    }
}

impl StorageDirectory for SimulatedDisk {
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn StorageFile>>> {
        let index = self.inner.lock().names.get(name).copied();
        Ok(index.map(|index| self.file(index)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let index = self.call(|inner| {
            inner.spend()?;
            if let Some(&index) = inner.names.get(name) {
                inner.files[index].set_len(0);
                return Ok(index);
            }
            inner.files.push(FileState {
                is_data: name.ends_with(".data"),
                ..FileState::default()
            });
            inner.names.insert(name.to_owned(), inner.files.len() - 1);
            inner.past_names.push(inner.names.clone());
            Ok(inner.files.len() - 1)
        })?;
        Ok(self.file(index))
    }

    fn keep(&self, name: &str) -> Box<dyn StorageFile> {
        let index = self.inner.lock().names[name];
        self.file(index)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call(|inner| {
            inner.spend()?;
            if inner.names.remove(name).is_some() {
                inner.past_names.push(inner.names.clone());
            }
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call(|inner| {
            inner.spend()?;
            let index = inner.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            inner.names.insert(to.to_owned(), index);
            inner.past_names.push(inner.names.clone());
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.call(|inner| {
            inner.spend()?;
            inner.durable_names = inner.names.clone();
            inner.past_names.clear();
            Ok(())
        })
    }

    fn describe(&self, name: &str) -> String {
        format!("simulated/{name}")
    }
}
