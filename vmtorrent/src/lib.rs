#![doc = include_str!("../../README.md")]

mod bencode;
mod bitfield;
mod clock;
mod error;
mod http;
pub mod image;
mod options;
mod stats;
pub mod tracker;

pub use bitfield::Bitfield;
pub use error::{Error, ErrorKind, Result};
pub use options::{ApplianceOptions, Fill, Options, SessionOptions, State};
pub use stats::Stats;
