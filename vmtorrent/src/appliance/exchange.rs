//! The profile of one machine and those of its peers. Invariant: what a peer gave is passed on only when the guest did as
//! it says, so that a useless one spreads no further than its first victims.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::run::Run;
use crate::profile::{LEAST_BLOCKS, Profile};
use crate::session::Shared;
use crate::swarm::{ProfileRank, Swarm};
use crate::torrent::Torrent;

/// What a machine gives to peers that ask for a profile.
pub(crate) struct Exchange {
    swarm: Weak<Swarm>,
    source: Mutex<Source>,
}

/// Where the profile comes from that is given.
enum Source {
    /// The guest's own run, as far as it got.
    Run,
    /// A peer's, once it has proved its worth.
    Peer {
        profile: Arc<Profile>,
        /// First reads, and how many of them were expected, when it was taken up.
        before: (u64, u64),
    },
    /// The one that the guest is run with; nothing is left to be done.
    Given,
}

/// First reads that a peer's profile is judged by; half of them it must have expected.
const TRIAL: u64 = 64;

impl Exchange {
    /// Gives the profile in use to peers; without one asks them for theirs, as long as the task lives.
    pub(super) fn start(
        session: &Shared,
        torrent: &Torrent,
        run: &Arc<Run>,
        profile: Option<Profile>,
    ) -> (Arc<Self>, AbortOnDropHandle<()>) {
        let runtime = session.handle();
        let exchange = Arc::new(Self::new(torrent.swarm()));
        let task = match profile {
            Some(profile) => {
                let exchange = exchange.clone();
                runtime.spawn_blocking(move || exchange.give(&profile))
            }
            None => {
                let (weak, run) = (Arc::downgrade(&exchange), Arc::downgrade(run));
                let seek = Self::seek(weak, run, runtime.clone());
                runtime.spawn(seek.instrument(torrent.span().clone()))
            }
        };
        (exchange, AbortOnDropHandle::new(task))
    }

    fn new(swarm: &Arc<Swarm>) -> Self {
        Self {
            swarm: Arc::downgrade(swarm),
            source: Mutex::new(Source::Run),
        }
    }

    /// Gives the profile that the guest is run with. Takes the time to write it as a text.
    fn give(&self, profile: &Profile) {
        *self.source.lock() = Source::Given;
        self.offer(profile, ProfileRank::InUse);
    }

    /// The guest follows a profile of a peer from now on.
    fn follows(&self, profile: Arc<Profile>, run: &Run) {
        let before = run.hits();
        *self.source.lock() = Source::Peer { profile, before };
    }

    /// Whether more of the guest's run changes what is given.
    pub(super) fn takes_runs(&self) -> bool {
        !matches!(*self.source.lock(), Source::Given)
    }

    /// Gives what there is, after the guest read more; `own` is its run. Takes the time to write it as a text.
    pub(super) fn renew(&self, run: &Run, own: &Profile) {
        let proved = {
            let mut source = self.source.lock();
            match &*source {
                Source::Given => return,
                Source::Peer { profile, before } if proves(*before, run.hits()) => {
                    let profile = profile.clone();
                    *source = Source::Given;
                    Some(profile)
                }
                Source::Peer { .. } | Source::Run => None,
            }
        };
        match proved {
            Some(profile) => self.offer(&profile, ProfileRank::InUse),
            None if own.block_count() >= LEAST_BLOCKS => self.offer(own, ProfileRank::OwnRun),
            None => {}
        }
    }

    fn offer(&self, profile: &Profile, rank: ProfileRank) {
        if let Some(swarm) = self.swarm.upgrade() {
            swarm.offer_profile(Bytes::from(profile.to_attached()), rank);
        }
    }

    /// Waits until a peer gives a profile, and has the guest follow it.
    async fn seek(exchange: Weak<Self>, run: Weak<Run>, runtime: Handle) {
        let sought = {
            let Some(swarm) = exchange.upgrade().and_then(|e| e.swarm.upgrade()) else {
                return;
            };
            swarm.seek_profile()
        };
        let Ok(profile) = sought.await else { return };
        let follow = move || {
            let (Some(exchange), Some(run)) = (exchange.upgrade(), run.upgrade()) else {
                return;
            };
            if let Some(swarm) = exchange.swarm.upgrade()
                && run.follow(&swarm, &profile)
            {
                exchange.follows(profile, &run);
            }
        };
        // If it ends before, the session has ended.
        let _ = runtime.spawn_blocking(follow).await;
    }
}

/// Whether enough was read since, and half of it expected.
fn proves(before: (u64, u64), now: (u64, u64)) -> bool {
    let (reads, expected) = (now.0 - before.0, now.1 - before.1);
    reads >= TRIAL && expected * 2 >= reads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_profile_proves_its_worth_by_what_the_guest_reads_after_it_came() {
        assert!(!proves((10, 0), (73, 63)));
        assert!(proves((10, 0), (74, 32)));
        assert!(!proves((10, 5), (74, 36)));
    }
}
