//! Invariant: Debian's own Python runs it, as python3-libtorrent is built for that one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Client, Foreign, Job};
use crate::{Daemon, Node, require};

/// libtorrent (Rasterbar), the engine of many clients, through its Python binding.
#[derive(Clone, Copy, Debug)]
pub struct Libtorrent;

const PORT: u16 = 6881;

impl Client for Libtorrent {
    fn name(&self) -> &'static str {
        "libtorrent"
    }

    fn is_here(&self) -> bool {
        let found = python()
            .args(["-c", "import libtorrent"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        require(found, "python3-libtorrent")
    }

    fn dials(&self) -> bool {
        true
    }

    fn make_torrent(&self, path: &Path, torrent: &Path) {
        let made = python()
            .arg(script())
            .arg("make")
            .args([path, torrent])
            .status()
            .unwrap();
        assert!(made.success(), "no torrent of {}", path.display());
    }

    fn start(&self, node: &Node, job: &Job) -> Foreign {
        let mut command = python();
        command
            .arg(script())
            .args(["run", "--listen", &node.at(PORT)]);
        for peer in &job.peers {
            command.args(["--peer", peer]);
        }
        if let Some(limit) = job.upload_limit {
            command.args(["--upload-limit", &limit.to_string()]);
        }
        if job.encrypted_only {
            command.arg("--encrypted-only");
        }
        if job.pex {
            command.arg("--pex");
        }
        if let Some(first) = &job.dht {
            command.args(["--dht", first]);
        }
        if job.utp_only {
            command.arg("--utp-only");
        }
        command.arg(&job.directory).args(&job.sources);
        let daemon = node.run(|| Daemon::spawn(command, &[]));
        Foreign::telling(daemon, node)
    }
}

fn python() -> Command {
    Command::new("/usr/bin/python3")
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/libtorrent_peer.py")
}
