//! Invariant: an address counts once, by the last thing that happened there.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

/// What came of a peer that might have had the info dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// No connection, or no handshake.
    Unreached,
    /// Connected now, or until the other side closed.
    Answered,
    /// It does not have it, or does not hand it out.
    Without,
    /// It left us without an answer, or gave too little to hold a place.
    Slow,
    /// It broke the protocol, or what it gave has another hash.
    Wrong,
}

/// What was tried.
#[derive(Debug, Default)]
pub(super) struct Report {
    outcomes: HashMap<SocketAddr, Outcome>,
}

impl Report {
    /// More addresses than this are not told apart.
    const CAPACITY: usize = 4096;

    pub(super) fn note(&mut self, address: SocketAddr, outcome: Outcome) {
        let known = self.outcomes.contains_key(&address);
        // A connection that is closed later does not make a peer's answer undone.
        if (known && outcome == Outcome::Unreached && self.answered(address))
            || (!known && self.outcomes.len() >= Self::CAPACITY)
        {
            return;
        }
        self.outcomes.insert(address, outcome);
    }

    fn answered(&self, address: SocketAddr) -> bool {
        self.outcomes
            .get(&address)
            .is_some_and(|o| *o != Outcome::Unreached)
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.outcomes.values().filter(|o| **o == outcome).count()
    }
}

/// In the middle of a sentence.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.outcomes.len();
        if total == 0 {
            return f.write_str("no peer was found");
        }
        let answered = total - self.count(Outcome::Unreached);
        write!(f, "{answered} of {total} peers answered")?;
        let parts = [
            (Outcome::Without, "had no metadata"),
            (Outcome::Slow, "left requests unanswered or were too slow"),
            (Outcome::Wrong, "sent wrong data"),
            (Outcome::Answered, "did not finish"),
        ];
        for (outcome, what) in parts {
            match self.count(outcome) {
                0 => {}
                n => write!(f, ", {n} {what}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_addresses_by_what_happened_last() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut report = Report::default();
        assert_eq!(report.to_string(), "no peer was found");
        report.note(address(1), Outcome::Unreached);
        assert_eq!(report.to_string(), "0 of 1 peers answered");
        report.note(address(1), Outcome::Answered);
        report.note(address(1), Outcome::Without);
        report.note(address(1), Outcome::Unreached);
        report.note(address(2), Outcome::Wrong);
        report.note(address(3), Outcome::Unreached);
        assert_eq!(
            report.to_string(),
            "2 of 3 peers answered, 1 had no metadata, 1 sent wrong data"
        );
    }
}
