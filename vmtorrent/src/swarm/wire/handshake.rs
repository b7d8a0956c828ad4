//! Invariant: a handshake is read only where the protocol is named as BEP 3 says.

use librqbit_core::hash_id::Id20;
use librqbit_peer_protocol::Handshake;

use super::WireError;
use crate::image::InfoHash;

/// Bytes of the opening handshake (BEP 3).
pub(crate) const HANDSHAKE_LENGTH: usize = 68;

/// The last of the reserved bytes, and what its bits say: its sender knows the fast extension (BEP 6), has a node of the
/// DHT (BEP 5).
const LAST_RESERVED: usize = 27;
const FAST_BIT: u8 = 0x04;
const DHT_BIT: u8 = 0x01;

/// The opening handshake, encoded. `dht`: whether peers may tell us of their nodes of the DHT, and we them of ours.
pub(crate) fn encode_handshake(
    info_hash: InfoHash,
    peer_id: [u8; 20],
    dht: bool,
) -> [u8; HANDSHAKE_LENGTH] {
    let mut out = [0; HANDSHAKE_LENGTH];
    let written = Handshake::new(Id20::new(info_hash.0), Id20::new(peer_id))
        .serialize_unchecked_len(&mut out);
    debug_assert_eq!(written, HANDSHAKE_LENGTH);
    out[LAST_RESERVED] |= FAST_BIT;
    if dht {
        out[LAST_RESERVED] |= DHT_BIT;
    }
    out
}

/// What the opening handshake of a peer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerHandshake {
    pub(crate) info_hash: InfoHash,
    pub(crate) peer_id: [u8; 20],
    /// Whether the peer knows extension messages (BEP 10).
    pub(crate) extended: bool,
    /// Whether the peer knows the fast extension (BEP 6).
    pub(crate) fast: bool,
    /// Whether the peer takes PORT messages: it has a node of the DHT (BEP 5).
    pub(crate) dht: bool,
}

/// Reads the opening handshake.
pub(crate) fn decode_handshake(bytes: &[u8; HANDSHAKE_LENGTH]) -> Result<PeerHandshake, WireError> {
    let (handshake, _) = Handshake::deserialize(bytes).map_err(|_| WireError::NotBitTorrent)?;
    Ok(PeerHandshake {
        info_hash: InfoHash(handshake.info_hash.0),
        peer_id: handshake.peer_id.0,
        extended: handshake.supports_extended(),
        fast: bytes[LAST_RESERVED] & FAST_BIT != 0,
        dht: bytes[LAST_RESERVED] & DHT_BIT != 0,
    })
}
