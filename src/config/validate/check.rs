//! `[pools.NAME.health]`: timing with its defaults, and the definition of a probe. A key that belongs to another kind of
//! check is refused, because it would do nothing.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::config::raw;
use crate::config::read::{At, Field};
use crate::config::report::{Found, Report};
use crate::config::units::show_duration;
use crate::config::values::Kind;
use crate::model::Ratio;
use crate::model::policy::{
    BodyRule, CheckPolicy, Expect, HttpProbe, HttpVersion, PortRule, ProbeKind, ProbeSpec, StatusRule, TcpProbe,
    Timing, UpstreamPolicy,
};

/// One small request in ten seconds burdens nobody; what is dead is found within half a minute.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// What a check may take, unless the interval is shorter.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// A second look comes soon, unless the interval is shorter still.
const DEFAULT_FAST_INTERVAL: Duration = Duration::from_secs(1);
/// One pass may be chance.
const DEFAULT_HEALTHY_THRESHOLD: u32 = 2;
/// A lost packet or one slow answer is no outage.
const DEFAULT_UNHEALTHY_THRESHOLD: u32 = 3;
/// Keeps the checks of many balancers from marching in step.
const DEFAULT_JITTER: f64 = 0.1;

/// Makes the check of a pool; where the table has mistakes they are reported, and what is made is of no use.
pub fn check(field: &Field<raw::Health>, upstreams: &[UpstreamPolicy], key: &str, report: &mut Report) -> CheckPolicy {
    let Some(At { value: raw, .. }) = field.get() else {
        let spec = Arc::new(ProbeSpec::connect());
        return CheckPolicy { name: spec.kind.as_str().into(), spec, timing: timing(None) };
    };
    refuse_longer_than_interval(raw, key, report);
    let port = port_rule(raw, upstreams, key, report);
    let http = http(raw, key, report);
    let kind = match raw.kind.value().map_or(Kind::Tcp, |kind| kind.0) {
        Kind::Tcp => {
            refuse_keys_of_http(raw, key, report);
            ProbeKind::Tcp(TcpProbe::default())
        }
        Kind::Http => ProbeKind::Http(http),
    };
    let spec = Arc::new(ProbeSpec { port, tls: None, kind });
    CheckPolicy { name: spec.kind.as_str().into(), spec, timing: timing(Some(raw)) }
}

fn timing(raw: Option<&raw::Health>) -> Timing {
    let interval = raw.and_then(|r| r.interval.value()).map_or(DEFAULT_INTERVAL, |span| span.0);
    let healthy = raw.and_then(|r| r.healthy_threshold.value()).and_then(|count| u32::try_from(count.0).ok());
    let unhealthy = raw.and_then(|r| r.unhealthy_threshold.value()).and_then(|count| u32::try_from(count.0).ok());
    let jitter = raw.and_then(|r| r.jitter.value()).map(|share| share.0);
    Timing {
        interval,
        timeout: raw.and_then(|r| r.timeout.value()).map_or(DEFAULT_TIMEOUT.min(interval), |span| span.0),
        healthy_threshold: healthy.unwrap_or(DEFAULT_HEALTHY_THRESHOLD),
        unhealthy_threshold: unhealthy.unwrap_or(DEFAULT_UNHEALTHY_THRESHOLD),
        fast_interval: raw
            .and_then(|r| r.fast_interval.value())
            .map_or(DEFAULT_FAST_INTERVAL.min(interval), |span| span.0),
        start_period: raw.and_then(|r| r.start_period.value()).map_or(Duration::ZERO, |span| span.0),
        jitter: jitter.unwrap_or(Ratio::try_new(DEFAULT_JITTER).expect("the constant is a share")),
    }
}

fn refuse_longer_than_interval(raw: &raw::Health, key: &str, report: &mut Report) {
    if matches!(raw.interval, Field::Bad) {
        return;
    }
    let interval = raw.interval.value().map_or(DEFAULT_INTERVAL, |span| span.0);
    let written = [
        ("timeout", raw.timeout.get().map(|at| (at.value.0, &at.span))),
        ("fast_interval", raw.fast_interval.get().map(|at| (at.value.0, &at.span))),
    ];
    for (name, value) in written {
        let Some((duration, span)) = value.filter(|(duration, _)| *duration > interval) else { continue };
        let (shown, limit) = (show_duration(duration), show_duration(interval));
        let default = if raw.interval.is_absent() { " (its default)" } else { "" };
        let message = format!("\"{shown}\" exceeds the interval \"{limit}\"{default}");
        let found = Found::error(span.clone(), format!("{key}.{name}"), message);
        report.add(found.expected(format!("at most \"{limit}\"")));
    }
}

fn port_rule(raw: &raw::Health, upstreams: &[UpstreamPolicy], key: &str, report: &mut Report) -> PortRule {
    if let (Field::Good(_) | Field::Bad, Field::Good(offset)) = (&raw.port, &raw.port_offset) {
        let found = Found::error(offset.span.clone(), format!("{key}.port_offset"), "stands beside `port`");
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

fn refuse_keys_of_http(raw: &raw::Health, key: &str, report: &mut Report) {
    if matches!(raw.kind, Field::Bad) {
        return;
    }
    let note = if raw.kind.is_absent() { " (the default)" } else { "" };
    let keys: [(&str, Option<Range<usize>>); 5] = [
        ("path", span(&raw.path)),
        ("method", span(&raw.method)),
        ("host", span(&raw.host)),
        ("headers", span(&raw.headers)),
        ("expect", span(&raw.expect)),
    ];
    for (name, span) in keys {
        let Some(span) = span else { continue };
        let message = format!("belongs to type = \"http\"; this check is of type \"tcp\"{note}");
        report.add(Found::error(span, format!("{key}.{name}"), message).expected("type = \"http\" beside it"));
    }
}

fn span<T>(field: &Field<T>) -> Option<Range<usize>> {
    field.get().map(|at| at.span.clone())
}

fn http(raw: &raw::Health, key: &str, report: &mut Report) -> HttpProbe {
    let method = raw.method.value().map_or_else(|| Arc::from("GET"), |method| method.0.clone());
    HttpProbe {
        version: HttpVersion::Http1,
        path: raw.path.value().map_or_else(|| Arc::from("/"), |path| path.0.clone()),
        host: raw.host.value().map(|host| host.0.clone()),
        headers: raw.headers.value().map_or_else(Vec::new, |headers| headers.0.clone()),
        expect: expect(&raw.expect, &method, &format!("{key}.expect"), report),
        method,
        body: None,
    }
}

fn expect(field: &Field<raw::Expect>, method: &str, key: &str, report: &mut Report) -> Expect {
    let raw = field.value();
    let status = raw
        .and_then(|r| r.status.value())
        .map_or_else(|| Expect::default().status, |statuses| StatusRule::In(statuses.0.clone()));
    let body = raw.and_then(|r| r.body.get()).and_then(|body| {
        if method == "HEAD" {
            let message = "an answer to HEAD has no body";
            let found = Found::error(body.span.clone(), format!("{key}.body"), message);
            report.add(found.expected("method = \"GET\", or no `body`"));
        }
        body_rule(body, &format!("{key}.body"), report)
    });
    Expect { status, headers: Vec::new(), body, json: Vec::new() }
}

fn body_rule(body: &At<raw::ExpectBody>, key: &str, report: &mut Report) -> Option<BodyRule> {
    let raw = &body.value;
    match (&raw.contains, &raw.equals) {
        (Field::Good(contains), Field::Absent) => {
            warn_about_opposites(contains.value.0.as_ref(), &contains.span, key, report);
            Some(BodyRule::Contains(contains.value.0.clone()))
        }
        (Field::Absent, Field::Good(equals)) => Some(BodyRule::Equals(equals.value.0.clone())),
        (Field::Bad, _) | (_, Field::Bad) => None,
        (Field::Absent, Field::Absent) if raw.others => None,
        (Field::Absent, Field::Absent) => {
            let found = Found::error(body.span.clone(), key, "no rule");
            report.add(found.expected("one of `contains` and `equals`"));
            None
        }
        (Field::Good(_), Field::Good(_)) => {
            let found = Found::error(body.span.clone(), key, "two rules");
            report.add(found.expected("one of `contains` and `equals`"));
            None
        }
    }
}

/// `contains = "healthy"` also matches `unhealthy`: the check would never fail.
fn warn_about_opposites(text: &str, span: &Range<usize>, key: &str, report: &mut Report) {
    const OPPOSITES: [&str; 6] = ["unhealthy", "inactive", "unavailable", "not ready", "not ok", "unready"];
    const WORDS: [&str; 5] = ["healthy", "active", "available", "ready", "ok"];
    let lower = text.to_ascii_lowercase();
    if !WORDS.contains(&lower.trim()) {
        return;
    }
    if let Some(opposite) = OPPOSITES.iter().find(|opposite| opposite.contains(lower.as_str())) {
        let message = format!("\"{text}\" is also found in \"{opposite}\"");
        let found = Found::warning(span.clone(), format!("{key}.contains"), message);
        report.add(found.expected("more of the text, such as the quotes around the word"));
    }
}
