//! What an answer must look like. Refuses rules that contradict each other, or that can never or always hold.

mod json;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::config::raw;
use crate::config::read::{At, Field};
use crate::config::report::{Found, Report};
use crate::config::values::Kind;
use crate::model::Ratio;
use crate::model::policy::{BodyRule, Degraded, Expect, HeaderMatch, Pattern, StatusRule};
use crate::model::written::show_duration;

/// What a check of type tcp expects; `by_default`: the type is not written.
pub fn text(field: &Field<raw::Expect>, by_default: bool, key: &str, report: &mut Report) -> Option<Arc<str>> {
    let At { value: raw, span } = field.get()?;
    for (name, span) in raw.written().into_iter().filter(|(name, _)| !["contains", "max_duration"].contains(name)) {
        let note = if by_default { " (the default)" } else { "" };
        let message = format!("belongs to type = \"http\"; this check is of type \"tcp\"{note}");
        report.add(Found::error(span, format!("{key}.{name}"), message).expected("type = \"http\" beside `expect`"));
    }
    match &raw.contains {
        Field::Good(at) => {
            warn_about_opposites(&at.value.0, &|_| false, &at.span, &format!("{key}.contains"), report);
            Some(at.value.0.clone())
        }
        Field::Absent if raw.written().is_empty() && !raw.others => {
            report.add(Found::error(span.clone(), key, "no rule").expected("contains = \"…\""));
            None
        }
        Field::Bad | Field::Absent => None,
    }
}

/// What a check expects if its exchange alone decides the result: only a maximum duration.
pub fn duration_alone(field: &Field<raw::Expect>, kind: Kind, key: &str, report: &mut Report) {
    let Some(At { value: raw, span }) = field.get() else { return };
    for (name, span) in raw.written().into_iter().filter(|(name, _)| *name != "max_duration") {
        let of = if name == "contains" { "tcp" } else { "http" };
        let message = format!("belongs to type = \"{of}\"; this check is of type \"{}\"", kind.as_str());
        report.add(Found::error(span, format!("{key}.{name}"), message).expected("`max_duration`, or no `expect`"));
    }
    if raw.written().is_empty() && raw.is_whole() {
        report.add(Found::error(span.clone(), key, "no rule").expected("max_duration = \"…\""));
    }
}

/// How long a correct answer may take. Refuses a duration that the timeout cuts off first; that of a preset (its values
/// have the place `preset`) gives way to a written timeout.
pub fn max_duration(
    field: &Field<raw::Expect>,
    timeout: Duration,
    preset: Option<&Range<usize>>,
    key: &str,
    report: &mut Report,
) -> Option<Duration> {
    let At { value, span } = field.value()?.max_duration.get()?;
    if value.0 < timeout {
        return Some(value.0);
    }
    if preset != Some(span) {
        let (shown, limit) = (show_duration(value.0), show_duration(timeout));
        let message = format!("\"{shown}\" is not below the timeout \"{limit}\"");
        let found = Found::error(span.clone(), format!("{key}.expect.max_duration"), message);
        report.add(found.expected(format!("less than \"{limit}\", or a longer `timeout`")));
    }
    None
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
                warn_about_opposite_matches(pattern, &|_| false, &at.span, &format!("{key}.header"), report);
            }
        }
    }
    refuse_anything(raw, &status, key, report);
    Expect {
        status,
        headers,
        body: body_rules(raw, &format!("{key}.body"), report),
        json: json::rules(raw, &format!("{key}.json"), report),
    }
}

/// What answers look like where the upstream is worse than others.
pub fn degraded(field: &Field<raw::Degraded>, method: &str, key: &str, report: &mut Report) -> Option<Degraded> {
    let At { value: raw::Degraded { expect: rules, weight, others }, span } = field.get()?;
    let inner = format!("{key}.expect");
    match rules {
        Field::Absent if !others => {
            let found = Found::error(span.clone(), key, "`expect` is missing");
            report.add(found.expected("expect = { json = [{ path = \"$.status\", equals = \"Degraded\" }] }"));
        }
        Field::Good(at) if at.value.written().is_empty() && at.value.is_whole() => {
            let found = Found::error(at.span.clone(), &inner, "no rule: every answer would be degraded");
            report.add(found.expected("a rule of `status`, `header`, `body` or `json`"));
        }
        Field::Absent | Field::Good(_) | Field::Bad => {}
    }
    if let Some(at) = rules.value().and_then(|rules| rules.max_duration.get()) {
        let found =
            Found::error(at.span.clone(), format!("{inner}.max_duration"), "does not say that an answer is worse");
        report.add(found.expected("`max_duration` in the `expect` of the check: then a slow answer fails"));
    }
    if let Some(at) = weight.get()
        && at.value.0 == Ratio::ZERO
    {
        let found = Found::error(at.span.clone(), format!("{key}.weight"), "leaves it nothing");
        report.add(found.expected("more than 0, up to 1; what must get nothing must fail its check"));
    }
    let mut expect = expect(rules, method, &inner, report);
    // The check itself has tested it already.
    if rules.value().is_none_or(|rules| rules.status.is_absent()) {
        expect.status = StatusRule::Any;
    }
    Some(Degraded { expect, weight: weight.value().map_or(Ratio::percent(25), |share| share.0) })
}

/// `status = "any"` alone accepts every answer.
fn refuse_anything(raw: &raw::Expect, status: &StatusRule, key: &str, report: &mut Report) {
    let alone = raw.header.is_absent() && raw.body.is_absent() && raw.json.is_absent() && !raw.others;
    if let (StatusRule::Any, true, Some(at)) = (status, alone, raw.status.get()) {
        let message = "\"any\" leaves the decision to other rules, and there are none: every answer would pass";
        let found = Found::error(at.span.clone(), format!("{key}.status"), message);
        report.add(found.expected("a rule of `header`, `body` or `json`; or [\"100-599\"] where any answer will do"));
    }
}

fn body_rules(raw: &raw::Expect, key: &str, report: &mut Report) -> Vec<BodyRule> {
    let Some(At { value: bodies, span }) = raw.body.get() else { return Vec::new() };
    if bodies.is_empty() {
        let found = Found::error(span.clone(), key, "no rule");
        report.add(found.expected("[{ contains = \"…\" }, { not_contains = \"…\" }]"));
    }
    let of = |index: Option<usize>| index.map_or_else(|| key.to_owned(), |index| format!("{key}[{index}]"));
    let rules: Vec<_> =
        bodies.iter().filter_map(|(i, body)| Some((i, body, body_rule(body, &of(i), report)?))).collect();
    let excluded = |text: &str| {
        rules.iter().any(|(_, _, rule)| match rule {
            BodyRule::NotContains(excluded) => text.contains(&**excluded),
            BodyRule::NotMatches(pattern) => pattern.is_match(text.as_bytes()),
            BodyRule::Contains(_) | BodyRule::Equals(_) | BodyRule::Matches(_) => false,
        })
    };
    for (index, body, rule) in &rules {
        let key = of(*index);
        match (rule, body.value.contains.get(), body.value.matches.get()) {
            (BodyRule::Contains(text), Some(at), _) => {
                warn_about_opposites(text, &excluded, &at.span, &format!("{key}.contains"), report);
            }
            (BodyRule::Matches(pattern), _, Some(at)) => {
                warn_about_opposite_matches(pattern, &excluded, &at.span, &format!("{key}.matches"), report);
            }
            _ => {}
        }
    }
    rules.into_iter().map(|(_, _, rule)| rule).collect()
}

fn body_rule(body: &At<raw::ExpectBody>, key: &str, report: &mut Report) -> Option<BodyRule> {
    let raw = &body.value;
    let values = [
        raw.contains.value().map(|text| BodyRule::Contains(text.0.clone())),
        raw.equals.value().map(|text| BodyRule::Equals(text.0.clone())),
        raw.matches.value().map(|pattern| BodyRule::Matches(pattern.0.clone())),
        raw.not_contains.value().map(|text| BodyRule::NotContains(text.0.clone())),
        raw.not_matches.value().map(|pattern| BodyRule::NotMatches(pattern.0.clone())),
    ];
    let number = values.iter().flatten().count();
    if (number == 0 && raw.is_whole()) || number > 1 {
        let message = match number {
            0 => "no rule",
            2 => "two rules",
            3 => "three rules",
            _ => "several rules",
        };
        let found = Found::error(body.span.clone(), key, message);
        let found = found.expected("one of `contains`, `equals`, `matches`, `not_contains` and `not_matches`");
        let several = "a list of tables, such as [{ contains = \"…\" }, { not_contains = \"…\" }], where all must hold";
        report.add(if number > 1 { found.expected(several) } else { found });
    }
    values.into_iter().flatten().next().filter(|_| number == 1)
}

const OPPOSITES: [&str; 6] = ["unhealthy", "inactive", "unavailable", "not ready", "not ok", "unready"];
const WORDS: [&str; 5] = ["healthy", "active", "available", "ready", "ok"];

/// `contains = "healthy"` also matches `unhealthy`: the check would never fail, unless another rule has `excluded` that.
fn warn_about_opposites(
    text: &str,
    excluded: &dyn Fn(&str) -> bool,
    span: &Range<usize>,
    key: &str,
    report: &mut Report,
) {
    let lower = text.to_ascii_lowercase();
    if !WORDS.contains(&lower.trim()) {
        return;
    }
    if let Some(opposite) = OPPOSITES.iter().find(|opposite| opposite.contains(lower.as_str()) && !excluded(opposite)) {
        let message = format!("\"{text}\" is also found in \"{opposite}\"");
        let found = Found::warning(span.clone(), key, message);
        report.add(found.expected("more of the text, such as the quotes around the word"));
    }
}

/// The same trap in a pattern.
fn warn_about_opposite_matches(
    pattern: &Pattern,
    excluded: &dyn Fn(&str) -> bool,
    span: &Range<usize>,
    key: &str,
    report: &mut Report,
) {
    let hit = WORDS.iter().find(|word| pattern.is_match(word.as_bytes())).and_then(|word| {
        let found = |opposite: &&&str| opposite.contains(word) && pattern.is_match(opposite.as_bytes());
        OPPOSITES.iter().find(|opposite| found(opposite) && !excluded(opposite))
    });
    if let Some(opposite) = hit {
        let message = format!("the pattern also finds something in \"{opposite}\"");
        let found = Found::warning(span.clone(), key, message);
        report.add(found.expected("more of the text, such as the quotes around the word, or \\b before it"));
    }
}
