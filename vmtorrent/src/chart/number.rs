//! Invariant: a number is shown with its unit, and with no more digits than anybody reads.

use std::fmt;
use std::time::Duration;

/// With a comma before each three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time: `0`, `640 µs`, `3.1 ms`, `64 ms`, `1.23 s`, `12.3 s`, `17 min 5 s`.
pub(crate) fn seconds(time: Duration) -> String {
    let s = time.as_secs_f64();
    if time.is_zero() {
        "0 s".to_owned()
    } else if s < 0.000_999_5 {
        format!("{:.0} µs", s * 1e6)
    } else if s < 0.009_95 {
        format!("{:.1} ms", s * 1e3)
    } else if s < 0.999_5 {
        format!("{:.0} ms", s * 1e3)
    } else if s < 9.995 {
        format!("{s:.2} s")
    } else if s < 599.95 {
        format!("{s:.1} s")
    } else {
        let whole = s.round() as u64;
        format!("{} min {} s", grouped(whole / 60), whole % 60)
    }
}

/// The same of microseconds.
pub(crate) fn micros(time: f64) -> String {
    seconds(Duration::try_from_secs_f64(time / 1e6).unwrap_or_default())
}

/// A share of a whole; a dash when there is no whole.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    let share = part as f64 / whole as f64 * 100.0;
    // Neither "100.0 %" of what is not all, nor "0.0 %" of what is not nothing.
    match share {
        _ if part == 0 => "0 %".to_owned(),
        _ if part == whole => "100 %".to_owned(),
        s if s < 0.05 => "< 0.1 %".to_owned(),
        s if s >= 99.95 && part < whole => "> 99.9 %".to_owned(),
        s => format!("{s:.1} %"),
    }
}

/// Shows a number of bytes to people, by powers of 1024.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter();
        let mut unit = units.next().unwrap_or_default();
        for larger in units {
            if value < 1024.0 {
                break;
            }
            value /= 1024.0;
            unit = larger;
        }
        if unit == "B" {
            write!(f, "{} B", self.0)
        } else {
            write!(f, "{value:.1} {unit}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_groups_of_three() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (131_072, "131,072"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn times_have_the_unit_that_fits() {
        for (micro, text) in [
            (0, "0 s"),
            (640, "640 µs"),
            (1_000, "1.0 ms"),
            (3_140, "3.1 ms"),
            (64_400, "64 ms"),
            (999_700, "1.00 s"),
            (1_234_000, "1.23 s"),
            (12_345_000, "12.3 s"),
            (1_025_000_000, "17 min 5 s"),
        ] {
            assert_eq!(seconds(Duration::from_micros(micro)), text);
        }
        assert_eq!(micros(f64::NAN), "0 s");
        assert_eq!(micros(-4.0), "0 s");
    }

    #[test]
    fn shares_claim_neither_all_nor_nothing_falsely() {
        assert_eq!(percent(1, 0), "–");
        assert_eq!(percent(0, 7), "0 %");
        assert_eq!(percent(7, 7), "100 %");
        assert_eq!(percent(1, 100_000), "< 0.1 %");
        assert_eq!(percent(99_999, 100_000), "> 99.9 %");
        assert_eq!(percent(1, 3), "33.3 %");
    }

    #[test]
    fn bytes_are_shown_in_the_largest_fitting_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (67_108_864, "64.0 MiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
