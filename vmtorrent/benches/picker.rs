//! How long one pick takes: 131,072 pieces, 100 peers.
//!
//! `cargo bench -p vmtorrent --bench picker` prints a row a case, each with its ratio to the smallest
//! case of the same run, since the machine's own speed varies: a pick must not cost more for more pieces.

#![expect(clippy::print_stdout, reason = "a benchmark reports on stdout")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use vmtorrent::Bitfield;
use vmtorrent::image::{Geometry, PieceIndex};
use vmtorrent::picker::{Band, BlockArrival, PeerKey, Picker};

const PIECE: u32 = 64 << 10;

/// What the peers have.
#[derive(Clone, Copy, Debug)]
enum Peers {
    /// Everything.
    Seeds,
    /// Half of the pieces each, another half for each peer.
    Halves,
    /// One piece in a thousand.
    Sparse,
}

fn field(peers: Peers, peer: u32, pieces: u32) -> Bitfield {
    let mut field = Bitfield::new(pieces);
    for p in 0..pieces {
        let mixed = (p ^ peer.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b) >> 8;
        let has = match peers {
            Peers::Seeds => true,
            Peers::Halves => mixed.is_multiple_of(2),
            Peers::Sparse => mixed.is_multiple_of(1000),
        };
        field.set(PieceIndex(p), has);
    }
    field
}

/// The mean time of a pick while the download goes on, with its arrival.
fn measure(pieces: u32, peers: u32, kind: Peers) -> Duration {
    let Some(geometry) = Geometry::new(u64::from(pieces) * u64::from(PIECE), PIECE) else {
        return Duration::ZERO;
    };
    let mut picker = Picker::new(geometry, |_| false, |_| false, 1);
    for p in 0..peers {
        let key = PeerKey(p as usize);
        picker.add_peer(key);
        picker.set_field(key, field(kind, p, pieces));
    }
    let mut picks = 0;
    let mut spent = Duration::ZERO;
    let mut idle = 0;
    for p in (0..peers).cycle() {
        let key = PeerKey(p as usize);
        let start = Instant::now();
        let pick = black_box(picker.pick(key, Band::Background));
        spent += start.elapsed();
        picks += 1;
        idle = if pick.is_some() { 0 } else { idle + 1 };
        if let Some(pick) = pick
            && let BlockArrival::New { complete: true, .. } = picker.receive(key, pick.block)
        {
            picker.have(pick.block.piece);
        }
        // As many for each case, or until nobody has anything left.
        if picks == 15_000 || idle > peers {
            break;
        }
    }
    spent / picks.max(1)
}

fn main() {
    println!(
        "{:>8} {:>6} {:>8}  {:>10}  ratio to the smallest",
        "pieces", "peers", "have", "us a pick"
    );
    for kind in [Peers::Seeds, Peers::Halves, Peers::Sparse] {
        let mut smallest = None;
        for pieces in [4_096, 131_072] {
            let time = measure(pieces, 100, kind);
            let base = *smallest.get_or_insert(time);
            let ratio = time.as_secs_f64() / base.as_secs_f64().max(1e-9);
            let micros = time.as_secs_f64() * 1e6;
            println!(
                "{pieces:>8} {:>6} {:>8}  {micros:>10.2}  {ratio:.2}",
                100,
                format!("{kind:?}")
            );
        }
    }
}
