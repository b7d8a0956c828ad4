//! Invariant: HTTP and UDP differ in how an announce travels, in nothing else: what is announced, when and to whom
//! is decided above.

use std::fmt;
use std::time::Duration;

use url::Url;

use super::announce::{Announce, AnnounceAnswer, MAX_ANSWER_BYTES};
use super::udp::UdpTransport;
use crate::http::HttpClient;
use crate::{Error, ErrorKind, Result};

/// The ways to a tracker.
#[derive(Debug)]
pub(super) struct Transports {
    http: HttpClient,
    udp: UdpTransport,
}

impl Transports {
    /// `seed`: what the numbers of UDP requests start from.
    pub(super) fn new(http: HttpClient, seed: u64) -> Self {
        Self {
            http,
            udp: UdpTransport::new(seed),
        }
    }

    /// Announces to a tracker, by the scheme of its URL, within `timeout`.
    ///
    /// The errors tell the cause and the remedy but not the URL, which may hold a secret.
    pub(super) async fn announce(
        &self,
        tracker: &Url,
        announce: Announce,
        timeout: Duration,
    ) -> Result<AnnounceAnswer> {
        match tracker.scheme() {
            "udp" => self.udp.announce(tracker, announce, timeout).await,
            _ => self.announce_by_http(tracker, &announce, timeout).await,
        }
    }

    async fn announce_by_http(
        &self,
        tracker: &Url,
        announce: &Announce,
        timeout: Duration,
    ) -> Result<AnnounceAnswer> {
        let url = announce.url(tracker);
        let answer = self
            .http
            .get_directly(url, MAX_ANSWER_BYTES, timeout)
            .await?;
        let parsed = AnnounceAnswer::parse(&answer.body);
        if answer.status.is_success() {
            return parsed;
        }
        // The body may say why.
        let why = match parsed {
            Err(e) => e.to_string(),
            Ok(_) => "check its URL".to_owned(),
        };
        Err(Error::new(
            ErrorKind::Network,
            format!("the tracker answered with {}: {why}", answer.status),
        ))
    }
}

/// Why a question was not answered: it had been sent, and the answer did not come.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerLost;

impl AnswerLost {
    /// Whether the tracker may have heard the question that ended so. It has not if it was never reached, and it counts
    /// for nothing if it refused.
    pub(super) fn is_why(error: &Error) -> bool {
        std::error::Error::source(error).is_some_and(|source| {
            let http = source.downcast_ref::<reqwest::Error>();
            source.is::<Self>() || http.is_some_and(|e| !e.is_connect())
        })
    }
}

impl fmt::Display for AnswerLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the question may have arrived")
    }
}

impl std::error::Error for AnswerLost {}
