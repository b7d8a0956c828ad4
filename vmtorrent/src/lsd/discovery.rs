//! Invariant: nothing is sent or received before an image is registered, and nothing is announced of an image whose
//! registration is gone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use super::interfaces::{Interface, is_neighbour, outlets};
use super::message::{MAX_IMAGES, Search};
use super::schedule::{MIN_INTERVAL, Schedule};
use super::sockets::GroupSocket;
use crate::clock::{SystemClock, Time};
use crate::image::InfoHash;

/// How often the interfaces are looked at: soon after a change, since they may just be coming up, then more seldom.
const FIRST_LOOK: Duration = Duration::from_millis(500);
const LAST_LOOK: Duration = Duration::from_secs(30);
/// Pause after an error of a socket, so that one that persists is no loop.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest announce that is read, bytes.
const MAX_DATAGRAM: usize = 2_048;

/// Announces a session's images on the local network, and hears of others who have them.
#[derive(Clone)]
pub(crate) struct LocalDiscovery {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    news: Notify,
    runtime: Handle,
    clock: SystemClock,
    listener: SocketAddr,
    cookie: String,
}

struct State {
    schedule: Schedule,
    images: HashMap<InfoHash, Listener>,
    next: u64,
    task: Option<AbortHandle>,
}

struct Listener {
    id: u64,
    found: mpsc::Sender<SocketAddr>,
}

/// An image that is announced, until this is dropped.
pub(crate) struct Registration {
    shared: Arc<Shared>,
    image: InfoHash,
    id: u64,
}

impl LocalDiscovery {
    /// `listener` is where peers connect to us; `seed` decides pauses and the cookie. Nothing happens before an
    /// image is registered.
    pub(crate) fn new(
        runtime: &Handle,
        clock: SystemClock,
        listener: SocketAddr,
        seed: u64,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    schedule: Schedule::new(seed),
                    images: HashMap::new(),
                    next: 0,
                    task: None,
                }),
                news: Notify::new(),
                runtime: runtime.clone(),
                clock,
                listener,
                cookie: format!("{seed:016x}"),
            }),
        }
    }

    /// Announces an image. Who else has or wants it goes into `found`, again and again; what does not fit is dropped.
    pub(crate) fn register(
        &self,
        image: InfoHash,
        found: mpsc::Sender<SocketAddr>,
    ) -> Registration {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        let id = state.next;
        state.next += 1;
        state.images.insert(image, Listener { id, found });
        state.schedule.add(shared.clock.now(), image);
        if state.task.is_none() {
            let task = shared.runtime.spawn(run(shared.clone()));
            state.task = Some(task.abort_handle());
        }
        drop(state);
        shared.news.notify_one();
        Registration {
            shared: shared.clone(),
            image,
            id,
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
            state.schedule.remove(&self.image);
        }
        if state.images.is_empty()
            && let Some(task) = state.task.take()
        {
            task.abort();
        }
    }
}

/// The sockets, and where they reach.
struct Network {
    v4: Option<GroupSocket>,
    v6: Option<GroupSocket>,
    interfaces: Vec<Interface>,
    /// When each image was announced over each.
    announced: HashMap<(Interface, InfoHash), Time>,
    look_due: Time,
    look_pause: Duration,
}

impl Network {
    fn new(now: Time) -> Self {
        Self {
            v4: None,
            v6: None,
            interfaces: Vec::new(),
            announced: HashMap::new(),
            look_due: now,
            look_pause: FIRST_LOOK,
        }
    }

    /// Looks at the interfaces if it is time to; whether it was.
    fn look(&mut self, now: Time) -> bool {
        if now < self.look_due {
            return false;
        }
        let interfaces = Interface::all();
        self.look_pause = if interfaces == self.interfaces {
            (self.look_pause * 2).min(LAST_LOOK)
        } else {
            FIRST_LOOK
        };
        self.look_due = now + self.look_pause;
        self.interfaces = interfaces;
        for (socket, v6) in [(&mut self.v4, false), (&mut self.v6, true)] {
            if socket.is_none() && self.interfaces.iter().any(|i| i.ip.is_ipv6() == v6) {
                *socket = GroupSocket::open(v6);
            }
            if let Some(socket) = socket {
                socket.join(&self.interfaces);
            }
        }
        true
    }

    /// Announces the images that are due, and all others where they were not announced yet: on a network that is new,
    /// or that failed the last time.
    fn announce(&mut self, now: Time, shared: &Shared, due: &[InfoHash], all: &[InfoHash]) {
        let here = &self.interfaces;
        self.announced.retain(|(interface, image), then| {
            // What comes back within a minute is not new.
            now.since(*then) < MIN_INTERVAL || (here.contains(interface) && all.contains(image))
        });
        for outlet in outlets(here, shared.listener) {
            let mut images = all.to_vec();
            images.retain(|image| match self.announced.get(&(outlet, *image)) {
                Some(then) => due.contains(image) && now.since(*then) >= MIN_INTERVAL,
                None => true,
            });
            for images in images.chunks(MAX_IMAGES) {
                let search = Search {
                    port: shared.listener.port(),
                    images: images.to_vec(),
                    cookie: Some(shared.cookie.clone()),
                };
                let mut sockets = self.v4.iter().chain(&self.v6);
                if sockets.any(|s| s.send(&outlet, search.encode(s.group()).as_bytes())) {
                    self.announced
                        .extend(images.iter().map(|i| ((outlet, *i), now)));
                }
            }
        }
    }
}

/// Ends when the last registration is gone.
async fn run(shared: Arc<Shared>) {
    let mut network = Network::new(shared.clock.now());
    let (mut buffer4, mut buffer6) = ([0; MAX_DATAGRAM], [0; MAX_DATAGRAM]);
    loop {
        let now = shared.clock.now();
        let looked = network.look(now);
        let (due, all, next) = {
            let mut state = shared.state.lock();
            let schedule = &mut state.schedule;
            (
                schedule.take_due(now),
                schedule.images(),
                schedule.next_due(),
            )
        };
        if looked || !due.is_empty() {
            network.announce(now, &shared, &due, &all);
        }
        let wake = next.map_or(network.look_due, |next| next.min(network.look_due));
        let wake = shared.clock.instant(wake);
        let heard = tokio::select! {
            heard = receive(network.v4.as_ref(), &mut buffer4) => heard.map(|(n, from)| (&buffer4[..n], from)),
            heard = receive(network.v6.as_ref(), &mut buffer6) => heard.map(|(n, from)| (&buffer6[..n], from)),
            () = tokio::time::sleep_until(wake.into()) => None,
            () = shared.news.notified() => None,
        };
        if let Some((datagram, from)) = heard {
            shared.heard(&network.interfaces, datagram, from);
        }
    }
}

/// A datagram; for ever nothing without a socket.
async fn receive(socket: Option<&GroupSocket>, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    match socket.receive(buffer).await {
        Ok(received) => Some(received),
        Err(error) => {
            tracing::debug!(%error, "local discovery receives nothing");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

impl Shared {
    fn heard(&self, interfaces: &[Interface], datagram: &[u8], from: SocketAddr) {
        let Some(search) = Search::parse(datagram) else {
            return;
        };
        if search.cookie.as_deref() == Some(&self.cookie) || !is_neighbour(interfaces, from.ip()) {
            return;
        }
        let mut peer = from;
        peer.set_port(search.port);
        let mut state = self.state.lock();
        let now = self.clock.now();
        for image in &search.images {
            let Some(listener) = state.images.get(image) else {
                continue;
            };
            // What does not fit comes again.
            let _ = listener.found.try_send(peer);
            tracing::debug!(%peer, %image, "found on the local network");
            state.schedule.heard(now, image, peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// An image that no other test on this network announces.
    fn image() -> InfoHash {
        InfoHash(rand::random())
    }

    fn discovery(port: u16) -> LocalDiscovery {
        let listener = ([127, 0, 0, 1], port).into();
        LocalDiscovery::new(
            &Handle::current(),
            SystemClock::start(),
            listener,
            rand::random(),
        )
    }

    async fn found(receiver: &mut mpsc::Receiver<SocketAddr>) -> Option<SocketAddr> {
        tokio::time::timeout(PATIENCE, receiver.recv())
            .await
            .expect("nobody was found")
    }

    #[tokio::test]
    async fn two_sessions_of_one_host_find_each_other_and_not_themselves() {
        let image = image();
        let (sender, mut first) = mpsc::channel(8);
        let one = discovery(1001);
        let _one = one.register(image, sender);
        let (sender, mut second) = mpsc::channel(8);
        let two = discovery(1002);
        let _two = two.register(image, sender);
        // The later one is heard at once by the earlier one, which answers when a minute has passed.
        assert_eq!(found(&mut first).await, Some(([127, 0, 0, 1], 1002).into()));
        let state = one.shared.state.lock();
        let due = state.schedule.next_due().unwrap();
        let now = one.shared.clock.now();
        assert!(due.since(now) <= Duration::from_secs(62));
        drop(state);
        assert!(second.try_recv().is_err());
    }

    #[tokio::test]
    async fn images_that_are_gone_are_heard_of_no_more_and_the_last_one_ends_the_task() {
        let (gone, here) = (image(), image());
        let one = discovery(1003);
        let (sender, mut found_gone) = mpsc::channel(8);
        let registration = one.register(gone, sender);
        let (sender, mut found_here) = mpsc::channel(8);
        let other = one.register(here, sender);
        drop(registration);
        assert_eq!(found_gone.recv().await, None);
        let two = discovery(1004);
        let (sender, _found) = mpsc::channel(8);
        let _both = [gone, here].map(|image| two.register(image, sender.clone()));
        assert_eq!(
            found(&mut found_here).await,
            Some(([127, 0, 0, 1], 1004).into())
        );
        let task = one.shared.state.lock().task.clone().unwrap();
        drop(other);
        let ended = async {
            while !task.is_finished() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.unwrap();
    }

    #[tokio::test]
    async fn a_later_registration_survives_the_end_of_an_earlier_one() {
        let image = image();
        let one = discovery(1005);
        let (sender, _first) = mpsc::channel(8);
        let earlier = one.register(image, sender);
        let (sender, mut second) = mpsc::channel(8);
        let _later = one.register(image, sender);
        drop(earlier);
        let two = discovery(1006);
        let (sender, _found) = mpsc::channel(8);
        let _two = two.register(image, sender);
        assert_eq!(
            found(&mut second).await,
            Some(([127, 0, 0, 1], 1006).into())
        );
    }

    #[tokio::test]
    async fn strangers_garbage_and_our_own_announces_are_ignored() {
        let image = image();
        let one = discovery(1007);
        let (sender, mut receiver) = mpsc::channel(1);
        let _one = one.register(image, sender);
        let search = |cookie: &str| {
            let search = Search {
                port: 9,
                images: vec![image],
                cookie: Some(cookie.into()),
            };
            search.encode("239.192.152.143:6771".parse().unwrap())
        };
        let interfaces = Interface::all();
        let near: SocketAddr = "127.0.0.2:1".parse().unwrap();
        let say = |text: &str, from| one.shared.heard(&interfaces, text.as_bytes(), from);
        say(&search(&one.shared.cookie), near);
        say("BT-SEARCH", near);
        say(&search("other"), "203.0.113.77:1".parse().unwrap());
        assert!(receiver.try_recv().is_err());
        // A channel that nobody reads holds nobody up.
        say(&search("other"), near);
        say(&search("other"), near);
        assert_eq!(receiver.try_recv(), Ok("127.0.0.2:9".parse().unwrap()));
    }
}
