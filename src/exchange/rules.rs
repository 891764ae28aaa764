//! What the rules of a route make of a request: the target that goes upstream, fields to set, an answer without an upstream.
//! All of it is made once, when the request is routed: later its head may be gone.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::BufMut;

use super::edits::Scheme;
use super::judge::Facts;
use crate::http1::fields::put;
use crate::model::policy::{FieldText, FixedAnswer, RouteRules};
use crate::model::template::{Piece, Placeholder, Template};

/// The most bytes of anything that is made for one request. Only a long target can exceed it: 414.
const MADE_MAX: usize = 128 << 10;

/// The parts of a request that a text may name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    /// The client's address, as text.
    pub client: &'a [u8],
    /// Its scheme.
    pub scheme: Scheme,
    /// Its host, without the port.
    pub host: &'a str,
    /// Its path as it came.
    pub path: &'a str,
    /// Its query with the `?`; empty where there is none.
    pub query: &'a str,
    /// Its number.
    pub id: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Those of this request.
    pub fn new(facts: &'a Facts<'_>, client: &'a [u8], scheme: Scheme, id: &'a [u8]) -> Parts<'a> {
        let (path, query) = facts.target.split_at(facts.target.find('?').unwrap_or(facts.target.len()));
        Parts { client, scheme, host: facts.host.unwrap_or_default(), path, query, id }
    }

    fn get(&self, part: Placeholder) -> &'a [u8] {
        match part {
            Placeholder::ClientIp => self.client,
            Placeholder::Host => self.host.as_bytes(),
            Placeholder::Path => self.path.as_bytes(),
            Placeholder::Query => self.query.strip_prefix('?').unwrap_or(self.query).as_bytes(),
            Placeholder::Scheme => self.scheme.as_str().as_bytes(),
            Placeholder::RequestId => self.id,
        }
    }

    /// Appends the text for these parts, up to what may be made.
    fn fill(&self, template: &Template, out: &mut Vec<u8>) -> Result<(), TooLong> {
        for piece in template.pieces() {
            out.extend_from_slice(match piece {
                Piece::Text(text) => text.as_bytes(),
                Piece::Part(part) => self.get(*part),
            });
            if out.len() > MADE_MAX {
                return Err(TooLong);
            }
        }
        Ok(())
    }

    /// The same request without the start of its path.
    fn stripped(self, prefix: Option<&str>) -> Parts<'a> {
        Parts { path: prefix.map_or(self.path, |prefix| strip(self.path, prefix)), ..self }
    }

    /// A path or place, with the query of the request unless it has one.
    fn place(&self, template: &Template) -> Result<Vec<u8>, TooLong> {
        let mut out = Vec::new();
        self.fill(template, &mut out)?;
        let fragment = out.iter().position(|b| *b == b'#').unwrap_or(out.len());
        if !out[..fragment].contains(&b'?') {
            out.splice(fragment..fragment, self.query.bytes());
        } else if self.query.len() <= 1 && template.names(Placeholder::Query) && out[..fragment].ends_with(b"?") {
            out.remove(fragment - 1);
        }
        if out.len() > MADE_MAX { Err(TooLong) } else { Ok(out) }
    }
}

/// The target makes something longer than may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// A path without its first segments: as many as the prefix has. Routes compare decoded paths, but what separates segments
/// is the same byte in both.
fn strip<'a>(path: &'a str, prefix: &str) -> &'a str {
    let segments = prefix.bytes().filter(|b| *b == b'/').count();
    let mut slashes = path.bytes().enumerate().filter(|(_, b)| *b == b'/').map(|(at, _)| at);
    slashes.nth(segments).map_or("/", |at| &path[at..])
}

/// What the rules of a route make of one request, as bytes.
#[derive(Debug, Clone, Default)]
pub struct Made {
    /// The target that goes upstream.
    pub(super) target: Option<String>,
    /// Field lines for the request.
    pub(super) request: Vec<u8>,
    /// Field lines for its response, whoever makes it.
    pub(super) response: Vec<u8>,
    /// Further field lines of an answer of the route.
    pub(super) answer: Vec<u8>,
    /// The body of that answer.
    pub(super) body: Vec<u8>,
}

impl Made {
    /// Forgets the last request.
    pub(super) fn clear(&mut self) {
        self.target = None;
        self.request.clear();
        self.response.clear();
        self.answer.clear();
        self.body.clear();
    }

    /// Whether nothing was made.
    pub(super) fn is_empty(&self) -> bool {
        let Made { target, request, response, answer, body } = self;
        target.is_none() && [request, response, answer, body].iter().all(|bytes| bytes.is_empty())
    }

    /// Makes it all.
    pub(super) fn make(&mut self, rules: &RouteRules, parts: &Parts<'_>) -> Result<(), TooLong> {
        self.clear();
        let inner = parts.stripped(rules.strip_prefix.as_deref());
        self.target = match &rules.rewrite {
            Some(path) => Some(String::from_utf8_lossy(&inner.place(path)?).into_owned()),
            None => rules.strip_prefix.is_some().then(|| [inner.path, inner.query].concat()),
        };
        put_lines(&mut self.request, &rules.request.set, parts)?;
        put_lines(&mut self.response, &rules.response.set, parts)?;
        match &rules.answer {
            None => {}
            Some(FixedAnswer::Redirect { to, .. }) => {
                let place = inner.place(to)?;
                // A path of two slashes would lead to the host between them.
                let names_path_first = matches!(to.pieces().first(), Some(Piece::Part(Placeholder::Path)));
                let slashes = place.iter().take_while(|b| **b == b'/').count();
                let extra = if names_path_first { slashes.saturating_sub(1) } else { 0 };
                put_line(&mut self.answer, "Location", &place[extra..]);
            }
            Some(FixedAnswer::Respond { body, fields, .. }) => {
                parts.fill(body, &mut self.body)?;
                let fields = fields.iter().filter(|(name, _)| !names_line(&rules.response.set, name));
                let mut typed = names_line(&rules.response.set, "content-type");
                for (name, value) in fields {
                    typed |= name.eq_ignore_ascii_case("content-type");
                    put_filled(&mut self.answer, name, value, parts)?;
                }
                if !typed && !self.body.is_empty() {
                    put_line(&mut self.answer, "Content-Type", b"text/plain; charset=utf-8");
                }
            }
        }
        Ok(())
    }
}

fn names_line(set: &[(Arc<str>, FieldText)], name: &str) -> bool {
    set.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
}

fn put_lines(out: &mut Vec<u8>, set: &[(Arc<str>, FieldText)], parts: &Parts<'_>) -> Result<(), TooLong> {
    for (name, value) in set {
        match value {
            FieldText::Template(template) => put_filled(out, name, template, parts)?,
            FieldText::Secret(secret) => put_line(out, name, secret.expose().as_bytes()),
        }
    }
    Ok(())
}

fn put_filled(out: &mut Vec<u8>, name: &str, value: &Template, parts: &Parts<'_>) -> Result<(), TooLong> {
    put(out, &[name.as_bytes(), b": "]);
    parts.fill(value, out)?;
    out.put_slice(b"\r\n");
    Ok(())
}

fn put_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    put(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
}

/// The names and values of field lines that were made here. No value has a line end.
pub(super) fn lines(made: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    made.split(|b| *b == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\r")?;
        let colon = memchr::memchr(b':', line)?;
        Some((std::str::from_utf8(&line[..colon]).ok()?, line[colon + 1..].trim_ascii_start()))
    })
}

/// The client's address as it stands in fields; empty on a unix socket.
pub(super) fn client_text(client: Option<IpAddr>) -> String {
    client.map_or_else(String::new, |client| client.to_canonical().to_string())
}
