//! Invariant: a question is answered or given up within the caller's time, whatever comes back; a tracker costs one
//! socket, and no more than [`MAX_LINKS`] are kept.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::net::UdpSocket;
use tokio::time::Instant;
use url::{Host, Url};

use super::super::announce::{Announce, AnnounceAnswer, MAX_REASON};
use super::super::transport::AnswerLost;
use super::exchange::{Answer, Connection, Exchange, Question, Step};
use super::packet::{MAX_SCRAPE, ScrapeCounts};
use crate::clock::Time;
use crate::image::InfoHash;
use crate::{Error, ErrorKind, Result};

/// Longest datagram that is read: room for over a thousand peers.
const MAX_DATAGRAM: usize = 8 * 1024;
/// Most trackers whose socket and connection id are kept.
const MAX_LINKS: usize = 16;
/// Most addresses of one tracker that are tried.
const MAX_ADDRESSES: usize = 8;

/// Asks trackers over UDP.
#[derive(Debug)]
pub(in super::super) struct UdpTransport {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rng: StdRng,
    /// By host and port.
    links: HashMap<(String, u16), Link>,
    /// Which of a tracker's addresses is tried next, after one did not answer.
    turns: HashMap<(String, u16), usize>,
}

/// A tracker that has answered. The id holds for this socket's address only.
#[derive(Debug)]
struct Link {
    socket: UdpSocket,
    connection: Connection,
}

impl UdpTransport {
    /// Transaction numbers come from a generator that starts from `seed`.
    pub(in super::super) fn new(seed: u64) -> Self {
        Self {
            start: Instant::now(),
            state: Mutex::new(State {
                rng: StdRng::seed_from_u64(seed),
                links: HashMap::new(),
                turns: HashMap::new(),
            }),
        }
    }

    /// Announces within `timeout`.
    ///
    /// # Errors
    /// [`ErrorKind::TimedOut`] when nothing came, [`ErrorKind::Network`] when it can't be reached or refuses,
    /// [`ErrorKind::InvalidInput`] when the URL names no port.
    pub(in super::super) async fn announce(
        &self,
        tracker: &Url,
        announce: Announce,
        timeout: Duration,
    ) -> Result<AnnounceAnswer> {
        let question = Question::Announce {
            announce,
            url_data: url_data(tracker),
        };
        match self.ask(tracker, question, timeout).await? {
            Answer::Announced { interval, peers } => {
                Ok(AnnounceAnswer::from_datagram(interval, peers))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for the counts of images, at most 74 of them, within `timeout`. They come in the same order.
    ///
    /// # Errors
    /// As [`announce`](Self::announce).
    pub(in super::super) async fn scrape(
        &self,
        tracker: &Url,
        images: &[InfoHash],
        timeout: Duration,
    ) -> Result<Vec<ScrapeCounts>> {
        if images.len() > MAX_SCRAPE {
            let text = format!("a tracker is asked about at most {MAX_SCRAPE} images at once");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let question = Question::Scrape(images.to_vec());
        match self.ask(tracker, question, timeout).await? {
            Answer::Scraped(counts) if counts.len() == images.len() => Ok(counts),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, tracker: &Url, question: Question, timeout: Duration) -> Result<Answer> {
        let key = address(tracker)?;
        let asked = AtomicBool::new(false);
        let answer = self.ask_for_ever(key, question, &asked);
        if let Ok(answer) = tokio::time::timeout(timeout, answer).await {
            return answer;
        }
        let text = "the tracker did not answer in time; check its URL, and whether UDP passes the firewall";
        // Without a connection id the question itself was not sent yet.
        Err(if asked.into_inner() {
            Error::with_source(ErrorKind::TimedOut, text, AnswerLost)
        } else {
            Error::new(ErrorKind::TimedOut, text)
        })
    }

    /// `asked` is set when the question itself goes out.
    async fn ask_for_ever(
        &self,
        key: (String, u16),
        question: Question,
        asked: &AtomicBool,
    ) -> Result<Answer> {
        let link = self.state.lock().links.remove(&key);
        let link = link.filter(|l| l.connection.is_fresh(self.now()));
        let kept = link.is_some();
        let (socket, connection) = match link {
            Some(link) => (link.socket, Some(link.connection)),
            None => (self.open(&key).await?, None),
        };
        let failed = |e| Error::with_source(ErrorKind::Network, unreachable_text(), e);
        let v6 = socket.peer_addr().map_err(failed)?.is_ipv6();
        let mut exchange = Exchange::new(
            question,
            connection,
            v6,
            self.now(),
            &mut self.state.lock().rng,
        );
        let mut buffer = vec![0; MAX_DATAGRAM];
        let answer = loop {
            let step = exchange.next(self.now(), &mut self.state.lock().rng);
            match step {
                Step::Send(datagram) => {
                    if exchange.connection().is_some() {
                        asked.store(true, Ordering::Relaxed);
                    }
                    socket.send(&datagram).await.map_err(failed)?;
                }
                Step::Wait(until) => {
                    let until = self.start + until.since(Time::default());
                    tokio::select! {
                        received = socket.recv(&mut buffer) => {
                            let datagram = &buffer[..received.map_err(failed)?];
                            let rng = &mut self.state.lock().rng;
                            if let Some(answer) = exchange.received(self.now(), datagram, rng) {
                                break answer;
                            }
                        }
                        () = tokio::time::sleep_until(until) => {}
                    }
                }
            }
        };
        if let Answer::Refused(reason) = answer {
            let reason: String = reason
                .trim_end_matches('\0')
                .chars()
                .take(MAX_REASON)
                .collect();
            let text = format!("the tracker refuses: {reason:?}");
            return Err(Error::new(ErrorKind::Network, text));
        }
        let mut state = self.state.lock();
        // This address answers: it goes first the next time. A kept link took no turn.
        if !kept && let Some(turn) = state.turns.get_mut(&key) {
            *turn = turn.wrapping_sub(1);
        }
        if let Some(connection) = exchange.connection()
            && state.links.len() < MAX_LINKS
        {
            state.links.insert(key, Link { socket, connection });
        }
        Ok(answer)
    }

    /// A socket connected to the tracker, so that only its datagrams are received. Each call that is not followed by
    /// an answer takes the next of its addresses.
    async fn open(&self, key: &(String, u16)) -> Result<UdpSocket> {
        let unknown = |e: std::io::Error| {
            let text = "the tracker's name was not found; check its URL and the name server";
            Error::with_source(ErrorKind::Network, text, e)
        };
        let found = tokio::net::lookup_host((key.0.as_str(), key.1));
        let mut addresses: Vec<SocketAddr> = found.await.map_err(unknown)?.collect();
        // A tracker names us by the address that it sees: most of us listen on IPv4.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        addresses.dedup();
        addresses.truncate(MAX_ADDRESSES);
        if addresses.is_empty() {
            return Err(unknown(std::io::ErrorKind::NotFound.into()));
        }
        let turn = {
            let mut state = self.state.lock();
            if state.turns.len() > 2 * MAX_LINKS {
                state.turns.clear();
            }
            let turn = state.turns.entry(key.clone()).or_default();
            std::mem::replace(turn, turn.wrapping_add(1))
        };
        let address = addresses[turn % addresses.len()];
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
        };
        let failed = |e| Error::with_source(ErrorKind::Network, unreachable_text(), e);
        let socket = UdpSocket::bind(any).await.map_err(failed)?;
        socket.connect(address).await.map_err(failed)?;
        Ok(socket)
    }

    fn now(&self) -> Time {
        Time::default() + self.start.elapsed()
    }
}

fn unreachable_text() -> &'static str {
    "the tracker could not be reached; check its URL and the network"
}

fn unexpected(answer: &Answer) -> Error {
    tracing::debug!(?answer, "a tracker answered to another question");
    Error::new(
        ErrorKind::Network,
        "the tracker's answer has not the length that was asked for; check the tracker's URL",
    )
}

/// Host and port of a tracker.
fn address(tracker: &Url) -> Result<(String, u16)> {
    let host = match tracker.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(ip)) => ip.to_string(),
        Some(Host::Ipv6(ip)) => ip.to_string(),
        None => String::new(),
    };
    match tracker.port() {
        Some(port) if !host.is_empty() => Ok((host, port)),
        _ => Err(Error::new(
            ErrorKind::InvalidInput,
            "the URL of a UDP tracker needs a host and a port, as in udp://tracker.example:6969/announce",
        )),
    }
}

/// What BEP 41 tells the tracker: path and query.
fn url_data(tracker: &Url) -> String {
    let mut data = tracker.path().to_owned();
    if let Some(query) = tracker.query() {
        data.push('?');
        data += query;
    }
    // Nothing that a tracker could not assume.
    if data == "/" { String::new() } else { data }
}

#[cfg(test)]
#[path = "transport_tests.rs"]
mod tests;
