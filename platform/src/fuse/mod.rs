//! Invariant: no FUSE thread waits: what is at hand is answered in the thread that got the request, the
//! rest moves into a task on the runtime, together with its reply.
//!
//! `filesystem` translates requests into calls of a [`Volume`](crate::Volume) and holds no logic of its own,
//! `device` gets a connected FUSE device from the kernel and takes the mount away again, `mount` ties the
//! two to a directory.

#[cfg_attr(target_os = "linux", path = "device_linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "device_other.rs")]
mod device;
mod directories;
mod error;
mod filesystem;
#[cfg(target_os = "linux")]
mod helper;
mod mount;
mod mount_point;
mod opening;
mod tasks;
mod transfer;
mod translate;
mod waiters;

pub use error::{MountError, MountErrorKind};
pub use mount::{Mount, MountOptions, mount};
