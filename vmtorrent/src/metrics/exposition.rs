//! Invariant: each name has one HELP and one TYPE line, in front of all of its samples, and no label can break a line.

use std::fmt::{self, Write};

/// A page in Prometheus' text exposition format, version 0.0.4.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a counter; its name ends in `_total`.
    pub(crate) fn counter<'a>(&'a mut self, name: &'a str, help: &'a str) -> Family<'a> {
        debug_assert!(name.ends_with("_total"), "{name}");
        self.family(name, help, "counter")
    }

    /// Begins a gauge.
    pub(crate) fn gauge<'a>(&'a mut self, name: &'a str, help: &'a str) -> Family<'a> {
        self.family(name, help, "gauge")
    }

    /// Begins a histogram.
    pub(crate) fn histogram<'a>(&'a mut self, name: &'a str, help: &'a str) -> Family<'a> {
        self.family(name, help, "histogram")
    }

    fn family<'a>(&'a mut self, name: &'a str, help: &'a str, kind: &'a str) -> Family<'a> {
        Family {
            text: &mut self.text,
            name,
            help,
            kind,
            begun: false,
        }
    }

    /// The page.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// One metric, to be given its samples; without any it leaves no trace.
pub(crate) struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
    help: &'a str,
    kind: &'a str,
    begun: bool,
}

impl Family<'_> {
    /// Adds a sample.
    pub(crate) fn sample(&mut self, labels: &Labels, value: impl Into<Value>) {
        self.line("", labels, value.into());
    }

    /// Adds a histogram: for each upper bound in seconds how many were at most that, the number and the
    /// sum of all.
    pub(crate) fn distribution(
        &mut self,
        labels: &Labels,
        buckets: &[(f64, u64)],
        count: u64,
        sum: f64,
    ) {
        for (bound, at_most) in buckets {
            let labels = labels.with("le", &bound.to_string());
            self.line("_bucket", &labels, Value::Whole(*at_most));
        }
        self.line("_bucket", &labels.with("le", "+Inf"), Value::Whole(count));
        self.line("_sum", labels, Value::Real(sum));
        self.line("_count", labels, Value::Whole(count));
    }

    fn line(&mut self, suffix: &str, labels: &Labels, value: Value) {
        let Self {
            name, help, kind, ..
        } = *self;
        // Writing into a string can't fail.
        if !std::mem::replace(&mut self.begun, true) {
            let _ = writeln!(self.text, "# HELP {name} {}", Escaped(help, false));
            let _ = writeln!(self.text, "# TYPE {name} {kind}");
        }
        let _ = match labels.0.as_str() {
            "" => writeln!(self.text, "{name}{suffix} {value}"),
            labels => writeln!(self.text, "{name}{suffix}{{{labels}}} {value}"),
        };
    }
}

/// The value of a sample.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    /// A number of things or bytes.
    Whole(u64),
    /// Seconds.
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => value.fmt(f),
            Self::Real(value) => value.fmt(f),
        }
    }
}

/// What tells samples of one name apart, as it stands between the braces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels(String);

impl Labels {
    /// No labels.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// These labels and one more.
    #[must_use]
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let comma = if self.0.is_empty() { "" } else { "," };
        Self(format!(
            "{}{comma}{name}=\"{}\"",
            self.0,
            Escaped(value, true)
        ))
    }
}

/// Text with what would end a line, or a label's value, written as an escape.
struct Escaped<'a>(&'a str, bool);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text, quoted) = *self;
        for c in text.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '"' if quoted => f.write_str("\\\"")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_introduced_once_and_an_empty_one_not_at_all() {
        let mut page = Exposition::default();
        let one = Labels::none().with("image", "a.img");
        let mut family = page.counter("x_total", "Things.");
        family.sample(&one.with("band", "demand"), 7);
        family.sample(&one, 8);
        page.gauge("unused", "Nothing.");
        page.gauge("y_seconds", "A time.")
            .sample(&Labels::none(), 0.25);
        assert_eq!(
            page.into_text(),
            "# HELP x_total Things.\n# TYPE x_total counter\n\
             x_total{image=\"a.img\",band=\"demand\"} 7\nx_total{image=\"a.img\"} 8\n\
             # HELP y_seconds A time.\n# TYPE y_seconds gauge\ny_seconds 0.25\n"
        );
    }

    #[test]
    fn a_hostile_name_stays_inside_its_quotes() {
        let mut page = Exposition::default();
        let labels = Labels::none().with("image", "a\"} 1\nfake_total 9\\");
        page.gauge("g", "Help with \"quotes\",\na line and a \\.")
            .sample(&labels, 1);
        assert_eq!(
            page.into_text(),
            "# HELP g Help with \"quotes\",\\na line and a \\\\.\n# TYPE g gauge\n\
             g{image=\"a\\\"} 1\\nfake_total 9\\\\\"} 1\n"
        );
    }

    #[test]
    fn a_histogram_ends_with_infinity_sum_and_count() {
        let mut page = Exposition::default();
        page.histogram("w_seconds", "Waits.").distribution(
            &Labels::none(),
            &[(0.005, 1), (10.0, 3)],
            4,
            61.5,
        );
        assert_eq!(
            page.into_text(),
            "# HELP w_seconds Waits.\n# TYPE w_seconds histogram\n\
             w_seconds_bucket{le=\"0.005\"} 1\nw_seconds_bucket{le=\"10\"} 3\n\
             w_seconds_bucket{le=\"+Inf\"} 4\nw_seconds_sum 61.5\nw_seconds_count 4\n"
        );
    }
}
