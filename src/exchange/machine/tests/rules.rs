//! What the rules of a route make of requests and responses.

use super::*;
use crate::exchange::edits::ResponseEdits;
use crate::http1::{HttpDate, ResponseReader};
use crate::model::policy::{
    FieldEdits, FieldText, FixedAnswer, ForwardedPolicy, HashKey, Marks, RateLimit, RouteRules, Trusted,
};
use crate::model::template::Template;

const GET_A: &str = "GET / HTTP/1.1\r\nHost: a";

fn template(text: &str) -> Template {
    Template::parse(text).unwrap()
}

fn fields(all: &[(&str, &str)]) -> Vec<(Arc<str>, FieldText)> {
    all.iter().map(|(name, value)| ((*name).into(), FieldText::Template(template(value)))).collect()
}

/// A process with a route for everything below `path` that has these rules; to pool 0 unless they have an answer.
fn world(path: &str, rules: RouteRules) -> World {
    let world = World::new(&[Given(Service::Open, 2, 0)]);
    let pools = match rules.answer {
        Some(_) => Vec::new(),
        None => PoolShare::all(Name::try_new("p0").unwrap()),
    };
    let policy = RoutePolicy {
        host: HostPattern::Any,
        path: PathPattern::Prefix(path.into()),
        methods: Vec::new(),
        listener: None,
        conditions: Vec::new(),
        pools,
        rules: Some(Arc::new(rules)),
    };
    let pools = vec![Some(world.nth(0))];
    let entry = ListenerEntry {
        name: Name::try_new("web").unwrap(),
        pool: Some(PoolId(0)),
        client: ClientPolicy::default(),
        limit: None,
        marks: Arc::default(),
        ready_path: None,
    };
    world.published.store(Arc::new(Snapshot::new(2, routes_of(&[policy], 0), vec![Some(entry)], pools)));
    world
}

/// The head that goes upstream.
fn sent(world: &World, request: &str) -> String {
    let (mut exchange, next) = world.begin(request);
    assert!(matches!(next, Next::Attempt(_)), "{request:?}: {next:?}");
    let bytes = format!("{request}\r\n\r\n");
    let mut reader = HeadReader::default();
    let head = reader.read(bytes.as_bytes(), &Limits::MAX).unwrap().unwrap();
    let mut out = Vec::new();
    exchange.request_edits().write_to(&head, &mut out);
    exchange.on_end(End::ClientLeft, world.now);
    String::from_utf8(out).unwrap()
}

/// Our own answer, but for its date.
fn answered(world: &World, request: &str) -> String {
    let (mut exchange, next) = world.begin(request);
    let Next::Answer(answer) = next else { panic!("{request:?}: {next:?}") };
    let mut out = Vec::new();
    answer.write_to(&mut out, exchange.added(&answer), Version::Http11, false, true, HttpDate::of(784_111_777));
    exchange.on_end(End::Delivered, world.now);
    String::from_utf8(out).unwrap().replace("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "")
}

/// What the client gets of a response.
fn delivered(world: &World, response: &str) -> String {
    let (mut exchange, _) = world.begin("GET /a HTTP/1.1\r\nHost: shop.example");
    assert!(exchange.on_connected(Lent::Fresh, world.now).is_none());
    let bytes = format!("{response}\r\n\r\n");
    let mut reader = ResponseReader::default();
    let head = reader.read(bytes.as_bytes()).unwrap().unwrap();
    let next = exchange.on_response(head.version, head.status, head.fields(), Replay::Whole, world.now);
    let Next::Forward(edits, _) = next else { panic!("{response:?}: {next:?}") };
    let edits: ResponseEdits = edits;
    let mut out = Vec::new();
    edits.write_to(&head, Version::Http11, false, HttpDate::of(784_111_777), &mut out);
    exchange.on_end(End::ClientLeft, world.now);
    String::from_utf8(out).unwrap().replace("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "")
}

fn first_line(head: &str) -> &str {
    head.split("\r\n").next().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_prefix_is_taken_off_at_segments_and_the_bytes_that_stay_are_unchanged() {
    let prefix = |prefix: &str| RouteRules { strip_prefix: Some(prefix.into()), ..RouteRules::default() };
    for (path, strip, target, want) in [
        ("/api", "/api", "/api", "/"),
        ("/api", "/api", "/api?q=1", "/?q=1"),
        ("/api", "/api", "/api/", "/"),
        ("/api", "/api", "/api/x%2Fy//z?a/b", "/x%2Fy//z?a/b"),
        ("/api", "/api", "/%61pi/%7Ex", "/%7Ex"),
        ("/api/v1", "/api", "/api/v1/x", "/v1/x"),
        ("/api/v1", "/api/v1", "/api/v1", "/"),
        ("/a%2Fb", "/a%2Fb", "/a%2fb/c?", "/c?"),
        ("/api", "/api", "http://shop.example/api/x?y", "/x?y"),
    ] {
        let head = sent(&world(path, prefix(strip)), &format!("GET {target} HTTP/1.1\r\nHost: shop.example"));
        assert_eq!(first_line(&head), format!("GET {want} HTTP/1.1"), "{strip} off {target}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_is_rewritten_and_keeps_its_query_unless_it_gets_another() {
    for (strip, rewrite, target, want) in [
        (None, "/v2{path}", "/x/%7E?a=1", "/v2/x/%7E?a=1"),
        (None, "/fixed", "/x?a=1", "/fixed?a=1"),
        (None, "/fixed", "/x", "/fixed"),
        (None, "{path}?from={host}", "/x?a=1", "/x?from=shop.example"),
        (None, "/i?p={path}&{query}", "/x?a=1", "/i?p=/x&a=1"),
        (None, "{path}?{query}", "/x", "/x"),
        (None, "{path}?{query}", "/x?", "/x"),
        (Some("/api"), "/v2{path}", "/api/x", "/v2/x"),
        (Some("/api"), "/v2{path}", "/api", "/v2/"),
        (None, "/{scheme}/{client_ip}", "/x", "/http/192.0.2.1"),
    ] {
        let rules = RouteRules {
            strip_prefix: strip.map(Arc::from),
            rewrite: Some(template(rewrite)),
            ..RouteRules::default()
        };
        let head =
            sent(&world(strip.unwrap_or("/"), rules), &format!("GET {target} HTTP/1.1\r\nHost: shop.example:81"));
        assert_eq!(first_line(&head), format!("GET {want} HTTP/1.1"), "{rewrite} of {target}");
    }
}

#[tokio::test(start_paused = true)]
async fn fields_of_requests_are_set_and_taken_out_whatever_the_client_sends() {
    let rules = RouteRules {
        request: FieldEdits {
            set: fields(&[
                ("X-App", "shop"),
                ("X-Original", "{scheme}://{host}{path}?{query}"),
                ("X-Forwarded-Proto", "https"),
                ("X-Real-IP", "{client_ip}"),
                ("Host", "shop.internal:81"),
                ("Connection-Id", "{request_id}"),
            ]),
            remove: vec!["Cookie".into(), "x-debug".into(), "X-Forwarded-Host".into()],
        },
        ..RouteRules::default()
    };
    let world = world("/", rules);
    let head = sent(
        &world,
        "GET /a?b HTTP/1.1\r\nHost: Shop.Example\r\nx-app: theirs\r\nCOOKIE: a\r\nX-Debug: 1\r\nX-Real-IP: 6.6.6.6\r\n\
         Connection: X-Mine, X-App\r\nX-Mine: 1\r\nAccept: */*",
    );
    let (before, id) = head.split_once("Connection-Id: ").unwrap();
    assert_eq!(
        before,
        "GET /a?b HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1\r\nX-App: shop\r\nX-Original: http://Shop.Example/a?b\r\n\
         X-Forwarded-Proto: https\r\nX-Real-IP: 192.0.2.1\r\nHost: shop.internal:81\r\n"
    );
    let (id, after) = id.split_once("\r\n").unwrap();
    assert_eq!((id.len(), id.bytes().all(|b| b.is_ascii_hexdigit())), (32, true), "{id}");
    assert_eq!(after, "Accept: */*\r\n\r\n");
    // The next request of the client has the rules of its own route.
    let plain = sent(&World::new(&[Given(Service::Open, 2, 0)]), "GET / HTTP/1.1\r\nHost: a\r\nX-App: theirs");
    assert!(plain.contains("X-App: theirs") && plain.contains("Host: a"), "{plain}");
}

#[tokio::test(start_paused = true)]
async fn fields_of_responses_are_set_and_taken_out_but_not_of_interim_ones() {
    let rules = RouteRules {
        response: FieldEdits {
            set: fields(&[
                ("Strict-Transport-Security", "max-age=1"),
                ("X-From", "{host}{path}"),
                ("Set-Cookie", "a=b"),
            ]),
            remove: vec!["Server".into(), "x-powered-by".into()],
        },
        ..RouteRules::default()
    };
    let world = world("/", rules);
    assert_eq!(
        delivered(
            &world,
            "HTTP/1.1 200 OK\r\nserver: x\r\nX-Powered-By: y\r\nSet-Cookie: theirs\r\nContent-Length: 0\r\nx-from: z"
        ),
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nStrict-Transport-Security: max-age=1\r\nX-From: shop.example/a\r\n\
         Set-Cookie: a=b\r\n\r\n"
    );
    assert_eq!(delivered(&world, "HTTP/1.1 103 Early\r\nServer: x"), "HTTP/1.1 103 Early\r\nServer: x\r\n\r\n");
}

#[tokio::test(start_paused = true)]
async fn our_own_errors_have_the_fields_of_the_route_too() {
    let rules = RouteRules {
        response: FieldEdits {
            set: fields(&[("Access-Control-Allow-Origin", "*"), ("content-type", "x/y")]),
            remove: vec![],
        },
        rate_limit: Some(RateLimit { requests: 1, per: Duration::from_secs(60), burst: 1, key: HashKey::ClientIp }),
        ..RouteRules::default()
    };
    let world = world("/", rules);
    sent(&world, "GET / HTTP/1.1\r\nHost: a");
    assert_eq!(
        answered(&world, "GET / HTTP/1.1\r\nHost: a"),
        "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 33\r\nRetry-After: 60\r\nAccess-Control-Allow-Origin: *\r\n\
         content-type: x/y\r\n\r\ntoo many requests (rate_limited)\n"
    );
}

#[tokio::test(start_paused = true)]
async fn a_redirect_leads_to_a_place_of_the_operators_choice() {
    for (strip, to, target, want) in [
        (None, "https://{host}{path}", "/a/b?c=d", "https://shop.example/a/b?c=d"),
        (None, "https://{host}{path}", "/", "https://shop.example/"),
        (None, "https://{host}{path}?{query}", "/a", "https://shop.example/a"),
        (None, "https://www.example{path}#top", "/a?b", "https://www.example/a?b#top"),
        (None, "/login?next={path}", "/a?b", "/login?next=/a"),
        (Some("/old"), "/new{path}", "/old/x?y", "/new/x?y"),
        // Not to a host of the client's choice.
        (Some("/old"), "{path}", "/old//evil.example/x", "/evil.example/x"),
        (None, "{path}", "//evil.example", "/evil.example"),
    ] {
        let answer = Some(FixedAnswer::Redirect { status: 308, to: template(to) });
        let rules = RouteRules { strip_prefix: strip.map(Arc::from), answer, ..RouteRules::default() };
        let text =
            answered(&world(strip.unwrap_or("/"), rules), &format!("GET {target} HTTP/1.1\r\nHost: shop.example"));
        let want = format!("HTTP/1.1 308 Permanent Redirect\r\nContent-Length: 0\r\nLocation: {want}\r\n\r\n");
        assert_eq!(text, want, "{to} of {target}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_answers_by_itself() {
    let respond = |status, body: &str, own: &[(&str, &str)], set: &[(&str, &str)]| RouteRules {
        answer: Some(FixedAnswer::Respond {
            status,
            body: template(body),
            fields: own.iter().map(|(name, value)| ((*name).into(), template(value))).collect(),
        }),
        response: FieldEdits { set: fields(set), remove: vec![] },
        ..RouteRules::default()
    };
    for (rules, want) in [
        (respond(200, "ok {path}\n", &[], &[]), {
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nok /a\n"
        }),
        (respond(200, "{\"a\":{}}", &[("content-type", "application/json")], &[]), {
            "HTTP/1.1 200 OK\r\nContent-Length: 8\r\ncontent-type: application/json\r\n\r\n{\"a\":{}}"
        }),
        (respond(204, "", &[("X-A", "b")], &[]), "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n"),
        (respond(503, "", &[("Retry-After", "60"), ("X-A", "b")], &[("x-a", "c")]), {
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nx-a: c\r\nRetry-After: 60\r\n\r\n"
        }),
    ] {
        assert_eq!(answered(&world("/", rules), "GET /a HTTP/1.1\r\nHost: b"), want);
    }
}

/// The head that goes upstream from a listener that marks requests so, with these peers believed.
fn marked(forwarded: ForwardedPolicy, marks: Marks, requests: &[&str]) -> Vec<String> {
    let world = World::new(&[Given(Service::Open, 2, 0)]);
    let entry = ListenerEntry {
        name: Name::try_new("web").unwrap(),
        pool: Some(PoolId(0)),
        client: ClientPolicy::default(),
        limit: None,
        marks: Arc::new(marks),
        ready_path: None,
    };
    let snapshot = Snapshot::new(2, Routes::default(), vec![Some(entry)], vec![Some(world.nth(0))]);
    world.published.store(Arc::new(snapshot.with_forwarded(Arc::new(forwarded))));
    let (mut exchange, _) = world.begin(GET);
    exchange.on_end(End::ClientLeft, world.now);
    // All of one connection, so that nothing of a request stays for the next.
    let one = |request: &&str| {
        let bytes = format!("{request}\r\n\r\n");
        let mut reader = HeadReader::default();
        let head = reader.read(bytes.as_bytes(), &Limits::MAX).unwrap().unwrap();
        let next = exchange.begin(&head, &judge(&head).unwrap(), world.now);
        assert!(matches!(next, Next::Attempt(_)), "{next:?}");
        let mut out = Vec::new();
        exchange.request_edits().write_to(&head, &mut out);
        exchange.on_end(End::ClientLeft, world.now);
        String::from_utf8(out).unwrap()
    };
    requests.iter().map(one).collect()
}

#[tokio::test(start_paused = true)]
async fn a_trusted_peer_is_believed_and_its_chain_goes_on() {
    let claims = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n\
                  X-Forwarded-Port: 443\r\nX_Forwarded_Port: 1\r\nForwarded: for=6.6.6.6";
    let policy = |network: &str, rfc7239| ForwardedPolicy {
        trusted: Trusted { networks: vec![network.parse().unwrap()], unix: false },
        rfc7239,
    };
    let own = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n";
    let plain = format!("GET / HTTP/1.1\r\n{own}Host: a\r\n\r\n");
    let heads = marked(policy("10.0.0.0/8", false), Marks::default(), &[claims, GET_A]);
    assert_eq!(heads, [plain.clone(), plain.clone()], "another peer");
    let heads = marked(policy("192.0.2.0/24", false), Marks::default(), &[claims, GET_A]);
    let want = "GET / HTTP/1.1\r\nX-Forwarded-For: 6.6.6.6, 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n\
                Forwarded: for=6.6.6.6, for=192.0.2.1;host=\"b\";proto=https\r\nHost: a\r\nX-Forwarded-Port: 443\r\n\r\n";
    assert_eq!(heads, [want.to_owned(), plain]);
    let heads = marked(policy("10.0.0.0/8", true), Marks::default(), &[claims]);
    let want = format!("GET / HTTP/1.1\r\n{own}Forwarded: for=192.0.2.1;host=\"a\";proto=http\r\nHost: a\r\n\r\n");
    assert_eq!(heads, [want]);
}

#[tokio::test(start_paused = true)]
async fn requests_are_marked_where_they_are_not_yet() {
    let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: theirs\r\n{trace}\r\nTraceState: x=y");
    let bad = "GET / HTTP/1.1\r\nHost: a\r\ntraceparent: x\r\ntracestate: x=y";
    let marks = || Marks { request_id: Some("x-request-id".into()), traceparent: true };
    let trusted = |networks: &[&str]| ForwardedPolicy {
        trusted: Trusted { networks: networks.iter().map(|network| network.parse().unwrap()).collect(), unix: false },
        rfc7239: false,
    };
    let values = |head: &str, name: &str| -> Vec<String> {
        let fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect()
    };
    let heads = marked(trusted(&[]), marks(), &[&request, bad, &request]);
    let ids: Vec<String> = heads.iter().flat_map(|head| values(head, "x-request-id")).collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| id.len() == 32) && ids[0] != ids[1] && ids[1] != ids[2], "{ids:?}");
    for head in [&heads[0], &heads[2]] {
        assert!(head.contains(trace) && head.contains("TraceState: x=y"), "{head}");
        assert_eq!(values(head, "traceparent").len(), 1);
    }
    let made = values(&heads[1], "traceparent");
    assert!(made.len() == 1 && crate::exchange::origin::is_traceparent(made[0].as_bytes()), "{made:?}");
    assert_eq!(values(&heads[1], "tracestate"), [""; 0]);
    let heads = marked(trusted(&["192.0.2.1/32"]), marks(), &[&request, bad]);
    assert_eq!(values(&heads[0], "x-request-id"), ["theirs"]);
    assert_eq!(values(&heads[1], "x-request-id")[0].len(), 32);
    let heads = marked(trusted(&[]), Marks::default(), &[&request, bad]);
    assert!(heads[0].contains("X-Request-ID: theirs") && heads[1].contains("tracestate: x=y"), "{heads:?}");
}

#[tokio::test(start_paused = true)]
async fn what_becomes_too_long_is_414() {
    let many = "{path}".repeat(20);
    for rules in [
        RouteRules { rewrite: Some(template(&many)), ..RouteRules::default() },
        RouteRules { request: FieldEdits { set: fields(&[("X-A", &many)]), remove: vec![] }, ..RouteRules::default() },
        RouteRules {
            answer: Some(FixedAnswer::Respond { status: 200, body: template(&many), fields: vec![] }),
            ..RouteRules::default()
        },
    ] {
        let world = world("/", rules);
        let (long, short) = ("x".repeat(16_000), "x".repeat(100));
        let text = answered(&world, &format!("GET /{long} HTTP/1.1\r\nHost: b"));
        assert!(text.starts_with("HTTP/1.1 414 ") && text.ends_with("(target_too_long)\n"), "{text}");
        let (mut exchange, next) = world.begin(&format!("GET /{short} HTTP/1.1\r\nHost: b"));
        assert!(!matches!(next, Next::Answer(answer) if answer.status() == 414), "{next:?}");
        exchange.on_end(End::ClientLeft, world.now);
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_route_takes_the_place_of_its_pools() {
    let second = Duration::from_secs(1);
    for (of_pool, of_route, want) in [
        (None, None, None),
        (Some(2 * second), None, Some(2 * second)),
        (Some(2 * second), Some(Some(second)), Some(second)),
        (None, Some(Some(second)), Some(second)),
        (Some(2 * second), Some(None), None),
    ] {
        let mut world = world("/", RouteRules { timeout: of_route, ..RouteRules::default() });
        let mut traffic = (*world.traffic).clone();
        traffic.timeouts.request = of_pool;
        world.traffic = Arc::new(traffic);
        let snapshot = world.published.load_full();
        let pool = world.pool(0, &Given(Service::Open, 2, 0));
        let entry = snapshot.listener(ListenerId(0)).cloned();
        world.published.store(Arc::new(Snapshot::new(3, snapshot.routes.clone(), vec![entry], vec![Some(pool)])));
        let (mut exchange, next) = world.begin(GET);
        let Next::Attempt(attempt) = next else { panic!("{next:?}") };
        assert_eq!(attempt.deadline, want.map(|limit| world.now + limit));
        exchange.on_end(End::ClientLeft, world.now);
    }
}
