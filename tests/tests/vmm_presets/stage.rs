//! A host that launches by the name of a VMM, and the fake programs that note how they are called.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vmtorrent_tests::{Daemon, Host, Launch, Reference, fuse, publish, require, seed};

use super::{BYTES, PATIENCE};

/// FUSE, and `qemu-img` to look through the descriptors.
pub(super) fn can_run() -> bool {
    let qemu_img = Command::new("qemu-img").arg("--version").output();
    fuse() && require(qemu_img.is_ok(), "qemu-img")
}

/// A published disk, a seed of it, and a `PATH` on which the fake programs come first.
pub(super) struct Stage {
    pub(super) dir: TempDir,
    torrent: PathBuf,
    source: Daemon,
    pub(super) host: Host,
    disk: &'static str,
}

impl Stage {
    pub(super) fn new(disk: &'static str) -> Self {
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

    pub(super) fn fake(&self, name: &str) -> PathBuf {
        self.dir.path().join("fake").join(name)
    }

    pub(super) fn mounted(&self) -> String {
        self.host.mount().join(self.disk).display().to_string()
    }

    /// A launch by that VMM, whose files are made in a directory of the test.
    pub(super) fn launch(&self, vmm: &str) -> Launch {
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
    pub(super) fn is_the_same(&self) {
        let compared = fs::read_to_string(self.fake("compared")).unwrap();
        assert!(compared.contains("identical"), "{compared}");
    }

    /// The calls so far, each with its words.
    pub(super) fn calls(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.fake("calls")).unwrap_or_default();
        let words = |line: &str| line.split('\u{1f}').map(str::to_owned).collect();
        text.lines().map(words).collect()
    }

    /// Waits until the fake machine runs.
    pub(super) fn runs(&self, launch: &Daemon) {
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
    pub(super) fn power_off(&self) {
        fs::write(self.fake("off"), "").unwrap();
    }

    /// The directory of the VMM's files, which has to be gone.
    pub(super) fn work(&self, calls: &[Vec<String>]) -> String {
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
    pub(super) fn is_clean(&self) {
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
