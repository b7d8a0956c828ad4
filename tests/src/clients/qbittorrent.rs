//! Invariant: its settings are written by us, all that matter to the network, and none is taken from the user's home.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use super::{Client, Foreign, Job, Progress, program};
use crate::{Daemon, Node, require, rpc};

/// qbittorrent-nox. Here it learns of peers from trackers and, if the job says so, from other peers.
#[derive(Clone, Copy, Debug)]
pub struct Qbittorrent;

const PEER_PORT: u16 = 6881;
const WEB_PORT: u16 = 8080;

impl Client for Qbittorrent {
    fn name(&self) -> &'static str {
        "qbittorrent"
    }

    fn is_here(&self) -> bool {
        require(program("qbittorrent-nox"), "qbittorrent-nox")
    }

    fn dials(&self) -> bool {
        false
    }

    fn start(&self, node: &Node, job: &Job) -> Foreign {
        let directory = job.state.join("qBittorrent/config");
        std::fs::create_dir_all(&directory).unwrap();
        // Encryption 0: as the other side likes it; 1: encrypted only. Limits are in KiB per second.
        let settings = format!(
            "[LegalNotice]\nAccepted=true\n\
             [BitTorrent]\nSession\\Port={PEER_PORT}\nSession\\BTProtocol=TCP\n\
             Session\\DHTEnabled=false\nSession\\LSDEnabled=false\nSession\\PeXEnabled={}\n\
             Session\\Encryption={}\nSession\\GlobalUPSpeedLimit={}\n\
             Session\\QueueingSystemEnabled=false\nSession\\Preallocation=false\n\
             [Network]\nPortForwardingEnabled=false\n\
             [Preferences]\nGeneral\\Locale=en\nWebUI\\Address=127.0.0.1\nWebUI\\Port={WEB_PORT}\n\
             WebUI\\LocalHostAuth=false\nWebUI\\UseUPnP=false\n",
            job.pex,
            u8::from(job.encrypted_only),
            job.upload_limit.unwrap_or(0) / 1024,
        );
        std::fs::write(directory.join("qBittorrent.conf"), settings).unwrap();
        let mut command = Command::new("qbittorrent-nox");
        command
            .arg(format!("--profile={}", job.state.display()))
            .arg(format!("--save-path={}", job.directory.display()))
            .args(["--skip-dialog=true", "--add-paused=false"])
            .args(&job.sources);
        let daemon = node.run(|| Daemon::spawn(command, &[]));

        let count = job.sources.len();
        let ask = move || progress(count);
        Foreign::asked(daemon, node, node.at(PEER_PORT), Box::new(ask))
    }
}

fn progress(count: usize) -> Option<Progress> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, WEB_PORT));
    let answer = rpc::get(address, "/api/v2/torrents/info").ok()?;
    let torrents = answer.body.as_array()?;
    if torrents.len() < count {
        return None;
    }
    let mut progress = Progress::default();
    let mut known = true;
    for torrent in torrents {
        let state = torrent["state"].as_str()?;
        assert!(!matches!(state, "error" | "missingFiles"), "{torrent}");
        if state.starts_with("checking") {
            return None;
        }
        // -1 while the metadata is not there.
        let total = torrent["total_size"].as_i64()?;
        known &= total >= 0;
        progress.present += torrent["completed"].as_u64()?;
        progress.total += total.max(0) as u64;
        progress.uploaded += torrent["uploaded"].as_u64()?;
    }
    if !known {
        progress.total = 0;
    }
    Some(progress)
}
