//! An Ethernet switch in user space whose lines have a rate, a delay and a bounded queue: the network of the benchmarks.
//!
//! `switch MBIT:DELAY_US:QUEUE_US ...`, one argument for each port
//!
//! stdin is a Unix socket. One message on it carries a tap device for each port (`SCM_RIGHTS`, in the order of the
//! arguments); then `ready` is printed, and frames move until the socket is closed from the other side. At the end a JSON line for each port
//! tells what it sent and dropped. A rate of 0 is no limit. A frame from host A to host B passes A's line up and B's
//! line down, so it is delayed twice each way: hosts with a delay of D have a round trip of 4 D.
//!
//! The taps have virtio-net headers, so that a host may hand over several segments of TCP as one, which take the time of all on
//! each line: how many is set where the hosts are made.
//!
//! Invariant: a line gives frames out in the order in which it took them, at the rate and with the delay that it has
//! (the followers in a train up to [`TRAIN`] early), and holds never more than its queue's time of them beside those
//! under way.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool of the benchmarks; the lab that started it reads its end and its stdout"
)]

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

/// Nanoseconds of the monotonic clock.
type Nanos = u64;

const SECOND: Nanos = 1_000_000_000;
/// What the kernel takes in one `SCM_RIGHTS` message.
const MAX_PORTS: usize = 253;
/// Frames that are read of one port before the others get their turn.
const BATCH: usize = 64;
/// Frames that arrive so shortly after one that is due go with it: a train on a busy line costs a fraction of the wake-ups
/// of its frames, and a lone frame is never early.
const TRAIN: Nanos = 300_000;
/// `struct virtio_net_hdr`, as it stands before each frame.
const HEADER: usize = 10;
const TIMER: u64 = u64::MAX;
const CONTROL: u64 = u64::MAX - 1;

fn now() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as Nanos * SECOND + time.tv_nsec as Nanos
}

/// One direction of a port's cable.
#[derive(Clone)]
struct Line {
    nanos_per_byte: f64,
    delay: Nanos,
    queue: Nanos,
    /// When the last frame that was taken has left the sender.
    free_at: Nanos,
    /// Frames and when they arrive at the other end.
    under_way: VecDeque<(Nanos, Vec<u8>)>,
    frames: u64,
    bytes: u64,
    dropped: u64,
}

impl Line {
    fn new(text: &str) -> Option<Self> {
        let mut numbers = text.split(':').map(str::parse::<f64>);
        let mut number = || numbers.next()?.ok();
        let (mbit, delay, queue) = (number()?, number()?, number()?);
        Some(Self {
            nanos_per_byte: if mbit > 0.0 { 8e3 / mbit } else { 0.0 },
            delay: (delay * 1e3) as Nanos,
            queue: (queue * 1e3) as Nanos,
            free_at: 0,
            under_way: VecDeque::new(),
            frames: 0,
            bytes: 0,
            dropped: 0,
        })
    }

    /// Takes a frame that is there at `time`, or drops it because the queue is full.
    ///
    /// `frame`: with its virtio-net header.
    fn take(&mut self, time: Nanos, frame: Vec<u8>) -> Option<Vec<u8>> {
        let start = self.free_at.max(time);
        if start - time > self.queue {
            self.dropped += 1;
            return Some(frame);
        }
        let (frames, bytes) = on_the_wire(&frame);
        self.free_at = start + (bytes as f64 * self.nanos_per_byte) as Nanos;
        self.frames += frames;
        self.bytes += bytes;
        self.under_way.push_back((self.free_at + self.delay, frame));
        None
    }

    fn next_arrival(&self) -> Option<Nanos> {
        self.under_way.front().map(|(time, _)| *time)
    }

    /// The next frame that has arrived by `time`, with its time of arrival.
    fn arrived(&mut self, time: Nanos) -> Option<(Nanos, Vec<u8>)> {
        let due = self.next_arrival()? <= time;
        due.then(|| self.under_way.pop_front()).flatten()
    }
}

/// How many frames a real network would carry for what a host gave with its virtio-net header, and their bytes.
fn on_the_wire(frame: &[u8]) -> (u64, u64) {
    let number = |at: usize| usize::from(u16::from_ne_bytes([frame[at], frame[at + 1]]));
    let length = frame.len() - HEADER;
    let (segmented, header, segment) = (frame[1] != 0, number(2), number(4));
    if !segmented || segment == 0 {
        return (1, length as u64);
    }
    let frames = length.saturating_sub(header).div_ceil(segment).max(1);
    (frames as u64, (length + (frames - 1) * header) as u64)
}

struct Port {
    tap: OwnedFd,
    up: Line,
    down: Line,
}

struct Switch {
    ports: Vec<Port>,
    /// The port behind which an Ethernet address was last seen.
    learned: HashMap<[u8; 6], usize>,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
    /// Where the next frame is read: the longest that there is finds room.
    reading: Vec<u8>,
}

impl Switch {
    /// Reads what the host at this port has sent.
    fn receive(&mut self, index: usize) {
        let port = &mut self.ports[index];
        for _ in 0..BATCH {
            let Ok(length) = rustix::io::read(&port.tap, &mut self.reading) else {
                return;
            };
            let mut frame = self.spare.pop().unwrap_or_default();
            frame.clear();
            frame.extend_from_slice(&self.reading[..length]);
            let Some(source) = frame
                .get(HEADER + 6..HEADER + 12)
                .and_then(|a| a.try_into().ok())
            else {
                self.spare.push(frame);
                continue;
            };
            self.learned.insert(source, index);
            self.spare.extend(port.up.take(now(), frame));
        }
    }

    /// Puts what came up from a host onto the lines of those that it is for.
    fn forward(&mut self, from: usize, time: Nanos, frame: Vec<u8>) {
        let destination = frame
            .get(HEADER..HEADER + 6)
            .and_then(|a| <[u8; 6]>::try_from(a).ok())
            .and_then(|a| self.learned.get(&a).copied());
        match destination {
            Some(to) if to == from => self.spare.push(frame),
            Some(to) => self.spare.extend(self.ports[to].down.take(time, frame)),
            None => {
                for (to, port) in self.ports.iter_mut().enumerate() {
                    if to != from {
                        port.down.take(time, frame.clone());
                    }
                }
                self.spare.push(frame);
            }
        }
    }

    /// Moves all that is due, and tells when the next frame is.
    fn advance(&mut self) -> Option<Nanos> {
        let time = now();
        for from in 0..self.ports.len() {
            if self.ports[from]
                .up
                .next_arrival()
                .is_none_or(|due| due > time)
            {
                continue;
            }
            while let Some((at, frame)) = self.ports[from].up.arrived(time + TRAIN) {
                self.forward(from, at, frame);
            }
        }
        for port in &mut self.ports {
            if port.down.next_arrival().is_none_or(|due| due > time) {
                continue;
            }
            while let Some((_, frame)) = port.down.arrived(time + TRAIN) {
                if rustix::io::write(&port.tap, &frame).is_err() {
                    // The host's interface is down.
                    port.down.dropped += 1;
                }
                self.spare.push(frame);
            }
        }
        let lines = self.ports.iter().flat_map(|port| [&port.up, &port.down]);
        lines.filter_map(Line::next_arrival).min()
    }

    fn report(&self) {
        for (index, port) in self.ports.iter().enumerate() {
            for (direction, line) in [("up", &port.up), ("down", &port.down)] {
                println!(
                    r#"{{"port":{index},"direction":"{direction}","frames":{},"bytes":{},"dropped":{}}}"#,
                    line.frames, line.bytes, line.dropped
                );
            }
        }
    }
}

/// The tap devices that the lab sends.
fn taps(control: impl AsFd) -> Vec<OwnedFd> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PORTS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(
        control,
        &mut [io::IoSliceMut::new(&mut byte)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    let mut taps = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            taps.extend(fds);
        }
    }
    taps
}

/// Sets the timer to a time of the monotonic clock; `None` stops it.
fn set_timer(timer: &OwnedFd, at: Option<Nanos>) {
    let zero = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // A time of zero would stop it.
    let value = at.map_or(zero, |at| Timespec {
        tv_sec: (at.max(1) / SECOND) as _,
        tv_nsec: (at.max(1) % SECOND) as _,
    });
    let value = Itimerspec {
        it_interval: zero,
        it_value: value,
    };
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &value).unwrap();
}

fn main() {
    let lines: Option<Vec<Line>> = std::env::args().skip(1).map(|a| Line::new(&a)).collect();
    let lines = lines.unwrap_or_else(|| panic!("usage: switch MBIT:DELAY_US:QUEUE_US ..."));
    let control = io::stdin();
    let taps = taps(&control);
    assert_eq!(taps.len(), lines.len(), "one tap device for each port");

    let poll = epoll::create(CreateFlags::CLOEXEC).unwrap();
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags).unwrap();
    let watch = |fd: &dyn AsFd, data| {
        epoll::add(&poll, fd.as_fd(), EventData::new_u64(data), EventFlags::IN).unwrap();
    };
    watch(&timer, TIMER);
    watch(&control, CONTROL);
    for (index, tap) in taps.iter().enumerate() {
        watch(tap, index as u64);
    }
    let ports = taps.into_iter().zip(lines).map(|(tap, line)| Port {
        tap,
        up: line.clone(),
        down: line,
    });
    let mut switch = Switch {
        ports: ports.collect(),
        learned: HashMap::new(),
        spare: Vec::new(),
        reading: vec![0; 1 << 17],
    };
    println!("ready");
    io::stdout().flush().unwrap();

    let mut events = Vec::with_capacity(64);
    let mut set = None;
    loop {
        // Who wakes us too early costs less than a timer that is set anew for each frame.
        let due = switch.advance();
        if due.is_some() && set.is_none_or(|set| due < Some(set) || set <= now()) {
            set_timer(&timer, due);
            set = due;
        }
        events.clear();
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => panic!("epoll: {e}"),
        }
        for event in &events {
            match event.data.u64() {
                TIMER => {
                    // It is readable until this, or until it is set anew.
                    let _ = rustix::io::read(&timer, &mut [0; 8]);
                    set = None;
                }
                CONTROL => {
                    switch.report();
                    return;
                }
                index => switch.receive(index as usize),
            }
        }
    }
}
