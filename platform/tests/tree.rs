//! The tree volume without a kernel: what is its own, the host folder and the handles. What every volume does is shown
//! by the conformance suite, `tests/tests/conformance.rs`.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tempfile::TempDir;
use vmtorrent_platform::{
    Attributes, BlockFile, Errno, FileHandle, MemoryBlockFile, NodeId, NodeKind, OpenMode,
    SetAttributes, TreeVolume, Volume,
};

const ROOT: NodeId = NodeId::ROOT;
const READ: OpenMode = OpenMode {
    read: true,
    write: false,
};
const WRITE: OpenMode = OpenMode {
    read: true,
    write: true,
};

fn image() -> Vec<(Vec<String>, Arc<dyn BlockFile>)> {
    let file = |path: &[&str], content: &[u8]| {
        let path = path.iter().map(|name| name.to_string()).collect();
        let file: Arc<dyn BlockFile> = MemoryBlockFile::new(content.to_vec());
        (path, file)
    };
    vec![
        file(&["disk.img"], b"a disk"),
        file(&["vm", "parts", "a.vmdk"], b"part a"),
        file(&["vm", "b.vmdk"], b"part b"),
    ]
}

fn on(folder: &Path) -> TreeVolume {
    TreeVolume::new(image(), folder).unwrap()
}

fn volume() -> (TreeVolume, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (on(folder.path()), folder)
}

/// Follows a path down from the root.
fn find(volume: &TreeVolume, path: &str) -> Result<Attributes, Errno> {
    let mut at = volume.attributes(ROOT, None)?;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        at = volume.lookup(at.node, name)?;
    }
    Ok(at)
}

fn node(volume: &TreeVolume, path: &str) -> NodeId {
    find(volume, path).unwrap().node
}

fn create(volume: &TreeVolume, parent: NodeId, name: &str, content: &[u8]) -> (NodeId, FileHandle) {
    let (found, handle) = volume.create(parent, name, 0o640, WRITE, true).unwrap();
    let written = volume.try_write(found.node, Some(handle), 0, content);
    assert_eq!(written, Ok(Some(())));
    (found.node, handle)
}

fn content(volume: &TreeVolume, node: NodeId, handle: Option<FileHandle>) -> Vec<u8> {
    let mut buffer = vec![0; 100];
    let read = volume.try_read(node, handle, 0, &mut buffer).unwrap();
    buffer.truncate(read.unwrap());
    buffer
}

/// All paths with what is in them.
fn everything(volume: &TreeVolume) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![(String::new(), ROOT)];
    while let Some((path, directory)) = left.pop() {
        for entry in volume.list(directory).unwrap() {
            let path = format!("{path}/{}", entry.name);
            if entry.kind == NodeKind::Directory {
                found.insert(format!("{path}/"), Vec::new());
                left.push((path, entry.node));
            } else {
                found.insert(path, content(volume, entry.node, None));
            }
        }
    }
    found
}

#[test]
fn image_files_stand_at_their_paths() {
    let (volume, _folder) = volume();
    let disk = find(&volume, "disk.img").unwrap();
    assert_eq!((disk.kind, disk.size), (NodeKind::BlockFile, 6));
    assert_eq!(find(&volume, "vm").unwrap().kind, NodeKind::Directory);
    let part = node(&volume, "vm/parts/a.vmdk");
    assert_eq!(content(&volume, part, None), b"part a");
    let names = |directory| {
        let entries = volume.list(directory).unwrap();
        entries.into_iter().map(|e| e.name).collect::<Vec<_>>()
    };
    assert_eq!(names(ROOT), ["disk.img", "vm"]);
    assert_eq!(names(node(&volume, "vm")), ["b.vmdk", "parts"]);
    assert_eq!(
        volume.parent(node(&volume, "vm/parts")),
        Ok(node(&volume, "vm"))
    );
    assert_eq!(volume.parent(ROOT), Ok(ROOT));
    assert_eq!(find(&volume, "nothing").unwrap_err(), Errno::ENOENT);
    assert_eq!(find(&volume, "disk.img/x").unwrap_err(), Errno::ENOTDIR);
    assert_eq!(volume.list(disk.node), Err(Errno::ENOTDIR));
    assert_eq!(volume.open(ROOT, READ), Err(Errno::EISDIR));
}

#[test]
fn own_files_at_any_depth_survive_a_new_volume_on_the_folder() {
    let (volume, folder) = volume();
    let parts = node(&volume, "vm/parts");
    create(&volume, ROOT, "nvram", b"top");
    create(&volume, parts, "a.lck", b"deep");
    let logs = volume.make_directory(parts, "logs", 0o750).unwrap();
    create(&volume, logs.node, "1", b"one");
    let old = volume.make_directory(logs.node, "old", 0o700).unwrap();
    volume.rename(logs.node, "1", old.node, "2", true).unwrap();
    let on_host = fs::read(folder.path().join("vm/parts/logs/old/2"));
    assert_eq!(on_host.unwrap(), b"one");
    let before = everything(&volume);
    assert_eq!(before["/vm/parts/logs/old/2"], b"one");
    drop(volume);
    let again = on(folder.path());
    assert_eq!(everything(&again), before);
    assert_eq!(find(&again, "nvram").unwrap().permissions, 0o640);
    assert_eq!(find(&again, "vm/parts/logs").unwrap().permissions, 0o750);
    // Of what is below the image's folders, the VMM's own can go.
    let parts = node(&again, "vm/parts");
    let logs = node(&again, "vm/parts/logs");
    let old = node(&again, "vm/parts/logs/old");
    let full = again.remove_directory(parts, "logs");
    assert_eq!(full, Err(Errno::ENOTEMPTY));
    again.unlink(old, "2").unwrap();
    again.remove_directory(logs, "old").unwrap();
    again.remove_directory(parts, "logs").unwrap();
    assert!(!folder.path().join("vm/parts/logs").exists());
}

#[test]
fn what_the_image_hides_and_links_are_not_shown_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    fs::write(folder.path().join("disk.img"), "hidden").unwrap();
    fs::write(folder.path().join("vm"), "hidden").unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
    let volume = on(folder.path());
    let paths: Vec<_> = everything(&volume).into_keys().collect();
    let image = [
        "/disk.img",
        "/vm/",
        "/vm/b.vmdk",
        "/vm/parts/",
        "/vm/parts/a.vmdk",
    ];
    assert_eq!(paths, image);
    assert_eq!(content(&volume, node(&volume, "disk.img"), None), b"a disk");
    let vm = node(&volume, "vm");
    let blocked = volume.create(vm, "lock", 0o600, WRITE, true);
    assert_eq!(blocked.unwrap_err(), Errno::ENOTDIR);
    let taken = volume.create(ROOT, "link", 0o600, WRITE, false);
    assert_eq!(taken.unwrap_err(), Errno::EEXIST);
    create(&volume, ROOT, "own", b"mine");
    let taken = volume.rename(ROOT, "own", ROOT, "link", false);
    assert_eq!(taken, Err(Errno::EEXIST));
    assert!(folder.path().join("link").is_symlink());
}

#[tokio::test]
async fn a_link_put_in_a_files_place_is_not_followed() {
    let (volume, folder) = volume();
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let permissions = fs::metadata(&secret).unwrap().permissions();
    let (own, handle) = create(&volume, ROOT, "own", b"mine");
    volume.release(handle);
    fs::remove_file(folder.path().join("own")).unwrap();
    std::os::unix::fs::symlink(&secret, folder.path().join("own")).unwrap();
    assert_eq!(volume.open(own, WRITE), Err(Errno::EACCES));
    assert_eq!(volume.attributes(own, None), Err(Errno::EACCES));
    let cut = SetAttributes::size(0);
    let open = SetAttributes {
        permissions: Some(0o777),
        ..SetAttributes::default()
    };
    for changes in [cut, open] {
        let changed = volume.set_attributes(own, None, changes).await;
        assert_eq!(changed, Err(Errno::EACCES));
    }
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    assert_eq!(fs::metadata(&secret).unwrap().permissions(), permissions);
    // The same for a folder.
    let sub = volume.make_directory(ROOT, "sub", 0o755).unwrap().node;
    fs::remove_dir(folder.path().join("sub")).unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("sub")).unwrap();
    assert!(volume.create(sub, "new", 0o600, WRITE, true).is_err());
    assert!(!outside.path().join("new").exists());
}

#[test]
fn names_that_are_not_one_component_are_refused() {
    let (volume, folder) = volume();
    create(&volume, ROOT, "own", b"mine");
    let long = "x".repeat(256);
    for (bad, errno) in [
        ("", Errno::EINVAL),
        (".", Errno::EINVAL),
        ("..", Errno::EINVAL),
        ("a/b", Errno::EINVAL),
        ("../up", Errno::EINVAL),
        ("a\0b", Errno::EINVAL),
        (long.as_str(), Errno::ENAMETOOLONG),
    ] {
        assert_eq!(volume.lookup(ROOT, bad), Err(errno));
        let made = volume.create(ROOT, bad, 0o600, WRITE, false);
        assert_eq!(made.unwrap_err(), errno);
        assert_eq!(volume.make_directory(ROOT, bad, 0o700), Err(errno));
        assert_eq!(volume.unlink(ROOT, bad), Err(errno));
        assert_eq!(volume.remove_directory(ROOT, bad), Err(errno));
        assert_eq!(volume.rename(ROOT, "own", ROOT, bad, false), Err(errno));
        assert_eq!(volume.rename(ROOT, bad, ROOT, "new", false), Err(errno));
    }
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 1);
}

#[test]
fn image_paths_that_cannot_be_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let attempt = |paths: &[&[&str]]| {
        let files = paths.iter().map(|path| {
            let path = path.iter().map(|name| name.to_string()).collect();
            let file: Arc<dyn BlockFile> = MemoryBlockFile::new(Vec::new());
            (path, file)
        });
        match TreeVolume::new(files.collect(), folder.path()) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    };
    assert_eq!(attempt(&[&["a", "b"], &["a", "c"]]), "");
    assert!(attempt(&[&["a"], &["a"]]).contains("\"a\": the name is used twice"));
    assert!(attempt(&[&["a", "b"], &["a"]]).contains("\"a\": the name is used twice"));
    assert!(attempt(&[&["a"], &["a", "b"]]).contains("\"a/b\": a file stands"));
    assert!(attempt(&[&["..", "x"]]).contains("\"../x\""));
    assert!(attempt(&[&["x/y"]]).contains("\"x/y\""));
    assert!(attempt(&[&[]]).contains("image file"));
}

#[test]
fn a_handle_is_good_for_its_node_until_it_is_released() {
    let (volume, folder) = volume();
    let (own, handle) = create(&volume, ROOT, "own", b"mine");
    let disk = node(&volume, "disk.img");
    let read = volume.try_read(disk, Some(handle), 0, &mut [0]);
    assert_eq!(read, Err(Errno::EBADF));
    volume.unlink(ROOT, "own").unwrap();
    assert!(!folder.path().join("own").exists());
    // Without a handle of its own, an operation takes any that is open and may do it.
    assert_eq!(content(&volume, own, None), b"mine");
    assert_eq!(volume.attributes(own, None).unwrap().links, 0);
    let reader = volume.open(own, READ).unwrap();
    volume.release(handle);
    assert_eq!(content(&volume, own, Some(reader)), b"mine");
    assert_eq!(volume.open(own, WRITE), Err(Errno::ENOENT));
    volume.release(reader);
    assert_eq!(volume.attributes(own, None), Err(Errno::ENOENT));
    assert_eq!(volume.open(own, READ), Err(Errno::ENOENT));
    let read = volume.try_read(own, Some(reader), 0, &mut [0]);
    assert_eq!(read, Err(Errno::EBADF));
}

#[tokio::test]
async fn permissions_and_times_of_own_files_survive_a_new_volume_on_the_folder() {
    let (volume, folder) = volume();
    let (own, handle) = create(&volume, ROOT, "own", b"mine");
    let then = UNIX_EPOCH + Duration::new(1_000_000_000, 5);
    let changes = SetAttributes {
        size: None,
        permissions: Some(0o4604),
        modified: Some(then),
    };
    for handle in [Some(handle), None] {
        let changed = volume.set_attributes(own, handle, changes).await.unwrap();
        assert_eq!((changed.permissions, changed.modified), (0o604, then));
    }
    drop(volume);
    let again = on(folder.path());
    let own = find(&again, "own").unwrap();
    assert_eq!((own.permissions, own.modified), (0o604, then));
}

#[tokio::test]
async fn flush_of_a_block_file_reaches_it_and_release_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = MemoryBlockFile::new(vec![0; 10]);
    let shown: Arc<dyn BlockFile> = Arc::clone(&file) as _;
    let volume = TreeVolume::new(vec![(vec!["disk".into()], shown)], folder.path()).unwrap();
    let disk = node(&volume, "disk");
    let handle = volume.open(disk, WRITE).unwrap();
    volume.try_write(disk, Some(handle), 0, b"x").unwrap();
    volume.flush(disk, Some(handle)).await.unwrap();
    volume.release(handle);
    assert_eq!(file.flushes(), 1);
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
}

/// Makes, renames and removes at random; failures are part of the game: others were quicker.
fn disturb(volume: &TreeVolume, seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut folders = vec![ROOT, node(volume, "vm/parts")];
    let mut handles = Vec::new();
    for _ in 0..400 {
        let name = format!("n{}", random.below(6));
        let new = format!("n{}", random.below(6));
        let at = folders[random.below(folders.len() as u64) as usize];
        let to = folders[random.below(folders.len() as u64) as usize];
        match random.below(6) {
            0 | 1 => {
                if let Ok((found, handle)) = volume.create(at, &name, 0o600, WRITE, false) {
                    let text = seed.to_string();
                    let _ = volume.try_write(found.node, Some(handle), 0, text.as_bytes());
                    handles.push(handle);
                }
            }
            2 => {
                if let Ok(made) = volume.make_directory(at, &name, 0o700) {
                    folders.push(made.node);
                }
            }
            3 => drop(volume.unlink(at, &name)),
            4 => drop(volume.remove_directory(at, &name)),
            _ => drop(volume.rename(at, &name, to, &new, random.below(2) == 0)),
        }
        if handles.len() > 10 {
            volume.release(handles.remove(0));
        }
    }
}

#[test]
fn the_tree_equals_the_folder_after_changes_from_many_threads() {
    let (volume, folder) = volume();
    std::thread::scope(|scope| {
        for seed in 1..5 {
            let volume = &volume;
            scope.spawn(move || disturb(volume, seed));
        }
    });
    let left = everything(&volume);
    assert!(left.len() > image().len() + 2);
    assert_eq!(everything(&on(folder.path())), left);
}
