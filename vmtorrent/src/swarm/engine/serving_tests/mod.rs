//! What an engine gives to a crowd: who is served when, and who is choked. Scripted peers, virtual time.

mod choking;
mod crowd;
mod urgent;
mod waits;

use crate::swarm::wire::WireRequest;

const PIECE: u32 = 64 << 10;
const BLOCK: u32 = 16 << 10;
/// Blocks of the image.
const BLOCKS: u32 = 4 * 256;
/// 100 Mbit/s.
const RATE: f64 = 12.5e6;

/// The `n`th block, of as many as there are.
fn block(n: u32) -> WireRequest {
    let n = n % BLOCKS;
    WireRequest {
        piece: n / 4,
        begin: n % 4 * BLOCK,
        length: BLOCK,
    }
}
