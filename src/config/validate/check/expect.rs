//! What an answer must look like: rules that contradict each other, that can never hold, or that always would, are said here.

use std::ops::Range;
use std::sync::Arc;

use crate::config::raw;
use crate::config::read::{At, Field};
use crate::config::report::{Found, Report};
use crate::config::values::Missing;
use crate::model::policy::{BodyRule, Expect, HeaderMatch, JsonMatch, JsonRule, Pattern, StatusRule};

/// What a check of type tcp expects; `by_default`: the type is not written.
pub fn text(field: &Field<raw::Expect>, by_default: bool, key: &str, report: &mut Report) -> Option<Arc<str>> {
    let At { value: raw, span } = field.get()?;
    for (name, span) in raw.written().into_iter().filter(|(name, _)| *name != "contains") {
        let note = if by_default { " (the default)" } else { "" };
        let message = format!("belongs to type = \"http\"; this check is of type \"tcp\"{note}");
        report.add(Found::error(span, format!("{key}.{name}"), message).expected("type = \"http\" beside `expect`"));
    }
    match &raw.contains {
        Field::Good(at) => {
            warn_about_opposites(&at.value.0, &at.span, &format!("{key}.contains"), report);
            Some(at.value.0.clone())
        }
        Field::Absent if raw.written().is_empty() && !raw.others => {
            report.add(Found::error(span.clone(), key, "no rule").expected("contains = \"…\""));
            None
        }
        Field::Bad | Field::Absent => None,
    }
}

/// What a check of type http expects.
pub fn expect(field: &Field<raw::Expect>, method: &str, key: &str, report: &mut Report) -> Expect {
    let Some(At { value: raw, .. }) = field.get() else { return Expect::default() };
    if let Some(at) = raw.contains.get() {
        let message = "belongs to type = \"tcp\"; this check is of type \"http\"";
        let found = Found::error(at.span.clone(), format!("{key}.contains"), message);
        report.add(found.expected("body = { contains = \"…\" }"));
    }
    let of_body = [("body", raw.body.get().map(|at| &at.span)), ("json", raw.json.get().map(|at| &at.span))];
    for (name, span) in of_body.into_iter().filter(|_| method == "HEAD") {
        let Some(span) = span else { continue };
        let found = Found::error(span.clone(), format!("{key}.{name}"), "an answer to HEAD has no body");
        report.add(found.expected(format!("method = \"GET\", or no `{name}`")));
    }
    let status = raw.status.value().map_or_else(|| Expect::default().status, |statuses| statuses.0.clone());
    let headers = raw.header.value().map_or_else(Vec::new, |rules| rules.0.clone());
    if let Some(at) = raw.header.get() {
        for rule in &headers {
            if let HeaderMatch::Matches(pattern) = &rule.value {
                warn_about_opposite_matches(pattern, &at.span, &format!("{key}.header"), report);
            }
        }
    }
    refuse_anything(raw, &status, key, report);
    Expect {
        status,
        headers,
        body: raw.body.get().and_then(|body| body_rule(body, &format!("{key}.body"), report)),
        json: json_rules(raw, &format!("{key}.json"), report),
    }
}

/// `status = "any"` alone takes every answer there is.
fn refuse_anything(raw: &raw::Expect, status: &StatusRule, key: &str, report: &mut Report) {
    let alone = raw.header.is_absent() && raw.body.is_absent() && raw.json.is_absent() && !raw.others;
    if let (StatusRule::Any, true, Some(at)) = (status, alone, raw.status.get()) {
        let message = "\"any\" leaves it to the other rules, and there is none: every answer would pass";
        let found = Found::error(at.span.clone(), format!("{key}.status"), message);
        report.add(found.expected("a rule of `header`, `body` or `json`; or [\"100-599\"] where any answer will do"));
    }
}

fn body_rule(body: &At<raw::ExpectBody>, key: &str, report: &mut Report) -> Option<BodyRule> {
    const EXPECTED: &str = "one of `contains`, `equals` and `matches`";
    let raw = &body.value;
    if matches!(raw.contains, Field::Bad) || matches!(raw.equals, Field::Bad) || matches!(raw.matches, Field::Bad) {
        return None;
    }
    match (raw.contains.get(), raw.equals.get(), raw.matches.get()) {
        (Some(at), None, None) => {
            warn_about_opposites(&at.value.0, &at.span, &format!("{key}.contains"), report);
            Some(BodyRule::Contains(at.value.0.clone()))
        }
        (None, Some(at), None) => Some(BodyRule::Equals(at.value.0.clone())),
        (None, None, Some(at)) => {
            warn_about_opposite_matches(&at.value.0, &at.span, &format!("{key}.matches"), report);
            Some(BodyRule::Matches(at.value.0.clone()))
        }
        (None, None, None) if raw.others => None,
        (None, None, None) => {
            report.add(Found::error(body.span.clone(), key, "no rule").expected(EXPECTED));
            None
        }
        _ => {
            let number = if raw.written().len() == 2 { "two rules" } else { "three rules" };
            report.add(Found::error(body.span.clone(), key, number).expected(EXPECTED));
            None
        }
    }
}

fn json_rules(raw: &raw::Expect, key: &str, report: &mut Report) -> Vec<JsonRule> {
    let Some(list) = raw.json.get() else { return Vec::new() };
    if list.value.0.is_empty() {
        let found = Found::error(list.span.clone(), key, "no rule");
        report.add(found.expected("[{ path = \"$.status\", equals = \"…\" }]"));
    }
    let rules = list.value.0.iter().enumerate();
    rules.filter_map(|(i, rule)| json_rule(rule.as_ref()?, &format!("{key}[{i}]"), report)).collect()
}

fn json_rule(rule: &At<raw::JsonRule>, key: &str, report: &mut Report) -> Option<JsonRule> {
    const EXPECTED: &str = "one of `equals`, `not_equals`, `in` and `exists`";
    let raw = &rule.value;
    if raw.path.is_absent() && !raw.others {
        let found = Found::error(rule.span.clone(), key, "`path` is missing");
        report.add(found.expected("path = \"$.status\""));
    }
    if let (Some(_), Some(at)) = (raw.exists.get(), raw.missing.get()) {
        let found = Found::error(at.span.clone(), format!("{key}.missing"), "does nothing beside `exists`");
        report.add(found.expected("`exists` alone: true or false"));
    }
    let values = [
        raw.equals.value().map(|value| JsonMatch::Equals(value.0.clone())),
        raw.not_equals.value().map(|value| JsonMatch::NotEquals(value.0.clone())),
        raw.one_of.value().map(|values| JsonMatch::In(values.0.clone())),
        raw.exists.value().map(|exists| JsonMatch::Exists(*exists)),
    ];
    let bad = matches!(raw.equals, Field::Bad)
        || matches!(raw.not_equals, Field::Bad)
        || matches!(raw.one_of, Field::Bad)
        || matches!(raw.exists, Field::Bad);
    let number = values.iter().flatten().count();
    if (number == 0 && !bad && !raw.others) || number > 1 {
        let message = if number == 0 { "no rule".to_owned() } else { format!("{number} rules") };
        report.add(Found::error(rule.span.clone(), key, message).expected(EXPECTED));
    }
    Some(JsonRule {
        path: raw.path.value()?.0.clone(),
        value: values.into_iter().flatten().next()?,
        missing_passes: raw.missing.value().is_some_and(|missing| missing.0 == Missing::Pass),
    })
}

const OPPOSITES: [&str; 6] = ["unhealthy", "inactive", "unavailable", "not ready", "not ok", "unready"];
const WORDS: [&str; 5] = ["healthy", "active", "available", "ready", "ok"];

/// `contains = "healthy"` also matches `unhealthy`: the check would never fail.
fn warn_about_opposites(text: &str, span: &Range<usize>, key: &str, report: &mut Report) {
    let lower = text.to_ascii_lowercase();
    if !WORDS.contains(&lower.trim()) {
        return;
    }
    if let Some(opposite) = OPPOSITES.iter().find(|opposite| opposite.contains(lower.as_str())) {
        let message = format!("\"{text}\" is also found in \"{opposite}\"");
        let found = Found::warning(span.clone(), key, message);
        report.add(found.expected("more of the text, such as the quotes around the word"));
    }
}

/// The same trap in a pattern.
fn warn_about_opposite_matches(pattern: &Pattern, span: &Range<usize>, key: &str, report: &mut Report) {
    let hit = WORDS.iter().find(|word| pattern.is_match(word.as_bytes())).and_then(|word| {
        OPPOSITES.iter().find(|opposite| opposite.contains(word) && pattern.is_match(opposite.as_bytes()))
    });
    if let Some(opposite) = hit {
        let message = format!("the pattern also finds something in \"{opposite}\"");
        let found = Found::warning(span.clone(), key, message);
        report.add(found.expected("more of the text, such as the quotes around the word, or \\b before it"));
    }
}
