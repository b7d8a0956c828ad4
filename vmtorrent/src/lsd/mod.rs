//! Local service discovery (BEP 14): peers on the same network find each other by multicast, without a tracker.
//!
//! What is said when ([`schedule`]), how it looks on the wire ([`message`]) and over which interfaces ([`interfaces`])
//! is plain data; [`discovery`] adds sockets and timers.
//!
//! Not `librqbit-lsd`: it reads the list of interfaces once, passes over IPv4 addresses that are not private, stops
//! listening at the first error of its socket, queues what it hears without bound, answers each second where BEP 14
//! allows one announce a minute, and believes any sender, on the link or not.

mod discovery;
mod interfaces;
mod message;
mod schedule;
mod sockets;

pub(crate) use discovery::{LocalDiscovery, Registration};
