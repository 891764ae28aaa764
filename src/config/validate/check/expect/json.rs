//! `expect.json`: a list of rules, each for every node that its path selects.

use crate::config::raw;
use crate::config::read::{At, Field};
use crate::config::report::{Found, Report};
use crate::config::values::Missing;
use crate::config::values::expect::JsonNumber;
use crate::model::policy::{JsonMatch, JsonRule, NumberRange};

/// The rules of the list without mistakes.
pub fn rules(raw: &raw::Expect, key: &str, report: &mut Report) -> Vec<JsonRule> {
    let Some(list) = raw.json.get() else { return Vec::new() };
    if list.value.0.is_empty() {
        let found = Found::error(list.span.clone(), key, "no rule");
        report.add(found.expected("[{ path = \"$.status\", equals = \"…\" }]"));
    }
    let rules = list.value.0.iter().enumerate();
    rules.filter_map(|(i, rule)| json_rule(rule.as_ref()?, &format!("{key}[{i}]"), report)).collect()
}

fn json_rule(rule: &At<raw::JsonRule>, key: &str, report: &mut Report) -> Option<JsonRule> {
    const EXPECTED: &str = "one of `equals`, `not_equals`, `in`, `exists`, `matches`, `is`, or `min` and `max`";
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
        raw.matches.value().map(|pattern| JsonMatch::Matches(pattern.0.clone())),
        raw.is.value().map(|is| JsonMatch::Is(is.0)),
    ];
    let ranges = usize::from(raw.min.get().is_some() || raw.max.get().is_some());
    let number = values.iter().flatten().count() + ranges;
    // A value with a mistake is already reported; `path` and `missing` are not rules.
    let bad = [&raw.min, &raw.max].iter().any(|bound| matches!(bound, Field::Bad))
        || matches!(raw.equals, Field::Bad)
        || matches!(raw.not_equals, Field::Bad)
        || matches!(raw.one_of, Field::Bad)
        || matches!(raw.exists, Field::Bad)
        || matches!(raw.matches, Field::Bad)
        || matches!(raw.is, Field::Bad);
    if (number == 0 && !bad && !raw.others) || number > 1 {
        let message = if number == 0 { "no rule".to_owned() } else { format!("{number} rules") };
        report.add(Found::error(rule.span.clone(), key, message).expected(EXPECTED));
        return None;
    }
    let range = range(&raw.min, &raw.max, key, report).map(JsonMatch::Within);
    Some(JsonRule {
        path: raw.path.value()?.0.clone(),
        value: values.into_iter().flatten().next().or(range)?,
        missing_passes: raw.missing.value().is_some_and(|missing| missing.0 == Missing::Pass),
    })
}

fn range(min: &Field<JsonNumber>, max: &Field<JsonNumber>, key: &str, report: &mut Report) -> Option<NumberRange> {
    let of = |field: &Field<JsonNumber>| field.value().map(|number| number.0.clone());
    let range = NumberRange::try_new(of(min), of(max));
    if let (None, Some(min), Some(max)) = (&range, min.get(), max.get()) {
        let message = format!("{} is less than min, {}: no number would pass", max.value.0, min.value.0);
        let found = Found::error(max.span.clone(), format!("{key}.max"), message);
        report.add(found.expected(format!("at least {}", min.value.0)));
    }
    range
}
