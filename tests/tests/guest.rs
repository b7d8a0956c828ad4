//! A real guest keeps what it wrote and synced when everything below it is killed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use vmtorrent::image::default_piece_size;
use vmtorrent_tests::appliance::{
    self, FILE_SYSTEM_OFFSET, Machine, Outcome, is_mounted, run, sha256,
};
use vmtorrent_tests::{command, publish, seed};

const BOOT: Duration = Duration::from_secs(300);

/// Runs `vmtorrent export`, demands that the result holds a sound file system once its journal is replayed, and gives
/// the number of boots that the guest noted in it.
fn boots_in_export(state: &Path, cache_home: &Path, out: &Path) -> Outcome<String> {
    run(command()
        .arg("export")
        .arg("--state")
        .arg(state)
        .arg("-o")
        .arg(out)
        .env("XDG_CACHE_HOME", cache_home))?;
    // e2fsck forgets an offset in the image when it opens it again after the replay.
    let file_system = out.with_extension("ext4");
    run(Command::new("dd")
        .arg(format!("if={}", out.display()))
        .arg(format!("of={}", file_system.display()))
        .args(["bs=1M", "conv=sparse", "iflag=skip_bytes", "status=none"])
        .arg(format!("skip={FILE_SYSTEM_OFFSET}")))?;
    // -p replays the journal and sets what a mount would set, such as the free counts; all else is an error to it.
    let replay = Command::new("e2fsck")
        .args(["-f", "-p"])
        .arg(&file_system)
        .output()?;
    assert!(
        matches!(replay.status.code(), Some(0 | 1)),
        "the exported file system is damaged: {replay:?}"
    );
    run(Command::new("e2fsck").args(["-f", "-n"]).arg(&file_system))?;
    let boots = run(Command::new("debugfs")
        .args(["-R", "cat /var/lib/vmtorrent/boots"])
        .arg(&file_system))?;
    Ok(boots.trim().to_owned())
}

#[test]
fn a_guest_that_was_killed_finds_what_it_synced_at_its_next_boot() -> Outcome<()> {
    if !appliance::can_boot() {
        return Ok(());
    }
    let image = appliance::image()?;
    let original = sha256(&image)?;
    let written = fs::metadata(&image)?.modified()?;
    let work = tempfile::Builder::new()
        .prefix("guest.")
        .tempdir_in(fs::canonicalize(appliance::directory())?)?;
    let path = |name: &str| work.path().join(name);
    let (torrent, state, cache) = (path("appliance.torrent"), path("state"), path("cache"));

    // The tracker is for export, which is told no peer; the launches are told the seed's address.
    let tracker = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let url = format!("http://{tracker}/announce");
    // The pieces that users get.
    let piece = default_piece_size(fs::metadata(&image)?.len()).to_string();
    let options = ["--tracker", &url, "--piece-size", &piece];
    publish(&image, &torrent, &options);
    let tracker = tracker.to_string();
    let source = seed(&torrent, &appliance::directory(), &["--tracker", &tracker]);
    let address = source.listen();
    let launch = || {
        let mut command = command();
        command.arg("launch").arg(&torrent);
        command
            .arg("--cache")
            .arg(&cache)
            .arg("--state")
            .arg(&state);
        command.args(["--listen", "127.0.0.1:0", "--peer", &address]);
        command.args(["--fill", "none", "--no-lsd"]);
        command
    };

    fs::create_dir(path("first"))?;
    let mut first = Machine::boot(launch(), &path("first"), true)?;
    let line = first.wait_line("VMTORRENT-DEMO-BOOT", BOOT)?;
    assert_eq!(line, "VMTORRENT-DEMO-BOOT n=1 data=none");
    let line = first.wait_line("VMTORRENT-DEMO-READY", BOOT)?;
    assert!(line.contains("page=ok"), "{line}");
    first.launch.wait_event("progress");
    let progress = first.launch.latest("progress");
    first.kill()?;
    drop(first);

    let boots = boots_in_export(&state, &path("xdg"), &path("killed.img"))?;
    assert_eq!(boots, "1", "the boots that the export after the kill holds");

    fs::create_dir(path("second"))?;
    let mut second = Machine::boot(launch(), &path("second"), false)?;
    let line = second.wait_line("VMTORRENT-DEMO-BOOT", BOOT)?;
    assert_eq!(line, "VMTORRENT-DEMO-BOOT n=2 data=ok");
    let line = second.wait_line("VMTORRENT-DEMO-READY", BOOT)?;
    assert!(line.contains("page=ok"), "{line}");
    let status = second.launch.wait_exit(BOOT);
    assert!(status.success(), "{}", second.launch.stderr());
    let done = second.launch.latest("done");
    assert!(!is_mounted(&path("second/mnt")), "launch left its mount");

    let fetched = |event: &serde_json::Value| event["fetched_bytes"].as_u64();
    let (before, after) = (fetched(&progress), fetched(&done));
    assert!(
        before > Some(0),
        "the first boot fetched nothing: {progress}"
    );
    assert!(
        after < before.map(|bytes| bytes / 2),
        "the second boot fetched {after:?} bytes, the first one {before:?}: the cache was not used"
    );

    let boots = boots_in_export(&state, &path("xdg"), &path("clean.img"))?;
    assert_eq!(
        boots, "2",
        "the boots that the export after a power-off holds"
    );
    assert_eq!(sha256(&image)?, original, "the original was written to");
    assert_eq!(
        fs::metadata(&image)?.modified()?,
        written,
        "the original was written to"
    );
    Ok(())
}
