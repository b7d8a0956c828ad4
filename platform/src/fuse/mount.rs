//! Invariant: a [`Mount`] that is gone has left no mount behind, and nobody who used it waits for ever.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::device::{Device, Unmounted, Way};
use super::error::{MountError, MountErrorKind};
use super::filesystem::VolumeFilesystem;
use super::mount_point;
use super::tasks::Tasks;
use crate::{Volume, leave_signals_to_others};

/// How long someone who is just closing the last file is waited for.
const CLOSING: Duration = Duration::from_millis(250);

/// How long an unmounting may take as a whole before it is given up on.
const UNMOUNTING: Duration = Duration::from_secs(15);

/// How long the FUSE threads may take to end once the mount is gone. They stay longer only for a user who still
/// has files open in a mount that could be detached but not ended.
const ENDING: Duration = Duration::from_secs(2);

/// How a volume is mounted.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Where requests that have to wait run. It must keep running until the mount is gone.
    pub runtime: Handle,
    /// What stands behind `vmtorrent:` as the source in the table of mounts.
    pub name: String,
    /// Let other users in, within the limits of the permission bits. Who is not root needs
    /// `user_allow_other` in `/etc/fuse.conf` for that.
    pub allow_other: bool,
    /// FUSE threads; 0 chooses by the number of cores. Linux only: elsewhere it is one.
    pub threads: usize,
}

impl MountOptions {
    /// The usual options: this user only, threads by the number of cores.
    pub fn new(runtime: Handle, name: impl Into<String>) -> Self {
        Self {
            runtime,
            name: name.into(),
            allow_other: false,
            threads: 0,
        }
    }

    fn threads(&self) -> usize {
        match self.threads {
            0 => thread::available_parallelism().map_or(1, |cores| cores.get().min(4)),
            chosen => chosen,
        }
    }

    /// The source of the mount, fit for the table of mounts.
    fn source(&self) -> String {
        let fit = |c: char| if c.is_control() { '_' } else { c };
        format!(
            "vmtorrent:{}",
            self.name.chars().map(fit).collect::<String>()
        )
    }
}

/// A mounted volume. Dropping it unmounts, as [`unmount`](Self::unmount) does.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    parts: Option<Parts>,
}

#[derive(Debug)]
struct Parts {
    device: Device,
    tasks: Tasks,
    ended: Receiver<io::Result<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Mounts a volume on an empty directory.
///
/// Reads and writes of the mount go to the volume, past the page cache, whatever their alignment. Memory mappings have
/// pages in it. The kernel writes changed pages back before it reads or writes the same range another way, and drops pages that
/// are written past: so all handles and mappings agree, one after the other. Only `SEEK_DATA` and `SEEK_HOLE` don't see what
/// a mapping changed before `msync` or `fsync`.
///
/// **This process must not map files of its own mount into memory.** The kernel may make a thread that touches such a
/// mapping wait for this process with a lock of its address space held; a FUSE thread that needs that lock then waits
/// for ever, and not even SIGKILL ends the process. Reading and writing them is safe, and other processes may do as they
/// please.
///
/// A process that is killed while it waits for missing data goes away within two seconds. Other signals wait for the answer, as
/// on a local disk.
///
/// # Errors
/// [`MountError::kind`] tells what is wrong with the directory, the system or the permissions, and its
/// context what to do about it.
pub fn mount(
    volume: Arc<dyn Volume>,
    directory: &Path,
    options: MountOptions,
) -> Result<Mount, MountError> {
    mount_by(volume, directory, options, Way::Any)
}

fn mount_by(
    volume: Arc<dyn Volume>,
    directory: &Path,
    options: MountOptions,
    way: Way,
) -> Result<Mount, MountError> {
    let path = mount_point::check(directory)?;
    let tasks = Tasks::new(options.runtime.clone());
    let filesystem = VolumeFilesystem::new(volume, tasks.clone());
    let source = options.source();
    let threads = options.threads();
    let (device, session) = Device::open(
        filesystem,
        &path,
        &source,
        options.allow_other,
        threads,
        way,
    )?;
    let (sender, ended) = mpsc::channel();
    let started = thread::Builder::new()
        .name("vmtorrent-fuse".to_owned())
        .spawn(move || {
            leave_signals_to_others();
            let result = session.run();
            if let Err(error) = &result {
                tracing::error!(%error, "the FUSE session ended with an error");
            }
            // Nobody listens any more when the unmounting was given up on.
            let _ = sender.send(result);
        });
    let (thread, failed) = match started {
        Ok(thread) => (Some(thread), None),
        Err(error) => (None, Some(error)),
    };
    let mount = Mount {
        path,
        parts: Some(Parts {
            device,
            tasks,
            ended,
            thread,
        }),
    };
    match failed {
        None => Ok(mount),
        Some(error) => {
            let context = "no thread could be started for FUSE: raise the limit of processes";
            Err(MountError::new(MountErrorKind::Other, context).because(error))
        }
    }
}

impl Mount {
    /// The directory, as a canonical path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the mount away and waits until that is done.
    ///
    /// A mount in use is given a quarter of a second; then requests that wait get `EIO`; and if it is in use
    /// still, the connection is ended, and who still has files open gets errors from then on. What was written through a shared
    /// mapping that is still open at that time may be lost; all other writes have reached the volume before.
    /// The call blocks for as long, but never for ever: don't call it in a task that must not wait.
    ///
    /// # Errors
    /// [`MountErrorKind::Busy`] when it could not end in 15 seconds, [`MountErrorKind::Other`] when the
    /// system refuses.
    pub fn unmount(mut self) -> Result<(), MountError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), MountError> {
        let Some(parts) = self.parts.take() else {
            return Ok(());
        };
        let shown = self.path.display();
        let tasks = parts.tasks.clone();
        let (sender, done) = mpsc::channel();
        // The system call may wait for writes that need the runtime, which may be the caller's own thread.
        let started = thread::Builder::new()
            .name("vmtorrent-unmount".to_owned())
            .spawn(move || {
                leave_signals_to_others();
                let _ = sender.send(parts.end());
            });
        let thread = match started {
            Ok(thread) => thread,
            Err(error) => {
                tasks.shut();
                let context = format!("no thread could be started to unmount {shown}");
                return Err(MountError::new(MountErrorKind::Other, context).because(error));
            }
        };
        let received = done.recv_timeout(UNMOUNTING);
        if !matches!(received, Err(RecvTimeoutError::Timeout)) {
            // So that no thread is left: the library may be unloaded.
            let _ = thread.join();
        }
        let result = match received {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                tasks.shut();
                let context = format!(
                    "unmounting {shown} takes too long: end what uses it, then run fusermount3 -u {shown}"
                );
                return Err(MountError::new(MountErrorKind::Busy, context));
            }
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the thread ended")),
        };
        result.map_err(|error| {
            let context = format!("unmounting {shown} failed: run fusermount3 -u {shown}");
            MountError::new(MountErrorKind::Other, context).because(error)
        })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "a mount was left behind");
        }
    }
}

impl Parts {
    fn end(mut self) -> io::Result<()> {
        // With the session over before we end it, someone else has taken the mount away, or its connection
        // was ended and the dead mount is left.
        if self.ended.try_recv().is_ok() && !self.device.is_dead() {
            self.tasks.end();
            self.join();
            return Ok(());
        }
        if self.unmount_unused()? == Unmounted::Busy {
            self.device.detach()?;
        }
        self.tasks.end();
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(ENDING) {
            tracing::warn!(
                "files are still open in a detached mount: its threads stay until they are closed"
            );
        } else {
            self.join();
        }
        Ok(())
    }

    /// Waits for the session's thread, which has said that it ends.
    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Its panic was told as the end.
            let _ = thread.join();
        }
    }

    /// Unmounts if nobody uses it, at last after those who wait for missing data were sent away.
    fn unmount_unused(&self) -> io::Result<Unmounted> {
        let begin = Instant::now();
        while self.device.unmount()? == Unmounted::Busy {
            let waited = begin.elapsed();
            if waited >= 2 * CLOSING {
                return Ok(Unmounted::Busy);
            }
            if waited >= CLOSING {
                self.tasks.shut();
            }
            thread::sleep(CLOSING / 10);
        }
        Ok(Unmounted::Done)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::fuse::helper;
    use crate::{BlockFile, MemoryBlockFile, TreeVolume};

    #[test]
    fn the_setuid_helper_mounts_as_well() {
        if !Path::new("/dev/fuse").exists() || !helper::is_installed() {
            let required = std::env::var_os("VMTORRENT_REQUIRE").is_some_and(|value| value == "1");
            assert!(!required, "this test needs /dev/fuse and fusermount3");
            println!("skipped: no /dev/fuse or no fusermount3");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("mnt");
        std::fs::create_dir(&directory).unwrap();
        let file: Arc<dyn BlockFile> = MemoryBlockFile::new(b"content".to_vec());
        let files = vec![(vec!["disk".to_owned()], file)];
        let volume = Arc::new(TreeVolume::new(files, &folder.path().join("files")).unwrap());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let options = MountOptions::new(runtime.handle().clone(), "a name, with a comma");
        let mount = mount_by(volume, &directory, options, Way::Helper).unwrap();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(table.contains("fuse.vmtorrent vmtorrent:a\\040name,\\040with"));
        assert_eq!(std::fs::read(directory.join("disk")).unwrap(), b"content");
        mount.unmount().unwrap();
        assert!(!directory.join("disk").exists());
    }
}
