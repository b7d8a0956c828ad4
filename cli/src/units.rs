//! Invariant: a number is taken exactly as it was meant or refused with an example of a good one.

const RATE_HELP: &str =
    "write bytes per second such as 500K, 12.5M or 1Gi, or bits such as 100mbit";
const SIZE_HELP: &str = "write a whole number of bytes such as 65536 or 64K";

/// Parses a RATE into bytes per second.
///
/// K, M, G are powers of 1000, Ki, Mi, Gi powers of 1024; `bit`, `kbit`, `mbit`, `gbit` count bits by powers of 1000.
pub fn rate(text: &str) -> Result<u64, String> {
    let number = Number::parse(text).ok_or(RATE_HELP)?;
    let (factor, divisor) = match number.suffix.to_ascii_lowercase().as_str() {
        "" => (1, 1),
        "k" => (1000, 1),
        "m" => (1000 * 1000, 1),
        "g" => (1000 * 1000 * 1000, 1),
        "ki" => (1 << 10, 1),
        "mi" => (1 << 20, 1),
        "gi" => (1 << 30, 1),
        "bit" => (1, 8),
        "kbit" => (1000, 8),
        "mbit" => (1000 * 1000, 8),
        "gbit" => (1000 * 1000 * 1000, 8),
        _ => return Err(RATE_HELP.to_owned()),
    };
    let bytes = number.digits * factor / divisor / number.scale;
    match u64::try_from(bytes) {
        Ok(0) => Err("less than one byte per second; leave the option out for no limit".to_owned()),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err("more than any line carries; leave the option out for no limit".to_owned()),
    }
}

/// Parses a SIZE, in which K, M, G and Ki, Mi, Gi are powers of 1024, into bytes of a piece.
pub fn piece_size(text: &str) -> Result<u32, String> {
    u32::try_from(size(text).ok_or(SIZE_HELP)?)
        .map_err(|_| "a piece can't be that large; write for example 64K or 1M".to_owned())
}

/// Parses how many times as fast something goes.
pub fn speed(text: &str) -> Result<f64, String> {
    let factor = text.parse().ok().filter(|f| (1e-3..=1e6).contains(f));
    factor.ok_or_else(|| "write a number from 0.001 to 1000000 such as 2 or 0.5".to_owned())
}

/// Parses a SIZE into bytes of storage.
pub fn disk_size(text: &str) -> Result<u64, String> {
    match size(text).map(u64::try_from) {
        Some(Ok(0)) => Err("nothing could be kept; leave the option out for no limit".to_owned()),
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(_)) => {
            Err("more than any disk holds; leave the option out for no limit".to_owned())
        }
        None => Err("write a whole number of bytes such as 10G or 500M".to_owned()),
    }
}

/// Parses a SIZE into bytes of a machine's memory: whole MiB.
pub fn memory(text: &str) -> Result<u64, String> {
    let bytes = size(text).and_then(|bytes| u64::try_from(bytes).ok());
    bytes
        .filter(|bytes| *bytes > 0 && bytes.is_multiple_of(1 << 20))
        .ok_or_else(|| "write a whole number of MiB such as 512M or 2G".to_owned())
}

/// A whole number of bytes, by powers of 1024.
fn size(text: &str) -> Option<u128> {
    let number = Number::parse(text).filter(|n| n.scale == 1)?;
    let factor: u128 = match number.suffix.to_ascii_lowercase().as_str() {
        "" => 1,
        "k" | "ki" => 1 << 10,
        "m" | "mi" => 1 << 20,
        "g" | "gi" => 1 << 30,
        _ => return None,
    };
    Some(number.digits * factor)
}

/// A decimal number and what follows it: `digits / scale`, then `suffix`.
struct Number<'a> {
    digits: u128,
    scale: u128,
    suffix: &'a str,
}

impl<'a> Number<'a> {
    /// At most 18 digits, so that the products above can't overflow.
    fn parse(text: &'a str) -> Option<Self> {
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = match number.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (number, ""),
        };
        if whole.is_empty() || whole.len() + fraction.len() > 18 {
            return None;
        }
        Some(Self {
            digits: format!("{whole}{fraction}").parse().ok()?,
            scale: 10_u128.pow(fraction.len() as u32),
            suffix,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_count_bytes_by_thousands_and_bits_by_eighths() {
        for (text, bytes) in [
            ("1", 1),
            ("500K", 500_000),
            ("500k", 500_000),
            ("12.5M", 12_500_000),
            ("2G", 2_000_000_000),
            ("1Ki", 1024),
            ("1.5Mi", 1_572_864),
            ("1gi", 1 << 30),
            ("100mbit", 12_500_000),
            ("100Mbit", 12_500_000),
            ("1gbit", 125_000_000),
            ("500kbit", 62_500),
            ("8bit", 1),
        ] {
            assert_eq!(rate(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_count_by_powers_of_1024() {
        for (text, bytes) in [
            ("65536", 65_536),
            ("64K", 65_536),
            ("64Ki", 65_536),
            ("1M", 1 << 20),
            ("1Gi", 1 << 30),
        ] {
            assert_eq!(piece_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_on_disk_go_beyond_those_of_pieces_and_are_not_zero() {
        assert_eq!(disk_size("10G"), Ok(10 << 30));
        assert_eq!(disk_size("123456789012"), Ok(123_456_789_012));
        for text in ["0", "0K", "999999999999999999G", "1.5G", "10GB", ""] {
            assert!(disk_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "",
            "K",
            "-1",
            "+1",
            "1.",
            ".5M",
            "1..5M",
            "1.2.3",
            "1 M",
            "1MB/s",
            "1Q",
            "0x10",
            "１",
            "M1",
            "1000000000000000000000000",
            "1e9",
        ] {
            assert!(rate(text).is_err(), "rate {text:?}");
            assert!(piece_size(text).is_err(), "size {text:?}");
        }
        assert!(piece_size("1.5M").is_err());
        assert!(piece_size("4G").is_err(), "does not fit");
        assert!(rate("999999999999999999G").is_err(), "does not fit");
    }

    #[test]
    fn a_limit_of_nothing_is_refused() {
        for text in ["0", "0M", "0.5", "7bit"] {
            assert!(rate(text).is_err_and(|e| e.contains("no limit")), "{text}");
        }
    }
}
