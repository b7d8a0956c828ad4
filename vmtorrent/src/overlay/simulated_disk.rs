//! Invariant: what was synced survives a loss of power; of what was not, each sector, each file's length and the
//! order of names survive in any state that they were in since then.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::storage::{StorageDirectory, StorageFile};

/// Bytes that a disk writes at once or not at all.
pub(super) const SECTOR: usize = 512;

type Sector = [u8; SECTOR];

/// A directory in memory from which the power can be taken.
#[derive(Clone)]
pub(super) struct SimulatedDisk {
    seed: u64,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    files: Vec<FileState>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Every state of the names since the last sync of the directory.
    past_names: Vec<BTreeMap<String, usize>>,
    /// Changing calls until the power goes.
    power_for: Option<u32>,
    /// Changing calls until one fails for want of space.
    space_for: Option<u32>,
    random: u64,
}

#[derive(Default)]
struct FileState {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// What each sector held since the last sync, beside `durable`.
    past_sectors: BTreeMap<usize, Vec<Sector>>,
    past_lengths: Vec<usize>,
}

impl FileState {
    fn sector(&self, index: usize) -> Sector {
        let mut sector = [0; SECTOR];
        let start = (index * SECTOR).min(self.content.len());
        let end = (start + SECTOR).min(self.content.len());
        sector[..end - start].copy_from_slice(&self.content[start..end]);
        sector
    }

    fn note(&mut self, start: usize, end: usize) {
        for index in start / SECTOR..end.div_ceil(SECTOR) {
            let sector = self.sector(index);
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
        self.durable = self.content.clone();
        self.past_sectors.clear();
        self.past_lengths.clear();
    }

    fn lose_power(&mut self, random: &mut u64) {
        let mut length = self.durable.len();
        if !self.past_lengths.is_empty() {
            let choice = draw(random, self.past_lengths.len() + 1);
            length = self.past_lengths.get(choice).copied().unwrap_or(length);
        }
        let mut content = std::mem::take(&mut self.durable);
        content.resize(length, 0);
        for (index, values) in std::mem::take(&mut self.past_sectors) {
            let Some(value) = values.get(draw(random, values.len() + 1)) else {
                continue;
            };
            let start = (index * SECTOR).min(length);
            let end = (start + SECTOR).min(length);
            content[start..end].copy_from_slice(&value[..end - start]);
        }
        self.content = content;
        self.sync();
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
    /// Counts a changing call down: whether it may go on, or how it fails.
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.power_for {
            Some(0) => return Err(io::Error::other("the power is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        match &mut self.space_for {
            Some(0) => {
                self.space_for = None;
                return Err(io::ErrorKind::StorageFull.into());
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }
}

impl SimulatedDisk {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            inner: Arc::new(Mutex::new(Inner {
                files: Vec::new(),
                names: BTreeMap::new(),
                durable_names: BTreeMap::new(),
                past_names: Vec::new(),
                power_for: None,
                space_for: None,
                random: seed,
            })),
        }
    }

    /// What decides which state survives a loss of power.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// Lets `calls` more changing calls through; from then on all fail, until [`lose_power`](Self::lose_power).
    pub(super) fn power_for(&self, calls: u32) {
        self.inner.lock().power_for = Some(calls);
    }

    /// Lets one changing call fail after `calls` others.
    pub(super) fn space_for(&self, calls: u32) {
        self.inner.lock().space_for = Some(calls);
    }

    /// Calls off what [`power_for`](Self::power_for) and [`space_for`](Self::space_for) have announced.
    pub(super) fn calm(&self) {
        let mut inner = self.inner.lock();
        inner.power_for = None;
        inner.space_for = None;
    }

    /// Takes the power away and gives it back.
    pub(super) fn lose_power(&self) {
        let inner = &mut *self.inner.lock();
        for file in &mut inner.files {
            file.lose_power(&mut inner.random);
        }
        let choice = draw(&mut inner.random, inner.past_names.len() + 1);
        if let Some(names) = inner.past_names.get(choice) {
            inner.durable_names = names.clone();
        }
        inner.past_names.clear();
        inner.names = inner.durable_names.clone();
        inner.power_for = None;
        inner.space_for = None;
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    index: usize,
}

impl SimulatedFile {
    /// Makes a change, or where it fails the part of it before some sector.
    fn change(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let inner = &mut *self.disk.inner.lock();
        let result = inner.spend();
        let file = &mut inner.files[self.index];
        if result.is_err() {
            let end = offset as usize + draw(&mut inner.random, data.len() + 1);
            let part = (end / SECTOR * SECTOR).saturating_sub(offset as usize);
            file.write(&data[..part], offset as usize);
        } else {
            file.write(data, offset as usize);
        }
        result
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
        let inner = &mut *self.disk.inner.lock();
        inner.spend()?;
        inner.files[self.index].set_len(len as usize);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.inner.lock().files[self.index].content.len() as u64)
    }

    fn allocated(&self) -> io::Result<u64> {
        self.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        let inner = &mut *self.disk.inner.lock();
        inner.spend()?;
        inner.files[self.index].sync();
        Ok(())
    }
}

impl StorageDirectory for SimulatedDisk {
    fn open(&self, name: &str) -> io::Result<Option<Box<dyn StorageFile>>> {
        let index = self.inner.lock().names.get(name).copied();
        Ok(index.map(|index| {
            let disk = self.clone();
            Box::new(SimulatedFile { disk, index }) as Box<dyn StorageFile>
        }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let inner = &mut *self.inner.lock();
        inner.spend()?;
        let index = match inner.names.get(name) {
            Some(&index) => {
                inner.files[index].set_len(0);
                index
            }
            None => {
                inner.files.push(FileState::default());
                inner.names.insert(name.to_owned(), inner.files.len() - 1);
                inner.past_names.push(inner.names.clone());
                inner.files.len() - 1
            }
        };
        let disk = self.clone();
        Ok(Box::new(SimulatedFile { disk, index }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let inner = &mut *self.inner.lock();
        inner.spend()?;
        let index = inner.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.names.insert(to.to_owned(), index);
        inner.past_names.push(inner.names.clone());
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let inner = &mut *self.inner.lock();
        inner.spend()?;
        inner.durable_names = inner.names.clone();
        inner.past_names.clear();
        Ok(())
    }

    fn describe(&self, name: &str) -> String {
        format!("simulated/{name}")
    }
}
