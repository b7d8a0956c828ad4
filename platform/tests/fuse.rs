//! The FUSE backend through a real mount, against a block file in memory.
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
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use vmtorrent_platform::fuse::{Mount, MountErrorKind, MountOptions, mount};
use vmtorrent_platform::{BlockFile, Errno, MemoryBlockFile, TreeVolume, Volume};

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
fn random_operations_equal_those_on_a_reference() {
    let mut random = Random(0x5EED_1234_ABCD_0001);
    let mut reference = random.bytes(700_001);
    let Some(mounted) = Mounted::with(reference.clone()) else {
        return;
    };
    let disk = mounted.open();
    for step in 0..3000 {
        let size = reference.len() as u64;
        let offset = random.below(size + 5000);
        let length = match random.below(10) {
            0 => random.below(300_000),
            _ => random.below(9000),
        } as usize;
        let end = offset as usize + length;
        match random.below(8) {
            0..3 => {
                let mut buffer = vec![0; length];
                let read = disk.read_at(&mut buffer, offset).unwrap();
                let end = end.min(reference.len());
                let expected = &reference[(offset as usize).min(end)..end];
                assert!(buffer[..read] == *expected, "step {step}");
            }
            3..6 => {
                let data = random.bytes(length);
                disk.write_all_at(&data, offset).unwrap();
                if length > 0 {
                    reference.resize(reference.len().max(end), 0);
                    reference[offset as usize..end].copy_from_slice(&data);
                }
            }
            6 if length > 0 => {
                let grows = random.below(2) == 0;
                let flags = match (random.below(2), grows) {
                    (0, _) => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                    (_, true) => FallocateFlags::ZERO_RANGE,
                    (_, false) => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
                };
                fallocate(&disk, flags, offset, length as u64).unwrap();
                if flags == FallocateFlags::ZERO_RANGE {
                    reference.resize(reference.len().max(end), 0);
                }
                let end = end.min(reference.len());
                reference[(offset as usize).min(end)..end].fill(0);
            }
            _ if step % 5 == 0 => {
                disk.set_len(offset).unwrap();
                reference.resize(offset as usize, 0);
            }
            _ => assert_eq!(disk.metadata().unwrap().len(), size, "step {step}"),
        }
    }
    assert!(mounted.file.content() == reference);
    let mut all = Vec::new();
    File::open(mounted.path("disk"))
        .unwrap()
        .read_to_end(&mut all)
        .unwrap();
    assert!(all == reference);
}

#[test]
fn files_grow_by_writing_truncating_and_allocating() {
    let Some(mounted) = Mounted::with(vec![1; 5000]) else {
        return;
    };
    let disk = mounted.open();
    disk.write_all_at(b"end", 9_000).unwrap();
    assert_eq!(disk.metadata().unwrap().len(), 9_003);
    fallocate(&disk, FallocateFlags::empty(), 100, 10_000).unwrap();
    assert_eq!(disk.metadata().unwrap().len(), 10_100);
    fallocate(&disk, FallocateFlags::KEEP_SIZE, 100, 50_000).unwrap();
    assert_eq!(disk.metadata().unwrap().len(), 10_100);
    let mut expected = vec![1; 5000];
    expected.resize(10_100, 0);
    expected[9_000..9_003].copy_from_slice(b"end");
    assert!(mounted.file.content() == expected);
    let refused = fallocate(&disk, FallocateFlags::COLLAPSE_RANGE, 0, 4096);
    assert_eq!(refused, Err(rustix::io::Errno::OPNOTSUPP));
    let mut appended = File::options()
        .append(true)
        .open(mounted.path("disk"))
        .unwrap();
    appended.write_all(b"more").unwrap();
    assert_eq!(&mounted.file.content()[10_100..], b"more");
    File::create(mounted.path("disk")).unwrap();
    assert_eq!(mounted.file.content(), b"");
}

#[test]
fn holes_are_found_and_storage_is_counted() {
    let mut content = vec![0; 1 << 20];
    content[1 << 16..1 << 17].fill(1);
    let Some(mounted) = Mounted::with(content) else {
        return;
    };
    let disk = mounted.open();
    let seek = |target| rustix::fs::seek(&disk, target);
    assert_eq!(seek(rustix::fs::SeekFrom::Data(5)), Ok(1 << 16));
    assert_eq!(seek(rustix::fs::SeekFrom::Hole(1 << 16)), Ok(1 << 17));
    let nothing = seek(rustix::fs::SeekFrom::Data(1 << 17));
    assert_eq!(nothing, Err(rustix::io::Errno::NXIO));
    assert_eq!(disk.metadata().unwrap().blocks() * 512, 1 << 16);
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&disk, flags, 1 << 16, 1 << 15).unwrap();
    assert_eq!(disk.metadata().unwrap().blocks() * 512, 1 << 15);
    assert_eq!(seek(rustix::fs::SeekFrom::Data(0)), Ok(3 << 15));
    assert_eq!((&disk).seek(SeekFrom::End(0)).unwrap(), 1 << 20);
}

#[test]
fn direct_io_reads_and_writes() {
    let mut random = Random(77);
    let content = random.bytes(3 << 20);
    let Some(mounted) = Mounted::with(content.clone()) else {
        return;
    };
    let disk = File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(mounted.path("disk"))
        .unwrap();
    let mut space = vec![0; (2 << 20) + 4096];
    let start = space.as_ptr().align_offset(4096);
    let buffer = &mut space[start..start + (2 << 20)];
    disk.read_exact_at(buffer, 4096).unwrap();
    assert!(*buffer == content[4096..4096 + (2 << 20)]);
    buffer.fill(9);
    disk.write_all_at(buffer, 1 << 20).unwrap();
    let now = mounted.file.content();
    assert!(now[..1 << 20] == content[..1 << 20]);
    assert!(now[1 << 20..].iter().all(|byte| *byte == 9));
}

#[test]
#[expect(unsafe_code, reason = "mapping memory is what is tested")]
fn mappings_read_and_write_the_file() {
    use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
    const LENGTH: usize = 1 << 20;
    let content = Random(3).bytes(LENGTH);
    let Some(mounted) = Mounted::with(content.clone()) else {
        return;
    };
    let disk = mounted.open();
    let mapped = |protection, flags, use_it: &dyn Fn(&mut [u8])| {
        // SAFETY: a new mapping of the file's whole length at an address that the kernel chooses; nobody
        // cuts the file, and the slice is not used after the unmapping.
        unsafe {
            let at = mmap(std::ptr::null_mut(), LENGTH, protection, flags, &disk, 0).unwrap();
            use_it(std::slice::from_raw_parts_mut(at.cast(), LENGTH));
            if flags == MapFlags::SHARED {
                msync(at, LENGTH, MsyncFlags::SYNC).unwrap();
            }
            munmap(at, LENGTH).unwrap();
        }
    };
    let both = ProtFlags::READ | ProtFlags::WRITE;
    mapped(both, MapFlags::PRIVATE, &|map| {
        assert!(map == content);
        map.fill(1);
    });
    assert!(mounted.file.content() == content);
    mapped(both, MapFlags::SHARED, &|map| map[5000..6000].fill(200));
    let mut expected = content;
    expected[5000..6000].fill(200);
    assert!(mounted.file.content() == expected);
    // What is written past a mapping is in the next one.
    disk.write_all_at(&[201; 10], 70_000).unwrap();
    expected[70_000..70_010].fill(201);
    mapped(both, MapFlags::SHARED, &|map| assert!(map == expected));
}

#[test]
fn many_misses_do_not_hold_up_present_data() {
    const UNIT: u64 = 65_536;
    let content = Random(4).bytes(66 * UNIT as usize);
    let Some(mounted) = Mounted::with(content.clone()) else {
        return;
    };
    mounted.file.hold(0..64 * UNIT);
    let disk = Arc::new(mounted.open());
    let waiting: Vec<_> = (0..64)
        .map(|at| {
            let disk = Arc::clone(&disk);
            thread::spawn(move || {
                let mut buffer = vec![0; 4096];
                disk.read_exact_at(&mut buffer, at * UNIT).unwrap();
                buffer
            })
        })
        .collect();
    mounted.wait_until_waiting(64);
    let reader = Arc::clone(&disk);
    let path = mounted.path("disk");
    let present = in_time(move || {
        let mut buffer = vec![0; UNIT as usize];
        for _ in 0..100 {
            reader.read_exact_at(&mut buffer, 64 * UNIT).unwrap();
        }
        // Nor do they hold up writes, opening, or a flush.
        reader.write_all_at(&[1; 4096], 65 * UNIT).unwrap();
        File::open(path).unwrap().sync_all().unwrap();
        buffer
    });
    assert!(present == content[64 * UNIT as usize..65 * UNIT as usize]);
    assert_eq!(mounted.file.waiting(), 64);
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
    let synchronous = File::options()
        .write(true)
        .custom_flags(OFlags::DSYNC.bits() as i32)
        .open(mounted.path("disk"))
        .unwrap();
    synchronous.write_all_at(b"y", 1).unwrap();
    assert_eq!(mounted.file.flushes(), 3);
}

#[test]
fn own_files_are_made_renamed_removed_and_kept() {
    let Some(mut mounted) = Mounted::with(vec![1; 100]) else {
        return;
    };
    let own = mounted.path("vm/log.txt");
    fs::write(&own, "line\n").unwrap();
    let mut log = File::options().append(true).open(&own).unwrap();
    log.write_all(b"another\n").unwrap();
    log.sync_all().unwrap();
    fs::create_dir_all(mounted.path("vm/own/sub")).unwrap();
    fs::rename(&own, mounted.path("vm/own/sub/log.1")).unwrap();
    fs::write(mounted.path("lock"), "").unwrap();
    fs::remove_file(mounted.path("lock")).unwrap();
    File::open(mounted.path("vm/own"))
        .unwrap()
        .sync_all()
        .unwrap();
    let many = mounted.path("many");
    fs::create_dir(&many).unwrap();
    for at in 0..700 {
        File::create(many.join(format!("a file with a rather long name, number {at}"))).unwrap();
    }
    let mut names: Vec<_> = fs::read_dir(&many)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 700);
    // The image's files are not the VMM's to take away.
    for refused in [
        fs::remove_file(mounted.path("disk")),
        fs::remove_dir(mounted.path("vm")),
        fs::rename(mounted.path("disk"), mounted.path("x")),
        std::os::unix::fs::symlink("disk", mounted.path("link")),
        fs::hard_link(mounted.path("disk"), mounted.path("link")),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
    fs::write(mounted.path("nvram"), "kept").unwrap();
    fs::remove_dir_all(&many).unwrap();
    drop(log);
    mounted.unmount();
    mounted.mount();
    assert_eq!(fs::read(mounted.path("nvram")).unwrap(), b"kept");
    let log = fs::read(mounted.path("vm/own/sub/log.1")).unwrap();
    assert_eq!(log, b"line\nanother\n");
    assert!(!many.exists());
    assert_eq!(fs::read(mounted.path("vm/deep")).unwrap(), b"deep");
}

#[test]
fn an_unlinked_open_file_stays_usable() {
    let Some(mounted) = Mounted::with(vec![1; 100]) else {
        return;
    };
    let path = mounted.path("temporary");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    fs::remove_file(&path).unwrap();
    assert!(!path.exists());
    file.write_all(b"content").unwrap();
    file.sync_all().unwrap();
    file.set_len(4).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 4);
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "cont");
}

#[test]
fn attributes_and_listings_are_those_of_a_local_disk() {
    let Some(mounted) = Mounted::with(vec![1; 100]) else {
        return;
    };
    let disk = fs::metadata(mounted.path("disk")).unwrap();
    assert_eq!(disk.uid(), rustix::process::geteuid().as_raw());
    assert_eq!(disk.gid(), rustix::process::getegid().as_raw());
    assert_eq!(disk.mode() & 0o7777, 0o644);
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&mounted.dir()), ["disk", "vm"]);
    assert_eq!(names(&mounted.path("vm")), ["deep"]);
    let listed = Command::new("ls").arg("-laR").arg(mounted.dir()).output();
    assert!(listed.unwrap().status.success());
    let below = rustix::fs::statvfs(mounted.folder.path()).unwrap();
    let shown = rustix::fs::statvfs(mounted.dir()).unwrap();
    assert_eq!(
        shown.f_blocks * shown.f_frsize,
        below.f_blocks * below.f_frsize
    );
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        table.contains("fuse.vmtorrent vmtorrent:a\\040test,\\040with\\040\\134\\040in\\040it")
    );
    rustix::fs::chmod(mounted.path("disk"), rustix::fs::Mode::RUSR).unwrap();
    let disk = fs::metadata(mounted.path("disk")).unwrap();
    assert_eq!(disk.mode() & 0o7777, 0o400);
    let other = std::os::unix::fs::chown(mounted.path("disk"), Some(12_345), None);
    assert_eq!(other.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[test]
fn locks_of_two_openers_exclude_each_other() {
    let Some(mounted) = Mounted::with(vec![1; 100]) else {
        return;
    };
    let (first, second) = (mounted.open(), mounted.open());
    first.try_lock().unwrap();
    assert!(second.try_lock().is_err());
}

#[test]
fn unmounting_sends_away_who_waits_and_who_lingers() {
    let Some(mut mounted) = Mounted::with(vec![1; 65_536]) else {
        return;
    };
    let directory = mounted.dir();
    mounted.file.hold(0..4096);
    let disk = Arc::new(mounted.open());
    let reader = Arc::clone(&disk);
    let waiting = thread::spawn(move || reader.read_exact_at(&mut [0; 10], 0));
    mounted.wait_until_waiting(1);
    assert!(is_mounted(&directory));
    let begin = Instant::now();
    mounted.unmount();
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert!(waiting.join().unwrap().is_err());
    assert!(!is_mounted(&directory));
    // The file is open still: it gives errors, and does not wait.
    in_time(move || disk.read_exact_at(&mut [0; 10], 8192)).unwrap_err();
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    mounted.file.release();
    mounted.mount();
    mounted.open().read_exact_at(&mut [0; 10], 0).unwrap();
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
