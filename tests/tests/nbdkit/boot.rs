//! QEMU boots from the plugin as an ordinary user who sees no FUSE.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use vmtorrent::image::default_piece_size;
use vmtorrent_tests::appliance::{self, Console, Outcome, kill_qemu, qemu, sha256};
use vmtorrent_tests::{Daemon, publish, seed};

use super::PATIENCE;
use super::stage::{Stage, can_serve, wait_for_socket};

const BOOT: Duration = Duration::from_secs(300);
const NOBODY: u32 = 65_534;

/// A QEMU and an nbdkit of nobody, who sees no FUSE.
struct Machine {
    server: Daemon,
    vmm: Daemon,
    console: Console,
    pidfile: PathBuf,
}

impl Machine {
    fn boot(stage: &Stage, work: &Path, parameters: &[String]) -> Outcome<Self> {
        fs::create_dir(work)?;
        chown(work, Some(NOBODY), Some(NOBODY))?;
        let as_nobody = |program: &str| {
            let mut command = Command::new("setpriv");
            command.args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--inh-caps=-all",
            ]);
            command.arg(program).current_dir(work);
            command
        };
        let socket = work.join("socket");
        let mut nbdkit = as_nobody("nbdkit");
        nbdkit
            .arg("-f")
            .arg("-U")
            .arg(&socket)
            .arg(&stage.plugin)
            .args(parameters);
        let server = Daemon::spawn(nbdkit, &[]);
        wait_for_socket(&server, &socket);
        let console = Console::listen(work.join("console.log"))?;
        let console_socket = console.socket();
        for path in [
            console_socket,
            console_socket.parent().unwrap_or(console_socket),
        ] {
            chown(path, Some(NOBODY), Some(NOBODY))?;
        }
        let pidfile = work.join("qemu.pid");
        let drive = format!(
            "file=nbd+unix:///?socket={},format=raw,if=virtio,cache=none,discard=unmap,rerror=stop,werror=stop",
            socket.display()
        );
        let words = qemu(&console, &pidfile, &drive, false);
        let mut vmm = as_nobody("qemu-system-x86_64");
        vmm.args(&words[1..]);
        Ok(Self {
            server,
            vmm: Daemon::spawn(vmm, &[]),
            console,
            pidfile,
        })
    }

    fn wait_line(&mut self, start: &str) -> Outcome<String> {
        let line = self.console.wait_line(start, BOOT);
        line.map_err(|e| {
            format!(
                "{e}\nnbdkit: {}\nqemu: {}",
                self.server.stderr(),
                self.vmm.stderr()
            )
            .into()
        })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        kill_qemu(&self.pidfile);
    }
}

#[test]
fn qemu_boots_the_appliance_as_an_ordinary_user_and_without_fuse() -> Outcome<()> {
    if !can_serve() || !appliance::can_boot_without_fuse() {
        return Ok(());
    }
    let Some(stage) = Stage::new() else {
        return Ok(());
    };
    let image = appliance::image()?;
    let original = sha256(&image)?;
    let torrent = stage.path("appliance.torrent");
    let piece = default_piece_size(fs::metadata(&image)?.len()).to_string();
    publish(&image, &torrent, &["--piece-size", &piece]);
    let source = seed(&torrent, &appliance::directory(), &[]);
    let home = stage.path("home");
    fs::create_dir(&home)?;
    chown(&home, Some(NOBODY), Some(NOBODY))?;
    let mut parameters = stage.alone(&torrent);
    parameters.retain(|p| !p.starts_with("state=") && !p.starts_with("cache="));
    parameters.push(format!("state={}", home.join("state").display()));
    parameters.push(format!("cache={}", home.join("cache").display()));
    parameters.push(format!("peer={}", source.listen()));
    parameters.push("fill=none".to_owned());

    for (boot, data) in [(1, "none"), (2, "ok")] {
        let mut machine = Machine::boot(&stage, &stage.path(&format!("boot{boot}")), &parameters)?;
        let line = machine.wait_line("VMTORRENT-DEMO-BOOT")?;
        assert_eq!(line, format!("VMTORRENT-DEMO-BOOT n={boot} data={data}"));
        let server = format!("/proc/{}", machine.server.pid());
        let status = fs::read_to_string(format!("{server}/status"))?;
        let uids = status
            .lines()
            .find(|l| l.starts_with("Uid:"))
            .unwrap_or_default();
        assert_eq!(uids.split_whitespace().nth(2), Some("65534"), "{uids}");
        for descriptor in fs::read_dir(format!("{server}/fd"))? {
            let target = fs::read_link(descriptor?.path()).unwrap_or_default();
            assert_ne!(target, Path::new("/dev/fuse"), "it uses FUSE");
        }
        let line = machine.wait_line("VMTORRENT-DEMO-READY")?;
        assert!(line.contains("page=ok"), "{line}");
        let status = machine.vmm.wait_exit(BOOT);
        assert!(status.success(), "{}", machine.vmm.stderr());
        machine.server.signal(Signal::TERM);
        let status = machine.server.wait_exit(PATIENCE);
        assert!(status.success(), "{}", machine.server.stderr());
        assert_eq!(machine.server.stderr(), "");
    }
    assert_eq!(sha256(&image)?, original, "the original was written to");
    Ok(())
}
