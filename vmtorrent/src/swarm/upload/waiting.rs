//! Invariant: a request stands in `places`, and either in `order` at its place or in `held`.

use std::collections::{BTreeMap, BTreeSet};

use super::urgent_budget::UrgentBudget;
use crate::swarm::wire::WireRequest;

/// One peer.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The requests in their order.
    pub(super) order: BTreeMap<Place, WireRequest>,
    pub(super) places: BTreeMap<WireRequest, Place>,
    /// Those of them that are held, not in `order`, because others were just given the same.
    pub(super) held: BTreeSet<WireRequest>,
    pub(super) budget: UrgentBudget,
    /// Bytes handed to the peer's writer that it has not sent.
    pub(super) sending: u64,
    /// Bytes beyond its share that it got.
    pub(super) debt: u64,
    /// Since when it waits for nothing, as a value of `share`.
    pub(super) away_since: Option<u64>,
    pub(super) in_turn: bool,
    pub(super) lane: Lane,
    /// Whether it was counted as busy.
    pub(super) busy: bool,
}

/// Where a peer's urgent requests stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// It has none, or no room.
    Out,
    /// In `urgent`.
    In,
    /// In `spent`.
    Spent,
}

/// Where a request stands among those of its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// 0: urgent; then by how many have the piece; last all others.
    pub(super) class: u8,
    /// By when it came.
    pub(super) number: u64,
}

pub(super) const URGENT: u8 = 0;

impl Waiting {
    pub(super) fn new(budget: UrgentBudget) -> Self {
        Self {
            order: BTreeMap::new(),
            places: BTreeMap::new(),
            held: BTreeSet::new(),
            budget,
            sending: 0,
            debt: 0,
            away_since: None,
            in_turn: false,
            lane: Lane::Out,
            busy: false,
        }
    }

    pub(super) fn put(&mut self, place: Place, request: WireRequest) {
        self.order.insert(place, request);
        self.places.insert(request, place);
    }

    pub(super) fn take(&mut self, request: &WireRequest) -> Option<Place> {
        let place = self.places.remove(request)?;
        self.order.remove(&place);
        self.held.remove(request);
        Some(place)
    }

    /// A request does not wait in its place for a while.
    pub(super) fn hold(&mut self, request: WireRequest) {
        if let Some(place) = self.places.get(&request) {
            self.order.remove(place);
            self.held.insert(request);
        }
    }

    pub(super) fn release(&mut self, request: WireRequest) {
        if self.held.remove(&request)
            && let Some(place) = self.places.get(&request)
        {
            self.order.insert(*place, request);
        }
    }

    pub(super) fn first_urgent(&self) -> Option<WireRequest> {
        let (place, request) = self.order.first_key_value()?;
        (place.class == URGENT).then_some(*request)
    }

    /// The first request. The class of its piece is looked at again: pieces become more common while a request
    /// waits, and a request moves down then. One whose piece has become rarer stays where it is.
    pub(super) fn first(&mut self, class: impl Fn(u32) -> u8) -> Option<WireRequest> {
        loop {
            let (place, request) = self.order.first_key_value()?;
            let (place, request) = (*place, *request);
            let current = class(request.piece);
            if place.class == URGENT || current <= place.class {
                return Some(request);
            }
            self.order.remove(&place);
            self.put(
                Place {
                    class: current,
                    ..place
                },
                request,
            );
        }
    }
}
