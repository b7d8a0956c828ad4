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
    let source = seed(&torrent, dir.path(), &["--upload-limit", "8M"]);
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
