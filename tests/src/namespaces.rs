//! Invariant: what is made here is gone when it is dropped, and nothing outside of it is touched.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{command, require};

/// Two hosts, each in a network namespace of its own, joined by one cable: no other network, no way out.
#[derive(Debug)]
pub struct Namespaces {
    names: [String; 2],
}

impl Namespaces {
    /// The addresses of the two.
    pub const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

    /// Makes them; `None` (and it is said) where that is not possible.
    ///
    /// # Panics
    /// If the cable can't be laid although the namespaces could be made.
    pub fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |host| format!("vmt-{}-{number}-{host}", std::process::id());
        let names = ["a", "b"].map(name);
        let made = names.iter().all(|name| ip(&["netns", "add", name]));
        let namespaces = Self { names };
        let nsenter = Path::new("/usr/bin/nsenter").exists();
        if !require(made && nsenter, "network namespaces (root, ip, nsenter)") {
            return None;
        }
        let [a, b] = &namespaces.names;
        let cable = [
            "link", "add", "veth0", "netns", a, "type", "veth", "peer", "name", "veth0",
        ];
        assert!(ip(&[&cable[..], &["netns", b]].concat()));
        for (name, address) in namespaces.names.iter().zip(Self::ADDRESSES) {
            let address = format!("{address}/24");
            assert!(ip(&[
                "-n", name, "address", "add", &address, "dev", "veth0"
            ]));
            assert!(ip(&["-n", name, "link", "set", "veth0", "up"]));
            assert!(ip(&["-n", name, "link", "set", "lo", "up"]));
        }
        Some(namespaces)
    }

    /// Takes the IPv4 addresses away; false (and it is said) where there is no IPv6 that could be used instead.
    pub fn only_ipv6(&self) -> bool {
        let has_ipv6 = |name: &String| {
            ip(&["-n", name, "-4", "address", "flush", "dev", "veth0"])
                && Command::new("ip")
                    .args(["-n", name, "-6", "-o", "address", "show", "dev", "veth0"])
                    .output()
                    .is_ok_and(|output| !output.stdout.is_empty())
        };
        require(self.names.iter().all(has_ipv6), "IPv6")
    }

    /// A command line that starts with `vmtorrent`, run on one of the two hosts.
    pub fn command(&self, host: usize) -> Command {
        self.run(host, command().get_program())
    }

    /// A command line that starts with this program, run on one of the two hosts.
    pub fn run(&self, host: usize, program: impl AsRef<OsStr>) -> Command {
        let mut inside = Command::new("nsenter");
        inside
            .arg(format!("--net=/run/netns/{}", self.names[host]))
            .arg(program);
        inside
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&["netns", "delete", name]);
        }
    }
}

/// Whether `ip` did it.
fn ip(arguments: &[&str]) -> bool {
    let output = Command::new("ip").args(arguments).output();
    match output {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            eprintln!(
                "ip {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            false
        }
        Err(error) => {
            eprintln!("ip: {error}");
            false
        }
    }
}
