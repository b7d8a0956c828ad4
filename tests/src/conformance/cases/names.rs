//! Names: what is found, made, renamed and removed, and what is not.

use super::super::DEEP;
use super::super::surface::{Create, Kind, NEW, Open, READ, Surface, WRITE};
use super::{assert_same, content, disk, make};
use vmtorrent_platform::Errno;

fn names(surface: &dyn Surface, path: &str) -> Vec<String> {
    let entries = surface.list(path).unwrap();
    let mut names: Vec<_> = entries.into_iter().map(|(name, _)| name).collect();
    names.sort();
    names
}

pub fn image_files_stand_at_their_paths(surface: &dyn Surface) {
    assert_eq!(names(surface, ""), ["disk", "vm"]);
    assert_eq!(names(surface, "vm"), ["deep"]);
    assert_eq!(surface.stat("").unwrap().kind, Kind::Directory);
    assert_eq!(surface.stat("vm").unwrap().kind, Kind::Directory);
    let found = surface.stat("disk").unwrap();
    assert_eq!((found.kind, found.links), (Kind::File, 1));
    assert_same(&content(surface, "disk"), &disk(), "disk");
    assert_eq!(content(surface, "vm/deep"), DEEP);
    assert_eq!(surface.stat("nothing"), Err(Errno::ENOENT));
    assert_eq!(surface.stat("vm/disk"), Err(Errno::ENOENT));
}

pub fn a_made_file_is_there_until_it_is_removed(surface: &dyn Surface) {
    let file = make(surface, "lock", b"line");
    let found = surface.stat("lock").unwrap();
    assert_eq!((found.kind, found.size, found.links), (Kind::File, 4, 1));
    assert_eq!(found.permissions, 0o640);
    assert_eq!(file.stat().unwrap(), found);
    assert_eq!(names(surface, ""), ["disk", "lock", "vm"]);
    drop(file);
    assert_eq!(content(surface, "lock"), b"line");
    surface.unlink("lock").unwrap();
    assert_eq!(surface.stat("lock"), Err(Errno::ENOENT));
    assert_eq!(surface.unlink("lock"), Err(Errno::ENOENT));
    assert_eq!(surface.open("lock", READ).err(), Some(Errno::ENOENT));
    assert_eq!(names(surface, ""), ["disk", "vm"]);
    // A new file of the name is another one.
    let file = make(surface, "lock", b"");
    assert_ne!(file.stat().unwrap().number, found.number);
}

pub fn exclusive_creation_refuses_what_exists_and_other_creation_opens_it(surface: &dyn Surface) {
    make(surface, "own", b"mine");
    for (path, kept) in [("own", &b"mine"[..]), ("vm/deep", DEEP)] {
        assert_eq!(surface.open(path, NEW).err(), Some(Errno::EEXIST));
        let create = Create::IfMissing(0o600);
        let file = surface.open(path, Open { create, ..WRITE }).unwrap();
        assert_eq!(file.read_at(0, 100).unwrap(), kept);
        assert_ne!(surface.stat(path).unwrap().permissions, 0o600);
    }
    assert_eq!(surface.open("vm", NEW).err(), Some(Errno::EEXIST));
    let create = Create::IfMissing(0o600);
    let other = surface.open("other", Open { create, ..WRITE }).unwrap();
    other.write_at(0, b"x").unwrap();
    assert_eq!(surface.stat("other").unwrap().permissions, 0o600);
}

pub fn names_up_to_255_bytes_are_taken_and_longer_ones_are_refused(surface: &dyn Surface) {
    let longest = "é".repeat(127) + "x";
    for name in [
        &longest, "...", " ", "a\nb", "-rf", "ä ö", "a\\b", "CON", "x.",
    ] {
        make(surface, name, name.as_bytes());
        assert_eq!(content(surface, name), name.as_bytes(), "{name:?}");
        assert!(names(surface, "").contains(&name.to_owned()), "{name:?}");
        let moved = format!("vm/{name}");
        surface.rename(name, &moved, true).unwrap();
        surface.unlink(&moved).unwrap();
        surface.make_directory(name, 0o700).unwrap();
        surface.remove_directory(name).unwrap();
    }
    let long = longest + "x";
    let refused = Errno::ENAMETOOLONG;
    make(surface, "own", b"");
    assert_eq!(surface.stat(&long), Err(refused));
    assert_eq!(surface.open(&long, NEW).err(), Some(refused));
    assert_eq!(surface.make_directory(&long, 0o700), Err(refused));
    assert_eq!(surface.unlink(&long), Err(refused));
    assert_eq!(surface.remove_directory(&long), Err(refused));
    assert_eq!(surface.rename("own", &long, false), Err(refused));
    assert_eq!(surface.rename(&long, "x", false), Err(refused));
    assert_eq!(names(surface, ""), ["disk", "own", "vm"]);
}

pub fn a_file_is_no_directory_and_a_directory_no_file(surface: &dyn Surface) {
    make(surface, "own", b"");
    surface.make_directory("folder", 0o755).unwrap();
    for file in ["disk", "own"] {
        let below = format!("{file}/x");
        assert_eq!(surface.stat(&below), Err(Errno::ENOTDIR));
        assert_eq!(surface.open(&below, NEW).err(), Some(Errno::ENOTDIR));
        assert_eq!(surface.list(file).err(), Some(Errno::ENOTDIR));
        assert_eq!(surface.remove_directory(file), Err(Errno::ENOTDIR));
    }
    for directory in ["vm", "folder"] {
        assert_eq!(surface.open(directory, WRITE).err(), Some(Errno::EISDIR));
        assert_eq!(surface.unlink(directory), Err(Errno::EISDIR));
    }
}

pub fn directories_come_and_go(surface: &dyn Surface) {
    surface.make_directory("a", 0o750).unwrap();
    surface.make_directory("a/b", 0o700).unwrap();
    assert_eq!(surface.stat("a").unwrap().permissions, 0o750);
    assert_eq!(surface.stat("a/b").unwrap().kind, Kind::Directory);
    make(surface, "a/b/c", b"c");
    let again = surface.make_directory("a", 0o700);
    assert_eq!(again, Err(Errno::EEXIST));
    let nowhere = surface.make_directory("x/y", 0o700);
    assert_eq!(nowhere, Err(Errno::ENOENT));
    assert_eq!(surface.remove_directory("a/b"), Err(Errno::ENOTEMPTY));
    surface.unlink("a/b/c").unwrap();
    surface.remove_directory("a/b").unwrap();
    assert_eq!(surface.remove_directory("a/b"), Err(Errno::ENOENT));
    assert_eq!(surface.list("a/b").err(), Some(Errno::ENOENT));
    surface.remove_directory("a").unwrap();
    assert_eq!(names(surface, ""), ["disk", "vm"]);
}

pub fn a_rename_follows_the_rules_of_a_local_file_system(surface: &dyn Surface) {
    make(surface, "a", b"a");
    make(surface, "b", b"b");
    for path in ["full", "full/sub", "empty"] {
        surface.make_directory(path, 0o755).unwrap();
    }
    let rename = |from, to| surface.rename(from, to, false);
    assert_eq!(surface.rename("a", "b", true), Err(Errno::EEXIST));
    assert_eq!(rename("none", "x"), Err(Errno::ENOENT));
    assert_eq!(rename("a", "none/x"), Err(Errno::ENOENT));
    assert_eq!(rename("a", "full"), Err(Errno::EISDIR));
    assert_eq!(rename("full", "a"), Err(Errno::ENOTDIR));
    assert_eq!(rename("empty", "full"), Err(Errno::ENOTEMPTY));
    assert_eq!(rename("full", "full/sub/x"), Err(Errno::EINVAL));
    assert_eq!(rename("full", "full/x"), Err(Errno::EINVAL));
    assert_eq!(rename("a", "a"), Ok(()));
    assert_eq!(rename("empty", "empty"), Ok(()));
    assert_eq!(
        names(surface, ""),
        ["a", "b", "disk", "empty", "full", "vm"]
    );
    assert_eq!(surface.rename("a", "empty/c", true), Ok(()));
    assert_eq!(content(surface, "empty/c"), b"a");
    assert_eq!(surface.stat("a"), Err(Errno::ENOENT));
}

pub fn a_rename_replaces_a_file_and_who_has_it_open_keeps_it(surface: &dyn Surface) {
    let new = make(surface, "new", b"new content");
    let old = make(surface, "name", b"old content");
    let number = new.stat().unwrap().number;
    surface.rename("new", "name", false).unwrap();
    assert_eq!(surface.stat("new"), Err(Errno::ENOENT));
    let found = surface.stat("name").unwrap();
    assert_eq!((found.number, found.links), (number, 1));
    assert_eq!(content(surface, "name"), b"new content");
    // Each handle stays with its file.
    old.write_at(0, b"OLD").unwrap();
    new.write_at(0, b"NEW").unwrap();
    assert_eq!(old.read_at(0, 100).unwrap(), b"OLD content");
    assert_eq!(old.stat().unwrap().links, 0);
    assert_eq!(content(surface, "name"), b"NEW content");
}

pub fn a_directory_is_renamed_with_what_is_in_it(surface: &dyn Surface) {
    for path in ["from", "from/sub", "to"] {
        surface.make_directory(path, 0o755).unwrap();
    }
    let file = make(surface, "from/sub/file", b"x");
    surface.rename("from", "to", false).unwrap();
    assert_eq!(content(surface, "to/sub/file"), b"x");
    assert_eq!(surface.stat("from"), Err(Errno::ENOENT));
    file.write_at(1, b"y").unwrap();
    surface.rename("to", "vm/moved", true).unwrap();
    assert_eq!(content(surface, "vm/moved/sub/file"), b"xy");
    assert_eq!(names(surface, "vm"), ["deep", "moved"]);
}

pub fn files_and_directories_of_the_image_stay(surface: &dyn Surface) {
    make(surface, "own", b"mine");
    let eperm = Err(Errno::EPERM);
    assert_eq!(surface.unlink("disk"), eperm);
    assert_eq!(surface.unlink("vm/deep"), eperm);
    assert_eq!(surface.rename("disk", "x", false), eperm);
    assert_eq!(surface.rename("vm/deep", "deep", true), eperm);
    assert_eq!(surface.rename("vm", "x", false), eperm);
    assert_eq!(surface.rename("own", "disk", false), eperm);
    let replaced = surface.rename("own", "disk", true);
    assert_eq!(replaced, Err(Errno::EEXIST));
    surface.make_directory("folder", 0o700).unwrap();
    let replaced = surface.rename("folder", "vm", false);
    assert!(matches!(replaced, Err(Errno::EPERM | Errno::ENOTEMPTY)));
    let removed = surface.remove_directory("vm");
    assert!(matches!(removed, Err(Errno::EPERM | Errno::ENOTEMPTY)));
    let made = surface.make_directory("vm", 0o700);
    assert_eq!(made, Err(Errno::EEXIST));
    assert_same(&content(surface, "disk"), &disk(), "disk");
    assert_eq!(content(surface, "vm/deep"), DEEP);
}

pub fn own_files_stand_among_those_of_the_image(surface: &dyn Surface) {
    make(surface, "vm/disk.lck", b"lock");
    surface.make_directory("vm/logs", 0o755).unwrap();
    make(surface, "vm/logs/1", b"line\n");
    assert_eq!(names(surface, "vm"), ["deep", "disk.lck", "logs"]);
    surface.rename("vm/disk.lck", "lock", false).unwrap();
    surface.rename("vm/logs/1", "vm/1", false).unwrap();
    surface.remove_directory("vm/logs").unwrap();
    assert_eq!(names(surface, "vm"), ["1", "deep"]);
    assert_eq!(content(surface, "lock"), b"lock");
    assert_eq!(content(surface, "vm/1"), b"line\n");
}

pub fn an_unlinked_file_lives_as_long_as_it_is_open(surface: &dyn Surface) {
    let file = make(surface, "temporary", b"mine");
    assert_eq!(file.stat().unwrap().links, 1);
    surface.unlink("temporary").unwrap();
    let other = make(surface, "temporary", b"other");
    assert_eq!(file.stat().unwrap().links, 0);
    file.write_at(4, b"!").unwrap();
    file.sync().unwrap();
    assert_eq!(file.read_at(0, 100).unwrap(), b"mine!");
    assert_eq!(file.stat().unwrap().size, 5);
    file.set_length(2).unwrap();
    assert_eq!(file.read_at(0, 100).unwrap(), b"mi");
    assert_eq!(other.read_at(0, 100).unwrap(), b"other");
    assert_eq!(content(surface, "temporary"), b"other");
}

pub fn a_listing_has_every_name_once_with_its_kind(surface: &dyn Surface) {
    surface.make_directory("many", 0o755).unwrap();
    let mut expected = Vec::new();
    for at in 0..400 {
        let name = format!("a file with a rather long name, number {at:04}");
        surface.open(&format!("many/{name}"), NEW).unwrap();
        expected.push((name, Kind::File));
        if at % 40 == 0 {
            let name = format!("folder {at:04}");
            surface
                .make_directory(&format!("many/{name}"), 0o755)
                .unwrap();
            expected.push((name, Kind::Directory));
        }
    }
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    let listed = surface.list("many").unwrap();
    // The order is the same each time.
    assert_eq!(surface.list("many").unwrap(), listed);
    let mut sorted = listed;
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(sorted, expected);
    let mut top = surface.list("").unwrap();
    top.sort_by(|a, b| a.0.cmp(&b.0));
    let names = [
        ("disk", Kind::File),
        ("many", Kind::Directory),
        ("vm", Kind::Directory),
    ];
    assert_eq!(top, names.map(|(name, kind)| (name.to_owned(), kind)));
}
