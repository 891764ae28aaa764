//! What routes do with their requests beside sending them to a pool, on the real program.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::{Answer, Client};
use crate::lanes::each::{in_each_lane, once};
use crate::origin::{Origin, Seen};
use crate::program::{Program, pool};

/// The longest wait, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One check a minute; one pass is enough.
const RARE: &str = "type = \"http\"\npath = \"/healthz\"\ninterval = \"60s\"\ntimeout = \"10s\"\nfast_interval = \"100ms\"\n\
                    healthy_threshold = 1\nunhealthy_threshold = 1\njitter = 0\n";

/// The program with one origin in the pool `api`, and these routes.
struct Site {
    origin: Origin,
    program: Program,
}

impl Site {
    async fn start(routes: &str) -> Site {
        let origin = Origin::plain("api").await;
        let program = Program::start_ready(&Site::text(&origin, routes)).await;
        program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
        Site { origin, program }
    }

    fn text(origin: &Origin, routes: &str) -> String {
        pool("api", &[&origin.text()], RARE) + routes
    }

    async fn client(&self) -> Client {
        Client::connect(self.program.web).await
    }

    async fn ask(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.client().await.send("GET", path, fields).await.expect("an answer")
    }

    /// The one request that the origin has had of this path.
    fn seen(&self, path: &str) -> Seen {
        let mut all = self.origin.requests(path);
        assert_eq!(all.len(), 1, "{path}: {:?}", self.origin.counts());
        all.pop().expect("one")
    }
}

in_each_lane!(paths_and_fields_change_on_the_way, flavor = "multi_thread");
async fn paths_and_fields_change_on_the_way() {
    let site = Site::start(
        "[[routes]]\npath = \"/api\"\npool = \"api\"\nstrip_prefix = \"/api\"\nrewrite = \"/v2{path}\"\n\
         remove_request_headers = [\"X-Debug\", \"Cookie\"]\nremove_response_headers = [\"Server\", \"X-Origin\"]\n\
         [routes.set_request_headers]\nX-App = \"shop\"\nX-Original = \"{scheme}://{host}{path}?{query}\"\n\
         X-Client = \"{client_ip}\"\nX-Id = \"{request_id}\"\nHost = \"shop.internal\"\n\
         [routes.set_response_headers]\nStrict-Transport-Security = \"max-age=60\"\nX-From = \"{path}\"\n",
    )
    .await;
    let answer =
        site.ask("/api/x?a=1", &[("x-app", "theirs"), ("X-Debug", "1"), ("cookie", "a=b"), ("Accept", "*/*")]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = site.seen("/v2/x");
    for (name, want) in [
        ("x-app", Some("shop")),
        ("x-debug", None),
        ("cookie", None),
        ("accept", Some("*/*")),
        ("x-client", Some("127.0.0.1")),
        ("x-forwarded-for", Some("127.0.0.1")),
    ] {
        assert_eq!(seen.field(name), want, "{name}");
    }
    assert_eq!(seen.values("host"), ["shop.internal"]);
    assert_eq!(seen.values("x-app").len(), 1);
    let original = seen.field("x-original").expect("it is set");
    assert_eq!(original, "http://127.0.0.1/api/x?a=1");
    assert_eq!(seen.field("x-id").map(str::len), Some(32));
    assert_eq!(seen.target, "/v2/x?a=1");
    assert_eq!(answer.field("strict-transport-security"), Some("max-age=60"));
    assert_eq!(answer.field("x-from"), Some("/api/x"));
    assert_eq!((answer.field("server"), answer.field("x-origin")), (None, None));
    // A request that follows no route has none of this.
    site.ask("/plain", &[("x-app", "theirs")]).await;
    let seen = site.seen("/plain");
    assert_eq!((seen.field("x-app"), seen.field("x-original")), (Some("theirs"), None));
    site.program.assert_no_panic();
}

in_each_lane!(a_route_redirects_or_answers_by_itself, flavor = "multi_thread");
async fn a_route_redirects_or_answers_by_itself() {
    let site = Site::start(
        "[[routes]]\npath = \"/old\"\nstrip_prefix = \"/old\"\nredirect = { status = 308, to = \"https://{host}/new{path}\" }\n\
         [[routes]]\npath = \"/closed\"\nset_response_headers = { Cache-Control = \"no-store\" }\n\
         respond = { status = 503, body = '{\"closed\": \"{path}\"}', headers = { Content-Type = \"application/json\", Retry-After = \"60\" } }\n\
         [[routes]]\npath_exact = \"/empty\"\nrespond = { status = 204 }\n",
    )
    .await;
    let mut client = site.client().await;
    // All on one connection, bodies included.
    for (method, path, fields, status, want) in [
        (
            "GET",
            "/old/x?a=1",
            &[][..],
            308,
            [("location", Some("https://127.0.0.1/new/x?a=1")), ("content-length", Some("0"))],
        ),
        ("GET", "/closed/x", &[], 503, [("content-type", Some("application/json")), ("retry-after", Some("60"))]),
        ("HEAD", "/closed/x", &[], 503, [("content-length", Some("23")), ("cache-control", Some("no-store"))]),
        ("DELETE", "/empty", &[], 204, [("content-length", None), ("content-type", None)]),
        ("GET", "/plain", &[], 200, [("location", None), ("cache-control", None)]),
    ] {
        let answer = client.send(method, path, fields).await.expect("an answer");
        assert_eq!(answer.status, status, "{method} {path}");
        for (name, value) in want {
            assert_eq!(answer.field(name), value, "{method} {path}: {name}");
        }
        if path.starts_with("/closed") && method == "GET" {
            assert_eq!(answer.text(), "{\"closed\": \"/closed/x\"}");
        }
    }
    let paths: Vec<String> = site.origin.counts().into_keys().filter(|path| path != "/healthz").collect();
    assert_eq!(paths, ["/plain"], "nothing else went to an upstream");
    site.program.assert_no_panic();
}

in_each_lane!(a_route_has_a_time_of_its_own, flavor = "multi_thread");
async fn a_route_has_a_time_of_its_own() {
    let site = Site::start("[[routes]]\npath = \"/slow\"\npool = \"api\"\ntimeout = \"1s\"\n").await;
    site.origin.set("/slow", crate::origin::Reply::hang());
    let started = Instant::now();
    let answer = site.ask("/slow", &[]).await;
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.text().ends_with("(request_timeout)"), "{}", answer.text());
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(20), "{took:?}");
    site.program.assert_no_panic();
}

in_each_lane!(upstreams_learn_who_a_request_is_from_and_a_listener_limits_clients, flavor = "multi_thread");
async fn upstreams_learn_who_a_request_is_from_and_a_listener_limits_clients() {
    let origin = Origin::plain("api").await;
    let text = |web, admin, forwarded: &str| {
        format!(
            "[listeners.web]\naddress = \"{web}\"\npool = \"api\"\nrequest_id = \"x-request-id\"\ntraceparent = true\n\
             rate_limit = {{ requests = 2, per = \"1h\" }}\n[admin]\naddress = \"{admin}\"\n[forwarded]\n{forwarded}\n{}",
            pool("api", &[&origin.text()], RARE)
        )
    };
    let trusting = "trusted = [\"127.0.0.0/8\"]\nrfc7239 = true";
    let program = Program::spawn_whole(|web, admin, _| text(web, admin, trusting)).when_live().await;
    program.wait_for_state("api", &origin.text(), "healthy", PATIENCE).await;
    let mut client = Client::connect(program.web).await;
    let mut ask = async |path: &str, from: &str| {
        let fields = [("X-Forwarded-For", from), ("X-Request-Id", "theirs"), ("X-Forwarded-Proto", "https")];
        client.send("GET", path, &fields).await.expect("an answer").status
    };
    let (trusted, own) = ("192.0.2.7", "127.0.0.1");
    assert_eq!([ask("/a", trusted).await, ask("/b", trusted).await, ask("/c", trusted).await], [200, 200, 429]);
    assert_eq!(ask("/d", "192.0.2.8").await, 200, "another client has its own limit");
    let seen = &origin.requests("/a")[0];
    for (name, want) in [
        ("x-forwarded-for", format!("{trusted}, {own}")),
        ("x-forwarded-proto", "https".to_owned()),
        ("x-request-id", "theirs".to_owned()),
    ] {
        assert_eq!(seen.field(name), Some(&*want), "{name}");
    }
    let forwarded = seen.field("forwarded").expect("it was asked for");
    assert!(forwarded.starts_with("for=127.0.0.1;") && forwarded.contains("proto=https"), "{forwarded}");
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let trace = seen.field("traceparent").expect("it had none");
    let parts: Vec<&str> = trace.split('-').collect();
    assert!(
        matches!(parts[..], ["00", id, parent, "01"] if id.len() == 32 && parent.len() == 16 && hex(id)),
        "{trace}"
    );
    // Nobody is believed any more.
    program.write_raw(&text(program.web, program.admin, ""));
    assert_eq!(program.order_reload().await.0, 200);
    assert_eq!([ask("/e", trusted).await, ask("/f", trusted).await, ask("/g", "192.0.2.9").await], [200, 200, 429]);
    let seen = &origin.requests("/e")[0];
    assert_eq!(seen.values("x-forwarded-for"), [own]);
    assert_eq!((seen.field("x-forwarded-proto"), seen.field("forwarded")), (Some("http"), None));
    let id = seen.field("x-request-id").expect("ours");
    assert!(id.len() == 32 && hex(id), "{id}");
    program.assert_no_panic();
}

in_each_lane!(a_rate_limit_holds_for_each_client_and_over_a_reload, flavor = "multi_thread");
async fn a_rate_limit_holds_for_each_client_and_over_a_reload() {
    let limited = |more: &str| {
        format!(
            "[[routes]]\npath = \"/api\"\npool = \"api\"\nset_response_headers = {{ X-Route = \"api\" }}\n\
             rate_limit = {{ requests = 5, per = \"1h\", key = \"header:X-User\" }}\n{more}"
        )
    };
    let site = Site::start(&limited("")).await;
    let mut client = site.client().await;
    let mut ask = async |user: &str, path: &str| {
        let fields = [("X-User", user)];
        client.send("GET", path, if user.is_empty() { &[] } else { &fields[..] }).await.expect("an answer")
    };
    for _ in 0..5 {
        assert_eq!(ask("a", "/api/x").await.status, 200);
    }
    let refused = ask("a", "/api/y").await;
    assert_eq!((refused.status, refused.field("x-route")), (429, Some("api")));
    let wait: u64 = refused.field("retry-after").expect("a time").parse().expect("a number");
    assert!((600..=720).contains(&wait), "{wait}");
    assert!(refused.text().ends_with("(rate_limited)"), "{}", refused.text());
    assert_eq!(site.origin.count("/api/y"), 0);
    for (user, path) in [("b", "/api/x"), ("", "/api/x"), ("a", "/other")] {
        assert_eq!(ask(user, path).await.status, 200, "{user:?} {path}");
    }
    // The reload changes another route; what this one has counted stays.
    let text = Site::text(&site.origin, &limited("[[routes]]\npath = \"/more\"\npool = \"api\"\n"));
    assert_eq!(site.program.reload(&text).await.0, 200);
    assert_eq!(ask("a", "/api/x").await.status, 429);
    assert_eq!(ask("b", "/api/x").await.status, 200);
    let refused = site.program.metric("roundsman_answers_total{pool=\"api\",reason=\"rate_limited\"}").await;
    assert_eq!(refused, Some(2.0));
    site.program.assert_no_panic();
}

once!(a_rate_limit_is_exact_under_load, flavor = "multi_thread");
async fn a_rate_limit_is_exact_under_load() {
    let site = Site::start(
        "[[routes]]\npath = \"/api\"\npool = \"api\"\nrate_limit = { requests = 500, per = \"1s\", burst = 50 }\n",
    )
    .await;
    let web = site.program.web;
    let started = Instant::now();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                let (mut client, mut passed, mut refused) = (Client::connect(web).await, 0u32, 0u32);
                while started.elapsed() < Duration::from_secs(3) {
                    match client.get("/api/x").await.status {
                        200 => passed += 1,
                        429 => refused += 1,
                        other => panic!("{other}"),
                    }
                }
                (passed, refused)
            })
        })
        .collect();
    let (mut passed, mut refused) = (0, 0);
    for client in clients {
        let (p, r) = client.await.expect("no panic");
        (passed, refused) = (passed + p, refused + r);
    }
    // More than the limit was asked for, unless the machine is too slow for this test to say anything.
    let may = 50.0 + 500.0 * started.elapsed().as_secs_f64();
    assert!(f64::from(passed) <= may * 1.02, "{passed} passed, {refused} refused, at most {may:.0}");
    if refused > passed {
        assert!(f64::from(passed) >= (50.0 + 500.0 * 3.0) * 0.98, "{passed} passed, {refused} refused");
    }
    site.program.assert_no_panic();
}
