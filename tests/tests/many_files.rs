//! An image of many files costs few descriptors, and little until they are used.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use vmtorrent_tests::{Daemon, Host, Random, fuse, publish, with_descriptors};

const FILES: usize = 20_000;
/// Of which so many are written.
const WRITTEN: usize = 300;
const DESCRIPTORS: u32 = 256;

fn name(index: usize) -> PathBuf {
    PathBuf::from(format!("d{}/f{index}", index % 40))
}

fn content(index: usize) -> Vec<u8> {
    Random::new(index as u64).bytes(500 + index % 1000)
}

/// Descriptors that a process has.
fn descriptors(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
        .unwrap()
        .count()
}

fn check(shown: &Path, expected: impl Fn(usize) -> Vec<u8>, when: &str) {
    for index in 0..FILES {
        let found = fs::read(shown.join(name(index)))
            .unwrap_or_else(|e| panic!("{when}: file {index}: {e}"));
        assert!(found == expected(index), "{when}: file {index} differs");
    }
}

#[test]
fn twenty_thousand_files_are_served_read_and_written_with_256_descriptors() {
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let published = dir.path().join("many");
    for index in 0..40 {
        fs::create_dir_all(published.join(format!("d{index}"))).unwrap();
    }
    for index in 0..FILES {
        fs::write(published.join(name(index)), content(index)).unwrap();
    }
    let torrent = dir.path().join("many.torrent");
    publish(&published, &torrent, &[]);
    let mut command = vmtorrent_tests::command();
    command
        .arg("seed")
        .arg(&torrent)
        .arg("--data")
        .arg(dir.path())
        .args(["--json", "--listen", "127.0.0.1:0"]);
    let source = Daemon::spawn(with_descriptors(&command, DESCRIPTORS), &[]);

    let host = Host::new(dir.path(), "host");
    let start = || {
        host.launch(&torrent)
            .peer(&source.listen())
            .fill("none")
            .descriptors(DESCRIPTORS)
            .start()
    };
    let launch = start();
    let at_first = descriptors(&launch);
    assert!(
        at_first < 60,
        "{at_first} descriptors although nothing was read"
    );
    let overlays = host.state().join("overlay");
    check(&host.mount(), content, "first");
    assert_eq!(
        fs::read_dir(&overlays).unwrap().count(),
        0,
        "nothing was written"
    );

    // Without a flush in between, so that all of them have something to lose.
    let changed = |index: usize| {
        let mut content = content(index);
        if index.is_multiple_of(FILES / WRITTEN) {
            content.resize(content.len().max(600), 0);
            content[100..600].fill(index as u8 | 1);
        }
        content
    };
    let written = || (0..FILES).filter(|i| i % (FILES / WRITTEN) == 0);
    for index in written() {
        let file = File::options()
            .write(true)
            .open(host.mount().join(name(index)))
            .unwrap();
        file.write_all_at(&[index as u8 | 1; 500], 100).unwrap();
    }
    for index in written() {
        let file = File::open(host.mount().join(name(index))).unwrap();
        file.sync_data().unwrap();
    }
    check(&host.mount(), changed, "written");
    let now = descriptors(&launch);
    assert!(now <= DESCRIPTORS as usize * 3 / 4, "{now} descriptors");
    launch.kill_9();

    let launch = start();
    let again = descriptors(&launch);
    assert!(again <= DESCRIPTORS as usize * 3 / 4, "{again} descriptors");
    check(&host.mount(), changed, "after kill -9");
    launch.stop();
    source.stop();
}
