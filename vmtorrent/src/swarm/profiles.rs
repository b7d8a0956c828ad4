//! Profiles between us and the peers, on the way to and from the engine. Invariant: who asks for a profile gets one that
//! foretells something of the image, or waits; whatever a peer gave is read on a blocking thread, outside all locks.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Swarm;
use super::engine::ProfileRank;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::picker::PeerKey;
use crate::profile::{Guide, Profile};

impl Swarm {
    /// Asks peers for a profile, now and whenever one connects, until one gives a good one. The receiver fails when the
    /// swarm is closed.
    pub(crate) fn seek_profile(&self) -> oneshot::Receiver<Arc<Profile>> {
        let (sender, receiver) = oneshot::channel();
        self.drive_inner(|inner, now| {
            inner.seekers.retain(|seeker| !seeker.is_closed());
            inner.seekers.push(sender);
            inner.engine.want_profile(now);
        });
        receiver
    }

    /// Gives peers this profile from now on, unless a better one is given already.
    pub(crate) fn offer_profile(&self, text: Bytes, rank: ProfileRank) {
        self.drive(|engine, now| engine.offer_profile(now, text, rank));
    }

    /// Looks at what a peer gave as a profile.
    pub(super) fn check_profile(&self, key: PeerKey, text: Bytes) {
        let Some(swarm) = self.me.upgrade() else {
            return;
        };
        self.runtime.spawn_blocking(move || {
            let read = read(&swarm.image, &text);
            swarm.drive_inner(|inner, now| {
                inner.engine.profile_checked(now, key, read.is_ok());
                match read {
                    Ok(profile) => {
                        tracing::info!(
                            peer = key.0,
                            runs = profile.runs(),
                            blocks = profile.block_count(),
                            "a peer gave its profile"
                        );
                        let profile = Arc::new(profile);
                        for seeker in inner.seekers.drain(..) {
                            // Whoever asked may be gone.
                            let _ = seeker.send(profile.clone());
                        }
                    }
                    Err(error) => {
                        tracing::debug!(peer = key.0, %error, "a peer's profile is of no use");
                    }
                }
            });
        });
    }
}

fn read(image: &Image, text: &[u8]) -> Result<Profile> {
    let profile = Profile::for_image(image, &Profile::from_json(text)?)?;
    if Guide::new(&profile, image).is_none() {
        let text = "the profile foretells nothing of the image";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(profile)
}
