#![doc = include_str!("../../README.md")]

mod bitfield;
mod clock;
mod durable;
mod error;
pub mod image;
mod lock_file;
mod options;
#[cfg_attr(
    not(test),
    expect(dead_code, unused_imports, reason = "the session will use it")
)]
mod overlay;
#[cfg_attr(
    not(test),
    expect(dead_code, unused_imports, reason = "the session will use it")
)]
mod pristine;
mod stats;
#[cfg(test)]
mod test_image;

pub use bitfield::Bitfield;
pub use error::{Error, ErrorKind, Result};
pub use options::{ApplianceOptions, Fill, Options, SessionOptions, State};
pub use stats::Stats;
