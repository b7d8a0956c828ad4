//! Invariant: the widest gap that is drawn between need and line is the floor that is told.

use std::fmt::Write;
use std::time::Duration;

use super::data::{Data, Waits};
use super::micros;
use crate::chart::{Anchor, Axis, Frame, seconds};

const HEIGHT: f64 = 280.0;
/// Units across and down.
const UNITS: usize = 10_000;

/// The moment at which the line would lag most behind the guest.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tightest {
    /// Guest time, microseconds.
    at: f64,
    /// Bytes needed by then.
    needed: u64,
    /// When the line alone would have brought them.
    there: f64,
}

/// Bytes needed and bytes fetched against guest time, with what the line gives.
pub(crate) fn curve(data: &Data) -> String {
    let waits = Waits::new(&data.log.stalls);
    let guest = |at: Duration| {
        let at = at.saturating_sub(data.recorded_from);
        let at = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        (at - waits.until(at).min(at)) as f64
    };
    let rate = data.line.map(|line| line.rate);
    let tightest = rate.and_then(|rate| tightest(data, rate));
    let last_read = data
        .log
        .first_reads
        .iter()
        .map(|r| r.guest_time as f64)
        .fold(0.0, f64::max);
    let end = guest(data.wall())
        .max(last_read)
        .max(tightest.map_or(0.0, |t| t.there * 1.02));
    let fetched = data.samples.last().map_or(0, |s| s.total());
    let most = fetched.max(data.log.needed_bytes());
    let x = Axis::time(end, 10);
    let y = Axis::bytes(most as f64 * 1.05, 6);

    let mut frame = Frame::new(HEIGHT);
    frame.y_axis(&y, "bytes since the launch began");
    frame.x_axis(&x, "guest time");
    let place = |time: f64, bytes: f64| {
        let across = (x.share(time) * UNITS as f64).round();
        let down = ((1.0 - y.share(bytes)) * UNITS as f64).round();
        (across as i64, down as i64)
    };

    let mut shapes = String::new();
    if let Some(rate) = rate {
        // To where it leaves the picture.
        let time = end.min(y.end / rate * 1e6);
        let (across, down) = place(time, rate * time / 1e6);
        let _ = write!(
            shapes,
            "<path class=\"line rate\" d=\"M0 {UNITS}L{across} {down}\"/>"
        );
    }
    let mut path = Steps::new();
    let mut sum = 0;
    for read in data.log.first_reads.iter().filter(|r| r.needed > 0) {
        sum += u64::from(read.needed);
        let (across, down) = place(read.guest_time as f64, sum as f64);
        path.step(across, down);
    }
    let (across, down) = place(guest(data.wall()).max(last_read), sum as f64);
    let _ = write!(
        shapes,
        "<path class=\"line needed\" d=\"{}\"/>",
        path.end(across, down)
    );
    let mut path = Steps::new();
    for sample in &data.samples {
        let (across, down) = place(guest(sample.at), sample.total() as f64);
        path.slope(across, down);
    }
    let _ = write!(shapes, "<path class=\"line fetched\" d=\"{}\"/>", path.text);
    if let Some(tightest) = tightest {
        let needed = tightest.needed as f64;
        let ((from, down), (to, _)) = (place(tightest.at, needed), place(tightest.there, needed));
        let _ = write!(
            shapes,
            "<path class=\"line gap\" d=\"M{from} {down}H{to}\"/>"
        );
    }
    frame.stretched(UNITS, UNITS, &shapes);
    if let Some(tightest) = tightest {
        let floor = Duration::try_from_secs_f64((tightest.there - tightest.at) / 1e6);
        let down = HEIGHT * (1.0 - y.share(tightest.needed as f64)) - 7.0;
        let (from, to) = (x.share(tightest.at), x.share(tightest.there));
        let text = format!("floor {}", seconds(floor.unwrap_or_default()));
        // Beside what it names, on the side that has room.
        let (at, anchor) = if from > 0.8 {
            (to, Anchor::End)
        } else {
            (from, Anchor::Start)
        };
        frame.text(at, down.max(12.0), anchor, "strong", text);
    }
    frame.finish(
        "width=\"100%\" role=\"img\" aria-label=\"bytes needed and bytes fetched over guest time\"",
    )
}

/// As [`RunLog::floor`](crate::profile::RunLog::floor) finds it; `None` when the line is never behind.
fn tightest(data: &Data, rate: f64) -> Option<Tightest> {
    let mut needed = 0;
    let mut found: Option<Tightest> = None;
    for read in &data.log.first_reads {
        needed += u64::from(read.needed);
        let here = Tightest {
            at: read.guest_time as f64,
            needed,
            there: needed as f64 / rate * 1e6,
        };
        let gap = |t: &Tightest| t.there - t.at;
        if gap(&here) > found.as_ref().map_or(0.0, gap) {
            found = Some(here);
        }
    }
    found
}

/// The two stalls beside each other, as bars of HTML.
pub(crate) fn comparison(data: &Data) -> String {
    let had = data.stalled();
    let floor = data.floor();
    let longest = micros(had.max(floor.unwrap_or_default())).max(1.0);
    let bar = |name: &str, time: Duration, colour: &str| {
        format!(
            "<div class=\"bar\"><span>{name}</span><b style=\"width:{:.2}%;background:var({colour})\"></b>\
             <span>{}</span></div>",
            micros(time) / longest * 60.0,
            seconds(time)
        )
    };
    let mut html = bar("waited in this run", had, "--stall");
    if let Some(floor) = floor {
        html.push_str(&bar("floor of this line", floor, "--profile"));
    }
    html
}

/// A path of few points: such as fall on the place of the last one are left out.
struct Steps {
    text: String,
    last: (i64, i64),
}

/// Points closer than this, in units, are one.
const CLOSE: i64 = 6;

impl Steps {
    fn new() -> Self {
        Self {
            text: format!("M0 {UNITS}"),
            last: (0, UNITS as i64),
        }
    }

    /// Across first, then up.
    fn step(&mut self, across: i64, down: i64) {
        if across - self.last.0 >= CLOSE {
            let _ = write!(self.text, "H{across}V{down}");
            self.last = (across, down);
        } else if self.last.1 - down >= CLOSE {
            let _ = write!(self.text, "V{down}");
            self.last.1 = down;
        }
    }

    fn slope(&mut self, across: i64, down: i64) {
        if across - self.last.0 >= CLOSE || (down - self.last.1).abs() >= CLOSE {
            let _ = write!(self.text, "L{across} {down}");
            self.last = (across, down);
        }
    }

    fn end(mut self, across: i64, down: i64) -> String {
        let _ = write!(self.text, "V{down}H{across}");
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{boot, empty};
    use super::*;

    #[test]
    fn the_gap_that_is_drawn_is_the_floor() {
        let data = boot();
        let found = tightest(&data, data.line.unwrap().rate).unwrap();
        let floor = data.floor().unwrap();
        assert!(((found.there - found.at) / 1e6 - floor.as_secs_f64()).abs() < 1e-6);
        let svg = curve(&data);
        assert!(svg.contains(&format!("floor {}", seconds(floor))), "{svg}");
        assert!(svg.len() < 60_000, "{} bytes", svg.len());
        assert_eq!(tightest(&data, 1e12), None);
    }

    #[test]
    fn a_run_without_any_read_has_a_picture_and_no_floor_to_show() {
        let svg = curve(&empty());
        assert!(!svg.contains("floor") && !svg.contains("NaN"), "{svg}");
        assert!(!comparison(&empty()).contains("floor"));
    }
}
