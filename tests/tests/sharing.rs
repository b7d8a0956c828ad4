//! One cache serves every launch on a host, also from several processes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use vmtorrent_tests::{Host, Reference, assert_same, fuse, publish, seed};

#[test]
fn a_second_process_on_the_cache_takes_its_pieces_from_the_first() {
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = Reference::new(32 << 20, 32);
    image.write_to(&dir.path().join("disk.img"));
    let torrent = dir.path().join("disk.torrent");
    publish(&dir.path().join("disk.img"), &torrent, &[]);
    let source = seed(&torrent, dir.path(), &[]);

    let (first, second) = (
        Host::new(dir.path(), "first"),
        Host::new(dir.path(), "second"),
    );
    let one = first
        .launch(&torrent)
        .peer(&source.listen())
        .fill("full")
        .start();
    // It is told of no peer and asks nobody: only the holder of the cache can serve it.
    let two = second
        .launch(&torrent)
        .cache(first.cache())
        .fill("none")
        .start();
    let disks = [&first, &second].map(|host| host.mount().join("disk.img"));

    let before = [17_u64, 12_000_000];
    for (disk, offset) in disks.iter().zip(before) {
        let file = File::options().write(true).open(disk).unwrap();
        file.write_all_at(b"written here", offset).unwrap();
        file.sync_data().unwrap();
    }
    std::thread::scope(|scope| {
        for (disk, offset) in disks.iter().zip(before) {
            let mut expected = image.bytes().to_vec();
            expected[offset as usize..][..12].copy_from_slice(b"written here");
            scope.spawn(move || assert_same(disk, &expected, "both read at once"));
        }
    });
    let info_hash = one.wait_event("ready")["info_hash"].clone();
    let info_hash = info_hash.as_str().unwrap();
    image.assert_pristine(&first.copy(info_hash, "disk.img"));

    // The first goes; the second has all it needs.
    let done = one.stop();
    assert!(done["uploaded_bytes"].as_u64().unwrap() > image.distinct_bytes() / 2);
    let mut expected = image.bytes().to_vec();
    expected[12_000_000..][..12].copy_from_slice(b"written here");
    assert_same(&disks[1], &expected, "alone");
    two.stop();

    let uploaded = source.stop()["uploaded_bytes"].as_u64().unwrap();
    assert!(
        uploaded <= image.distinct_bytes() + image.distinct_bytes() / 20,
        "the seed sent {uploaded} bytes for {} that are distinct",
        image.distinct_bytes()
    );
}
