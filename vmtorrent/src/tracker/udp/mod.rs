//! Trackers over UDP (BEP 15, and BEP 41 for what stands behind the port in the URL).
//!
//! Invariant: what is said and how often is decided in [`exchange`] without I/O; here are only sockets and timers.

mod exchange;
mod packet;
mod service;
mod transport;

pub(super) use service::{Desk, MAX_REQUEST, UdpService};
pub(super) use transport::UdpTransport;
