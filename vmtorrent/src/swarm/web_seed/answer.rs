//! Invariant: an answer is read only if it says that it is what was asked for, of the file that the image has.

use std::ops::Range;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{
    AsHeaderName, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, HeaderMap,
    RETRY_AFTER,
};

use super::failure::Failure;

/// Of a server that sends the whole file whatever was asked for, so many bytes at its beginning are taken.
const WHOLE: u64 = 256 << 10;

/// A part of a file that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) range: Range<u64>,
    /// Bytes of the file as the image has it.
    pub(super) file_length: u64,
}

/// Bytes of the body that come before those that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Skip(pub(super) u64);

impl Wanted {
    /// Looks at the head of an answer.
    pub(super) fn check(&self, status: StatusCode, headers: &HeaderMap) -> Result<Skip, Failure> {
        match status {
            StatusCode::PARTIAL_CONTENT => self.check_part(headers),
            StatusCode::OK => self.check_whole(headers),
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let total = text(headers, CONTENT_RANGE)
                    .and_then(|t| t.strip_prefix("bytes */"))
                    .and_then(|n| n.trim().parse().ok());
                self.check_length(total)?;
                Err(failed(status, headers))
            }
            _ => Err(failed(status, headers)),
        }
    }

    fn check_part(&self, headers: &HeaderMap) -> Result<Skip, Failure> {
        check_coding(headers)?;
        if text(headers, CONTENT_TYPE)
            .is_some_and(|t| t.to_ascii_lowercase().starts_with("multipart/"))
        {
            return Err(Failure::useless("it answers with several parts in one"));
        }
        let told = text(headers, CONTENT_RANGE).and_then(parse_range);
        let Some((range, total)) = told else {
            return Err(Failure::useless(
                "it does not say which part of the file it sends (Content-Range)",
            ));
        };
        self.check_length(total)?;
        if range != self.range {
            return Err(Failure::broken(format!(
                "it sends bytes {range:?} when asked for {:?}",
                self.range
            )));
        }
        let length = self.range.end - self.range.start;
        match content_length(headers) {
            Some(n) if n > length => Err(Failure::useless(format!(
                "its answer is longer than what was asked for: {n} bytes instead of {length}"
            ))),
            Some(n) if n < length => Err(Failure::broken(format!(
                "its answer is shorter than what was asked for: {n} bytes instead of {length}"
            ))),
            _ => Ok(Skip(0)),
        }
    }

    /// It has sent the whole file.
    fn check_whole(&self, headers: &HeaderMap) -> Result<Skip, Failure> {
        check_coding(headers)?;
        self.check_length(content_length(headers))?;
        if self.range.end > WHOLE {
            return Err(Failure::useless(
                "it sends whole files only (it ignores Range)",
            ));
        }
        Ok(Skip(self.range.start))
    }

    fn check_length(&self, told: Option<u64>) -> Result<(), Failure> {
        match told {
            Some(total) if total != self.file_length => Err(Failure::useless(format!(
                "the file there has {total} bytes, and that of the image {}",
                self.file_length
            ))),
            _ => Ok(()),
        }
    }
}

fn check_coding(headers: &HeaderMap) -> Result<(), Failure> {
    match text(headers, CONTENT_ENCODING) {
        Some(coding) if !coding.eq_ignore_ascii_case("identity") => Err(Failure::useless(
            "it sends the file in another encoding (Content-Encoding)",
        )),
        _ => Ok(()),
    }
}

fn failed(status: StatusCode, headers: &HeaderMap) -> Failure {
    // Its own text may hold anything.
    let reason = format!("it answers with status {}", status.as_u16());
    let failure = match status {
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::CONFLICT
        | StatusCode::TOO_EARLY
        | StatusCode::TOO_MANY_REQUESTS => Failure::busy(reason),
        status if status.is_server_error() => Failure::busy(reason),
        _ => Failure::refused(reason),
    };
    failure.retry_after(retry_after(headers))
}

/// How long the server wants to be left alone: seconds, or a date, which is compared with its own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let told = text(headers, RETRY_AFTER)?.trim();
    if let Ok(seconds) = told.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(told).ok()?;
    let now = httpdate::parse_http_date(text(headers, DATE)?).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

/// `bytes FIRST-LAST/TOTAL`: the range, and the length of the file if it is told.
fn parse_range(text: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (unit, rest) = text.trim().split_once(' ')?;
    let (range, total) = rest.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (number(first)?, number(last)?);
    let total = match total {
        "*" => None,
        total => Some(number(total)?),
    };
    let holds = unit.eq_ignore_ascii_case("bytes")
        && first <= last
        && last < u64::MAX
        && total.is_none_or(|t| last < t);
    holds.then(|| (first..last + 1, total))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    number(text(headers, CONTENT_LENGTH)?)
}

/// A number as HTTP writes it: digits only.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

fn text(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::super::failure::FailureKind;
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            range: 1000..3000,
            file_length: 10_000,
        }
    }

    fn check(status: u16, headers: &[(&'static str, &str)]) -> Result<Skip, Failure> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        wanted().check(StatusCode::from_u16(status).unwrap(), &map)
    }

    #[test]
    fn only_the_part_that_was_asked_for_is_taken() {
        assert_eq!(
            check(206, &[("content-range", "bytes 1000-2999/10000")]),
            Ok(Skip(0))
        );
        assert_eq!(
            check(
                206,
                &[
                    ("content-range", "Bytes 1000-2999/*"),
                    ("content-length", "2000")
                ]
            ),
            Ok(Skip(0))
        );
        for (headers, kind, said) in [
            (vec![], FailureKind::Useless, "Content-Range"),
            (
                vec![("content-range", "bytes 1000-2999/20000")],
                FailureKind::Useless,
                "20000 bytes",
            ),
            (
                vec![("content-range", "bytes 1001-3000/10000")],
                FailureKind::Broken,
                "1001..3001",
            ),
            (
                vec![("content-range", "bytes 1000-1999/10000")],
                FailureKind::Broken,
                "1000..2000",
            ),
            (
                vec![("content-range", "bytes 3000-1000/10000")],
                FailureKind::Useless,
                "Content-Range",
            ),
            (
                vec![("content-range", "bytes 1000-18446744073709551615/*")],
                FailureKind::Useless,
                "Content-Range",
            ),
            (
                vec![("content-range", "bytes +1000-2999/*")],
                FailureKind::Useless,
                "Content-Range",
            ),
            (
                vec![
                    ("content-range", "bytes 1000-2999/10000"),
                    ("content-length", "2001"),
                ],
                FailureKind::Useless,
                "longer",
            ),
            (
                vec![
                    ("content-range", "bytes 1000-2999/10000"),
                    ("content-length", "10"),
                ],
                FailureKind::Broken,
                "shorter",
            ),
            (
                vec![
                    ("content-range", "bytes 1000-2999/10000"),
                    ("content-encoding", "gzip"),
                ],
                FailureKind::Useless,
                "Content-Encoding",
            ),
            (
                vec![("content-type", "Multipart/byteranges; boundary=x")],
                FailureKind::Useless,
                "several parts",
            ),
        ] {
            let failure = check(206, &headers).unwrap_err();
            assert_eq!(failure.kind, kind, "{headers:?}: {failure}");
            assert!(failure.reason.contains(said), "{headers:?}: {failure}");
        }
    }

    #[test]
    fn a_whole_file_is_taken_only_at_its_beginning() {
        assert_eq!(check(200, &[("content-length", "10000")]), Ok(Skip(1000)));
        assert_eq!(check(200, &[]), Ok(Skip(1000)));
        let longer = check(200, &[("content-length", "10001")]).unwrap_err();
        assert_eq!(longer.kind, FailureKind::Useless);
        let late = Wanted {
            range: WHOLE..WHOLE + 1,
            file_length: 1 << 30,
        };
        let refused = late.check(StatusCode::OK, &HeaderMap::new()).unwrap_err();
        assert!(refused.reason.contains("ignores Range"), "{refused}");
        assert_eq!(refused.kind, FailureKind::Useless);
    }

    #[test]
    fn other_answers_tell_whether_it_is_worth_trying_again() {
        for (status, kind) in [
            (404, FailureKind::Refused),
            (403, FailureKind::Refused),
            (410, FailureKind::Refused),
            (204, FailureKind::Refused),
            (304, FailureKind::Refused),
            (416, FailureKind::Refused),
            (408, FailureKind::Busy),
            (429, FailureKind::Busy),
            (500, FailureKind::Busy),
            (503, FailureKind::Busy),
        ] {
            let failure = check(status, &[]).unwrap_err();
            assert_eq!(failure.kind, kind, "{status}");
            assert!(failure.reason.contains(&status.to_string()), "{failure}");
        }
        let shorter = check(416, &[("content-range", "bytes */900")]).unwrap_err();
        assert_eq!(shorter.kind, FailureKind::Useless);
        assert!(shorter.reason.contains("900 bytes"), "{shorter}");
    }

    #[test]
    fn the_time_to_wait_is_told_in_seconds_or_by_a_date() {
        let after = |headers: &[(&'static str, &str)]| {
            let failure = check(503, headers).unwrap_err();
            failure.retry_after.map(|d| d.as_secs())
        };
        assert_eq!(after(&[("retry-after", "120")]), Some(120));
        let date = "Fri, 31 Dec 1999 23:59:59 GMT";
        let later = "Sat, 01 Jan 2000 00:00:29 GMT";
        assert_eq!(after(&[("retry-after", later), ("date", date)]), Some(30));
        assert_eq!(after(&[("retry-after", date), ("date", later)]), Some(0));
        assert_eq!(after(&[("retry-after", later)]), None);
        assert_eq!(after(&[("retry-after", "-5")]), None);
        assert_eq!(after(&[]), None);
    }
}
