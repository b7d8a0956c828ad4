//! Invariant: every moment of the first seconds is told as one thing: starting up, the guest running, or waiting.

use std::fmt::Write;
use std::time::Duration;

use super::data::Data;
use super::micros;
use crate::chart::{Axis, Escaped, Frame, seconds};
use crate::units::Bytes;

/// How much of the run is told.
const SPAN: Duration = Duration::from_secs(2);
const HEIGHT: f64 = 34.0;
const UNITS: f64 = 10_000.0;

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
pub fn opening(data: &Data) -> String {
    let end = micros(SPAN.min(data.wall())).max(1.0);
    let parts = parts(data, end);
    let mut shapes = String::new();
    for (kind, from, to) in &parts {
        let (x, width) = (from / end * UNITS, (to - from) / end * UNITS);
        let colour = kind.colour();
        let _ = write!(
            shapes,
            "<rect x=\"{x:.0}\" width=\"{width:.1}\" height=\"10\" fill=\"var({colour})\"/>"
        );
    }
    let mut frame = Frame::new(HEIGHT);
    frame.x_axis(&Axis::time(end, 8), "wall time since the launch began");
    frame.stretched(UNITS as usize, 10, &shapes);
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
    html.push_str("</table>");
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
    let late = |r: &&vmtorrent::profile::FirstRead| data.wall_micros(r.at) <= micros(SPAN);
    let early = data.log.first_reads.iter().filter(late);
    let needed: u64 = early.map(|r| u64::from(r.needed)).sum();
    rows.sort_by(|a, b| a.from.total_cmp(&b.from));
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
