//! Invariant: a template that was parsed names only known placeholders; each is replaced once, and what replaces it is
//! not looked at again.

use std::ffi::{OsStr, OsString};

use super::escape::Escape;

/// Text with placeholders: `{disk}`, or `{disk:comma}` with a rule of its own; `{{` and `}}` are braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Place {
        name: String,
        escape: Option<Escape>,
    },
}

/// What stands for a placeholder.
pub(super) enum Value<'a> {
    /// To be escaped by the rule of the place.
    Plain(OsString),
    /// Filled in by the same rule. It may not name itself.
    Template(&'a Template),
}

impl Template {
    /// Parses it; the error says what is wrong and what to write.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("{{") {
                plain.push('{');
                rest = after;
            } else if let Some(after) = rest.strip_prefix("}}") {
                plain.push('}');
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let Some(end) = after
                    .find(['{', '}'])
                    .filter(|at| after[*at..].starts_with('}'))
                else {
                    return Err("a { has no }; write {{ for a brace".to_owned());
                };
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(place(&after[..end])?);
                rest = &after[end + 1..];
            } else {
                return Err("a } has no {; write }} for a brace".to_owned());
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }

    /// The names of its placeholders.
    pub(super) fn places(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Place { name, .. } => Some(name.as_str()),
        })
    }

    /// Whether it needs that value.
    pub(super) fn uses(&self, name: &str) -> bool {
        self.places().any(|place| place == name)
    }

    /// The text with all placeholders replaced; `lookup` gives their values, or says why there is none.
    pub(super) fn fill<'a>(
        &self,
        escape: Escape,
        lookup: &dyn Fn(&str) -> Result<Value<'a>, String>,
    ) -> Result<OsString, String> {
        let mut filled = OsString::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => filled.push(text),
                Part::Place { name, escape: own } => {
                    let rule = own.unwrap_or(escape);
                    let value = match lookup(name)? {
                        Value::Template(template) => template.fill(rule, lookup)?,
                        Value::Plain(value) => rule
                            .apply(&value)
                            .map_err(|cause| refused(name, &value, &cause))?,
                    };
                    filled.push(value);
                }
            }
        }
        Ok(filled)
    }
}

fn refused(name: &str, value: &OsStr, cause: &str) -> String {
    format!("{{{name}}} is {value:?}, which can't be told to this VMM: {cause}; rename it")
}

fn place(inner: &str) -> Result<Part, String> {
    let (name, rule) = match inner.split_once(':') {
        Some((name, rule)) => (name, Some(rule)),
        None => (inner, None),
    };
    let escape = rule.map(|rule| {
        Escape::named(rule).ok_or_else(|| {
            let known: Vec<&str> = Escape::NAMES.iter().map(|(name, _)| *name).collect();
            format!(
                "{{{inner}}} has no escape rule {rule:?}; the rules are {}",
                known.join(", ")
            )
        })
    });
    Ok(Part::Place {
        name: name.to_owned(),
        escape: escape.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Result<String, String> {
        let image = Template::parse("file={disk}")?;
        let lookup = |name: &str| match name {
            "disk" => Ok(Value::Plain("/m/{cpus},x".into())),
            "image" => Ok(Value::Template(&image)),
            _ => Err(format!("no {name}")),
        };
        let filled = Template::parse(text)?.fill(Escape::Comma, &lookup)?;
        Ok(filled.into_string().unwrap())
    }

    #[test]
    fn places_are_filled_in_anywhere_by_their_rule_and_only_once() {
        for (text, filled) in [
            ("", ""),
            ("-drive", "-drive"),
            ("{disk}", "/m/{cpus},,x"),
            ("{disk:plain}", "/m/{cpus},x"),
            ("file={disk},if=virtio", "file=/m/{cpus},,x,if=virtio"),
            ("{image},if=virtio", "file=/m/{cpus},,x,if=virtio"),
            ("{image:plain}", "file=/m/{cpus},x"),
            ("{{{disk:plain}}}", "{/m/{cpus},x}"),
            ("a {{ b }}", "a { b }"),
        ] {
            assert_eq!(fill(text).unwrap(), filled, "{text}");
        }
    }

    #[test]
    fn broken_templates_are_refused_with_the_remedy() {
        for (text, part) in [
            ("{disk", "write {{"),
            ("{", "write {{"),
            ("{{disk}", "write }}"),
            ("a } b", "write }}"),
            ("{disk{cpus}}", "write {{"),
            ("{disk:shell}", "plain, comma"),
            ("{disk:}", "plain, comma"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
