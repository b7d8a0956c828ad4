//! The ground floor of libvmtorrent: what a VMM sees, and the ways to show it.
//!
//! [`Volume`] is a small tree of directories, plain files and block files. A backend in this crate
//! (FUSE today) puts a volume where a VMM can open it. The crate knows nothing of torrents: it sits
//! below the `vmtorrent` crate and can be tested with an in-memory volume.
//!
//! [`PositionedFile`] is the portable way to do positioned file I/O that both this crate and the
//! floors above use: reads that never block when the data is not cached, hole punching, extents.

mod block_file;
mod errno;
mod file;
#[cfg(all(unix, feature = "fuse"))]
pub mod fuse;
#[cfg(all(unix, not(feature = "fuse")))]
#[path = "no_fuse.rs"]
pub mod fuse;
mod memory;
mod signals;
mod socket;
#[cfg(unix)]
mod tree;
mod volume;

pub use block_file::BlockFile;
pub use errno::Errno;
pub use file::PositionedFile;
pub use memory::MemoryBlockFile;
pub use signals::{leave_signals_to_others, take_all_signals};
pub use socket::{set_receive_low_water, set_unsent_low_water};
#[cfg(unix)]
pub use tree::TreeVolume;
pub use volume::{
    Attributes, DirectoryEntry, FileHandle, NodeId, NodeKind, OpenMode, SeekTarget, SetAttributes,
    StatFs, Volume, VolumeFuture, ZeroMode,
};
