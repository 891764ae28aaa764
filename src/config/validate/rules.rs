//! What a route does with its requests: rules between its keys.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::traffic::limit_of;
use crate::config::raw;
use crate::config::read::{At, Field, List};
use crate::config::report::{Found, Report};
use crate::model::policy::{FieldEdits, FieldText, FixedAnswer, HashKey, PathPattern, RateLimit, RouteRules};
use crate::model::template::Template;

/// Whether the route has an answer of its own.
pub fn answers(raw: &raw::Route) -> bool {
    !raw.redirect.is_absent() || !raw.respond.is_absent()
}

/// The rules of a route; `None`: there is a mistake in them. `path`: the path of the route, if it has no mistake.
pub fn rules(raw: &raw::Route, path: Option<&PathPattern>, key: &str, report: &mut Report) -> Option<RouteRules> {
    let whole = refuse_combinations(raw, key, report);
    let strip_prefix = strip_prefix(raw, path, key, report);
    let answer = match (&raw.redirect, &raw.respond) {
        (Field::Good(at), _) => Some(redirect(at, &format!("{key}.redirect"), report)),
        (_, Field::Good(at)) => Some(respond(at, &format!("{key}.respond"), report)),
        (Field::Bad, _) | (_, Field::Bad) => Some(None),
        (Field::Absent, Field::Absent) => None,
    };
    let rate_limit = rate_limit(&raw.rate_limit, &format!("{key}.rate_limit"), report);
    let request = edits(
        raw.set_request_headers.value().map(|fields| fields.0.clone()),
        raw.remove_request_headers.get().map(|at| names(at, |name| name.0.clone())),
        (&raw.remove_request_headers, &format!("{key}.remove_request_headers")),
        report,
    );
    let response = raw.set_response_headers.value().map(|fields| {
        fields.0.iter().map(|(name, value)| (name.clone(), FieldText::Template(value.clone()))).collect()
    });
    let response = edits(
        response,
        raw.remove_response_headers.get().map(|at| names(at, |name| name.0.clone())),
        (&raw.remove_response_headers, &format!("{key}.remove_response_headers")),
        report,
    );
    let rules = RouteRules {
        strip_prefix: strip_prefix?,
        rewrite: raw.rewrite.value().map(|path| path.0.clone()),
        request: request?,
        response: response?,
        timeout: raw.timeout.value().map(|span| limit_of(span.0)),
        answer: match answer {
            Some(answer) => Some(answer?),
            None => None,
        },
        rate_limit,
    };
    whole.then_some(rules)
}

/// A route has a pool or an answer; with an answer, nothing goes upstream.
fn refuse_combinations(raw: &raw::Route, key: &str, report: &mut Report) -> bool {
    let written = raw.written();
    let place = |key: &str| written.iter().find(|(name, _)| *name == key).map(|(_, span)| span.clone());
    let answer = ["redirect", "respond"].into_iter().filter_map(|name| Some((name, place(name)?)));
    let answers: Vec<(&str, Range<usize>)> = answer.collect();
    let Some((answer, _)) = answers.first() else { return true };
    let mut excluded: Vec<&str> =
        vec!["pool", "rewrite", "set_request_headers", "remove_request_headers", "remove_response_headers", "timeout"];
    if *answer == "respond" {
        excluded.push("strip_prefix");
    }
    let mut whole = true;
    let mut refuse = |name: &str, span: Range<usize>, report: &mut Report| {
        let found = Found::error(span, format!("{key}.{name}"), format!("cannot be combined with `{answer}`"));
        let expected = format!("one of the two: no request of a route with `{answer}` goes to an upstream");
        report.add(found.expected(expected));
        whole = false;
    };
    for (name, span) in answers.iter().skip(1) {
        refuse(name, span.clone(), report);
    }
    for name in excluded {
        if let Some(span) = place(name) {
            refuse(name, span, report);
        }
    }
    whole
}

/// A prefix that every request of the route has. The outer `None`: there is a mistake.
#[expect(clippy::option_option, reason = "the outer one is a mistake")]
fn strip_prefix(
    raw: &raw::Route,
    path: Option<&PathPattern>,
    key: &str,
    report: &mut Report,
) -> Option<Option<Arc<str>>> {
    let at = match &raw.strip_prefix {
        Field::Absent => return Some(None),
        Field::Bad => return None,
        Field::Good(at) => at,
    };
    let prefix = at.value.0.strip_suffix('/').unwrap_or(&at.value.0);
    let (PathPattern::Prefix(path) | PathPattern::Exact(path)) = path?;
    let rest = path.strip_prefix(prefix);
    // A path that is missing may only be misspelt.
    let is_misspelt = raw.others && raw.path.is_absent() && raw.path_exact.is_absent();
    if !is_misspelt && !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        let message = format!("not every request of this route begins with \"{prefix}\"");
        let found = Found::error(at.span.clone(), format!("{key}.strip_prefix"), message);
        report.add(found.expected(format!("\"{path}\", the path of this route, or a part of it")));
        return None;
    }
    // Without a prefix there is nothing to take off.
    Some(Some(Arc::from(prefix)).filter(|prefix: &Arc<str>| !prefix.is_empty()))
}

fn redirect(at: &At<raw::Redirect>, key: &str, report: &mut Report) -> Option<FixedAnswer> {
    let raw::Redirect { status, to, others } = &at.value;
    if to.is_absent() && !others {
        report.add(Found::error(at.span.clone(), key, "`to` is missing").expected("to = \"https://{host}{path}\""));
    }
    let code = match status {
        Field::Absent => 302,
        Field::Bad => return None,
        Field::Good(at) => match u16::try_from(at.value.0) {
            Ok(code @ (301 | 302 | 303 | 307 | 308)) => code,
            _ => {
                let found = Found::error(at.span.clone(), format!("{key}.status"), "redirects no client");
                report.add(found.expected("301, 302, 303, 307 or 308"));
                return None;
            }
        },
    };
    Some(FixedAnswer::Redirect { status: code, to: to.value()?.0.clone() })
}

fn respond(at: &At<raw::Respond>, key: &str, report: &mut Report) -> Option<FixedAnswer> {
    let raw::Respond { status, body, headers, others: _ } = &at.value;
    if matches!((status, body, headers), (Field::Bad, ..) | (_, Field::Bad, _) | (.., Field::Bad)) {
        return None;
    }
    let code = status.value().and_then(|code| u16::try_from(code.0).ok()).unwrap_or(200);
    let body_text = body.value().map_or_else(|| Template::parse("").ok(), |body| Some(body.0.clone()))?;
    if let (204 | 205 | 304, Some(at)) = (code, body.get())
        && !at.value.0.pieces().is_empty()
    {
        let message = format!("a response with status {code} has no body");
        report.add(Found::error(at.span.clone(), format!("{key}.body"), message).expected("no `body`"));
        return None;
    }
    let fields = headers.value().map_or_else(Vec::new, |fields| fields.0.clone());
    Some(FixedAnswer::Respond { status: code, body: body_text, fields })
}

/// The limit of a route or listener.
pub fn rate_limit(field: &Field<raw::RateLimit>, key: &str, report: &mut Report) -> Option<RateLimit> {
    let At { value: raw::RateLimit { requests, per, burst, key: by, others }, span } = field.get()?;
    if requests.is_absent() && !others {
        let found = Found::error(span.clone(), key, "`requests` is missing");
        report.add(found.expected("{ requests = 100, per = \"1s\" }"));
    }
    let number = |count: Option<i64>| count.and_then(|count| u32::try_from(count).ok());
    let requests = number(requests.value().map(|count| count.0))?;
    Some(RateLimit {
        requests,
        per: per.value().map_or(Duration::from_secs(1), |span| span.0),
        burst: number(burst.value().map(|count| count.0)).unwrap_or(requests),
        key: by.value().map_or_else(HashKey::default, |by| by.0.clone()),
    })
}

fn names<T>(at: &At<List<T, 64>>, name: impl Fn(&T) -> Arc<str>) -> Vec<(Arc<str>, Range<usize>)> {
    at.value.iter().map(|at| (name(&at.value), at.span.clone())).collect()
}

/// Changes to the fields of a head. `removed`: the key of the list.
fn edits<T>(
    set: Option<Vec<(Arc<str>, FieldText)>>,
    remove: Option<Vec<(Arc<str>, Range<usize>)>>,
    (removed, key): (&Field<T>, &str),
    report: &mut Report,
) -> Option<FieldEdits> {
    if matches!(removed, Field::Bad) {
        return None;
    }
    let set = set.unwrap_or_default();
    let mut names: Vec<Arc<str>> = Vec::new();
    let mut whole = true;
    for (name, span) in remove.unwrap_or_default() {
        let same = |other: &str| other.eq_ignore_ascii_case(&name);
        let problem = if names.iter().any(|known| same(known)) {
            Some("is listed twice")
        } else if set.iter().any(|(known, _)| same(known)) {
            Some("is also set: setting replaces what was there")
        } else {
            None
        };
        if let Some(problem) = problem {
            report.add(Found::error(span, key, format!("\"{name}\" {problem}")));
            whole = false;
        }
        names.push(name);
    }
    whole.then_some(FieldEdits { set, remove: names })
}
