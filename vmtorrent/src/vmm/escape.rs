//! Invariant: what a rule gives is read back by that syntax as the very value that went in; a value that the syntax
//! can't carry is refused, never changed.

use std::ffi::{OsStr, OsString};

/// How a value is written where a placeholder stands: the rule of the syntax around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escape {
    /// As it is: for a whole argument.
    #[default]
    Plain,
    /// Commas doubled: QEMU's option lists (qemu-system(1), `-drive`: "use two commas").
    Comma,
    /// In double quotes if it holds a comma: the option lists of cloud-hypervisor, which know no escape for a double
    /// quote and count brackets also in quotes (`option_parser/src/lib.rs` there).
    Quoted,
    /// Single quotes doubled, the typographic ones too, for a place between single quotes in PowerShell
    /// (about_Quoting_Rules).
    Powershell,
    /// `"` as `|22`, `|` as `|7C`, `#` as `|23`: a value between double quotes in a .vmx file.
    Vmx,
    /// As it is, without double quotes and line breaks: a name between double quotes in the descriptor of a VMDK, which
    /// knows no escape.
    Vmdk,
}

impl Escape {
    /// The rules by their names in templates.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("plain", Self::Plain),
        ("comma", Self::Comma),
        ("quoted", Self::Quoted),
        ("powershell", Self::Powershell),
        ("vmx", Self::Vmx),
        ("vmdk", Self::Vmdk),
    ];

    /// The rule of that name.
    pub fn named(name: &str) -> Option<Self> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, rule)| *rule)
    }

    /// The value as the syntax wants it, or what stands in the way.
    pub(crate) fn apply(self, value: &OsStr) -> Result<OsString, String> {
        if value.as_encoded_bytes().contains(&0) {
            return Err("it holds a NUL".to_owned());
        }
        match (self, value.to_str()) {
            (Self::Plain, _) => Ok(value.to_owned()),
            (Self::Comma, Some(text)) => Ok(text.replace(',', ",,").into()),
            #[cfg(unix)]
            (Self::Comma, None) => Ok(commas_doubled(value)),
            (_, None) => Err("it is not Unicode, which this VMM needs".to_owned()),
            (Self::Quoted, Some(text)) => quoted(text),
            (Self::Powershell, Some(text)) => Ok(powershell(text).into()),
            (Self::Vmx, Some(text)) => vmx(text),
            (Self::Vmdk, Some(text)) => match text.contains(['"', '\r', '\n']) {
                true => Err("it holds a double quote or a line break".to_owned()),
                false => Ok(text.into()),
            },
        }
    }
}

#[cfg(unix)]
fn commas_doubled(value: &OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = Vec::with_capacity(value.len());
    for byte in value.as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

fn quoted(text: &str) -> Result<OsString, String> {
    if text.contains('"') {
        return Err("it holds a double quote".to_owned());
    }
    if text.trim() != text {
        return Err("it begins or ends with a space".to_owned());
    }
    let mut open = 0_usize;
    for c in text.chars() {
        match c {
            '[' => open += 1,
            ']' if open == 0 => return Err("it holds a ] without its [".to_owned()),
            ']' => open -= 1,
            _ => {}
        }
    }
    if open > 0 {
        return Err("it holds a [ without its ]".to_owned());
    }
    Ok(match text.contains(',') {
        true => format!("\"{text}\"").into(),
        false => text.into(),
    })
}

/// PowerShell takes four typographic quotes for single quotes too.
fn powershell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        out.push(c);
        if matches!(c, '\'' | '\u{2018}' | '\u{2019}' | '\u{201A}' | '\u{201B}') {
            out.push(c);
        }
    }
    out
}

fn vmx(text: &str) -> Result<OsString, String> {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("|22"),
            '#' => out.push_str("|23"),
            '|' => out.push_str("|7C"),
            c if c.is_control() => return Err("it holds a control character".to_owned()),
            c => out.push(c),
        }
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(rule: Escape, value: &str) -> Result<String, String> {
        let out = rule.apply(OsStr::new(value))?;
        Ok(out.into_string().unwrap())
    }

    #[test]
    fn each_syntax_gets_its_own_escape() {
        let value = "/m/it's, \"a\" #1|2";
        for (rule, text) in [
            (Escape::Plain, "/m/it's, \"a\" #1|2"),
            (Escape::Comma, "/m/it's,, \"a\" #1|2"),
            (Escape::Powershell, "/m/it''s, \"a\" #1|2"),
            (Escape::Vmx, "/m/it's, |22a|22 |231|7C2"),
        ] {
            assert_eq!(escaped(rule, value).unwrap(), text, "{rule:?}");
        }
        assert_eq!(
            escaped(Escape::Powershell, "a\u{2019}b").unwrap(),
            "a\u{2019}\u{2019}b"
        );
        assert_eq!(escaped(Escape::Quoted, "/m/a,b").unwrap(), "\"/m/a,b\"");
        assert_eq!(escaped(Escape::Quoted, "/m/a b[1]").unwrap(), "/m/a b[1]");
        assert_eq!(escaped(Escape::Vmdk, "/m/a, b").unwrap(), "/m/a, b");
    }

    #[test]
    fn what_a_syntax_cant_carry_is_refused() {
        for (rule, value) in [
            (Escape::Plain, "a\0"),
            (Escape::Comma, "a\0"),
            (Escape::Quoted, "a\"b"),
            (Escape::Quoted, "a]b["),
            (Escape::Quoted, "a[b"),
            (Escape::Quoted, "a "),
            (Escape::Vmx, "a\nb"),
            (Escape::Vmdk, "a\"b"),
            (Escape::Vmdk, "a\nb"),
        ] {
            assert!(escaped(rule, value).is_err(), "{rule:?} {value:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_need_not_be_unicode_where_the_syntax_is_of_bytes() {
        use std::os::unix::ffi::OsStrExt;
        let path = OsStr::from_bytes(b"/m/\xff,");
        assert_eq!(Escape::Comma.apply(path).unwrap().as_bytes(), b"/m/\xff,,");
        assert_eq!(Escape::Plain.apply(path).unwrap(), path);
        for rule in [
            Escape::Quoted,
            Escape::Powershell,
            Escape::Vmx,
            Escape::Vmdk,
        ] {
            assert!(rule.apply(path).is_err(), "{rule:?}");
        }
    }
}
