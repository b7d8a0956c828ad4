#![doc = include_str!("../../README.md")]

mod announcer;
mod appliance;
mod bencode;
mod bitfield;
mod chart;
mod clock;
mod dht;
mod directories;
mod durable;
mod error;
mod events;
mod export;
mod file_pool;
mod hash;
mod http;
pub mod image;
mod launch;
mod lock_file;
mod log_limit;
mod lsd;
mod metrics;
mod options;
mod overlay;
// For the benchmark alone, and no part of the API.
#[doc(hidden)]
pub mod picker;
mod pristine;
pub mod profile;
pub mod replay;
pub mod report;
mod seed;
mod session;
mod stats;
mod swarm;
#[cfg(test)]
mod test_image;
mod torrent;
pub mod tracker;
mod udp;
#[cfg(feature = "utp")]
mod utp;
#[cfg(feature = "vmm")]
pub mod vmm;
mod whole_file;

pub use appliance::{Appliance, FileExtent, FileExtentKind};
#[doc(hidden)]
pub use bitfield::Bitfield;
pub use error::{Error, ErrorKind, Result};
pub use events::Event;
pub use export::{ExportOptions, export, export_in};
pub use launch::launch;
pub use options::{ApplianceOptions, Fill, Options, SessionOptions, State};
pub use seed::Seed;
pub use session::Session;
// For the simulator alone (tests/sim), and no part of the API.
pub use stats::Stats;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub use swarm::simulation;
#[doc(hidden)]
pub use vmtorrent_platform::leave_signals_to_others;

/// Numbers and names as messages for people show them.
pub mod text {
    pub use crate::chart::{Bytes, Plain, grouped};
    pub use crate::dht::is_node;
}
