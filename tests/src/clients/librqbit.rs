//! Invariant: the engine is the stock one; our binary only starts it and tells how far it has come.

use super::{Client, Foreign, Job};
use crate::binary::librqbit_peer;
use crate::{Daemon, Node};

/// The engine of rqbit.
#[derive(Clone, Debug)]
pub struct Librqbit;

const PORT: u16 = 4240;

impl Client for Librqbit {
    fn name(&self) -> &'static str {
        "librqbit"
    }

    fn is_here(&self) -> bool {
        true
    }

    fn dials(&self) -> bool {
        true
    }

    fn start(&self, node: &Node, job: &Job) -> Foreign {
        assert!(!job.encrypted_only, "it knows no encryption");
        let mut command = librqbit_peer();
        command.args(["--listen", &node.at(PORT)]);
        for peer in &job.peers {
            command.args(["--peer", peer]);
        }
        if let Some(limit) = job.upload_limit {
            command.args(["--upload-limit", &limit.to_string()]);
        }
        command.arg(&job.directory).args(&job.sources);
        command.env("RUST_LOG", "info,librqbit=debug");
        let daemon = node.run(|| Daemon::spawn(command, &[]));
        Foreign::telling(daemon, node)
    }
}
