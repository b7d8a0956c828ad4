//! What happens to an engine while its peers send what they like.

use proptest::prelude::*;
use proptest::sample::Index;

use super::PIECES;
use super::extensions::profile_size;
use super::messages::stream;

/// What happens to an engine.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// A peer sends bytes.
    Bytes(Index, Vec<u8>),
    Connect(bool, bool),
    Disconnect(Index),
    Demand(u32),
    ReadAhead(u32),
    Damaged(u32),
    SetFill(u8),
    /// Milliseconds pass.
    Time(u32),
    /// What the engine asked to be sent is sent, or can't be read.
    Sent(bool),
    /// What it asked to be stored is stored, or the disk is full.
    Stored(bool),
    /// What a peer gave as a profile is one, or not.
    Checked(bool),
    WantProfile,
    /// A peer says that it has a profile of this length.
    Offered(Index, u32),
    /// Peers answer what they were asked of a profile, or refuse it: as many of the requests.
    Parts(usize, bool),
    /// There is a text of this length for others.
    OfferProfile(u32),
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (any::<Index>(), stream()).prop_map(|(peer, bytes)| Event::Bytes(peer, bytes)),
        2 => any::<(bool, bool)>().prop_map(|(extended, fast)| Event::Connect(extended, fast)),
        1 => any::<Index>().prop_map(Event::Disconnect),
        4 => (0..PIECES).prop_map(Event::Demand),
        1 => (0..PIECES).prop_map(Event::ReadAhead),
        1 => (0..PIECES).prop_map(Event::Damaged),
        1 => (0..3_u8).prop_map(Event::SetFill),
        4 => prop_oneof![0..50_u32, 0..30_000_u32].prop_map(Event::Time),
        4 => any::<bool>().prop_map(Event::Sent),
        4 => proptest::bool::weighted(0.9).prop_map(Event::Stored),
        1 => any::<bool>().prop_map(Event::Checked),
        1 => Just(Event::WantProfile),
        3 => (any::<Index>(), profile_size()).prop_map(|(peer, size)| Event::Offered(peer, size)),
        3 => (0..8_usize, proptest::bool::weighted(0.8)).prop_map(|(n, well)| Event::Parts(n, well)),
        1 => (0..100_000_u32).prop_map(Event::OfferProfile),
    ]
}
