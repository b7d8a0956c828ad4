//! Invariant: bytes are given out only of pieces whose hash was found right since the store was opened, and of
//! zeros; a piece's bytes on disk never change while it is verified.
//!
//! A [`Pristine`] holds the pieces of one image, shared by all appliances that run it. It takes a piece when it
//! comes from the swarm ([`store_run`](Pristine::store_run)), and gives it to guests and peers ([`try_read`](Pristine::try_read),
//! [`read`](Pristine::read)). What an earlier run stored, or someone published, is [`Unverified`](PieceState::Unverified) until its
//! first use: so a launch never waits for a full re-hash, and damage on the disk is found before it is served.
//!
//! A piece that the disk would not take is held in memory for a while, and a bound on what the copy may take on the
//! disk makes pieces go that were not read for long: see [`room`].
//!
//! Pieces with equal hashes are kept once, in the place of the first ([`Image::canonical`]); pieces of zeros are
//! not kept at all. Every call is blocking code without an async runtime; `try_read`, `has` and `missing_in` never wait
//! for a disk.
//!
//! Locks: the claim of a piece is held while it is hashed from, written to or taken from the disk (who holds one, takes
//! another only if it is free); `gone` while a piece goes; `have_order` while a bit changes, in the file and then in
//! `states`, but not while the file is synced; all others only for moments, and none inside another. Order: claim, `gone`,
//! `have_order`, `states`.

mod budget;
mod claims;
mod file_set;
mod have_file;
mod held;
mod home;
mod layout;
mod piece_states;
mod published;
mod read;
mod recency;
mod room;
mod shortage;
mod store;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_room;
mod verify;

pub(crate) use budget::DiskBudget;
pub(crate) use piece_states::PieceState;
pub(crate) use read::{ReadOutcome, TryRead};
pub(crate) use shortage::Shortage;
pub(crate) use store::Stored;

use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

use self::claims::Claims;
use self::file_set::FileSet;
use self::have_file::HaveFile;
use self::held::Held;
use self::home::Home;
use self::layout::Layout;
use self::piece_states::PieceStates;
use self::recency::Recency;
use crate::file_pool::FilePool;
use crate::image::{Image, PieceIndex};
use crate::metrics::Counter;
use crate::{Bitfield, Error, ErrorKind, Result, durable};

/// The verified pieces of one image on the local disk.
pub(crate) struct Pristine {
    image: Arc<Image>,
    layout: Layout,
    files: FileSet,
    states: RwLock<PieceStates>,
    /// No piece is missing. Changed with `states`, to be known without the lock.
    complete: AtomicBool,
    /// `None` where nothing outlives the process.
    have: Option<HaveFile>,
    /// Held while a bit changes: a byte of the file is made of the states of eight pieces.
    have_order: Mutex<()>,
    claims: Claims,
    damaged: Counter,
    refused: Counter,
    held: Mutex<Held>,
    /// How many pieces are held, to be known without the lock.
    held_pieces: AtomicUsize,
    /// Counts pieces that went: who read meanwhile looks again.
    evictions: AtomicU64,
    /// Pieces that went and of which the swarm was not told yet.
    gone: Mutex<Vec<PieceIndex>>,
    shortage: Mutex<Option<Shortage>>,
    /// When the disk was seen to have plenty of space left, if it had when it was looked at last.
    plenty: Mutex<Option<Instant>>,
    budget: Option<Arc<DiskBudget>>,
    /// The directory of the copy; `None` where nothing is ever written.
    place: Option<PathBuf>,
    /// `None` where no budget makes pieces go.
    recency: Option<Recency>,
    /// How many pieces went in a row without giving storage back.
    fruitless: AtomicU32,
    /// Pieces that go give no storage back here.
    futile: AtomicBool,
    /// Dropped last: the files lie in it.
    home: Home,
}

/// A store from the cache.
pub(crate) struct Opened {
    /// The store.
    pub(crate) pristine: Pristine,
    /// Where the process listens that holds the cache entry. `None` when this one holds it, or when the
    /// holder has not said its address: [`Pristine::is_follower`] tells.
    pub(crate) leader: Option<SocketAddr>,
}

impl Pristine {
    /// Opens the copy of an image in `cache_dir`, or begins one. `address` is where other processes of
    /// this host reach this one's peer listener.
    ///
    /// While another process holds the copy, this one gets an empty store in a directory of its own, removed
    /// when the store is dropped, and the address of the other, to fetch pieces from.
    ///
    /// With a `budget`, what the copy takes on the disk counts against it, and pieces go where it is exceeded.
    ///
    /// # Errors
    /// What the system reports of the cache directory.
    pub(crate) fn open_cache(
        image: Arc<Image>,
        cache_dir: &Path,
        address: Option<SocketAddr>,
        budget: Option<Arc<DiskBudget>>,
    ) -> Result<Opened> {
        let entry = cache_dir.join(image.info_hash().to_string());
        let failed = |e| Error::io(format!("opening the cache {}", entry.display()), e);
        fs::create_dir_all(&entry).map_err(failed)?;
        let (home, leader) = home::settle(&entry, address)?;
        let mut states = PieceStates::new(&image);
        let (directory, have) = match &home {
            Home::Follower(private) => (private.path(), None),
            Home::Leader(_) | Home::Published => {
                let torrent = fs::read(entry.join("image.torrent"));
                if !torrent.is_ok_and(|found| found == image.torrent_bytes()[..]) {
                    durable::replace_file(&entry, "image.torrent", image.torrent_bytes())
                        .map_err(failed)?;
                }
                let (have, bits) = HaveFile::open(&entry.join("have"), &image).map_err(failed)?;
                for piece in bits.ones() {
                    if image.canonical(piece) == piece && states.get(piece) == PieceState::Missing {
                        states.set(piece, PieceState::Unverified);
                    }
                }
                (entry.as_path(), Some(have))
            }
        };
        let pool = FilePool::of_process();
        let place = directory.to_path_buf();
        let files = FileSet::new(&pool, &image, &directory.join("data"), true);
        let mut pristine = Self::assemble(image, files, states, have, home);
        pristine.place = Some(place);
        pristine.limit(budget);
        Ok(Opened { pristine, leader })
    }

    fn assemble(
        image: Arc<Image>,
        files: FileSet,
        states: PieceStates,
        have: Option<HaveFile>,
        home: Home,
    ) -> Self {
        let held = Held::new(room::held_capacity(image.geometry().nominal_piece_length()));
        Self {
            layout: Layout::new(image.clone()),
            held: Mutex::new(held),
            held_pieces: AtomicUsize::new(0),
            evictions: AtomicU64::new(0),
            gone: Mutex::default(),
            shortage: Mutex::default(),
            plenty: Mutex::default(),
            budget: None,
            place: None,
            recency: None,
            image,
            files,
            complete: AtomicBool::new(states.present().is_full()),
            states: RwLock::new(states),
            have,
            have_order: Mutex::default(),
            claims: Claims::default(),
            damaged: Counter::default(),
            refused: Counter::default(),
            fruitless: AtomicU32::new(0),
            futile: AtomicBool::new(false),
            home,
        }
    }

    /// The image.
    pub(crate) fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// Whether another process holds the cache entry, so that this store is private and temporary.
    pub(crate) fn is_follower(&self) -> bool {
        matches!(self.home, Home::Follower(_))
    }

    /// Tells followers where this process listens for peers. A store that does not hold a cache entry has
    /// nobody to tell.
    #[cfg(test)]
    pub(crate) fn set_address(&self, address: SocketAddr) -> Result<()> {
        match &self.home {
            Home::Leader(lock) => home::announce(lock, Some(address)).map_err(|e| {
                let name = self.image.name();
                Error::io(
                    format!("writing the address into the cache's lock file of {name}"),
                    e,
                )
            }),
            Home::Follower(_) | Home::Published => Ok(()),
        }
    }

    /// Whether a piece is there, verified or not; pieces of zeros always are.
    #[cfg(test)]
    pub(crate) fn has(&self, piece: PieceIndex) -> bool {
        self.states.read().present().get(piece)
    }

    /// The pieces for which [`state`](Self::state) is not `Missing`.
    pub(crate) fn have_field(&self) -> Bitfield {
        self.states.read().present().clone()
    }

    /// What is known of a piece.
    pub(crate) fn state(&self, piece: PieceIndex) -> PieceState {
        self.states.read().get(piece)
    }

    /// Pieces that turned out damaged so far.
    pub(crate) fn damaged_pieces(&self) -> u64 {
        self.damaged.get()
    }

    /// Pieces that came and that the disk would not take, so far.
    pub(crate) fn refused_pieces(&self) -> u64 {
        self.refused.get()
    }

    /// Bytes of the image that are there; zeros and duplicates count.
    pub(crate) fn present_bytes(&self) -> u64 {
        self.bytes_of(self.states.read().present())
    }

    /// Bytes of the image that are verified; zeros and duplicates count.
    #[cfg(test)]
    pub(crate) fn verified_bytes(&self) -> u64 {
        self.bytes_of(self.states.read().verified())
    }

    fn bytes_of(&self, pieces: &Bitfield) -> u64 {
        let geometry = self.image.geometry();
        let nominal = u64::from(geometry.nominal_piece_length());
        let last = PieceIndex(geometry.piece_count() - 1);
        let short = if pieces.get(last) {
            nominal - u64::from(geometry.piece_length(last))
        } else {
            0
        };
        u64::from(pieces.count_ones()) * nominal - short
    }

    /// The canonical pieces that are missing for a range of the image, in order, each once.
    pub(crate) fn missing_in(&self, range: Range<u64>) -> Vec<PieceIndex> {
        let states = self.states.read();
        let pieces = self.image.geometry().pieces_in(range).map(PieceIndex);
        let mut missing: Vec<PieceIndex> = pieces
            .filter(|&piece| !states.present().get(piece))
            .map(|piece| self.image.canonical(piece))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Pieces in a row whose bytes are on the disk are verified: their bits are written through, and their states set.
    fn set_on_disk(&self, pieces: &Range<u32>) -> Result<()> {
        let _order = self.have_order.lock();
        if let Some(file) = &self.have {
            let change = {
                let states = self.states.read();
                HaveFile::change(pieces, true, |p| states.is_on_disk(p))
            };
            file.write(&change)
                .map_err(|e| self.have_failed("writing", e))?;
        }
        self.change_states(|states| {
            for piece in pieces.clone() {
                states.set(PieceIndex(piece), PieceState::Verified);
            }
        });
        Ok(())
    }

    /// A piece is missing from now on. If its bit can't be cleared, a later run finds out when it verifies it.
    fn set_missing(&self, piece: PieceIndex) {
        let _order = self.have_order.lock();
        if let Some(file) = &self.have {
            let change = {
                let states = self.states.read();
                HaveFile::change(&(piece.0..piece.0 + 1), false, |p| states.is_on_disk(p))
            };
            if let Err(error) = file.write(&change) {
                let error = self.have_failed("writing", error);
                tracing::warn!(%piece, %error, "a missing piece stays noted as present");
            }
        }
        self.change_states(|states| states.set(piece, PieceState::Missing));
    }

    fn change_states(&self, change: impl FnOnce(&mut PieceStates)) {
        let mut states = self.states.write();
        change(&mut states);
        let complete = states.present().is_full();
        if self.complete.load(Ordering::Relaxed) != complete {
            self.complete.store(complete, Ordering::Relaxed);
        }
    }

    /// Whether no piece is missing. Takes no lock, so it may be a moment late.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }

    /// Keeps to a budget from now on.
    fn limit(&mut self, budget: Option<Arc<DiskBudget>>) {
        let Some(budget) = budget else { return };
        for file in 0..self.files.len() {
            let (before, now) = self.files.measure(file);
            budget.change(before, now);
        }
        self.budget = Some(budget);
        self.recency = Some(Recency::new(self.image.geometry().piece_count()));
        self.shrink();
    }

    /// Makes durable what was stored: the data first, then the list of pieces. Blocks.
    ///
    /// Not needed for correctness: after power loss a piece that did not reach the disk is found when it is
    /// verified, and fetched again.
    ///
    /// What a file holds that the disk could not take is verified again before its next use: a read of it may still
    /// show what is nowhere but in the page cache, and a later sync would succeed.
    ///
    /// # Errors
    /// What the disk reports; it is tried again at the next call.
    pub(crate) fn sync(&self) -> Result<()> {
        self.files.sync(|file, error| {
            let file = &self.image.files()[file];
            self.distrust(&(file.offset..file.offset + file.length));
            let reason = error.to_string();
            self.note_shortage(Shortage::Failing { reason });
        })?;
        // Not under the lock: pieces that come meanwhile don't wait.
        match &self.have {
            Some(file) => file.sync().map_err(|e| self.have_failed("syncing", e)),
            None => Ok(()),
        }
    }

    fn have_failed(&self, what: &str, source: std::io::Error) -> Error {
        let (name, hash) = (self.image.name(), self.image.info_hash());
        Error::io(
            format!("{what} the list of pieces of {name} in the cache ({hash}/have)"),
            source,
        )
    }

    fn canonical(&self, piece: PieceIndex) -> Result<PieceIndex> {
        let count = self.image.geometry().piece_count();
        if piece.0 >= count {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "{} has {count} pieces, none is number {piece}",
                    self.image.name()
                ),
            ));
        }
        Ok(self.image.canonical(piece))
    }
}
