//! What came of a run. Invariant: it holds nothing that depends on the machine that ran it.

use serde::{Deserialize, Serialize};

/// What one guest saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuestOutcome {
    /// Which kind of line it had.
    pub class: usize,
    /// When it came, seconds.
    pub arrived: f64,
    /// Seconds until it had read everything; none if it never had.
    pub took: Option<f64>,
    /// Seconds of that during which it waited for pieces.
    pub stalled: f64,
    /// Its host vanished before.
    pub vanished: bool,
    /// Its host let nobody request.
    pub free_rider: bool,
    /// Bytes received and kept, by band: demand, read-ahead, profile, background.
    pub fetched: [u64; 4],
    /// Bytes received in vain.
    pub wasted: u64,
    /// Bytes of blocks sent.
    pub uploaded: u64,
    /// The longest time that a packet waited for the line into it, seconds.
    pub longest_queue: f64,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Bytes that one guest needs: F.
    pub needed: u64,
    /// Seconds that a guest takes if no read takes any time.
    pub guest_time: f64,
    /// Bytes of blocks that the seed sent.
    pub seed_uploaded: u64,
    /// Bytes per second out of the seed.
    pub seed_rate: f64,
    /// Virtual seconds.
    pub lasted: f64,
    /// Each guest, in the order of their coming.
    pub guests: Vec<GuestOutcome>,
}

/// The figures of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Guests whose host stayed.
    pub guests: usize,
    /// Those of them that had not read everything when the run was given up.
    pub unfinished: usize,
    /// Seconds that a guest alone takes, by kind of line.
    pub alone: Vec<f64>,
    /// Time of a guest over that of one alone on the same line: median, 95th percentile, slowest. Without free-riders.
    pub slowdown: Spread,
    /// The same of free-riders, if there are any.
    pub free_riders: Option<Spread>,
    /// The same in seconds, of all.
    pub seconds: Spread,
    /// Bytes of blocks that the seed sent, over F.
    pub seed_upload: f64,
    /// Bytes that guests received and kept, over F, in the mean.
    pub fetched: f64,
    /// Bytes that guests received in vain, over F, in the mean.
    pub wasted: f64,
    /// Part of what was fetched, by band: demand, read-ahead, profile, background.
    pub bands: [f64; 4],
    /// Seconds that the fluid bound allows for all to have F if all came at once.
    pub bound: f64,
    /// The longest time that a packet waited for the line into a guest, seconds: median and worst of the guests.
    pub queue: Spread,
}

/// The middle and the end of a distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// Of these values; zeros of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        // The smallest value that so large a part does not exceed.
        let at = |part: f64| {
            let rank = (values.len() as f64 * part).ceil() as usize;
            values
                .get(rank.saturating_sub(1))
                .copied()
                .unwrap_or_default()
        };
        Self {
            p50: at(0.5),
            p95: at(0.95),
            max: at(1.0),
        }
    }
}

/// The least time in which a seed and N peers can bring F bytes to each of the peers, seconds: max{F/u_s, F/d,
/// N F/(u_s + sum of u_i)} (R. Kumar, K. W. Ross: *Peer-Assisted File Distribution: The Minimum Distribution Time*, IEEE
/// HotWeb 2006). Rates are bytes per second; each peer is its rates up and down.
pub fn fluid_bound(needed: f64, seed: f64, peers: &[(f64, f64)]) -> f64 {
    let slowest = peers
        .iter()
        .map(|(_, down)| *down)
        .fold(f64::INFINITY, f64::min);
    let all = seed + peers.iter().map(|(up, _)| *up).sum::<f64>();
    (needed / seed)
        .max(needed / slowest)
        .max(peers.len() as f64 * needed / all)
}

impl Outcome {
    /// The figures, with the seconds that a guest alone takes on each kind of line and the rates of each kind up and
    /// down. A guest that was not done counts as if it had been done at the end.
    pub fn figures(&self, alone: &[f64], rates: &[(f64, f64)]) -> Figures {
        let stayed: Vec<&GuestOutcome> = self.guests.iter().filter(|g| !g.vanished).collect();
        let took = |g: &GuestOutcome| g.took.unwrap_or(self.lasted - g.arrived);
        let slowdown = |g: &GuestOutcome| took(g) / alone[g.class];
        let all = || stayed.iter().copied();
        let free: Vec<f64> = all().filter(|g| g.free_rider).map(slowdown).collect();
        let needed = self.needed as f64;
        let count = stayed.len().max(1) as f64;
        let of_band = |band: usize| stayed.iter().map(|g| g.fetched[band] as f64).sum::<f64>();
        let fetched: f64 = (0..4).map(of_band).sum();
        let wasted: f64 = stayed.iter().map(|g| g.wasted as f64).sum();
        let peers: Vec<(f64, f64)> = stayed.iter().map(|g| rates[g.class]).collect();
        Figures {
            guests: stayed.len(),
            unfinished: stayed.iter().filter(|g| g.took.is_none()).count(),
            alone: alone.to_vec(),
            slowdown: Spread::of(all().filter(|g| !g.free_rider).map(slowdown)),
            free_riders: (!free.is_empty()).then(|| Spread::of(free)),
            seconds: Spread::of(all().map(took)),
            seed_upload: self.seed_uploaded as f64 / needed,
            fetched: fetched / count / needed,
            wasted: wasted / count / needed,
            bands: std::array::from_fn(|band| of_band(band) / fetched.max(1.0)),
            bound: fluid_bound(needed, self.seed_rate, &peers),
            queue: Spread::of(stayed.iter().map(|g| g.longest_queue)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_that_of_the_seed_the_slowest_peer_or_all_lines_together() {
        let peers = [(1.0, 10.0); 4];
        assert_eq!(fluid_bound(100.0, 5.0, &peers), 400.0 / 9.0);
        assert_eq!(fluid_bound(100.0, 0.5, &[(100.0, 10.0); 4]), 200.0);
        assert_eq!(fluid_bound(100.0, 50.0, &[(9.0, 10.0), (9.0, 2.0)]), 50.0);
    }

    #[test]
    fn percentiles_are_values_that_were_there() {
        let spread = Spread::of((1..=100).rev().map(f64::from));
        assert_eq!((spread.p50, spread.p95, spread.max), (50.0, 95.0, 100.0));
        assert_eq!(Spread::of([]), Spread::default());
        assert_eq!(Spread::of([3.0]).p50, 3.0);
    }
}
