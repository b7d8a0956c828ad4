//! What only system calls can ask for.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Barrier;

use rustix::fs::{
    CWD, FallocateFlags, FileType, FlockOperation, Mode, OFlags, RawDir, RenameFlags, SeekFrom,
    XattrFlags,
};
use rustix::io::Errno as Host;
use rustix::mm::MapFlags;
use rustix::mount::MountFlags;

use super::super::HOLE;
use super::super::mapping::Mapping;
use super::super::nonzero;
use super::super::surface::{Open, READ, Space, Surface, WRITE};
use super::{assert_same, content, disk, make};
use crate::Random;
use vmtorrent_platform::Errno;

fn path(surface: &dyn Surface, path: &str) -> PathBuf {
    surface.directory().unwrap().join(path)
}

fn open(surface: &dyn Surface, name: &str) -> File {
    let mut how = File::options();
    how.read(true)
        .write(true)
        .open(path(surface, name))
        .unwrap()
}

fn many(surface: &dyn Surface, count: usize) -> File {
    surface.make_directory("many", 0o755).unwrap();
    for at in 0..count {
        make(surface, &format!("many/number {at:05}"), b"");
    }
    File::open(path(surface, "many")).unwrap()
}

/// Reads in small pieces until there are `limit` entries, and gives where to go on behind each.
fn entries(directory: &File, limit: usize) -> Vec<(String, u64)> {
    let mut buffer = [MaybeUninit::uninit(); 700];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut found = Vec::new();
    while (found.len() < limit || !entries.is_buffer_empty())
        && let Some(entry) = entries.next()
    {
        let entry = entry.unwrap();
        let name = entry.file_name().to_str().unwrap().to_owned();
        found.push((name, entry.next_entry_cookie()));
    }
    found
}

pub fn a_directory_read_in_pieces_shows_every_name_that_stays_once(surface: &dyn Surface) {
    const COUNT: usize = 1000;
    let directory = many(surface, COUNT);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut note = |found: Vec<(String, u64)>| {
        for (name, _) in found {
            *seen.entry(name).or_default() += 1;
        }
    };
    note(entries(&directory, 100));
    // Now names go, come and change; those with an odd number stay.
    for at in (0..COUNT).step_by(2) {
        let name = format!("many/number {at:05}");
        match at % 4 {
            0 => surface.unlink(&name).unwrap(),
            _ => surface
                .rename(&name, &format!("many/renamed {at}"), true)
                .unwrap(),
        }
        make(surface, &format!("many/new {at}"), b"");
    }
    note(entries(&directory, usize::MAX));
    for at in (1..COUNT).step_by(2) {
        let name = format!("number {at:05}");
        assert_eq!(seen.get(&name), Some(&1), "{name}");
    }
    assert_eq!((seen["."], seen[".."]), (1, 1));
    assert!(seen.values().all(|times| *times == 1));
    // A new reading shows what is there now.
    rustix::fs::seek(&directory, SeekFrom::Start(0)).unwrap();
    let now = entries(&directory, usize::MAX);
    assert_eq!(now.len(), 2 + COUNT + COUNT / 4);
    let names = now.iter().map(|(name, _)| name.as_str());
    assert!(names.filter(|name| name.starts_with("new")).count() == COUNT / 2);
}

pub fn reading_a_directory_goes_on_where_a_position_was_kept(surface: &dyn Surface) {
    let directory = many(surface, 300);
    let all = entries(&directory, usize::MAX);
    assert_eq!(all.len(), 302);
    for at in [0, 1, 2, 5, 150, 300, 301] {
        let position = all[at].1;
        // In the directory that was read, and in one that was opened anew.
        for directory in [&directory, &File::open(path(surface, "many")).unwrap()] {
            rustix::fs::seek(directory, SeekFrom::Start(position)).unwrap();
            assert_eq!(entries(directory, usize::MAX), all[at + 1..]);
        }
    }
}

pub fn links_sockets_and_devices_are_refused_and_mknod_makes_files(surface: &dyn Surface) {
    let at = |name| path(surface, name);
    let refused = |made: std::io::Result<()>| {
        assert_eq!(
            made.unwrap_err().raw_os_error(),
            Some(Host::PERM.raw_os_error())
        );
    };
    make(surface, "own", b"mine");
    refused(std::os::unix::fs::symlink("disk", at("link")));
    refused(fs::hard_link(at("disk"), at("link")));
    refused(fs::hard_link(at("own"), at("link")));
    refused(std::os::unix::net::UnixListener::bind(at("s")).map(drop));
    let node = |name, kind| rustix::fs::mknodat(CWD, at(name), kind, Mode::RUSR, 0);
    assert_eq!(node("pipe", FileType::Fifo), Err(Host::PERM));
    assert_eq!(node("node", FileType::RegularFile), Ok(()));
    assert_eq!(node("node", FileType::RegularFile), Err(Host::EXIST));
    assert_eq!(surface.stat("node").unwrap().permissions, 0o400);
    let nameless = OFlags::TMPFILE | OFlags::RDWR;
    let nameless = rustix::fs::open(at(""), nameless, Mode::RUSR);
    assert_eq!(nameless.err(), Some(Host::OPNOTSUPP));
    let set = rustix::fs::setxattr(at("own"), "user.x", b"y", XattrFlags::empty());
    assert_eq!(set, Err(Host::OPNOTSUPP));
    let mut names: Vec<_> = surface.list("").unwrap();
    names.sort_by(|a, b| a.0.cmp(&b.0));
    let names: Vec<_> = names.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["disk", "node", "own", "vm"]);
    let other = std::os::unix::fs::chown(at("own"), Some(12_345), None);
    refused(other);
}

pub fn names_that_are_not_utf8_do_not_exist(surface: &dyn Surface) {
    let name = path(surface, "").join(OsStr::from_bytes(b"a\xFFb"));
    make(surface, "own", b"");
    let own = path(surface, "own");
    let missing = |result: std::io::Result<()>| {
        let errno = result.unwrap_err().raw_os_error();
        assert_eq!(errno, Some(Host::NOENT.raw_os_error()));
    };
    missing(name.symlink_metadata().map(drop));
    missing(fs::remove_file(&name));
    missing(fs::rename(&name, &own));
    for made in [
        File::create(&name).map(drop),
        fs::create_dir(&name),
        fs::rename(&own, &name),
    ] {
        let errno = made.unwrap_err().raw_os_error();
        assert_eq!(errno, Some(Host::INVAL.raw_os_error()));
    }
}

pub fn a_removed_file_is_opened_again_by_who_has_it_open(surface: &dyn Surface) {
    make(surface, "own", b"mine");
    let file = open(surface, "own");
    surface.unlink("own").unwrap();
    let again = format!("/proc/self/fd/{}", file.as_raw_fd());
    let again = File::options().read(true).write(true).open(again).unwrap();
    drop(file);
    again.write_all_at(b"M", 0).unwrap();
    let mut found = [0; 4];
    again.read_exact_at(&mut found, 0).unwrap();
    assert_eq!(&found, b"Mine");
}

pub fn other_forms_of_renaming_and_allocating_are_refused(surface: &dyn Surface) {
    make(surface, "a", b"a");
    make(surface, "b", b"b");
    let exchanged = rustix::fs::renameat_with(
        CWD,
        path(surface, "a"),
        CWD,
        path(surface, "b"),
        RenameFlags::EXCHANGE,
    );
    assert_eq!(exchanged, Err(Host::INVAL));
    for name in ["disk", "a"] {
        let file = open(surface, name);
        for how in [
            FallocateFlags::COLLAPSE_RANGE,
            FallocateFlags::INSERT_RANGE,
            FallocateFlags::UNSHARE_RANGE,
        ] {
            let refused = rustix::fs::fallocate(&file, how, 0, 4096);
            assert_eq!(refused, Err(Host::OPNOTSUPP), "{name}: {how:?}");
        }
        let nothing = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 0);
        assert_eq!(nothing, Err(Host::INVAL));
        let reader = File::open(path(surface, name)).unwrap();
        let refused = rustix::fs::fallocate(&reader, FallocateFlags::empty(), 0, 10);
        assert_eq!(refused, Err(Host::BADF));
    }
    assert_eq!(content(surface, "a"), b"a");
    assert_same(&content(surface, "disk"), &disk(), "disk");
}

pub fn direct_io_works_at_any_alignment(surface: &dyn Surface) {
    let mut model = disk();
    make(surface, "own", &model);
    let mut random = Random::new(8);
    for name in ["disk", "own"] {
        model = disk();
        let direct = File::options()
            .read(true)
            .write(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(path(surface, name))
            .unwrap();
        let mut space = vec![0; (2 << 20) + 8192];
        for round in 0..300 {
            // Every other one is aligned as local disks want it.
            let unit = if round % 2 == 0 { 512 } else { 1 };
            let aligned = |value: u64| (value - value % unit) as usize;
            let offset = aligned(random.below(900_000));
            let largest = if round % 30 == 0 { 1_500_000 } else { 20_000 };
            let length = aligned(random.below(largest));
            let start = space.as_ptr().align_offset(4096) + aligned(random.below(4096));
            let buffer = &mut space[start..start + length];
            if round % 3 == 0 {
                buffer.copy_from_slice(&random.bytes(length));
                direct.write_all_at(buffer, offset as u64).unwrap();
                if length > 0 {
                    model.resize(model.len().max(offset + length), 0);
                    model[offset..offset + length].copy_from_slice(buffer);
                }
                continue;
            }
            let mut done = 0;
            while done < length {
                match direct
                    .read_at(&mut buffer[done..], (offset + done) as u64)
                    .unwrap()
                {
                    0 => break,
                    read => done += read,
                }
            }
            let right = model.len().min(offset)..model.len().min(offset + length);
            let what = format!("{name}: {length} at {offset} to {start}");
            assert_same(&buffer[..done], &model[right], &what);
        }
        assert_same(&content(surface, name), &model, name);
    }
}

pub fn mappings_show_the_file_and_shared_ones_change_it(surface: &dyn Surface) {
    let mut model = disk();
    make(surface, "own", &model);
    for name in ["disk", "own"] {
        model = disk();
        let file = open(surface, name);
        let private = Mapping::new(&file, model.len(), MapFlags::PRIVATE);
        assert_same(&private.read(0, model.len()), &model, "a private mapping");
        private.write(100, &[1; 10_000]);
        assert_same(&content(surface, name), &model, "after a private change");
        let shared = Mapping::new(&file, model.len(), MapFlags::SHARED);
        shared.write(5000, &[200; 1000]);
        shared.write(HOLE.start + 10, b"in a hole");
        let last = model.len() - 3;
        shared.write(last as u64, b"end");
        model[5000..6000].fill(200);
        model[HOLE.start as usize + 10..][..9].copy_from_slice(b"in a hole");
        model[last..].copy_from_slice(b"end");
        shared.sync();
        assert_same(&content(surface, name), &model, "after a shared change");
        drop(shared);
        // A mapping outlives the descriptor, and what it changed arrives without msync.
        let shared = Mapping::new(&file, model.len(), MapFlags::SHARED);
        drop(file);
        shared.write(70_000, b"late");
        drop(shared);
        model[70_000..70_004].copy_from_slice(b"late");
        assert_same(&content(surface, name), &model, "after unmapping");
        assert_eq!(surface.stat(name).unwrap().size, model.len() as u64);
    }
}

/// Reads and writes do not go through the page cache, but the kernel writes changed pages of mappings back before it
/// reads past them and drops those that it writes past: so handles of all sorts agree, one after the other.
pub fn a_mapping_and_other_handles_see_each_others_changes(surface: &dyn Surface) {
    make(surface, "own", &disk());
    for name in ["disk", "own"] {
        let file = surface.open(name, WRITE).unwrap();
        let direct = true;
        let direct = surface.open(name, Open { direct, ..WRITE }).unwrap();
        let map = Mapping::new(&open(surface, name), 600_000, MapFlags::SHARED);
        for round in 0..20_u8 {
            let offset = 1000 + u64::from(round) * 20_011;
            let byte = 100 + round;
            file.write_at(offset, &[byte; 6000]).unwrap();
            assert_eq!(map.read(offset, 6000), [byte; 6000]);
            assert_eq!(direct.read_at(offset, 6000).unwrap(), [byte; 6000]);
            map.write(offset + 3000, &[byte + 50; 100]);
            assert_eq!(file.read_at(offset + 3000, 100).unwrap(), [byte + 50; 100]);
            assert_eq!(
                direct.read_at(offset + 3000, 100).unwrap(),
                [byte + 50; 100]
            );
            // A write beside what the mapping changed does not lose that.
            map.write(offset + 4000, &[byte + 51; 100]);
            direct.write_at(offset + 4050, &[byte + 52; 100]).unwrap();
            assert_eq!(map.read(offset + 4000, 50), [byte + 51; 50]);
            assert_eq!(file.read_at(offset + 4050, 100).unwrap(), [byte + 52; 100]);
            // A hole is zeros in the mapping too, and so is what was cut off and grew again.
            file.space(Space::Punch, offset, 2000).unwrap();
            assert_eq!(map.read(offset, 2000), [0; 2000]);
        }
        file.set_length(100_001).unwrap();
        file.set_length(600_000).unwrap();
        assert_eq!(map.read(100_001, 499_999), vec![0; 499_999]);
    }
}

pub fn ranges_are_copied_between_files(surface: &dyn Surface) {
    let mut model = nonzero(9, 100_000);
    make(surface, "own", &model);
    let mut image = disk();
    let (disk, own) = (open(surface, "disk"), open(surface, "own"));
    let copy = |from: &File, mut from_at: u64, to: &File, mut to_at: u64, length: usize| {
        let mut left = length;
        while left > 0 {
            let copied =
                rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), left);
            match copied.unwrap() {
                0 => break,
                copied => left -= copied,
            }
        }
        length - left
    };
    assert_eq!(copy(&disk, 100, &own, 50_000, 80_000), 80_000);
    model.resize(130_000, 0);
    model[50_000..].copy_from_slice(&image[100..80_100]);
    assert_eq!(copy(&own, 10, &disk, HOLE.start + 5, 33_333), 33_333);
    image[HOLE.start as usize + 5..][..33_333].copy_from_slice(&model[10..33_343]);
    assert_eq!(copy(&disk, 0, &disk, 300_000, 99_999), 99_999);
    image.copy_within(0..99_999, 300_000);
    // No more than there is.
    assert_eq!(copy(&own, 129_000, &disk, 0, 5000), 1000);
    image[..1000].copy_from_slice(&model[129_000..]);
    assert_same(&content(surface, "own"), &model, "own");
    assert_same(&content(surface, "disk"), &image, "disk");
    // Through a pipe-less sendfile, as web servers and `cp` use it.
    let out = tempfile::tempfile().unwrap();
    let mut at = 0;
    while rustix::fs::sendfile(&out, &disk, Some(&mut at), 1 << 20).unwrap() > 0 {}
    let mut sent = vec![0; image.len()];
    out.read_exact_at(&mut sent, 0).unwrap();
    assert_same(&sent, &image, "sent");
}

pub fn appenders_at_the_same_time_lose_nothing(surface: &dyn Surface) {
    const EACH: usize = 100;
    const RECORD: usize = 50;
    make(surface, "own", b"");
    surface.set_length("disk", 0).unwrap();
    for name in ["own", "disk"] {
        std::thread::scope(|scope| {
            for appender in 0..4_u8 {
                scope.spawn(move || {
                    let file = File::options().append(true).open(path(surface, name));
                    let mut file = file.unwrap();
                    for _ in 0..EACH {
                        file.write_all(&[b'a' + appender; RECORD]).unwrap();
                    }
                });
            }
        });
        let found = content(surface, name);
        assert_eq!(found.len(), 4 * EACH * RECORD, "{name}");
        let mut counts = [0; 4];
        for record in found.chunks(RECORD) {
            assert!(record.iter().all(|byte| *byte == record[0]), "{name}");
            counts[usize::from(record[0] - b'a')] += 1;
        }
        assert_eq!(counts, [EACH; 4], "{name}");
    }
}

pub fn of_many_exclusive_creators_one_wins(surface: &dyn Surface) {
    for round in 0..20 {
        let name = path(surface, &format!("lock {round}"));
        let start = Barrier::new(8);
        let won = std::thread::scope(|scope| {
            let creators: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        File::create_new(&name).is_ok()
                    })
                })
                .collect();
            let results = creators.into_iter().map(|creator| creator.join().unwrap());
            results.filter(|won| *won).count()
        });
        assert_eq!(won, 1);
    }
}

/// QEMU marks what it does with an image by open-file-description locks on single bytes, shared ones that others look
/// for.
pub fn locks_exclude_other_openers(surface: &dyn Surface) {
    for name in ["disk", "vm/deep"] {
        let (first, second) = (open(surface, name), open(surface, name));
        rustix::fs::flock(&first, FlockOperation::NonBlockingLockExclusive).unwrap();
        let refused = rustix::fs::flock(&second, FlockOperation::NonBlockingLockShared);
        assert_eq!(refused, Err(Host::WOULDBLOCK));
        drop(first);
        rustix::fs::flock(&second, FlockOperation::NonBlockingLockExclusive).unwrap();

        let first = open(surface, name);
        let (shared, exclusive) = (libc::F_RDLCK, libc::F_WRLCK);
        assert!(set_lock(&first, 101, shared));
        assert!(set_lock(&second, 101, shared));
        assert!(!set_lock(&second, 101, exclusive));
        assert!(set_lock(&second, 201, exclusive));
        assert!(is_locked_for(&first, 201, shared));
        assert!(is_locked_for(&first, 101, exclusive));
        assert!(!is_locked_for(&first, 102, exclusive));
        // A lock ends with its opening, not with another descriptor of the same file.
        drop(open(surface, name));
        assert!(is_locked_for(&second, 101, exclusive));
        drop(first);
        assert!(set_lock(&second, 101, exclusive));
    }
}

fn lock(byte: i64, kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

#[expect(unsafe_code, reason = "rustix has no locks of open file descriptions")]
fn set_lock(file: &File, byte: i64, kind: i32) -> bool {
    let lock = lock(byte, kind);
    // SAFETY: the descriptor is open, and the structure lives as long as the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    result == 0
}

#[expect(unsafe_code, reason = "rustix has no locks of open file descriptions")]
fn is_locked_for(file: &File, byte: i64, kind: i32) -> bool {
    let mut lock = lock(byte, kind);
    // SAFETY: the descriptor is open, and the structure lives as long as the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    assert_eq!(result, 0);
    i32::from(lock.l_type) != libc::F_UNLCK
}

pub fn a_mount_made_read_only_refuses_changes(surface: &dyn Surface) {
    let directory = surface.directory().unwrap();
    make(surface, "own", b"mine");
    let flags = MountFlags::BIND | MountFlags::RDONLY;
    rustix::mount::mount_remount(directory, flags, c"").unwrap();
    for name in ["disk", "own"] {
        assert_eq!(surface.open(name, WRITE).err(), Some(Errno::EROFS));
        assert_eq!(surface.set_permissions(name, 0o600), Err(Errno::EROFS));
        surface.open(name, READ).unwrap().read_at(0, 100).unwrap();
    }
    assert_eq!(surface.make_directory("x", 0o700), Err(Errno::EROFS));
    assert_eq!(surface.unlink("own"), Err(Errno::EROFS));
    let cut = rustix::fs::open(path(surface, "own"), OFlags::TRUNC, Mode::empty());
    assert_eq!(cut.err(), Some(Host::ROFS));
    rustix::mount::mount_remount(directory, MountFlags::BIND, c"").unwrap();
    assert_eq!(content(surface, "own"), b"mine");
    make(surface, "again", b"");
}
