use super::*;

const BLOCK: u32 = BLOCK_LENGTH;

/// A peer behind a line of a fixed rate and delay that answers in order.
struct Line {
    path: PathEstimator,
    now: Time,
    rate: f64,
    rtt: Duration,
    busy_until: Time,
    under_way: VecDeque<(Time, SendMark, u32)>,
    /// What our own line adds, behind what we send.
    delay: Duration,
    /// Bytes on the line for a byte of each block, in turn.
    shares: Vec<f64>,
    sent: usize,
}

impl Line {
    fn new(mbit: f64, rtt_ms: u64) -> Self {
        Self {
            path: PathEstimator::new(Time::default(), None),
            now: Time::default(),
            rate: mbit * 125_000.0,
            rtt: Duration::from_millis(rtt_ms),
            busy_until: Time::default(),
            under_way: VecDeque::new(),
            delay: Duration::ZERO,
            shares: vec![1.0],
            sent: 0,
        }
    }

    fn fill(&mut self) {
        while self.path.in_flight() + u64::from(self.path.on_line(BLOCK)) <= self.path.target()
            || self.under_way.is_empty()
        {
            let mark = self.path.on_send(self.now, BLOCK);
            let wire = f64::from(BLOCK) * self.shares[self.sent % self.shares.len()];
            self.sent += 1;
            let half = self.rtt / 2;
            let start = self.busy_until.max(self.now + self.delay + half);
            self.busy_until = start + Duration::from_secs_f64(wire / self.rate);
            self.under_way
                .push_back((self.busy_until + half, mark, wire as u32));
        }
    }

    fn run(&mut self, seconds: u64) -> u64 {
        let end = self.now + Duration::from_secs(seconds);
        let before = self.path.delivered();
        while self.now < end {
            self.fill();
            let Some((at, mark, wire)) = self.under_way.pop_front() else {
                break;
            };
            self.now = at;
            self.path.on_receive_of(at, &mark, wire);
        }
        self.path.delivered() - before
    }
}

#[test]
fn the_line_is_kept_busy_with_little_queued() {
    for (mbit, rtt) in [(100.0, 20), (100.0, 1), (1000.0, 40), (5.0, 100)] {
        let mut line = Line::new(mbit, rtt);
        line.run(5);
        let got = line.run(30) as f64 / 30.0;
        let share = got / line.rate;
        assert!(
            share > 0.93,
            "{mbit} Mbit/s {rtt} ms: {share:.3} of the line"
        );
        let product = line.rate * line.rtt.as_secs_f64();
        let limit = product * 1.6 + 3.0 * f64::from(BLOCK);
        let target = line.path.target() as f64;
        assert!(
            target < limit,
            "{mbit} Mbit/s {rtt} ms: {target} queued, {product} needed"
        );
    }
}

#[test]
fn the_line_is_kept_busy_also_by_blocks_that_come_compressed_and_with_no_more_queued() {
    // All alike; by turns; and mostly empty ones with some that save nothing.
    for shares in [vec![0.4], vec![0.2, 0.6], vec![0.02, 0.02, 0.02, 1.0]] {
        for (mbit, rtt) in [(100.0, 20), (25.0, 20), (1000.0, 40)] {
            let mut line = Line::new(mbit, rtt);
            line.shares = shares.clone();
            line.run(5);
            let got = line.run(30) as f64 / 30.0 / line.rate;
            assert!(
                got > 0.9,
                "{shares:?}, {mbit} Mbit/s {rtt} ms: {got:.3} of the line"
            );
            let product = line.rate * line.rtt.as_secs_f64();
            let limit = product * 1.6 + 3.0 * f64::from(BLOCK);
            assert!((line.path.target() as f64) < limit, "{shares:?}, {mbit}");
        }
    }
}

#[test]
fn blocks_that_are_compressed_no_more_hold_up_nothing_for_long() {
    let mut line = Line::new(25.0, 20);
    let queued = |line: &Line| line.under_way.len() as f64 * f64::from(BLOCK) / line.rate;
    line.run(10);
    for share in [0.4, 0.1, 0.02, 0.001] {
        line.shares = vec![share];
        line.run(20);
        // If all that is in flight were full. A round trip of the line takes 20 ms.
        let most = queued(&line);
        assert!(most < 0.17, "{share}: {most} s");
        assert!(line.path.rate() > 0.8 * line.rate, "{share}");
        line.shares = vec![1.0];
        let got = line.run(1) as f64;
        assert!(got > 0.85 * line.rate, "{share}: {got}");
        assert!(queued(&line) < 0.05, "{share}");
    }
}

#[test]
fn a_line_that_gets_faster_is_found_out() {
    let mut line = Line::new(10.0, 20);
    line.run(20);
    line.rate *= 10.0;
    line.run(20);
    let got = line.run(5) as f64 / 5.0;
    assert!(got / line.rate > 0.9, "{:.2}", got / line.rate);
}

#[test]
fn idle_time_does_not_lower_the_rate() {
    let mut line = Line::new(100.0, 20);
    line.run(5);
    let before = line.path.rate();
    line.under_way.clear();
    line.path.in_flight = 0;
    line.now = line.now + Duration::from_secs(60);
    line.busy_until = line.now;
    let mark = line.path.on_send(line.now, BLOCK);
    let rtt = line.rtt + Duration::from_secs_f64(f64::from(BLOCK) / line.rate);
    line.path.on_receive(line.now + rtt, &mark);
    assert!(line.path.rate() >= before * 0.9);
}

/// With a line of ours that is full of what we send: the share of the peer's rate that comes, and the bytes requested at the end.
fn behind_what_we_send(told: bool) -> (f64, f64) {
    let mut line = Line::new(12.0, 2);
    line.run(5);
    line.path.note_sending(told);
    line.delay = Duration::from_millis(50);
    line.run(1);
    let got = line.run(3) as f64 / 3.0;
    (got / line.rate, line.path.target() as f64)
}

#[test]
fn requests_that_wait_behind_what_we_send_are_made_up_for() {
    let (share, target) = behind_what_we_send(true);
    assert!(share > 0.93, "{share:.3} of the line");
    // Of the line's 2 ms, those of a block and 50, a quarter more, and a block.
    let round_trip = 0.052 + f64::from(BLOCK) / (12.0 * 125_000.0);
    let most = 12.0 * 125_000.0 * round_trip * 1.25 + 2.0 * f64::from(BLOCK);
    assert!(target < most, "{target} of {most}");
    // So it would be without: two blocks a round trip.
    let (share, _) = behind_what_we_send(false);
    assert!(share < 0.6, "{share:.3} of the line");
}

#[test]
fn what_our_line_added_is_forgotten_when_we_send_no_more() {
    let mut line = Line::new(12.0, 2);
    line.run(5);
    let before = line.path.target();
    line.path.note_sending(true);
    line.delay = Duration::from_millis(50);
    line.run(5);
    assert!(line.path.target() > 2 * before);
    line.delay = Duration::ZERO;
    line.path.note_sending(false);
    line.run(5);
    assert!(line.path.target() <= 2 * before);
}
