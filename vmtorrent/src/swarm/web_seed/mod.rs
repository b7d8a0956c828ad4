//! Web seeds: web servers that hold the files of an image (BEP 19).
//!
//! Each has a task that takes requests for blocks as the connection of a peer does, and answers them with blocks or
//! rejects. What the engine decides (what is asked of whom, what is late, how much is under way, who lied) holds for
//! them as for peers.
//!
//! Invariant: a server gets as many requests at once as [`queue`] lets it, each for a range that is bounded; no answer
//! is read beyond its range or waited for beyond its time; and what came is believed only once its hash is right.

mod answer;
mod failure;
mod fetch;
mod files;
mod patience;
mod queue;
mod task;

pub(super) use failure::shown;
pub(super) use fetch::Site;
pub(super) use task::{Order, run};
