//! How requests travel: the policies of a listener and of a pool, from their keys and the defaults.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::config::raw;
use crate::config::read::{At, Field};
use crate::config::report::{Found, Report};
use crate::config::values::network::Peers;
use crate::config::values::{Balancing, Count, Size, Span};
use crate::model::policy::{
    Balance, Choosing, ClientLimits, ClientPolicy, ClientTimeouts, Failures, ForwardedPolicy, LeavingPolicy,
    OnUnhealthy, PassivePolicy, RetryPolicy, TrafficPolicy, Trusted, Upgrades, UpstreamConnections, UpstreamTimeouts,
};
use crate::model::units::Exact;

/// The cookie of `sticky`, unless another is named.
const STICKY_COOKIE: &str = "rm_affinity";

fn time<const MIN: u64, const MAX: u64>(field: &Field<Span<MIN, MAX>>, default: Duration) -> Duration {
    field.value().map_or(default, |span| span.0)
}

fn bytes<const MIN: u64, const MAX: u64>(field: &Field<Size<MIN, MAX>>, default: usize) -> usize {
    field.value().and_then(|size| usize::try_from(size.0).ok()).unwrap_or(default)
}

fn count<const MIN: i64, const MAX: i64>(field: &Field<Count<MIN, MAX>>, default: usize) -> usize {
    field.value().and_then(|count| usize::try_from(count.0).ok()).unwrap_or(default)
}

/// A limit that 0 takes away.
fn limit<const MIN: i64, const MAX: i64>(field: &Field<Count<MIN, MAX>>) -> Option<NonZeroU32> {
    field.value().and_then(|count| NonZeroU32::new(u32::try_from(count.0).ok()?))
}

/// A time that 0 takes away.
fn time_limit<const MIN: u64, const MAX: u64>(field: &Field<Span<MIN, MAX>>) -> Option<Duration> {
    field.value().and_then(|span| limit_of(span.0))
}

/// `None` for zero, which means no limit.
pub fn limit_of(time: Duration) -> Option<Duration> {
    Some(time).filter(|time| !time.is_zero())
}

/// What the clients of a listener may do.
pub fn client(raw: &raw::Listener, key: &str, report: &mut Report) -> ClientPolicy {
    let (mut timeouts, mut limits) = (ClientTimeouts::DEFAULT, ClientLimits::DEFAULT);
    if let Some(At { value: table, .. }) = raw.timeouts.get() {
        timeouts = ClientTimeouts {
            header: time(&table.header, timeouts.header),
            keep_alive: time(&table.keep_alive, timeouts.keep_alive),
            body_idle: time(&table.body_idle, timeouts.body_idle),
        };
    }
    if let Some(At { value: table, .. }) = raw.limits.get() {
        limits = ClientLimits {
            header_bytes: bytes(&table.header_bytes, limits.header_bytes),
            headers: count(&table.headers, limits.headers),
            target_bytes: bytes(&table.target_bytes, limits.target_bytes),
            body_bytes: table.body_bytes.value().map_or(limits.body_bytes, |limit| limit.0),
            connections: limit(&table.connections),
            connections_per_client: limit(&table.connections_per_client),
            requests_per_connection: limit(&table.requests_per_connection),
        };
        if let Some(at) = table.target_bytes.get()
            && limits.target_bytes >= limits.header_bytes
        {
            let message = "no target is so long: the whole head may not be larger than `header_bytes`";
            report.add(Found::warning(at.span.clone(), format!("{key}.limits.target_bytes"), message));
        }
    }
    ClientPolicy { timeouts, limits }
}

/// What is believed of who a request is from.
pub fn forwarded(file: &raw::File) -> ForwardedPolicy {
    let Some(table) = file.forwarded.value() else { return ForwardedPolicy::default() };
    let mut trusted = Trusted::default();
    for peer in table.trusted.value().into_iter().flat_map(|list| list.iter()) {
        match peer.value {
            Peers::Network(network) => trusted.networks.push(network),
            Peers::Unix => trusted.unix = true,
        }
    }
    ForwardedPolicy { trusted, rfc7239: table.rfc7239.value().copied().unwrap_or_default() }
}

/// What is expected of the upstreams of a pool.
pub fn traffic(raw: &raw::Pool, key: &str, report: &mut Report) -> TrafficPolicy {
    let TrafficPolicy {
        mut timeouts,
        mut connections,
        mut retry,
        passive: _,
        leaving,
        choosing: _,
        slow_start,
        upgrades,
        sticky: _,
        histograms,
    } = TrafficPolicy::default();
    if let Some(At { value: table, .. }) = raw.timeouts.get() {
        let tunnel_idle = time(&table.tunnel_idle, timeouts.tunnel_idle);
        timeouts = UpstreamTimeouts {
            connect: time(&table.connect, timeouts.connect),
            first_byte: time(&table.first_byte, timeouts.first_byte),
            idle: time(&table.idle, timeouts.idle),
            request: time_limit(&table.request),
            tunnel_idle,
            tunnel_half_idle: timeouts.tunnel_half_idle.min(tunnel_idle),
        };
    }
    if let Some(At { value: table, .. }) = raw.connections.get() {
        let most = limit(&table.max_per_upstream);
        if let Some(At { value: queue, span }) = table.queue.get() {
            let length = queue.length.value().and_then(|count| u32::try_from(count.0).ok());
            connections.queue_length = length.unwrap_or(connections.queue_length);
            connections.queue_timeout = time(&queue.timeout, connections.queue_timeout);
            let is_unlimited = most.is_none() && !matches!(table.max_per_upstream, Field::Bad);
            if connections.queue_length > 0 && is_unlimited {
                let message = "no request ever waits in it: `max_per_upstream` sets no limit";
                let found = Found::warning(span.clone(), format!("{key}.connections.queue"), message);
                report.add(found.expected("`max_per_upstream = 100` beside it"));
            }
        }
        connections = UpstreamConnections {
            max_per_upstream: most.map(NonZeroU32::get),
            queue_length: connections.queue_length,
            queue_timeout: connections.queue_timeout,
            idle_per_upstream: count(&table.idle_per_upstream, connections.idle_per_upstream),
            idle_timeout: time(&table.idle_timeout, connections.idle_timeout),
        };
    }
    if let Some(At { value: table, .. }) = raw.retry.get() {
        let number = |count: i64| u32::try_from(count).ok();
        if let Some(At { value: budget, .. }) = table.budget.get() {
            retry.budget.share = budget.share.value().map_or(retry.budget.share, |share| share.0);
            let floor = budget.min_per_second.value().and_then(|count| number(count.0));
            retry.budget.min_per_second = floor.unwrap_or(retry.budget.min_per_second);
        }
        let on = table.on.value().map(|list| Failures::new(list.iter().map(|at| at.value.0)));
        retry = RetryPolicy {
            retries: table.retries.value().and_then(|count| number(count.0)).unwrap_or(retry.retries),
            on: on.unwrap_or(retry.on),
            non_idempotent: table.non_idempotent.value().copied().unwrap_or(retry.non_idempotent),
            ..retry
        };
    }
    let written = raw.upgrades.value().map(|list| Upgrades::new(list.iter().map(|at| at.value.0.clone())));
    let passive = passive(raw, &format!("{key}.passive"), report);
    let slow_start = time(&raw.slow_start, slow_start);
    let leaving = LeavingPolicy {
        requests: time_limit(&raw.drain_timeout),
        tunnels: time(&raw.tunnel_drain, leaving.tunnels),
        close_unhealthy: raw.on_unhealthy.value().is_some_and(|word| word.0 == OnUnhealthy::Close),
    };
    let choosing = raw.balance.value().map_or_else(Choosing::default, |Balancing { balance, key }| Choosing {
        key: key.clone(),
        latency: *balance == Balance::PeakEwma,
        load: balance.is_bounded(),
    });
    TrafficPolicy {
        timeouts,
        connections,
        retry,
        passive,
        leaving,
        choosing,
        slow_start,
        histograms,
        upgrades: written.unwrap_or(upgrades),
        sticky: raw
            .sticky
            .value()
            .map(|table| table.cookie.value().map_or_else(|| Arc::from(STICKY_COOKIE), |name| name.0.clone())),
    }
}

/// When live traffic ejects an upstream.
fn passive(raw: &raw::Pool, key: &str, report: &mut Report) -> PassivePolicy {
    let default = PassivePolicy::default();
    let Some(At { value: table, .. }) = raw.passive.get() else { return default };
    let failures = table.failure.value().map(|list| Failures::new(list.iter().map(|at| at.value.0)));
    let count = table.consecutive_failures.value().and_then(|count| u32::try_from(count.0).ok());
    let (mut base, mut max, mut max_share) = (default.base, default.max, default.max_share);
    if let Some(At { value: ejection, .. }) = table.ejection.get() {
        max = time(&ejection.max, max);
        // Whichever of the two is written decides where the other is not.
        base = time(&ejection.base, base.min(max));
        max = if ejection.max.is_absent() { max.max(base) } else { max };
        max_share = ejection.max_share.value().map_or(max_share, |share| share.0);
        if let Some(at) = ejection.base.get()
            && base > max
        {
            let found = Found::error(at.span.clone(), format!("{key}.ejection.base"), "longer than `max`");
            report.add(found.expected(format!("at most {}", Exact(max))));
        }
    }
    let (consecutive_failures, failures) =
        (count.unwrap_or(default.consecutive_failures), failures.unwrap_or(default.failures));
    if let Some(at) = table.failure.get()
        && at.value.0.is_empty()
        && consecutive_failures > 0
    {
        let found = Found::error(at.span.clone(), format!("{key}.failure"), "nothing would count as a failure");
        report.add(found.expected("at least one, or `consecutive_failures = 0` to turn ejection off"));
    }
    PassivePolicy { consecutive_failures, failures, base, max, max_share }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::presets::EmptyEnv;
    use crate::config::{Source, parse};
    use crate::model::Ratio;
    use crate::model::policy::{Config, Failure, HashKey};

    fn config(keys: &str) -> (Config, String) {
        let text = format!(
            "listeners.web = {{ address = \"127.0.0.1:80\", pool = \"a\" }}\n\
             pools.a.upstreams = [\"10.0.0.1:1\", \"10.0.0.2:1\"]\n{keys}"
        );
        match parse(&Source { file: "x", text: text.as_bytes() }, &EmptyEnv) {
            Ok(parsed) => (parsed.config, crate::config::diagnostic::render_all(&parsed.warnings, false)),
            Err(all) => panic!("{}", crate::config::diagnostic::render_all(&all, false)),
        }
    }

    #[test]
    fn each_key_changes_its_value_and_no_other() {
        let ms = Duration::from_millis;
        let client = ClientPolicy::default();
        type Client = fn(&mut ClientPolicy);
        let cases: [(&str, Client); 14] = [
            ("timeouts.header = \"4s\"", |client| client.timeouts.header = Duration::from_secs(4)),
            ("timeouts.keep_alive = \"1m\"", |client| client.timeouts.keep_alive = Duration::from_secs(60)),
            ("timeouts.body_idle = \"90s\"", |client| client.timeouts.body_idle = Duration::from_secs(90)),
            ("limits.header_bytes = \"64KiB\"", |client| client.limits.header_bytes = 65_536),
            ("limits.headers = 7", |client| client.limits.headers = 7),
            ("limits.body_bytes = \"10MiB\"", |client| client.limits.body_bytes = Some(10 << 20)),
            ("limits.body_bytes = 1048576", |client| client.limits.body_bytes = Some(1 << 20)),
            ("limits.header_bytes = 65536", |client| client.limits.header_bytes = 65_536),
            ("limits.body_bytes = \"unlimited\"", |_| {}),
            ("limits.connections = 7", |client| client.limits.connections = NonZeroU32::new(7)),
            ("limits.connections_per_client = 8", |client| client.limits.connections_per_client = NonZeroU32::new(8)),
            ("limits.connections = 0", |_| {}),
            ("limits.requests_per_connection = 9", |client| client.limits.requests_per_connection = NonZeroU32::new(9)),
            ("limits.target_bytes = \"1KB\"", |client| client.limits.target_bytes = 1_000),
        ];
        for (key, change) in cases {
            let mut want = client;
            change(&mut want);
            let (config, warnings) = config(
                &format!("listeners.web.{key}\n")
                    .replace("listeners.web", "listeners.two.address = \"127.0.0.1:81\"\nlisteners.two"),
            );
            let two = config.listeners.iter().find(|listener| listener.name.as_str() == "two").unwrap();
            assert_eq!(two.client, want, "{key}");
            let as_before = config.listeners.iter().filter(|listener| listener.client == client).count();
            assert_eq!(as_before, 1 + usize::from(want == client), "{key}");
            assert!(!warnings.contains("target_bytes"), "{key}: {warnings}");
        }
        type Traffic = fn(&mut TrafficPolicy);
        let cases: [(&str, Traffic); 38] = [
            ("timeouts.connect = \"250ms\"", |traffic| traffic.timeouts.connect = Duration::from_millis(250)),
            ("timeouts.first_byte = \"5s\"", |traffic| traffic.timeouts.first_byte = Duration::from_secs(5)),
            ("timeouts.idle = \"5s\"", |traffic| traffic.timeouts.idle = Duration::from_secs(5)),
            ("timeouts.request = \"90s\"", |traffic| traffic.timeouts.request = Some(Duration::from_secs(90))),
            ("timeouts.request = \"0s\"", |traffic| traffic.timeouts.request = None),
            ("timeouts.tunnel_idle = \"2h\"", |traffic| traffic.timeouts.tunnel_idle = Duration::from_secs(7_200)),
            // A tunnel with one side must not outlive one with both.
            ("timeouts.tunnel_idle = \"5s\"", |traffic| {
                traffic.timeouts.tunnel_idle = Duration::from_secs(5);
                traffic.timeouts.tunnel_half_idle = Duration::from_secs(5);
            }),
            ("connections.max_per_upstream = 5", |traffic| traffic.connections.max_per_upstream = Some(5)),
            ("connections.queue.length = 7", |traffic| traffic.connections.queue_length = 7),
            ("connections.queue.timeout = \"250ms\"", |traffic| {
                traffic.connections.queue_timeout = Duration::from_millis(250);
            }),
            ("connections.idle_per_upstream = 0", |traffic| traffic.connections.idle_per_upstream = 0),
            ("connections.idle_timeout = \"0s\"", |traffic| traffic.connections.idle_timeout = Duration::ZERO),
            ("retry.retries = 2", |traffic| traffic.retry.retries = 2),
            ("retry.on = []", |traffic| traffic.retry.on = Failures::new([])),
            ("retry.on = [\"timeout\"]", |traffic| traffic.retry.on = Failures::new([Failure::Timeout])),
            ("retry.on = [\"502\", \"503\", \"504\"]", |traffic| {
                traffic.retry.on = Failures::new([502, 503, 504].map(|status| Failure::of_status(status).unwrap()));
            }),
            ("retry.non_idempotent = true", |traffic| traffic.retry.non_idempotent = true),
            ("retry.budget.share = 0.5", |traffic| traffic.retry.budget.share = Ratio::percent(50)),
            ("retry.budget.min_per_second = 0", |traffic| traffic.retry.budget.min_per_second = 0),
            ("passive.consecutive_failures = 0", |traffic| traffic.passive.consecutive_failures = 0),
            ("passive.failure = [\"connect\", \"503\"]", |traffic| {
                traffic.passive.failures = Failures::new([Failure::Connect, Failure::Unavailable]);
            }),
            ("passive = { consecutive_failures = 0, failure = [] }", |traffic| {
                traffic.passive.consecutive_failures = 0;
                traffic.passive.failures = Failures::new([]);
            }),
            ("passive.ejection.base = \"20s\"", |traffic| traffic.passive.base = Duration::from_secs(20)),
            ("passive.ejection.base = \"10m\"", |traffic| {
                (traffic.passive.base, traffic.passive.max) = (Duration::from_secs(600), Duration::from_secs(600));
            }),
            ("passive.ejection.max = \"1m\"", |traffic| traffic.passive.max = Duration::from_secs(60)),
            ("passive.ejection.max = \"5s\"", |traffic| {
                (traffic.passive.base, traffic.passive.max) = (Duration::from_secs(5), Duration::from_secs(5));
            }),
            ("passive.ejection = { base = \"1s\", max = \"1s\" }", |traffic| {
                (traffic.passive.base, traffic.passive.max) = (Duration::from_secs(1), Duration::from_secs(1));
            }),
            ("balance = \"peak_ewma\"", |traffic| traffic.choosing.latency = true),
            ("balance = \"hash\"", |traffic| {
                (traffic.choosing.key, traffic.choosing.load) = (Some(HashKey::ClientIp), true);
            }),
            ("balance = { type = \"maglev\", key = \"path\", bounded_load = 0 }", |traffic| {
                traffic.choosing.key = Some(HashKey::Path);
            }),
            ("balance = { type = \"least_request\" }", |_| {}),
            ("drain_timeout = \"5s\"", |traffic| traffic.leaving.requests = Some(Duration::from_secs(5))),
            ("tunnel_drain = \"0s\"", |traffic| traffic.leaving.tunnels = Duration::ZERO),
            ("on_unhealthy = \"close\"", |traffic| traffic.leaving.close_unhealthy = true),
            ("sticky = {}", |traffic| traffic.sticky = Some("rm_affinity".into())),
            ("sticky.cookie = \"SID\"", |traffic| traffic.sticky = Some("SID".into())),
            ("slow_start = \"30s\"", |traffic| traffic.slow_start = Duration::from_secs(30)),
            ("passive.ejection.max_share = 0.1", |traffic| traffic.passive.max_share = Ratio::percent(10)),
        ];
        for (key, change) in cases {
            let mut want = TrafficPolicy::default();
            change(&mut want);
            assert_eq!(*config(&format!("pools.a.{key}\n")).0.pools[0].traffic, want, "{key}");
        }
        assert_eq!(*config("").0.pools[0].traffic, TrafficPolicy::default());
        assert_eq!(ms(10_000), client.timeouts.header, "the documented default");
    }

    #[test]
    fn a_target_that_no_head_can_hold_is_a_warning() {
        for (header, target, warned) in [("2KiB", "1KiB", false), ("2KiB", "2KiB", true), ("2KiB", "4KiB", true)] {
            let keys = format!("header_bytes = \"{header}\", target_bytes = \"{target}\"");
            let text = format!("[listeners.two]\naddress = \"127.0.0.1:81\"\npool = \"a\"\nlimits = {{ {keys} }}\n");
            let (_, warnings) = config(&text);
            assert_eq!(warnings.contains("no target is so long"), warned, "{keys}");
        }
    }
}
