//! Question: what does it cost to find the route of a request among 1,000, and how far is that from trying them one by
//! one? And what does the normal form of host and path cost before it?
//!
//! `find/WHAT` is a look-up in a table of 1,000 routes (500 exact hosts, 250 wildcards, 250 prefixes of any host);
//! `scan/WHAT` asks the same of a list sorted by hand, the way a simpler proxy does it.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use roundsman::model::Name;
use roundsman::model::policy::{HostPattern, PathPattern, PoolShare, RoutePolicy};
use roundsman::route::{Query, Table, normalise, normalise_host};

fn routes() -> Vec<RoutePolicy> {
    let pool = Name::try_new("api").expect("a name");
    (0..1_000)
        .map(|i| {
            let (host, path) = match i % 4 {
                0 | 1 => (HostPattern::Exact(format!("host{i}.example.com").into()), "/".into()),
                2 => (HostPattern::Suffix(format!(".zone{i}.example.com").into()), format!("/v{}", i % 7)),
                _ => (HostPattern::Any, format!("/service/{i}")),
            };
            let path = PathPattern::Prefix(path.into());
            RoutePolicy {
                host,
                path,
                methods: vec![],
                listener: None,
                conditions: vec![],
                pools: PoolShare::all(pool.clone()),
                rules: None,
            }
        })
        .collect()
}

/// The first match in a list that has exact hosts before wildcards, and those before any host.
fn scan(routes: &[RoutePolicy], query: &Query<'_>) -> Option<usize> {
    let takes = |route: &RoutePolicy| {
        let host = match &route.host {
            HostPattern::Any => true,
            HostPattern::Exact(host) => query.host.is_some_and(|h| h.eq_ignore_ascii_case(host)),
            HostPattern::Suffix(suffix) => query.host.is_some_and(|h| {
                h.len() > suffix.len() && h.as_bytes()[h.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
            }),
        };
        host && match &route.path {
            PathPattern::Exact(path) => **path == *query.path,
            PathPattern::Prefix(path) => {
                let prefix = path.trim_end_matches('/');
                query.path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    };
    routes.iter().position(takes)
}

fn benches(c: &mut Criterion) {
    let mut routes = routes();
    let table = Table::build(&routes, |_| None, |_| Some(7u32));
    routes.sort_by_key(|route| match route.host {
        HostPattern::Exact(_) => 0,
        HostPattern::Suffix(_) => 1,
        HostPattern::Any => 2,
    });
    for (what, host, path) in [
        ("exact_host", "Host900.example.com", "/v1/users/42"),
        ("wildcard_host", "a.b.zone994.example.com", "/v0/users/42"),
        ("any_host", "elsewhere.example.org", "/service/999/users/42"),
        ("no_route", "elsewhere.example.org", "/nothing/here"),
    ] {
        let query = Query { listener: 0, host: Some(host), path, method: "GET", holds: &|_| false };
        assert_eq!(table.find(&query).is_some(), scan(&routes, &query).is_some(), "both find the same");
        assert_eq!(table.find(&query).is_some(), what != "no_route");
        c.bench_function(&format!("find/{what}"), |b| b.iter(|| table.find(black_box(&query))));
        c.bench_function(&format!("scan/{what}"), |b| b.iter(|| scan(&routes, black_box(&query))));
    }
    c.bench_function("normalise/plain_path", |b| b.iter(|| normalise(black_box(b"/v1/users/42/orders")).is_ok()));
    c.bench_function("normalise/escaped_path", |b| b.iter(|| normalise(black_box(b"/v1/%75sers/a%20b")).is_ok()));
    c.bench_function("normalise/host", |b| b.iter(|| normalise_host(black_box(b"api.example.com:8080")).is_ok()));
}

criterion_group! {
    name = group;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = benches
}
criterion_main!(group);
