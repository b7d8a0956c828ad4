//! Invariant: nothing of a network outlives the test process: each namespace is held by a process that ends when its
//! standard input does. There is no way out of it, so no test traffic reaches another network.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::require;

/// An Ethernet switch with hosts, each of which is a network namespace with an address of its own.
///
/// Some clients refuse peers on loopback addresses, or a second peer at one address; here all look as they do on a
/// network. Ports are free, so tests may choose them.
#[derive(Debug)]
pub struct Network {
    switch: Arc<Namespace>,
    hosts: Cell<u8>,
}

/// A host in a [`Network`].
#[derive(Clone, Debug)]
pub struct Node {
    address: Ipv4Addr,
    namespace: Arc<Namespace>,
    /// Without it there is no network.
    _switch: Arc<Namespace>,
}

impl Network {
    /// A network without hosts; `None`, and said so, where this machine can't have one.
    ///
    /// # Panics
    /// If it can't be made though the machine can have one, or `VMTORRENT_REQUIRE` is set and it can't.
    pub fn new() -> Option<Self> {
        let made = Command::new("unshare")
            .args(["--net", "ip", "link", "add", "type", "veth"])
            .stderr(Stdio::null())
            .status();
        if !require(
            made.is_ok_and(|status| status.success()),
            "network namespaces (root, iproute2)",
        ) {
            return None;
        }
        let switch = Namespace::new(
            "ip link add switch type bridge forward_delay 0 && ip link set switch up",
        );
        Some(Self {
            switch: Arc::new(switch),
            hosts: Cell::new(0),
        })
    }

    /// Adds a host.
    ///
    /// # Panics
    /// If it can't be made.
    pub fn host(&self) -> Node {
        let number = self.hosts.get() + 1;
        self.hosts.set(number);
        let address = Ipv4Addr::new(10, 99, 0, number);
        let switch = self.switch.holder.id();
        let namespace = Namespace::new(&format!(
            "ip link set lo up
            ip link add eth0 type veth peer name port{number} netns {switch}
            ip address add {address}/24 dev eth0
            ip link set eth0 up
            nsenter --net=/proc/{switch}/ns/net ip link set port{number} master switch up"
        ));
        Node {
            address,
            namespace: Arc::new(namespace),
            _switch: self.switch.clone(),
        }
    }
}

impl Node {
    /// Its address.
    pub fn ip(&self) -> Ipv4Addr {
        self.address
    }

    /// Its address with a port.
    pub fn at(&self, port: u16) -> String {
        format!("{}:{port}", self.address)
    }

    /// Lets no TCP out to other hosts any more, so that no connection with one of them comes about, whoever begins.
    ///
    /// # Panics
    /// If the host can't be told so.
    pub fn without_tcp(&self) {
        let rule = ["rule", "add", "pref", "1", "ipproto", "tcp", "prohibit"];
        let added = self.run(|| Command::new("ip").args(rule).status());
        assert!(added.is_ok_and(|status| status.success()));
    }

    /// Does something on this host: processes that are started and sockets that are opened belong to it.
    ///
    /// # Panics
    /// If `what` panics, or the namespace can't be entered.
    pub fn run<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        // A thread can go to another namespace alone, and this one never comes back.
        std::thread::scope(|scope| {
            let visitor = scope.spawn(|| {
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.namespace.file.as_fd(), network).unwrap();
                what()
            });
            visitor
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

#[derive(Debug)]
struct Namespace {
    holder: Child,
    file: File,
}

impl Namespace {
    /// A network namespace in which `script` was run.
    fn new(script: &str) -> Self {
        // `cat` ends with the pipe, whatever ends the test.
        let script = format!("set -e\n{script}\necho ready\nexec cat");
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let told = holder.stdout.as_mut().unwrap();
        BufReader::new(told).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "a network namespace can't be made");
        let file = File::open(format!("/proc/{}/ns/net", holder.id())).unwrap();
        Self { holder, file }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn hosts_reach_each_other_under_their_own_addresses_and_nobody_else() {
        let Some(network) = Network::new() else {
            return;
        };
        let (one, two) = (network.host(), network.host());
        let listener = one.run(|| TcpListener::bind(one.at(6881)).unwrap());
        let mut stream = two.run(|| TcpStream::connect(one.at(6881)).unwrap());
        let (mut accepted, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), two.ip());
        stream.write_all(b"x").unwrap();
        accepted.read_exact(&mut [0]).unwrap();

        let outside = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = outside.local_addr().unwrap();
        assert!(two.run(|| TcpStream::connect(address)).is_err());
        assert!(two.run(|| TcpStream::connect("192.0.2.1:80")).is_err());
    }
}
