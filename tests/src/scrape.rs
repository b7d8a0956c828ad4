//! Invariant: a page that breaks the exposition format 0.0.4, or a rule that this project set itself, is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;

/// The labels of a sample.
pub type Labels = BTreeMap<String, String>;

/// A page of metrics.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    families: BTreeMap<String, Family>,
}

/// A metric: all lines of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// Full name, labels and value of each sample, in order.
    pub samples: Vec<(String, Labels, f64)>,
}

/// Gets the metrics from their URL.
///
/// # Panics
/// If there are none, or they break a rule.
pub fn scrape(url: &str) -> Scrape {
    let address = url.strip_prefix("http://").unwrap();
    let address = address.strip_suffix("/metrics").unwrap();
    let answer = http(address, "GET /metrics HTTP/1.1\r\nhost: test\r\n\r\n");
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"),
        "{head}"
    );
    Scrape::parse(page).unwrap_or_else(|why| panic!("{why}\nin:\n{page}"))
}

/// Sends a request and gives the whole answer.
///
/// # Panics
/// If nobody answers.
pub fn http(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

impl Scrape {
    /// Reads a page.
    ///
    /// # Errors
    /// What is wrong with which line.
    pub fn parse(page: &str) -> Result<Self, String> {
        if !page.ends_with('\n') {
            return Err("the last line does not end".to_owned());
        }
        let mut scrape = Self::default();
        let mut introduced: Option<String> = None;
        let mut current: Option<String> = None;
        for line in page.split_terminator('\n') {
            let failed = |why: &str| Err(format!("{why}: {line:?}"));
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
                if introduced.is_some() || scrape.families.contains_key(name) {
                    return failed("a second HELP, or one without a TYPE");
                }
                if !is_name(name, true) || help.is_empty() || unescape(help, false).is_none() {
                    return failed("no good HELP");
                }
                introduced = Some(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
                if introduced.take().as_deref() != Some(name) {
                    return failed("TYPE without HELP");
                }
                if !["counter", "gauge", "histogram"].contains(&kind) {
                    return failed("an unknown type");
                }
                if (kind == "counter") != name.ends_with("_total") {
                    return failed("counters, and they alone, end in _total");
                }
                let family = Family {
                    kind: kind.to_owned(),
                    samples: Vec::new(),
                };
                scrape.families.insert(name.to_owned(), family);
                current = Some(name.to_owned());
            } else {
                let Some(name) = current.as_deref().filter(|_| introduced.is_none()) else {
                    return failed("a sample without TYPE");
                };
                let sample = sample(line).map_err(|why| format!("{why}: {line:?}"))?;
                let family = scrape.families.get_mut(name).unwrap();
                let suffix = sample.0.strip_prefix(name);
                let fits = match family.kind.as_str() {
                    "histogram" => matches!(suffix, Some("_bucket" | "_sum" | "_count")),
                    _ => suffix == Some(""),
                };
                if !fits {
                    return failed("a sample away from its TYPE");
                }
                if family.kind != "gauge" && sample.2 < 0.0 {
                    return failed("below zero");
                }
                let same =
                    |other: &(String, Labels, f64)| (&other.0, &other.1) == (&sample.0, &sample.1);
                if family.samples.iter().any(same) {
                    return failed("a sample twice");
                }
                family.samples.push(sample);
            }
        }
        for (name, family) in &scrape.families {
            if family.samples.is_empty() {
                return Err(format!("{name} has no sample"));
            }
            if family.kind == "histogram" {
                check_histogram(name, family)?;
            }
        }
        Ok(scrape)
    }

    /// The metrics by name.
    pub fn families(&self) -> &BTreeMap<String, Family> {
        &self.families
    }

    /// The value of the one sample that has these labels among others.
    ///
    /// # Panics
    /// If there is none, or more than one.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let values: Vec<f64> = self
            .samples()
            .filter(|(sample, found, _)| {
                *sample == name
                    && labels
                        .iter()
                        .all(|(l, v)| found.get(*l).is_some_and(|f| f == v))
            })
            .map(|(_, _, value)| value)
            .collect();
        assert_eq!(values.len(), 1, "{name} {labels:?}: {values:?}");
        values[0]
    }

    /// The sum of all samples of this name.
    pub fn sum(&self, name: &str) -> f64 {
        self.samples()
            .filter(|(sample, ..)| *sample == name)
            .map(|(_, _, value)| value)
            .sum()
    }

    /// All samples: name, labels, value.
    pub fn samples(&self) -> impl Iterator<Item = (&str, &Labels, f64)> {
        let samples = self.families.values().flat_map(|f| &f.samples);
        samples.map(|(name, labels, value)| (name.as_str(), labels, *value))
    }

    /// What this page has fallen behind an earlier one in, though it only grows.
    pub fn fallen_since(&self, before: &Scrape) -> Vec<String> {
        let mut fallen = Vec::new();
        for (name, family) in &before.families {
            for (sample, labels, value) in family.samples.iter().filter(|_| family.kind != "gauge")
            {
                let now = self.families.get(name).and_then(|f| {
                    let mut now = f.samples.iter();
                    now.find(|(s, l, _)| s == sample && l == labels)
                });
                if now.is_none_or(|(_, _, now)| now < value) {
                    fallen.push(format!("{sample}{labels:?}: {value}, then {now:?}"));
                }
            }
        }
        fallen
    }
}

/// Each set of buckets is ordered, cumulative, and ends at the count.
fn check_histogram(name: &str, family: &Family) -> Result<(), String> {
    let mut sets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    let mut others: BTreeMap<Labels, BTreeMap<&str, f64>> = BTreeMap::new();
    for (sample, labels, value) in &family.samples {
        let mut labels = labels.clone();
        match (sample.strip_prefix(name), labels.remove("le")) {
            (Some("_bucket"), Some(le)) => {
                let bound = number(&le).ok_or(format!("{name}: bound {le}"))?;
                sets.entry(labels).or_default().push((bound, *value));
            }
            (Some(suffix), None) => {
                others.entry(labels).or_default().insert(suffix, *value);
            }
            _ => return Err(format!("{name}: a bucket without le, or le elsewhere")),
        }
    }
    if sets.keys().ne(others.keys()) {
        return Err(format!(
            "{name}: buckets without a sum, or the other way round"
        ));
    }
    for (labels, buckets) in sets {
        let rising = buckets
            .windows(2)
            .all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1);
        let last = buckets.last().copied();
        let count = others[&labels].get("_count").copied();
        if !rising
            || last.map(|l| l.0) != Some(f64::INFINITY)
            || last.map(|l| l.1) != count
            || !others[&labels].contains_key("_sum")
        {
            return Err(format!(
                "{name}: buckets don't add up: {buckets:?}, {count:?}"
            ));
        }
    }
    Ok(())
}

fn sample(line: &str) -> Result<(String, Labels, f64), &'static str> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name, true) {
        return Err("no good name");
    }
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").ok_or("no label")?;
            if !is_name(label, false) {
                return Err("no good label");
            }
            let end = quote(after).ok_or("a label without end")?;
            let (value, after) = after.split_at(end);
            let value = unescape(value, true).ok_or("a wrong escape")?;
            if labels.insert(label.to_owned(), value).is_some() {
                return Err("a label twice");
            }
            rest = &after[1..];
            match rest.split_at_checked(1) {
                Some((",", after)) => rest = after,
                Some(("}", after)) => {
                    rest = after;
                    break;
                }
                _ => return Err("labels without end"),
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or("no value")?;
    let value = number(value).ok_or("no good value")?;
    Ok((name.to_owned(), labels, value))
}

/// Where the quote stands that ends a label's value.
fn quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends.then_some(at)
    })
}

/// The text that was meant; `None` when an escape is unknown. Quotes are escaped in labels only.
fn unescape(text: &str, quoted: bool) -> Option<String> {
    let mut meant = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        meant.push(match c {
            '\\' => match chars.next()? {
                '\\' => '\\',
                'n' => '\n',
                '"' if quoted => '"',
                _ => return None,
            },
            c => c,
        });
    }
    Some(meant)
}

fn is_name(name: &str, colons: bool) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || (colons && c == ':');
    name.chars().all(fits) && name.starts_with(|c: char| !c.is_ascii_digit())
}

fn number(text: &str) -> Option<f64> {
    if text == "+Inf" {
        return Some(f64::INFINITY);
    }
    let known: BTreeSet<char> = "0123456789.e+-".chars().collect();
    let plain = text.chars().all(|c| known.contains(&c));
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# HELP a_total Things.\n# TYPE a_total counter\n";

    #[test]
    fn what_breaks_the_format_is_refused() {
        for page in [
            "",
            "a_total 1\n",
            "# HELP a_total Things.\na_total 1\n",
            "# TYPE a_total counter\na_total 1\n",
            "# HELP a Things.\n# TYPE a counter\na 1\n",
            "# HELP a_total Things.\n# TYPE a_total gauge\na_total 1\n",
            "# HELP a Things.\n# TYPE a untyped\na 1\n",
        ] {
            assert!(Scrape::parse(page).is_err(), "{page}");
        }
        for line in [
            "",
            "a_total 1",
            "\n",
            "b_total 1\n",
            "a_total -1\n",
            "a_total  1\n",
            "a_total 1 \n",
            "a_total 1 1700000000\n",
            "a_total nan\n",
            "a_total{} 1\n",
            "a_total{l=\"1\",} 1\n",
            "a_total{l=\"1} 1\n",
            "a_total{l=\"\\x\"} 1\n",
            "a_total{1l=\"1\"} 1\n",
            "a_total{l=\"1\",l=\"2\"} 1\n",
            "a_total 1\na_total 1\n",
            "a_total 1\n# HELP a_total Things.\n# TYPE a_total counter\na_total{l=\"1\"} 1\n",
            "a_total 1\n# a comment\n",
        ] {
            assert!(Scrape::parse(&format!("{HEAD}{line}")).is_err(), "{line:?}");
        }
    }

    #[test]
    fn histograms_must_add_up() {
        let page = |buckets: &str| {
            Scrape::parse(&format!("# HELP h Waits.\n# TYPE h histogram\n{buckets}"))
        };
        let rest = "h_sum 3\nh_count 2\n";
        assert!(
            page(&format!(
                "h_bucket{{le=\"1\"}} 1\nh_bucket{{le=\"+Inf\"}} 2\n{rest}"
            ))
            .is_ok()
        );
        for wrong in [
            "h_bucket{le=\"1\"} 1\n",
            "h_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 2\n",
            "h_bucket{le=\"2\"} 1\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\n",
            "h_bucket{le=\"+Inf\"} 1\n",
            "h_bucket 2\n",
        ] {
            assert!(page(&format!("{wrong}{rest}")).is_err(), "{wrong}");
        }
        assert!(page("h_bucket{le=\"+Inf\"} 2\nh_count 2\n").is_err());
    }

    #[test]
    fn labels_and_values_are_read_as_they_were_meant() {
        let page =
            format!("{HEAD}a_total{{l=\"a\\\"b,}}\\n\\\\n\",m=\"2\"}} 1.5e3\na_total 0.25\n");
        let scrape = Scrape::parse(&page).unwrap();
        assert_eq!(scrape.value("a_total", &[("l", "a\"b,}\n\\n")]), 1500.0);
        assert_eq!(scrape.sum("a_total"), 1500.25);
        let later = Scrape::parse(&page.replace("0.25", "0.125")).unwrap();
        assert!(scrape.fallen_since(&scrape).is_empty());
        assert_eq!(later.fallen_since(&scrape).len(), 1);
    }
}
