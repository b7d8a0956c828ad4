//! Invariant: what is shown through here is text and nothing else, in HTML, in XML and on a terminal.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Text for the inside of an element or of a quoted attribute, in HTML and in SVG.
pub(crate) struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ => f.write_char(harmless(c))?,
            }
        }
        Ok(())
    }
}

/// Text for a terminal: what would move its cursor or change its colours is replaced.
#[derive(Clone, Copy, Debug)]
pub struct Plain<'a>(pub &'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(harmless(c)))
    }
}

/// XML knows no control characters, not even escaped ones. Those that turn the direction of writing would show a name
/// as another one.
fn harmless(c: char) -> char {
    let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c.is_control() || turns || matches!(c, '\u{fffe}' | '\u{ffff}') {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}

/// At most `most` characters of a name: its begin and its end, which tell files apart.
pub(crate) fn shortened(name: &str, most: usize) -> Cow<'_, str> {
    let length = name.chars().count();
    if length <= most {
        return Cow::Borrowed(name);
    }
    let kept = most.saturating_sub(1);
    let (head, tail) = (kept / 3, kept - kept / 3);
    let begin = name.chars().take(head);
    let end = name.chars().skip(length - tail);
    begin.chain(['…']).chain(end).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_be_no_markup() {
        let name = "<script>&\"'\u{1b}[2J\0\u{202e}gmi.é";
        let text = Escaped(name).to_string();
        assert_eq!(
            text,
            "&lt;script&gt;&amp;&quot;&#39;\u{fffd}[2J\u{fffd}\u{fffd}gmi.é"
        );
        assert_eq!(Plain("a\tb\u{1b}<c>").to_string(), "a\u{fffd}b\u{fffd}<c>");
    }

    #[test]
    fn a_long_name_keeps_its_begin_and_its_end() {
        assert_eq!(shortened("disk.img", 8), "disk.img");
        assert_eq!(shortened("images/debian/disk-0.img", 10), "ima…-0.img");
        assert_eq!(shortened("äöüäöü", 4), "ä…öü");
        assert_eq!(shortened("abc", 1), "…");
        assert_eq!(shortened("abc", 0), "…");
    }
}
