//! The real QEMU.

use std::fs;
use std::process::Command;
use std::time::Duration;

use vmtorrent_tests::appliance::{self, Outcome};
use vmtorrent_tests::{Daemon, command, publish, seed};

const BOOT: Duration = Duration::from_secs(300);

/// What a launch by name runs is what a person would have typed: QEMU finds the disk behind its comma and boots.
#[test]
fn qemu_boots_the_appliance_by_the_name_of_the_vmm() -> Outcome<()> {
    if !appliance::can_boot() {
        return Ok(());
    }
    let image = appliance::image()?;
    let work = tempfile::Builder::new()
        .prefix("vmm.")
        .tempdir_in(fs::canonicalize(appliance::directory())?)?;
    let torrent = work.path().join("appliance.torrent");
    publish(&image, &torrent, &["--piece-size", "65536"]);
    let source = seed(&torrent, &appliance::directory(), &[]);
    let mount = work.path().join("it's a mount, here");
    fs::create_dir(&mount)?;
    let mut launch: Command = command();
    launch
        .arg("launch")
        .arg(&torrent)
        .arg("--json")
        .arg("--mount")
        .arg(&mount);
    launch
        .arg("--cache")
        .arg(work.path().join("cache"))
        .arg("--ephemeral");
    launch.args([
        "--listen",
        "127.0.0.1:0",
        "--peer",
        &source.listen(),
        "--fill",
        "none",
        "--no-lsd",
    ]);
    launch.args(["--vmm", "qemu", "--memory", "512M", "--cpus", "2"]);
    launch.args([
        "--vmm-set",
        "accel=tcg",
        "--vmm-set",
        "nic=none",
        "--",
        "-no-reboot",
    ]);
    launch.env("XDG_CONFIG_HOME", work.path().join("config"));
    let mut launch = Daemon::spawn(launch, &[&mount]);
    let status = launch.wait_exit(BOOT);
    let console = launch.stderr();
    assert!(status.success(), "{console}");
    let ready = console
        .lines()
        .find(|line| line.trim().starts_with("VMTORRENT-DEMO-READY"));
    assert!(
        ready.is_some_and(|line| line.contains("page=ok")),
        "{console}"
    );
    launch.latest("done");
    assert!(!appliance::is_mounted(&mount), "launch left its mount");
    Ok(())
}
