//! VMware, Cloud Hypervisor and Hyper-V: their command lines, files and ends.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use vmtorrent_tests::fuse;

use super::stage::{Stage, can_run};
use super::{DISK, PATIENCE, texts};

#[test]
fn vmware_gets_its_files_and_is_stopped_by_vmrun() {
    if !can_run() {
        return;
    }
    let stage = Stage::new(DISK);
    let mut launch = stage.launch("vmware").start();
    stage.runs(&launch);
    launch.signal(Signal::TERM);
    assert_eq!(
        launch.wait_exit(PATIENCE).code(),
        Some(128 + 15),
        "{}",
        launch.stderr()
    );
    let calls = stage.calls();
    let machine = format!("{}/machine.vmx", stage.work(&calls));
    assert_eq!(
        calls,
        texts(&[
            &["vmplayer", &machine],
            &["vmrun", "-T", "player", "stop", &machine, "soft"],
            &["vmrun", "-T", "player", "stop", &machine, "hard"],
        ])
    );
    let machine = fs::read_to_string(stage.fake("machine.vmx")).unwrap();
    for line in [
        "displayName = \"it's web, 2\"",
        "memsize = \"512\"",
        "numvcpus = \"2\"",
    ] {
        assert!(machine.lines().any(|known| known == line), "{machine}");
    }
    let descriptor = fs::read_to_string(stage.fake("medium")).unwrap();
    assert!(
        descriptor.contains(&format!(" FLAT \"{}\" 0", stage.mounted())),
        "{descriptor}"
    );
    stage.is_the_same();
    stage.is_clean();
}

#[test]
fn cloud_hypervisor_gets_the_disk_quoted_and_is_stopped_by_its_remote() {
    if !can_run() {
        return;
    }
    let stage = Stage::new(DISK);
    let launch = stage.launch("cloud-hypervisor");
    let mut launch = launch
        .option("--vmm-set", "firmware=/fw/a,b.fd")
        .vmm(&["--rng", "src=/dev/random"])
        .start();
    stage.runs(&launch);
    launch.signal(Signal::INT);
    assert_eq!(
        launch.wait_exit(PATIENCE).code(),
        Some(128 + 2),
        "{}",
        launch.stderr()
    );
    let calls = stage.calls();
    let work = stage.work(&calls);
    let disk = format!("path=\"{}\",image_type=raw,direct=on", stage.mounted());
    let (option, socket) = (format!("path={work}/api.sock"), format!("{work}/api.sock"));
    #[rustfmt::skip]
    let expected = texts(&[
        &["cloud-hypervisor", "--api-socket", &option, "--firmware", "/fw/a,b.fd", "--cpus", "boot=2",
          "--memory", "size=536870912", "--disk", &disk, "--serial", "tty", "--console", "off",
          "--rng", "src=/dev/random"],
        &["ch-remote", "--api-socket", &socket, "power-button"],
    ]);
    assert_eq!(calls, expected);
    stage.is_clean();
}

#[test]
fn hyperv_makes_a_differencing_disk_that_stays_and_a_machine_that_goes() {
    if !fuse() {
        return;
    }
    let stage = Stage::new("it's a disk.vhdx");
    let mut launch = stage.launch("hyperv").start();
    stage.runs(&launch);
    launch.signal(Signal::TERM);
    assert_eq!(
        launch.wait_exit(PATIENCE).code(),
        Some(128 + 15),
        "{}",
        launch.stderr()
    );
    let calls = stage.calls();
    let work = stage.work(&calls);
    let keep = stage.host.state().join("vmm").display().to_string();
    assert!(Path::new(&keep).is_dir(), "{keep} went with the launch");
    let parent = stage.mounted().replace('\'', "''");
    let child = format!("{keep}/disk.vhdx");
    let name = "it''s web, 2";
    let expected = [
        format!(
            "if (-not (Test-Path -LiteralPath '{child}')) {{ New-VHD -Path '{child}' -ParentPath '{parent}' \
             -Differencing }}"
        ),
        format!(
            "if (Get-VM -Name '{name}' -ErrorAction SilentlyContinue) {{ throw 'there is a machine of this name: \
             choose another' }}; New-VM -Name '{name}' -Generation '1' -MemoryStartupBytes '536870912' -VHDPath \
             '{child}' -Path '{work}'"
        ),
        format!(
            "Set-VM -Name '{name}' -AutomaticCheckpointsEnabled $false; Set-VMProcessor -VMName '{name}' -Count '2'"
        ),
        format!(
            "Start-VM -Name '{name}'; while ((Get-VM -Name '{name}').State -ne 'Off') {{ Start-Sleep -Seconds 1 }}"
        ),
        format!("Stop-VM -Name '{name}' -Force"),
        format!(
            "if ((Get-VM -Name '{name}').State -ne 'Off') {{ Stop-VM -Name '{name}' -TurnOff -Force }}"
        ),
        format!("Remove-VM -Name '{name}' -Force"),
    ];
    let start = [
        "powershell.exe",
        "-NoProfile",
        "-NonInteractive",
        "-Command",
    ];
    assert_eq!(calls.len(), expected.len(), "{calls:?}");
    for (call, script) in calls.iter().zip(expected) {
        assert_eq!(call[..4], start);
        assert_eq!(
            call[4..],
            [format!("$ErrorActionPreference = 'Stop'; {script}")]
        );
    }
    stage.is_clean();
}
