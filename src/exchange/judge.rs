//! Refuses every head that two parsers could read differently, and says of the others what the rest of the exchange
//! needs: where the request goes, how its body is framed, whether the connection goes on.
//!
//! Nothing is repaired. What passes here means the same to every parser we know of.

use std::borrow::Cow;

use super::answer::Refusal;
use super::authority::Authority;
use super::limits::DRAIN_BYTES;
use super::target::Target;
use super::upgrade::is_websocket;
use crate::http1::fields::{is_token, list};
use crate::http1::framing::{content_length, transfer_coding};
use crate::http1::{Body, Chunked, Field, Head, Known, Reading, Version};
use crate::model::policy::is_protocol;
use crate::pool::AnswerReason;

/// What a good head says.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The method, by what it means to us.
    pub method: Method,
    /// Its name.
    pub method_name: &'a str,
    /// The client's version.
    pub version: Version,
    /// The host to route by: without port and trailing dot, in any case; `None` in HTTP/1.0 without one.
    pub host: Option<&'a str>,
    /// The Host to send upstream, unchanged; `None`: the upstream's own address.
    pub authority: Option<&'a str>,
    /// The normal form of the path (see [`crate::route::normalise`]); `*` for `OPTIONS *`.
    pub path: Cow<'a, str>,
    /// The target to send upstream: origin-form with its query, bytes unchanged; `*` for `OPTIONS *`.
    pub target: Cow<'a, str>,
    /// Whether the target came in absolute-form, so that `target` is not what the head says.
    pub absolute: bool,
    /// How the request body is framed.
    pub framing: Framing,
    /// Whether the client wants the connection to go on.
    pub keep_alive: bool,
    /// Whether the client waits for 100 before it sends its body.
    pub expect_continue: bool,
    /// The one protocol to which it asks to switch, in a form in which it may. Whether the pool allows it is not known yet.
    pub upgrade: Option<&'a [u8]>,
}

/// How a request body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// Methods by what they mean to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD: the answer has no body.
    Head,
    /// OPTIONS.
    Options,
    /// PUT or DELETE.
    PutOrDelete,
    /// TRACE: refused, it would show what only upstreams may see.
    Trace,
    /// POST, PATCH and every other one: may have been done once a byte was sent.
    Other,
}

impl Method {
    /// Which method this is; names are case-sensitive.
    pub fn of(name: &str) -> Method {
        match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "OPTIONS" => Method::Options,
            "PUT" | "DELETE" => Method::PutOrDelete,
            "TRACE" => Method::Trace,
            _ => Method::Other,
        }
    }

    /// Whether doing it twice is as good as doing it once (RFC 9110, 9.2.2).
    pub fn is_idempotent(self) -> bool {
        match self {
            Method::Get | Method::Head | Method::Options | Method::PutOrDelete | Method::Trace => true,
            Method::Other => false,
        }
    }
}

/// What is left of a request body after an answer of our own that came before it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftover {
    /// Nothing: the connection may go on at once.
    Nothing,
    /// Read and throw away up to this many bytes; the connection goes on if the body ends within them.
    Drain(u64),
    /// Close.
    Close,
}

impl Framing {
    /// The body that is framed so, before its first byte; in chunks it has at most so many bytes of data.
    pub fn body(self, most: Option<u64>) -> Body {
        match self {
            Framing::None => Body::NONE,
            Framing::Length(length) => Body::length(length),
            Framing::Chunked => Body::Chunked(Chunked::new(Reading::Request).within(most)),
        }
    }

    /// What to do with the request body after an answer of our own, when `read` bytes of it have been read already.
    /// `expects`: the client waits for 100 before it sends its body.
    pub fn leftover(self, expects: bool, read: u64) -> Leftover {
        match self {
            Framing::None => Leftover::Nothing,
            Framing::Length(length) if length <= read => Leftover::Nothing,
            // The client may send its body all the same or never: what follows cannot be told apart.
            Framing::Length(_) | Framing::Chunked if expects && read == 0 => Leftover::Close,
            Framing::Length(length) if length - read <= DRAIN_BYTES => Leftover::Drain(length - read),
            Framing::Length(_) => Leftover::Close,
            Framing::Chunked => Leftover::Drain(DRAIN_BYTES),
        }
    }
}

/// Refuses everything that two parsers could read differently.
pub fn judge<'a>(head: &Head<'a>) -> Result<Facts<'a>, Refusal> {
    let fields = Seen::read(head)?;
    let method = Method::of(head.method);
    if head.method == "CONNECT" {
        return Err(Refusal::new(AnswerReason::Method, "CONNECT"));
    }
    let framing = framing(head.version, &fields)?;
    let host = match (fields.host, head.version) {
        (Some(host), _) => Some(host),
        (None, Version::Http10) => None,
        (None, Version::Http11) => return Err(Refusal::malformed("HTTP/1.1 without a Host")),
    };
    let target = Target::read(head.target, method)?;
    if let (Some((target, default)), Some(host)) = (target.authority, host)
        && !target.agrees(&host, default)
    {
        return Err(Refusal::malformed("a target that does not agree with Host"));
    }
    let authority = host.or(target.authority.map(|(authority, _)| authority));
    let has_body = !matches!(framing, Framing::None | Framing::Length(0));
    let may_switch = head.version == Version::Http11 && !has_body;
    let upgrade = fields.protocol().filter(|name| may_switch && (method == Method::Get || !is_websocket(name)));
    Ok(Facts {
        method,
        method_name: head.method,
        version: head.version,
        host: authority.map(|authority| authority.host),
        authority: authority.map(|authority| authority.text),
        path: target.path,
        target: target.sent,
        absolute: target.authority.is_some(),
        framing,
        keep_alive: !fields.close && (head.version == Version::Http11 || fields.keep_alive),
        expect_continue: fields.expect_continue && has_body && head.version == Version::Http11,
        upgrade,
    })
}

/// What the fields that matter say, before they are weighed against each other.
#[derive(Debug, Default)]
struct Seen<'a> {
    host: Option<Authority<'a>>,
    length: Option<u64>,
    coding: Option<&'a [u8]>,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    upgrade: Option<&'a [u8]>,
    upgrades: usize,
    expect_continue: bool,
}

impl<'a> Seen<'a> {
    fn read(head: &Head<'a>) -> Result<Seen<'a>, Refusal> {
        let mut seen = Seen::default();
        for field in head.fields.iter() {
            seen.observe(field)?;
        }
        Ok(seen)
    }

    fn observe(&mut self, field: Field<'a>) -> Result<(), Refusal> {
        match field.known {
            Known::Host => {
                let host = Authority::parse(field.value).ok_or(Refusal::malformed("a Host that is no host"))?;
                once(self.host.replace(host).is_some(), "two Hosts")
            }
            Known::ContentLength => {
                let length = content_length(field.value)?;
                once(self.length.replace(length).is_some(), "two Content-Lengths")
            }
            Known::TransferEncoding => once(self.coding.replace(field.value).is_some(), "two Transfer-Encodings"),
            Known::Connection => self.connection(field.value),
            Known::Upgrade => {
                self.upgrades += 1;
                self.upgrade = Some(field.value);
                Ok(())
            }
            Known::Expect if field.value.eq_ignore_ascii_case(b"100-continue") => {
                self.expect_continue = true;
                Ok(())
            }
            Known::Expect => Err(Refusal::new(AnswerReason::Expectation, "an expectation other than 100-continue")),
            // CGI, WSGI and their like turn both into one variable: the server behind us would take it for the real one.
            Known::Underscored => Err(Refusal::malformed("a field name for framing with _ in place of -")),
            Known::KeepAlive
            | Known::ProxyConnection
            | Known::Te
            | Known::Http2Settings
            | Known::ProxyAuth
            | Known::Authorization
            | Known::Cookie
            | Known::Forwarded
            | Known::Other => Ok(()),
        }
    }

    /// `Connection` names fields that a proxy removes. Those that decide framing, routing, identity or trust must not be
    /// removable by the client.
    fn connection(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for option in list(value) {
            if !option.iter().all(|b| is_token(*b)) {
                return Err(Refusal::malformed("a Connection option that is no token"));
            }
            match Known::of(option) {
                Known::Host
                | Known::ContentLength
                | Known::TransferEncoding
                | Known::Authorization
                | Known::Cookie
                | Known::Forwarded => return Err(Refusal::malformed("Connection names a field that must stay")),
                Known::Upgrade => self.connection_upgrade = true,
                Known::KeepAlive => self.keep_alive = true,
                Known::Other if option.eq_ignore_ascii_case(b"close") => self.close = true,
                Known::Connection
                | Known::ProxyConnection
                | Known::Te
                | Known::Http2Settings
                | Known::Expect
                | Known::ProxyAuth
                | Known::Underscored
                | Known::Other => {}
            }
        }
        Ok(())
    }

    /// The protocol that is asked for. A choice of several is not offered to upstreams.
    fn protocol(&self) -> Option<&'a [u8]> {
        self.upgrade.filter(|name| self.connection_upgrade && self.upgrades == 1 && is_protocol(name))
    }
}

fn once(again: bool, why: &'static str) -> Result<(), Refusal> {
    if again { Err(Refusal::malformed(why)) } else { Ok(()) }
}

fn framing(version: Version, seen: &Seen<'_>) -> Result<Framing, Refusal> {
    match (seen.coding, seen.length) {
        (None, None) => Ok(Framing::None),
        (None, Some(length)) => Ok(Framing::Length(length)),
        (Some(_), Some(_)) => Err(Refusal::malformed("Content-Length with Transfer-Encoding")),
        (Some(_), None) if version == Version::Http10 => Err(Refusal::malformed("Transfer-Encoding in HTTP/1.0")),
        (Some(coding), None) => {
            transfer_coding(coding)?;
            Ok(Framing::Chunked)
        }
    }
}

#[cfg(test)]
mod tests;
