//! What is looked at once a second. Invariant: a peer that says nothing, or never answers, is not waited for without end.

use std::time::Duration;

use super::{DisconnectReason, Engine};
use crate::clock::Time;
use crate::image::BlockIndex;
use crate::picker::PeerKey;
use crate::swarm::wire::WireMessage;

const KEEP_ALIVE: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_secs(180);
pub(super) const SNUB: Duration = Duration::from_secs(20);
/// How long a block is waited for of a peer that delivers others meanwhile: its line may be thin.
const LOST: Duration = Duration::from_secs(60);
const UNANSWERED: Duration = Duration::from_secs(60);

impl Engine {
    pub(super) fn keep_house(&mut self, now: Time) {
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            let Some(peer) = self.peers.get_mut(&key) else {
                continue;
            };
            let waiting = peer.unanswered_since.map(|since| now.since(since));
            // A web server is silent while it is not asked.
            let silent = now.since(peer.last_received) > SILENCE && !peer.is_web_seed();
            if waiting.is_some_and(|w| w > UNANSWERED) || silent {
                self.disconnect(now, key, DisconnectReason::Silent);
                continue;
            }
            let silent = waiting.is_some_and(|w| w > SNUB);
            if silent {
                peer.snubbed = true;
                self.picker.unconfine_all(key);
            }
            // What was asked for long ago is given up: soon when nothing comes at all, later when only this did not.
            let patience = if silent { SNUB } else { LOST };
            let late: Vec<BlockIndex> = peer
                .outstanding
                .iter()
                .filter(|(_, o)| now.since(o.mark.sent()) > patience)
                .map(|(block, _)| *block)
                .collect();
            let unanswered_since = peer.unanswered_since;
            self.forget_old_answers(now, key);
            for block in late {
                self.cancel(now, key, block);
                self.picker.give_up(key, block);
            }
            if let Some(peer) = self.peers.get_mut(&key) {
                // Taking back what it did not answer does not make up for it.
                peer.unanswered_since = unanswered_since;
            }
            let quiet = self
                .peers
                .get(&key)
                .is_some_and(|p| now.since(p.last_sent) > KEEP_ALIVE);
            if quiet {
                self.send(now, key, WireMessage::KeepAlive);
            }
        }
    }
}
