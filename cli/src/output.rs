//! Invariant: stdout carries JSON events and nothing else, one object a line; what is for people goes to stderr.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use vmtorrent::Stats;

use vmtorrent::text::Bytes;

/// How often a plain line tells how far it is, if anything changed.
const PLAIN_PERIOD: Duration = Duration::from_secs(10);

/// A line of `--json`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event<'a> {
    /// The image can be opened, or the seed reached.
    Ready(Ready<'a>),
    /// Each second.
    Progress(&'a Stats),
    /// The last line.
    Done(&'a Stats),
}

/// What `ready` tells.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Ready<'a> {
    /// An appliance.
    Launch {
        /// Path of the largest file of the image.
        disk: &'a str,
        /// Directory of all of its files.
        dir: &'a str,
        /// Where peers connect.
        listen: SocketAddr,
        /// URL of the metrics.
        metrics: Option<String>,
        /// 40 hexadecimal digits.
        info_hash: String,
        /// Length of the image.
        image_bytes: u64,
    },
    /// A seed.
    Seed {
        /// Where peers connect.
        listen: SocketAddr,
        /// Announce URL of the tracker that runs here.
        tracker: Option<String>,
        /// URL of the metrics.
        metrics: Option<String>,
        /// 40 hexadecimal digits.
        info_hash: String,
        /// Length of the image.
        image_bytes: u64,
        /// The link to it.
        magnet: String,
    },
}

/// The line at the bottom of the terminal; hidden until [`Output`] shows it. The log goes around it.
#[derive(Clone)]
pub struct LiveLine(ProgressBar);

impl LiveLine {
    /// A hidden line.
    pub fn hidden() -> Self {
        Self(ProgressBar::with_draw_target(
            None,
            ProgressDrawTarget::hidden(),
        ))
    }

    /// Takes it away.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }

    fn show(&self) {
        self.0.set_draw_target(ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            self.0.set_style(style);
        }
    }

    fn set(&self, text: impl fmt::Display) {
        self.0.set_message(text.to_string());
        self.0.tick();
    }

    /// Writes to stderr around the line. A closed stderr is no reason to end a guest.
    fn print(&self, text: impl fmt::Display) {
        self.0.suspend(|| {
            let _ = writeln!(io::stderr(), "{text}");
        });
    }
}

impl Write for LiveLine {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

enum Mode {
    Json,
    Live,
    Plain,
    Brief,
}

/// Tells how a command goes on.
pub struct Output {
    mode: Mode,
    line: LiveLine,
    last: Option<(Instant, Stats)>,
    rate: f64,
    plain: Option<(Instant, String)>,
}

impl Output {
    /// Events with `json`; else a live line on a terminal and a plain line now and then elsewhere. With
    /// `shares_terminal` somebody else writes on the terminal (a guest's console), and nothing is drawn over it.
    pub fn new(json: bool, shares_terminal: bool, line: LiveLine) -> Self {
        let mode = if json {
            Mode::Json
        } else if !io::stderr().is_terminal() {
            Mode::Plain
        } else if shares_terminal {
            Mode::Brief
        } else {
            line.show();
            Mode::Live
        };
        Self {
            mode,
            line,
            last: None,
            rate: 0.0,
            plain: None,
        }
    }

    /// Whether only events are wanted.
    pub fn is_json(&self) -> bool {
        matches!(self.mode, Mode::Json)
    }

    /// Says that it is ready: the event, or `text`.
    pub fn ready(&self, ready: Ready<'_>, text: impl fmt::Display) {
        match self.mode {
            Mode::Json => print_event(&Event::Ready(ready)),
            Mode::Live | Mode::Plain | Mode::Brief => self.line.print(text),
        }
    }

    /// Tells the counters; to be called each second.
    pub fn progress(&mut self, stats: Stats, view: View) {
        let now = Instant::now();
        if let Some((then, before)) = &self.last {
            let bytes = view.moved(&stats).saturating_sub(view.moved(before));
            let rate = bytes as f64 / (now - *then).as_secs_f64().max(0.001);
            self.rate = if self.rate == 0.0 {
                rate
            } else {
                0.6 * self.rate + 0.4 * rate
            };
        }
        match self.mode {
            Mode::Json => print_event(&Event::Progress(&stats)),
            Mode::Live => self.line.set(view.text(&stats, self.rate)),
            Mode::Plain => {
                let state = view.text(&stats, 0.0);
                let due = match &self.plain {
                    None => true,
                    Some((then, before)) => now - *then >= PLAIN_PERIOD && *before != state,
                };
                if due {
                    self.line.print(view.text(&stats, self.rate));
                    self.plain = Some((now, state));
                }
            }
            Mode::Brief => {}
        }
        self.last = Some((now, stats));
    }

    /// Tells how far a piece of work is: only on a terminal.
    pub fn work(&self, text: impl fmt::Display) {
        if matches!(self.mode, Mode::Live) {
            self.line.set(text);
        }
    }

    /// Says on stderr that something is wrong, though it goes on.
    pub fn warn(&self, text: impl fmt::Display) {
        self.line.print(format_args!("vmtorrent: {text}"));
    }

    /// Takes the live line away and says `text`, unless only events are wanted.
    pub fn say(&self, text: impl fmt::Display) {
        self.line.clear();
        if !self.is_json() {
            self.line.print(text);
        }
    }

    /// The last word: the event, or a report.
    pub fn done(&self, stats: &Stats, view: View) {
        self.line.clear();
        match self.mode {
            Mode::Json => print_event(&Event::Done(stats)),
            Mode::Live | Mode::Plain | Mode::Brief => self.line.print(view.report(stats)),
        }
    }
}

/// Which counters matter to the reader.
#[derive(Clone, Copy, Debug)]
pub enum View {
    /// Those of an appliance.
    Appliance,
    /// Those of a seed.
    Seed,
}

impl View {
    fn moved(self, stats: &Stats) -> u64 {
        match self {
            Self::Appliance => stats.fetched_bytes,
            Self::Seed => stats.uploaded_bytes,
        }
    }

    fn text(self, s: &Stats, rate: f64) -> String {
        let rate = Bytes(rate as u64);
        match self {
            Self::Appliance => format!(
                "present {} of {} · fetched {} ({rate}/s) · uploaded {} · stalls {} ({:.1} s) · peers {}",
                Bytes(s.present_bytes),
                Bytes(s.image_bytes),
                Bytes(s.fetched_bytes),
                Bytes(s.uploaded_bytes),
                s.stalls,
                s.stall_seconds,
                s.peers
            ),
            Self::Seed => format!(
                "uploaded {} ({rate}/s) · peers {}",
                Bytes(s.uploaded_bytes),
                s.peers
            ),
        }
    }

    fn report(self, s: &Stats) -> String {
        match self {
            Self::Appliance => format!(
                "image    {}, of which {} present\n\
                 fetched  {}, {} on the wire: demand {}, read-ahead {}, profile {}, background {}; {} in vain\n\
                 uploaded {}, {} on the wire\n\
                 stalls   {}, {:.1} s in all; half of them under {:.0} ms, 99 % under {:.0} ms\n\
                 guest    read {}, wrote {}",
                Bytes(s.image_bytes),
                Bytes(s.present_bytes),
                Bytes(s.fetched_bytes),
                Bytes(s.fetched_wire_bytes),
                Bytes(s.demand_bytes),
                Bytes(s.readahead_bytes),
                Bytes(s.profile_bytes),
                Bytes(s.background_bytes),
                Bytes(s.wasted_bytes),
                Bytes(s.uploaded_bytes),
                Bytes(s.uploaded_wire_bytes),
                s.stalls,
                s.stall_seconds,
                s.demand_p50_ms,
                s.demand_p99_ms,
                Bytes(s.guest_read_bytes),
                Bytes(s.guest_written_bytes)
            ),
            Self::Seed => format!(
                "uploaded {}, {} on the wire",
                Bytes(s.uploaded_bytes),
                Bytes(s.uploaded_wire_bytes)
            ),
        }
    }
}

/// A reader that went away is no reason to end a guest.
fn print_event(event: &Event<'_>) {
    match serde_json::to_string(event) {
        Ok(line) => {
            let mut stdout = io::stdout().lock();
            let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        }
        Err(e) => tracing::error!("an event can't be written as JSON: {e}"),
    }
}

/// Where metrics are served that were asked for on an address.
pub fn metrics_url(address: SocketAddr) -> String {
    format!("http://{address}/metrics")
}

/// A path for an event: JSON holds Unicode only, so other bytes are replaced.
pub fn json_path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn events_are_flat_objects_named_by_their_event() {
        let ready = Event::Ready(Ready::Launch {
            disk: "/m/disk.img",
            dir: "/m",
            listen: SocketAddr::from(([127, 0, 0, 1], 7)),
            metrics: Some(metrics_url(SocketAddr::from(([127, 0, 0, 1], 8)))),
            info_hash: "00ff".to_owned(),
            image_bytes: 5,
        });
        assert_eq!(
            serde_json::to_value(&ready).unwrap(),
            json!({"event": "ready", "disk": "/m/disk.img", "dir": "/m", "listen": "127.0.0.1:7",
                   "metrics": "http://127.0.0.1:8/metrics",
                   "info_hash": "00ff", "image_bytes": 5})
        );
        let seed = Event::Ready(Ready::Seed {
            listen: SocketAddr::from(([127, 0, 0, 1], 7)),
            tracker: None,
            metrics: None,
            info_hash: "00ff".to_owned(),
            image_bytes: 5,
            magnet: "magnet:?x".to_owned(),
        });
        let seed = serde_json::to_value(&seed).unwrap();
        assert_eq!(seed["tracker"], Value::Null);
        assert_eq!(seed["magnet"], "magnet:?x");

        let stats = Stats::default();
        for (event, name) in [
            (Event::Progress(&stats), "progress"),
            (Event::Done(&stats), "done"),
        ] {
            let value = serde_json::to_value(&event).unwrap();
            assert_eq!(value["event"], name);
            for field in [
                "image_bytes",
                "fetched_bytes",
                "fetched_wire_bytes",
                "demand_bytes",
                "readahead_bytes",
                "profile_bytes",
                "background_bytes",
                "uploaded_bytes",
                "uploaded_wire_bytes",
                "wasted_bytes",
                "stalls",
                "stall_seconds",
                "demand_p50_ms",
                "demand_p99_ms",
            ] {
                assert!(value[field].is_number(), "{name}.{field}");
            }
        }
    }
}
