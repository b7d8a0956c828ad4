//! Invariant: the port of local discovery is shared with every program that shares it, and where it can't be had we
//! announce without listening; nothing of that is an error for the session.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, InterfaceIndexOrAddress, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use super::interfaces::Interface;

const PORT: u16 = 6771;
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 192, 152, 143);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f);

/// A socket of one family, in the multicast group on as many interfaces as the system allows.
#[derive(Debug)]
pub(super) struct GroupSocket {
    socket: UdpSocket,
    joined: HashSet<u32>,
    v6: bool,
}

impl GroupSocket {
    /// Opens a socket; it is in no group yet. `None` when the system has no such family.
    pub(super) fn open(v6: bool) -> Option<Self> {
        let any: IpAddr = if v6 {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        let opened = bind(SocketAddr::new(any, PORT)).or_else(|error| {
            tracing::info!(
                %error,
                "UDP port {PORT} can't be shared: peers on the local network are told of us, but we don't hear of them"
            );
            bind(SocketAddr::new(any, 0))
        });
        match opened {
            Ok(socket) => Some(Self {
                socket,
                joined: HashSet::new(),
                v6,
            }),
            Err(error) => {
                tracing::debug!(%error, v6, "no socket for local discovery");
                None
            }
        }
    }

    /// Joins the group on interfaces that are new.
    pub(super) fn join(&mut self, interfaces: &[Interface]) {
        let here: HashSet<u32> = interfaces
            .iter()
            .filter(|i| i.ip.is_ipv6() == self.v6)
            .map(|i| i.index)
            .collect();
        // The system leaves the group by itself on what is gone.
        self.joined.retain(|index| here.contains(index));
        let socket = SockRef::from(&self.socket);
        for index in here {
            if self.joined.contains(&index) {
                continue;
            }
            let result = if self.v6 {
                socket.join_multicast_v6(&GROUP_V6, index)
            } else {
                socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index))
            };
            match result {
                Ok(()) => {}
                // We are in it already.
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => {
                    tracing::debug!(%error, index, "can't join the group of local discovery");
                    continue;
                }
            }
            self.joined.insert(index);
        }
    }

    /// The group, as it stands in an announce.
    pub(super) fn group(&self) -> SocketAddr {
        if self.v6 {
            (GROUP_V6, PORT).into()
        } else {
            (GROUP_V4, PORT).into()
        }
    }

    /// Sends over one interface of this family; whether it went out.
    pub(super) fn send(&self, interface: &Interface, datagram: &[u8]) -> bool {
        let socket = SockRef::from(&self.socket);
        let chosen = match interface.ip {
            IpAddr::V4(ip) if !self.v6 => socket.set_multicast_if_v4(&ip),
            IpAddr::V6(_) if self.v6 => socket.set_multicast_if_v6(interface.index),
            _ => return false,
        };
        // A full buffer loses it; so may any network. Past tokio, which takes a new socket for a full one at first.
        let sent = chosen.and_then(|()| socket.send_to(datagram, &self.group().into()));
        if let Err(error) = sent {
            tracing::debug!(%error, interface = %interface.ip, "an announce of local discovery was not sent");
            return false;
        }
        true
    }

    /// The next datagram.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(buffer).await
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}
