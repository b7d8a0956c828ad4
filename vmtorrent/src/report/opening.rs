//! Invariant: every moment of the first seconds is told as one thing: starting up, the guest running, or waiting.

use std::fmt::Write;
use std::time::Duration;

use super::data::Data;
use super::micros;
use crate::chart::Bytes;
use crate::chart::{Axis, Escaped, Frame, seconds};

/// How much of the run is told.
const SPAN: Duration = Duration::from_secs(2);
const HEIGHT: f64 = 60.0;
/// Columns of the strip, each of which is divided by what its time was spent on.
const COLUMNS: usize = 200;
const WIDE: f64 = COLUMNS as f64;

/// What a part of the time was spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Start,
    Run,
    Wait,
}

impl Kind {
    fn colour(self) -> &'static str {
        match self {
            Self::Start => "--start",
            Self::Run => "--run",
            Self::Wait => "--stall",
        }
    }
}

/// A row of the table: when something happened, and for how long.
struct Row {
    name: String,
    from: f64,
    to: f64,
    colour: &'static str,
}

/// The strip of the first two seconds, and what happened in them.
pub(crate) fn opening(data: &Data) -> String {
    let end = micros(SPAN.min(data.wall())).max(1.0);
    let parts = parts(data, end);
    let mut shapes = String::new();
    // From below: what was waited of each column, then what else there was.
    let mut below = [0.0; COLUMNS];
    for kind in [Kind::Wait, Kind::Run, Kind::Start] {
        let mut path = String::new();
        for (n, below) in below.iter_mut().enumerate() {
            let share = share(
                &parts,
                kind,
                n as f64 * end / WIDE,
                (n + 1) as f64 * end / WIDE,
            );
            if share > 0.0 {
                let (high, top) = (
                    (share * 100.0).round(),
                    ((1.0 - *below - share) * 100.0).round(),
                );
                let _ = write!(path, "M{n} {top}h1v{high}h-1z");
            }
            *below += share;
        }
        if !path.is_empty() {
            let colour = kind.colour();
            let _ = write!(
                shapes,
                "<path fill=\"var({colour})\" shape-rendering=\"crispEdges\" d=\"{path}\"/>"
            );
        }
    }
    let mut frame = Frame::new(HEIGHT);
    frame.x_axis(&Axis::time(end, 8), "wall time since the launch began");
    frame.stretched(COLUMNS, 100, &shapes);
    let strip = frame
        .finish("width=\"100%\" role=\"img\" aria-label=\"what the first seconds were spent on\"");

    let mut html = String::from("<p class=\"keys\">");
    for (kind, name) in [
        (Kind::Start, "starting up"),
        (Kind::Run, "the guest runs"),
        (Kind::Wait, "the guest waits for the swarm"),
    ] {
        let spent: f64 = parts
            .iter()
            .filter(|p| p.0 == kind)
            .map(|p| p.2 - p.1)
            .sum();
        let _ = write!(
            html,
            "<span><i style=\"background:var({})\"></i>{name}: {}</span>",
            kind.colour(),
            seconds(Duration::from_micros(spent as u64))
        );
    }
    let _ = write!(
        html,
        "</p><div class=\"plot\">{strip}</div><table class=\"gantt\">"
    );
    html.push_str("<tr><th>what</th><th>at</th><th>took</th><th class=\"wide\"></th></tr>");
    for row in rows(data) {
        let took = if row.to > row.from {
            seconds(Duration::from_micros((row.to - row.from) as u64))
        } else {
            "–".to_owned()
        };
        let (left, right) = ((row.from / end).min(1.0), (row.to / end).min(1.0));
        let mark = match row.from > end {
            true => "<span>later</span>".to_owned(),
            false => format!(
                "<b style=\"left:{:.2}%;width:max(3px,{:.2}%);background:var({})\"></b>",
                left * 100.0,
                (right - left) * 100.0,
                row.colour
            ),
        };
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{took}</td><td class=\"wide\"><div>{mark}</div></td></tr>",
            Escaped(&row.name),
            seconds(Duration::from_micros(row.from as u64))
        );
    }
    html.push_str(
        "</table><p class=\"soft\">That a peer is connected, and that bytes came, was seen at most 20 ms after it \
         happened.</p>",
    );
    html
}

/// The first `end` microseconds, cut where something else begins.
fn parts(data: &Data, end: f64) -> Vec<(Kind, f64, f64)> {
    let ready = data.phases.last().map_or(0.0, |p| micros(p.to)).min(end);
    let mut parts = vec![(Kind::Start, 0.0, ready)];
    let mut at = ready;
    for stall in &data.log.stalls {
        let from = data.wall_micros(stall.from).clamp(at, end);
        let to = data.wall_micros(stall.to).clamp(from, end);
        parts.push((Kind::Run, at, from));
        parts.push((Kind::Wait, from, to));
        at = to;
    }
    parts.push((Kind::Run, at, end));
    parts.retain(|(_, from, to)| to > from);
    parts
}

/// How much of a time was spent on one thing.
fn share(parts: &[(Kind, f64, f64)], kind: Kind, from: f64, to: f64) -> f64 {
    let begin = parts.partition_point(|part| part.2 <= from);
    let within = parts[begin..].iter().take_while(|part| part.1 < to);
    let spent = within
        .filter(|part| part.0 == kind)
        .map(|part| part.2.min(to) - part.1.max(from));
    spent.sum::<f64>() / (to - from)
}

fn rows(data: &Data) -> Vec<Row> {
    let phase = |p: &super::phases::Span| Row {
        name: p.phase.name().to_owned(),
        from: micros(p.from),
        to: micros(p.to),
        colour: Kind::Start.colour(),
    };
    let mut rows: Vec<Row> = data.phases.iter().map(phase).collect();
    let mut moment = |name: String, from: f64, to: f64, colour| {
        rows.push(Row {
            name,
            from,
            to,
            colour,
        });
    };
    let sampled = |found: fn(&super::sampler::Sample) -> bool| {
        let sample = data.samples.iter().find(|s| found(s))?;
        Some(micros(sample.at))
    };
    if let Some(at) = sampled(|s| s.peers > 0) {
        moment("a peer is connected".to_owned(), at, at, "--text");
    }
    if let Some(at) = sampled(|s| s.total() > 0) {
        moment("the first bytes came".to_owned(), at, at, "--text");
    }
    if let Some(read) = data.log.first_reads.first() {
        let at = data.wall_micros(read.at);
        moment("first read".to_owned(), at, at, "--text");
    }
    if let Some(stall) = data.log.stalls.first() {
        let (from, to) = (data.wall_micros(stall.from), data.wall_micros(stall.to));
        moment(
            "first wait for a missing block, until it was served".to_owned(),
            from,
            to,
            "--stall",
        );
    }
    let late = |r: &&crate::profile::FirstRead| data.wall_micros(r.at) <= micros(SPAN);
    let early = data.log.first_reads.iter().filter(late);
    let needed: u64 = early.map(|r| u64::from(r.needed)).sum();
    // Within a millisecond as they stand here: a read is noted when it already waits.
    rows.sort_by_key(|row| (row.from / 1e3) as u64);
    if let (Some(line), true) = (data.line, needed > 0) {
        let ready = data.phases.last().map_or(0.0, |p| micros(p.to));
        rows.push(Row {
            name: format!(
                "{} were needed in this time: on the line they take",
                Bytes(needed)
            ),
            from: ready,
            to: ready + needed as f64 / line.rate * 1e6,
            colour: "--profile",
        });
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::samples::{boot, empty};
    use super::*;

    #[test]
    fn the_parts_fill_the_first_seconds_without_a_gap() {
        for data in [boot(), empty()] {
            let end = micros(SPAN.min(data.wall())).max(1.0);
            let parts = parts(&data, end);
            assert_eq!(parts.first().unwrap().1, 0.0);
            assert_eq!(parts.last().unwrap().2, end);
            assert!(
                parts
                    .windows(2)
                    .all(|p| p[0].2 == p[1].1 && p[0].1 < p[0].2)
            );
        }
        assert!(parts(&boot(), 2e6).iter().any(|p| p.0 == Kind::Wait));
    }

    #[test]
    fn each_column_is_divided_by_what_its_time_was_spent_on() {
        let parts = [
            (Kind::Start, 0.0, 3.0),
            (Kind::Run, 3.0, 4.0),
            (Kind::Wait, 4.0, 6.0),
            (Kind::Run, 6.0, 8.0),
        ];
        let of = |from, to| {
            [Kind::Start, Kind::Run, Kind::Wait].map(|kind| share(&parts, kind, from, to))
        };
        assert_eq!(of(0.0, 2.0), [1.0, 0.0, 0.0]);
        assert_eq!(of(2.0, 6.0), [0.25, 0.25, 0.5]);
        assert_eq!(of(5.0, 7.0), [0.0, 0.5, 0.5]);
    }

    #[test]
    fn what_happened_is_told_in_order() {
        let html = opening(&boot());
        let order = [
            "session:",
            "image:",
            "appliance:",
            "VMM:",
            "first read",
            "first wait for a missing block",
            "were needed in this time",
        ];
        let places: Vec<usize> = order.map(|name| html.find(name).unwrap()).into();
        assert!(places.is_sorted(), "{html}");
        let html = opening(&empty());
        assert!(
            !html.contains("first read") && !html.contains("NaN"),
            "{html}"
        );
    }
}
