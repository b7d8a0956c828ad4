//! A session's nodes on tokio: sockets, timers, first contacts, and what images are looked for.
//!
//! Invariant: nothing is sent or received before an image is registered, and nothing at all while nobody is known to begin
//! with, be it by name, from an earlier session or from a peer. Peers are looked for only of images that are registered.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::bootstrap;
use super::exchange::{NodeExchange, NodePorts};
use super::id::Id;
use super::message::MAX_DATAGRAM;
use super::node::{Node, NodeConfig, Output};
use super::nodes_file::NodesFile;
use super::socket::Socket;
use crate::clock::{SystemClock, Time};
use crate::image::InfoHash;
#[cfg(feature = "utp")]
use crate::utp::WeakDatagrams;

/// Pause after an error of a socket, so that one that persists is no loop.
const PAUSE: Duration = Duration::from_millis(100);
/// When the nodes are noted for a later session.
const FIRST_NOTE: Duration = Duration::from_secs(20);
const NOTE_EVERY: Duration = Duration::from_secs(300);
/// Nodes that peers tell of and that wait to be asked.
const MAX_TOLD: usize = 64;
/// How long the end may take.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// What a session's nodes are started with.
pub(crate) struct DhtConfig {
    /// Where peers connect to us.
    pub(crate) listener: SocketAddr,
    /// First contacts; `None`: the public ones.
    pub(crate) bootstrap: Option<Vec<String>>,
    /// Where nodes are noted for a later session.
    pub(crate) cache: PathBuf,
    pub(crate) seed: u64,
    /// The session's UDP sockets, if it has any: the nodes share them.
    #[cfg(feature = "utp")]
    pub(crate) shared: Vec<WeakDatagrams>,
}

/// Looks for the peers of a session's images, and tells others of them.
pub(crate) struct Dht {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
    /// Where nodes go that peers tell of, and where they come out, until the task takes it.
    told: mpsc::Sender<SocketAddr>,
    told_to: Mutex<Option<mpsc::Receiver<SocketAddr>>>,
    runtime: Handle,
}

struct Shared {
    config: DhtConfig,
    clock: SystemClock,
    state: Mutex<State>,
    news: Notify,
    /// Where our nodes are.
    ports: watch::Sender<NodePorts>,
}

#[derive(Default)]
struct State {
    images: HashMap<InfoHash, Listener>,
    next: u64,
    ends: bool,
}

struct Listener {
    id: u64,
    found: mpsc::Sender<SocketAddr>,
}

/// An image that is looked for, until this is dropped.
pub(crate) struct Registration {
    shared: Arc<Shared>,
    image: InfoHash,
    id: u64,
}

impl Dht {
    /// Nothing happens before an image is registered.
    pub(crate) fn new(runtime: &Handle, clock: SystemClock, config: DhtConfig) -> Self {
        let (told, told_to) = mpsc::channel(MAX_TOLD);
        Self {
            shared: Arc::new(Shared {
                config,
                clock,
                state: Mutex::default(),
                news: Notify::new(),
                ports: watch::Sender::default(),
            }),
            task: Mutex::new(None),
            told,
            told_to: Mutex::new(Some(told_to)),
            runtime: runtime.clone(),
        }
    }

    /// Looks for an image's peers, which go into `found`, again and again; what does not fit is dropped. Others are told
    /// that we have some of it.
    pub(crate) fn register(
        &self,
        image: InfoHash,
        found: mpsc::Sender<SocketAddr>,
    ) -> Registration {
        let id = {
            let mut state = self.shared.state.lock();
            let id = state.next;
            state.next += 1;
            state.images.insert(image, Listener { id, found });
            id
        };
        if let Some(told) = self.told_to.lock().take() {
            let task = self.runtime.spawn(run(self.shared.clone(), told));
            *self.task.lock() = Some(task);
        }
        self.shared.news.notify_one();
        Registration {
            shared: self.shared.clone(),
            image,
            id,
        }
    }

    /// For a swarm whose peers may tell us of nodes, and be told of ours.
    pub(crate) fn exchange(&self) -> NodeExchange {
        let mut ports = self.shared.ports.subscribe();
        ports.mark_changed();
        let told = self.told.clone();
        NodeExchange { told, ports }
    }

    /// Whether there is anybody to begin with; else nothing is found before a peer tells of a node.
    pub(crate) fn knows_anybody(&self) -> bool {
        let config = &self.shared.config;
        let names = bootstrap::names(config.bootstrap.as_deref(), config.listener);
        !names.is_empty() || NodesFile::new(&config.cache).exists()
    }

    /// Notes the nodes for a later session, and ends.
    pub(crate) async fn stop(&self) {
        self.shared.state.lock().ends = true;
        self.shared.news.notify_one();
        let task = self.task.lock().take();
        if let Some(task) = task {
            let abort = task.abort_handle();
            if tokio::time::timeout(END_PATIENCE, task).await.is_err() {
                abort.abort();
            }
        }
    }
}

impl Drop for Dht {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        // Another one may have taken over the image.
        if state
            .images
            .get(&self.image)
            .is_some_and(|l| l.id == self.id)
        {
            state.images.remove(&self.image);
            drop(state);
            self.shared.news.notify_one();
        }
    }
}

/// A node and its socket.
struct Host {
    node: Node,
    socket: Socket,
    buffer: [u8; MAX_DATAGRAM + 1],
}

impl Host {
    /// `None` where the family can't be used, which is no error: most hosts have one of the two.
    fn open(now: Time, config: &DhtConfig, six: bool) -> Option<Self> {
        let socket = match Socket::open(config, six) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(six, %error, "no node of the DHT");
                return None;
            }
        };
        let seed = config.seed.wrapping_add(six.into());
        let node = NodeConfig {
            // A new one for each session: several may share a cache.
            id: Id(rand::random()),
            six,
            seed,
        };
        Some(Self {
            node: Node::new(now, node),
            socket,
            buffer: [0; MAX_DATAGRAM + 1],
        })
    }
}

/// Ends when it is told to. `told`: nodes that peers tell of.
async fn run(shared: Arc<Shared>, mut told: mpsc::Receiver<SocketAddr>) {
    let names: Arc<[String]> =
        bootstrap::names(shared.config.bootstrap.as_deref(), shared.config.listener).into();
    let file = NodesFile::new(&shared.config.cache);
    let read = file.clone();
    let remembered = tokio::task::spawn_blocking(move || read.read()).await;
    let remembered = remembered.unwrap_or_default();
    let mut first = remembered.clone();
    if names.is_empty() && remembered.is_empty() {
        tracing::debug!(
            "no node of the DHT is known: there is none here before a peer tells of one"
        );
        match shared.first_told(&mut told).await {
            Some(node) => first.push(node),
            None => return,
        }
    }
    let now = shared.clock.now();
    let mut hosts: Vec<Host> = [false, true]
        .into_iter()
        .filter_map(|six| Host::open(now, &shared.config, six))
        .collect();
    for host in &mut hosts {
        if let Ok(address) = host.socket.local_addr() {
            tracing::info!(%address, "a node of the DHT has started");
        }
        // Before that it takes nothing. What fails here fails again when something is sent.
        let _ = host.socket.sender().writable().await;
        host.node.meet(now, &first);
    }
    shared.ports.send_replace(ports(&hosts));
    let (contacts, mut looked_up) = mpsc::channel(2);
    let mut looking_up = false;
    let mut registered = HashMap::new();
    let mut note_due = now + FIRST_NOTE;
    loop {
        let now = shared.clock.now();
        shared.sync_images(now, &mut hosts, &mut registered);
        let mut needs_contacts = false;
        let mut wake = note_due;
        for host in &mut hosts {
            needs_contacts |= shared.advance(now, host);
            wake = wake.min(host.node.next_timeout());
        }
        let ends = shared.state.lock().ends;
        if ends || note_due <= now {
            note_due = now + NOTE_EVERY;
            note(&hosts, &file).await;
        }
        if ends {
            return;
        }
        if needs_contacts && !looking_up {
            looking_up = true;
            let (names, contacts) = (names.clone(), contacts.clone());
            let remembered = remembered.clone();
            tokio::spawn(async move {
                let mut found = bootstrap::look_up(&names).await;
                found.extend(remembered);
                // The receiver lives as long as it is of use.
                let _ = contacts.send(found).await;
            });
        }
        // At once, but not in a loop without end.
        let wake = shared
            .clock
            .instant(wake.max(now + Duration::from_millis(1)));
        let one = hosts.len().min(1);
        let (first, rest) = hosts.split_at_mut(one);
        tokio::select! {
            heard = receive(first.first_mut()) => shared.heard(first.first_mut(), heard),
            heard = receive(rest.first_mut()) => shared.heard(rest.first_mut(), heard),
            () = tokio::time::sleep_until(wake.into()) => {}
            () = shared.news.notified() => {}
            Some(address) = told.recv() => {
                let now = shared.clock.now();
                for host in &mut hosts {
                    host.node.told_of(now, address);
                }
            }
            Some(addresses) = looked_up.recv() => {
                looking_up = false;
                let now = shared.clock.now();
                for host in &mut hosts {
                    host.node.meet(now, &addresses);
                }
            }
        }
    }
}

/// A datagram; for ever nothing without a socket.
async fn receive(host: Option<&mut Host>) -> Option<(usize, SocketAddr)> {
    let Some(host) = host else {
        return std::future::pending().await;
    };
    match host.socket.recv_from(&mut host.buffer).await {
        Ok(received) => Some(received),
        Err(error) => {
            tracing::debug!(%error, "the DHT receives nothing");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

fn ports(hosts: &[Host]) -> NodePorts {
    let addresses = hosts.iter().filter_map(|h| h.socket.local_addr().ok());
    let (mut four, mut six) = (None, None);
    for address in addresses {
        let port = if address.is_ipv6() {
            &mut six
        } else {
            &mut four
        };
        *port = Some(address.port());
    }
    NodePorts { four, six }
}

async fn note(hosts: &[Host], file: &NodesFile) {
    let nodes: Vec<SocketAddr> = hosts.iter().flat_map(|h| h.node.good_nodes()).collect();
    let file = file.clone();
    let written = tokio::task::spawn_blocking(move || file.write(&nodes)).await;
    if let Ok(Err(error)) = written {
        // It costs the next session some time, no more.
        tracing::debug!(%error, "the nodes of the DHT were not noted");
    }
}

impl Shared {
    /// The first node that a peer tells of; `None`: the session ends.
    async fn first_told(&self, told: &mut mpsc::Receiver<SocketAddr>) -> Option<SocketAddr> {
        loop {
            if self.state.lock().ends {
                return None;
            }
            tokio::select! {
                address = told.recv() => return address,
                () = self.news.notified() => {}
            }
        }
    }

    /// Tells the nodes which images have come and gone. `registered`: those that they know, with the registration's number.
    fn sync_images(&self, now: Time, hosts: &mut [Host], registered: &mut HashMap<InfoHash, u64>) {
        let images = self.state.lock();
        let images = images.images.iter();
        let images: HashMap<InfoHash, u64> = images.map(|(image, l)| (*image, l.id)).collect();
        if *registered == images {
            return;
        }
        let port = self.config.listener.port();
        for host in hosts {
            for gone in registered.keys().filter(|i| !images.contains_key(i)) {
                host.node.forget((*gone).into());
            }
            for (image, id) in &images {
                if registered.get(image) != Some(id) {
                    host.node.search(now, (*image).into(), port);
                }
            }
        }
        *registered = images;
    }

    /// Lets a node do what is due. Whether it needs to know others.
    fn advance(&self, now: Time, host: &mut Host) -> bool {
        host.node.tick(now);
        let mut needs_contacts = false;
        for output in host.node.take_outputs() {
            match output {
                Output::Send(to, datagram) => {
                    // What can't be sent now is lost, as on the way.
                    if let Err(error) = host.socket.sender().try_send_to(&datagram, to) {
                        tracing::trace!(%to, %error, "not sent");
                    }
                }
                Output::Found(image, peer) => self.found(InfoHash(image.0), peer),
                Output::NeedContacts => needs_contacts = true,
            }
        }
        needs_contacts
    }

    fn found(&self, image: InfoHash, peer: SocketAddr) {
        if let Some(listener) = self.state.lock().images.get(&image) {
            tracing::debug!(%peer, %image, "found in the DHT");
            // What does not fit comes again.
            let _ = listener.found.try_send(peer);
        }
    }

    fn heard(&self, host: Option<&mut Host>, heard: Option<(usize, SocketAddr)>) {
        if let (Some(host), Some((length, from))) = (host, heard) {
            host.node
                .received(self.clock.now(), from, &host.buffer[..length]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A session's part on this host. `first`: the nodes that it begins with.
    fn dht(port: u16, first: &[String], cache: PathBuf) -> Dht {
        let config = DhtConfig {
            listener: ([127, 0, 0, 1], port).into(),
            bootstrap: Some(first.to_vec()),
            cache,
            seed: port.into(),
            #[cfg(feature = "utp")]
            shared: Vec::new(),
        };
        Dht::new(&Handle::current(), SystemClock::start(), config)
    }

    /// A port that is free for UDP at the moment.
    fn free_port() -> u16 {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    }

    fn image() -> InfoHash {
        InfoHash(rand::random())
    }

    async fn found(receiver: &mut mpsc::Receiver<SocketAddr>, wanted: u16) {
        let wanted = SocketAddr::from(([127, 0, 0, 1], wanted));
        let search = async { while receiver.recv().await.unwrap() != wanted {} };
        tokio::time::timeout(PATIENCE, search)
            .await
            .expect("nobody was found");
    }

    #[tokio::test]
    async fn sessions_find_each_other_through_one_that_they_both_know() {
        let dir = tempfile::tempdir().unwrap();
        let ports = [free_port(), free_port(), free_port()];
        let first = [format!("127.0.0.1:{}", ports[0])];
        // The first one of a network names itself.
        let sessions = ports.map(|port| dht(port, &first, dir.path().join(port.to_string())));
        let wanted = image();
        let (sender, mut receiver) = mpsc::channel(16);
        let _others = sessions[0].register(image(), mpsc::channel(1).0);
        let _seed = sessions[1].register(wanted, mpsc::channel(1).0);
        let leech = sessions[2].register(wanted, sender);
        found(&mut receiver, ports[1]).await;
        drop(leech);
        // What was found before, and then nothing more.
        let rest = async { while receiver.recv().await.is_some() {} };
        tokio::time::timeout(PATIENCE, rest).await.unwrap();

        // What it knows is kept for a later session, which needs to be told of nobody.
        sessions[2].stop().await;
        let cache = dir.path().join(ports[2].to_string());
        assert!(!NodesFile::new(&cache).read().is_empty());
        let later = dht(free_port(), &[], cache);
        assert!(later.knows_anybody());
        let (sender, mut receiver) = mpsc::channel(16);
        let _later = later.register(wanted, sender);
        found(&mut receiver, ports[1]).await;
    }

    #[tokio::test]
    async fn without_anybody_to_begin_with_nothing_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let alone = dht(port, &[], dir.path().to_owned());
        assert!(!alone.knows_anybody());
        let _registration = alone.register(image(), mpsc::channel(1).0);
        let mut exchange = alone.exchange();
        assert_eq!(exchange.next_ports().await, Some(NodePorts::default()));
        let opened = tokio::time::timeout(Duration::from_millis(200), exchange.next_ports());
        assert!(opened.await.is_err(), "it opened a socket");
        std::net::UdpSocket::bind(("127.0.0.1", port)).unwrap();
        alone.stop().await;
        assert!(alone.task.lock().is_none());
    }

    #[tokio::test]
    async fn a_session_that_knows_nobody_joins_through_the_node_that_a_peer_tells_of() {
        let dir = tempfile::tempdir().unwrap();
        let ports = [free_port(), free_port()];
        let first = [format!("127.0.0.1:{}", ports[0])];
        let seed = dht(ports[0], &first, dir.path().join("seed"));
        let wanted = image();
        let _seed = seed.register(wanted, mpsc::channel(1).0);
        // Its port is told when it is there.
        let mut exchange = seed.exchange();
        let told = loop {
            let next = tokio::time::timeout(PATIENCE, exchange.next_ports()).await;
            if let Some(port) = next.unwrap().unwrap().four {
                break port;
            }
        };
        assert_eq!(told, ports[0]);
        let leech = dht(ports[1], &[], dir.path().join("leech"));
        let (sender, mut receiver) = mpsc::channel(16);
        let _leech = leech.register(wanted, sender);
        leech.exchange().tell(([127, 0, 0, 1], told).into());
        found(&mut receiver, ports[0]).await;
    }

    #[tokio::test]
    async fn a_later_registration_survives_the_end_of_an_earlier_one() {
        let dir = tempfile::tempdir().unwrap();
        let alone = dht(free_port(), &[], dir.path().to_owned());
        let image = image();
        let earlier = alone.register(image, mpsc::channel(1).0);
        let later = alone.register(image, mpsc::channel(1).0);
        drop(earlier);
        assert_eq!(alone.shared.state.lock().images.len(), 1);
        drop(later);
        assert_eq!(alone.shared.state.lock().images.len(), 0);
    }
}
