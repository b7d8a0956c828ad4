//! Invariant: marks stand at round numbers, in order, and all within the axis.

/// A number on an axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mark {
    /// Its place, as a share of the axis.
    pub(crate) at: f64,
    /// How it is written.
    pub(crate) text: String,
}

/// An axis from 0.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    /// What lies at its end; never 0.
    pub(crate) end: f64,
    /// What its numbers count; empty where each names its own unit.
    pub(crate) unit: &'static str,
    /// Its numbers.
    pub(crate) marks: Vec<Mark>,
}

/// Units of time with their microseconds and the length from which on they are used.
const TIMES: [(&str, f64, f64); 5] = [
    ("h", 3.6e9, 5.0 * 3.6e9),
    ("min", 6e7, 3e8),
    ("s", 1e6, 2e6),
    ("ms", 1e3, 2e3),
    ("µs", 1.0, 0.0),
];

const SIZES: [(&str, f64); 5] = [
    ("TiB", (1_u64 << 40) as f64),
    ("GiB", (1_u64 << 30) as f64),
    ("MiB", (1_u64 << 20) as f64),
    ("KiB", 1024.0),
    ("B", 1.0),
];

impl Axis {
    /// Of microseconds; ends where the data does.
    pub(crate) fn time(end: f64, most: usize) -> Self {
        let end = positive(end);
        let (unit, scale, _) = TIMES
            .into_iter()
            .find(|(_, _, from)| end >= *from)
            .unwrap_or(("µs", 1.0, 0.0));
        let step = decimal_step(end / scale, most);
        Self {
            end,
            unit,
            marks: decimal_marks(end / scale, step),
        }
    }

    /// Of bytes, by powers of two; ends where the data does.
    pub(crate) fn bytes(end: f64, most: usize) -> Self {
        let end = positive(end);
        let step = (end / most.max(1) as f64).max(1.0).log2().ceil().exp2();
        let marks = (0..=most)
            .map(|n| n as f64 * step)
            .take_while(|at| *at <= end)
            .map(|at| Mark {
                at: at / end,
                text: size(at),
            });
        Self {
            end,
            unit: "",
            marks: marks.collect(),
        }
    }

    /// Of offsets in something of `length` bytes of which nothing behind `used` is shown: where much would stay empty,
    /// it ends a little behind that. Gives its title too.
    pub(crate) fn offsets(length: u64, used: u64, most: usize) -> (Self, String) {
        if used == 0 || used >= length / 5 * 3 {
            let axis = Self::bytes(length as f64, most);
            return (axis, "offset in the image".to_owned());
        }
        let axis = Self::bytes(used as f64 * 1.08, most);
        let title = format!("offset in the image, which has {}", size(length as f64));
        (axis, title)
    }

    /// Of bytes per second, in MB/s; ends at a mark.
    pub(crate) fn rate(end: f64, most: usize) -> Self {
        // A line of less is none.
        let megabytes = positive(end).max(1000.0) / 1e6;
        let step = decimal_step(megabytes, most);
        let end = (megabytes / step - 1e-9).ceil() * step;
        Self {
            end: end * 1e6,
            unit: "MB/s",
            marks: decimal_marks(end, step),
        }
    }

    /// The place of a value, as a share of the axis.
    pub(crate) fn share(&self, value: f64) -> f64 {
        value / self.end
    }
}

fn positive(end: f64) -> f64 {
    if end.is_finite() && end > 0.0 {
        end
    } else {
        1.0
    }
}

/// The least of 1, 2, 5 times a power of ten that divides a length into at most so many parts.
fn decimal_step(length: f64, most: usize) -> f64 {
    let least = length / most.max(1) as f64;
    let power = 10_f64.powf(least.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0].into_iter();
    let mut steps = factors.map(|factor| factor * power);
    // 4.000000001 is 4.
    let fits = |step: &f64| *step * (1.0 + 1e-9) >= least;
    steps.find(fits).unwrap_or(10.0 * power)
}

fn decimal_marks(end: f64, step: f64) -> Vec<Mark> {
    let decimals = (-step.log10() + 1e-9).ceil().clamp(0.0, 9.0) as usize;
    let count = (end / step + 1e-9).floor() as usize;
    let mark = |n: usize| {
        let value = n as f64 * step;
        Mark {
            at: (value / end).min(1.0),
            text: match n {
                0 => "0".to_owned(),
                _ => format!("{value:.decimals$}"),
            },
        }
    };
    (0..=count).map(mark).collect()
}

/// Bytes in the largest unit that fits, without needless zeros: `64 KiB`, `1.25 MiB`.
pub(crate) fn size(bytes: f64) -> String {
    if bytes == 0.0 {
        return "0".to_owned();
    }
    let (unit, scale) = SIZES
        .into_iter()
        .find(|(_, scale)| bytes >= *scale)
        .unwrap_or(("B", 1.0));
    let text = format!("{:.2}", bytes / scale);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.marks.iter().map(|m| m.text.as_str()).collect()
    }

    #[test]
    fn times_get_round_numbers_in_the_unit_that_fits() {
        let second = 1e6;
        for (end, most, unit, marks) in [
            (
                14.2 * second,
                8,
                "s",
                vec!["0", "2", "4", "6", "8", "10", "12", "14"],
            ),
            (2.0 * second, 4, "s", vec!["0", "0.5", "1.0", "1.5", "2.0"]),
            (0.3 * second, 3, "ms", vec!["0", "100", "200", "300"]),
            (1500.0, 3, "µs", vec!["0", "500", "1000", "1500"]),
            (
                1800.0 * second,
                6,
                "min",
                vec!["0", "5", "10", "15", "20", "25", "30"],
            ),
            (86400.0 * second, 5, "h", vec!["0", "5", "10", "15", "20"]),
        ] {
            let axis = Axis::time(end, most);
            assert_eq!((axis.unit, texts(&axis)), (unit, marks), "{end}");
        }
    }

    #[test]
    fn sizes_go_by_powers_of_two() {
        let axis = Axis::bytes((1_u64 << 30) as f64, 4);
        assert_eq!(
            texts(&axis),
            ["0", "256 MiB", "512 MiB", "768 MiB", "1 GiB"]
        );
        let axis = Axis::bytes(1.7 * 1048576.0, 8);
        assert_eq!(
            texts(&axis),
            [
                "0", "256 KiB", "512 KiB", "768 KiB", "1 MiB", "1.25 MiB", "1.5 MiB"
            ]
        );
        assert_eq!(texts(&Axis::bytes(1.0, 8)), ["0", "1 B"]);
    }

    #[test]
    fn what_stays_empty_is_left_out_and_said() {
        let (axis, title) = Axis::offsets(1 << 30, 900 << 20, 8);
        assert_eq!(
            (axis.end, title.as_str()),
            ((1_u64 << 30) as f64, "offset in the image")
        );
        let (axis, title) = Axis::offsets(1 << 30, 100 << 20, 8);
        assert_eq!(axis.end, 108.0 * 1048576.0);
        assert!(title.ends_with("has 1 GiB"), "{title}");
        assert_eq!(Axis::offsets(0, 0, 8).0.end, 1.0);
    }

    #[test]
    fn rates_end_at_a_mark() {
        let axis = Axis::rate(12_400_000.0, 4);
        assert_eq!(texts(&axis), ["0", "5", "10", "15"]);
        assert_eq!((axis.end, axis.marks[3].at), (15e6, 1.0));
        assert_eq!(Axis::rate(10e6, 5).end, 10e6);
    }

    #[test]
    fn marks_are_few_in_order_and_within_whatever_the_length() {
        let ends = (0..400).map(|n| 10_f64.powf(f64::from(n) / 23.0 - 3.0));
        for end in ends.chain([0.0, -1.0, f64::NAN, f64::INFINITY, 1e300]) {
            for axis in [Axis::time(end, 7), Axis::bytes(end, 7), Axis::rate(end, 7)] {
                assert!(axis.end > 0.0 && axis.end.is_finite());
                assert!((1..=8).contains(&axis.marks.len()), "{end}: {axis:?}");
                assert_eq!(axis.marks[0].at, 0.0);
                assert!(axis.marks.iter().all(|m| m.at <= 1.0 + 1e-9));
                assert!(axis.marks.windows(2).all(|m| m[0].at < m[1].at));
                assert!(
                    axis.marks.windows(2).all(|m| m[0].text != m[1].text),
                    "{axis:?}"
                );
            }
        }
        assert_eq!(
            Axis::time(Duration::from_secs(4).as_micros() as f64, 4).share(1e6),
            0.25
        );
    }
}
