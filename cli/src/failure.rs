//! Invariant: a failure is one message that names the thing and what to do about it.

use std::error::Error as _;
use std::fmt;
use std::io;

use vmtorrent::{Error, ErrorKind};

/// Why a command failed, as it is shown to a person.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// A failure of this program's own.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Error> for Failure {
    /// The library's messages end with the remedy, except where the cause is the system's own: then it is added.
    fn from(error: Error) -> Self {
        let from_system = error.source().is_some_and(|s| s.is::<io::Error>());
        match remedy(error.kind()) {
            Some(remedy) if from_system => Self(format!("{error} ({remedy})")),
            _ => Self(error.to_string()),
        }
    }
}

fn remedy(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::NotFound => "check the name",
        ErrorKind::PermissionDenied => "change its permissions, or run as a user who has them",
        ErrorKind::InUse => "end what holds it, or choose another",
        ErrorKind::NoSpace => "free some space and try again; what was flushed is safe",
        ErrorKind::Network => "check the address and the network, then try again",
        ErrorKind::TimedOut => "check that a peer has the data, then try again",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_system_error_gets_a_remedy_and_others_stay_as_they_are() {
        let bare = Error::io("open a.torrent", io::Error::from(io::ErrorKind::NotFound));
        let message = Failure::from(bare).to_string();
        assert!(message.starts_with("open a.torrent: "), "{message}");
        assert!(message.ends_with("(check the name)"), "{message}");
        let full = Error::new(
            ErrorKind::InUse,
            "held by 7: name another with the option `state`",
        );
        assert_eq!(
            Failure::from(full).to_string(),
            "held by 7: name another with the option `state`"
        );
    }
}
