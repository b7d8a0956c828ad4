//! A mounted image behaves like the local file that it stands for.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use vmtorrent_tests::{Host, Random, Reference, assert_same, fuse, publish, seed};

const WORKERS: u64 = 4;
const OPERATIONS: u64 = 600;

/// Runs the workers and waits for them; every one must find only what it wrote or what was published.
fn work(mounted: &Path, reference: &Path, seed: u64) {
    let workers: Vec<_> = (0..WORKERS)
        .map(|index| {
            Command::new(env!("CARGO_BIN_EXE_io_worker"))
                .arg(mounted)
                .arg(reference)
                .args([index, WORKERS, OPERATIONS, seed].map(|n| n.to_string()))
                .stdin(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let results: Vec<_> = workers
        .into_iter()
        .map(|worker| worker.wait_with_output().unwrap())
        .collect();
    for result in results {
        assert!(
            result.status.success(),
            "{}: {}",
            result.status,
            String::from_utf8_lossy(&result.stderr)
        );
    }
}

/// Does the same to both files.
fn on_both(files: &[&Path], change: impl Fn(&File)) {
    for path in files {
        change(&File::options().read(true).write(true).open(path).unwrap());
    }
}

#[test]
fn several_processes_read_and_write_it_like_a_local_file_and_a_relaunch_and_an_export_show_the_same()
 {
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let original = dir.path().join("disk.img");
    let image = Reference::new((64 << 20) + 12_345, 64);
    image.write_to(&original);
    let torrent = dir.path().join("disk.torrent");
    publish(&original, &torrent, &[]);
    let reference = dir.path().join("reference");
    image.write_to(&reference);

    let source = seed(&torrent, dir.path(), &[]);
    let host = Host::new(dir.path(), "host");
    let launch = host
        .launch(&torrent)
        .peer(&source.listen())
        .fill("idle")
        .start();
    let ready = launch.wait_event("ready");
    assert_eq!(ready["image_bytes"], image.bytes().len());
    assert_eq!(ready["dir"], host.mount().to_str().unwrap());
    let disk = host.mount().join("disk.img");
    assert_eq!(ready["disk"], disk.to_str().unwrap());
    assert_eq!(disk.metadata().unwrap().len(), image.bytes().len() as u64);

    work(&disk, &reference, 1);
    let both: [&Path; 2] = [&disk, &reference];
    let length = image.bytes().len() as u64;
    // Grow, write behind the old end, truncate inside a block of the image, grow again: what was cut off is gone.
    on_both(&both, |file| {
        file.set_len(length + 3_000_000).unwrap();
        let data = Random::new(5).bytes(1_000_001);
        file.write_all_at(&data, length + 1_234_567).unwrap();
    });
    assert_same(&disk, &std::fs::read(&reference).unwrap(), "grown");
    on_both(&both, |file| {
        file.set_len(length - 777_777).unwrap();
        file.sync_all().unwrap();
        file.set_len(length + 55_555).unwrap();
        file.sync_all().unwrap();
    });
    let expected = std::fs::read(&reference).unwrap();
    assert_same(&disk, &expected, "truncated and grown again");
    let compared = Command::new("cmp").args(both).status().unwrap();
    assert!(compared.success(), "cmp finds a difference");

    let done = launch.stop();
    assert!(!disk.exists(), "still mounted");
    let bands = ["demand", "readahead", "profile", "background"]
        .map(|band| done[format!("{band}_bytes")].as_u64().unwrap());
    assert_eq!(done["fetched_bytes"], bands.iter().sum::<u64>());
    assert!(done["fetched_bytes"].as_u64().unwrap() <= image.distinct_bytes());
    source.stop();

    // No peer is left: everything comes from the cache and the state.
    let launch = host
        .launch(&torrent)
        .fill("none")
        .option("--read-timeout", "5")
        .start();
    assert_same(&disk, &expected, "launched again");
    assert_eq!(launch.stop()["fetched_bytes"], 0);

    let exported = dir.path().join("exported.img");
    let output = vmtorrent_tests::command()
        .arg("export")
        .arg("--state")
        .arg(host.state())
        .arg("-o")
        .arg(&exported)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "export: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_same(&exported, &expected, "exported");

    assert_same(&original, image.bytes(), "the original");
    image.assert_pristine(&host.copy(ready["info_hash"].as_str().unwrap(), "disk.img"));
}

#[test]
fn a_directory_image_and_the_vmms_own_files_live_side_by_side() {
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let published = dir.path().join("appliance");
    std::fs::create_dir_all(published.join("sub")).unwrap();
    let disk = Reference::new(3_000_000, 31);
    let data = Reference::new(1_234_567, 32);
    disk.write_to(&published.join("disk.img"));
    data.write_to(&published.join("sub/data.img"));
    std::fs::write(published.join("empty"), b"").unwrap();
    let torrent = dir.path().join("appliance.torrent");
    publish(&published, &torrent, &[]);
    let source = seed(&torrent, dir.path(), &[]);

    let host = Host::new(dir.path(), "host");
    let launch = host.launch(&torrent).peer(&source.listen()).start();
    let ready = launch.wait_event("ready");
    assert!(ready["disk"].as_str().unwrap().ends_with("/disk.img"));
    let shown = Path::new(ready["dir"].as_str().unwrap()).to_owned();
    assert_same(&shown.join("disk.img"), disk.bytes(), "disk.img");
    assert_same(&shown.join("sub/data.img"), data.bytes(), "data.img");
    assert_eq!(shown.join("empty").metadata().unwrap().len(), 0);

    std::fs::write(shown.join("vm.log"), b"started").unwrap();
    std::fs::rename(shown.join("vm.log"), shown.join("sub/old.log")).unwrap();
    std::fs::create_dir(shown.join("nvram")).unwrap();
    std::fs::write(shown.join("nvram/vars"), b"vars").unwrap();
    std::fs::write(shown.join("lock"), b"").unwrap();
    std::fs::remove_file(shown.join("lock")).unwrap();
    assert!(
        std::fs::remove_file(shown.join("disk.img")).is_err(),
        "a file of the image can't be removed"
    );
    launch.stop();

    let launch = host.launch(&torrent).peer(&source.listen()).start();
    assert_eq!(
        std::fs::read(shown.join("sub/old.log")).unwrap(),
        b"started"
    );
    assert_eq!(std::fs::read(shown.join("nvram/vars")).unwrap(), b"vars");
    assert!(!shown.join("lock").exists());
    assert_same(&shown.join("disk.img"), disk.bytes(), "disk.img again");
    launch.stop();
    assert_same(&published.join("disk.img"), disk.bytes(), "the original");
}

#[test]
fn an_ephemeral_launch_forgets_and_leaves_nothing_behind() {
    if !fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = Reference::new(1 << 20, 41);
    image.write_to(&dir.path().join("disk.img"));
    let torrent = dir.path().join("disk.torrent");
    publish(&dir.path().join("disk.img"), &torrent, &[]);
    let source = seed(&torrent, dir.path(), &[]);

    let temporary = dir.path().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    for round in ["first", "second"] {
        let mut command = vmtorrent_tests::command();
        command
            .arg("launch")
            .arg(&torrent)
            .args(["--ephemeral", "--json", "--no-discovery"])
            .args(["--listen", "127.0.0.1:0", "--peer", &source.listen()])
            .arg("--cache")
            .arg(dir.path().join("cache"))
            .env("TMPDIR", &temporary)
            .env_remove("XDG_RUNTIME_DIR");
        let launch = vmtorrent_tests::Daemon::spawn(command, &[]);
        let ready = launch.wait_event("ready");
        let disk = Path::new(ready["disk"].as_str().unwrap());
        assert!(disk.starts_with(&temporary));
        assert_same(disk, image.bytes(), round);
        std::fs::write(disk.with_file_name("own"), b"x").unwrap();
        on_both(&[disk], |f| f.write_all_at(b"scribble", 4_000).unwrap());
        launch.stop();
        let left: Vec<_> = std::fs::read_dir(&temporary).unwrap().collect();
        assert!(left.is_empty(), "{round}: {left:?}");
    }
}
