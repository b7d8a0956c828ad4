//! Invariant: no file of the user's configures it.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use serde_json::{Value, json};

use super::{Client, Foreign, Job, Progress, program};
use crate::{Daemon, Node, require, rpc};

/// aria2c. It learns of peers from a tracker only.
#[derive(Clone, Copy, Debug)]
pub struct Aria2;

const PEER_PORT: u16 = 6881;
const RPC_PORT: u16 = 6800;

impl Client for Aria2 {
    fn name(&self) -> &'static str {
        "aria2"
    }

    fn is_here(&self) -> bool {
        require(program("aria2c"), "aria2")
    }

    fn dials(&self) -> bool {
        false
    }

    fn start(&self, node: &Node, job: &Job) -> Foreign {
        let log = job.state.join("aria2.log");
        let mut command = Command::new("aria2c");
        command
            .args(["--no-conf", "--quiet", "--log-level=info", "--disable-ipv6"])
            .arg(format!("--log={}", log.display()))
            .arg(format!("--dir={}", job.directory.display()))
            .args(["--enable-rpc", &format!("--rpc-listen-port={RPC_PORT}")])
            .arg(format!("--listen-port={PEER_PORT}"))
            .arg(format!("--interface={}", node.ip()))
            .args(["--enable-dht=false", "--enable-dht6=false"])
            .args(["--bt-enable-lpd=false", "--enable-peer-exchange=false"])
            // Look at what is there, keep it, and serve it for ever.
            .args(["--check-integrity=true", "--allow-overwrite=true"])
            .args(["--seed-ratio=0.0", "--file-allocation=none"])
            .arg("--max-concurrent-downloads=16")
            .arg(format!("--stop-with-process={}", std::process::id()));
        if let Some(limit) = job.upload_limit {
            command.arg(format!("--max-overall-upload-limit={limit}"));
        }
        if job.encrypted_only {
            command.args(["--bt-require-crypto=true", "--bt-min-crypto-level=arc4"]);
        }
        // Several words of one command line would be sources of one download.
        let list = job.state.join("sources");
        std::fs::write(&list, job.sources.join("\n")).unwrap();
        command.arg(format!("--input-file={}", list.display()));
        let mut daemon = node.run(|| Daemon::spawn(command, &[]));
        daemon.logs_to(
            &log,
            &[" From: ", " To: ", "Bt", "Peer", "Tracker", "ERROR"],
        );

        let count = job.sources.len();
        let ask = move || progress(count);
        Foreign::asked(daemon, node, node.at(PEER_PORT), Box::new(ask))
    }
}

fn progress(count: usize) -> Option<Progress> {
    let mut progress = Progress::default();
    let mut known = 0;
    for (method, params) in [
        ("aria2.tellActive", json!([])),
        ("aria2.tellWaiting", json!([0, 100])),
        ("aria2.tellStopped", json!([0, 100])),
    ] {
        for download in call(method, &params)?.as_array()? {
            let error = download["errorMessage"].as_str().unwrap_or_default();
            assert!(error.is_empty(), "a download failed: {download}");
            // It is hashing what is there.
            if download.get("verifiedLength").is_some() {
                return None;
            }
            // The metadata of a magnet link counts as a download of its own.
            if download["bittorrent"].get("info").is_none() {
                continue;
            }
            let number = |field: &str| download[field].as_str()?.parse::<u64>().ok();
            known += 1;
            progress.present += number("completedLength")?;
            progress.total += number("totalLength")?;
            progress.uploaded += number("uploadLength")?;
        }
    }
    if known < count {
        progress.total = 0;
    }
    Some(progress)
}

/// `None` while it does not answer.
fn call(method: &str, params: &Value) -> Option<Value> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, RPC_PORT));
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let answer = rpc::post(address, "/jsonrpc", None, &body).ok()?;
    assert_eq!(answer.status, 200, "{method}: {answer:?}");
    Some(answer.body["result"].clone())
}
