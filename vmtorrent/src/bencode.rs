//! Invariant: a [`Node`] spans exactly one well-formed value, so walking it neither fails nor recurses nor allocates.
//!
//! `librqbit-bencode` reads numbers and string lengths without overflow checks (a panic in debug
//! builds, a wrapped value in release builds) and does not itself refuse two equal keys. That is not good
//! enough for files and answers that strangers send, so they are read through this module.

use std::fmt;

/// Deepest nesting of lists and dictionaries; a .torrent needs about six.
const MAX_DEPTH: usize = 64;

/// Where and why bytes are not bencode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    offset: usize,
    what: &'static str,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.offset)
    }
}

impl std::error::Error for SyntaxError {}

/// Two entries of a dictionary have the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DuplicateKey;

/// One well-formed value inside a buffer.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    raw: &'a [u8],
}

impl<'a> Node<'a> {
    /// Reads a buffer that holds one value and nothing else.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, SyntaxError> {
        let end = scan(bytes)?;
        if end != bytes.len() {
            return Err(SyntaxError {
                offset: end,
                what: "bytes follow the value",
            });
        }
        Ok(Self { raw: bytes })
    }

    /// Reads the value that a buffer begins with, and gives what stands behind it.
    pub(crate) fn parse_prefix(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), SyntaxError> {
        let (raw, rest) = bytes.split_at(scan(bytes)?);
        Ok((Self { raw }, rest))
    }

    /// The value's own bytes.
    pub(crate) fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The number, if it is one.
    pub(crate) fn as_integer(&self) -> Option<i64> {
        integer(self.raw, 0).ok().map(|(value, _)| value)
    }

    /// The string, if it is one.
    pub(crate) fn as_bytes(&self) -> Option<&'a [u8]> {
        string(self.raw, 0).ok().map(|(value, _)| value)
    }

    /// The string, if it is one and in UTF-8.
    pub(crate) fn as_str(&self) -> Option<&'a str> {
        self.as_bytes().and_then(|b| std::str::from_utf8(b).ok())
    }

    /// The items, if it is a list.
    pub(crate) fn as_list(&self) -> Option<Items<'a>> {
        self.raw.strip_prefix(b"l").map(|rest| Items { rest })
    }

    /// The entries, if it is a dictionary.
    pub(crate) fn as_dictionary(&self) -> Option<Entries<'a>> {
        self.raw
            .strip_prefix(b"d")
            .map(|rest| Entries(Items { rest }))
    }

    /// The value of a key; `None` when there is none or this is no dictionary.
    pub(crate) fn get(&self, key: &str) -> Result<Option<Node<'a>>, DuplicateKey> {
        let mut found = None;
        for (k, value) in self.as_dictionary().into_iter().flatten() {
            if k == key.as_bytes() && found.replace(value).is_some() {
                return Err(DuplicateKey);
            }
        }
        Ok(found)
    }
}

/// The items of a list.
#[derive(Clone)]
pub(crate) struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        let end = scan(self.rest).ok()?;
        let (raw, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(Node { raw })
    }
}

/// The entries of a dictionary.
#[derive(Clone)]
pub(crate) struct Entries<'a>(Items<'a>);

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a [u8], Node<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.0.next()?.as_bytes()?;
        Some((key, self.0.next()?))
    }
}

/// The end of the value that `bytes` begin with.
fn scan(bytes: &[u8]) -> Result<usize, SyntaxError> {
    // Bit n speaks of the container at depth n: whether it is a dictionary, and whether a key stands
    // there without its value yet.
    let (mut dictionaries, mut keyed) = (0_u64, 0_u64);
    let mut depth = 0;
    let mut at = 0;
    loop {
        let here = if depth == 0 { 0 } else { 1 << (depth - 1) };
        let wants_key = dictionaries & here != 0 && keyed & here == 0;
        let wants_value = dictionaries & keyed & here != 0;
        let fail = |what| Err(SyntaxError { offset: at, what });
        match bytes.get(at) {
            None => return fail("the data ends early"),
            Some(b'e') if depth > 0 && !wants_value => {
                at += 1;
                depth -= 1;
            }
            Some(b'0'..=b'9') => {
                at = string(bytes, at)?.1;
                if wants_key {
                    keyed |= here;
                    continue;
                }
            }
            Some(_) if wants_key => return fail("a dictionary key is not a string"),
            Some(b'i') => at = integer(bytes, at)?.1,
            Some(kind @ (b'l' | b'd')) => {
                if depth == MAX_DEPTH {
                    return fail("lists and dictionaries are nested too deep");
                }
                let inner = 1 << depth;
                keyed &= !inner;
                if *kind == b'd' {
                    dictionaries |= inner;
                } else {
                    dictionaries &= !inner;
                }
                depth += 1;
                at += 1;
                continue;
            }
            Some(_) => return fail("no bencoded value"),
        }
        if depth == 0 {
            return Ok(at);
        }
        keyed &= !(1 << (depth - 1));
    }
}

/// The string at `at` and where it ends.
fn string(bytes: &[u8], at: usize) -> Result<(&[u8], usize), SyntaxError> {
    let fail = |what| SyntaxError { offset: at, what };
    let (length, begin) = digits(bytes, at, b':').ok_or(fail("a malformed string length"))?;
    let end = usize::try_from(length)
        .ok()
        .and_then(|length| begin.checked_add(length))
        .filter(|end| *end <= bytes.len())
        .ok_or(fail("a string is longer than the data"))?;
    Ok((&bytes[begin..end], end))
}

/// The integer at `at` and where it ends.
fn integer(bytes: &[u8], at: usize) -> Result<(i64, usize), SyntaxError> {
    let fail = SyntaxError {
        offset: at,
        what: "a malformed integer",
    };
    if bytes.get(at) != Some(&b'i') {
        return Err(fail);
    }
    let negative = bytes.get(at + 1) == Some(&b'-');
    let (magnitude, end) = digits(bytes, at + 1 + usize::from(negative), b'e').ok_or(fail)?;
    let value = if negative {
        (magnitude > 0).then(|| 0_i64.checked_sub_unsigned(magnitude))
    } else {
        Some(i64::try_from(magnitude).ok())
    };
    Ok((value.flatten().ok_or(fail)?, end))
}

/// The decimal number at `at`, without leading zeros, and the place behind its terminator.
fn digits(bytes: &[u8], at: usize, terminator: u8) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    let mut end = at;
    while let Some(digit) = bytes.get(end).filter(|b| b.is_ascii_digit()) {
        value = value
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
        end += 1;
    }
    let well_formed = end > at && (bytes[at] != b'0' || end == at + 1);
    (well_formed && bytes.get(end) == Some(&terminator)).then_some((value, end + 1))
}

/// Writes bencode. The caller writes the keys of a dictionary in ascending order.
#[derive(Default)]
pub(crate) struct Encoder {
    out: Vec<u8>,
}

impl Encoder {
    /// The bytes of one dictionary.
    pub(crate) fn encode(body: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut encoder = Self::default();
        encoder.dictionary(body);
        encoder.out
    }

    /// Writes a string; also a key.
    pub(crate) fn string(&mut self, value: impl AsRef<[u8]>) -> &mut Self {
        let value = value.as_ref();
        self.out
            .extend_from_slice(format!("{}:", value.len()).as_bytes());
        self.out.extend_from_slice(value);
        self
    }

    /// Writes an integer.
    pub(crate) fn integer(&mut self, value: u64) -> &mut Self {
        self.out.extend_from_slice(format!("i{value}e").as_bytes());
        self
    }

    /// Writes a value that is bencoded already.
    pub(crate) fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.out.extend_from_slice(value);
        self
    }

    /// Writes a list with the items that `body` writes.
    pub(crate) fn list(&mut self, body: impl FnOnce(&mut Self)) -> &mut Self {
        self.container(b'l', body)
    }

    /// Writes a dictionary with the keys and values that `body` writes by turns.
    pub(crate) fn dictionary(&mut self, body: impl FnOnce(&mut Self)) -> &mut Self {
        self.container(b'd', body)
    }

    fn container(&mut self, kind: u8, body: impl FnOnce(&mut Self)) -> &mut Self {
        self.out.push(kind);
        body(self);
        self.out.push(b'e');
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn malformed_values_are_refused() {
        let cases: &[&[u8]] = &[
            b"",
            b"i",
            b"ie",
            b"i-e",
            b"i-0e",
            b"i01e",
            b"i1",
            b"i9223372036854775808e",
            b"i-9223372036854775809e",
            b"i99999999999999999999999e",
            b"1:",
            b"01:a",
            b"18446744073709551615:a",
            b"99999999999999999999:a",
            b"l",
            b"li1e",
            b"d",
            b"d1:ae",
            b"di1ei2ee",
            b"dlei1ee",
            b"e",
            b"i1ei2e",
            b"x",
        ];
        for case in cases {
            assert!(Node::parse(case).is_err(), "{:?}", case.escape_ascii());
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| [vec![b'l'; depth], vec![b'e'; depth]].concat();
        assert!(Node::parse(&nested(MAX_DEPTH)).is_ok());
        assert!(Node::parse(&nested(MAX_DEPTH + 1)).is_err());
        assert!(Node::parse(&vec![b'l'; 10_000_000]).is_err());
        assert!(Node::parse(&b"d1:a".repeat(1_000_000)).is_err());
    }

    #[test]
    fn values_are_read_back() {
        let bytes = Encoder::encode(|e| {
            e.string("a").list(|e| {
                e.integer(7).string("x").list(|_| {});
            });
            e.string("b").dictionary(|_| {});
        });
        let node = Node::parse(&bytes).unwrap();
        let list: Vec<_> = node.get("a").unwrap().unwrap().as_list().unwrap().collect();
        assert_eq!(list[0].as_integer(), Some(7));
        assert_eq!(list[1].as_str(), Some("x"));
        assert_eq!(list[2].as_list().unwrap().count(), 0);
        assert_eq!(node.get("b").unwrap().unwrap().raw(), b"de");
        assert!(node.get("c").unwrap().is_none());
        assert_eq!(
            Node::parse(b"i-9223372036854775808e").unwrap().as_integer(),
            Some(i64::MIN)
        );
    }

    #[test]
    fn a_value_is_read_off_the_front_and_the_rest_is_given() {
        let (node, rest) = Node::parse_prefix(b"d1:ai1eed1:b").unwrap();
        assert_eq!(node.raw(), b"d1:ai1ee");
        assert_eq!(rest, b"d1:b");
        assert!(Node::parse_prefix(b"").is_err());
        assert!(Node::parse_prefix(b"d1:ai1e").is_err());
    }

    #[test]
    fn a_second_equal_key_is_an_error() {
        let node = Node::parse(b"d1:ai1e1:ai2ee").unwrap();
        assert!(matches!(node.get("a"), Err(DuplicateKey)));
    }

    /// What a node is made of must fill it: no byte is skipped or read twice.
    fn walk(node: Node<'_>) -> usize {
        let inside: usize = if let Some(items) = node.as_list() {
            items.map(walk).sum()
        } else if let Some(entries) = node.as_dictionary() {
            entries
                .map(|(k, v)| k.len() + k.len().to_string().len() + 1 + walk(v))
                .sum()
        } else {
            assert!(node.as_bytes().is_some() ^ node.as_integer().is_some());
            return node.raw().len();
        };
        assert_eq!(inside + 2, node.raw().len());
        node.raw().len()
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in "[dlie0-9:a-]{0,40}") {
            if let Ok(node) = Node::parse(bytes.as_bytes()) {
                prop_assert_eq!(walk(node), bytes.len());
            }
        }
    }
}
