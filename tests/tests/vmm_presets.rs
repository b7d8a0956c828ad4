//! `vmtorrent launch --vmm NAME`: QEMU boots by it; the command lines of the others are checked by programs that stand for
//! them (tests/fake-vmm), in their order, with the clean-up after each kind of end.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use vmtorrent_tests::appliance::{self, Outcome};
use vmtorrent_tests::{Daemon, Host, Launch, Reference, command, fuse, publish, require, seed};

const PATIENCE: Duration = Duration::from_secs(60);
const BOOT: Duration = Duration::from_secs(300);

/// FUSE, and `qemu-img` to look through the descriptors.
fn can_run() -> bool {
    let qemu_img = Command::new("qemu-img").arg("--version").output();
    fuse() && require(qemu_img.is_ok(), "qemu-img")
}

/// Each syntax has to escape something of it.
const DISK: &str = "it's a disk, 2.img";
const BYTES: u64 = 1 << 20;

/// A published disk, a seed of it, and a `PATH` on which the fake programs come first.
struct Stage {
    dir: TempDir,
    torrent: PathBuf,
    source: Daemon,
    host: Host,
    disk: &'static str,
}

impl Stage {
    fn new(disk: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let original = dir.path().join(disk);
        Reference::new(BYTES as usize, 7).write_to(&original);
        let torrent = dir.path().join("disk.torrent");
        publish(&original, &torrent, &[]);
        let source = seed(&torrent, dir.path(), &[]);
        let host = Host::new(dir.path(), "host");
        let fakes = dir.path().join("bin");
        fs::create_dir_all(&fakes).unwrap();
        fs::create_dir_all(dir.path().join("fake")).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fake-vmm/vmm.sh");
        let script = fs::canonicalize(script).unwrap();
        for name in [
            "VBoxManage",
            "VBoxHeadless",
            "vmplayer",
            "vmrun",
            "cloud-hypervisor",
            "ch-remote",
            "powershell.exe",
        ] {
            std::os::unix::fs::symlink(&script, fakes.join(name)).unwrap();
        }
        Self {
            dir,
            torrent,
            source,
            host,
            disk,
        }
    }

    fn fake(&self, name: &str) -> PathBuf {
        self.dir.path().join("fake").join(name)
    }

    fn mounted(&self) -> String {
        self.host.mount().join(self.disk).display().to_string()
    }

    /// A launch by that VMM, whose files are made in a directory of the test.
    fn launch(&self, vmm: &str) -> Launch {
        let path = std::env::var("PATH").unwrap();
        let bin = self.dir.path().join("bin");
        self.host
            .launch(&self.torrent)
            .peer(&self.source.listen())
            .option("--vmm", vmm)
            .option("--vmm-name", "it's web, 2")
            .option("--memory", "512M")
            .option("--cpus", "2")
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("FAKE_DIR", self.dir.path().join("fake"))
            .env("FAKE_ORIGINAL", self.dir.path().join(self.disk))
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
    }

    /// That `qemu-img` found the disk's content through the descriptor that the VMM got.
    fn is_the_same(&self) {
        let compared = fs::read_to_string(self.fake("compared")).unwrap();
        assert!(compared.contains("identical"), "{compared}");
    }

    /// The calls so far, each with its words.
    fn calls(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.fake("calls")).unwrap_or_default();
        let words = |line: &str| line.split('\u{1f}').map(str::to_owned).collect();
        text.lines().map(words).collect()
    }

    /// Waits until the fake machine runs.
    fn runs(&self, launch: &Daemon) {
        let end = Instant::now() + PATIENCE;
        while !self.fake("running").exists() {
            assert!(
                Instant::now() < end,
                "it does not run: {:?}\n{}",
                self.calls(),
                launch.stderr()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Turns the fake machine off from inside.
    fn power_off(&self) {
        fs::write(self.fake("off"), "").unwrap();
    }

    /// The directory of the VMM's files, which has to be gone.
    fn work(&self, calls: &[Vec<String>]) -> String {
        let start = self.dir.path().join("vmtorrent-vmm-").display().to_string();
        let words = calls.iter().flatten();
        let found = words
            .filter_map(|word| word.find(&start).map(|at| &word[at..]))
            .next();
        let work = found.unwrap_or_else(|| panic!("no work directory in {calls:?}"));
        let length = work[start.len()..].find(|c: char| !c.is_ascii_alphanumeric());
        let work = &work[..start.len() + length.unwrap_or(work.len() - start.len())];
        assert!(!Path::new(work).exists(), "{work} stays");
        work.to_owned()
    }

    /// That nothing is left mounted, and no directory of a VMM.
    fn is_clean(&self) {
        assert!(!self.host.mount().join(self.disk).exists(), "still mounted");
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(
                !name.to_string_lossy().starts_with("vmtorrent-vmm-"),
                "{name:?} stays"
            );
        }
    }
}

fn texts(calls: &[&[&str]]) -> Vec<Vec<String>> {
    let words = |call: &&[&str]| call.iter().map(|word| (*word).to_owned()).collect();
    calls.iter().map(words).collect()
}

const NAME: &str = "it's web, 2";

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

#[test]
fn a_vmm_of_the_users_own_file_runs_and_its_mistakes_are_named() {
    if !can_run() {
        return;
    }
    let stage = Stage::new(DISK);
    let config = stage.dir.path().join("config/vmtorrent");
    fs::create_dir_all(&config).unwrap();
    let compare = format!(
        "cmp \\\"$1\\\" \\\"{}\\\" && echo same, $2 bytes",
        stage.dir.path().join(DISK).display()
    );
    let text = format!(
        "[vmm.mine]\nrun = [\"sh\", \"-c\", \"{compare}; exit 7\", \"sh\", \"{{disk}}\", \"{{memory}}\"]\n"
    );
    fs::write(config.join("vmm.toml"), text).unwrap();
    let mut launch = stage.launch("mine").spawn();
    assert_eq!(launch.wait_exit(PATIENCE).code(), Some(7));
    let stderr = launch.stderr();
    assert!(stderr.contains("same, 536870912 bytes"), "{stderr}");

    let other = stage.dir.path().join("other.toml");
    fs::write(&other, "[vmm.mine]\nrun = [\"sh\", \"-c\", \"exit 8\"]\n").unwrap();
    let mut launch = stage.launch("mine").option("--vmm-file", &other).spawn();
    assert_eq!(
        launch.wait_exit(PATIENCE).code(),
        Some(8),
        "the file that is named goes before the user's"
    );

    fs::write(&other, "[vmm.mine]\nrun = [\"sh\", \"{dsk}\"]\n").unwrap();
    let mut launch = stage.launch("mine").option("--vmm-file", &other).spawn();
    assert_eq!(launch.wait_exit(PATIENCE).code(), Some(1));
    let stderr = launch.stderr();
    let place = format!("{}, line 2, vmm.mine.run[1]: {{dsk}}", other.display());
    assert!(stderr.contains(&place), "{stderr}");
    stage.is_clean();
}

fn vmm(arguments: &[&str]) -> Output {
    let nowhere = std::env::temp_dir().join("vmtorrent-no-config");
    command()
        .arg("vmm")
        .args(arguments)
        .env("XDG_CONFIG_HOME", nowhere)
        .output()
        .unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = vmm(arguments);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn vmm_list_and_show_tell_what_would_run() {
    let all = json(&["list", "--json"]);
    let names: Vec<&str> = all["vmms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["cloud-hypervisor", "hyperv", "qemu", "virtualbox", "vmware"]
    );
    let list = String::from_utf8(vmm(&["list"]).stdout).unwrap();
    assert!(
        list.contains("VBoxHeadless") && list.lines().count() == 5,
        "{list}"
    );

    let arguments = [
        "show",
        "qemu",
        "--disk",
        "/m/a b,c.img",
        "--memory",
        "2G",
        "--json",
        "--",
        "-snapshot",
    ];
    let shown = json(&arguments);
    let run: Vec<&str> = shown["run"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    assert_eq!(run[0], "qemu-system-x86_64");
    assert!(
        run.iter()
            .any(|word| word.starts_with("file=/m/a b,,c.img,format=raw,if=virtio,")),
        "{run:?}"
    );
    assert_eq!(run.last(), Some(&"-snapshot"));
    assert_eq!(shown["console"], "stdio");

    let text =
        String::from_utf8(vmm(&["show", "virtualbox", "--disk", "/m/it's.img"]).stdout).unwrap();
    assert!(text.contains("\nVBoxManage createvm --name "), "{text}");
    assert!(text.contains("FLAT \"/m/it's.img\" 0"), "{text}");

    let output = vmm(&["show", "xen"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("cloud-hypervisor, hyperv, qemu"),
        "{output:?}"
    );
}

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
