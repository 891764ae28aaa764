//! The arguments of a check given by its URL. Each key of a check that makes sense for one probe has its argument; a test
//! compares the two (`tests::every_key_of_a_check_has_an_argument`).

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

const CHECK: &str = "A check by its URL";
const REQUEST: &str = "Its request (http, grpc, websocket)";
const RESPONSE: &str = "What it expects";
const TLS: &str = "Its TLS";

/// The arguments of a check given by its URL.
#[derive(Debug, Clone, Args)]
#[group(id = "trial", multiple = true, conflicts_with_all = ["pool", "upstream", "config"])]
pub struct TrialArgs {
    /// Try a check of this URL: http, https, tcp, tls, grpc, grpcs, ws or wss
    #[arg(long, value_name = "URL", help_heading = CHECK)]
    pub url: Option<String>,
    /// The type of check [default: from the URL's scheme]
    #[arg(long = "type", value_enum, value_name = "TYPE", requires = "url", help_heading = CHECK)]
    pub kind: Option<KindArg>,
    /// Start from this preset, as for an upstream at the URL's address; the other arguments win over its keys
    #[arg(long, value_name = "NAME", requires = "url", help_heading = CHECK)]
    pub preset: Option<String>,
    /// The port of the check, if it is not the URL's
    #[arg(
        long,
        value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..),
        requires = "url",
        conflicts_with = "port_offset",
        help_heading = CHECK
    )]
    pub port: Option<u16>,
    /// The same as an offset from the URL's port
    #[arg(long, value_name = "N", allow_negative_numbers = true, requires = "url", help_heading = CHECK)]
    pub port_offset: Option<i32>,
    /// The timeout of the whole probe [default: 5s]
    #[arg(long, value_name = "DURATION", requires = "url", help_heading = CHECK)]
    pub timeout: Option<String>,

    /// The method [default: GET]
    #[arg(long, value_name = "METHOD", requires = "url", help_heading = REQUEST)]
    pub method: Option<String>,
    /// The Host field and, with TLS, the server name [default: the URL's host]
    #[arg(long, value_name = "NAME", requires = "url", help_heading = REQUEST)]
    pub host: Option<String>,
    /// A header field to send; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", requires = "url", help_heading = REQUEST)]
    pub headers: Vec<Hidden>,
    /// A header field to send whose value is in a file, optionally after a prefix: NAME=PATH or 'NAME=Bearer @PATH';
    /// may be repeated
    #[arg(long = "header-file", value_name = "NAME=PATH", requires = "url", help_heading = REQUEST)]
    pub header_files: Vec<String>,
    /// Send Authorization: Basic for this user
    #[arg(
        long,
        visible_alias = "user",
        value_name = "USER",
        requires_all = ["url", "basic_auth_password_file"],
        help_heading = REQUEST
    )]
    pub basic_auth_user: Option<String>,
    /// A file with the password of that user
    #[arg(
        long,
        visible_alias = "password-file",
        value_name = "FILE",
        requires_all = ["url", "basic_auth_user"],
        help_heading = REQUEST
    )]
    pub basic_auth_password_file: Option<PathBuf>,
    /// The body of the request; for a tcp or agent check, the text to send
    #[arg(long, value_name = "TEXT", requires = "url", help_heading = REQUEST)]
    pub body: Option<String>,
    /// Use HTTP/2
    #[arg(long, requires = "url", help_heading = REQUEST)]
    pub http2: bool,
    /// The gRPC service to ask about [default: from the URL's path, else the whole server]
    #[arg(long, value_name = "NAME", requires = "url", help_heading = REQUEST)]
    pub service: Option<String>,
    /// The WebSocket subprotocol to ask for
    #[arg(long, value_name = "NAME", requires = "url", help_heading = REQUEST)]
    pub subprotocol: Option<String>,

    /// The statuses that pass: codes and ranges, separated by commas, or any [default: 200-299]
    #[arg(long, value_name = "LIST", requires = "url", help_heading = RESPONSE)]
    pub expect_status: Option<String>,
    /// A text that the body must contain; may be repeated, as the four below: all must hold
    #[arg(long, visible_alias = "expect-body", value_name = "TEXT", requires = "url", help_heading = RESPONSE)]
    pub expect_body_contains: Vec<String>,
    /// The text that the body must equal
    #[arg(long, value_name = "TEXT", requires = "url", help_heading = RESPONSE)]
    pub expect_body_equals: Vec<String>,
    /// A regular expression that must match in the body
    #[arg(long, value_name = "REGEX", requires = "url", help_heading = RESPONSE)]
    pub expect_body_matches: Vec<String>,
    /// A text that the body must not contain
    #[arg(long, value_name = "TEXT", requires = "url", help_heading = RESPONSE)]
    pub expect_body_not_contains: Vec<String>,
    /// A regular expression that must not match in the body
    #[arg(long, value_name = "REGEX", requires = "url", help_heading = RESPONSE)]
    pub expect_body_not_matches: Vec<String>,
    /// A rule for a response header field: 'NAME: VALUE', NAME!=VALUE, NAME~REGEX, NAME (present) or !NAME (absent);
    /// may be repeated
    #[arg(long, value_name = "NAME: VALUE", requires = "url", help_heading = RESPONSE)]
    pub expect_header: Vec<String>,
    /// A rule for the JSON body: PATH=VALUE, PATH!=VALUE, PATH~REGEX, PATH>=N, PATH<=N, 'PATH in [LIST]', 'PATH is
    /// TYPE', PATH (present) or !PATH (absent); with a ? before it, it also passes if there is no such node. Examples:
    /// $.status=healthy, $.up=true, '$.lag<=10', '?$.ldap=true', '$.error is null'; may be repeated
    #[arg(long, value_name = "PATH=VALUE", requires = "url", help_heading = RESPONSE)]
    pub expect_json: Vec<String>,
    /// How long a correct response may take; less than the timeout
    #[arg(long, value_name = "DURATION", requires = "url", help_heading = RESPONSE)]
    pub max_duration: Option<String>,

    /// Trust the certificates of this file instead of the system's
    #[arg(long, value_name = "FILE", requires = "url", help_heading = TLS)]
    pub ca_file: Option<PathBuf>,
    /// The name that the certificate must be valid for [default: --host, else the URL's host]
    #[arg(long, value_name = "NAME", requires = "url", help_heading = TLS)]
    pub server_name: Option<String>,
    /// A client certificate, with its chain
    #[arg(long, value_name = "FILE", requires_all = ["url", "client_key"], help_heading = TLS)]
    pub client_cert: Option<PathBuf>,
    /// The private key of the client certificate
    #[arg(long, value_name = "FILE", requires_all = ["url", "client_cert"], help_heading = TLS)]
    pub client_key: Option<PathBuf>,
    /// Do not verify the certificate
    #[arg(long, requires = "url", help_heading = TLS)]
    pub insecure: bool,
}

/// A text that may contain a credential; `Debug` masks it.
#[derive(Clone)]
pub struct Hidden(pub String);

impl FromStr for Hidden {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Hidden, Infallible> {
        Ok(Hidden(text.to_owned()))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The kinds of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    /// Connect, and close; or send texts and expect others
    Tcp,
    /// A TLS handshake
    Tls,
    /// One HTTP request
    Http,
    /// grpc.health.v1.Health/Check
    Grpc,
    /// An upgrade, a ping and its pong
    Websocket,
    /// A line of HAProxy's agent protocol
    Agent,
}

impl KindArg {
    /// The word of the file.
    pub fn word(self) -> &'static str {
        match self {
            KindArg::Tcp => "tcp",
            KindArg::Tls => "tls",
            KindArg::Http => "http",
            KindArg::Grpc => "grpc",
            KindArg::Websocket => "websocket",
            KindArg::Agent => "agent",
        }
    }
}
