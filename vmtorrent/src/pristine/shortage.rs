//! Invariant: a shortage is told once, until the disk takes pieces again or fails in another way.

use std::fmt;

use crate::{Error, ErrorKind};

/// Why the disk takes no more pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// It is full.
    DiskFull {
        /// What the system says, and of which file.
        reason: String,
    },
    /// The copy has reached what the session lets it take.
    Bound {
        /// Bytes.
        limit: u64,
    },
    /// It fails in another way.
    Failing {
        /// What the system says, and of which file.
        reason: String,
    },
}

impl Shortage {
    pub(super) fn from_error(error: Error) -> Self {
        let reason = error.to_string();
        match error.kind() {
            ErrorKind::NoSpace => Self::DiskFull { reason },
            _ => Self::Failing { reason },
        }
    }

    /// Whether one is of the same kind; they may name different places.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskFull { reason } | Self::Failing { reason } => f.write_str(reason),
            Self::Bound { limit } => write!(f, "the bound of {limit} bytes is reached"),
        }
    }
}
