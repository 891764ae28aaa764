//! Checks that are allowed but look like a mistake: a certificate that is not verified, a traffic port that no check
//! touches, several upstreams that share one answer.

use std::collections::HashMap;

use super::{Written, port_place};
use crate::config::raw;
use crate::config::read::At;
use crate::config::report::{Found, Report};
use crate::model::Address;
use crate::model::policy::{CheckPolicy, PortRule, UpstreamPolicy};

/// Warns about the checks of one pool.
pub fn warn(
    raw: &raw::Health,
    written: &[Written],
    checks: &[CheckPolicy],
    upstreams: &[UpstreamPolicy],
    report: &mut Report,
) {
    // The mistake may be the port.
    if !report.has_errors() {
        untouched_traffic_port(raw, written, checks, upstreams, report);
        one_answer_for_several(written, checks, upstreams, report);
        taken_by_health_address(written, checks, upstreams, report);
    }
}

/// A live health port beside a dead traffic port is a known trap.
fn untouched_traffic_port(
    raw: &raw::Health,
    written: &[Written],
    checks: &[CheckPolicy],
    upstreams: &[UpstreamPolicy],
    report: &mut Report,
) {
    let Some((one, (name, span))) = written.iter().find_map(|one| Some((one, port_place(&one.probe)?))) else { return };
    let untouched = upstreams.iter().find(|upstream| {
        upstream.health_address.is_none() && checks.iter().all(|check| check.spec.target(upstream) != upstream.address)
    });
    let Some(upstream) = untouched else { return };
    let message = format!(
        "no check touches the port of the traffic, such as {}: it may be dead while this one answers",
        upstream.address
    );
    let mut list: Vec<String> = written.iter().map(|one| sketch(raw, &one.probe)).collect();
    list.push("{ type = \"tcp\" }".to_owned());
    let key = format!("{}.{name}", one.key);
    report.add(Found::warning(span, key, message).expected(format!("checks = [{}]", list.join(", "))));
}

/// A check as an entry of a list, with as many keys as a reader needs to write one.
fn sketch(raw: &raw::Health, probe: &raw::Probe) -> String {
    let several = raw.preset.value().is_some_and(|preset| !preset.0.table().checks.is_absent());
    if let (Some(preset), false) = (raw.preset.value(), several) {
        return format!("{{ preset = \"{}\" }}", preset.0.name);
    }
    let mut keys = Vec::new();
    keys.extend(probe.kind.value().map(|kind| format!("type = \"{}\"", kind.0.as_str())));
    keys.extend(probe.port.value().map(|port| format!("port = {}", port.0)));
    keys.extend(probe.port_offset.value().map(|offset| format!("port_offset = {}", offset.0)));
    keys.extend(probe.path.value().filter(|path| path.0.len() <= 40).map(|path| format!("path = \"{}\"", path.0)));
    if probe.written().len() > keys.len() {
        keys.push("…".to_owned());
    }
    format!("{{ {} }}", keys.join(", "))
}

/// A fixed port on a host of several upstreams gives them all the same answer.
fn one_answer_for_several(
    written: &[Written],
    checks: &[CheckPolicy],
    upstreams: &[UpstreamPolicy],
    report: &mut Report,
) {
    for (one, check) in written.iter().zip(checks) {
        let (PortRule::Port(_), Some((name, span))) = (check.spec.port, port_place(&one.probe)) else { continue };
        let mut first: HashMap<Address, &Address> = HashMap::new();
        let dialled = upstreams.iter().filter(|upstream| upstream.health_address.is_none());
        let shared =
            dialled.map(|upstream| (check.spec.target(upstream), &upstream.address)).find_map(|(target, address)| {
                match address.port() {
                    // A unix socket has no port to replace.
                    None => None,
                    Some(_) => first.insert(target.clone(), address).map(|other| (target, other, address)),
                }
            });
        if let Some((target, earlier, later)) = shared {
            let message = format!("{earlier} and {later} are both checked at {target}, so one answer decides for both");
            let found = Found::warning(span, format!("{}.{name}", one.key), message);
            report.add(found.expected("`port_offset`, or `health_address` per upstream"));
        }
    }
}

/// `health_address` takes every check, also the one that is meant for the port of the traffic.
fn taken_by_health_address(
    written: &[Written],
    checks: &[CheckPolicy],
    upstreams: &[UpstreamPolicy],
    report: &mut Report,
) {
    let elsewhere = checks.iter().any(|check| check.spec.port != PortRule::Same);
    let of_traffic = written.iter().zip(checks).find(|(_, check)| check.spec.port == PortRule::Same);
    let (true, Some((one, _))) = (elsewhere, of_traffic) else { return };
    let taken = upstreams.iter().find(|u| u.health_address.as_ref().is_some_and(|to| *to != u.address));
    if let Some(upstream) = taken {
        let message = format!(
            "the health_address of {} takes this check too, and no check touches its traffic port",
            upstream.address
        );
        let found = Found::warning(one.span.clone(), &one.key, message);
        report.add(found.expected("`port` or `port_offset` of the other checks in place of `health_address`"));
    }
}

/// Warns once about a certificate that is not verified, and counts the others.
pub fn warn_about_unverified(file: &raw::File, report: &mut Report) {
    let pools = file.pools.value().map_or(&[][..], |by_name| &by_name.0);
    let mut places = Vec::new();
    for (name, pool) in pools {
        let Some(health) = pool.as_ref().and_then(|pool| pool.value.health.value()) else { continue };
        let key = format!("pools.{}.health", crate::config::read::shown_key(&name.value));
        let entries = health.checks.value().map_or(&[][..], |list| &list.0);
        let entries = entries.iter().enumerate().filter_map(|(i, entry)| Some((i, &entry.as_ref()?.value.probe)));
        let tables = std::iter::once((key.clone(), &health.probe))
            .chain(entries.map(|(index, probe)| (format!("{key}.checks[{index}]"), probe)));
        for (key, probe) in tables {
            let verify = probe.tls.value().and_then(|tls| tls.verify.get());
            if let Some(At { span, .. }) = verify.filter(|verify| !verify.value) {
                places.push((span.clone(), format!("{key}.tls.verify")));
            }
        }
    }
    let others = match places.len() {
        0 => return,
        1 => String::new(),
        2 => ", as in 1 other check".to_owned(),
        number => format!(", as in {} other checks", number - 1),
    };
    let (span, key) = places.swap_remove(0);
    let message =
        format!("the certificate is not verified, so anyone on the network path can answer for the upstream{others}");
    report.add(Found::warning(span, key, message).expected("`ca_file` with the certificate to trust"));
}
