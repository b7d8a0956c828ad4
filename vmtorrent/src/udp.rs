//! UDP sockets beside the listener. Invariant: what is bound here takes datagrams of one family only, on the addresses
//! on which the listener takes peers of that family.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

/// A socket of a family: where our peers connect, under the same number if it is free, so that one rule of a firewall
/// is enough.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] where the listener takes no peers of that family, and those of the system.
pub(crate) fn bind_beside(listener: SocketAddr, six: bool) -> io::Result<UdpSocket> {
    let ip = if listener.is_ipv6() == six {
        listener.ip()
    } else if listener.ip() == Ipv6Addr::UNSPECIFIED {
        // It takes peers of both families.
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let open = |port| {
        let address = SocketAddr::new(ip, port);
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
        if six {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        UdpSocket::from_std(socket.into())
    };
    open(listener.port()).or_else(|_| open(0))
}
