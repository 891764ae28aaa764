//! `roundsman probe --url …`: a check made from arguments. The arguments are first written as lines of a configuration
//! file and then parsed like every configuration, so that the printed lines are what was tried, and mistakes have the
//! same messages. Credentials are printed as environment variables to set.

mod rules;

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use http::Uri;
use http::uri::Authority;
use toml::Value;

use crate::app::load::{LoadError, load_trial};
use crate::config::{Severity, units};
use crate::model::Secret;
use crate::model::policy::Config;
use crate::model::secret::names_a_secret;
use rules::Rules;

/// The pool's name in the printed lines.
const POOL: &str = "app";
/// The name of the source in messages.
const PLACE: &str = "(command line)";
/// The default interval of checks; a longer timeout needs a longer interval.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);

/// The arguments of a check given by its URL.
#[derive(Debug, Clone, Args)]
#[group(id = "trial", multiple = true, conflicts_with_all = ["pool", "upstream", "config"])]
pub struct TrialArgs {
    /// Try a check of this URL: http, https, tcp, tls, grpc, grpcs, ws or wss
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The type of check [default: from the URL's scheme]
    #[arg(long = "type", value_enum, value_name = "TYPE", requires = "url")]
    pub kind: Option<KindArg>,
    /// The method of the request [default: GET]
    #[arg(long, value_name = "METHOD", requires = "url")]
    pub method: Option<String>,
    /// A header field to send; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", requires = "url")]
    pub headers: Vec<Hidden>,
    /// A header field to send whose value is in a file, optionally after a prefix: NAME=PATH or 'NAME=Bearer @PATH';
    /// may be repeated
    #[arg(long = "header-file", value_name = "NAME=PATH", requires = "url")]
    pub header_files: Vec<String>,
    /// Send Authorization: Basic for this user
    #[arg(long, visible_alias = "user", value_name = "USER", requires_all = ["url", "basic_auth_password_file"])]
    pub basic_auth_user: Option<String>,
    /// A file with the password of that user
    #[arg(long, visible_alias = "password-file", value_name = "FILE", requires_all = ["url", "basic_auth_user"])]
    pub basic_auth_password_file: Option<PathBuf>,
    /// The WebSocket subprotocol to ask for
    #[arg(long, value_name = "NAME", requires = "url")]
    pub subprotocol: Option<String>,
    /// The body of the request; for a tcp check, the text to send
    #[arg(long, value_name = "TEXT", requires = "url")]
    pub body: Option<String>,
    /// The statuses that pass: codes and ranges, separated by commas, or any [default: 200-299]
    #[arg(long, value_name = "LIST", requires = "url")]
    pub expect_status: Option<String>,
    /// A text that the body must contain; may be repeated, as the four below: all must hold
    #[arg(long, visible_alias = "expect-body", value_name = "TEXT", requires = "url")]
    pub expect_body_contains: Vec<String>,
    /// The text that the body must equal
    #[arg(long, value_name = "TEXT", requires = "url")]
    pub expect_body_equals: Vec<String>,
    /// A regular expression that must match in the body
    #[arg(long, value_name = "REGEX", requires = "url")]
    pub expect_body_matches: Vec<String>,
    /// A text that the body must not contain
    #[arg(long, value_name = "TEXT", requires = "url")]
    pub expect_body_not_contains: Vec<String>,
    /// A regular expression that must not match in the body
    #[arg(long, value_name = "REGEX", requires = "url")]
    pub expect_body_not_matches: Vec<String>,
    /// A rule for a response header field: 'NAME: VALUE', NAME!=VALUE, NAME~REGEX, NAME (present) or !NAME (absent);
    /// may be repeated
    #[arg(long, value_name = "NAME: VALUE", requires = "url")]
    pub expect_header: Vec<String>,
    /// A rule for the JSON body: PATH=VALUE, PATH!=VALUE, PATH~REGEX, PATH>=N, PATH<=N, 'PATH in [LIST]', 'PATH is
    /// TYPE', PATH (present) or !PATH (absent); with a ? before it, it also passes if there is no such node. Examples:
    /// $.status=healthy, $.up=true, '$.lag<=10', '?$.ldap=true', '$.error is null'; may be repeated
    #[arg(long, value_name = "PATH=VALUE", requires = "url")]
    pub expect_json: Vec<String>,
    /// How long a correct response may take; less than the timeout
    #[arg(long, value_name = "DURATION", requires = "url")]
    pub max_duration: Option<String>,
    /// Use HTTP/2
    #[arg(long, requires = "url")]
    pub http2: bool,
    /// Trust the certificates of this file instead of the system's
    #[arg(long, value_name = "FILE", requires = "url")]
    pub ca_file: Option<PathBuf>,
    /// The name that the certificate must be valid for [default: the URL's host]
    #[arg(long, value_name = "NAME", requires = "url")]
    pub server_name: Option<String>,
    /// Do not verify the certificate
    #[arg(long, requires = "url")]
    pub insecure: bool,
    /// The timeout of the whole probe [default: 5s]
    #[arg(long, value_name = "DURATION", requires = "url")]
    pub timeout: Option<String>,
}

/// A text that may contain a credential; `Debug` masks it.
#[derive(Clone)]
pub struct Hidden(String);

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
    /// Connect, and close; or send a text and expect one
    Tcp,
    /// A TLS handshake
    Tls,
    /// One HTTP request
    Http,
    /// grpc.health.v1.Health/Check
    Grpc,
    /// An upgrade, a ping and its pong
    Websocket,
}

impl KindArg {
    fn word(self) -> &'static str {
        match self {
            KindArg::Tcp => "tcp",
            KindArg::Tls => "tls",
            KindArg::Http => "http",
            KindArg::Grpc => "grpc",
            KindArg::Websocket => "websocket",
        }
    }
}

/// The check to try, as parsed from the arguments.
#[derive(Debug, Clone)]
pub struct Plan {
    kind: KindArg,
    tls: bool,
    upstream: String,
    path: String,
    headers: Vec<(String, Secret)>,
    files: Vec<HeaderFile>,
    rules: Rules,
    args: TrialArgs,
}

/// A check as lines of a configuration file.
pub struct Written {
    /// The lines, without credentials.
    pub toml: String,
    vars: Vec<(String, Secret)>,
}

impl Written {
    /// Parses the lines as a configuration.
    ///
    /// # Errors
    /// Every mistake, as for a file.
    pub fn load(&self) -> Result<Config, LoadError> {
        // A configuration needs a listener. It comes last, so that line numbers in messages match the printed lines.
        let text = format!("{}\n[listeners.trial]\naddress = \"unix:/trial\"\npool = \"{POOL}\"\n", self.toml);
        load_trial(PLACE, text.as_bytes(), &self.vars).map(|loaded| loaded.config).map_err(|mut error| {
            // A single upstream is normal here, so the warning about it is dropped.
            let upstreams = format!("pools.{POOL}.upstreams");
            error.diagnostics.retain(|d| d.severity == Severity::Error || d.key != upstreams);
            error
        })
    }
}

impl Plan {
    /// Parses the syntax of the arguments. [`Written::load`] validates them.
    ///
    /// # Errors
    /// A sentence about the argument that cannot be parsed, without credentials.
    pub fn new(url: &str, args: &TrialArgs) -> Result<Plan, String> {
        let uri: Uri =
            url.parse().map_err(|_| "--url is not a URL such as http://127.0.0.1:8080/healthz".to_owned())?;
        let schemes = "http, https, tcp, tls, grpc, grpcs, ws or wss";
        let (scheme_kind, scheme_tls, default_port) = match uri.scheme_str() {
            Some("http") => (KindArg::Http, false, Some(80)),
            Some("https") => (KindArg::Http, true, Some(443)),
            Some("tcp") => (KindArg::Tcp, false, None),
            Some("tls") => (KindArg::Tls, true, None),
            Some("grpc") => (KindArg::Grpc, false, None),
            Some("grpcs") => (KindArg::Grpc, true, Some(443)),
            Some("ws") => (KindArg::Websocket, false, Some(80)),
            Some("wss") => (KindArg::Websocket, true, Some(443)),
            Some(other) => return Err(format!("--url has the scheme {other:?}; expected {schemes}")),
            None => return Err(format!("--url has no scheme; expected {schemes}")),
        };
        let authority = uri.authority().ok_or("--url has no host")?;
        if authority.as_str().contains('@') {
            return Err("--url contains credentials; send them with --header 'Authorization: …'".to_owned());
        }
        let port = port(authority)?.or(default_port).ok_or("--url has no port")?;
        let kind = args.kind.unwrap_or(scheme_kind);
        Ok(Plan {
            kind,
            tls: scheme_tls && kind != KindArg::Tcp || kind == KindArg::Tls,
            upstream: format!("{}:{port}", authority.host()),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            headers: args.headers.iter().map(header).collect::<Result<_, _>>()?,
            files: args.header_files.iter().map(|text| HeaderFile::new(text)).collect::<Result<_, _>>()?,
            rules: Rules::new(args)?,
            args: args.clone(),
        })
    }

    /// Writes the check as lines of a configuration file.
    pub fn write(&self) -> Written {
        let mut vars = Vec::new();
        let upstream = string(&self.upstream);
        let mut out = format!("[pools.{POOL}]\nupstreams = [{upstream}]\n\n[pools.{POOL}.health]\n");
        let mut key = |name: &str, value: String| out.push_str(&format!("{name} = {value}\n"));
        key("type", string(self.kind.word()));
        self.write_target(&mut key);
        if let Some(body) = &self.args.body {
            key(if self.kind == KindArg::Tcp { "send" } else { "body" }, string(body));
        }
        self.write_timeout(&mut key);
        self.write_tls(&mut key);
        let fields = self.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host"));
        let mut fields: Vec<String> =
            fields.map(|(name, value)| write_field(name, value.expose(), &mut vars)).collect();
        fields.extend(self.files.iter().map(HeaderFile::write));
        if !fields.is_empty() {
            key("headers", format!("{{ {} }}", fields.join(", ")));
        }
        if let (Some(user), Some(file)) = (&self.args.basic_auth_user, &self.args.basic_auth_password_file) {
            let (user, file) = (string(user), string(&file.display().to_string()));
            key("basic_auth", format!("{{ user = {user}, password = {{ file = {file} }} }}"));
        }
        let expect = self.rules.write(self.kind);
        if !expect.is_empty() {
            out.push_str(&format!("\n[pools.{POOL}.health.expect]\n{expect}"));
        }
        let set: String =
            vars.iter().map(|(name, _)| format!("# Set {name} in the environment of roundsman.\n")).collect();
        Written { toml: format!("{set}{out}"), vars }
    }

    fn write_target(&self, key: &mut impl FnMut(&str, String)) {
        let path = self.path.as_str();
        match self.kind {
            KindArg::Http | KindArg::Websocket => key("path", string(path)),
            KindArg::Grpc if matches!(path, "" | "/") => {}
            KindArg::Grpc => key("service", string(path.trim_start_matches('/'))),
            KindArg::Tcp | KindArg::Tls if matches!(path, "" | "/") => {}
            // Neither type has a path; the configuration parser reports that.
            KindArg::Tcp | KindArg::Tls => key("path", string(path)),
        }
        if let Some(method) = &self.args.method {
            key("method", string(method));
        }
        let given = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        // Without it the checker sends the URL's host by default.
        if let Some((_, value)) = given {
            key("host", string(value.expose()));
        }
        if self.args.http2 {
            key("version", string("h2"));
        }
        if let Some(name) = &self.args.subprotocol {
            key("subprotocol", string(name));
        }
    }

    fn write_timeout(&self, key: &mut impl FnMut(&str, String)) {
        let Some(timeout) = &self.args.timeout else { return };
        if units::duration(timeout).is_ok_and(|timeout| timeout > DEFAULT_INTERVAL) {
            key("interval", string(timeout));
        }
        key("timeout", string(timeout));
    }

    fn write_tls(&self, key: &mut impl FnMut(&str, String)) {
        if self.tls && self.kind != KindArg::Tls {
            key("scheme", string("https"));
        }
        let mut parts = Vec::new();
        if self.args.insecure {
            parts.push("verify = false".to_owned());
        }
        if let Some(name) = &self.args.server_name {
            parts.push(format!("server_name = {}", string(name)));
        }
        if let Some(file) = &self.args.ca_file {
            parts.push(format!("ca_file = {}", string(&file.display().to_string())));
        }
        if !parts.is_empty() {
            key("tls", format!("{{ {} }}", parts.join(", ")));
        }
    }
}

/// The port of a URL, if it has one. The `http` crate ignores an invalid port, so it is parsed here.
fn port(authority: &Authority) -> Result<Option<u16>, String> {
    let text = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    let Some(digits) = text.strip_prefix(':').filter(|digits| !digits.is_empty()) else { return Ok(None) };
    // The message does not quote it: without the `@` it may be a password.
    let port = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    port.filter(|port| *port != 0).map(Some).ok_or_else(|| "the port of --url is not one of 1 to 65535".to_owned())
}

fn header(text: &Hidden) -> Result<(String, Secret), String> {
    let (name, value) = text.0.split_once(':').ok_or("--header must be 'NAME: VALUE'")?;
    Ok((name.trim().to_owned(), Secret::new(value.trim())))
}

/// A header field whose value is in a file.
#[derive(Debug, Clone)]
struct HeaderFile {
    name: String,
    prefix: String,
    path: String,
}

impl HeaderFile {
    /// `NAME=PATH`, or `NAME=Bearer @PATH`, with curl's mark for a file.
    fn new(text: &str) -> Result<HeaderFile, String> {
        let (name, value) = text.split_once('=').ok_or("--header-file must be NAME=PATH")?;
        let (prefix, path) = match value.split_once(" @") {
            Some((prefix, path)) => (format!("{} ", prefix.trim()), path),
            None => (String::new(), value.strip_prefix('@').unwrap_or(value)),
        };
        Ok(HeaderFile { name: name.trim().to_owned(), prefix, path: path.to_owned() })
    }

    fn write(&self) -> String {
        let prefix =
            if self.prefix.is_empty() { String::new() } else { format!(", prefix = {}", string(&self.prefix)) };
        format!("{} = {{ file = {}{prefix} }}", quoted_key(&self.name), string(&self.path))
    }
}

/// A header field to send; a credential becomes an environment variable.
fn write_field(name: &str, value: &str, vars: &mut Vec<(String, Secret)>) -> String {
    let scheme = value.split_once(' ').filter(|(scheme, rest)| {
        let known = ["bearer", "basic", "digest", "token"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        known && !rest.trim().is_empty()
    });
    if scheme.is_none() && !names_a_secret(name) {
        return format!("{} = {}", quoted_key(name), string(value));
    }
    let (prefix, secret) = match scheme {
        Some((scheme, rest)) => (format!(", prefix = {}", string(&format!("{scheme} "))), rest),
        None => (String::new(), value),
    };
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let mut variable = format!("PROBE_{}", name.chars().map(upper).collect::<String>());
    while vars.iter().any(|(known, _)| *known == variable) {
        variable.push('_');
    }
    let field = format!("{} = {{ env = {}{prefix} }}", quoted_key(name), string(&variable));
    vars.push((variable, Secret::new(secret)));
    field
}

/// `text` as a TOML string, with `${` escaped.
fn string(text: &str) -> String {
    Value::String(text.replace("${", "$${")).to_string()
}

fn quoted_key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if bare { name.to_owned() } else { Value::String(name.to_owned()).to_string() }
}

#[cfg(test)]
mod tests;
