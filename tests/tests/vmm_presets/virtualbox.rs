//! VirtualBox: a machine is made, run and removed, whatever goes wrong.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::stage::{Stage, can_run};
use super::{BYTES, DISK, NAME, PATIENCE, texts};

/// What VirtualBox is told before its machine runs.
fn virtualbox_setup(work: &str) -> Vec<Vec<String>> {
    let (console, medium) = (format!("{work}/console.log"), format!("{work}/disk.vmdk"));
    #[rustfmt::skip]
    let calls = texts(&[
        &["VBoxManage", "createvm", "--name", NAME, "--basefolder", work, "--ostype", "Linux_64", "--register"],
        &["VBoxManage", "modifyvm", NAME, "--memory", "512", "--cpus", "2", "--ioapic", "on", "--nic1", "nat",
          "--uart1", "0x3F8", "4", "--uartmode1", "file", &console],
        &["VBoxManage", "storagectl", NAME, "--name", "disk", "--add", "sata", "--portcount", "1", "--bootable", "on"],
        &["VBoxManage", "storageattach", NAME, "--storagectl", "disk", "--port", "0", "--device", "0", "--type", "hdd",
          "--medium", &medium],
    ]);
    calls
}

#[test]
fn virtualbox_is_told_to_make_run_and_remove_a_machine() {
    if !can_run() {
        return;
    }
    let stage = Stage::new(DISK);
    let mut launch = stage.launch("virtualbox").env("FAKE_BUSY", "1").start();
    stage.runs(&launch);
    stage.power_off();
    let status = launch.wait_exit(PATIENCE);
    assert_eq!(status.code(), Some(0), "{}", launch.stderr());
    launch.latest("done");

    let calls = stage.calls();
    let work = stage.work(&calls);
    let mut expected = virtualbox_setup(&work);
    expected.extend(texts(&[
        &["VBoxHeadless", "--startvm", NAME],
        // It is off already, which is no failure; the machine is locked for a moment.
        &["VBoxManage", "controlvm", NAME, "poweroff"],
        &["VBoxManage", "unregistervm", NAME],
        &["VBoxManage", "unregistervm", NAME],
    ]));
    assert_eq!(calls, expected);
    let descriptor = fs::read_to_string(stage.fake("medium")).unwrap();
    let extent = format!("RW {} FLAT \"{}\" 0", BYTES / 512, stage.mounted());
    assert!(
        descriptor.lines().any(|line| line == extent),
        "{descriptor}"
    );
    stage.is_the_same();
    stage.is_clean();
}

#[test]
fn virtualbox_is_asked_to_end_by_the_power_button() {
    if !can_run() {
        return;
    }
    let stage = Stage::new(DISK);
    let mut launch = stage.launch("virtualbox").start();
    stage.runs(&launch);
    launch.signal(Signal::TERM);
    assert_eq!(
        launch.wait_exit(PATIENCE).code(),
        Some(128 + 15),
        "{}",
        launch.stderr()
    );
    let calls = stage.calls();
    assert_eq!(
        calls[5..],
        texts(&[
            &["VBoxManage", "controlvm", NAME, "acpipowerbutton"],
            &["VBoxManage", "controlvm", NAME, "poweroff"],
            &["VBoxManage", "unregistervm", NAME],
        ])
    );
    stage.is_clean();
}

#[test]
fn a_machine_of_virtualbox_that_does_not_end_is_turned_off_and_removed() {
    if !can_run() {
        return;
    }
    let stage = Stage::new(DISK);
    let mut launch = stage.launch("virtualbox").env("FAKE_DEAF", "1").start();
    stage.runs(&launch);
    launch.signal(Signal::TERM);
    let end = Instant::now() + PATIENCE;
    while stage.calls().len() < 6 {
        assert!(Instant::now() < end, "{:?}", stage.calls());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(stage.fake("running").exists(), "it ended by itself");
    // The second one does not wait for the grace of a minute.
    launch.signal(Signal::TERM);
    assert_eq!(
        launch.wait_exit(Duration::from_secs(30)).code(),
        Some(128 + 15),
        "{}",
        launch.stderr()
    );
    assert!(!stage.fake("running").exists(), "it was not turned off");
    assert_eq!(
        stage.calls()[6..],
        texts(&[
            &["VBoxManage", "controlvm", NAME, "poweroff"],
            &["VBoxManage", "unregistervm", NAME],
        ])
    );
    stage.is_clean();
}

#[test]
fn a_step_of_virtualbox_that_fails_takes_back_what_was_made_and_nothing_else() {
    if !can_run() {
        return;
    }
    let stage = Stage::new(DISK);
    let fails = |pattern: &str| {
        let _ = fs::remove_file(stage.fake("calls"));
        let mut launch = stage.launch("virtualbox").env("FAKE_FAIL", pattern).spawn();
        assert_eq!(launch.wait_exit(PATIENCE).code(), Some(1));
        stage.is_clean();
        (stage.calls(), launch.stderr())
    };
    let (calls, stderr) = fails("*storagectl*");
    assert!(
        stderr.contains("it printed: VBoxManage refuses this"),
        "{stderr}"
    );
    let mut expected = virtualbox_setup(&stage.work(&calls));
    expected.truncate(3);
    expected.extend(texts(&[&["VBoxManage", "unregistervm", NAME]]));
    assert_eq!(calls, expected);

    // A machine of that name may be the user's own.
    let (calls, _) = fails("*createvm*");
    assert_eq!(calls.len(), 1, "{calls:?}");

    // What stays is told.
    let (calls, stderr) = fails("*storageattach* *unregistervm*");
    assert_eq!(calls.len(), 4 + 15, "as often as it may be tried");
    assert!(stderr.contains("storageattach"), "{stderr}");
    assert!(
        stderr.contains("run it by hand: VBoxManage unregistervm"),
        "{stderr}"
    );
}
