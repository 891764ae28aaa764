//! What is changed in a head on its way, as data: which names go, which fields are set, which target is sent. The lanes
//! apply it, each to its own form of a head; neither decides it.
//!
//! Owned, because it outlives the bytes of the head; names and hosts of usual length are kept without allocating.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use smallvec::SmallVec;

use super::head::fields::list;
use super::head::{Head, Known, ResponseHead, Version};
use super::judge::{Facts, Framing};
use crate::model::Address;

/// The scheme in which a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As it stands in X-Forwarded-Proto.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// The changes to a request head. Everything that is not dropped goes upstream as it came.
#[derive(Debug, Clone)]
pub struct RequestEdits {
    named: Named,
    target: Option<Box<str>>,
    host: Host,
    forwarded_for: Text,
    forwarded_host: Text,
    scheme: Scheme,
    upgrade: bool,
    drop_expect: bool,
}

/// The changes to a response head.
#[derive(Debug, Clone)]
pub struct ResponseEdits {
    named: Named,
    status: u16,
    hidden: bool,
    unframed: bool,
    close: bool,
}

/// How an answer reaches the client.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Delivery {
    /// The client must not see it.
    pub hidden: bool,
    /// The client does not know chunks: they are unwrapped.
    pub unframed: bool,
    /// The end of the connection is the end of the answer.
    pub close: bool,
}

/// Bytes, of which the usual number needs no allocation.
type Text = SmallVec<[u8; 64]>;

/// Writes into a [`Text`].
struct Writer<'a>(&'a mut Text);

impl fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Which Host goes upstream.
#[derive(Debug, Clone)]
enum Host {
    /// The one in the head.
    Kept,
    /// The head has none: this one, from the target.
    Target(Text),
    /// The head has none: the upstream's address.
    Upstream(Text),
}

impl RequestEdits {
    /// The changes to this head. `client`: the address it came from; `None` on a unix socket.
    pub fn new(head: &Head<'_>, facts: &Facts<'_>, client: Option<IpAddr>, scheme: Scheme) -> RequestEdits {
        let mut forwarded_for = Text::new();
        if let Some(client) = client {
            write!(Writer(&mut forwarded_for), "{}", client.to_canonical()).expect("a vector takes every byte");
        }
        let authority = facts.authority.map(|authority| Text::from_slice(authority.as_bytes()));
        let host = match (head.fields.all(Known::Host).next(), &authority) {
            (Some(_), _) => Host::Kept,
            (None, Some(authority)) => Host::Target(authority.clone()),
            (None, None) => Host::Upstream(Text::new()),
        };
        RequestEdits {
            named: Named::collect(head.fields.all(Known::Connection)),
            target: facts.absolute.then(|| Box::from(&*facts.target)),
            host,
            forwarded_for,
            forwarded_host: authority.unwrap_or_default(),
            scheme,
            upgrade: facts.upgrade,
            // Who speaks HTTP/1.0 cannot be sent a 100, and who sends no body waits for none.
            drop_expect: facts.version == Version::Http10
                || matches!(facts.framing, Framing::None | Framing::Length(0)),
        }
    }

    /// The upstream of the next attempt: its address stands for a Host that the client did not send.
    pub(super) fn aim(&mut self, upstream: &Address) {
        if let Host::Upstream(text) = &mut self.host {
            text.clear();
            match upstream {
                Address::Inet(address) => write!(Writer(text), "{address}").expect("a vector takes every byte"),
                Address::Unix(_) => text.extend_from_slice(b"localhost"),
            }
        }
    }

    /// The target to send instead of the one in the head.
    pub fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    /// Whether every field of this name is left out. Ask before setting [`RequestEdits::sets`].
    pub fn drops(&self, name: &[u8]) -> bool {
        match Known::of(name) {
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::Te
            | Known::Upgrade
            | Known::Http2Settings
            | Known::ProxyAuth
            | Known::Forwarded => true,
            Known::Expect => self.drop_expect,
            // They frame the body and name the host; `judge` has made sure that Connection names none of these.
            Known::Host | Known::ContentLength | Known::TransferEncoding | Known::Authorization | Known::Cookie => {
                false
            }
            Known::Other => self.named.has(name),
        }
    }

    /// The fields to set: none of them is left in the head after [`RequestEdits::drops`].
    pub fn sets(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let host: &[u8] = match &self.host {
            Host::Kept => b"",
            Host::Target(text) | Host::Upstream(text) => text,
        };
        let upgrade = |value: &'static [u8]| if self.upgrade { value } else { b"" };
        [
            ("Host", host),
            ("X-Forwarded-For", self.forwarded_for.as_slice()),
            ("X-Forwarded-Proto", self.scheme.as_str().as_bytes()),
            ("X-Forwarded-Host", self.forwarded_host.as_slice()),
            ("Connection", upgrade(b"Upgrade")),
            ("Upgrade", upgrade(b"websocket")),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
    }

    /// Appends the whole edited head in HTTP/1.1, for lanes that copy bytes.
    pub fn write_to(&self, head: &Head<'_>, out: &mut Vec<u8>) {
        put(out, &[head.method.as_bytes(), b" ", self.target().unwrap_or(head.target).as_bytes(), b" HTTP/1.1\r\n"]);
        for (name, value) in self.sets() {
            put(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
        }
        for field in head.fields.iter().filter(|field| !self.drops(field.name)) {
            put(out, &[field.name, b": ", field.value, b"\r\n"]);
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl ResponseEdits {
    /// The changes to a response with this status. `connection`: the values of its Connection fields.
    pub(super) fn new<'a>(
        status: u16,
        connection: impl Iterator<Item = &'a [u8]>,
        delivery: Delivery,
    ) -> ResponseEdits {
        let Delivery { hidden, unframed, close } = delivery;
        ResponseEdits { named: Named::collect(connection), status, hidden, unframed, close }
    }

    /// Whether the client must not see this interim answer: it speaks HTTP/1.0 (RFC 9110, 15.2).
    pub fn hidden(&self) -> bool {
        self.hidden
    }

    /// Whether the client connection must close after this answer, because nothing else tells where it ends: the
    /// upstream closes at the end, or the client speaks HTTP/1.0 and knows no chunks. A lane that puts a body that ends
    /// with the connection into chunks for a client of HTTP/1.1 need not.
    pub fn close(&self) -> bool {
        self.close
    }

    /// Whether every field of this name is left out.
    pub fn drops(&self, name: &[u8]) -> bool {
        // Where there is no body, what frames it only confuses (RFC 9110, 8.6; RFC 9112, 6.1).
        let bodyless = self.status < 200 || self.status == 204;
        match Known::of(name) {
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::Te
            | Known::Upgrade
            | Known::Http2Settings
            | Known::ProxyAuth => true,
            // They say where the answer ends, so Connection cannot name them.
            Known::ContentLength => bodyless,
            Known::TransferEncoding => bodyless || self.unframed,
            Known::Host | Known::Expect | Known::Authorization | Known::Cookie | Known::Forwarded | Known::Other => {
                self.named.has(name)
            }
        }
    }

    /// The fields to set after dropping: those of a switch of protocols.
    pub fn sets(&self) -> impl Iterator<Item = (&'static str, &'static [u8])> {
        let switch: &[(&'static str, &'static [u8])] =
            if self.status == 101 { &[("Connection", b"Upgrade"), ("Upgrade", b"websocket")] } else { &[] };
        switch.iter().copied()
    }

    /// Appends the whole edited head in HTTP/1.1, for lanes that copy bytes. `close`: the client connection does not go
    /// on; `version`: the client's, which is told that it does where that is not implied.
    pub fn write_to(&self, head: &ResponseHead<'_>, version: Version, close: bool, out: &mut Vec<u8>) {
        let digits = [100, 10, 1].map(|place| b'0' + (head.status / place % 10) as u8);
        put(out, &[b"HTTP/1.1 ", &digits, b" ", head.reason, b"\r\n"]);
        for field in head.fields.iter().filter(|field| !self.drops(field.name)) {
            put(out, &[field.name, b": ", field.value, b"\r\n"]);
        }
        for (name, value) in self.sets() {
            put(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
        }
        match (close, version) {
            _ if self.status < 200 => {}
            (true, _) => out.extend_from_slice(b"Connection: close\r\n"),
            (false, Version::Http10) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (false, Version::Http11) => {}
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// The names that Connection lists, joined by commas.
#[derive(Debug, Clone, Default)]
struct Named(Text);

impl Named {
    fn collect<'a>(values: impl Iterator<Item = &'a [u8]>) -> Named {
        let mut text = Text::new();
        for value in values {
            put_text(&mut text, value);
        }
        Named(text)
    }

    fn has(&self, name: &[u8]) -> bool {
        !self.0.is_empty() && list(&self.0).any(|named| named.eq_ignore_ascii_case(name))
    }
}

/// Adds what Connection lists but the two options that name no field and stand in nearly every one.
fn put_text(text: &mut Text, value: &[u8]) {
    for option in list(value) {
        if option.eq_ignore_ascii_case(b"keep-alive") || option.eq_ignore_ascii_case(b"close") {
            continue;
        }
        if !text.is_empty() {
            text.push(b',');
        }
        text.extend_from_slice(option);
    }
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}
