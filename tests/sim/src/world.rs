//! All hosts, run in slices of time. Invariant: a slice is no longer than the shortest path takes, so that no mail that is
//! sent in it arrives in it: hosts run through it apart from each other, on as many threads as there are.
//!
//! This is conservative synchronisation with a fixed lookahead (R. M. Fujimoto: *Parallel Discrete Event Simulation*,
//! Communications of the ACM 33(10), 1990).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};

use crate::crowd::Crowd;
use crate::mail::Mail;
use crate::moment::{NEVER, Nanos, span};
use crate::node::Node;
use crate::outcome::Outcome;

/// The hosts that one thread runs.
#[derive(Default)]
pub struct Shard {
    nodes: Vec<Node>,
    next: Vec<Nanos>,
    /// What the hosts here have sent, by the receiver's shard.
    out: Vec<Vec<Mail>>,
}

/// All hosts, by shards, for whoever looks at them between two slices.
pub struct Hosts<'a> {
    shards: Vec<MutexGuard<'a, Shard>>,
    count: u32,
}

impl Hosts<'_> {
    /// How many there are, and were.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// A host.
    pub fn node(&mut self, index: u32) -> &mut Node {
        let shards = self.shards.len() as u32;
        let shard = &mut self.shards[(index % shards) as usize];
        // Something may become due there.
        shard.next[(index / shards) as usize] = 0;
        &mut shard.nodes[(index / shards) as usize]
    }

    /// Two different hosts.
    pub fn pair(&mut self, a: u32, b: u32) -> (&mut Node, &mut Node) {
        let shards = self.shards.len() as u32;
        let place = |n: u32| ((n % shards) as usize, (n / shards) as usize);
        let (of_a, of_b) = (place(a), place(b));
        for (shard, node) in [of_a, of_b] {
            self.shards[shard].next[node] = 0;
        }
        if of_a.0 == of_b.0 {
            let nodes = &mut self.shards[of_a.0].nodes;
            let [a, b] = nodes
                .get_disjoint_mut([of_a.1, of_b.1])
                .unwrap_or_else(|_| panic!("{a} and {b} are not two hosts"));
            return (a, b);
        }
        let [a, b] = self
            .shards
            .get_disjoint_mut([of_a.0, of_b.0])
            .unwrap_or_else(|_| panic!("{a} and {b} are not two hosts"));
        (&mut a.nodes[of_a.1], &mut b.nodes[of_b.1])
    }

    /// Puts a host in; gives its index.
    pub fn add(&mut self, node: Node) -> u32 {
        let shards = self.shards.len() as u32;
        let shard = &mut self.shards[(self.count % shards) as usize];
        shard.nodes.push(node);
        shard.next.push(0);
        self.count += 1;
        self.count - 1
    }
}

impl Shard {
    fn next(&self) -> Nanos {
        self.next.iter().copied().min().unwrap_or(NEVER)
    }

    /// Runs its hosts until `end`.
    fn run(&mut self, end: Nanos) {
        let shards = self.out.len() as u32;
        for (node, next) in self.nodes.iter_mut().zip(&mut self.next) {
            if *next >= end {
                continue;
            }
            node.run(end);
            *next = node.next();
            for mail in node.take_mail() {
                self.out[(mail.to % shards) as usize].push(mail);
            }
        }
    }

    fn receive(&mut self, mail: Mail) {
        let place = mail.to as usize / self.out.len();
        self.next[place] = self.next[place].min(mail.at);
        self.nodes[place].receive(mail);
    }
}

/// Runs a crowd to its end on so many threads, and gives what came of it.
pub fn run(crowd: &mut Crowd, threads: usize) -> Outcome {
    let threads = threads.max(1);
    let shards: Vec<Mutex<Shard>> = (0..threads)
        .map(|_| {
            Mutex::new(Shard {
                out: (0..threads).map(|_| Vec::new()).collect(),
                ..Shard::default()
            })
        })
        .collect();
    let lookahead = span(crowd.lookahead());
    let end = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let failed = AtomicBool::new(false);
    let barrier = Barrier::new(threads);
    // Whoever fails still comes to the barrier: else the others would wait there for ever.
    let guarded = |work: &mut dyn FnMut()| {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            failed.store(true, Ordering::SeqCst);
        }
    };
    let outcome = std::thread::scope(|scope| {
        for shard in &shards[1..] {
            let (end, over, barrier, guarded) = (&end, &over, &barrier, &guarded);
            scope.spawn(move || {
                loop {
                    barrier.wait();
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    guarded(&mut || lock(shard).run(end.load(Ordering::SeqCst)));
                    barrier.wait();
                }
            });
        }
        let (mut count, mut now) = (0, 0);
        loop {
            let mut outcome = None;
            let mut goes_on = false;
            guarded(&mut || {
                let shards = shards.iter().map(lock).collect();
                let mut hosts = Hosts { shards, count };
                hand_over(&mut hosts);
                let due = hosts.shards.iter().map(|s| s.next()).min();
                now = due.unwrap_or(NEVER).min(crowd.next()).max(now);
                goes_on = crowd.act(now, &mut hosts);
                count = hosts.count;
                outcome = (!goes_on).then(|| crowd.outcome(&mut hosts));
            });
            goes_on &= !failed.load(Ordering::SeqCst);
            end.store(now + lookahead, Ordering::SeqCst);
            over.store(!goes_on, Ordering::SeqCst);
            barrier.wait();
            if !goes_on {
                return outcome;
            }
            guarded(&mut || lock(&shards[0]).run(now + lookahead));
            barrier.wait();
            now += lookahead;
        }
    });
    assert!(!failed.load(Ordering::SeqCst), "a thread has failed");
    outcome.unwrap_or_else(|| panic!("a run ends with an outcome"))
}

/// What was sent comes to the receivers.
fn hand_over(hosts: &mut Hosts<'_>) {
    for from in 0..hosts.shards.len() {
        for to in 0..hosts.shards.len() {
            let mut mails = std::mem::take(&mut hosts.shards[from].out[to]);
            for mail in mails.drain(..) {
                hosts.shards[to].receive(mail);
            }
            hosts.shards[from].out[to] = mails;
        }
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
