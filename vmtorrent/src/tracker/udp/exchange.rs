//! One request to a tracker over UDP: what is sent when, and which datagrams count as its answer.
//!
//! Invariant: nothing is sent again sooner than BEP 15 allows (15 s, then twice as long each time), no connection id
//! is used when it is a minute old, and only a datagram that names the transaction under way is believed. No I/O, no
//! clock, no randomness of its own.

use std::time::Duration;

use rand::Rng;
use rand::RngExt;

use super::super::announce::Announce;
use super::packet::{self, Reply, ScrapeCounts};
use crate::clock::Time;
use crate::image::InfoHash;

/// How long an answer may take before the request is sent again; twice as long each time.
pub(super) const FIRST_PATIENCE: Duration = Duration::from_secs(15);
/// Most doublings.
const MAX_DOUBLINGS: u32 = 8;
/// How long a connection id may be used.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);

/// What lets a tracker know that a request does not come from a forged address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    id: u64,
    since: Time,
}

impl Connection {
    pub(super) fn is_fresh(&self, now: Time) -> bool {
        now.since(self.since) < CONNECTION_LIFE
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) enum Question {
    Announce {
        announce: Announce,
        url_data: String,
    },
    Scrape(Vec<InfoHash>),
}

/// What the tracker answers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Announced {
        /// Seconds.
        interval: u32,
        peers: Vec<std::net::SocketAddr>,
    },
    Scraped(Vec<ScrapeCounts>),
    Refused(String),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send this datagram, then ask again.
    Send(Vec<u8>),
    /// Nothing until then, or until a datagram comes.
    Wait(Time),
}

/// A question under way.
#[derive(Debug)]
pub(super) struct Exchange {
    question: Question,
    connection: Option<Connection>,
    /// Whether `connection` comes from an earlier exchange: the tracker may have forgotten it.
    inherited: bool,
    /// Whether the request under way is for a connection id.
    connecting: bool,
    transaction: u32,
    /// When the request under way is sent (again).
    due: Time,
    doublings: u32,
    v6: bool,
}

impl Exchange {
    /// `connection` is what an earlier exchange left; `v6`: the tracker is asked over IPv6.
    pub(super) fn new(
        question: Question,
        connection: Option<Connection>,
        v6: bool,
        now: Time,
        rng: &mut impl Rng,
    ) -> Self {
        Self {
            question,
            connection,
            inherited: connection.is_some(),
            connecting: false,
            transaction: rng.random(),
            due: now,
            doublings: 0,
            v6,
        }
    }

    /// The connection id for later exchanges.
    pub(super) fn connection(&self) -> Option<Connection> {
        self.connection
    }

    /// What is to be done now.
    pub(super) fn next(&mut self, now: Time, rng: &mut impl Rng) -> Step {
        if now < self.due {
            return Step::Wait(self.due);
        }
        let pause = FIRST_PATIENCE * 2u32.pow(self.doublings.min(MAX_DOUBLINGS));
        self.doublings += 1;
        self.due = now + pause;
        let fresh = self.connection.filter(|c| c.is_fresh(now));
        self.connection = fresh;
        let connecting = fresh.is_none();
        if connecting != self.connecting {
            // A new request; one that is sent again keeps its number, so that a late answer counts.
            self.connecting = connecting;
            self.transaction = rng.random();
        }
        Step::Send(match (fresh, &self.question) {
            (None, _) => packet::connect(self.transaction),
            (Some(c), Question::Announce { announce, url_data }) => {
                packet::announce(c.id, self.transaction, announce, url_data)
            }
            (Some(c), Question::Scrape(images)) => packet::scrape(c.id, self.transaction, images),
        })
    }

    /// A datagram came from the tracker's address. Gives the answer, if it is that.
    pub(super) fn received(
        &mut self,
        now: Time,
        datagram: &[u8],
        rng: &mut impl Rng,
    ) -> Option<Answer> {
        let (transaction, reply) = packet::read_reply(datagram, self.v6)?;
        if transaction != self.transaction {
            return None;
        }
        match (reply, &self.question, self.connecting) {
            (Reply::Connected(id), _, true) => {
                self.connection = Some(Connection { id, since: now });
                self.inherited = false;
                self.restart(now, rng);
                None
            }
            (Reply::Announced { interval, peers }, Question::Announce { .. }, false) => {
                Some(Answer::Announced { interval, peers })
            }
            (Reply::Scraped(counts), Question::Scrape(_), false) => Some(Answer::Scraped(counts)),
            (Reply::Refused(_), _, false) if self.inherited => {
                // Most likely the tracker was started again and does not know the connection.
                self.connection = None;
                self.inherited = false;
                self.restart(now, rng);
                None
            }
            (Reply::Refused(reason), ..) => Some(Answer::Refused(reason)),
            _ => None,
        }
    }

    /// The tracker is there: the next request goes out at once.
    fn restart(&mut self, now: Time, rng: &mut impl Rng) {
        self.connecting = self.connection.is_none();
        self.transaction = rng.random();
        self.due = now;
        self.doublings = 0;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::super::packet::{ServerReply, ServerRequest, read_request, write_reply};
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    struct Run {
        exchange: Exchange,
        rng: StdRng,
    }

    impl Run {
        fn new(connection: Option<Connection>) -> Self {
            let mut rng = StdRng::seed_from_u64(1);
            let question = Question::Scrape(vec![InfoHash([1; 20])]);
            let exchange = Exchange::new(question, connection, false, at(0), &mut rng);
            Self { exchange, rng }
        }

        /// What is sent at that time, if anything is.
        fn sent(&mut self, seconds: u64) -> Option<(u32, ServerRequest)> {
            match self.exchange.next(at(seconds), &mut self.rng) {
                Step::Send(datagram) => Some(read_request(&datagram).unwrap()),
                Step::Wait(_) => None,
            }
        }

        fn reply(&mut self, seconds: u64, transaction: u32, reply: &ServerReply) -> Option<Answer> {
            let datagram = write_reply(transaction, reply);
            self.exchange
                .received(at(seconds), &datagram, &mut self.rng)
        }
    }

    fn counts() -> ServerReply {
        ServerReply::Scraped(vec![ScrapeCounts {
            seeders: 1,
            completions: 2,
            leechers: 3,
        }])
    }

    fn asks(id: u64) -> ServerRequest {
        ServerRequest::Scrape(id, vec![InfoHash([1; 20])])
    }

    #[test]
    fn it_connects_then_asks_and_keeps_the_connection() {
        let mut run = Run::new(None);
        let (first, request) = run.sent(0).unwrap();
        assert_eq!(request, ServerRequest::Connect);
        assert_eq!(run.sent(0), None);
        assert_eq!(run.reply(1, first, &ServerReply::Connected(5)), None);
        let (second, request) = run.sent(1).unwrap();
        assert_eq!(request, asks(5));
        assert_ne!(first, second);
        assert!(matches!(
            run.reply(2, second, &counts()),
            Some(Answer::Scraped(_))
        ));

        let connection = run.exchange.connection();
        let mut next = Run::new(connection);
        assert_eq!(next.sent(60).unwrap().1, asks(5));
        let mut late = Run::new(connection);
        assert_eq!(late.sent(61).unwrap().1, ServerRequest::Connect);
    }

    #[test]
    fn lost_datagrams_are_sent_again_after_15_seconds_times_a_power_of_two() {
        let mut run = Run::new(None);
        let mut sent = Vec::new();
        let mut numbers = std::collections::HashSet::new();
        for second in 0..10_000 {
            if let Some((transaction, _)) = run.sent(second) {
                numbers.insert(transaction);
                sent.push(second);
            }
        }
        assert_eq!(sent, [0, 15, 45, 105, 225, 465, 945, 1_905, 3_825, 7_665]);
        assert_eq!(numbers.len(), 1);
    }

    #[test]
    fn an_unanswered_question_gets_a_new_connection_when_the_old_one_is_a_minute_old() {
        let mut run = Run::new(None);
        let (first, _) = run.sent(0).unwrap();
        run.reply(0, first, &ServerReply::Connected(5));
        let requests: Vec<_> = (0..200).filter_map(|s| Some((s, run.sent(s)?.1))).collect();
        let expected = [
            (0, asks(5)),
            (15, asks(5)),
            (45, asks(5)),
            (105, ServerRequest::Connect),
        ];
        assert_eq!(requests, expected);
    }

    #[test]
    fn foreign_transactions_kinds_and_garbage_are_ignored() {
        let mut run = Run::new(None);
        let (first, _) = run.sent(0).unwrap();
        assert_eq!(run.reply(0, first ^ 1, &ServerReply::Connected(5)), None);
        assert_eq!(run.reply(0, first, &counts()), None);
        assert_eq!(
            run.exchange.received(at(0), b"\x00\x00", &mut run.rng),
            None
        );
        assert_eq!(run.sent(1), None);
        run.reply(1, first, &ServerReply::Connected(5));
        let (second, _) = run.sent(1).unwrap();
        // A late copy of the first answer changes nothing.
        assert_eq!(run.reply(1, first, &ServerReply::Connected(6)), None);
        assert_eq!(run.reply(1, second, &ServerReply::Connected(6)), None);
        assert_eq!(run.reply(1, first, &counts()), None);
        assert!(run.reply(1, second, &counts()).is_some());
    }

    #[test]
    fn a_refusal_is_told_but_a_connection_that_was_forgotten_is_made_anew() {
        let mut run = Run::new(None);
        let (first, _) = run.sent(0).unwrap();
        let refused = run.reply(0, first, &ServerReply::Refused("full"));
        assert_eq!(refused, Some(Answer::Refused("full".into())));

        let old = Connection {
            id: 5,
            since: at(0),
        };
        let mut run = Run::new(Some(old));
        let (first, request) = run.sent(1).unwrap();
        assert_eq!(request, asks(5));
        assert_eq!(run.reply(1, first, &ServerReply::Refused("who?")), None);
        let (second, request) = run.sent(1).unwrap();
        assert_eq!(request, ServerRequest::Connect);
        run.reply(1, second, &ServerReply::Connected(6));
        let (third, request) = run.sent(1).unwrap();
        assert_eq!(request, asks(6));
        assert!(matches!(
            run.reply(1, third, &ServerReply::Refused("no")),
            Some(Answer::Refused(_))
        ));
    }
}
