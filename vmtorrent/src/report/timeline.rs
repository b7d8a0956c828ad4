//! Invariant: all panels share one axis of wall time, so that what stands above each other happened together.

use std::fmt::Write;
use std::time::Duration;

use super::data::Data;
use super::micros;
use super::sampler::figure_at;
use crate::chart::{Anchor, Axis, Frame, Raster, grouped};

/// The bands in the order in which they are stacked, with the names of their colours.
pub(crate) const BANDS: [(&str, &str); 4] = [
    ("demand", "--demand"),
    ("read-ahead", "--ahead"),
    ("profile", "--profile"),
    ("background", "--background"),
];

const RATE_HEIGHT: f64 = 220.0;
const READS_HEIGHT: f64 = 240.0;
/// Most steps of the rates.
const STEPS: u32 = 300;
/// The least time over which a rate is told.
const STEP: Duration = Duration::from_millis(100);
/// Cells of the first reads.
const CELLS: (usize, usize) = (400, 80);
const MOST_RECTS: usize = 12_000;
/// Units across what is stretched.
const UNITS: usize = 10_000;

/// The wall time of the whole run.
pub(crate) fn wall_axis(data: &Data) -> Axis {
    Axis::time(micros(data.wall()), 10)
}

/// Bytes per second by band, over wall time.
pub(crate) fn rates(data: &Data) -> String {
    let axis = wall_axis(data);
    let wall = data.wall().max(Duration::from_millis(1));
    let step = STEP.max(wall / STEPS).min(wall);
    let steps = (wall.as_secs_f64() / step.as_secs_f64()).ceil().max(1.0) as u32;
    let rate = |n: u32, band: usize| {
        let (from, to) = (step * n, (step * (n + 1)).min(wall));
        let bytes = |at| figure_at(&data.samples, at, |s| s.fetched[band]);
        // Bytes that turn out to be in vain are taken back.
        (bytes(to) - bytes(from)).max(0.0) / (to - from).as_secs_f64().max(1e-6)
    };
    let rates: Vec<[f64; 4]> = (0..steps)
        .map(|n| [0, 1, 2, 3].map(|band| rate(n, band)))
        .collect();
    let highest = rates.iter().map(|r| r.iter().sum()).fold(0.0, f64::max);
    let line = data.line.map(|line| line.rate);
    let y = Axis::rate(highest.max(line.unwrap_or(0.0)), 5);

    let mut frame = Frame::new(RATE_HEIGHT);
    frame.y_axis(&y, "payload received");
    frame.x_axis(&axis, "wall time since the launch began");
    let mut shapes = stalls(data, &axis, 1000);
    let across = |n: u32| {
        let at = (step * n).min(wall).as_secs_f64() / wall.as_secs_f64();
        (at * UNITS as f64).round()
    };
    for (band, (_, colour)) in BANDS.iter().enumerate() {
        let level = |rates: &[f64; 4], bands: usize| {
            let sum: f64 = rates[..bands].iter().sum();
            1000.0 - (y.share(sum) * 1000.0).round()
        };
        if rates.iter().all(|r| r[band] == 0.0) {
            continue;
        }
        let mut path = String::new();
        for (n, rates) in rates.iter().enumerate() {
            let (lead, top) = (if n == 0 { 'M' } else { 'L' }, level(rates, band + 1));
            let (from, to) = (across(n as u32), across(n as u32 + 1));
            let _ = write!(path, "{lead}{from} {top}H{to}");
        }
        for (n, rates) in rates.iter().enumerate().rev() {
            let bottom = level(rates, band);
            let _ = write!(path, "V{bottom}H{}", across(n as u32));
        }
        let _ = write!(shapes, "<path fill=\"var({colour})\" d=\"{path}z\"/>");
    }
    frame.stretched(UNITS, 1000, &shapes);
    if let Some(rate) = line.filter(|rate| *rate <= y.end) {
        let at = RATE_HEIGHT * (1.0 - y.share(rate));
        frame.dashed(at);
        frame.text(
            1.0,
            at - 5.0,
            Anchor::End,
            "strong",
            format_args!("line {}", bits(rate)),
        );
    }
    frame.finish(
        "width=\"100%\" role=\"img\" aria-label=\"payload received by band over wall time\"",
    )
}

/// Where the image was first read, over wall time.
pub(crate) fn reads(data: &Data) -> String {
    let axis = wall_axis(data);
    let places = data
        .log
        .first_reads
        .iter()
        .filter_map(|r| data.image.place(r.file, r.block));
    let used = places.map(|place| place.end).max().unwrap_or(0);
    let (y, title) = Axis::offsets(data.image.length, used, 5);
    let mut frame = Frame::new(READS_HEIGHT);
    frame.y_axis(&y, &title);
    frame.x_axis(&axis, "wall time since the launch began");
    frame.stretched(UNITS, 1000, &stalls(data, &axis, 1000));
    let (columns, rows) = CELLS;
    let mut raster = Raster::new(columns, rows);
    for read in &data.log.first_reads {
        let Some(place) = data.image.place(read.file, read.block) else {
            continue;
        };
        let column = axis.share(data.wall_micros(read.at)) * columns as f64;
        let column = (column as usize).min(columns - 1);
        let top = ((1.0 - y.share(place.end as f64)) * rows as f64).max(0.0) as usize;
        let bottom = ((1.0 - y.share(place.start as f64)) * rows as f64).ceil() as usize;
        raster.raise(
            column..column + 1,
            top..bottom.max(top + 1),
            1 + u8::from(read.missed),
        );
    }
    let mut shapes = String::new();
    for (class, path) in raster.paths(MOST_RECTS) {
        let colour = if class == 2 { "--wait" } else { "--hit" };
        let _ = write!(shapes, "<path fill=\"var({colour})\" d=\"{path}\"/>");
    }
    frame.stretched(raster.columns(), raster.rows(), &shapes);
    if data.log.first_reads.is_empty() {
        frame.text(
            0.5,
            READS_HEIGHT / 2.0,
            Anchor::Middle,
            "strong",
            "nothing was read",
        );
    }
    frame.finish("width=\"100%\" role=\"img\" aria-label=\"offsets of first reads over wall time\"")
}

/// A rate as people name lines.
pub(crate) fn bits(rate: f64) -> String {
    let bits = rate * 8.0;
    let (value, unit) = match bits {
        b if b >= 9.995e8 => (b / 1e9, "Gbit/s"),
        b if b >= 9.995e5 => (b / 1e6, "Mbit/s"),
        b => (b / 1e3, "kbit/s"),
    };
    if value >= 1000.0 {
        format!("{} {unit}", grouped(value as u64))
    } else if value >= 99.95 || (value - value.round()).abs() < 0.005 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// The times of waiting as bars over `height` units. Such as stand closer than the eye can tell become one.
fn stalls(data: &Data, axis: &Axis, height: u32) -> String {
    let place = |at: u64| {
        let at = axis.share(data.wall_micros(at)) * UNITS as f64;
        at.clamp(0.0, UNITS as f64) as u64
    };
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for stall in &data.log.stalls {
        let (from, to) = (
            place(stall.from),
            place(stall.to).max(place(stall.from) + 4),
        );
        match spans.last_mut() {
            Some(last) if from <= last.1 + 4 => last.1 = last.1.max(to),
            _ => spans.push((from, to)),
        }
    }
    let mut path = String::new();
    for (from, to) in spans {
        let _ = write!(path, "M{from} 0h{0}v{height}h-{0}z", to - from);
    }
    match path.is_empty() {
        true => path,
        false => format!("<path class=\"stall\" d=\"{path}\"/>"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{boot, empty};
    use super::*;

    #[test]
    fn bands_that_brought_something_are_drawn_with_the_stalls_below_them() {
        let svg = rates(&boot());
        for part in [
            "class=\"stall\"",
            "--demand",
            "--ahead",
            "--profile",
            "line 100 Mbit/s",
            "(MB/s)",
        ] {
            assert!(svg.contains(part), "no {part}");
        }
        assert!(
            !svg.contains("--background"),
            "nothing came in the background"
        );
        assert!(svg.len() < 60_000, "{} bytes", svg.len());
        let svg = reads(&boot());
        assert!(svg.contains("--hit") && svg.contains("--wait"));
        assert!(svg.len() < 300_000, "{} bytes", svg.len());
    }

    #[test]
    fn a_run_without_any_read_is_drawn_too() {
        let svg = rates(&empty()) + &reads(&empty());
        assert!(svg.contains("nothing was read"));
        assert!(
            !svg.contains("<path") && !svg.contains("NaN") && !svg.contains("inf"),
            "{svg}"
        );
    }

    #[test]
    fn rates_are_named_as_lines_are() {
        for (rate, text) in [
            (12_500_000.0, "100 Mbit/s"),
            (11_937_500.0, "95.5 Mbit/s"),
            (125_000_000.0, "1 Gbit/s"),
            (62_500.0, "500 kbit/s"),
            (1e13, "80,000 Gbit/s"),
        ] {
            assert_eq!(bits(rate), text);
        }
    }
}
