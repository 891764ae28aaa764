//! One pool: its upstreams, and what happens while too few of them are healthy.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::{Names, check, sockets, traffic};
use crate::config::raw;
use crate::config::read::{At, Field};
use crate::config::report::{Found, Report};
use crate::model::policy::{Balance, MinHealthy, PoolPolicy, UpstreamPolicy, WhenNoHealthy};
use crate::model::{Address, AdminState, Name, Weight};

/// A replaced container is found within half a minute, at little load for name servers.
const DEFAULT_RESOLVE: Duration = Duration::from_secs(30);

/// Makes a pool; `None` if its mistakes leave nothing to make.
pub fn pool(
    name: Option<Name>,
    table: &At<raw::Pool>,
    key: &str,
    names: &Names<'_>,
    own: &sockets::OwnSockets,
    report: &mut Report,
) -> Option<PoolPolicy> {
    let raw = &table.value;
    let upstreams = upstreams(table, key, names, own, report);
    let when_no_healthy = when_no_healthy(raw, key, names, report);
    let min_healthy = min_healthy(raw, upstreams.as_deref(), key, report);
    let known = upstreams.as_deref().unwrap_or(&[]);
    let check::Checks { checks, require } = check::checks(&raw.health, known, &format!("{key}.health"), own, report);
    Some(PoolPolicy {
        name: name?,
        upstreams: upstreams?,
        balance: raw.balance.value().map_or(Balance::RoundRobin, |balancing| balancing.balance),
        when_no_healthy: when_no_healthy?,
        min_healthy,
        checks,
        require,
        resolve: raw.resolve.value().map_or(DEFAULT_RESOLVE, |span| span.0),
        traffic: Arc::new(traffic::traffic(raw, key, report)),
    })
}

/// The upstreams; `None` if one of them is wrong, so that nothing is concluded from their number.
fn upstreams(
    table: &At<raw::Pool>,
    key: &str,
    names: &Names<'_>,
    own: &sockets::OwnSockets,
    report: &mut Report,
) -> Option<Vec<UpstreamPolicy>> {
    let raw = &table.value;
    let list = match &raw.upstreams {
        Field::Good(list) => list,
        Field::Bad => return None,
        Field::Absent if raw.others || !names.pools_known => return None,
        Field::Absent => {
            let found = Found::error(table.span.clone(), key, "`upstreams` is missing");
            report.add(found.expected("upstreams = [\"ip:port\"]"));
            return None;
        }
    };
    let (span, list) = (&list.span, &list.value.0);
    let key = format!("{key}.upstreams");
    if list.is_empty() {
        report.add(Found::error(span.clone(), &key, "a pool without upstreams").expected("at least one address"));
        return None;
    }
    let is_alone =
        list.len() == 1 && list[0].as_ref().and_then(written).is_none_or(|address| address.host_name().is_none());
    let has_other = matches!(table.value.when_no_healthy.value(), Some(raw::NoHealthy::Elsewhere(_)));
    if is_alone && !has_other {
        report.add(Found::warning(span.clone(), &key, "a pool with one upstream has none left if it fails"));
    }
    let mut seen: HashMap<Address, usize> = HashMap::with_capacity(list.len());
    let mut out = Vec::with_capacity(list.len());
    for (index, entry) in list.iter().enumerate() {
        let Some(entry) = entry else { continue };
        let Some(upstream) = upstream(entry, || format!("{key}[{index}]"), own, report) else { continue };
        if let Some(first) = seen.insert(canonical(&upstream.address), index) {
            let message = format!("{} is the same upstream as upstreams[{first}]", upstream.address);
            report.add(Found::error(address_span(entry), format!("{key}[{index}]"), message));
            seen.insert(canonical(&upstream.address), first);
        }
        out.push(upstream);
    }
    (out.len() == list.len()).then_some(out)
}

fn upstream(
    entry: &At<raw::Upstream>,
    key: impl Fn() -> String,
    own: &sockets::OwnSockets,
    report: &mut Report,
) -> Option<UpstreamPolicy> {
    let raw = match &entry.value {
        raw::Upstream::Plain(address) => {
            refuse_ourselves(&address.0, &entry.span, &key, own, report);
            return Some(UpstreamPolicy {
                address: address.0.clone(),
                name: address.0.host_name().cloned(),
                weight: Weight::ONE,
                backup: false,
                health_address: None,
                admin: AdminState::Enabled,
            });
        }
        raw::Upstream::Table(table) => table,
    };
    if raw.address.is_absent() && !raw.others {
        let found = Found::error(entry.span.clone(), key(), "`address` is missing");
        report.add(found.expected("address = \"ip:port\""));
    }
    if let Some(at) = raw.address.get() {
        refuse_ourselves(&at.value.0, &at.span, &key, own, report);
    }
    if let Some(at) = raw.health_address.get() {
        refuse_ourselves(&at.value.0, &at.span, &|| format!("{}.health_address", key()), own, report);
    }
    let address = raw.address.value()?.0.clone();
    if let (Some(_), Some(at)) = (address.host_name(), raw.health_address.get()) {
        let message = "one address cannot check every address of a name";
        let found = Found::error(at.span.clone(), format!("{}.health_address", key()), message);
        report.add(found.expected("`port` or `port_offset` in the health table, or the address of the upstream"));
    }
    Some(UpstreamPolicy {
        name: address.host_name().cloned(),
        address,
        weight: raw.weight.value().and_then(|weight| Weight::try_new(weight.0)).unwrap_or(Weight::ONE),
        backup: raw.backup.value().copied().unwrap_or(false),
        health_address: raw.health_address.value().map(|address| address.0.clone()),
        admin: raw.admin.value().map_or(AdminState::Enabled, |admin| admin.0),
    })
}

fn refuse_ourselves(
    address: &Address,
    span: &Range<usize>,
    key: &dyn Fn() -> String,
    own: &sockets::OwnSockets,
    report: &mut Report,
) {
    if let Some(ours) = own.reached_by(address) {
        report.add(Found::error(span.clone(), key(), format!("{address} is {ours} itself")));
    }
}

/// The address of an entry, if it has a valid one.
fn written(entry: &At<raw::Upstream>) -> Option<&Address> {
    match &entry.value {
        raw::Upstream::Plain(address) => Some(&address.0),
        raw::Upstream::Table(table) => table.address.value().map(|address| &address.0),
    }
}

fn address_span(entry: &At<raw::Upstream>) -> Range<usize> {
    match &entry.value {
        raw::Upstream::Plain(_) => entry.span.clone(),
        raw::Upstream::Table(table) => table.address.get().map_or(entry.span.clone(), |at| at.span.clone()),
    }
}

/// `127.0.0.1:80` and `[::ffff:127.0.0.1]:80` are one socket.
fn canonical(address: &Address) -> Address {
    match address {
        Address::Inet(inet) => Address::Inet(std::net::SocketAddr::new(inet.ip().to_canonical(), inet.port())),
        Address::Unix(_) | Address::Name { .. } => address.clone(),
    }
}

fn when_no_healthy(raw: &raw::Pool, key: &str, names: &Names<'_>, report: &mut Report) -> Option<WhenNoHealthy> {
    match raw.when_no_healthy.get() {
        None => Some(WhenNoHealthy::Reject),
        Some(At { value: raw::NoHealthy::Reject, .. }) => Some(WhenNoHealthy::Reject),
        Some(At { value: raw::NoHealthy::FailOpen, .. }) => Some(WhenNoHealthy::FailOpen),
        Some(At { value: raw::NoHealthy::Elsewhere(elsewhere), span }) => {
            let key = format!("{key}.when_no_healthy.pool");
            match &elsewhere.pool {
                Field::Good(at) => names.pool(&at.value.0, &at.span, &key, report).map(WhenNoHealthy::Pool),
                Field::Bad => None,
                Field::Absent if elsewhere.others => None,
                Field::Absent => {
                    report.add(Found::error(span.clone(), key, "`pool` is missing").expected("{ pool = \"…\" }"));
                    None
                }
            }
        }
    }
}

fn min_healthy(raw: &raw::Pool, upstreams: Option<&[UpstreamPolicy]>, key: &str, report: &mut Report) -> MinHealthy {
    let Some(at) = raw.min_healthy.get() else { return MinHealthy::Count(1) };
    if let (MinHealthy::Count(count), Some(upstreams)) = (at.value, upstreams)
        && count as usize > upstreams.len()
        // How many upstreams a name has is known only once it is resolved.
        && upstreams.iter().all(|upstream| upstream.name.is_none())
    {
        let total = upstreams.len();
        let message = format!("{count} can never be healthy: the pool has {total}");
        let found = Found::error(at.span.clone(), format!("{key}.min_healthy"), message);
        report.add(found.expected(format!("at most {total}, or a share such as 0.5")));
    }
    at.value
}
