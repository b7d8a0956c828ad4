//! Invariant: a token is good only for the IP address that it was given to, for five to ten minutes (BEP 5).

use std::net::IpAddr;
use std::time::Duration;

use sha1::{Digest, Sha1};

use crate::clock::Time;

const ROTATION: Duration = Duration::from_secs(300);

/// Proofs that whoever announces a peer receives at its address. Nothing is kept of them.
#[derive(Debug)]
pub(super) struct Tokens {
    secret: [u8; 20],
    before: [u8; 20],
    changed: Time,
}

impl Tokens {
    pub(super) fn new(now: Time, secret: [u8; 20]) -> Self {
        Self {
            secret,
            before: secret,
            changed: now,
        }
    }

    /// Chooses the next secret when it is time to.
    pub(super) fn rotate(&mut self, now: Time, chance: impl FnOnce() -> [u8; 20]) {
        if now.since(self.changed) >= ROTATION {
            self.before = std::mem::replace(&mut self.secret, chance());
            self.changed = now;
        }
    }

    pub(super) fn give(&self, ip: IpAddr) -> Vec<u8> {
        token(&self.secret, ip)
    }

    pub(super) fn is_good(&self, ip: IpAddr, given: &[u8]) -> bool {
        given == token(&self.secret, ip) || given == token(&self.before, ip)
    }
}

fn token(secret: &[u8; 20], ip: IpAddr) -> Vec<u8> {
    let mut hash = Sha1::new();
    hash.update(secret);
    match ip {
        IpAddr::V4(ip) => hash.update(ip.octets()),
        IpAddr::V6(ip) => hash.update(ip.octets()),
    }
    hash.finalize()[..8].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_address_and_for_a_while() {
        let at = |seconds| Time::from_start(Duration::from_secs(seconds));
        let (one, two) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let mut tokens = Tokens::new(at(0), [1; 20]);
        let token = tokens.give(one);
        assert!(tokens.is_good(one, &token) && !tokens.is_good(two, &token));
        assert!(!tokens.is_good(one, b"") && !tokens.is_good(one, &token[..7]));
        tokens.rotate(at(299), || [2; 20]);
        tokens.rotate(at(300), || [3; 20]);
        assert!(tokens.is_good(one, &token));
        assert_ne!(tokens.give(one), token);
        tokens.rotate(at(600), || [4; 20]);
        assert!(!tokens.is_good(one, &token));
    }
}
