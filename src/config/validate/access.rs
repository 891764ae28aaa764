//! `[access_log]`.

use crate::config::raw;
use crate::config::read::At;
use crate::config::report::{Found, Report};
use crate::model::Ratio;
use crate::model::policy::{AccessFormat, AccessPolicy, ShownQuery};

/// Which requests are logged; `None`: none.
pub fn access_log(file: &raw::File, report: &mut Report) -> Option<AccessPolicy> {
    let At { value: table, .. } = file.access_log.get()?;
    let to = table.to.value().and_then(|to| to.0.clone());
    if to.is_none() {
        // Whoever has written the other keys wants lines.
        if let Some((key, span)) =
            table.written().into_iter().find(|(key, _)| *key != "to").filter(|_| table.to.is_absent())
        {
            let message = "no line is written: `to` is \"off\" by default";
            let found = Found::warning(span, format!("access_log.{key}"), message);
            report.add(found.expected("`to = \"stdout\"` beside it, or the path of a file"));
        }
        return None;
    }
    let format = table.format.value().map_or(AccessFormat::Json, |word| word.0);
    let fields = table.fields.get();
    if let (AccessFormat::Combined, Some(At { span, .. })) = (format, fields) {
        let message = "only lines in JSON have keys: `combined` is always the same";
        report.add(Found::warning(span.clone(), "access_log.fields", message).expected("`format = \"json\"`"));
    }
    let fields = fields.map(|at| &at.value);
    let list = |names: Option<&crate::config::read::List<raw::ShownHeader, 16>>| {
        names.map_or_else(Vec::new, |names| names.iter().map(|name| name.value.0.clone()).collect())
    };
    Some(AccessPolicy {
        to: to?,
        format,
        only: table.only.value().map_or_else(Vec::new, |only| only.iter().map(|class| class.value.0).collect()),
        sample: table.sample.value().map_or(Ratio::percent(100), |share| share.0),
        except_paths: table
            .except_paths
            .value()
            .map_or_else(Vec::new, |paths| paths.iter().map(|path| path.value.0.clone()).collect()),
        query: table.query.value().map_or(ShownQuery::Whole, |query| query.0),
        drop: fields
            .and_then(|fields| fields.drop.value())
            .map_or_else(Vec::new, |keys| keys.iter().map(|key| key.value.0).collect()),
        headers: list(fields.and_then(|fields| fields.headers.value())),
    })
}
