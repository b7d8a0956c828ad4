//! Invariant: `end` is the end of the last record that is known to be durable; a record is appended only
//! there, and only after its predecessor was durable. So whatever lies behind `end` after a crash is one
//! torn record, and a bad record with a good one behind it is damage. After a sync of the file has failed, nothing is
//! appended to it any more: it is replaced.
//!
//! The file is a header of 64 bytes and records. Numbers are little-endian.
//!
//! | header | |
//! |---|---|
//! | 0 | magic `VMTOVMAP` |
//! | 8 | version (u32), bytes of a block (u32) |
//! | 16 | bytes of the image file below (u64) |
//! | 24 | salt (u64) |
//! | 60 | CRC32C of the 60 bytes before |
//!
//! | record | |
//! |---|---|
//! | 0 | the header's salt |
//! | 8 | sequence number (u64), one more than that of the record before |
//! | 16 | bytes of the payload (u64) |
//! | 24 | CRC32C of the 24 bytes before and the payload |
//! | 28 | payload: see [`record`](super::record) |
//!
//! The salt is new in every file and not known to the guest, so nothing that a guest makes the overlay write can
//! pass for a record.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;

use super::block_map::OVERLAY_BLOCK;
use super::storage::{StorageDirectory, StorageFile};
use crate::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"VMTOVMAP";
const VERSION: u32 = 1;
const HEADER_LENGTH: usize = 64;
const RECORD_HEADER: usize = 28;

/// The durable list of changes to the block map.
pub(super) struct Journal {
    directory: Arc<dyn StorageDirectory>,
    name: String,
    base_length: u64,
    salt: u64,
    /// Of the last durable record.
    sequence: u64,
    end: u64,
    /// A failed append may have left bytes behind `end`.
    torn: bool,
    /// A sync of the file failed: no later one can be believed, and nothing may be built on what it holds.
    suspect: bool,
    /// An earlier process may have left the last record in the page cache only.
    unsynced_content: bool,
    /// The file was renamed into place, and that may not be durable yet.
    unsynced_name: bool,
}

impl Journal {
    /// Makes a journal whose first record is `payload`; a file of that name is replaced. Durable on return.
    pub(super) fn create(
        directory: Arc<dyn StorageDirectory>,
        name: &str,
        base_length: u64,
        payload: &[u8],
    ) -> Result<Self> {
        let (salt, end) = Self::write_new(&*directory, name, base_length, 1, payload)?;
        let mut journal = Self {
            directory,
            name: name.to_owned(),
            base_length,
            salt,
            sequence: 1,
            end,
            torn: false,
            suspect: false,
            unsynced_content: false,
            unsynced_name: true,
        };
        journal.settle()?;
        Ok(journal)
    }

    /// Opens a journal and gives the payload of each record to `replay`; `Ok(None)` when there is none.
    ///
    /// # Errors
    /// `Corrupt` when the header or a record with a good one behind it is damaged, or `replay` finds sense
    /// missing in a payload (it says what); `InvalidInput` when the overlay was made for an image file of
    /// another length.
    pub(super) fn open(
        directory: Arc<dyn StorageDirectory>,
        name: &str,
        base_length: u64,
        mut replay: impl FnMut(&[u8]) -> std::result::Result<(), &'static str>,
    ) -> Result<Option<Self>> {
        let path = directory.describe(name);
        let failed = |e| Error::io(format!("reading the block map {path}"), e);
        let Some(file) = directory.open(name).map_err(failed)? else {
            return Ok(None);
        };
        let length = file.len().map_err(failed)?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let read = file.read_at(&mut bytes, 0).map_err(failed)?;
        bytes.truncate(read);

        let salt = parse_header(&bytes, base_length, &path)?;
        let mut at = HEADER_LENGTH;
        let mut sequence = None;
        while let Some((found, payload)) = parse_record(&bytes[at..], salt) {
            if sequence.is_some_and(|last| found != last + 1) {
                return Err(damaged(&path, at, "a record is missing"));
            }
            replay(payload).map_err(|what| damaged(&path, at, what))?;
            sequence = Some(found);
            at += RECORD_HEADER + payload.len();
        }
        // The first record was made durable together with the header.
        let Some(sequence) = sequence else {
            return Err(damaged(&path, at, "the first record is unreadable"));
        };
        if let Some(later) = find_record(&bytes[at..], salt, sequence) {
            return Err(damaged(
                &path,
                at,
                &format!(
                    "a record is unreadable, and one at offset {} is whole",
                    at + later
                ),
            ));
        }
        let journal = Self {
            directory,
            name: name.to_owned(),
            base_length,
            salt,
            sequence,
            end: at as u64,
            torn: at < bytes.len(),
            suspect: false,
            unsynced_content: true,
            unsynced_name: true,
        };
        Ok(Some(journal))
    }

    /// Bytes of the durable part.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Whether it must be [rewritten](Self::rewrite): what a sync has failed to make durable is still read.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Appends a record and makes it durable. After an error the journal is as before, or suspect.
    pub(super) fn append(&mut self, payload: &[u8]) -> Result<()> {
        self.settle()?;
        let record = encode_record(self.salt, self.sequence + 1, payload);
        let result = self.append_record(&record);
        self.torn = result.is_err();
        result.map_err(|e| {
            Error::io(
                format!(
                    "appending {} bytes to the block map {} (nothing is lost; flush again when the cause is gone)",
                    record.len(),
                    self.directory.describe(&self.name)
                ),
                e,
            )
        })?;
        self.sequence += 1;
        self.end += record.len() as u64;
        Ok(())
    }

    fn append_record(&mut self, record: &[u8]) -> io::Result<()> {
        let file = self.open_again()?;
        if self.torn {
            file.set_len(self.end)?;
        }
        file.write_all_at(record, self.end)?;
        let result = file.sync_data();
        self.suspect |= result.is_err();
        Ok(result?)
    }

    /// The file is open only while it is written: an image may have many.
    fn open_again(&self) -> io::Result<Box<dyn StorageFile>> {
        let file = self.directory.open(&self.name)?;
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Puts a new file with the one record `payload` in this one's place, durably. After an error the
    /// journal holds either what it held or `payload`.
    pub(super) fn rewrite(&mut self, payload: &[u8]) -> Result<()> {
        let sequence = self.sequence + 1;
        let (salt, end) = Self::write_new(
            &*self.directory,
            &self.name,
            self.base_length,
            sequence,
            payload,
        )?;
        // The name now leads to the new file, durably or not: records must go there from here on, and
        // none may count as durable before the name is.
        self.salt = salt;
        self.sequence = sequence;
        self.end = end;
        self.torn = false;
        self.suspect = false;
        self.unsynced_content = false;
        self.unsynced_name = true;
        self.settle()
    }

    /// Makes durable what the journal says and where it is found, if that is not known to be so.
    pub(super) fn settle(&mut self) -> Result<()> {
        let path = self.directory.describe(&self.name);
        let failed = |e| Error::io(format!("syncing the block map {path}"), e);
        if self.unsynced_content {
            let synced = self.open_again().map_err(failed)?.sync_data();
            self.suspect |= synced.is_err();
            synced.map_err(|e| failed(e.into()))?;
            self.unsynced_content = false;
        }
        if self.unsynced_name {
            self.directory.sync().map_err(failed)?;
            self.unsynced_name = false;
        }
        Ok(())
    }

    /// Writes a file under a temporary name, makes it durable and renames it.
    fn write_new(
        directory: &dyn StorageDirectory,
        name: &str,
        base_length: u64,
        sequence: u64,
        payload: &[u8],
    ) -> Result<(u64, u64)> {
        let salt = RandomState::new().build_hasher().finish();
        let mut bytes = encode_header(base_length, salt);
        bytes.extend(encode_record(salt, sequence, payload));
        let temporary = format!("{name}.new");
        let write = || {
            let file = directory.create(&temporary)?;
            file.write_all_at(&bytes, 0)?;
            file.sync_data()?;
            directory.rename(&temporary, name)
        };
        write().map_err(|e| {
            Error::io(
                format!("writing the block map {}", directory.describe(name)),
                e,
            )
        })?;
        Ok((salt, bytes.len() as u64))
    }
}

fn damaged(path: &str, at: usize, what: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "the block map {path} is damaged at offset {at}: {what}. Restore the state directory from a \
             backup, or start over with another one"
        ),
    )
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn encode_header(base_length: u64, salt: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LENGTH);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((OVERLAY_BLOCK as u32).to_le_bytes());
    bytes.extend(base_length.to_le_bytes());
    bytes.extend(salt.to_le_bytes());
    bytes.resize(HEADER_LENGTH - 4, 0);
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// Checks the header and gives the salt.
fn parse_header(bytes: &[u8], base_length: u64, path: &str) -> Result<u64> {
    if !bytes.starts_with(MAGIC) {
        return Err(damaged(path, 0, "it does not begin as a block map"));
    }
    let unreadable = || damaged(path, 0, "the header is unreadable");
    let version = u32_at(bytes, 8).ok_or_else(unreadable)?;
    if version != VERSION {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "the block map {path} has version {version}, this program knows version {VERSION}: use \
                 the program that wrote it, or another state directory"
            ),
        ));
    }
    let crc = bytes.get(..HEADER_LENGTH - 4).map(crc32c::crc32c);
    if crc.is_none() || crc != u32_at(bytes, HEADER_LENGTH - 4) {
        return Err(unreadable());
    }
    let block = u32_at(bytes, 12).ok_or_else(unreadable)?;
    if u64::from(block) != OVERLAY_BLOCK {
        return Err(damaged(path, 12, "the block size is not one of ours"));
    }
    let found = u64_at(bytes, 16).ok_or_else(unreadable)?;
    if found != base_length {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "the overlay {path} was made for an image file of {found} bytes, this one has \
                 {base_length}: use another state directory for another image"
            ),
        ));
    }
    u64_at(bytes, 24).ok_or_else(unreadable)
}

fn record_crc(header: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), payload)
}

fn encode_record(salt: u64, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RECORD_HEADER + payload.len());
    bytes.extend(salt.to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    bytes.extend((payload.len() as u64).to_le_bytes());
    bytes.extend(record_crc(&bytes, payload).to_le_bytes());
    bytes.extend(payload);
    bytes
}

/// The sequence number and payload of the record that `bytes` begins with, if that is whole.
fn parse_record(bytes: &[u8], salt: u64) -> Option<(u64, &[u8])> {
    if u64_at(bytes, 0)? != salt {
        return None;
    }
    let sequence = u64_at(bytes, 8)?;
    let length = usize::try_from(u64_at(bytes, 16)?).ok()?;
    let payload = bytes.get(RECORD_HEADER..RECORD_HEADER.checked_add(length)?)?;
    (u32_at(bytes, 24)? == record_crc(&bytes[..24], payload)).then_some((sequence, payload))
}

/// Where the first whole record with a number above `sequence` begins.
fn find_record(bytes: &[u8], salt: u64, sequence: u64) -> Option<usize> {
    let salt_bytes = salt.to_le_bytes();
    let candidates = bytes
        .windows(8)
        .enumerate()
        .filter(|(_, w)| *w == salt_bytes);
    candidates
        .map(|(at, _)| at)
        .find(|&at| parse_record(&bytes[at..], salt).is_some_and(|(found, _)| found > sequence))
}

#[cfg(test)]
mod tests {
    use super::super::storage::HostDirectory;
    use super::*;

    fn open(dir: &std::path::Path) -> Result<(Journal, Vec<Vec<u8>>)> {
        let mut seen = Vec::new();
        let directory = Arc::new(HostDirectory::new(dir));
        let journal = Journal::open(directory, "a.map", 77, |payload| {
            seen.push(payload.to_vec());
            Ok(())
        })?;
        Ok((journal.unwrap(), seen))
    }

    /// A journal of three records, and where each begins.
    fn three_records(dir: &std::path::Path) -> [usize; 4] {
        let directory = Arc::new(HostDirectory::new(dir));
        let mut journal = Journal::create(directory, "a.map", 77, b"one").unwrap();
        let second = journal.end() as usize;
        journal.append(b"two").unwrap();
        let third = journal.end() as usize;
        journal.append(b"three").unwrap();
        [HEADER_LENGTH, second, third, journal.end() as usize]
    }

    #[test]
    fn records_come_back_in_order_and_a_rewrite_replaces_them() {
        let dir = tempfile::tempdir().unwrap();
        three_records(dir.path());
        let (mut journal, seen) = open(dir.path()).unwrap();
        assert_eq!(seen, [&b"one"[..], b"two", b"three"]);
        journal.rewrite(b"all").unwrap();
        journal.append(b"more").unwrap();
        let (_, seen) = open(dir.path()).unwrap();
        assert_eq!(seen, [&b"all"[..], b"more"]);
    }

    #[test]
    fn a_torn_tail_of_any_length_is_cut_off_and_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let [_, _, third, end] = three_records(dir.path());
        let path = dir.path().join("a.map");
        let whole = std::fs::read(&path).unwrap();
        for cut in third..end {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, seen) = open(dir.path()).unwrap();
            assert_eq!(seen, [&b"one"[..], b"two"]);
            journal.append(b"x").unwrap();
            assert_eq!(open(dir.path()).unwrap().1, [&b"one"[..], b"two", b"x"]);
        }
    }

    #[test]
    fn a_damaged_byte_before_the_last_record_is_reported_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let [_, _, third, end] = three_records(dir.path());
        let path = dir.path().join("a.map");
        let whole = std::fs::read(&path).unwrap();
        for at in 0..end {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            std::fs::write(&path, &bytes).unwrap();
            match open(dir.path()) {
                Ok((_, seen)) => {
                    assert!(at >= third);
                    assert_eq!(seen, [&b"one"[..], b"two"]);
                }
                Err(e) => {
                    assert!(at < third);
                    assert!(e.to_string().contains("a.map"), "{e}");
                    let version = (8..12).contains(&at);
                    assert_eq!(e.kind() == ErrorKind::Corrupt, !version, "{e}");
                }
            }
        }
    }

    #[test]
    fn another_base_length_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        three_records(dir.path());
        let directory = Arc::new(HostDirectory::new(dir.path()));
        let error = Journal::open(directory, "a.map", 78, |_| Ok(()))
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("77"), "{error}");
    }
}
