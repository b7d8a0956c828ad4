//! Pictures of runs. Invariant: a picture asks for nothing elsewhere, and is readable in light and in dark; what colour
//! tells is written beside its line too.

use std::fmt::Write;

use crate::report::Report;
use crate::scenario::Kind;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 48.0;
const TOP: f64 = 44.0;
/// From one panel's left edge to the next one's.
const PITCH: f64 = WIDTH + 220.0;

/// The hues follow M. Okabe, K. Ito: *Color Universal Design* (2008).
const STYLE: &str = "\
svg{color-scheme:light dark;--page:#fff;--text:#16191d;--soft:#50575f;--line:#d9dde2;--a:#1668b8;--b:#b07400;--c:#c44e00;\
--d:#50575f}\
@media(prefers-color-scheme:dark){svg{--page:#12151a;--text:#e9ecef;--soft:#a7b0ba;--line:#2e353e;--a:#5aa9f0;--b:#f2cc4d;\
--c:#ff8a4c;--d:#a7b0ba}}\
.page{fill:var(--page)}text{font:12px system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:var(--soft)}\
.title{fill:var(--text);font-weight:600}.grid{stroke:var(--line)}.line{fill:none;stroke-width:2}\
.target{stroke:var(--d);stroke-width:1.5;stroke-dasharray:6 4}";

/// Slowdown and upload of the seed against the number of guests, as SVG: of the plain flash crowds among the reports, one
/// line for each number of places of the seed (three at most).
pub fn plot(reports: &[Report]) -> String {
    let mut plain: Vec<&Report> = reports.iter().filter(|r| r.kind == Kind::Plain).collect();
    plain.sort_by_key(|r| r.guests);
    let (width, height) = (PITCH * 2.0 - 20.0, TOP + HEIGHT + 50.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"Slowdown and seed upload against the number of guests\"><style>{STYLE}</style>\
         <rect class=\"page\" width=\"{width}\" height=\"{height}\"/>"
    );
    let mut places: Vec<usize> = plain.iter().map(|r| r.seed_connections).collect();
    places.sort_unstable();
    places.dedup();
    let of = |places: usize, value: fn(&Report) -> f64| -> Vec<(f64, f64)> {
        let reports = plain.iter().filter(|r| r.seed_connections == places);
        reports.map(|r| (f64::from(r.guests), value(r))).collect()
    };
    let colours = ["a", "c", "b"];
    let mut slowdown = Vec::new();
    let mut upload = Vec::new();
    for (places, colour) in places.into_iter().zip(colours) {
        let named = |what: &str| format!("{what}, {places} places");
        let slowest = of(places, |r| r.figures.slowdown.max);
        slowdown.push((named("slowest"), colour, slowest));
        upload.push((named("seed"), colour, of(places, |r| r.figures.seed_upload)));
    }
    let bound = |r: &&Report| {
        let alone = r.figures.alone.first().copied().unwrap_or(f64::INFINITY);
        (f64::from(r.guests), (r.figures.bound / alone).max(1.0))
    };
    let bound = plain.iter().map(bound).collect();
    slowdown.push(("fluid bound".to_owned(), "d", bound));
    Panel {
        title: "Time of the slowest guest over that of one alone",
        lines: slowdown,
        targets: vec![(1.5, "1.5 (1,000)"), (1.7, "1.7 (5,000)")],
    }
    .draw(0.0, &mut out);
    Panel {
        title: "What the seed sends, over what one guest needs (F)",
        lines: upload,
        targets: vec![(10.0, "10 F")],
    }
    .draw(PITCH, &mut out);
    out.push_str("</svg>");
    out
}

/// Name, colour, and numbers of guests with their values.
type Line = (String, &'static str, Vec<(f64, f64)>);

struct Panel {
    title: &'static str,
    lines: Vec<Line>,
    targets: Vec<(f64, &'static str)>,
}

impl Panel {
    fn draw(&self, from: f64, out: &mut String) {
        let points = self.lines.iter().flat_map(|(.., points)| points);
        let most = points.clone().map(|(n, _)| *n).fold(10.0, f64::max);
        let largest = points.map(|(_, value)| *value);
        let largest = largest
            .chain(self.targets.iter().map(|t| t.0))
            .fold(0.0, f64::max);
        let step = step(largest / 5.0);
        let end = (largest / step).ceil() * step;
        let left = from + LEFT;
        // Guests on a logarithmic scale from 1.
        let x = |guests: f64| left + WIDTH * guests.max(1.0).ln() / (most * 1.2).ln();
        let y = |value: f64| TOP + HEIGHT * (1.0 - value / end);
        let _ = write!(
            out,
            "<text class=\"title\" x=\"{left:.0}\" y=\"20\">{}</text>",
            self.title
        );
        for n in 0..=(end / step).round() as u32 {
            let value = f64::from(n) * step;
            let (at, right) = (y(value), left + WIDTH);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{left:.0}\" x2=\"{right:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 6.0,
                at + 4.0,
                number(value)
            );
        }
        let bottom = TOP + HEIGHT;
        for guests in [1.0, 10.0, 100.0, 1000.0, 5000.0] {
            if guests > most {
                continue;
            }
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
                 <text x=\"{0:.1}\" y=\"{1:.0}\" text-anchor=\"middle\">{2}</text>",
                x(guests),
                bottom + 18.0,
                number(guests)
            );
        }
        let _ = write!(
            out,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">guests</text>",
            left + WIDTH / 2.0,
            bottom + 38.0
        );
        for (n, (value, name)) in self.targets.iter().enumerate() {
            // Below its line where the next one is close above.
            let close = self
                .targets
                .get(n + 1)
                .is_some_and(|next| y(*value) - y(next.0) < 18.0);
            let _ = write!(
                out,
                "<line class=\"target\" x1=\"{left:.0}\" x2=\"{:.0}\" y1=\"{1:.1}\" y2=\"{1:.1}\"/>\
                 <text x=\"{2:.0}\" y=\"{3:.1}\">at most {name}</text>",
                left + WIDTH,
                y(*value),
                left + 8.0,
                y(*value) + if close { 14.0 } else { -5.0 }
            );
        }
        let mut below = f64::NEG_INFINITY;
        let mut named: Vec<_> = self.lines.iter().collect();
        let last = |points: &[(f64, f64)]| points.last().map_or(0.0, |(_, value)| *value);
        named.sort_by(|a, b| last(&b.2).total_cmp(&last(&a.2)));
        for (name, colour, points) in named {
            let mut path = String::new();
            for (n, (guests, value)) in points.iter().enumerate() {
                let (command, x, y) = (if n == 0 { 'M' } else { 'L' }, x(*guests), y(*value));
                let _ = write!(path, "{command}{x:.1} {y:.1}");
                let _ = write!(
                    out,
                    "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" style=\"fill:var(--{colour})\"/>"
                );
            }
            let _ = write!(
                out,
                "<path class=\"line\" d=\"{path}\" style=\"stroke:var(--{colour})\"/>"
            );
            if let Some((guests, value)) = points.last() {
                // Names that would lie on each other are moved down.
                below = (y(*value) + 4.0).max(below + 14.0);
                let _ = write!(
                    out,
                    "<text x=\"{:.1}\" y=\"{below:.1}\" style=\"fill:var(--{colour})\">{name} {value:.2}</text>",
                    x(*guests) + 10.0
                );
            }
        }
    }
}

/// The least of 1, 2, 5 times a power of ten that is no less.
fn step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-6).log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0].into_iter();
    let mut steps = factors.map(|factor| factor * power);
    steps
        .find(|step| *step * (1.0 + 1e-9) >= least)
        .unwrap_or(power * 10.0)
}

fn number(value: f64) -> String {
    if value >= 1000.0 {
        return format!("{},{:03}", value as u64 / 1000, value as u64 % 1000);
    }
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_numbers_are_round() {
        assert_eq!([0.34, 2.0, 2.1, 7.0].map(step), [0.5, 2.0, 5.0, 10.0]);
        assert_eq!(
            [0.0, 0.5, 10.0, 5000.0].map(number),
            ["0", "0.5", "10", "5,000"]
        );
    }
}
