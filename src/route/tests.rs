//! The order of routes: tables of which route wins, and a comparison with a linear scan that spells the order out.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::model::policy::{PathPattern, PoolShare, RequestPart};

/// `HOST PATH [METHOD,METHOD] [@LISTENER] [NAME=VALUE] [NAME=?] -> POOL`; a path with `=` before it is exact, a host `*` is any.
fn route(text: &str) -> RoutePolicy {
    let (conditions, pool) = text.split_once(" -> ").expect("a route has an arrow");
    let mut words = conditions.split(' ');
    let host = match words.next().expect("a host") {
        "*" => HostPattern::Any,
        host => match host.strip_prefix('*') {
            Some(suffix) => HostPattern::Suffix(suffix.into()),
            None => HostPattern::Exact(host.into()),
        },
    };
    let path = match words.next().expect("a path") {
        path if path.starts_with('=') => PathPattern::Exact(path[1..].into()),
        path => PathPattern::Prefix(path.into()),
    };
    let (mut methods, mut listener, mut conditions_of) = (Vec::new(), None, Vec::new());
    for word in words {
        match word.strip_prefix('@') {
            Some(name) => listener = Some(Name::try_new(name).expect("a name")),
            None => match word.split_once('=') {
                Some((name, value)) => conditions_of.push(condition(name, (value != "?").then_some(value))),
                None => methods = word.split(',').map(Arc::from).collect(),
            },
        }
    }
    let pools = PoolShare::all(Name::try_new(pool).expect("a name"));
    RoutePolicy { host, path, methods, listener, conditions: conditions_of, pools, rules: None }
}

/// A field of this name.
fn condition(name: &str, value: Option<&str>) -> Condition {
    Condition { part: RequestPart::Header, name: name.into(), value: value.map(Arc::from) }
}

/// Whether a request with these fields meets a condition.
fn met<'a>(fields: &'a [(&'a str, &'a str)]) -> impl Fn(&Condition) -> bool + 'a {
    |condition| {
        let wanted = |value: &str| condition.value.as_ref().is_none_or(|want| **want == *value);
        fields.iter().any(|(name, value)| *condition.name == **name && wanted(value))
    }
}

/// Listener `l3` is number 3.
fn listener_number(name: &Name) -> Option<u32> {
    name.as_str().strip_prefix('l')?.parse().ok()
}

/// A table whose targets are places in the file.
fn numbered(routes: &[RoutePolicy]) -> Table<usize> {
    let mut numbers = 0..;
    Table::build(routes, listener_number, |_| numbers.next())
}

#[track_caller]
fn check(routes: &[&str], cases: &[(&str, Option<&str>)]) {
    let routes: Vec<_> = routes.iter().map(|r| route(r)).collect();
    let table = numbered(&routes);
    for (request, want) in cases {
        let mut words = request.split(' ');
        let mut word = |default| words.next().filter(|w| *w != "-").unwrap_or(default);
        let (host, path, method, listener) = (word(""), word("/"), word("GET"), word("0"));
        let host = (!host.is_empty()).then_some(host);
        let fields: Vec<_> = request.split(' ').skip(4).filter_map(|word| word.split_once('=')).collect();
        let (listener, holds) = (listener.parse().expect("a number"), met(&fields));
        let query = Query { listener, host, path, method, holds: &holds };
        let found = table.find(&query).map(|i| routes[i].pools[0].pool.as_str());
        assert_eq!(found, *want, "{request}");
    }
}

#[test]
fn an_exact_host_wins_over_the_longest_wildcard_and_that_over_any() {
    check(
        &["* / -> any", "*.example.com / -> wide", "*.eu.example.com / -> narrow", "a.eu.example.com / -> exact"],
        &[
            ("a.eu.example.com", Some("exact")),
            ("A.EU.Example.COM", Some("exact")),
            ("b.eu.example.com", Some("narrow")),
            ("x.b.eu.example.com", Some("narrow")),
            ("eu.example.com", Some("wide")),
            ("b.example.com", Some("wide")),
            ("example.com", Some("any")),
            (".example.com", Some("any")),
            ("badexample.com", Some("any")),
            ("other.org", Some("any")),
            ("-", Some("any")),
        ],
    );
}

#[test]
fn a_route_with_more_conditions_wins_over_others_of_its_path() {
    check(
        &[
            "* / -> plain",
            "* / x=1 -> one",
            "* / x=? -> some",
            "* / x=1 y=2 -> both",
            "* / GET x=? -> get",
            "* /a -> a",
        ],
        &[
            ("- / POST", Some("plain")),
            ("- / POST 0 x=1", Some("one")),
            ("- / POST 0 x=2", Some("some")),
            ("- / POST 0 x=1 y=2", Some("both")),
            ("- / GET 0 x=1 y=1", Some("get")),
            ("- / GET 0 y=2", Some("plain")),
            ("- / POST 0 X=1", Some("plain")),
            ("- /a GET 0 x=1 y=2", Some("a")),
        ],
    );
}

#[test]
fn a_less_specific_host_is_tried_when_the_more_specific_one_does_not_match() {
    check(
        &["a.example.com /v1 -> v1", "*.example.com /v2 -> v2", "* =/v3 -> v3"],
        &[
            ("a.example.com /v1", Some("v1")),
            ("a.example.com /v2", Some("v2")),
            ("a.example.com /v3", Some("v3")),
            ("a.example.com /v4", None),
            ("- /v1", None),
            ("- /v3", Some("v3")),
        ],
    );
}

#[test]
fn a_prefix_ends_at_a_segment_boundary_and_the_longest_wins() {
    check(
        &["* /v1 -> v1", "* /v1/users -> users", "* =/v1/users -> exact", "* /a%2Fb -> escaped"],
        &[
            ("- /v1", Some("v1")),
            ("- /v1/", Some("v1")),
            ("- /v1/x/y", Some("v1")),
            ("- /v10", None),
            ("- /v1%2Fx", None),
            ("- /V1", None),
            ("- /v", None),
            ("- /", None),
            ("- /v1/users", Some("exact")),
            ("- /v1/users/", Some("users")),
            ("- /v1/users/42", Some("users")),
            ("- /v1/users42", Some("v1")),
            ("- /v1//users", Some("v1")),
            ("- //v1", None),
            ("- /a%2Fb/c", Some("escaped")),
            ("- /a/b", None),
        ],
    );
}

#[test]
fn the_root_matches_everything_and_a_long_host_only_routes_without_a_host() {
    let long = format!("{}.example.com /x", "a".repeat(250));
    check(
        &["* / -> root", "*.example.com / -> wide"],
        &[("- /", Some("root")), ("- /x/y", Some("root")), ("- *", Some("root")), (&long, Some("root"))],
    );
}

#[test]
fn more_conditions_win_over_fewer_and_the_file_decides_the_rest() {
    check(
        &[
            "* /x -> plain",
            "* /x GET,HEAD -> read",
            "* /x @l1 -> one",
            "* /x POST @l1 -> post",
            "* /y @l2 -> first",
            "* /y GET -> second",
        ],
        &[
            ("- /x PUT", Some("plain")),
            ("- /x GET", Some("read")),
            ("- /x HEAD 1", Some("read")),
            ("- /x get", Some("plain")),
            ("- /x PUT 1", Some("one")),
            ("- /x POST 1", Some("post")),
            ("- /x POST 2", Some("plain")),
            ("- /y GET 2", Some("first")),
            ("- /y GET 3", Some("second")),
            ("- /y POST 3", None),
        ],
    );
}

#[test]
fn a_prefix_whose_conditions_fail_leaves_the_request_to_a_shorter_one() {
    check(
        &["* / -> root", "* /v1 -> v1", "* /v1/users DELETE -> admin", "* =/v1/users PUT -> put"],
        &[
            ("- /v1/users DELETE", Some("admin")),
            ("- /v1/users PUT", Some("put")),
            ("- /v1/users GET", Some("v1")),
            ("- /v2 DELETE", Some("root")),
        ],
    );
}

#[test]
fn an_empty_table_matches_nothing() {
    let query = Query { listener: 0, host: Some("a"), path: "/", method: "GET", holds: &met(&[]) };
    assert_eq!(Table::<u32>::empty().find(&query), None);
}

#[test]
fn a_route_with_an_unknown_name_is_left_out() {
    let routes = [route("* / @nowhere -> 1"), route("* / -> nothing"), route("* /x -> 2")];
    let table = Table::build(&routes, listener_number, |route| route.pools[0].pool.as_str().parse::<u32>().ok());
    let query = Query { listener: 0, host: None, path: "/x", method: "GET", holds: &met(&[]) };
    assert_eq!(table.find(&query), Some(2));
    assert_eq!(table.find(&Query { path: "/", ..query }), None);
}

/// The rule itself, stated plainly: of all routes that match the request, the greatest by this key.
fn reference(routes: &[RoutePolicy], query: &Query<'_>) -> Option<usize> {
    let host = query.host.map(str::to_ascii_lowercase);
    let takes_host = |pattern: &HostPattern| match (pattern, &host) {
        (HostPattern::Any, _) => Some((0, 0)),
        (HostPattern::Suffix(s), Some(h)) if h.len() > s.len() && h.ends_with(&**s) => Some((1, s.len())),
        (HostPattern::Exact(e), Some(h)) if **e == **h => Some((2, 0)),
        (HostPattern::Suffix(_) | HostPattern::Exact(_), _) => None,
    };
    let takes_path = |pattern: &PathPattern| match pattern {
        PathPattern::Exact(p) => (**p == *query.path).then_some((1, 0)),
        PathPattern::Prefix(p) if **p == *"/" => Some((0, 0)),
        PathPattern::Prefix(p) => {
            let below = query.path.strip_prefix(&**p)?;
            (below.is_empty() || below.starts_with('/')).then_some((0, p.len()))
        }
    };
    let keys = routes.iter().enumerate().filter_map(|(i, route)| {
        let key = (takes_host(&route.host)?, takes_path(&route.path)?);
        let by_method = route.methods.is_empty() || route.methods.iter().any(|m| **m == *query.method);
        let by_listener = route.listener.as_ref().is_none_or(|l| listener_number(l) == Some(query.listener));
        let by_rest = route.conditions.iter().all(query.holds);
        let conditions =
            usize::from(!route.methods.is_empty()) + usize::from(route.listener.is_some()) + route.conditions.len();
        (by_method && by_listener && by_rest).then_some((key, conditions, std::cmp::Reverse(i)))
    });
    keys.max().map(|(_, _, std::cmp::Reverse(i))| i)
}

const HOSTS: [&str; 6] = ["a", "b.a", "c.b.a", "x.c.b.a", "b", "ab.a"];
/// What requests have beside that, every combination: 1 is the value that routes name.
const FIELDS: [&[(&str, &str)]; 16] = [
    &[],
    &[("y", "1")],
    &[("y", "2")],
    &[("y", "2"), ("y", "1")],
    &[("x", "1")],
    &[("x", "1"), ("y", "1")],
    &[("x", "1"), ("y", "2")],
    &[("x", "1"), ("y", "2"), ("y", "1")],
    &[("x", "2")],
    &[("x", "2"), ("y", "1")],
    &[("x", "2"), ("y", "2")],
    &[("x", "2"), ("y", "2"), ("y", "1")],
    &[("x", "2"), ("x", "1")],
    &[("x", "2"), ("x", "1"), ("y", "1")],
    &[("x", "2"), ("x", "1"), ("y", "2")],
    &[("x", "2"), ("x", "1"), ("y", "2"), ("y", "1")],
];
const PATHS: [&str; 9] = ["/", "/a", "/a/b", "/a/b/c", "/ab", "/a/", "//", "/a//b", "/b"];

fn routes() -> impl Strategy<Value = Vec<RoutePolicy>> {
    let host = prop_oneof![
        Just(HostPattern::Any),
        select(&HOSTS[..]).prop_map(|h| HostPattern::Exact(h.into())),
        select(&HOSTS[..]).prop_map(|h| HostPattern::Suffix(format!(".{h}").into())),
    ];
    let path = prop_oneof![
        select(&["/", "/a", "/a/b", "/a/b/c", "/ab", "/b"][..]).prop_map(|p| PathPattern::Prefix(p.into())),
        select(&PATHS[..]).prop_map(|p| PathPattern::Exact(p.into())),
    ];
    let methods = proptest::sample::subsequence(vec!["GET", "POST"], 0..=2);
    let listener = proptest::option::of(select(&["l0", "l1"][..]));
    let of = |name| proptest::option::of(proptest::option::of(Just("1")).prop_map(move |value| condition(name, value)));
    let conditions = (of("x"), of("y")).prop_map(|(x, y)| x.into_iter().chain(y).collect());
    let route = (host, path, methods, listener, conditions).prop_map(|(host, path, methods, listener, conditions)| {
        RoutePolicy {
            host,
            path,
            methods: methods.into_iter().map(Arc::from).collect(),
            listener: listener.map(|l| Name::try_new(l).expect("a name")),
            conditions,
            pools: PoolShare::all(Name::try_new("p").expect("a name")),
            rules: None,
        }
    });
    proptest::collection::vec(route, 0..30)
}

proptest! {
    #[test]
    fn the_table_finds_what_a_linear_scan_finds(routes in routes()) {
        let table = numbered(&routes);
        let hosts = HOSTS.into_iter().map(Some).chain([None, Some("C.B.A"), Some(".a"), Some("z.z.a")]);
        for host in hosts {
            for path in PATHS.into_iter().chain(["/a/b/d", "/abc", "*", ""]) {
                for method in ["GET", "POST", "PUT"] {
                    for (listener, fields) in (0..).zip(FIELDS) {
                        let (listener, holds) = (listener % 3, met(fields));
                        let query = Query { listener, host, path, method, holds: &holds };
                        prop_assert_eq!(table.find(&query), reference(&routes, &query), "{:?} {:?}", query, fields);
                    }
                }
            }
        }
    }
}

/// Routes and listeners that get no request, each with the routes that take its requests: `2<-0,1`.
fn hidden_of(routes: &[RoutePolicy]) -> (String, String) {
    let names = ["l0", "l1"].map(|name| Name::try_new(name).expect("a name"));
    let found = hidden(&names.iter().collect::<Vec<_>>(), routes);
    let list = |takers: &[usize]| takers.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let mut of_routes: Vec<_> = found.routes.iter().map(|(i, takers)| format!("{i}<-{}", list(takers))).collect();
    let mut of_listeners: Vec<_> = found.defaults.iter().map(|(i, taker)| format!("{i}<-{taker}")).collect();
    of_routes.sort();
    of_listeners.sort();
    (of_routes.join(" "), of_listeners.join(" "))
}

#[test]
fn a_route_or_default_pool_whose_every_request_others_take_is_hidden() {
    for (rows, of_routes, of_listeners) in [
        (&["* / -> a"][..], "", "0<-0 1<-0"),
        (&["* / @l0 -> a"], "", "0<-0"),
        (&["* / @l0 -> a", "* / @l1 -> a"], "", "0<-0 1<-1"),
        (&["* / GET -> a"], "", ""),
        (&["a.de / -> a", "*.de / -> b"], "", ""),
        (&["* /x -> a", "* /x/y -> b", "* =/x -> c", "* /x GET -> d"], "", ""),
        (&["* /x GET -> a", "* /x POST -> b", "* /x GET,POST -> c"], "2<-0,1", ""),
        (&["* /x GET -> a", "* /x GET,POST -> b"], "", ""),
        (&["* /x @l0 -> a", "* /x @l1 -> b", "* /x -> c"], "2<-0,1", ""),
        (&["* /x @l0 -> a", "* /x GET -> b", "* /x -> c"], "", ""),
        (&["* /x @l0 GET -> a", "* /x @l1 GET -> a", "* /x GET -> b", "* /x -> c"], "2<-0,1", ""),
        (&["a.de /x/y -> a", "* /x -> b"], "", ""),
        (&["* / x=1 -> a", "* / -> b"], "", "0<-1 1<-1"),
        (&["* / x=? -> a", "* / x=1 -> b", "* / x=2 -> c"], "1<-0 2<-0", ""),
        (&["* / x=1 -> a", "* / x=2 -> b", "* / x=? -> c"], "", ""),
        (&["* / x=1 -> a", "* / x=1 y=? -> b"], "", ""),
        (&["* / @l9 -> a"], "", ""),
    ] {
        let routes: Vec<_> = rows.iter().map(|row| route(row)).collect();
        assert_eq!(hidden_of(&routes), (of_routes.to_owned(), of_listeners.to_owned()), "{rows:?}");
    }
}

#[test]
fn of_a_table_that_is_too_large_nothing_is_called_hidden() {
    let names: Vec<_> = (0..1_000).map(|i| Name::try_new(&format!("l{i}")).expect("a name")).collect();
    let of_listeners = (0..1_000).map(|i| route(&format!("* / @l{i} -> a")));
    let routes: Vec<_> = of_listeners.chain((0..9_000).map(|_| route("* / -> b"))).collect();
    let names: Vec<_> = names.iter().collect();
    assert_eq!(hidden(&names, &routes), Hidden::default());
    assert_eq!(hidden(&names, &routes[..1_001]).routes.len(), 1);
}

proptest! {
    #[test]
    fn hidden_is_exactly_what_no_request_gets_to(routes in routes()) {
        let names = ["l0", "l1"].map(|name| Name::try_new(name).expect("a name"));
        let found = hidden(&names.iter().collect::<Vec<_>>(), &routes);
        let (mut of_routes, mut of_listeners) = (vec![false; routes.len()], [false; 2]);
        let below = HOSTS.map(|host| format!("q.{host}"));
        let hosts = HOSTS.into_iter().chain(below.iter().map(String::as_str)).map(Some).chain([None]);
        for host in hosts {
            for path in PATHS.into_iter().chain(["/q", "/a/q", "/a/b/q", "/a/b/c/q", "/ab/q", "/b/q"]) {
                for method in ["GET", "POST", "PUT"] {
                    for (listener, fields) in (0..2).flat_map(|listener| FIELDS.map(|fields| (listener, fields))) {
                        match reference(&routes, &Query { listener, host, path, method, holds: &met(fields) }) {
                            Some(route) => of_routes[route] = true,
                            None => of_listeners[listener as usize] = true,
                        }
                    }
                }
            }
        }
        for (index, is_reached) in of_routes.into_iter().enumerate() {
            prop_assert_eq!(!found.routes.contains_key(&index), is_reached, "route {}", index);
        }
        for (index, is_reached) in of_listeners.into_iter().enumerate() {
            prop_assert_eq!(!found.defaults.contains_key(&index), is_reached, "listener {}", index);
        }
    }
}
