//! Attributes: sizes, permissions, times, storage.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::surface::{READ, Space, Surface, WRITE};
use super::super::{HOLE, disk};
use super::{both, make};

const BLOCK: u64 = 4096;

pub fn the_storage_below_is_shown(surface: &dyn Surface) {
    let (total, free) = surface.storage().unwrap();
    assert!(total > 0 && free <= total);
}

pub fn permissions_and_times_of_own_files_are_kept(surface: &dyn Surface) {
    let file = make(surface, "own", b"x");
    surface.make_directory("folder", 0o755).unwrap();
    let then = UNIX_EPOCH + Duration::new(1_000_000_000, 500);
    for path in ["own", "folder"] {
        surface.set_permissions(path, 0o604).unwrap();
        surface.set_modified(path, then).unwrap();
        let found = surface.stat(path).unwrap();
        assert_eq!((found.permissions, found.modified), (0o604, then), "{path}");
    }
    assert_eq!(file.stat().unwrap().modified, then);
    surface.rename("own", "vm/moved", false).unwrap();
    let found = surface.stat("vm/moved").unwrap();
    assert_eq!((found.permissions, found.modified), (0o604, then));
    // Bits that would give rights have no business there.
    surface.set_permissions("folder", 0o1777).unwrap();
    assert_eq!(surface.stat("folder").unwrap().permissions, 0o777);
}

pub fn permissions_of_image_files_are_kept_and_their_times_are_not_set(surface: &dyn Surface) {
    let then = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for path in ["disk", "vm"] {
        let before = surface.stat(path).unwrap();
        surface.set_permissions(path, 0o500).unwrap();
        assert_eq!(surface.stat(path).unwrap().permissions, 0o500);
        // The volume takes the call and goes on showing when the content changed.
        surface.set_modified(path, then).unwrap();
        assert_eq!(surface.stat(path).unwrap().modified, before.modified);
    }
}

pub fn the_time_of_change_moves_with_changes_and_not_with_reads(surface: &dyn Surface) {
    let begin = SystemTime::now() - Duration::from_secs(3600);
    for path in both(surface) {
        let file = surface.open(path, WRITE).unwrap();
        let changes: [(&str, &dyn Fn()); 4] = [
            ("write", &|| file.write_at(100, b"x").unwrap()),
            ("truncate", &|| file.set_length(700_000).unwrap()),
            ("zero", &|| file.space(Space::Punch, 0, BLOCK).unwrap()),
            ("grow", &|| file.write_at(900_000, b"x").unwrap()),
        ];
        for (what, change) in changes {
            // Own files take the time, those of the image have it from their last change.
            surface.set_modified(path, UNIX_EPOCH).unwrap();
            let before = surface.stat(path).unwrap().modified;
            change();
            let after = surface.stat(path).unwrap().modified;
            assert!(after >= before && after > begin, "{path}: {what}");
            file.read_at(0, 10_000).unwrap();
            surface.open(path, READ).unwrap();
            assert_eq!(
                surface.stat(path).unwrap().modified,
                after,
                "{path}: {what}"
            );
        }
    }
}

pub fn storage_is_counted_where_there_is_data(surface: &dyn Surface) {
    let data = disk().len() as u64 - (HOLE.end - HOLE.start);
    for path in both(surface) {
        surface.open(path, WRITE).unwrap().sync().unwrap();
        let found = surface.stat(path).unwrap();
        // A program takes a file without storage for a hole.
        assert!(found.allocated >= data, "{path}: {found:?}");
        assert!(found.allocated < found.size, "{path}: {found:?}");
    }
    let file = make(surface, "sparse", b"");
    file.set_length(1 << 30).unwrap();
    assert_eq!(surface.stat("sparse").unwrap().allocated, 0);
    file.write_at(1 << 20, &[1; 65_536]).unwrap();
    file.sync().unwrap();
    let taken = surface.stat("sparse").unwrap().allocated;
    assert!((65_536..1 << 20).contains(&taken), "{taken}");
    file.space(Space::Punch, 1 << 20, 65_536).unwrap();
    file.sync().unwrap();
    assert!(surface.stat("sparse").unwrap().allocated < taken);
    // Written over, the disk's hole is data.
    let disk = surface.open("disk", WRITE).unwrap();
    let before = disk.stat().unwrap().allocated;
    disk.write_at(HOLE.start, &[1; 65_536]).unwrap();
    assert!(disk.stat().unwrap().allocated > before);
}

pub fn numbers_of_nodes_tell_them_apart(surface: &dyn Surface) {
    make(surface, "own", b"");
    make(surface, "vm/own", b"");
    surface.make_directory("folder", 0o700).unwrap();
    let paths = ["", "disk", "own", "vm", "vm/deep", "vm/own", "folder"];
    let numbers = |surface: &dyn Surface| paths.map(|path| surface.stat(path).unwrap().number);
    let first = numbers(surface);
    assert_eq!(BTreeSet::from(first).len(), paths.len());
    assert_eq!(numbers(surface), first);
    let file = surface.open("vm/own", READ).unwrap();
    assert_eq!(file.stat().unwrap().number, first[5]);
}
