//! The keys of `[pools.NAME.health]`: when, what, and what must come back. An entry of `checks` has the same keys but for
//! the list itself, and a preset is such a table too.

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
        /// A check that is known by name (`roundsman check --presets` lists them); keys written beside it win over its own.
        preset ["preset"]: OneOf<Preset>;
        /// Several checks, instead of one in this table. What is written of interval, timeout and so on beside the list holds for every entry that does not say otherwise.
        checks ["checks"]: List<Check, 16>;
        /// How many of the `checks` must hold: "all", "any" or a number.
        require ["require"]: Require = "all";
    }
    later []
}

table! {
    /// One of several checks.
    struct Check {
        flatten timing: Timing;
        flatten probe: Probe;
        /// A check that is known by name; keys written beside it win over its own.
        preset ["preset"]: OneOf<Preset>;
    }
    later []
}

table! {
    /// When checks run, and how many make a verdict.
    struct Timing {
        /// From start to start of checks.
        interval ["interval"]: Span<10, DAY> = "10s";
        /// The same while the check's verdict is unhealthy and no streak is open; at least the interval. Default: the interval.
        unhealthy_interval ["unhealthy_interval"]: Span<10, DAY> = "10s";
        /// Over one whole check: connect, TLS, request, headers, body; at most the interval. Default: 5s, or the interval if that is shorter.
        timeout ["timeout"]: Span<1, DAY> = "5s";
        /// Consecutive passes that make an upstream healthy. `rise` is another name for it.
        healthy_threshold ["healthy_threshold", "rise"]: Count<1, 1000> = 2;
        /// Consecutive failures that make it unhealthy. `fall` is another name for it.
        unhealthy_threshold ["unhealthy_threshold", "fall"]: Count<1, 1000> = 3;
        /// The interval while a streak against the present state is open; at most the interval. Default: 1s, or the interval if that is shorter.
        fast_interval ["fast_interval"]: Span<10, DAY> = "1s";
        /// For this long after first sight of an upstream failures are not counted.
        start_period ["start_period"]: Span<0, DAY> = "0s";
        /// How much earlier or later a check may start, as a share of the interval in force.
        jitter ["jitter"]: Share<50> = 0.1;
    }
    later []
}

table! {
    /// What a check does and expects.
    struct Probe {
        /// What a check does: "tcp" connects and closes, "tls" makes a handshake, "http" a request, "grpc" asks the health service, "websocket" upgrades and pings.
        kind ["type"]: OneOf<Kind> = "tcp";
        /// The port of the check, where it is not that of the traffic.
        port ["port"]: Count<1, 65535>;
        /// The port of the check, counted from that of the traffic; instead of `port`.
        port_offset ["port_offset"]: Count<-65535, 65535>;
        /// http, grpc, websocket: "https" puts TLS below. Default: "http", or "https" where `tls` is written. The traffic's is another matter.
        scheme ["scheme"]: OneOf<Scheme> = "http";
        /// tls, http, grpc, websocket: how TLS is made. tcp: beside `send`, `expect` or `steps`.
        tls ["tls"]: Tls;
        /// tcp: a text that is sent once connected, or { file = "…" } or { env = "…" }, with what goes before and after it as `prefix` and `suffix`.
        send ["send"]: SentText;
        /// tcp: a conversation step by step, instead of `send` and `expect`.
        steps ["steps"]: TextSteps;
        /// http, websocket: the path, with or without a query.
        path ["path"]: ProbePath = "/";
        /// http: the method.
        method ["method"]: Method = "GET";
        /// http: which HTTP is spoken: "http1", or "h2" (by ALPN over TLS, by prior knowledge without).
        version ["version"]: OneOf<HttpVersion> = "http1";
        /// http, grpc, websocket: the Host field and, with TLS, the server name; by default the upstream's name where it has one, else the address that is dialled, localhost for a unix socket.
        host ["host"]: HostField;
        /// http, grpc, websocket: further fields. A secret such as Authorization is written { file = "…", prefix = "Bearer " } or { env = "…" }.
        headers ["headers"]: Headers;
        /// http, grpc, websocket: { user = "…", password = { file = "…" } }, sent as Authorization: Basic; instead of such a field among `headers`.
        basic_auth ["basic_auth"]: BasicAuth;
        /// http: the content of the request.
        body ["body"]: BodyText<true>;
        /// grpc: the service that is asked for; empty: the server as a whole.
        service ["service"]: ServiceName = "";
        /// websocket: the subprotocol that is asked for and has to be agreed to.
        subprotocol ["subprotocol"]: Token;
        /// What the answer must look like: http and tcp; of every type how long it may take.
        expect ["expect"]: Expect;
    }
    later []
}

/// The steps of a check, in order.
pub type TextSteps = List<TextStep, 16>;

table! {
    /// One step of a check of a text protocol: one of expect, matches, send, send_hex, expect_hex and starttls, perhaps with fail_on. What a step waits for it takes with all before it; the next one reads on from there. At most 64 KiB are read in all.
    struct TextStep {
        /// Reads until this text has come.
        expect ["expect"]: BodyText<false>;
        /// Reads until this regular expression finds something. ^ and $ match at every line, which may end with CRLF or LF.
        matches ["matches"]: LinePatternText;
        /// Sends this text, or a secret as { file = "…" } or { env = "…" }, with `prefix` and `suffix`.
        send ["send"]: SentText;
        /// Sends these bytes: pairs of hexadecimal digits, or a secret that holds them.
        send_hex ["send_hex"]: SentBytes;
        /// Reads until these bytes have come.
        expect_hex ["expect_hex"]: HexBytes;
        /// true: makes the TLS handshake; all that follows goes over TLS. What came in plain text does not count any more.
        starttls ["starttls"]: bool;
        /// Texts that fail the check as soon as one of them comes. Those of a step that reads nothing hold for the next that does.
        fail_on ["fail_on"]: List<FailText, 16>;
    }
    later []
}

table! {
    /// How a check makes TLS.
    struct Tls {
        /// Whether the certificate of the upstream is verified. Without it anybody on the way can answer.
        verify ["verify"]: bool = true;
        /// The name that is sent, and that the certificate must be made for; by default `host`, else the upstream's name or the address that is dialled.
        server_name ["server_name"]: TlsName;
        /// A PEM file of certificates that are trusted instead of the system's. Read again on reload.
        ca_file ["ca_file"]: Certificates;
        /// A PEM file with the certificate that we show, and those above it.
        client_cert ["client_cert"]: Certificates;
        /// A PEM file with the private key of `client_cert`.
        client_key ["client_key"]: PrivateKey;
    }
    later []
}

table! {
    /// What the answer to a check must look like; every rule must hold.
    struct Expect {
        /// http: status codes and ranges of them, or "any": the other rules decide alone.
        status ["status"]: Statuses = ["200-299"];
        /// http: what fields the answer must have: name = "value", { matches = "…" }, { not_equals = "…" }, { present = true } or { absent = true }.
        header ["header"]: ExpectHeaders;
        /// http: what the body must hold, one rule or a list of which all must hold; its first 64 KiB are read.
        body ["body"]: OneOrSeveral<ExpectBody, 16>;
        /// http: what the body must say as JSON.
        json ["json"]: List<JsonRule, 32>;
        /// tcp: a text within the first 64 KiB of what the upstream says.
        contains ["contains"]: BodyText<false>;
        /// How long a right answer may take, from the start of the check to the last byte that decides; less than the timeout.
        max_duration ["max_duration"]: Span<1, DAY>;
    }
    later []
}

table! {
    /// What a body must hold: one rule.
    struct ExpectBody {
        /// This text somewhere.
        contains ["contains"]: BodyText<false>;
        /// This text and nothing else.
        equals ["equals"]: BodyText<true>;
        /// Something that this regular expression finds.
        matches ["matches"]: PatternText;
        /// This text nowhere. A body of more than 64 KiB fails: what was not read cannot be judged.
        not_contains ["not_contains"]: BodyText<false>;
        /// Nothing that this regular expression finds. A body of more than 64 KiB fails.
        not_matches ["not_matches"]: PatternText;
    }
    later []
}

table! {
    /// A rule over every node that a JSONPath selects from the body: one of equals, not_equals, in, exists, matches, is, or min and max.
    struct JsonRule {
        /// A JSONPath (RFC 9535), such as $.status, $.components.* or $['Faulty CAPPs'].
        path ["path"]: JsonPathText;
        /// Every node is this. Types count: true is not "true".
        equals ["equals"]: JsonValue;
        /// No node is this.
        not_equals ["not_equals"]: JsonValue;
        /// Every node is one of these.
        one_of ["in"]: JsonValues;
        /// Whether there is a node.
        exists ["exists"]: bool;
        /// Every node is a string that this regular expression finds something in.
        matches ["matches"]: PatternText;
        /// Every node is a number of at least this; a number in a string does not count.
        min ["min"]: JsonNumber;
        /// Every node is a number of at most this.
        max ["max"]: JsonNumber;
        /// Every node is of this type: "null", "string", "number", "boolean", "array" or "object".
        is ["is"]: OneOf<JsonType>;
        /// What it means that there is no node: "fail" or "pass".
        missing ["missing"]: OneOf<Missing> = "fail";
    }
    required ["path"]
    later []
}
