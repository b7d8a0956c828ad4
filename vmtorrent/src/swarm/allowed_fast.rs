//! Pieces that a peer may ask for while we choke it (BEP 6), so that it has something to give.
//!
//! Invariant: of the pieces that a peer is allowed it is sent as many bytes as they have, and no more.

use std::net::IpAddr;

use sha1::{Digest, Sha1};

use super::wire::WireRequest;
use crate::hash::HashSet;
use crate::image::InfoHash;

/// How many pieces a peer is allowed.
const PIECES: usize = 10;

/// The canonical set of BEP 6, which depends on the network (/24) of a peer, so that many addresses of one host get no
/// more than one. For IPv6 BEP 6 has none.
pub(super) fn allowed_fast(ip: IpAddr, info_hash: InfoHash, pieces: u32) -> Vec<u32> {
    let IpAddr::V4(ip) = ip.to_canonical() else {
        return Vec::new();
    };
    let [a, b, c, _] = ip.octets();
    let mut set = Vec::new();
    let mut hash: [u8; 20] = Sha1::new()
        .chain_update([a, b, c, 0])
        .chain_update(info_hash.0)
        .finalize()
        .into();
    while set.len() < PIECES.min(pieces as usize) {
        for number in hash.chunks_exact(4) {
            let number = number.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
            let piece = number % pieces;
            if set.len() < PIECES && !set.contains(&piece) {
                set.push(piece);
            }
        }
        hash = Sha1::digest(hash).into();
    }
    set
}

/// What one peer may still ask for while it is choked.
#[derive(Debug, Default)]
pub(super) struct AllowedFast {
    pieces: HashSet<u32>,
    bytes: u64,
}

impl AllowedFast {
    /// These pieces, each once. `piece_length`: bytes of each.
    pub(super) fn new(pieces: &[u32], piece_length: u32) -> Self {
        Self {
            pieces: pieces.iter().copied().collect(),
            bytes: pieces.len() as u64 * u64::from(piece_length),
        }
    }

    /// Whether a request of a choked peer may be served, which is counted then.
    pub(super) fn admit(&mut self, request: WireRequest) -> bool {
        let bytes = u64::from(request.length);
        let admitted = self.pieces.contains(&request.piece) && bytes <= self.bytes;
        if admitted {
            self.bytes -= bytes;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_that_of_bep_6() {
        let set = allowed_fast("80.4.4.200".parse().unwrap(), InfoHash([0xaa; 20]), 1313);
        // The example of the BEP, whose longer set has nine.
        let drawn = [1059, 431, 808, 1217, 287, 376, 1188, 353, 508];
        assert_eq!(set[..9], drawn);
        let mapped = "::ffff:80.4.4.1".parse().unwrap();
        assert_eq!(allowed_fast(mapped, InfoHash([0xaa; 20]), 1313), set);
        let few = allowed_fast("1.2.3.4".parse().unwrap(), InfoHash([1; 20]), 3);
        assert_eq!(few.len(), 3);
    }

    #[test]
    fn each_byte_is_given_once() {
        let mut allowed = AllowedFast::new(&[4, 9], 32_768);
        let request = |piece| WireRequest {
            piece,
            begin: 0,
            length: 16_384,
        };
        assert!(!allowed.admit(request(5)));
        let admitted = (0..100).filter(|_| allowed.admit(request(4))).count();
        assert_eq!(admitted, 4);
        assert!(!allowed.admit(request(9)));
    }
}
