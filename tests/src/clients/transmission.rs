//! Invariant: its settings are written by us, all that matter to the network, and none is taken from the user's home.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::{Client, Foreign, Job, Progress, program};
use crate::{Daemon, Node, require, rpc};

/// transmission-daemon. It refuses peers on loopback addresses, and can be told of peers by a tracker only.
#[derive(Clone, Copy, Debug)]
pub struct Transmission;

const PEER_PORT: u16 = 51413;
const RPC_PORT: u16 = 9091;

impl Client for Transmission {
    fn name(&self) -> &'static str {
        "transmission"
    }

    fn is_here(&self) -> bool {
        require(program("transmission-daemon"), "transmission-daemon")
    }

    fn dials(&self) -> bool {
        false
    }

    fn start(&self, node: &Node, job: &Job) -> Foreign {
        let ip = node.ip();
        let settings = json!({
            "bind-address-ipv4": ip,
            "bind-address-ipv6": "::1",
            "dht-enabled": false,
            "download-dir": job.directory,
            // 1: encrypted or not; 2: encrypted only.
            "encryption": if job.encrypted_only { 2 } else { 1 },
            "incomplete-dir-enabled": false,
            "lpd-enabled": false,
            "message-level": 2,
            "peer-port": PEER_PORT,
            "peer-port-random-on-start": false,
            "pex-enabled": false,
            "port-forwarding-enabled": false,
            "rename-partial-files": false,
            "rpc-authentication-required": false,
            "rpc-bind-address": ip,
            "rpc-host-whitelist-enabled": false,
            "rpc-port": RPC_PORT,
            "rpc-whitelist-enabled": false,
            // Kilobytes per second.
            "speed-limit-up": job.upload_limit.unwrap_or(0) / 1000,
            "speed-limit-up-enabled": job.upload_limit.is_some(),
            "utp-enabled": false,
        });
        std::fs::write(job.state.join("settings.json"), settings.to_string()).unwrap();
        let mut command = Command::new("transmission-daemon");
        command
            .arg("--foreground")
            .arg("--config-dir")
            .arg(&job.state);
        let daemon = node.run(|| Daemon::spawn(command, &[]));

        let control = Control {
            address: (ip, RPC_PORT).into(),
            session: Mutex::default(),
            to_add: Mutex::new(job.sources.clone()),
            count: job.sources.len(),
        };
        Foreign::asked(
            daemon,
            node,
            node.at(PEER_PORT),
            Box::new(move || control.progress()),
        )
    }
}

struct Control {
    address: SocketAddr,
    /// What proves to the daemon that its answers are read.
    session: Mutex<String>,
    /// Torrents that it was not given yet.
    to_add: Mutex<Vec<String>>,
    count: usize,
}

impl Control {
    fn progress(&self) -> Option<Progress> {
        let mut to_add = self.to_add.lock().unwrap();
        while let Some(source) = to_add.last() {
            let added = self.call("torrent-add", &json!({ "filename": source }))?;
            assert!(
                added.get("torrent-added").is_some(),
                "{source} is not taken: {added}"
            );
            to_add.pop();
        }
        let fields = [
            "errorString",
            "haveValid",
            "metadataPercentComplete",
            "status",
            "totalSize",
            "uploadedEver",
        ];
        let answer = self.call("torrent-get", &json!({ "fields": fields }))?;
        let torrents = answer["torrents"].as_array()?;
        let mut progress = Progress::default();
        let mut known = torrents.len() == self.count;
        for torrent in torrents {
            // 1, 2: it looks at what is there.
            if matches!(torrent["status"].as_u64(), Some(1 | 2)) {
                return None;
            }
            known &= torrent["metadataPercentComplete"].as_f64() == Some(1.0);
            progress.present += torrent["haveValid"].as_u64()?;
            progress.total += torrent["totalSize"].as_u64()?;
            progress.uploaded += torrent["uploadedEver"].as_u64()?;
        }
        if !known {
            progress.total = 0;
        }
        Some(progress)
    }

    /// `None` while the daemon does not answer.
    fn call(&self, method: &str, arguments: &Value) -> Option<Value> {
        let body = json!({ "method": method, "arguments": arguments });
        let mut session = self.session.lock().unwrap();
        for _ in 0..2 {
            let header = ("X-Transmission-Session-Id", session.as_str());
            let answer = rpc::post(self.address, "/transmission/rpc", Some(header), &body).ok()?;
            if answer.status == 409 {
                *session = answer.header(header.0)?.to_owned();
                continue;
            }
            assert_eq!(answer.body["result"], "success", "{method}: {answer:?}");
            return Some(answer.body["arguments"].clone());
        }
        None
    }
}
