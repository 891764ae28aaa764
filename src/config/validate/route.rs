//! `[[routes]]`: each has a pool or an answer, and conditions that can be met; no two have the same conditions.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Names, rules};
use crate::config::raw;
use crate::config::read::{At, Field};
use crate::config::report::{Found, Report};
use crate::model::policy::{Condition, HostPattern, Matching, PathPattern, PoolShare, RoutePolicy};

/// The routes without mistakes, in file order.
pub fn routes(file: &raw::File, names: &Names<'_>, report: &mut Report) -> Vec<RoutePolicy> {
    let all = file.routes.value().map_or(&[][..], |list| &list.0);
    let mut out = Vec::with_capacity(all.len());
    let mut seen: HashMap<Matching, usize> = HashMap::with_capacity(all.len());
    for (index, entry) in all.iter().enumerate() {
        let Some(entry) = entry else { continue };
        let key = format!("routes[{index}]");
        let Some(route) = route(entry, &key, names, report) else { continue };
        let matching = route.matching();
        if let Some(first) = seen.get(&matching).filter(|_| !entry.value.others) {
            let message = format!("the same conditions as routes[{first}]; it would never be used");
            report.add(Found::error(entry.span.clone(), &key, message));
        }
        seen.entry(matching).or_insert(index);
        out.push(route);
    }
    out
}

fn route(entry: &At<raw::Route>, key: &str, names: &Names<'_>, report: &mut Report) -> Option<RoutePolicy> {
    let raw = &entry.value;
    let path = path(raw, key, report);
    let methods = methods(raw, key, report);
    let listener = match &raw.listener {
        Field::Absent => Some(None),
        Field::Bad => None,
        Field::Good(at) => names.listener(&at.value.0, &at.span, &format!("{key}.listener"), report).map(Some),
    };
    let pools = match &raw.pool {
        Field::Absent => rules::answers(raw).then(Vec::new),
        Field::Bad => None,
        Field::Good(at) => pools(at, &format!("{key}.pool"), names, report),
    };
    if raw.pool.is_absent() && !rules::answers(raw) && !raw.others {
        let found = Found::error(entry.span.clone(), key, "`pool` is missing");
        report.add(found.expected("pool = \"the name of a pool\", or `redirect`, or `respond`"));
    }
    let rules = rules::rules(raw, path.as_ref(), key, report);
    let conditions = conditions_of(raw);
    let host = match &raw.host {
        Field::Absent => HostPattern::Any,
        Field::Good(at) => at.value.clone(),
        Field::Bad => return None,
    };
    let (path, methods, listener, pools) = (path?, methods?, listener?, pools?);
    let rules = Some(rules?).filter(|rules| !rules.is_empty()).map(Arc::new);
    Some(RoutePolicy { host, path, methods, listener, conditions: conditions?, pools, rules })
}

/// What its requests must have beside that; `None`: there is a mistake in it.
fn conditions_of(raw: &raw::Route) -> Option<Vec<Condition>> {
    let raw::Route { header, query, cookie, .. } = raw;
    if matches!((header, query, cookie), (Field::Bad, ..) | (_, Field::Bad, _) | (.., Field::Bad)) {
        return None;
    }
    let header = header.value().map_or(&[][..], |all| &all.0).iter();
    let query = query.value().map_or(&[][..], |all| &all.0);
    Some(header.chain(query).chain(cookie.value().map_or(&[][..], |all| &all.0)).cloned().collect())
}

/// The pools that share its requests.
fn pools(at: &At<raw::PoolShares>, key: &str, names: &Names<'_>, report: &mut Report) -> Option<Vec<PoolShare>> {
    let shares = match &at.value {
        raw::PoolShares::Whole(name) => return names.pool(name, &at.span, key, report).map(PoolShare::all),
        raw::PoolShares::Shared(shares) => shares,
    };
    let mut out: Vec<PoolShare> = Vec::with_capacity(shares.0.len());
    let mut whole = true;
    for (index, share) in shares.0.iter().enumerate() {
        let Some(At { value: raw::PoolShare { name, weight, others }, span }) = share else {
            whole = false;
            continue;
        };
        for (word, is_absent) in [("name", name.is_absent()), ("weight", weight.is_absent())] {
            if is_absent && !others {
                let found = Found::error(span.clone(), format!("{key}[{index}]"), format!("`{word}` is missing"));
                report.add(found.expected("{ name = \"the name of a pool\", weight = 1 }"));
            }
        }
        let pool = name.get().and_then(|at| names.pool(&at.value.0, &at.span, &format!("{key}[{index}].name"), report));
        let weight = weight.value().and_then(|weight| u32::try_from(weight.0).ok());
        match pool.zip(weight) {
            Some((pool, _)) if out.iter().any(|known| known.pool == pool) => {
                report.add(Found::error(span.clone(), key, format!("\"{pool}\" is listed twice")));
            }
            Some((pool, weight)) => out.push(PoolShare { pool, weight }),
            None => whole = false,
        }
    }
    if whole && out.iter().all(|share| share.weight == 0) {
        let found = Found::error(at.span.clone(), key, "no pool has a weight above 0");
        report.add(found.expected("at least one pool that gets requests"));
        return None;
    }
    whole.then_some(out)
}

fn path(raw: &raw::Route, key: &str, report: &mut Report) -> Option<PathPattern> {
    match (&raw.path, &raw.path_exact) {
        (Field::Bad, _) | (_, Field::Bad) => None,
        (Field::Good(_), Field::Good(exact)) => {
            let found = Found::error(exact.span.clone(), format!("{key}.path_exact"), "cannot be combined with `path`");
            report.add(found.expected("one of `path` and `path_exact`"));
            None
        }
        (Field::Absent, Field::Good(exact)) => Some(PathPattern::Exact(exact.value.0.clone())),
        (Field::Absent, Field::Absent) => Some(PathPattern::Prefix(Arc::from("/"))),
        (Field::Good(prefix), Field::Absent) => {
            let text = prefix.value.0.as_ref();
            if text.ends_with("//") {
                let found = Found::error(prefix.span.clone(), format!("{key}.path"), "ends in more than one /");
                report.add(found.expected("a prefix without a / at its end"));
                return None;
            }
            let bare = text.strip_suffix('/').filter(|bare| !bare.is_empty()).unwrap_or(text);
            Some(PathPattern::Prefix(Arc::from(bare)))
        }
    }
}

fn methods(raw: &raw::Route, key: &str, report: &mut Report) -> Option<Vec<Arc<str>>> {
    let at = match &raw.method {
        Field::Absent => return Some(Vec::new()),
        Field::Bad => return None,
        Field::Good(at) => at,
    };
    let key = format!("{key}.method");
    if at.value.0.is_empty() {
        let found = Found::error(at.span.clone(), key, "an empty list matches no request");
        report.add(found.expected("methods, or no `method` for all of them"));
        return None;
    }
    let mut out: Vec<Arc<str>> = Vec::new();
    for method in at.value.iter() {
        if out.contains(&method.value.0) {
            report.add(Found::error(method.span.clone(), &key, format!("\"{}\" is listed twice", method.value.0)));
        }
        out.push(method.value.0.clone());
    }
    (out.len() == at.value.0.len()).then_some(out)
}
