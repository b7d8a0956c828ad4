//! A disk that is full: the guest's write fails with ENOSPC, everything else goes on, and it recovers when there is room.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use vmtorrent_tests::{
    DiskKind, Host, Random, Reference, SmallDisk, assert_same, fuse, may_mount, publish, seed,
};

const PATIENCE: Duration = Duration::from_secs(60);
const NO_SPACE: i32 = 28;

struct Swarm {
    dir: tempfile::TempDir,
    image: Reference,
    source: vmtorrent_tests::Daemon,
}

impl Swarm {
    fn new(bytes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = Reference::new(bytes, 28);
        image.write_to(&dir.path().join("disk.img"));
        publish(
            &dir.path().join("disk.img"),
            &dir.path().join("disk.torrent"),
            &[],
        );
        let source = seed(&dir.path().join("disk.torrent"), dir.path(), &[]);
        Self { dir, image, source }
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    fn launch(&self, host: &Host) -> vmtorrent_tests::Launch {
        host.launch(&self.root().join("disk.torrent"))
            .peer(&self.source.listen())
    }
}

/// Bytes of storage below a directory.
fn storage(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(m) if m.is_dir() => storage(&entry.path()),
            Ok(m) => m.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn a_full_state_disk_fails_the_guests_writes_only_and_recovers_without_a_restart() {
    if !fuse() || !may_mount() {
        return;
    }
    for kind in [DiskKind::Tmpfs, DiskKind::Ext4] {
        let swarm = Swarm::new(8 << 20);
        let host = Host::new(swarm.root(), "host");
        let other = Host::new(swarm.root(), "other");
        let small = SmallDisk::mount(&swarm.root().join("host"), "state", kind, 24 << 20);
        assert_eq!(host.state(), small.path());
        let launch = swarm.launch(&host).start();
        let beside = swarm.launch(&other).start();
        let disk = host.mount().join("disk.img");
        let mut expected = swarm.image.bytes().to_vec();

        let file = File::options().read(true).write(true).open(&disk).unwrap();
        let mut random = Random::new(3);
        let first = random.bytes(300_000);
        file.write_all_at(&first, 1_000_001).unwrap();
        expected[1_000_001..1_300_001].copy_from_slice(&first);
        file.sync_data().unwrap();

        let ballast = small.fill_up();
        // Small and large, in new blocks: all fail, and change nothing or a part of their own range.
        for (offset, size) in [(4 << 20, 4096), (5 << 20, 1 << 20), (7 << 20, 100)] {
            let error = file.write_all_at(&random.bytes(size), offset).unwrap_err();
            assert_eq!(
                error.raw_os_error(),
                Some(NO_SPACE),
                "{kind:?} at {offset}: {error}"
            );
        }
        // What is written already has its place.
        let again = random.bytes(4096);
        file.write_all_at(&again, 1_003_520).unwrap();
        expected[1_003_520..1_007_616].copy_from_slice(&again);
        assert_same(&disk, &expected, "while it is full");
        // Another machine of the image is not concerned.
        let neighbour = File::options()
            .write(true)
            .open(other.mount().join("disk.img"))
            .unwrap();
        neighbour.write_all_at(b"unconcerned", 4 << 20).unwrap();
        neighbour.sync_data().unwrap();

        std::fs::remove_file(ballast).unwrap();
        for (offset, size) in [(4 << 20, 4096), (5 << 20, 1 << 20), (7 << 20, 100)] {
            let data = random.bytes(size);
            file.write_all_at(&data, offset).unwrap();
            expected[offset as usize..][..size].copy_from_slice(&data);
        }
        file.sync_data().unwrap();
        assert_same(&disk, &expected, "when there is room again");
        drop(file);
        launch.kill_9();
        let launch = swarm.launch(&host).start();
        assert_same(&disk, &expected, "after kill -9");
        launch.stop();
        beside.stop();
        swarm.source.stop();
    }
}

#[test]
fn a_guest_runs_on_from_memory_when_the_caches_disk_is_full_and_the_fill_goes_on_when_there_is_room()
 {
    if !fuse() || !may_mount() {
        return;
    }
    let swarm = Swarm::new(80 << 20);
    let host = Host::new(swarm.root(), "host");
    let small = SmallDisk::mount(
        &swarm.root().join("host"),
        "cache",
        DiskKind::Tmpfs,
        16 << 20,
    );
    let launch = swarm.launch(&host).fill("full").start();
    launch.wait_stderr("the downloaded copy can't grow");
    // More than disk and memory hold together: every byte comes, and more than once where it has to.
    let disk = host.mount().join("disk.img");
    for round in ["first", "second"] {
        assert_same(&disk, swarm.image.bytes(), round);
    }
    let file = File::options().write(true).open(&disk).unwrap();
    file.write_all_at(b"the guest writes on", 40 << 20).unwrap();
    file.sync_data().unwrap();

    small.grow(120 << 20);
    let length = swarm.image.bytes().len();
    launch.wait_for("the whole image", PATIENCE, |e| {
        e["present_bytes"] == length
    });
    let done = launch.stop();
    assert_eq!(done["present_bytes"], length);
    let torrent = swarm.root().join("disk.torrent");

    // All of it reached the disk: no peer is asked.
    let launch = host.launch(&torrent).option("--read-timeout", "5").start();
    let mut expected = swarm.image.bytes().to_vec();
    expected[40 << 20..][..19].copy_from_slice(b"the guest writes on");
    assert_same(&disk, &expected, "without a peer");
    launch.stop();
    swarm.source.stop();
}

#[test]
fn a_bound_on_the_cache_is_kept_while_everything_is_read() {
    if !fuse() {
        return;
    }
    const BOUND: u64 = 6 << 20;
    let swarm = Swarm::new(32 << 20);
    let host = Host::new(swarm.root(), "host");
    let launch = swarm
        .launch(&host)
        .fill("full")
        .option("--max-disk", "6M")
        .start();
    launch.wait_stderr("the bound of 6291456 bytes is reached");
    assert!(storage(&host.cache().join(hash(&launch)).join("data")) <= BOUND);
    let disk = host.mount().join("disk.img");
    let file = File::open(&disk).unwrap();
    let mut random = Random::new(8);
    let mut buffer = vec![0; 200_000];
    for _ in 0..200 {
        let at = random.below(swarm.image.bytes().len() as u64 - 200_000);
        file.read_exact_at(&mut buffer, at).unwrap();
        assert!(
            buffer == swarm.image.bytes()[at as usize..][..200_000],
            "at {at}"
        );
    }
    assert_same(&disk, swarm.image.bytes(), "as a whole");
    let data = host.cache().join(hash(&launch)).join("data");
    assert!(storage(&data) <= BOUND, "{}", storage(&data));
    drop(file);
    launch.stop();
    swarm.image.assert_pristine(&data.join("disk.img"));

    // What is there when it is launched again counts too, and a smaller bound makes it go.
    let launch = swarm
        .launch(&host)
        .fill("none")
        .option("--max-disk", "2M")
        .start();
    assert!(storage(&data) <= 2 << 20);
    assert_same(&disk, swarm.image.bytes(), "with a smaller bound");
    launch.stop();
    swarm.source.stop();
}

fn hash(launch: &vmtorrent_tests::Daemon) -> String {
    let ready = launch.wait_event("ready");
    ready["info_hash"].as_str().unwrap().to_owned()
}
