//! `[pools.NAME.health]`: one check or a list of them, merged with presets. `probe` decides what a check does, `expect`
//! what the answer must be, `timing` when it runs; `warn` reports what is allowed but looks like a mistake.

mod expect;
mod preset;
mod probe;
mod steps;
mod timing;
mod tls;
mod warn;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::sockets;
use crate::config::raw;
use crate::config::read::{At, Field};
use crate::config::report::{Found, Report};
use crate::model::policy::{CheckPolicy, PortRule, ProbeKind, ProbeSpec, Require, UpstreamPolicy};

pub use warn::warn_about_unverified;

/// The checks of a pool and how many must pass.
pub struct Checks {
    /// At least one.
    pub checks: Vec<CheckPolicy>,
    /// How many must pass.
    pub require: Require,
}

/// A check as it is written, with the keys of its preset.
struct Written {
    /// The keys of its own table.
    timing: raw::Timing,
    /// The timing keys beside `checks`; empty for the table itself.
    above: raw::Timing,
    /// The timing keys of the preset.
    preset: raw::Timing,
    /// What is written, filled from the preset.
    probe: raw::Probe,
    /// Its place; for a preset, that of the key `preset`.
    span: Range<usize>,
    /// The name of its preset.
    from: Option<&'static str>,
    /// The key of its table.
    key: String,
}

/// Makes the checks of a pool; if the table has mistakes they are reported, and the result must not be used.
pub fn checks(
    field: &Field<raw::Health>,
    upstreams: &[UpstreamPolicy],
    key: &str,
    own: &sockets::OwnSockets,
    report: &mut Report,
) -> Checks {
    let Some(At { value: raw, span }) = field.get() else {
        let spec = Arc::new(ProbeSpec::connect());
        let timing = timing::timing(&raw::Timing::empty(), &raw::Timing::empty());
        let check =
            CheckPolicy { name: spec.kind.as_str().into(), spec, timing, preset: None, tls_files: Arc::default() };
        return Checks { checks: vec![check], require: Require::All };
    };
    let written = match &raw.checks {
        Field::Absent => of_table(raw, span, key, report),
        Field::Good(list) => of_list(raw, list, key, report),
        Field::Bad => Vec::new(),
    };
    let mut checks = Vec::new();
    for one in &written {
        let made = check(one, upstreams, report);
        refuse_ourselves(one, &made.spec, upstreams, own, report);
        refuse_duplicate(&checks, &made, one, report);
        checks.push(made);
    }
    name(&mut checks);
    let require = require(raw, checks.len(), key, report);
    warn::warn(raw, &written, &checks, upstreams, report);
    Checks { checks, require }
}

/// The table itself is a check, or its preset is one or several.
fn of_table(raw: &raw::Health, span: &Range<usize>, key: &str, report: &mut Report) -> Vec<Written> {
    match &raw.preset {
        Field::Good(at) => preset::checks(at, &raw.timing, &raw::Timing::empty(), &raw.probe, key, report),
        Field::Bad => Vec::new(),
        Field::Absent => vec![Written {
            timing: raw.timing.clone(),
            above: raw::Timing::empty(),
            preset: raw::Timing::empty(),
            probe: raw.probe.clone(),
            span: span.clone(),
            from: None,
            key: key.to_owned(),
        }],
    }
}

fn of_list(raw: &raw::Health, list: &At<List>, key: &str, report: &mut Report) -> Vec<Written> {
    let preset = raw.preset.get().map(|at| ("preset", at.span.clone()));
    for (name, span) in raw.probe.written().into_iter().chain(preset) {
        let found = Found::error(span, format!("{key}.{name}"), "cannot be combined with `checks`");
        report.add(found.expected("either a check in this table, or a list of `checks` with the key in an entry"));
    }
    if list.value.0.is_empty() {
        let found = Found::error(list.span.clone(), format!("{key}.checks"), "no check");
        report.add(found.expected("1 to 16 checks, such as { type = \"tcp\" }"));
    }
    timing::refuse_conflicts_with_interval(&raw.timing, &raw::Timing::empty(), &raw::Timing::empty(), key, report);
    let mut out = Vec::new();
    for (index, entry) in list.value.0.iter().enumerate() {
        let Some(At { value: entry, span }) = entry else { continue };
        let key = format!("{key}.checks[{index}]");
        match &entry.preset {
            Field::Good(at) => {
                let several = preset::checks(at, &entry.timing, &raw.timing, &entry.probe, &key, report);
                preset::refuse_several(at, several.len(), &key, report);
                out.extend(several.into_iter().take(1));
            }
            Field::Bad => {}
            Field::Absent => out.push(Written {
                timing: entry.timing.clone(),
                above: raw.timing.clone(),
                preset: raw::Timing::empty(),
                probe: entry.probe.clone(),
                span: span.clone(),
                from: None,
                key,
            }),
        }
    }
    out
}

type List = crate::config::read::List<raw::Check, 16>;

fn check(written: &Written, upstreams: &[UpstreamPolicy], report: &mut Report) -> CheckPolicy {
    let Written { timing, above, preset, probe, key, span, from } = written;
    let of_preset = from.map(|_| span.clone());
    timing::refuse_conflicts_with_interval(timing, above, preset, key, report);
    let port = port_rule(probe, upstreams, key, report);
    let (kind, tls) = probe::probe(probe, key, report);
    let mut explicit = timing.clone();
    explicit.fill_from(above);
    let unread = matches!(explicit.timeout, Field::Bad) || matches!(explicit.interval, Field::Bad);
    let timing = timing::timing(&explicit, preset);
    // A timeout with a mistake is already reported.
    let timeout = if unread { Duration::MAX } else { timing.timeout };
    let max_duration = expect::max_duration(&probe.expect, timeout, of_preset.as_ref(), key, report);
    let spec = Arc::new(ProbeSpec { port, tls, kind, max_duration });
    let tls_files = if spec.tls.is_some() { tls::files(probe) } else { Arc::default() };
    CheckPolicy { name: spec.kind.as_str().into(), spec, timing, preset: *from, tls_files }
}

fn port_rule(raw: &raw::Probe, upstreams: &[UpstreamPolicy], key: &str, report: &mut Report) -> PortRule {
    if let (Field::Good(_) | Field::Bad, Field::Good(offset)) = (&raw.port, &raw.port_offset) {
        let found = Found::error(offset.span.clone(), format!("{key}.port_offset"), "cannot be combined with `port`");
        report.add(found.expected("one of `port` and `port_offset`"));
    }
    if let Some(port) = raw.port.value().and_then(|port| u16::try_from(port.0).ok()) {
        return PortRule::Port(port);
    }
    let Some(at) = raw.port_offset.get() else { return PortRule::Same };
    let offset = i32::try_from(at.value.0).expect("the range of the key fits");
    let dialled = upstreams.iter().filter(|u| u.health_address.is_none());
    let outside = dialled
        .filter_map(|u| u.address.port().map(|port| (u, i32::from(port) + offset)))
        .find(|(_, port)| !(1..=65_535).contains(port));
    if let Some((upstream, port)) = outside {
        let message = format!("gives the upstream {} the port {port}", upstream.address);
        let found = Found::error(at.span.clone(), format!("{key}.port_offset"), message);
        report.add(found.expected("a port from 1 to 65535 for every upstream"));
    }
    if offset == 0 { PortRule::Same } else { PortRule::Offset(offset) }
}

/// Where the port of a check is written.
fn port_place(raw: &raw::Probe) -> Option<(&'static str, Range<usize>)> {
    let port = raw.port.get().map(|at| ("port", at.span.clone()));
    port.or_else(|| raw.port_offset.get().map(|at| ("port_offset", at.span.clone())))
}

/// Refuses a port of the check that is one of our own sockets.
fn refuse_ourselves(
    written: &Written,
    spec: &ProbeSpec,
    upstreams: &[UpstreamPolicy],
    own: &sockets::OwnSockets,
    report: &mut Report,
) {
    let Some((name, span)) = port_place(&written.probe) else { return };
    let mut dialled = upstreams.iter().filter(|u| u.health_address.is_none()).map(|u| spec.target(u));
    if let Some((ours, target)) = dialled.find_map(|target| own.reached_by(&target).map(|ours| (ours, target))) {
        let message = format!("{target} is {ours} itself");
        report.add(Found::error(span, format!("{}.{name}", written.key), message));
    }
}

fn refuse_duplicate(known: &[CheckPolicy], made: &CheckPolicy, written: &Written, report: &mut Report) {
    if !written.probe.is_whole() {
        return;
    }
    if let Some(first) = known.iter().position(|check| check.spec == made.spec) {
        let message = format!("is the same check as checks[{first}]");
        report.add(Found::error(written.span.clone(), &written.key, message));
    }
}

/// `require`, where there are several checks to count.
fn require(raw: &raw::Health, total: usize, key: &str, report: &mut Report) -> Require {
    let preset = raw.preset.value().and_then(|preset| preset.0.table().require.value()).map(|require| require.0);
    let Some(at) = raw.require.get() else { return preset.unwrap_or_default() };
    let key = format!("{key}.require");
    let several = !raw.checks.is_absent() || matches!(raw.preset, Field::Bad) || total > 1;
    if !several && !raw.others {
        let found = Found::error(at.span.clone(), &key, "there is one check, and nothing to count");
        report.add(found.expected("a list of `checks` beside it"));
    }
    // A mistake in the list may change its length.
    if let (Require::Count(needed), true, false) = (at.value.0, several, report.has_errors())
        && needed as usize > total
    {
        let message = format!("{needed} checks can never pass: there are {total}");
        report.add(Found::error(at.span.clone(), key, message).expected(format!("at most {total}")));
    }
    at.value.0
}

/// Gives several checks distinct names: by what they request, if that is not enough by port, else by number. A name
/// depends on the other checks only if it would be equal to one of theirs.
fn name(checks: &mut [CheckPolicy]) {
    if checks.len() < 2 {
        return;
    }
    let count = |names: &[String]| {
        let mut count: HashMap<String, usize> = HashMap::new();
        names.iter().for_each(|name| *count.entry(name.clone()).or_default() += 1);
        count
    };
    let short: Vec<_> = checks.iter().map(|check| short_name(&check.spec)).collect();
    let times = count(&short);
    let mut names: Vec<_> = checks
        .iter()
        .zip(short)
        .map(|(check, short)| if times[&short] == 1 { short } else { with_port(short, &check.spec) })
        .collect();
    let times = count(&names);
    let mut seen: HashMap<String, usize> = HashMap::new();
    for name in &mut names {
        let number = seen.entry(name.clone()).or_default();
        *number += 1;
        if times[name] > 1 {
            *name = format!("{name} #{number}");
        }
    }
    checks.iter_mut().zip(names).for_each(|(check, name)| check.name = name.into());
}

/// `http /healthz`, `tcp`, `tcp 9443`.
fn short_name(spec: &ProbeSpec) -> String {
    const CHARS_MAX: usize = 48;
    let kind = spec.kind.as_str();
    let asked = match &spec.kind {
        ProbeKind::Tcp(_) | ProbeKind::Tls | ProbeKind::Agent(_) => return with_port(kind.to_owned(), spec),
        ProbeKind::Http(http) => http.path.split('?').next().unwrap_or(""),
        ProbeKind::Websocket(websocket) => websocket.path.split('?').next().unwrap_or(""),
        ProbeKind::Grpc(grpc) => &grpc.service,
    };
    let asked: String = asked.chars().take(CHARS_MAX).collect();
    if asked.is_empty() { kind.to_owned() } else { format!("{kind} {asked}") }
}

fn with_port(name: String, spec: &ProbeSpec) -> String {
    match spec.port {
        PortRule::Same => name,
        PortRule::Port(port) => format!("{name} {port}"),
        PortRule::Offset(offset) => format!("{name} {offset:+}"),
    }
}

#[cfg(test)]
mod tests;
