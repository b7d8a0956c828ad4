//! Invariant: a host's directories lie below one root, so that hosts share only what a test makes them share.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Daemon, Node};

/// The directories of one simulated host.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// A host below `root/name`, with a mount point.
    ///
    /// # Panics
    /// If the directories can't be made.
    pub fn new(root: &Path, name: &str) -> Self {
        let root = root.join(name);
        std::fs::create_dir_all(root.join("mnt")).unwrap();
        Self { root }
    }

    /// Where the image appears.
    pub fn mount(&self) -> PathBuf {
        self.root.join("mnt")
    }

    /// What the guest wrote.
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Downloaded copies.
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// The downloaded copy of one file of an image.
    pub fn copy(&self, info_hash: &str, file: &str) -> PathBuf {
        self.cache().join(info_hash).join("data").join(file)
    }

    /// A launch that shares nothing with other hosts and looks for no peers.
    pub fn launch(&self, torrent: &Path) -> Launch {
        self.launch_with(crate::command(), torrent, "127.0.0.1:0")
    }

    /// The same on a host of a test network, with its decisions logged. The source may be a magnet link too.
    pub fn launch_on(&self, node: &Node, source: &Path) -> Launch {
        let mut command = crate::command();
        command.env("RUST_LOG", crate::LOG);
        let mut launch = self.launch_with(command, source, &node.at(0));
        launch.node = Some(node.clone());
        launch
    }

    /// The same with this command in place of `vmtorrent`, listening on this address.
    pub fn launch_with(&self, mut command: Command, torrent: &Path, listen: &str) -> Launch {
        command
            .arg("launch")
            .arg(torrent)
            .args(["--json", "--listen", listen])
            .arg("--mount")
            .arg(self.mount())
            .arg("--state")
            .arg(self.state());
        Launch {
            command,
            mount: self.mount(),
            cache: self.cache(),
            discovery: false,
            local_discovery: false,
            vmm: Vec::new(),
            node: None,
            descriptors: None,
        }
    }
}

/// A `vmtorrent launch` command line in the making.
#[derive(Debug)]
pub struct Launch {
    command: Command,
    mount: PathBuf,
    cache: PathBuf,
    discovery: bool,
    local_discovery: bool,
    vmm: Vec<String>,
    node: Option<Node>,
    descriptors: Option<String>,
}

impl Launch {
    /// Adds a peer.
    #[must_use]
    pub fn peer(self, address: &str) -> Self {
        self.option("--peer", address)
    }

    /// Sets what is fetched in the background.
    #[must_use]
    pub fn fill(self, fill: &str) -> Self {
        self.option("--fill", fill)
    }

    /// Adds an option with a value.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.arg(name).arg(value);
        self
    }

    /// Adds an option without a value.
    #[must_use]
    pub fn flag(mut self, name: &str) -> Self {
        self.command.arg(name);
        self
    }

    /// Uses another host's cache.
    #[must_use]
    pub fn cache(mut self, cache: PathBuf) -> Self {
        self.cache = cache;
        self
    }

    /// Asks the torrent's trackers for peers.
    #[must_use]
    pub fn discovery(mut self) -> Self {
        self.discovery = true;
        self
    }

    /// Looks for peers on the local network, and asks the trackers.
    #[must_use]
    pub fn local_discovery(mut self) -> Self {
        self.local_discovery = true;
        self.discovery()
    }

    /// Starts this VMM.
    #[must_use]
    pub fn vmm(mut self, words: &[&str]) -> Self {
        self.vmm = words.iter().map(|w| (*w).to_owned()).collect();
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Lets it have no more files and sockets open at once.
    #[must_use]
    pub fn descriptors(mut self, limit: impl std::fmt::Display) -> Self {
        self.descriptors = Some(limit.to_string());
        self
    }

    /// Starts it without waiting.
    ///
    /// # Panics
    /// If it can't be started.
    pub fn spawn(mut self) -> Daemon {
        self.command.arg("--cache").arg(self.cache);
        if !self.discovery {
            self.command.arg("--no-discovery");
        }
        // Tests that run at the same time may use the same image.
        if !self.local_discovery {
            self.command.arg("--no-lsd");
        }
        if !self.vmm.is_empty() {
            self.command.arg("--").args(self.vmm);
        }
        if let Some(limit) = self.descriptors {
            self.command = crate::binary::with_descriptors(&self.command, limit);
        }
        let start = || Daemon::spawn(self.command, &[&self.mount]);
        match &self.node {
            Some(node) => node.run(start),
            None => start(),
        }
    }

    /// Starts it and waits until the image can be opened.
    ///
    /// # Panics
    /// If it does not get ready.
    pub fn start(self) -> Daemon {
        let daemon = self.spawn();
        daemon.wait_event("ready");
        daemon
    }
}
