//! Invariant: a reason tells what the server did and never a secret that its URL may hold.

use std::fmt;
use std::time::Duration;

use url::Url;

/// Why a web server gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    pub(super) reason: String,
    /// How long it asked to be left alone.
    pub(super) retry_after: Option<Duration>,
}

/// Whether it is worth trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// It could not be reached, broke off or was too slow: the next connection may fare better.
    Broken,
    /// It has no time for us.
    Busy,
    /// The server does not have it, or does not give it to us. It may when somebody puts it there.
    Refused,
    /// What is there is not what the image needs, or can't be had in parts.
    Useless,
}

impl Failure {
    pub(super) fn broken(reason: impl Into<String>) -> Self {
        Self::new(FailureKind::Broken, reason)
    }

    pub(super) fn busy(reason: impl Into<String>) -> Self {
        Self::new(FailureKind::Busy, reason)
    }

    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self::new(FailureKind::Refused, reason)
    }

    pub(super) fn useless(reason: impl Into<String>) -> Self {
        Self::new(FailureKind::Useless, reason)
    }

    fn new(kind: FailureKind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
            retry_after: None,
        }
    }

    pub(super) fn retry_after(mut self, time: Option<Duration>) -> Self {
        self.retry_after = time;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_redirect() {
            return Self::useless(last_cause(&error));
        }
        if error.is_builder() {
            return Self::useless(format!("its URL can't be used: {}", last_cause(&error)));
        }
        if error.is_timeout() {
            return Self::broken("it could not be reached in time");
        }
        Self::broken(format!(
            "it could not be reached or broke off: {}",
            last_cause(&error)
        ))
    }
}

/// What is at the bottom of an error: the layers above it only say where.
fn last_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The URL of a web seed as it may be shown: a user name, a password and a query are left out, since they may be secret.
pub(in crate::swarm) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // They fail only where there can be none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if url.query().is_some() {
        url.set_query(Some("..."));
    }
    url.set_fragment(None);
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_url_are_not_shown() {
        let url = Url::parse("https://me:pass@h:8443/a/b?signature=xyz#f").unwrap();
        assert_eq!(shown(&url), "https://h:8443/a/b?...");
        let url = Url::parse("http://h/a").unwrap();
        assert_eq!(shown(&url), "http://h/a");
    }
}
