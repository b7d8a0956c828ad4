//! Invariant: a wait for another client ends: with what was waited for, or with both sides' logs.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Daemon, Node};

/// Others let a new peer wait for the next round of their choker, ten seconds or more.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often a client is asked that can't tell by itself.
const BEAT: Duration = Duration::from_millis(100);

/// How far a client has come, all of its torrents together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Verified bytes.
    pub present: u64,
    /// Bytes of the images; 0 while anything is not known yet.
    pub total: u64,
    /// Bytes sent to peers.
    pub uploaded: u64,
}

/// How a client's progress is learnt; `None` while it can't be.
pub(super) type Ask = Box<dyn Fn() -> Option<Progress> + Send + Sync>;

/// A running client that is not ours.
pub struct Foreign {
    daemon: Daemon,
    node: Node,
    listen: String,
    ask: Option<Ask>,
}

impl Foreign {
    /// A client that prints `progress` events.
    pub(super) fn telling(daemon: Daemon, node: &Node) -> Self {
        let listen = daemon.listen();
        Self {
            daemon,
            node: node.clone(),
            listen,
            ask: None,
        }
    }

    /// A client that is asked through `ask`. Waits until that succeeds.
    pub(super) fn asked(daemon: Daemon, node: &Node, listen: String, ask: Ask) -> Self {
        let foreign = Self {
            daemon,
            node: node.clone(),
            listen,
            ask: Some(ask),
        };
        foreign.wait("it answers", |_| true);
        foreign
    }

    /// Where peers connect.
    pub fn listen(&self) -> &str {
        &self.listen
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        self.wait("its progress", |_| true)
    }

    /// Waits until it has everything.
    ///
    /// # Panics
    /// If it ends before or time passes.
    pub fn wait_complete(&self) {
        self.wait("all of the image", |p| p.total > 0 && p.present == p.total);
    }

    /// Waits until its progress is as `wanted`; `what` names that in the message.
    ///
    /// # Panics
    /// If it ends before or time passes.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Progress) -> bool) -> Progress {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.daemon.event_count().saturating_sub(1);
        let mut latest = None;
        loop {
            if self.ask.is_none() {
                let event = self.daemon.next_event(&mut seen);
                latest = told(&event).or(latest);
            } else {
                latest = self.node.run(|| self.ask.as_ref().and_then(|ask| ask()));
            }
            if let Some(progress) = latest.filter(&wanted) {
                return progress;
            }
            self.daemon.assert_running();
            assert!(
                Instant::now() < deadline,
                "waiting for {what}: not in time, it has {latest:?}"
            );
            if self.ask.is_some() {
                std::thread::sleep(BEAT);
            }
        }
    }

    /// Ends it as a user would.
    ///
    /// # Panics
    /// If it has ended before, or does not.
    pub fn stop(self) {
        self.daemon.end();
    }
}

fn told(event: &Value) -> Option<Progress> {
    let number = |field: &str| event[field].as_u64();
    Some(Progress {
        present: number("present_bytes")?,
        total: number("image_bytes")?,
        uploaded: number("uploaded_bytes")?,
    })
}
