//! `roundsman probe --url …`: a check made from arguments. The arguments are first written as lines of a configuration
//! file and then parsed like every configuration, so that the printed lines are what was tried, and mistakes have the
//! same messages. Credentials are printed as environment variables to set.

mod args;
mod fields;
mod rules;
mod steps;

use std::time::Duration;

use clap::ValueEnum;
use http::Uri;
use http::uri::Authority;
use toml::Value;

use crate::app::load::{LoadError, load_trial};
use crate::config::Severity;
use crate::config::presets::Preset;
use crate::model::Secret;
use crate::model::policy::Config;
use crate::model::written;
use fields::{HeaderFile, header, write_field};
use rules::Rules;
use steps::Steps;

pub use args::{KindArg, TrialArgs};
pub use steps::StepArgs;

/// The pool's name in the printed lines.
const POOL: &str = "app";
/// The name of the source in messages.
const PLACE: &str = "(command line)";
/// The default interval of checks; a longer timeout needs a longer interval.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);

/// The check to try, as parsed from the arguments.
#[derive(Debug, Clone)]
pub struct Plan {
    kind: KindArg,
    /// `scheme`; `None`: the default, or that of the preset.
    scheme: Option<&'static str>,
    /// A tcp check over TLS.
    tls: bool,
    upstream: String,
    path: String,
    host: Option<String>,
    headers: Vec<(String, Secret)>,
    files: Vec<HeaderFile>,
    steps: Steps,
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
    pub fn new(url: &str, args: &TrialArgs, steps: &StepArgs) -> Result<Plan, String> {
        let preset = args.preset.as_deref().and_then(Preset::named);
        if let Some(meant) = with_scheme(url, preset) {
            return Err(format!("--url has no scheme; did you mean {meant}?"));
        }
        let uri: Uri =
            url.parse().map_err(|_| "--url is not a URL such as http://127.0.0.1:8080/healthz".to_owned())?;
        let schemes = "http, https, tcp, tls, grpc, grpcs, ws or wss";
        let (of_scheme, over_tls, default_port) = match uri.scheme_str() {
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
        let upstream = format!("{}:{port}", authority.host());
        let steps = Steps::new(steps)?;
        let kind = match (args.kind, &preset) {
            (Some(kind), _) => kind,
            (None, Some(preset)) => kind_of_preset(preset, of_scheme, &upstream)?,
            (None, None) if of_scheme == KindArg::Tls && !steps.is_empty() => KindArg::Tcp,
            (None, None) => of_scheme,
        };
        let preset_over_tls = preset.is_some_and(|preset| preset.first_check().https);
        let scheme = match kind {
            KindArg::Tcp | KindArg::Tls | KindArg::Agent => None,
            // It is only an address.
            _ if preset.is_some() && of_scheme == KindArg::Tcp => None,
            _ if over_tls == preset_over_tls => None,
            _ => Some(if over_tls { "https" } else { "http" }),
        };
        let headers: Vec<(String, Secret)> = args.headers.iter().map(header).collect::<Result<_, _>>()?;
        let host_field = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        if args.host.is_some() && host_field.is_some() {
            return Err("--host and --header 'Host: …' are the same; give one of them".to_owned());
        }
        if args.service.is_some() && !matches!(path.as_str(), "" | "/") {
            return Err("--service and the path of --url both name a service; give one of them".to_owned());
        }
        let plan = Plan {
            kind,
            scheme,
            tls: matches!(kind, KindArg::Tcp | KindArg::Agent) && (of_scheme == KindArg::Tls || steps.starttls),
            upstream,
            path,
            host: args.host.clone().or_else(|| host_field.map(|(_, value)| value.expose().to_owned())),
            headers,
            files: args.header_files.iter().map(|text| HeaderFile::new(text)).collect::<Result<_, _>>()?,
            steps,
            rules: Rules::new(args)?,
            args: args.clone(),
        };
        match plan.tls_option() {
            Some(option) if plan.makes_no_handshake() => Err(format!(
                "{option} is for TLS, and tcp:// only connects; write --url tls://{} for a check of the handshake",
                plan.upstream
            )),
            _ => Ok(plan),
        }
    }

    /// Whether it connects and closes: a text over TLS would need a handshake.
    fn makes_no_handshake(&self) -> bool {
        let exchanges = !self.steps.is_empty() || self.args.body.is_some() || !self.rules.write(self.kind).is_empty();
        self.kind == KindArg::Tcp && self.args.preset.is_none() && !self.tls && !exchanges
    }

    /// The first option that is about TLS.
    fn tls_option(&self) -> Option<&'static str> {
        let given = [
            (self.args.insecure, "--insecure"),
            (self.args.ca_file.is_some(), "--ca-file"),
            (self.args.server_name.is_some(), "--server-name"),
            (self.args.client_cert.is_some(), "--client-cert"),
            (self.args.client_key.is_some(), "--client-key"),
        ];
        given.into_iter().find_map(|(given, option)| given.then_some(option))
    }

    /// Writes the check as lines of a configuration file.
    pub fn write(&self) -> Written {
        let mut vars = Vec::new();
        let upstream = string(&self.upstream);
        let mut out = format!("[pools.{POOL}]\nupstreams = [{upstream}]\n\n[pools.{POOL}.health]\n");
        let mut key = |name: &str, value: String| out.push_str(&format!("{name} = {value}\n"));
        match &self.args.preset {
            Some(preset) => {
                key("preset", string(preset));
                if let Some(kind) = self.args.kind {
                    key("type", string(kind.word()));
                }
            }
            None => key("type", string(self.kind.word())),
        }
        self.write_target(&mut key);
        if let Some(body) = &self.args.body {
            let sends = matches!(self.kind, KindArg::Tcp | KindArg::Agent);
            key(if sends { "send" } else { "body" }, string(body));
        }
        if !self.steps.is_empty() {
            key("steps", self.steps.write());
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
        if let Some(port) = self.args.port {
            key("port", port.to_string());
        }
        if let Some(offset) = self.args.port_offset {
            key("port_offset", offset.to_string());
        }
        let path = self.path.as_str();
        let no_path = matches!(path, "" | "/");
        match self.kind {
            // They have no path; the configuration parser reports that.
            KindArg::Tcp | KindArg::Tls | KindArg::Agent if !no_path => key("path", string(path)),
            KindArg::Tcp | KindArg::Tls | KindArg::Agent => {}
            KindArg::Http | KindArg::Websocket if no_path && self.args.preset.is_some() => {}
            KindArg::Http | KindArg::Websocket => key("path", string(path)),
            KindArg::Grpc if no_path => {}
            KindArg::Grpc => key("service", string(path.trim_start_matches('/'))),
        }
        let named = [
            ("service", &self.args.service),
            ("method", &self.args.method),
            // Without it the checker sends the URL's host by default.
            ("host", &self.host),
            ("subprotocol", &self.args.subprotocol),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                key(name, string(value));
            }
        }
        if self.args.http2 {
            key("version", string("h2"));
        }
    }

    fn write_timeout(&self, key: &mut impl FnMut(&str, String)) {
        let Some(timeout) = &self.args.timeout else { return };
        if written::duration(timeout).is_ok_and(|timeout| timeout > DEFAULT_INTERVAL) {
            key("interval", string(timeout));
        }
        key("timeout", string(timeout));
    }

    fn write_tls(&self, key: &mut impl FnMut(&str, String)) {
        if let Some(scheme) = self.scheme {
            key("scheme", string(scheme));
        }
        let mut parts = Vec::new();
        if self.args.insecure {
            parts.push("verify = false".to_owned());
        }
        if let Some(name) = &self.args.server_name {
            parts.push(format!("server_name = {}", string(name)));
        }
        let files = [
            ("ca_file", &self.args.ca_file),
            ("client_cert", &self.args.client_cert),
            ("client_key", &self.args.client_key),
        ];
        for (name, file) in files {
            parts.extend(file.as_ref().map(|file| format!("{name} = {}", string(&file.display().to_string()))));
        }
        match parts.is_empty() {
            true if self.tls => key("tls", "{}".to_owned()),
            true => {}
            false => key("tls", format!("{{ {} }}", parts.join(", "))),
        }
    }
}

/// `127.0.0.1:8080/health` with the scheme that it lacks: that of the preset, else http.
fn with_scheme(url: &str, preset: Option<Preset>) -> Option<String> {
    // An `@` may follow a password, and a query may hold a token.
    if url.contains(":/") || url.contains(['@', '?']) || !url.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let scheme = match preset.map(|preset| preset.first_check()) {
        Some(check) if check.https => "https",
        Some(check) if check.kind == "websocket" => "ws",
        Some(check) => check.kind,
        None => "http",
    };
    let meant = format!("{scheme}://{url}");
    let uri: Uri = meant.parse().ok()?;
    let authority = uri.authority()?;
    (!authority.host().is_empty() && port(authority).is_ok()).then_some(meant)
}

/// The type of a preset's first check. A URL may have its scheme, or tcp or tls for an address alone.
fn kind_of_preset(preset: &Preset, of_scheme: KindArg, upstream: &str) -> Result<KindArg, String> {
    let word = preset.first_check().kind;
    let kind = KindArg::from_str(word, false).map_err(|_| format!("there is no type {word:?}"))?;
    match of_scheme {
        _ if of_scheme == kind => Ok(kind),
        KindArg::Tcp => Ok(kind),
        KindArg::Tls if kind == KindArg::Tcp => Ok(kind),
        KindArg::Tls | KindArg::Http | KindArg::Grpc | KindArg::Websocket | KindArg::Agent => {
            let name = preset.name;
            Err(format!("the preset {name:?} makes a check of type {word}: write --url {word}://{upstream}"))
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

/// `text` as a TOML string on one line, with `${` escaped.
fn string(text: &str) -> String {
    let text = text.replace("${", "$${");
    if !text.chars().any(char::is_control) {
        return Value::String(text).to_string();
    }
    // TOML has the escapes of JSON, and DEL must be escaped too. Terminals obey the controls of Latin-1.
    let mut out = String::new();
    for c in serde_json::Value::from(text).to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

fn quoted_key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if bare { name.to_owned() } else { Value::String(name.to_owned()).to_string() }
}

#[cfg(test)]
mod tests;
