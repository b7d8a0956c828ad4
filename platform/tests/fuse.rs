//! The FUSE backend through a real mount, against a block file in memory: who waits, who does not, and how a mount ends.
//! That it behaves as a local file system is shown by `tests/tests/conformance.rs`.
//!
//! Needs `/dev/fuse` and the right to mount; without them the tests are skipped, or fail when
//! `VMTORRENT_REQUIRE=1`.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]
#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::fs::{self, File};
use std::io::{ErrorKind, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use vmtorrent_platform::fuse::{Mount, MountErrorKind, MountOptions, mount};
use vmtorrent_platform::{
    BlockFile, Errno, MemoryBlockFile, SeekTarget, TreeVolume, Volume, VolumeFuture, ZeroMode,
};

/// Longer than anything takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// A mounted volume with one image file, `disk`, and one deeper, `vm/deep`.
struct Mounted {
    mount: Option<Mount>,
    file: Arc<MemoryBlockFile>,
    runtime: Runtime,
    folder: TempDir,
}

impl Mounted {
    /// `None`, told on the terminal, where FUSE can't be used.
    fn with(content: Vec<u8>) -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("mnt")).unwrap();
        let mut mounted = Self {
            mount: None,
            file: MemoryBlockFile::new(content),
            runtime: Runtime::new().unwrap(),
            folder,
        };
        mounted.mount();
        Some(mounted)
    }

    fn volume(&self) -> Arc<dyn Volume> {
        let disk: Arc<dyn BlockFile> = Arc::clone(&self.file) as _;
        let deep: Arc<dyn BlockFile> = MemoryBlockFile::new(b"deep".to_vec());
        let files = vec![
            (vec!["disk".into()], disk),
            (vec!["vm".into(), "deep".into()], deep),
        ];
        let host = self.folder.path().join("files");
        Arc::new(TreeVolume::new(files, &host).unwrap())
    }

    fn mount(&mut self) {
        let options = MountOptions::new(self.runtime.handle().clone(), "a test, with \\ in it");
        self.mount = Some(mount(self.volume(), &self.dir(), options).unwrap());
    }

    fn unmount(&mut self) {
        self.mount.take().unwrap().unmount().unwrap();
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    fn open(&self) -> File {
        File::options()
            .read(true)
            .write(true)
            .open(self.path("disk"))
            .unwrap()
    }

    /// Waits until so many operations wait for held data.
    fn wait_until_waiting(&self, count: usize) {
        self.runtime.block_on(async {
            let wait = self.file.wait_until_waiting(count);
            tokio::time::timeout(PATIENCE, wait).await.unwrap();
        });
    }
}

fn can_mount() -> bool {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    if device.is_ok() && rustix::process::geteuid().is_root() {
        return true;
    }
    let required = std::env::var_os("VMTORRENT_REQUIRE").is_some_and(|value| value == "1");
    assert!(!required, "these tests need root and /dev/fuse");
    println!("skipped: no root or no /dev/fuse");
    false
}

fn is_mounted(directory: &Path) -> bool {
    let directory = directory.to_str().unwrap();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(directory))
}

/// Runs `work` in a thread; the result must come in time.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(PATIENCE).unwrap()
}

/// A small generator, so that a failing run is repeated by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.below(255) as u8 + 1).collect()
    }
}

#[test]
fn many_misses_do_not_hold_up_present_data() {
    const READERS: usize = 96;
    const UNIT: u64 = 65_536;
    let content = Random(4).bytes((READERS + 2) * UNIT as usize);
    let Some(mounted) = Mounted::with(content.clone()) else {
        return;
    };
    let present = READERS as u64 * UNIT;
    mounted.file.hold(0..present);
    let direct = OFlags::DIRECT.bits() as i32;
    let waiting: Vec<_> = (0..READERS)
        .map(|at| {
            // Every other one past the page cache, where the kernel takes another way.
            let flags = if at % 2 == 0 { direct } else { 0 };
            let disk = File::options()
                .read(true)
                .custom_flags(flags)
                .open(mounted.path("disk"));
            thread::spawn(move || {
                let mut buffer = vec![0; 4096];
                disk.unwrap()
                    .read_exact_at(&mut buffer, at as u64 * UNIT)
                    .unwrap();
                buffer
            })
        })
        .collect();
    mounted.wait_until_waiting(READERS);
    let path = mounted.path("disk");
    let found = in_time(move || {
        let disk = File::options().read(true).write(true).open(&path).unwrap();
        let mut buffer = vec![0; UNIT as usize];
        for _ in 0..100 {
            disk.read_exact_at(&mut buffer, present).unwrap();
        }
        // Nor do they hold up writes, opening, a flush, or names.
        disk.write_all_at(&[1; 4096], present + UNIT).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        fs::write(path.with_file_name("own"), "own").unwrap();
        fs::rename(path.with_file_name("own"), path.with_file_name("new")).unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 3);
        buffer
    });
    assert!(found == content[present as usize..][..UNIT as usize]);
    assert_eq!(mounted.file.waiting(), READERS);
    mounted.file.release();
    for (at, waiting) in waiting.into_iter().enumerate() {
        let start = at * UNIT as usize;
        assert!(waiting.join().unwrap() == content[start..start + 4096]);
    }
}

#[test]
fn a_write_that_needs_missing_data_waits_for_it_and_a_whole_one_does_not() {
    let Some(mounted) = Mounted::with(vec![1; 65_536]) else {
        return;
    };
    mounted.file.hold(0..65_536);
    let disk = Arc::new(mounted.open());
    let writer = Arc::clone(&disk);
    in_time(move || writer.write_all_at(&[2; 8192], 4096)).unwrap();
    let writer = Arc::clone(&disk);
    let part = thread::spawn(move || writer.write_all_at(&[3; 100], 20_000));
    mounted.wait_until_waiting(1);
    assert_eq!(mounted.file.content()[20_000], 1);
    mounted.file.release();
    part.join().unwrap().unwrap();
    let mut expected = vec![1; 65_536];
    expected[4096..12_288].fill(2);
    expected[20_000..20_100].fill(3);
    assert!(mounted.file.content() == expected);
}

#[test]
fn a_failed_read_gives_its_error_and_the_file_goes_on() {
    let Some(mounted) = Mounted::with(vec![1; 65_536]) else {
        return;
    };
    mounted.file.hold(0..4096);
    let disk = Arc::new(mounted.open());
    let reader = Arc::clone(&disk);
    let waiting = thread::spawn(move || reader.read_exact_at(&mut [0; 10], 0));
    mounted.wait_until_waiting(1);
    mounted.file.fail(Some(Errno::EIO));
    let error = waiting.join().unwrap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EIO.raw()));
    mounted.file.fail(Some(Errno::ENOSPC));
    let error = disk.write_all_at(b"x", 10_000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    mounted.file.fail(None);
    mounted.file.release();
    disk.read_exact_at(&mut [0; 10], 0).unwrap();
}

#[test]
fn fsync_is_a_durability_point_and_close_is_not() {
    let Some(mounted) = Mounted::with(vec![1; 65_536]) else {
        return;
    };
    let disk = mounted.open();
    disk.write_all_at(b"x", 0).unwrap();
    drop(disk);
    assert_eq!(mounted.file.flushes(), 0);
    let disk = mounted.open();
    disk.sync_data().unwrap();
    assert_eq!(mounted.file.flushes(), 1);
    disk.sync_all().unwrap();
    assert_eq!(mounted.file.flushes(), 2);
}

#[test]
fn a_durable_write_is_flushed_before_its_reply() {
    use rustix::io::ReadWriteFlags;
    let Some(mounted) = Mounted::with(vec![1; 65_536]) else {
        return;
    };
    let open = |flags: i32| {
        let mut how = File::options();
        how.write(true).custom_flags(flags);
        how.open(mounted.path("disk")).unwrap()
    };
    let (durable, whole, direct) = (libc::O_DSYNC, libc::O_SYNC, libc::O_DIRECT);
    for (flags, flushes) in [(durable, 1), (whole, 2), (durable | direct, 3)] {
        open(flags).write_all_at(b"y", 1).unwrap();
        assert_eq!(mounted.file.flushes(), flushes);
    }
    // A single write can be durable: so VMMs make a guest's FUA.
    let data = [IoSlice::new(b"z")];
    for (flags, flushes) in [(0, 5), (direct, 7)] {
        let disk = open(flags);
        for how in [ReadWriteFlags::DSYNC, ReadWriteFlags::SYNC] {
            rustix::io::pwritev2(&disk, &data, 2, how).unwrap();
        }
        assert_eq!(mounted.file.flushes(), flushes);
        rustix::io::pwritev2(&disk, &data, 2, ReadWriteFlags::empty()).unwrap();
        assert_eq!(mounted.file.flushes(), flushes);
    }
}

/// A block file on a disk that takes its time to cut it.
struct SlowToCut {
    file: Arc<MemoryBlockFile>,
    cutting: mpsc::Sender<u64>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl BlockFile for SlowToCut {
    fn len(&self) -> u64 {
        self.file.len()
    }
    fn allocated(&self) -> u64 {
        self.file.allocated()
    }
    fn modified(&self) -> SystemTime {
        self.file.modified()
    }
    fn set_len(&self, length: u64) -> Result<(), Errno> {
        self.cutting.send(length).unwrap();
        self.go_on.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        self.file.set_len(length)
    }
    fn try_read(&self, offset: u64, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        self.file.try_read(offset, buffer)
    }
    fn read(self: Arc<Self>, offset: u64, length: usize) -> VolumeFuture<Bytes> {
        Arc::clone(&self.file).read(offset, length)
    }
    fn try_write(&self, offset: u64, data: &[u8]) -> Result<Option<()>, Errno> {
        self.file.try_write(offset, data)
    }
    fn write(self: Arc<Self>, offset: u64, data: Bytes) -> VolumeFuture<()> {
        Arc::clone(&self.file).write(offset, data)
    }
    fn zero(self: Arc<Self>, offset: u64, length: u64, mode: ZeroMode) -> VolumeFuture<()> {
        Arc::clone(&self.file).zero(offset, length, mode)
    }
    fn flush(self: Arc<Self>) -> VolumeFuture<()> {
        Arc::clone(&self.file).flush()
    }
    fn seek(&self, offset: u64, target: SeekTarget) -> Result<u64, Errno> {
        self.file.seek(offset, target)
    }
}

#[test]
fn a_length_that_takes_long_to_set_holds_up_nobody_else() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("mnt");
    fs::create_dir(&directory).unwrap();
    let runtime = Runtime::new().unwrap();
    let (cutting, begun) = mpsc::channel();
    let (go_on, waits) = mpsc::channel();
    let slow: Arc<dyn BlockFile> = Arc::new(SlowToCut {
        file: MemoryBlockFile::new(vec![1; 100]),
        cutting,
        go_on: Mutex::new(waits),
    });
    let other: Arc<dyn BlockFile> = MemoryBlockFile::new(b"other".to_vec());
    let files = vec![(vec!["slow".into()], slow), (vec!["other".into()], other)];
    let volume = Arc::new(TreeVolume::new(files, &folder.path().join("own")).unwrap());
    // With one thread, who waits in it stops everything.
    let mut options = MountOptions::new(runtime.handle().clone(), "slow");
    options.threads = 1;
    let mount = mount(volume, &directory, options).unwrap();
    let path = directory.join("slow");
    type Cut = fn(&Path);
    let ways: [(u64, Cut); 4] = [
        (50, |path| {
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(50)
                .unwrap()
        }),
        (0, |path| drop(File::create(path).unwrap())),
        (0, |path| {
            drop(rustix::fs::open(path, OFlags::TRUNC, Mode::empty()).unwrap())
        }),
        (500, |path| {
            let file = File::options().write(true).open(path).unwrap();
            fallocate(&file, FallocateFlags::empty(), 0, 500).unwrap();
        }),
    ];
    for (length, way) in ways {
        let slow = path.clone();
        let cut = thread::spawn(move || way(&slow));
        assert_eq!(begun.recv_timeout(PATIENCE), Ok(length));
        let other = directory.join("other");
        assert_eq!(in_time(move || fs::read(other).unwrap()), b"other");
        go_on.send(()).unwrap();
        cut.join().unwrap();
        assert_eq!(path.metadata().unwrap().len(), length);
    }
    mount.unmount().unwrap();
}

#[test]
fn the_vmms_own_files_and_the_table_of_mounts_outlast_a_mount() {
    let Some(mut mounted) = Mounted::with(vec![1; 100]) else {
        return;
    };
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        table.contains("fuse.vmtorrent vmtorrent:a\\040test,\\040with\\040\\134\\040in\\040it")
    );
    fs::create_dir(mounted.path("vm/own")).unwrap();
    fs::write(mounted.path("vm/own/log"), "kept").unwrap();
    mounted.unmount();
    mounted.mount();
    assert_eq!(fs::read(mounted.path("vm/own/log")).unwrap(), b"kept");
    assert_eq!(fs::read(mounted.path("vm/deep")).unwrap(), b"deep");
    let listed = Command::new("ls").arg("-laR").arg(mounted.dir()).output();
    assert!(listed.unwrap().status.success());
    let below = rustix::fs::statvfs(mounted.folder.path()).unwrap();
    let shown = rustix::fs::statvfs(mounted.dir()).unwrap();
    let bytes = |stat: &rustix::fs::StatVfs| stat.f_blocks * stat.f_frsize;
    assert_eq!(bytes(&shown), bytes(&below));
}

#[test]
fn other_users_get_in_only_when_they_are_let_in() {
    let Some(mounted) = Mounted::with(vec![1; 100]) else {
        return;
    };
    // They must be able to get at the directory at all.
    let everybody = Mode::from_bits_retain(0o755);
    rustix::fs::chmod(mounted.folder.path(), everybody).unwrap();
    let as_another = |words: &[&str], path: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command
            .args(words)
            .arg(path)
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(!as_another(&["cat"], &mounted.path("disk")));
    let options = MountOptions {
        allow_other: true,
        ..MountOptions::new(mounted.runtime.handle().clone(), "for all")
    };
    let directory = mounted.folder.path().join("shared");
    fs::create_dir(&directory).unwrap();
    let volume = mounted.volume();
    let mount = mount(volume, &directory, options).unwrap();
    let shared = &directory.join("disk");
    assert!(as_another(&["cat"], shared));
    // Permission bits hold for them.
    assert!(!as_another(&["sh", "-c", "printf x >> \"$0\""], shared));
    rustix::fs::chmod(directory.join("disk"), Mode::from_bits_retain(0o646)).unwrap();
    assert!(as_another(&["sh", "-c", "printf x >> \"$0\""], shared));
    rustix::fs::chmod(directory.join("disk"), Mode::RUSR).unwrap();
    assert!(!as_another(&["cat"], shared));
    assert_eq!(mounted.file.len(), 101);
    mount.unmount().unwrap();
}

#[test]
fn unmounting_sends_away_who_waits_and_who_lingers() {
    const UNIT: u64 = 65_536;
    const WAITING: u64 = 80;
    let Some(mut mounted) = Mounted::with(vec![1; 100 * UNIT as usize]) else {
        return;
    };
    let directory = mounted.dir();
    mounted.file.hold(0..WAITING * UNIT);
    let disk = Arc::new(mounted.open());
    let waiting: Vec<_> = (0..WAITING)
        .map(|at| {
            let disk = Arc::clone(&disk);
            thread::spawn(move || match at % 4 {
                0 => disk.write_all_at(b"part of a block", at * UNIT),
                _ => disk.read_exact_at(&mut [0; 10], at * UNIT),
            })
        })
        .collect();
    mounted.wait_until_waiting(WAITING as usize);
    // Who works with what is here is no reason to wait either.
    let (reader, stop) = (mounted.open(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let busy = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            if let Err(error) = reader.read_exact_at(&mut [0; 4096], WAITING * UNIT) {
                return error;
            }
        }
        panic!("no read failed");
    });
    assert!(is_mounted(&directory));
    let begin = Instant::now();
    mounted.unmount();
    // It would give up after fifteen.
    assert!(begin.elapsed() < Duration::from_secs(10));
    for waiting in waiting {
        waiting.join().unwrap().unwrap_err();
    }
    assert!(!is_mounted(&directory));
    // The file is open still: it gives errors, and does not wait.
    in_time(move || disk.read_exact_at(&mut [0; 10], WAITING * UNIT)).unwrap_err();
    let error = in_time(move || busy.join().unwrap());
    assert!(
        matches!(
            error.kind(),
            ErrorKind::NotConnected | ErrorKind::ConnectionAborted
        ),
        "{error}"
    );
    stop.store(true, Ordering::Relaxed);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    // Nothing of a write that was sent away has reached the file.
    assert!(mounted.file.content().iter().all(|byte| *byte == 1));
    mounted.file.release();
    mounted.mount();
    mounted.open().read_exact_at(&mut [0; 10], 0).unwrap();
}

#[test]
fn a_full_disk_refuses_what_needs_room_and_nothing_else() {
    use rustix::mount::{MountFlags, UnmountFlags, mount as mount_tmpfs, unmount};
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("files");
    fs::create_dir(&own).unwrap();
    mount_tmpfs("tmpfs", &own, "tmpfs", MountFlags::empty(), c"size=1m").unwrap();
    // Gone with its last user, even if the test fails.
    let top = File::open(&own).unwrap();
    unmount(&own, UnmountFlags::DETACH).unwrap();
    let host = PathBuf::from(format!("/proc/self/fd/{}", top.as_raw_fd()));
    let file = MemoryBlockFile::new(vec![1; 1 << 20]);
    let disk: Arc<dyn BlockFile> = Arc::clone(&file) as _;
    let volume = TreeVolume::new(vec![(vec!["disk".into()], disk)], &host).unwrap();
    let directory = folder.path().join("mnt");
    fs::create_dir(&directory).unwrap();
    let runtime = Runtime::new().unwrap();
    let options = MountOptions::new(runtime.handle().clone(), "full");
    let mount = mount(Arc::new(volume), &directory, options).unwrap();
    let open = |name: &str| {
        let mut how = File::options();
        how.read(true).write(true).create(true);
        how.truncate(false).open(directory.join(name)).unwrap()
    };
    let full = |result: std::io::Result<()>| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::StorageFull);
    };
    let (disk, own) = (open("disk"), open("own"));
    file.limit(Some(1 << 20));
    disk.write_all_at(&[2; 4096], 0).unwrap();
    full(disk.write_all_at(&[2; 4096], 2 << 20));
    assert_eq!(disk.metadata().unwrap().len(), 1 << 20);
    own.write_all_at(&[1; 65_536], 0).unwrap();
    full(own.write_all_at(&vec![1; 1 << 20], 65_536));
    let size = own.metadata().unwrap().len();
    assert!(
        (65_536..1 << 20).contains(&size) || size == 1 << 20,
        "{size}"
    );
    // What is there stays, reading and flushing go on, and so does all else when there is room again.
    let mut found = vec![0; 65_536];
    own.read_exact_at(&mut found, 0).unwrap();
    assert!(found.iter().all(|byte| *byte == 1));
    disk.sync_all().unwrap();
    own.sync_all().unwrap();
    own.set_len(1000).unwrap();
    own.write_all_at(&[3; 65_536], 1000).unwrap();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&disk, punch, 8192, 4096).unwrap();
    disk.write_all_at(&[2; 4096], 2 << 20).unwrap();
    assert_eq!(disk.metadata().unwrap().len(), (2 << 20) + 4096);
    drop((disk, own));
    mount.unmount().unwrap();
}

#[test]
fn unmounting_from_the_runtimes_only_thread_does_not_hang() {
    let Some(mut mounted) = Mounted::with(vec![1; 65_536]) else {
        return;
    };
    mounted.unmount();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let options = MountOptions::new(runtime.handle().clone(), "test");
    let mount = mount(mounted.volume(), &mounted.dir(), options).unwrap();
    mounted.file.hold(0..4096);
    let disk = mounted.open();
    let waiting = thread::spawn(move || disk.read_exact_at(&mut [0; 10], 0));
    runtime.block_on(mounted.file.wait_until_waiting(1));
    runtime.block_on(async { drop(mount) });
    assert!(waiting.join().unwrap().is_err());
    assert!(!is_mounted(&mounted.dir()));
}

#[test]
fn a_mount_taken_away_by_someone_else_harms_no_later_one() {
    let Some(mut mounted) = Mounted::with(vec![1; 100]) else {
        return;
    };
    let directory = mounted.dir();
    let first = mounted.mount.take().unwrap();
    let gone = Command::new("umount").arg(&directory).status().unwrap();
    assert!(gone.success());
    mounted.mount();
    drop(first);
    assert!(is_mounted(&directory));
    assert_eq!(fs::read(mounted.path("vm/deep")).unwrap(), b"deep");
}

#[test]
fn a_mount_whose_connection_was_ended_makes_room_for_the_next() {
    use rustix::mount::{UnmountFlags, unmount};
    let Some(mut mounted) = Mounted::with(vec![1; 100]) else {
        return;
    };
    let disk = mounted.open();
    // In use, so that it stays, but its connection ends.
    let forced = unmount(mounted.dir(), UnmountFlags::FORCE);
    assert_eq!(forced, Err(rustix::io::Errno::BUSY));
    let dead = disk.read_exact_at(&mut [0; 10], 0).unwrap_err();
    assert_eq!(dead.kind(), ErrorKind::NotConnected);
    let options = MountOptions::new(mounted.runtime.handle().clone(), "second");
    let second = mount(mounted.volume(), &mounted.dir(), options).unwrap();
    mounted.open().read_exact_at(&mut [0; 10], 0).unwrap();
    // The first one has nothing left to take away.
    drop(disk);
    mounted.unmount();
    assert!(is_mounted(&mounted.dir()));
    second.unmount().unwrap();
    assert!(!is_mounted(&mounted.dir()));
}

#[test]
fn a_second_mount_on_the_same_directory_is_refused() {
    let Some(mounted) = Mounted::with(vec![1; 100]) else {
        return;
    };
    let options = MountOptions::new(mounted.runtime.handle().clone(), "second");
    let refused = mount(mounted.volume(), &mounted.dir(), options).unwrap_err();
    assert_eq!(refused.kind(), MountErrorKind::Busy);
    assert!(refused.context().contains("fusermount3 -u"));
}
