//! The keys of `[pools.NAME.health]`: when checks run, what they do, and what they expect. An entry of `checks` has the
//! same keys except the list itself; a preset is such a table too.

use crate::config::presets::Preset;
use crate::config::read::List;
use crate::config::table::table;
use crate::config::values::basic_auth::BasicAuth;
use crate::config::values::expect::{ExpectHeaders, JsonNumber, JsonPathText, JsonValue, JsonValues, PatternText};
use crate::config::values::header::Headers;
use crate::config::values::http::{BodyText, HostField, Method, ProbePath, ServiceName, Token};
use crate::config::values::require::Require;
use crate::config::values::several::OneOrSeveral;
use crate::config::values::status::Statuses;
use crate::config::values::steps::{FailText, HexBytes, LinePatternText, SentBytes, SentText};
use crate::config::values::tls::{Certificates, PrivateKey, TlsName};
use crate::config::values::{Count, DAY, Kind, Missing, OneOf, Scheme, Share, Span};
use crate::model::policy::{HttpVersion, JsonType};

table! {
    /// How the upstreams of a pool are checked: one check, or a list of `checks`.
    struct Health {
        flatten timing: Timing;
        flatten probe: Probe;
        /// The name of a preset (`roundsman check --presets` lists them); keys written beside it win over the preset's.
        preset ["preset"]: OneOf<Preset>;
        /// Several checks, instead of one in this table. Interval, timeout and the other timing keys beside the list are the defaults of its entries.
        checks ["checks"]: List<Check, 16>;
        /// How many of the `checks` must pass: "all", "any" or a number.
        require ["require"]: Require = "all";
    }
    later []
}

table! {
    /// One of several checks.
    struct Check {
        flatten timing: Timing;
        flatten probe: Probe;
        /// The name of a preset; keys written beside it win over the preset's.
        preset ["preset"]: OneOf<Preset>;
    }
    later []
}

table! {
    /// When checks run, and how many make a verdict.
    struct Timing {
        /// Time from the start of one check to the start of the next.
        interval ["interval"]: Span<10, DAY> = "10s";
        /// The same while the check is unhealthy and no change is being confirmed; at least the interval. Default: the interval.
        unhealthy_interval ["unhealthy_interval"]: Span<10, DAY> = "10s";
        /// For the whole check: connect, TLS, request, headers, body; at most the interval. Default: 5s, or the interval if that is shorter.
        timeout ["timeout"]: Span<1, DAY> = "5s";
        /// Consecutive passes that make an upstream healthy. Alias: `rise`.
        healthy_threshold ["healthy_threshold", "rise"]: Count<1, 1000> = 2;
        /// Consecutive failures that make it unhealthy. Alias: `fall`.
        unhealthy_threshold ["unhealthy_threshold", "fall"]: Count<1, 1000> = 3;
        /// The interval while results differ from the present state, until the change is confirmed; at most the interval. Default: 1s, or the interval if that is shorter.
        fast_interval ["fast_interval"]: Span<10, DAY> = "1s";
        /// For how long after an upstream is first seen its failures are not counted.
        start_period ["start_period"]: Span<0, DAY> = "0s";
        /// How much earlier or later a check may start, as a share of the current interval.
        jitter ["jitter"]: Share<50> = 0.1;
    }
    later []
}

table! {
    /// What a check does and expects.
    struct Probe {
        /// What a check does: "tcp" connects and closes, "tls" makes a handshake, "http" a request, "grpc" calls the health service, "websocket" upgrades and pings, "agent" reads a line of HAProxy's agent protocol: "up", "50%", "drain", "maint", "down".
        kind ["type"]: OneOf<Kind> = "tcp";
        /// The port of the check, if it differs from the traffic's.
        port ["port"]: Count<1, 65535>;
        /// The port of the check, as an offset from the traffic's; instead of `port`.
        port_offset ["port_offset"]: Count<-65535, 65535>;
        /// http, grpc, websocket: "https" uses TLS. Default: "http", or "https" if `tls` is written. Independent of the traffic's scheme.
        scheme ["scheme"]: OneOf<Scheme> = "http";
        /// tls, http, grpc, websocket, agent: the TLS settings. tcp: with `send`, `expect` or `steps`.
        tls ["tls"]: Tls;
        /// tcp, agent: the text to send after connecting, or a secret as { file = "…" } or { env = "…" } with optional `prefix` and `suffix`.
        send ["send"]: SentText;
        /// tcp: a dialogue step by step, instead of `send` and `expect`.
        steps ["steps"]: TextSteps;
        /// http, websocket: the path, with or without a query.
        path ["path"]: ProbePath = "/";
        /// http: the method.
        method ["method"]: Method = "GET";
        /// http: the HTTP version: "http1", or "h2" (by ALPN over TLS, by prior knowledge without TLS).
        version ["version"]: OneOf<HttpVersion> = "http1";
        /// http, grpc, websocket: the Host field and, with TLS, the server name; default: the upstream's host name, else the address of the check, or localhost for a unix socket.
        host ["host"]: HostField;
        /// http, grpc, websocket: further header fields. A secret such as Authorization is written { file = "…", prefix = "Bearer " } or { env = "…" }.
        headers ["headers"]: Headers;
        /// http, grpc, websocket: { user = "…", password = { file = "…" } }, sent as Authorization: Basic; instead of an Authorization field in `headers`.
        basic_auth ["basic_auth"]: BasicAuth;
        /// http: the content of the request.
        body ["body"]: BodyText<true>;
        /// grpc: the service to ask about; empty: the whole server.
        service ["service"]: ServiceName = "";
        /// websocket: the subprotocol to request; the server must accept it.
        subprotocol ["subprotocol"]: Token;
        /// What the answer must look like (http and tcp), and how long it may take (every type).
        expect ["expect"]: Expect;
        /// http: an answer that passes and also meets these rules means that the upstream is worse than others.
        degraded ["degraded"]: Degraded;
    }
    later []
}

table! {
    /// A healthy upstream that is worse than others, and takes less.
    struct Degraded {
        /// The rules, as those of `expect` beside it; at least one.
        expect ["expect"]: Expect;
        /// The share of its weight that it takes.
        weight ["weight"]: Share<100> = 0.25;
    }
    required ["expect"]
    later []
}

/// The steps of a check, in order.
pub type TextSteps = List<TextStep, 16>;

table! {
    /// One step of a check of a text protocol: one of expect, matches, send, send_hex, expect_hex and starttls, optionally with fail_on. A step consumes the input up to the end of what it waits for; the next step continues from there. At most 64 KiB are read in total.
    struct TextStep {
        /// Reads until this text arrives.
        expect ["expect"]: BodyText<false>;
        /// Reads until this regular expression matches. ^ and $ match at every line, which may end with CRLF or LF.
        matches ["matches"]: LinePatternText;
        /// Sends this text, or a secret as { file = "…" } or { env = "…" }, with `prefix` and `suffix`.
        send ["send"]: SentText;
        /// Sends these bytes: pairs of hexadecimal digits, or a secret that holds them.
        send_hex ["send_hex"]: SentBytes;
        /// Reads until these bytes arrive.
        expect_hex ["expect_hex"]: HexBytes;
        /// true: makes the TLS handshake; everything after it goes over TLS. Earlier input in plain text no longer counts.
        starttls ["starttls"]: bool;
        /// Texts that fail the check as soon as one of them arrives. For a step that reads nothing, they apply to the next step that reads.
        fail_on ["fail_on"]: List<FailText, 16>;
    }
    later []
}

table! {
    /// The TLS settings of a check.
    struct Tls {
        /// Whether the certificate of the upstream is verified. If not, anyone on the network path can answer for it.
        verify ["verify"]: bool = true;
        /// The server name to send (SNI), which the certificate must match; default: `host`, else the upstream's host name or the address of the check.
        server_name ["server_name"]: TlsName;
        /// A PEM file of certificates to trust instead of the system's. Read again on reload.
        ca_file ["ca_file"]: Certificates;
        /// A PEM file with the client certificate and its chain.
        client_cert ["client_cert"]: Certificates;
        /// A PEM file with the private key of `client_cert`.
        client_key ["client_key"]: PrivateKey;
    }
    later []
}

table! {
    /// What the answer to a check must look like; every rule must hold.
    struct Expect {
        /// http: status codes and ranges of them, or "any": only the other rules decide.
        status ["status"]: Statuses = ["200-299"];
        /// http: rules for header fields of the answer: name = "value", { matches = "…" }, { not_equals = "…" }, { present = true } or { absent = true }.
        header ["header"]: ExpectHeaders;
        /// http: rules for the body: one rule, or a list of rules that must all hold; the first 64 KiB are read.
        body ["body"]: OneOrSeveral<ExpectBody, 16>;
        /// http: rules for the body as JSON.
        json ["json"]: List<JsonRule, 32>;
        /// tcp: a text within the first 64 KiB of what the upstream sends.
        contains ["contains"]: BodyText<false>;
        /// How long a correct answer may take, from the start of the check to the last byte that decides; less than the timeout.
        max_duration ["max_duration"]: Span<1, DAY>;
    }
    later []
}

table! {
    /// One rule for a body.
    struct ExpectBody {
        /// The body contains this text.
        contains ["contains"]: BodyText<false>;
        /// The body is exactly this text.
        equals ["equals"]: BodyText<true>;
        /// This regular expression matches somewhere in the body.
        matches ["matches"]: PatternText;
        /// The body does not contain this text. A body of more than 64 KiB fails: what was not read cannot be checked.
        not_contains ["not_contains"]: BodyText<false>;
        /// This regular expression matches nowhere in the body. A body of more than 64 KiB fails.
        not_matches ["not_matches"]: PatternText;
    }
    later []
}

table! {
    /// A rule over every node that a JSONPath selects from the body: one of equals, not_equals, in, exists, matches, is, or min and max.
    struct JsonRule {
        /// A JSONPath (RFC 9535), such as $.status, $.components.* or $['Faulty CAPPs'].
        path ["path"]: JsonPathText;
        /// Every node equals this. Types count: true is not "true".
        equals ["equals"]: JsonValue;
        /// No node equals this.
        not_equals ["not_equals"]: JsonValue;
        /// Every node is one of these.
        one_of ["in"]: JsonValues;
        /// Whether there is a node.
        exists ["exists"]: bool;
        /// Every node is a string that this regular expression matches.
        matches ["matches"]: PatternText;
        /// Every node is a number of at least this; a number in a string does not count.
        min ["min"]: JsonNumber;
        /// Every node is a number of at most this.
        max ["max"]: JsonNumber;
        /// Every node is of this type: "null", "string", "number", "boolean", "array" or "object".
        is ["is"]: OneOf<JsonType>;
        /// What a missing node means: "fail" or "pass".
        missing ["missing"]: OneOf<Missing> = "fail";
    }
    required ["path"]
    later []
}
