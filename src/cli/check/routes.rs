//! What is done with requests before they have a pool: routes with their rules, whose forwarding fields are believed, and which
//! requests are logged.

use std::fmt::Write as _;

use crate::model::Ratio;
use crate::model::policy::{
    AccessClass, AccessFormat, AccessPolicy, AccessTarget, Config, FieldEdits, FixedAnswer, ForwardedPolicy, PoolShare,
    RoutePolicy, RouteRules,
};
use crate::model::units::counted;
use crate::model::written::show_duration;

/// The most routes listed.
const ROUTES_LISTED_MAX: usize = 20;

/// A line for each route, in the order of the file.
pub(super) fn describe_routes(config: &Config, out: &mut String) {
    let routes = config.routes.len();
    let _ = writeln!(out, "{routes} {}", if routes == 1 { "route" } else { "routes" });
    for route in config.routes.iter().take(ROUTES_LISTED_MAX) {
        let _ = writeln!(out, "  route      {}: {}", route.matching(), what(route));
    }
    if routes > ROUTES_LISTED_MAX {
        let _ = writeln!(out, "  and {} more", routes - ROUTES_LISTED_MAX);
    }
}

/// A line for `[forwarded]` and one for `[access_log]`, if they are not the default.
pub(super) fn describe_records(config: &Config, out: &mut String) {
    let ForwardedPolicy { trusted, rfc7239 } = &*config.forwarded;
    let mut believed: Vec<String> = trusted.networks.iter().map(ToString::to_string).collect();
    believed.extend(trusted.unix.then(|| "unix".to_owned()));
    if !believed.is_empty() {
        let _ = writeln!(out, "forwarding fields of {} are believed", believed.join(", "));
    }
    if *rfc7239 {
        let _ = writeln!(out, "upstreams get Forwarded (RFC 7239)");
    }
    if let Some(access) = &config.access_log {
        let _ = writeln!(out, "access log {}", access_log(access));
    }
}

fn what(route: &RoutePolicy) -> String {
    let rules = route.rules.as_deref().cloned().unwrap_or_default();
    let mut all = vec![match &rules.answer {
        Some(FixedAnswer::Redirect { status, to }) => format!("redirect {status} to {to}"),
        Some(FixedAnswer::Respond { status, .. }) => format!("respond {status}"),
        None => pools(&route.pools),
    }];
    let RouteRules { strip_prefix, rewrite, request, response, timeout, answer: _, rate_limit } = &rules;
    all.extend(strip_prefix.as_ref().map(|prefix| format!("strip_prefix = {prefix}")));
    all.extend(rewrite.as_ref().map(|path| format!("rewrite = {path}")));
    all.extend(edits("request", request));
    all.extend(edits("response", response));
    all.extend(timeout.map(|timeout| format!("timeout = {}", timeout.map_or("0s".to_owned(), show_duration))));
    all.extend(rate_limit.as_ref().map(|limit| format!("rate_limit = {limit}")));
    all.join(", ")
}

fn pools(shares: &[PoolShare]) -> String {
    match shares {
        [one] => format!("pool {}", one.pool),
        several => {
            let each: Vec<String> = several.iter().map(|share| format!("{} ({})", share.pool, share.weight)).collect();
            format!("pools {}", each.join(" and "))
        }
    }
}

/// The names of fields; values may be long, or secrets.
fn edits(of: &str, edits: &FieldEdits) -> Vec<String> {
    let set: Vec<&str> = edits.set.iter().map(|(name, _)| &**name).collect();
    let remove: Vec<&str> = edits.remove.iter().map(|name| &**name).collect();
    let kinds = [("set", set), ("remove", remove)].into_iter().filter(|(_, names)| !names.is_empty());
    kinds.map(|(verb, names)| format!("{verb}_{of}_headers = [{}]", names.join(", "))).collect()
}

fn access_log(access: &AccessPolicy) -> String {
    let to = match &access.to {
        AccessTarget::Stdout => "to the standard output".to_owned(),
        AccessTarget::File(path) => format!("to {}", path.display()),
        AccessTarget::Syslog(path) => format!("to the syslog at {}", path.display()),
    };
    let format = match access.format {
        AccessFormat::Json => "json",
        AccessFormat::Combined => "combined",
    };
    let class = |class: &AccessClass| match class {
        AccessClass::Errors => "errors".to_owned(),
        AccessClass::Slow(than) => format!("slow>{}", show_duration(*than)),
        AccessClass::Retried => "retried".to_owned(),
    };
    let mut out = format!("{to}, {format}");
    if !access.only.is_empty() {
        out += &format!(", only {}", access.only.iter().map(class).collect::<Vec<_>>().join(", "));
    }
    if access.sample != Ratio::ONE {
        out += &format!(", {} % of plain successes", access.sample.as_f64() * 100.0);
    }
    if !access.except_paths.is_empty() {
        out += &format!(", without {}", counted(access.except_paths.len() as u64, "path", "paths"));
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::cli::check::describe::describe;

    #[test]
    fn routes_are_listed_with_what_is_done_with_their_requests() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.toml");
        let text = r#"
[listeners.web]
address = "127.0.0.1:8080"
rate_limit = { requests = 1000, per = "1s" }
request_id = "x-request-id"
ready_path = "/ready"
[forwarded]
trusted = ["10.0.0.0/8", "unix"]
rfc7239 = true
[access_log]
to = "/var/log/access.log"
format = "combined"
only = ["errors", "slow>500ms"]
[[routes]]
path = "/api"
method = ["GET"]
pool = [{ name = "a", weight = 95 }, { name = "b", weight = 5 }]
strip_prefix = "/api"
timeout = "5s"
rate_limit = { requests = 100, per = "1s", burst = 200 }
set_request_headers = { X-From = "{client_ip}" }
remove_response_headers = ["Server"]
[[routes]]
host = "old.example"
redirect = { status = 308, to = "https://new.example{path}" }
[[routes]]
path = "/ping"
respond = { status = 200, body = "pong" }
[pools.a]
upstreams = ["10.0.0.1:80", "10.0.0.2:80"]
balance = { type = "hash", key = "path", bounded_load = 1.5 }
[pools.b]
upstreams = ["10.0.0.3:80", "10.0.0.4:80"]
"#;
        std::fs::write(&path, text).expect("written");
        let loaded = crate::app::load::load_file(&path).unwrap_or_else(|error| panic!("{error}"));
        let out = describe(&loaded.config);
        let head = out.split_once("\n\n").expect("pools follow").0;
        assert_eq!(
            head,
            "listener web on 127.0.0.1:8080: 404 unless a route matches\n  \
             clients    rate_limit = 1000 in 1s by client_ip, 1000 at once, request_id = x-request-id, ready_path = /ready\n\
             3 routes\n  \
             route      GET /api: pools a (95) and b (5), strip_prefix = /api, set_request_headers = [X-From], \
             remove_response_headers = [Server], timeout = 5s, rate_limit = 100 in 1s by client_ip, 200 at once\n  \
             route      old.example/: redirect 308 to https://new.example{path}\n  \
             route      /ping: respond 200\n\
             forwarding fields of 10.0.0.0/8, unix are believed\n\
             upstreams get Forwarded (RFC 7239)\n\
             access log to /var/log/access.log, combined, only errors, slow>500ms\n\
             admin on 127.0.0.1:9900",
            "{out}"
        );
        assert!(out.contains("pool a: 2 upstreams, hash by path, bounded_load = 1.5; "), "{out}");
    }
}
