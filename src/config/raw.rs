//! The keys of the file: one declaration per table, with types, ranges, documentation and defaults. The reader, the JSON
//! Schema and the test of `conf/reference.toml` are made from it. A new key is a new line here. Keys that are part of the
//! contract and do not work yet are listed under `later` and refused by name.

mod health;
mod route;
mod traffic;

use schemars::{Schema, SchemaGenerator, json_schema};
use toml::de::{DeTable, DeValue};

pub use health::{Check, Degraded, Expect, ExpectBody, Health, JsonRule, Probe, TextStep, TextSteps, Timing, Tls};
pub use route::{PoolShare, PoolShares, RateLimit, Redirect, Respond, Route};
pub use traffic::{ClientLimits, ClientTimeouts, Connections, Passive, Retry, UpstreamTimeouts};

use super::foreign;
use super::read::{ByName, List, Node, Reader, Value, nearest};
use super::table::table;
pub use super::values::access::ShownHeader;
use super::values::access::{Dropped, Only, Query, To};
use super::values::address::{self, Dial, DialAddress, Listen};
use super::values::balance::{Balancing, HashBy, Times};
use super::values::cookie::CookieName;
use super::values::fields::RequestFieldName;
use super::values::network::Peers;
use super::values::protocol::Protocol;
use super::values::route::RoutePath;
use super::values::secret::SecretValue;
use super::values::{Count, DAY, OneOf, Share, Span, Text};
use crate::model::AdminState;
use crate::model::policy::{AccessFormat, Balance, Lane, MinHealthy, OnUnhealthy, Upgrades};

table! {
    /// The configuration of roundsman.
    struct File {
        /// The process as a whole.
        runtime ["runtime"]: Runtime;
        /// Listening sockets, by name.
        listeners ["listeners"]: ByName<Listener, 1_000>;
        /// Which requests go to which pool; the most specific route wins: exact host, longest wildcard, any host; then path_exact, longest path; then more conditions; then the order of the file.
        routes ["routes"]: List<Route, 10_000>;
        /// Groups of upstreams, by name.
        pools ["pools"]: ByName<Pool, 1_000>;
        /// The admin socket: health, status, metrics, reload.
        admin ["admin"]: Admin;
        /// What is believed of who a request is from.
        forwarded ["forwarded"]: Forwarded;
        /// A line for each request.
        access_log ["access_log"]: AccessLog;
    }
    required ["listeners", "pools"]
    later []
}

table! {
    /// The process as a whole.
    struct Runtime {
        /// Worker threads; default: the cores that this process may use. A change needs a restart.
        threads ["threads"]: Count<1, 1024>;
        /// What carries requests: "auto", or "general" to compare or to fall back. A change needs a restart.
        lane ["lane"]: OneOf<Lane> = "auto";
        /// On TERM: for how long /readyz answers 503 while connections are still accepted.
        drain_delay ["drain_delay"]: Span<0, DAY> = "0s";
        /// For how long requests in flight may then finish.
        drain_timeout ["drain_timeout"]: Span<0, DAY> = "30s";
    }
    later []
}

table! {
    /// One listening socket.
    struct Listener {
        /// Where it listens: "ip:port", "[v6]:port" (IPv6 only) or "unix:/path".
        address ["address"]: Listen;
        /// The pool for requests that match no route; without it they get 404.
        pool ["pool"]: PoolRef;
        /// How long its clients may take.
        timeouts ["timeouts"]: ClientTimeouts;
        /// How large its requests and how many its connections may be.
        limits ["limits"]: ClientLimits;
        /// How many requests it lets through: beyond it 429. Routes may have limits of their own.
        rate_limit ["rate_limit"]: RateLimit;
        /// The field in which upstreams get a number that no other request has, such as "x-request-id"; default: none.
        request_id ["request_id"]: RequestFieldName;
        /// Whether requests without a `traceparent` (W3C Trace Context) get one; others keep theirs.
        traceparent ["traceparent"]: bool = false;
        /// This exact path is answered as /readyz of the admin is, before routing, and not logged.
        ready_path ["ready_path"]: RoutePath;
    }
    required ["address"]
    later ["h2c", "redirect_https", "proxy_protocol", "tls", "mode"]
}

table! {
    /// One pool: upstreams that serve the same requests.
    struct Pool {
        /// The upstreams: plain addresses, or tables.
        upstreams ["upstreams"]: List<Upstream, 65_535>;
        /// How an eligible upstream is chosen: in turn, by requests in flight, by latency, at random, by a hash of the request, or the first.
        balance ["balance"]: Balancing = "round_robin";
        /// While too few are healthy: "reject" (503 with Retry-After), "fail_open" (use all that are not disabled or draining), or { pool = "other" }.
        when_no_healthy ["when_no_healthy"]: NoHealthy = "reject";
        /// Fewer healthy upstreams than this (a number, or a share such as 0.3) count as none.
        min_healthy ["min_healthy"]: MinHealthy = 1;
        /// How often host names of upstreams are resolved. Each address of a name is a separate upstream.
        resolve ["resolve"]: Span<1_000, DAY> = "30s";
        /// The protocols to which requests may switch with Upgrade; HTTP/2 is none of them.
        upgrades ["upgrades"]: List<Protocol, { Upgrades::MAX }> = ["websocket"];
        /// How long upstreams may take.
        timeouts ["timeouts"]: UpstreamTimeouts;
        /// The connections to each upstream, and how many requests it may have at once.
        connections ["connections"]: Connections;
        /// Which requests are sent again after a failure.
        retry ["retry"]: Retry;
        /// Ejection by live traffic.
        passive ["passive"]: Passive;
        /// How long the weight grows, from a tenth, of an upstream that recovers, is let back or enabled, or is added to a running pool.
        slow_start ["slow_start"]: Span<0, DAY> = "0s";
        /// How long requests in flight at a removed, draining or disabled upstream may go on; "0s": until their own time is over.
        drain_timeout ["drain_timeout"]: Span<0, DAY> = "0s";
        /// How long tunnels at a removed, draining or disabled upstream may go on; "0s" ends them at once.
        tunnel_drain ["tunnel_drain"]: Span<0, DAY> = "1h";
        /// What is in flight at an upstream that becomes unhealthy: "keep" lets it go on, "close" ends it at once.
        on_unhealthy ["on_unhealthy"]: OneOf<OnUnhealthy> = "keep";
        /// Requests of one client stay with one upstream, by a cookie.
        sticky ["sticky"]: Sticky;
        /// How the upstreams are checked; without this table, by a TCP connect.
        health ["health"]: Health;
    }
    required ["upstreams"]
    later ["protocol", "tls", "send_proxy"]
}

table! {
    /// Requests of one client stay with one upstream.
    struct Sticky {
        /// The name of the cookie.
        cookie ["cookie"]: CookieName = "rm_affinity";
    }
    later []
}

table! {
    /// One upstream with further keys.
    struct UpstreamTable {
        /// Where its requests go: "ip:port", "[v6]:port", "name:port" or "unix:/path".
        address ["address"]: Dial;
        /// Its share of the traffic, relative to the weights of the others.
        weight ["weight"]: Count<1, 1000> = 1;
        /// Used only while no primary is eligible.
        backup ["backup"]: bool = false;
        /// Where its checks go; wins over `port` and `port_offset` of the check.
        health_address ["health_address"]: DialAddress;
        /// "enabled", "draining" (no new requests) or "disabled"; an override given at run time wins.
        admin ["admin"]: OneOf<AdminState> = "enabled";
    }
    required ["address"]
    later []
}

table! {
    /// An algorithm with what it needs.
    struct BalanceTable {
        /// Its name.
        kind ["type"]: OneOf<Balance>;
        /// Of "hash" and "maglev": what requests are hashed by: "client_ip" (the default), "path", "header:NAME" or "cookie:NAME".
        key ["key"]: HashBy;
        /// Of "hash" and "maglev": how many times its share of the requests in flight an upstream may have, 1.25 by default; 0: no bound.
        bounded_load ["bounded_load"]: Times;
    }
    required ["type"]
    later []
}

table! {
    /// The pool that is used while too few upstreams are healthy.
    struct Elsewhere {
        /// The other pool.
        pool ["pool"]: Name;
    }
    required ["pool"]
    later []
}

table! {
    /// What is believed of who a request is from.
    struct Forwarded {
        /// Networks, such as "10.0.0.0/8", whose X-Forwarded-* and Forwarded are believed and extended; "unix": whoever connects to a unix socket. From others they are replaced.
        trusted ["trusted"]: List<Peers, 1_000> = [];
        /// Whether upstreams get `Forwarded` (RFC 7239) as well.
        rfc7239 ["rfc7239"]: bool = false;
    }
    later []
}

table! {
    /// A line for each request.
    struct AccessLog {
        /// Where lines go: "off", "stdout", a path (reopened on USR1), or "syslog:unix:/dev/log".
        to ["to"]: To = "off";
        /// "json", or "combined" as Apache writes it.
        format ["format"]: OneOf<AccessFormat> = "json";
        /// Which requests are logged, where not all are: "errors", "slow>500ms", "retried".
        only ["only"]: List<Only, 8> = [];
        /// The share of the plain successes that is logged; errors, retries and slow ones always are.
        sample ["sample"]: Share<100> = 1.0;
        /// Paths that are left out.
        except_paths ["except_paths"]: List<RoutePath, 1_000> = [];
        /// Whether the query is shown: true, false, or "keys" for its names alone.
        query ["query"]: Query = true;
        /// What a line has more or less.
        fields ["fields"]: AccessFields;
    }
    later []
}

table! {
    /// What a line of the access log has more or less.
    struct AccessFields {
        /// Keys of the line that are left out.
        drop ["drop"]: List<Dropped, 64> = [];
        /// Fields of requests that are added; none that is a secret by its name.
        headers ["headers"]: List<ShownHeader, 16> = [];
    }
    later []
}

table! {
    /// The admin socket.
    struct Admin {
        /// Where it listens; an address off the loopback needs a token.
        address ["address"]: Listen = "127.0.0.1:9900";
        /// The bearer token, of at least 16 bytes: { file = "…" } or { env = "…" }.
        token ["token"]: SecretValue;
        /// Whether /metrics has a histogram of response times for each upstream: 18 series more each.
        upstream_histograms ["upstream_histograms"]: bool = false;
    }
    later []
}

impl File {
    /// Reads a whole document.
    pub fn read_document(table: &DeTable<'_>, reader: &mut Reader<'_>) -> File {
        let file = File::read_table(table, reader);
        for (key, node) in table.iter() {
            // Below a mistyped table there may be further mistakes.
            let name = key.get_ref().as_ref();
            match table_meant(name) {
                Some("listeners") if has_tables(node) => {
                    reader.within(name, |reader| ByName::<Listener, 1_000>::read(node, reader));
                }
                Some("pools") if has_tables(node) => {
                    reader.within(name, |reader| ByName::<Pool, 1_000>::read(node, reader));
                }
                _ => {}
            }
        }
        file
    }
}

/// The table of ours that is meant by `name`, which is not one of ours.
fn table_meant(name: &str) -> Option<&'static str> {
    if File::NAMES.contains(&name) {
        return None;
    }
    let near = || nearest(name, File::NAMES.iter().copied());
    let near = || near().and_then(|near| File::NAMES.iter().find(|known| **known == near).copied());
    foreign::key("File", name).map_or_else(near, |meant| meant.key)
}

/// Whether there is nothing but tables in `node`.
fn has_tables(node: &Node<'_>) -> bool {
    let DeValue::Table(table) = node.get_ref() else { return false };
    table.iter().all(|(_, node)| matches!(node.get_ref(), DeValue::Table(_)))
}

/// An upstream: an address alone, or a table. The table is boxed because there may be very many plain ones.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// An address alone.
    Plain(Dial),
    /// More than an address.
    Table(Box<UpstreamTable>),
}

impl Value for Upstream {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Upstream> {
        match node.get_ref() {
            DeValue::String(text) => match address::entries(text).filter(|_| !reader.is_expanded(node)) {
                Some(entries) => {
                    let message = format!("{} is more than an address", reader.written(node));
                    let table = "one address, or a table: `{ address = \"ip:port\", weight = 2 }`";
                    let other = address::other_words(text);
                    let expected = other.map_or(table.to_owned(), |other| format!("one address; {other}"));
                    reader.mistake(node.span(), message).expected(expected).suggestion(Some(entries)).done();
                    None
                }
                None => match address::bad_weight(text).filter(|_| !reader.is_expanded(node)) {
                    Some(problem) => {
                        let message = format!("{} has a weight out of range", reader.written(node));
                        reader.mistake(node.span(), message).expected(problem).done();
                        None
                    }
                    None => Dial::read(node, reader).map(Upstream::Plain),
                },
            },
            DeValue::Table(_) => UpstreamTable::read(node, reader).map(|table| Upstream::Table(Box::new(table))),
            other => {
                let meant = match other {
                    DeValue::Integer(port) => Dial::suggest(port.as_str()),
                    _ => None,
                };
                let what = "an address in quotes, such as \"10.0.0.1:80\", or a table with `address`";
                reader.wrong_type_meaning(node, what, meant);
                None
            }
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let (address, table) = (Dial::schema(generator), UpstreamTable::schema(generator));
        json_schema!({ "anyOf": [address, table] })
    }
}

/// The name of a pool or listener that is declared elsewhere.
#[derive(Debug, Clone)]
pub struct Name(pub String);

impl Value for Name {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Name> {
        reader.string(node, "a name in quotes").map(Name)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// The pool that requests go to.
#[derive(Debug, Clone)]
pub struct PoolRef(pub String);

impl Value for PoolRef {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<PoolRef> {
        if matches!(node.get_ref(), DeValue::Array(_)) {
            let message = "a listener has one pool for requests that match no route";
            reader.mistake(node.span(), message).expected("one name, or [[routes]] with several pools").done();
            return None;
        }
        reader.string(node, "the name of a pool, in quotes").map(PoolRef)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// `when_no_healthy`.
#[derive(Debug, Clone)]
pub enum NoHealthy {
    /// 503.
    Reject,
    /// Use those that are not healthy.
    FailOpen,
    /// Use another pool.
    Elsewhere(Elsewhere),
}

impl Value for NoHealthy {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<NoHealthy> {
        const WHAT: &str = "\"reject\", \"fail_open\" or { pool = \"…\" }";
        if matches!(node.get_ref(), DeValue::Table(_)) {
            return Elsewhere::read(node, reader).map(NoHealthy::Elsewhere);
        }
        let text = reader.string(node, WHAT)?;
        match text.as_str() {
            "reject" => Some(NoHealthy::Reject),
            "fail_open" => Some(NoHealthy::FailOpen),
            _ => {
                let near = super::read::nearest(&text, ["reject", "fail_open"].into_iter());
                let near = near.map(|word| format!("\"{word}\""));
                let message = format!("{} is not known", reader.written(node));
                reader.mistake(node.span(), message).expected(WHAT).suggestion(near).done();
                None
            }
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        let table = Elsewhere::schema(generator);
        json_schema!({ "anyOf": [{ "enum": ["reject", "fail_open"] }, { "type": "string", "pattern": r"\$\{" }, table] })
    }
}
