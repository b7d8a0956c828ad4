//! How many files and sockets may be open at once.
//!
//! Invariant: our own limit is raised, and no program that we start gets more than we were given.

#[cfg(unix)]
use std::sync::OnceLock;

#[cfg(unix)]
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What we were given.
#[cfg(unix)]
static GIVEN: OnceLock<Rlimit> = OnceLock::new();

/// An image of many files needs many descriptors: as many as the system grants without asking.
pub fn allow_many() {
    #[cfg(unix)]
    {
        let given = *GIVEN.get_or_init(|| getrlimit(Resource::Nofile));
        let current = given.maximum;
        set(Rlimit { current, ..given });
    }
}

/// Starts a program under the limit that we were given: some programs take a high one for a list to walk through, or
/// use `select`. Meanwhile, for about a millisecond, nothing else of ours can open more than that either.
pub fn as_given<T>(start: impl FnOnce() -> T) -> T {
    #[cfg(unix)]
    {
        let raised = getrlimit(Resource::Nofile);
        if let Some(given) = GIVEN.get() {
            set(*given);
        }
        let started = start();
        set(raised);
        started
    }
    #[cfg(not(unix))]
    start()
}

#[cfg(unix)]
fn set(limit: Rlimit) {
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}
