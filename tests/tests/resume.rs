//! kill -9 loses neither pieces nor flushed guest data.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use vmtorrent_tests::{Host, PIECE, Random, Reference, assert_same, fuse, publish, seed};

/// A piece reaches the disk a moment before its bit in the have map does, on each of a few threads; a kill between
/// the two makes it be fetched again.
const IN_FLIGHT: u64 = 16 * PIECE as u64;

#[test]
fn after_kill_9_nothing_is_fetched_twice_and_flushed_writes_are_there() {
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("disk.img");
    let image = Reference::new(48 << 20, 9);
    image.write_to(&original);
    let length = image.bytes().len() as u64;
    let torrent = dir.path().join("disk.torrent");
    publish(&original, &torrent, &[]);
    // Slow enough that it is killed long before it has all.
    let source = seed(&torrent, dir.path(), &["--upload-limit", "4M"]);
    let info_hash = source.wait_event("ready")["info_hash"].clone();

    let host = Host::new(dir.path(), "host");
    let launch = host
        .launch(&torrent)
        .peer(&source.listen())
        .fill("full")
        .start();
    let disk = host.mount().join("disk.img");
    let mut expected = image.bytes().to_vec();

    // Flushed writes at odd places, among them whole pieces that then need not be fetched.
    let file = File::options().read(true).write(true).open(&disk).unwrap();
    let mut random = Random::new(99);
    for (offset, size) in [
        (10_001, 70_000),
        (20 << 20, 4096),
        ((40 << 20) + 5, 300_000),
    ] {
        let data = random.bytes(size);
        file.write_all_at(&data, offset).unwrap();
        expected[offset as usize..][..size].copy_from_slice(&data);
    }
    file.sync_data().unwrap();
    // Unflushed ones: each sector may be old or new afterwards.
    let unflushed = 30 << 20..(30 << 20) + (64 << 10);
    let new = random.bytes(unflushed.len());
    file.write_all_at(&new, unflushed.start as u64).unwrap();
    drop(file);

    launch.wait_for("40 % of the image", Duration::from_secs(60), |event| {
        event["present_bytes"]
            .as_u64()
            .is_some_and(|n| n * 5 > length * 2)
    });
    let reported = launch.latest("progress")["present_bytes"].as_u64().unwrap();
    launch.kill_9_and_leave_the_mount();
    let copy = host.copy(info_hash.as_str().unwrap(), "disk.img");
    let held = image.held_bytes(&image.held_by(&copy));
    let free = length - image.distinct_bytes();
    assert!(
        held + free >= reported,
        "{held} on disk, {reported} reported"
    );
    assert!(
        held < image.distinct_bytes(),
        "it was complete: nothing is shown"
    );

    // On the same mount point, where the dead mount still stands.
    let launch = host
        .launch(&torrent)
        .peer(&source.listen())
        .fill("full")
        .start();
    let found = std::fs::read(&disk).unwrap();
    assert_eq!(found.len(), expected.len());
    for sector in unflushed.step_by(512) {
        let old = &image.bytes()[sector..sector + 512];
        let new = &new[sector - (30 << 20)..][..512];
        let now = &found[sector..sector + 512];
        assert!(
            now == old || now == new,
            "sector at {sector} is neither old nor new"
        );
        expected[sector..sector + 512].copy_from_slice(now);
    }
    assert_same(&disk, &expected, "after kill -9");
    let done = launch.stop();
    let fetched = done["fetched_bytes"].as_u64().unwrap();
    let missing = image.distinct_bytes() - held;
    assert!(
        fetched <= missing + IN_FLIGHT,
        "{fetched} bytes were fetched although only {missing} were missing"
    );
    source.stop();
}

#[test]
fn damage_in_the_cache_is_found_at_first_use_and_only_that_is_fetched_again() {
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("disk.img");
    let image = Reference::new((16 << 20) + 5000, 77);
    image.write_to(&original);
    let torrent = dir.path().join("disk.torrent");
    publish(&original, &torrent, &[]);
    let source = seed(&torrent, dir.path(), &[]);
    let host = Host::new(dir.path(), "host");
    let length = image.bytes().len();
    let launch = host
        .launch(&torrent)
        .peer(&source.listen())
        .fill("full")
        .start();
    let info_hash = launch.wait_event("ready")["info_hash"].clone();
    launch.wait_for("the whole image", Duration::from_secs(60), |event| {
        event["present_bytes"] == length
    });
    launch.stop();

    let copy = host.copy(info_hash.as_str().unwrap(), "disk.img");
    let have = copy.parent().unwrap().with_file_name("have");
    let disk = host.mount().join("disk.img");
    let distinct: Vec<(usize, usize)> = image
        .distinct_pieces()
        .map(|(index, piece)| (index, piece.len()))
        .collect();
    let flip = |offset: u64| {
        let file = File::options().read(true).write(true).open(&copy).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
    };
    // What is damaged, and the bytes that have to be fetched again for it.
    let damages: [(&str, &dyn Fn() -> usize); 5] = [
        ("flipped bits", &|| {
            let some = [distinct[0], distinct[1], distinct[9], distinct[100]];
            for (n, (index, size)) in some.into_iter().enumerate() {
                flip((index * PIECE + size * n / 4) as u64);
            }
            some.iter().map(|(_, size)| size).sum()
        }),
        ("a cut file", &|| {
            let end = (10 << 20) + 7;
            let file = File::options().write(true).open(&copy).unwrap();
            file.set_len(end as u64).unwrap();
            let lost = distinct.iter().filter(|(i, size)| i * PIECE + size > end);
            lost.map(|(_, size)| size).sum()
        }),
        ("a file that is gone", &|| {
            std::fs::remove_file(&copy).unwrap();
            image.distinct_bytes() as usize
        }),
        ("a list that names everything, and no data", &|| {
            std::fs::remove_dir_all(copy.parent().unwrap()).unwrap();
            let mut list = std::fs::read(&have).unwrap();
            list[32..32 + length.div_ceil(PIECE) / 8].fill(0xFF);
            std::fs::write(&have, list).unwrap();
            image.distinct_bytes() as usize
        }),
        ("a list that is too short", &|| {
            let list = std::fs::read(&have).unwrap();
            std::fs::write(&have, &list[..list.len() - 1]).unwrap();
            image.distinct_bytes() as usize
        }),
    ];
    for (what, damage) in damages {
        let expected = damage();
        let launch = host
            .launch(&torrent)
            .peer(&source.listen())
            .fill("none")
            .start();
        assert_same(&disk, image.bytes(), what);
        let done = launch.stop();
        assert_eq!(done["fetched_bytes"], expected, "{what}");
        assert_same(&copy, &copied(&image), what);
    }
    source.stop();
}

/// What a complete copy holds: repetitions are kept once.
fn copied(image: &Reference) -> Vec<u8> {
    let mut bytes = vec![0; image.bytes().len()];
    for (index, piece) in image.distinct_pieces() {
        bytes[index * PIECE..][..piece.len()].copy_from_slice(piece);
    }
    bytes
}
