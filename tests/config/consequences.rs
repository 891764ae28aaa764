//! One wrong value is one mistake: whatever depends on it stays silent until it is right. Every value and every key of
//! some good files is made wrong in turn.

use std::ops::Range;

use roundsman::config::{Diagnostic, Severity};
use toml::de::{DeTable, DeValue};

use super::messages::diagnostics;

const FILES: [&str; 3] = ["tests/config/valid/everything.toml", "tests/config/valid/steps.toml", "conf/reference.toml"];
/// Tables whose keys are names that a user chooses.
const NAMED: [&str; 10] = [
    "pools",
    "listeners",
    "headers",
    "header",
    "query",
    "cookie",
    "equals",
    "not_equals",
    "set_request_headers",
    "set_response_headers",
];

/// The places of all values and of all keys that are ours.
#[derive(Default)]
struct Places {
    values: Vec<Range<usize>>,
    keys: Vec<Range<usize>>,
}

impl Places {
    fn of_table(&mut self, name: &str, table: &DeTable<'_>) {
        for (key, value) in table.iter() {
            if !NAMED.contains(&name) {
                self.keys.push(key.span());
            }
            self.of_value(key.get_ref(), value);
        }
    }

    fn of_value(&mut self, name: &str, value: &toml::Spanned<DeValue<'_>>) {
        self.values.push(value.span());
        match value.get_ref() {
            DeValue::Table(table) => self.of_table(name, table),
            DeValue::Array(list) => list.iter().for_each(|entry| self.of_value("", entry)),
            _ => {}
        }
    }
}

/// The mistakes in `text` with `wrong` at `place`, if they are more than one, or elsewhere.
fn consequences(text: &str, place: &Range<usize>, wrong: &str, at_least: usize) -> Option<String> {
    let changed = format!("{}{wrong}{}", &text[..place.start], &text[place.end..]);
    let all = diagnostics(changed.as_bytes());
    let errors: Vec<&Diagnostic> = all.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).collect();
    let reach = place.start..place.start + wrong.len();
    let is_here = |error: &&&Diagnostic| error.span.as_ref().is_some_and(|span| reach.contains(&span.start));
    let good = (at_least..=1).contains(&errors.len()) && errors.iter().filter(is_here).count() == errors.len();
    let shown: Vec<_> = errors.iter().map(|error| error.headline()).collect();
    (!good).then(|| format!("{} -> {wrong}\n  {}", &text[place.clone()], shown.join("\n  ")))
}

#[test]
fn one_wrong_value_or_key_is_one_mistake() {
    let (mut number, mut found) = (0, Vec::new());
    for file in FILES {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(diagnostics(text.as_bytes()).iter().all(|diagnostic| diagnostic.severity == Severity::Warning));
        let mut places = Places::default();
        let (table, errors) = DeTable::parse_recoverable(&text);
        assert!(errors.is_empty());
        places.of_table("", table.get_ref());
        for place in &places.values {
            let written = &text[place.clone()];
            // The place of a table with a header is the header, and of one with dotted keys a key.
            let is_value = written.starts_with(['"', '\'', '{', '-']) || written.starts_with(char::is_alphanumeric);
            let is_list = written.starts_with('[') && text[..place.start].trim_end().ends_with(['=', ',', '[', '{']);
            if !is_value && !is_list || text[place.end..].trim_start_matches([' ', '"']).starts_with(['.', '=']) {
                continue;
            }
            number += 1;
            found.extend(consequences(&text, place, "1979-05-27", 1));
            if written.starts_with('"') {
                found.extend(consequences(&text, place, "\"?~\"", 0));
            }
        }
        for place in &places.keys {
            // The keys of one header would no longer fit those of others; `messages` has rows for them.
            if text[..place.start].rsplit('\n').next().is_some_and(|line| line.starts_with('[')) {
                continue;
            }
            number += 1;
            found.extend(consequences(&text, place, "misspelt_here", 1));
        }
    }
    assert!(found.is_empty(), "{} of {number}:\n{}", found.len(), found.join("\n"));
    assert!(number > 300, "{number}");
}
