//! The engine's promises, on a simulated network.

mod faults;
mod fetching;
mod protocol;

const PIECE: u32 = 64 << 10;
