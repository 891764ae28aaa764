//! The words of nginx, HAProxy, Traefik and Caddy, and common slips: which of our keys replaces each, and what to write
//! where no single key does. Pure tables. The reader asks about keys that it does not know,
//! `syntax` about whole lines.

mod text;

use super::raw;
pub use text::{step, text_rule};

/// What replaces a key that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meant {
    /// The key in the same table.
    pub key: Option<&'static str>,
    /// What to write, as a phrase that follows "expected"; empty if the key is enough.
    pub instead: String,
}

impl Meant {
    fn key(key: &'static str) -> Meant {
        Meant { key: Some(key), instead: String::new() }
    }

    fn instead(instead: impl Into<String>) -> Meant {
        Meant { key: None, instead: instead.into() }
    }
}

/// What replaces the key `name` in the table that `raw` declares as `table`.
pub fn key(table: &str, name: &str) -> Option<Meant> {
    let table = if table == "Check" { "Health" } else { table };
    let word = plain(name);
    let has_word = |words: &str| words.split_whitespace().any(|known| known == word);
    let row = KEYS.iter().find(|(of, _, words)| *of == table && has_word(words)).map(|(_, key, _)| Meant::key(key));
    let row = row.or_else(|| {
        let row = INSTEAD.iter().find(|(of, words, _)| *of == table && has_word(words));
        row.map(|(_, _, instead)| Meant::instead(*instead))
    });
    row.or_else(|| elsewhere(table, name))
}

/// As [`key`], with the value that is `written` in the example.
pub fn key_with(table: &str, name: &str, written: Option<&str>) -> Option<Meant> {
    let meant = key(table, name)?;
    let Some(written) = written else { return Some(meant) };
    let list = match written.parse::<u16>() {
        Ok(code) => format!("[{code}]"),
        Err(_) if written.starts_with('"') && !written.contains(',') => format!("[{written}]"),
        Err(_) if written.starts_with('[') => written.to_owned(),
        Err(_) => return Some(meant),
    };
    Some(Meant { instead: meant.instead.replace("status = [\"200-299\"]", &format!("status = {list}")), ..meant })
}

/// How the table that `raw` declares as `table` is written, where its keys are not obvious.
pub fn example(table: &str) -> Option<&'static str> {
    match table {
        "TextStep" => Some("{ send = \"PING\\r\\n\" } or { expect = \"PONG\" }"),
        "ClientTimeouts" => Some("{ header = \"10s\" }"),
        "ClientLimits" => Some("{ header_bytes = \"32KiB\" }"),
        "UpstreamTimeouts" => Some("{ connect = \"2s\" }"),
        "Connections" => Some("{ idle_per_upstream = 128 }"),
        "Retry" => Some("{ retries = 2 }"),
        "Passive" => Some("{ consecutive_failures = 5 }"),
        "Queue" => Some("{ length = 50, timeout = \"1s\" }"),
        "BalanceTable" => Some("{ type = \"hash\", key = \"client_ip\" }"),
        "Budget" => Some("{ share = 0.2 }"),
        "BasicAuth" => Some("{ user = \"…\", password = { file = \"…\" } }"),
        _ => None,
    }
}

/// One of our keys in the wrong table.
fn elsewhere(table: &str, name: &str) -> Option<Meant> {
    let of_check = [raw::Health::NAMES, raw::Timing::NAMES, raw::Probe::NAMES].concat();
    let of = |names: &[&str], home: &str| names.contains(&name).then(|| Meant::instead(format!("`{name}` in {home}")));
    let pool = || of(raw::Pool::NAMES, "[pools.NAME]");
    let check = || of(&of_check, "[pools.NAME.health]");
    let body = match name {
        _ if !raw::ExpectBody::NAMES.contains(&name) => None,
        name if table == "Expect" => Some(format!("`{name}` in `body`, such as `body = {{ {name} = \"ok\" }}`")),
        name => Some(format!("`{name}` in `body`, such as `expect = {{ body = {{ {name} = \"ok\" }} }}`")),
    };
    let body = || body.map(Meant::instead);
    let example = match name {
        "max_duration" => "max_duration = \"800ms\"",
        "contains" => "contains = \"ok\"",
        "header" => "header = { X-App = \"a\" }",
        "body" => "body = { contains = \"ok\" }",
        "json" => "json = [{ path = \"$.status\", equals = \"ok\" }]",
        _ => "status = [200]",
    };
    let expect = || of(raw::Expect::NAMES, &format!("`expect`, such as `expect = {{ {example} }}`"));
    let upstream = || of(raw::UpstreamTable::NAMES, "an upstream: `{ address = \"ip:port\", weight = 2 }`");
    let listener = || of(raw::Listener::NAMES, "[listeners.NAME]");
    let route = || of(raw::Route::NAMES, "[[routes]]");
    match table {
        "File" => pool().or_else(listener).or_else(check),
        "Pool" => check().or_else(upstream).or_else(expect),
        "UpstreamTable" => check(),
        "Health" => expect().or_else(body).or_else(pool),
        "Listener" => route().or_else(pool),
        "Expect" => body().or_else(check),
        _ => None,
    }
}

/// `healthCheck`, `health-check` and `health_check` are one word.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// The table, our key, and the words that it replaces.
const KEYS: &[(&str, &str, &str)] = &[
    ("File", "pools", "pool upstream upstreams backend backends cluster clusters service services group groups"),
    ("File", "listeners", "listener frontend frontends entrypoint entrypoints listen bind"),
    ("File", "routes", "route router routers rule rules location locations"),
    ("File", "admin", "stats api dashboard metrics management"),
    ("File", "runtime", "global main process worker workers"),
    ("Runtime", "threads", "workers workerthreads workerprocesses nbthread cpus cores concurrency"),
    ("Runtime", "drain_timeout", "gracefultimeout shutdowntimeout graceperiod gracetimeout hardstopafter stoptimeout"),
    ("Admin", "address", "listen bind addr port url socket host"),
    ("Admin", "token", "password key secret apikey auth bearer"),
    ("Listener", "address", "bind listen addr port listenaddress host ip socket interface addresses"),
    (
        "Listener",
        "pool",
        "backend defaultbackend defaultpool proxypass upstream service target to forward reverseproxy",
    ),
    ("Route", "path", "location prefix pathprefix uri url match"),
    ("Route", "path_exact", "exact pathequal pathequals"),
    ("Route", "host", "hosts servername domain domains hostname"),
    ("Route", "method", "methods verb verbs"),
    ("Route", "pool", "backend usebackend service proxypass target upstream to action reverseproxy"),
    ("Route", "listener", "listeners entrypoint entrypoints frontend"),
    ("Route", "header", "headers requestheaders hdr"),
    ("Route", "query", "args arg queryparams queryparameters params"),
    ("Route", "cookie", "cookies cook"),
    (
        "Pool",
        "upstreams",
        "servers server upstream targets target backends backend members nodes hosts endpoints addresses address addr to \
         urls url serverlist",
    ),
    ("Pool", "balance", "algorithm lb lbpolicy lbalgorithm policy strategy loadbalancing balancer scheduler"),
    ("Pool", "health", "healthcheck healthchecks check checks activehealthcheck httpcheck probe probes"),
    ("Pool", "when_no_healthy", "fallback onnohealthy whennohealthy"),
    ("Pool", "resolve", "resolver dns resolveinterval"),
    ("Pool", "min_healthy", "minservers minup minhealthyservers"),
    ("UpstreamTable", "address", "addr url server host ip target uri upstream endpoint hostname to dial"),
    ("UpstreamTable", "health_address", "healthaddr checkaddress checkaddr healthurl"),
    ("UpstreamTable", "admin", "state status"),
    ("UpstreamTable", "backup", "spare standby"),
    ("Elsewhere", "pool", "backend upstream name to service"),
    (
        "Health",
        "interval",
        "inter period periodseconds frequency every healthinterval checkinterval intervalseconds intervalms",
    ),
    ("Health", "timeout", "timeouts healthtimeout checktimeout timeoutseconds timeoutms"),
    ("Health", "fast_interval", "fastinter"),
    ("Health", "unhealthy_interval", "downinter unhealthyinterval"),
    ("Health", "healthy_threshold", "healthy passes pass healthpasses successthreshold successes success"),
    (
        "Health",
        "unhealthy_threshold",
        "unhealthy fails fail healthfails retries maxretries maxfails failures failurethreshold",
    ),
    ("Health", "start_period", "initialdelay initialdelayseconds startdelay grace graceperiod"),
    ("Health", "path", "uri url endpoint healthuri healthcheckpath httppath location"),
    ("Health", "port", "healthport checkport"),
    ("Health", "host", "hostname hosthdr hostheader vhost"),
    ("Health", "headers", "header healthheaders httpheaders requestheaders"),
    ("Health", "method", "httpmethod healthmethod verb"),
    ("Health", "type", "mode kind protocol healthtype checktype probe"),
    ("Health", "tls", "ssl checkssl"),
    ("Health", "service", "grpcservice"),
    ("Health", "basic_auth", "auth basicauth credentials"),
    ("Tls", "server_name", "sni servername checksni"),
    ("Tls", "ca_file", "ca cacert cafile capath trustedca rootca"),
    ("Tls", "client_cert", "cert certificate crt clientcertificate"),
    ("Tls", "client_key", "key clientkey privatekey"),
    ("BasicAuth", "user", "username login name account"),
    ("BasicAuth", "password", "pass passwd secret"),
    ("Expect", "status", "statuses statuscode statuscodes code codes successcodes expectedstatus"),
    ("Expect", "header", "headers"),
    ("Expect", "body", "text response string rstring content"),
    ("Expect", "json", "jsonpath"),
    ("ExpectBody", "contains", "includes has substring string text"),
    ("ExpectBody", "matches", "regex regexp pattern rstring match"),
    ("ExpectBody", "equals", "exact eq equal"),
    ("ExpectHeader", "matches", "regex regexp pattern match"),
    ("JsonRule", "path", "jsonpath key field"),
    ("JsonRule", "equals", "value eq equal"),
    ("JsonRule", "not_equals", "ne notequal"),
    ("JsonRule", "in", "oneof anyof values"),
    ("JsonRule", "matches", "regex regexp pattern match"),
    ("SecretSource", "file", "path from"),
    ("SecretSource", "env", "variable var environment"),
];

/// The table, words, and what to write instead of them.
const INSTEAD: &[(&str, &str, &str)] = &[
    ("File", "http tcp stream", "[listeners.NAME], [[routes]] and [pools.NAME] at the top of the file"),
    (
        "File",
        "server servers",
        "[listeners.NAME] for where to listen, `upstreams` in [pools.NAME] for where requests go",
    ),
    ("File", "defaults", "the keys in each pool: [pools.NAME.health]"),
    ("File", "log logging logs accesslog errorlog", "`--log-format` and `--log-level` on the command line"),
    ("File", "health healthcheck healthchecks check checks", "[pools.NAME.health]"),
    ("File", "include includes import", "everything in one file"),
    ("Runtime", "user group daemon pidfile pid chroot", "this setting in the service manager, such as systemd"),
    ("Listener", "servername hosts domain domains location locations route rule", "`host` and `path` in [[routes]]"),
    (
        "Listener",
        "ssl sslcertificate cert certificate certificates crt key",
        "no such key: TLS towards clients is not supported yet",
    ),
    ("Listener", "mode protocol", "no such key: a listener speaks HTTP/1.1"),
    (
        "Listener",
        "clientheadertimeout headertimeout keepalivetimeout clientbodytimeout sendtimeout timeout",
        "`timeouts = { header = \"10s\", keep_alive = \"75s\", body_idle = \"60s\" }`",
    ),
    (
        "Listener",
        "clientmaxbodysize maxbodysize maxrequestbodysize maxrequestbytes bodylimit",
        "`limits = { body_bytes = \"10MiB\" }`",
    ),
    ("Listener", "maxconn maxconnections connectionlimit", "`limits = { connections = 10000 }`"),
    ("Listener", "limitconn maxconnperip perip", "`limits = { connections_per_client = 100 }`"),
    ("Listener", "keepaliverequests maxrequestsperconnection", "`limits = { requests_per_connection = 1000 }`"),
    ("ClientLimits", "clientmaxbodysize maxbodysize body", "`body_bytes = \"10MiB\"`"),
    ("ClientLimits", "maxconn maxconnections", "`connections = 10000`"),
    (
        "UpstreamTimeouts",
        "read readtimeout response server servertimeout proxyread proxyreadtimeout responseheader ttfb",
        "`first_byte` for the response head, `idle` for the rest",
    ),
    ("UpstreamTimeouts", "send sendtimeout write writetimeout proxysendtimeout", "`idle`"),
    ("UpstreamTimeouts", "dial connecttimeout", "`connect`"),
    ("Route", "rule", "`host = \"a\"` for Host(`a`), `path = \"/x\"` for PathPrefix(`/x`)"),
    ("Route", "priority order", "no order: the most specific route wins"),
    ("Route", "name", "no name: the place in the file identifies a [[routes]] entry"),
    ("Route", "pathregex pathregexp regex regexp", "`path`, a prefix: patterns are not supported"),
    (
        "Pool",
        "maxfails failtimeout passivehealthcheck outlierdetection",
        "`passive = { consecutive_failures = 5, ejection = { base = \"10s\" } }`",
    ),
    ("Passive", "maxfails consecutive5xx consecutiveerrors fails failures errorlimit", "`consecutive_failures`"),
    ("Passive", "failtimeout baseejectiontime basetime base", "`ejection = { base = \"10s\" }`"),
    ("Passive", "maxejectiontime max", "`ejection = { max = \"5m\" }`"),
    ("Passive", "maxejectionpercent maxshare", "`ejection = { max_share = 0.5 }`"),
    (
        "Pool",
        "maxconn maxconns maxconnections connectionlimit queue maxqueue maxpendingrequests",
        "`connections = { max_per_upstream = 100, queue = { length = 50 } }`",
    ),
    ("Pool", "onmarkeddown", "`on_unhealthy = \"close\"`"),
    ("Connections", "maxconn maxconns maxconnections max", "`max_per_upstream = 100`"),
    ("Connections", "maxqueue queuelength", "`queue = { length = 50 }`"),
    ("Queue", "size max maxlength", "`length`"),
    ("ClientLimits", "limitconn perip", "`connections_per_client = 100`"),
    ("ClientLimits", "keepaliverequests", "`requests_per_connection = 1000`"),
    ("Pool", "keepalive", "`connections = { idle_per_upstream = 128 }`"),
    ("Pool", "retries maxretries proxynextupstream proxynextupstreamtries", "`retry = { retries = 2 }`"),
    (
        "Pool",
        "timeout proxyreadtimeout proxyconnecttimeout connecttimeout readtimeout",
        "`timeouts = { connect = \"2s\", first_byte = \"60s\" }`; for the checks `timeout` in [pools.NAME.health]",
    ),
    ("Pool", "stickysession stickysessions stickycookie cookie", "`sticky = { cookie = \"rm_affinity\" }`"),
    ("Pool", "iphash", "`balance = \"hash\"`"),
    ("Pool", "hashon hashkey hash", "`balance = { type = \"hash\", key = \"header:NAME\" }`"),
    ("Pool", "loadbalancer", "`upstreams` and `balance` in [pools.NAME] itself"),
    ("Pool", "name", "the name in the header: [pools.NAME]"),
    ("Pool", "scheme ssl https", "no such key: TLS to the upstreams is not supported yet"),
    ("UpstreamTable", "port", "the port in `address`: \"ip:port\"; `port` of the checks in [pools.NAME.health]"),
    ("UpstreamTable", "down disabled disable", "`admin = \"disabled\"`"),
    ("UpstreamTable", "drain draining", "`admin = \"draining\"`"),
    ("UpstreamTable", "enabled enable", "`admin = \"enabled\"` or `\"disabled\"`"),
    ("UpstreamTable", "maxconn maxconns", "`connections = { max_per_upstream = 100 }` in [pools.NAME]"),
    ("UpstreamTable", "slowstart", "`slow_start = \"30s\"` in [pools.NAME]"),
    ("UpstreamTable", "check inter healthcheck health", "[pools.NAME.health], which checks every upstream of the pool"),
    ("UpstreamTable", "maxfails failtimeout", "[pools.NAME.passive], for every upstream of the pool"),
    ("UpstreamTable", "name id", "the address alone; it names the upstream"),
    ("UpstreamTable", "scheme ssl tls", "no such key: TLS to the upstreams is not supported yet"),
    (
        "Health",
        "status statuses statuscode statuscodes successcodes successcode codes code expectstatus expectedstatus \
         expectedstatuses expectedcodes healthstatus httpstatus httpexpect match matcher",
        "`expect = { status = [\"200-299\"] }`",
    ),
    (
        "Health",
        "expectbody healthbody response string rstring contains expectedbody",
        "`expect = { body = { contains = \"…\" } }`",
    ),
    (
        "Health",
        "insecure insecureskipverify skipverify tlsskipverify sslverify verify https",
        "`scheme = \"https\"`, and `tls = { verify = false }` to accept any certificate",
    ),
    ("Health", "failtimeout", "`interval`: an upstream that failed is used again when its checks pass"),
    ("Health", "servername sni checksni", "`tls = { server_name = \"…\" }`"),
    (
        "Health",
        "enabled enable disabled disable check on off active",
        "no such key: every pool is checked, by a TCP connect where it has no health table",
    ),
    ("Health", "followredirects redirects", "the codes in `expect.status`: redirects are never followed"),
    ("Health", "command cmd script exec", "a check over the network: commands are not run"),
    ("Tls", "insecure insecureskipverify skipverify sslverify tlsskipverify", "`verify = false`"),
    (
        "SecretSource",
        "value text literal password token",
        "`file` or `env`: a secret is not written into the configuration",
    ),
    ("JsonRule", "contains includes", "`matches`, a regular expression, or `equals` or `in` for whole values"),
];

/// Our name for a balancing algorithm of another program.
pub fn balance(text: &str) -> Option<&'static str> {
    match plain(text).as_str() {
        "roundrobin" | "rr" | "wrr" | "swrr" | "weightedroundrobin" | "staticrr" | "weighted" => Some("round_robin"),
        "leastconn" | "leastconnection" | "leastconnections" | "lc" | "wlc" | "least" | "leastrequests" | "p2c" => {
            Some("least_request")
        }
        "rand" | "random2" | "randomchoice" => Some("random"),
        "iphash" | "source" | "sourceip" | "sourceiphash" | "clientip" | "clientiphash" | "consistenthash"
        | "consistent" | "ringhash" | "ring" | "ketama" | "chash" => Some("hash"),
        "leasttime" | "ewma" | "latency" | "leastlatency" | "fastest" => Some("peak_ewma"),
        "maglevhash" => Some("maglev"),
        _ => None,
    }
}

/// Our name for a condition of another program to send a request again.
pub fn retry_cause(text: &str) -> Option<&'static str> {
    match plain(text).as_str() {
        "connfailure" | "connectfailure" | "connectionfailure" => Some("connect"),
        "error" | "emptyresponse" | "disconnect" | "disconnectbeforerequest" => Some("reset"),
        "responsetimeout" | "timedout" => Some("timeout"),
        "badgateway" | "http502" => Some("502"),
        "unavailable" | "serviceunavailable" | "http503" => Some("503"),
        "gatewaytimeout" | "http504" => Some("504"),
        _ => None,
    }
}

/// What an algorithm of another program hashes by, as our key.
pub fn hashed_by(text: &str) -> Option<&'static str> {
    match plain(text).as_str() {
        "uri" | "urihash" | "urlhash" | "url" | "requesturi" => Some("path"),
        "hdr" | "header" | "headerhash" => Some("header:NAME"),
        "cookie" | "cookiehash" | "sticky" => Some("cookie:NAME"),
        _ => None,
    }
}

/// What to write for a type of check that is not ours: the type itself, or a phrase.
pub fn check_type(text: &str) -> Option<Result<&'static str, &'static str>> {
    Some(match plain(text).as_str() {
        "https" => Err("`type = \"http\"`, and `scheme = \"https\"` beside it"),
        "http2" | "h2" | "h2c" => Err("`type = \"http\"`, and `version = \"h2\"` beside it"),
        "wss" => Err("`type = \"websocket\"`, and `scheme = \"https\"` beside it"),
        "grpcs" => Err("`type = \"grpc\"`, and `scheme = \"https\"` beside it"),
        "ws" | "websockets" => Ok("websocket"),
        "agentcheck" => Ok("agent"),
        "httpchk" | "http1" | "http1.1" | "web" | "url" => Ok("http"),
        "ssl" | "sslhello" | "sslhellochk" => Ok("tls"),
        "connect" | "socket" | "port" | "l4" | "tcpcheck" | "layer4" => Ok("tcp"),
        "ping" | "icmp" | "udp" => Err("a check over TCP: `type = \"tcp\"` connects"),
        "exec" | "script" | "cmd" | "command" | "external" => Err("a check over the network: commands are not run"),
        "redis" | "mysql" | "mariadb" | "pgsql" | "postgres" | "postgresql" | "smtp" | "ldap" | "memcached"
        | "amqp" | "mqtt" => {
            Err("a preset, if `roundsman check --presets` lists one, or `type = \"tcp\"` with `send` and `expect`")
        }
        _ => return None,
    })
}

/// The table that a value of another type probably means.
pub fn table_for(table: &str, written: &str) -> Option<String> {
    if written.len() > 80 {
        return None;
    }
    let text = written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let number = written.parse::<u16>().ok();
    match (table, text, number) {
        ("ExpectBody", Some(_), _) => Some(format!("{{ contains = {written} }}")),
        ("Expect", _, Some(_)) => Some(format!("{{ status = [{written}] }}")),
        ("Expect", Some(code), _) if code.parse::<u16>().is_ok() => Some(format!("{{ status = [{code}] }}")),
        ("Expect", Some(_), _) => Some(format!("{{ body = {{ contains = {written} }} }}")),
        ("Health", Some(text), _) if text.starts_with('/') => Some(format!("{{ type = \"http\", path = {written} }}")),
        ("Health", ..) if written == "true" => Some("{ type = \"http\", path = \"/\" }".to_owned()),
        ("Health", Some("tcp" | "tls" | "http" | "grpc" | "websocket" | "agent"), _) => {
            Some(format!("{{ type = {written} }}"))
        }
        ("Admin", Some(_), _) => Some(format!("{{ address = {written} }}")),
        ("Tls", ..) if written == "true" => Some("{}".to_owned()),
        ("Tls", ..) if written == "false" => Some("{ verify = false }".to_owned()),
        ("Elsewhere", Some(_), _) => Some(format!("{{ pool = {written} }}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_leads_to_a_key_of_its_table() {
        let later = ["unhealthy_interval", "basic_auth"];
        for (table, key, words) in KEYS {
            let names = match *table {
                "File" => raw::File::NAMES.to_vec(),
                "Runtime" => raw::Runtime::NAMES.to_vec(),
                "Admin" => raw::Admin::NAMES.to_vec(),
                "Listener" => raw::Listener::NAMES.to_vec(),
                "Route" => raw::Route::NAMES.to_vec(),
                "Pool" => raw::Pool::NAMES.to_vec(),
                "UpstreamTable" => raw::UpstreamTable::NAMES.to_vec(),
                "Elsewhere" => raw::Elsewhere::NAMES.to_vec(),
                "Health" => [raw::Health::NAMES, raw::Timing::NAMES, raw::Probe::NAMES, &later].concat(),
                "Tls" => raw::Tls::NAMES.to_vec(),
                "Expect" => raw::Expect::NAMES.to_vec(),
                "ExpectBody" => raw::ExpectBody::NAMES.to_vec(),
                "JsonRule" => raw::JsonRule::NAMES.to_vec(),
                // Declared next to the values they belong to.
                "ExpectHeader" | "SecretSource" | "BasicAuth" => continue,
                other => panic!("there is no table {other}"),
            };
            assert!(names.contains(key), "{table}.{key}");
            let words: Vec<_> = words.split_whitespace().collect();
            assert!(words.iter().all(|word| plain(word) == *word), "{words:?}");
            assert_eq!(words.iter().find(|word| names.contains(word) && *word != key), None, "{table}");
        }
    }

    #[test]
    fn words_of_other_programs_lead_to_ours_in_any_spelling() {
        for (table, word, key_meant) in [
            ("Pool", "healthCheck", "health"),
            ("Pool", "health-check", "health"),
            ("Pool", "lb_policy", "balance"),
            ("Check", "inter", "interval"),
            ("Health", "success_threshold", "healthy_threshold"),
            ("File", "entryPoints", "listeners"),
        ] {
            assert_eq!(key(table, word).and_then(|meant| meant.key), Some(key_meant), "{word}");
        }
        let instead = |table: &str, word: &str| key(table, word).unwrap().instead;
        assert_eq!(instead("Pool", "interval"), "`interval` in [pools.NAME.health]");
        for (table, word, example) in [
            ("Health", "max_duration", "expect = { max_duration = "),
            ("Pool", "max_duration", "expect = { max_duration = "),
            ("Check", "json", "expect = { json = [{"),
            ("Check", "not_contains", "expect = { body = { not_contains = "),
            ("Expect", "not_matches", "`body = { not_matches = "),
        ] {
            assert!(instead(table, word).contains(example), "{}", instead(table, word));
        }
        assert_eq!(instead("File", "upstreams_"), "");
        assert!(instead("Health", "success_codes").contains("`expect = { status"));
        assert_eq!(key("Pool", "colour"), None);
    }
}
