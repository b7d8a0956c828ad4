//! Virtual time. Invariant: it counts from the beginning of a run, in nanoseconds, and so does the engine's.

use std::time::Duration;

use vmtorrent::simulation::Time;

/// Nanoseconds since the beginning of a run.
pub type Nanos = u64;

/// Later than anything happens.
pub const NEVER: Nanos = Nanos::MAX;

/// As the engine has it.
pub fn time(at: Nanos) -> Time {
    Time::default() + Duration::from_nanos(at)
}

/// As the simulator has it.
pub fn nanos(at: Time) -> Nanos {
    span(at.since(Time::default()))
}

/// The same of a span of time.
pub fn span(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER)
}

/// How long so many bytes take at a rate of bytes per second.
pub fn transmission(bytes: u64, rate: f64) -> Nanos {
    (bytes as f64 / rate * 1e9) as Nanos
}
