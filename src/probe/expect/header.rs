//! Rules over the fields of an answer. If a field is repeated, one matching value is enough, but no value may be one that a
//! rule excludes.

use crate::http1::Field;
use crate::model::policy::{HeaderMatch, HeaderRule};
use crate::model::quote::Excerpt;

/// Values of one field that a sentence shows.
const SHOWN_MAX: usize = 3;

/// A violated rule, and the values found instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::probe) struct HeaderMiss<'p> {
    pub rule: &'p HeaderRule,
    /// The first values of the field; empty if it is absent.
    pub seen: Vec<Excerpt>,
    /// Further values.
    pub more: usize,
}

/// The first violated rule.
pub(in crate::probe) fn header_miss<'p>(rules: &'p [HeaderRule], fields: &[Field<'_>]) -> Option<HeaderMiss<'p>> {
    let rule = rules.iter().find(|rule| !holds(&rule.value, || values(rule, fields)))?;
    let seen: Vec<Excerpt> = values(rule, fields).take(SHOWN_MAX).map(Excerpt::of).collect();
    let more = values(rule, fields).count() - seen.len();
    Some(HeaderMiss { rule, seen, more })
}

fn values<'h>(rule: &HeaderRule, fields: &[Field<'h>]) -> impl Iterator<Item = &'h [u8]> {
    fields.iter().filter(|field| field.name.eq_ignore_ascii_case(rule.name.as_bytes())).map(|field| field.value)
}

fn holds<'h, V: Iterator<Item = &'h [u8]>>(wanted: &HeaderMatch, values: impl Fn() -> V) -> bool {
    let is_there = || values().next().is_some();
    match wanted {
        HeaderMatch::Equals(text) => values().any(|value| value == text.as_bytes()),
        // A misspelt name in the file must not pass always.
        HeaderMatch::NotEquals(text) => is_there() && values().all(|value| value != text.as_bytes()),
        HeaderMatch::Matches(pattern) => values().any(|value| pattern.is_match(value)),
        HeaderMatch::Present => is_there(),
        HeaderMatch::Absent => !is_there(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::Pattern;

    #[test]
    fn one_value_of_a_field_is_enough_and_its_case_does_not_count() {
        let field = |name: &'static str, value: &'static str| Field::new(name.as_bytes(), value.as_bytes());
        let fields = [
            field("X-Frame-Options", "SAMEORIGIN"),
            field("Content-Type", "text/plain; charset=utf-8"),
            field("x-frame-options", "DENY"),
            field("X-Empty", ""),
        ];
        let equals = |text: &str| HeaderMatch::Equals(text.into());
        let not_equals = |text: &str| HeaderMatch::NotEquals(text.into());
        let matches = |text: &str| HeaderMatch::Matches(Pattern::try_new(text).unwrap());
        for (name, value, holds) in [
            ("x-frame-options", equals("DENY"), true),
            ("X-FRAME-OPTIONS", equals("SAMEORIGIN"), true),
            ("x-frame-options", equals("deny"), false),
            ("x-frame-options", equals("SAMEORIGIN, DENY"), false),
            ("content-type", equals("text/plain"), false),
            ("content-type", matches("^text/plain"), true),
            ("content-type", matches("json"), false),
            ("x-empty", HeaderMatch::Present, true),
            ("x-empty", equals(""), true),
            ("x-app", HeaderMatch::Present, false),
            ("x-app", matches(""), false),
            ("x-app", HeaderMatch::Absent, true),
            ("X-EMPTY", HeaderMatch::Absent, false),
            ("content-type", not_equals("text/plain"), true),
            ("x-frame-options", not_equals("DENY"), false),
            ("x-frame-options", not_equals("SAMEORIGIN"), false),
            ("x-frame-options", not_equals("deny"), true),
            ("x-empty", not_equals(""), false),
            ("x-app", not_equals("a"), false),
        ] {
            let rules = [HeaderRule { name: name.into(), value }];
            assert_eq!(header_miss(&rules, &fields).is_none(), holds, "{rules:?}");
        }
        let both = [
            HeaderRule { name: "content-type".into(), value: HeaderMatch::Present },
            HeaderRule { name: "X-Frame-Options".into(), value: equals("ALLOW") },
        ];
        let miss = header_miss(&both, &fields).unwrap();
        assert_eq!((miss.rule, miss.seen.len(), miss.more), (&both[1], 2, 0));
    }
}
