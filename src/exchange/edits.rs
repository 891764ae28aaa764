//! What is changed in a head on its way, as data: which names go, which fields are set, which target is sent. The lanes
//! apply it, each to its own form of a head; neither decides it.
//!
//! Owned, because it outlives the bytes of the head; names and hosts of usual length are kept without allocating.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::BufMut;
use smallvec::SmallVec;

use super::judge::{Facts, Framing};
use super::origin;
use super::rules::{Made, Parts, TooLong, client_text, lines};
use super::upgrade::Protocol;
use crate::http1::fields::{Keep, list, put};
use crate::http1::{Field, Head, HttpDate, Known, ResponseFraming, ResponseHead, Version};
use crate::model::Address;
use crate::model::policy::{FieldEdits, ForwardedPolicy, Marks, RouteRules};
use crate::model::template::Placeholder;

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
    /// The peer: its address, `None` on a unix socket.
    peer: Option<IpAddr>,
    /// In which scheme it asks.
    scheme: Scheme,
    /// The client, which the peer may only speak for; as text.
    client: Text,
    forwarded_for: Text,
    forwarded_host: Text,
    forwarded_proto: Scheme,
    /// The peer is believed: what else it says in X-Forwarded-* goes on.
    believed: bool,
    /// More may have been said of a request than of every one of this peer.
    introduced: bool,
    /// Field lines that say what only roundsman knows: `Forwarded`, the number of the request, its trace.
    own: Vec<u8>,
    /// The names that they replace.
    owned: Named,
    /// The number of the request, if it has one.
    id: Text,
    /// The trace that was made for it.
    trace: Text,
    upgrade: Option<Protocol>,
    drop_expect: bool,
    /// What the rules of its route make of it.
    made: Made,
    /// The fields of the head that these rules set or take out.
    ruled: Named,
}

/// The changes to a response head.
#[derive(Debug, Clone)]
pub struct ResponseEdits {
    named: Named,
    /// Field lines that the rules of its route set.
    set: Vec<u8>,
    status: u16,
    switch: Option<Protocol>,
    hidden: bool,
    unframed: bool,
    chunked: bool,
    close: bool,
    length: Length,
    offers: bool,
    keeps: Option<Duration>,
}

/// How an answer reaches the client.
#[derive(Debug, Clone, Default)]
pub(super) struct Delivery {
    /// The client must not see it.
    pub hidden: bool,
    /// The client does not know chunks: they are unwrapped.
    pub unframed: bool,
    /// It ends with the upstream's connection: for the client it is put into chunks.
    pub chunked: bool,
    /// The end of the connection is the end of the answer.
    pub close: bool,
    /// What becomes of Content-Length.
    pub length: Length,
    /// It names the protocols to switch to, which the client must see.
    pub offers: bool,
    /// The connection it came on may be used again.
    pub keeps: Option<Duration>,
    /// It switches to this protocol.
    pub switch: Option<Protocol>,
}

/// What becomes of Content-Length.
#[derive(Debug, Clone, Default)]
pub(super) enum Length {
    /// It goes as it came.
    #[default]
    Kept,
    /// It was given several times, or in an unusual form: once, in these digits.
    Set(SmallVec<[u8; 20]>),
}

impl Length {
    /// This number, in the form in which every parser reads it.
    pub(super) fn canonical(length: u64) -> Length {
        Length::Set(length.to_string().into_bytes().into())
    }
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
    /// The route has one.
    Route,
}

impl RequestEdits {
    /// Those that the requests of one client have in common. `client`: its address; `None` on a unix socket.
    pub fn of_client(client: Option<IpAddr>, scheme: Scheme) -> RequestEdits {
        let forwarded_for = Text::from_slice(client_text(client).as_bytes());
        RequestEdits {
            named: Named::default(),
            target: None,
            host: Host::Kept,
            peer: client,
            scheme,
            client: forwarded_for.clone(),
            forwarded_for,
            forwarded_host: Text::new(),
            forwarded_proto: scheme,
            believed: false,
            introduced: false,
            own: Vec::new(),
            owned: Named::default(),
            id: Text::new(),
            trace: Text::new(),
            upgrade: None,
            drop_expect: false,
            made: Made::default(),
            ruled: Named::default(),
        }
    }

    /// The changes to this head instead of those to the last one.
    pub fn begin(&mut self, head: &Head<'_>, facts: &Facts<'_>) {
        self.named.collect(head.fields.all(Known::Connection));
        self.target = facts.absolute.then(|| Box::from(&*facts.target));
        self.forwarded_host.clear();
        self.forwarded_host.extend_from_slice(facts.authority.unwrap_or_default().as_bytes());
        self.host = match (head.fields.all(Known::Host).next(), facts.authority) {
            (Some(_), _) => Host::Kept,
            (None, Some(authority)) => Host::Target(Text::from_slice(authority.as_bytes())),
            (None, None) => Host::Upstream(Text::new()),
        };
        self.upgrade = facts.upgrade.map(Protocol::new);
        // Who speaks HTTP/1.0 cannot be sent a 100, and who sends no body waits for none.
        self.drop_expect =
            facts.version == Version::Http10 || matches!(facts.framing, Framing::None | Framing::Length(0));
    }

    /// Says who the request is from, which is returned, and marks it.
    pub(super) fn introduce(
        &mut self,
        head: &Head<'_>,
        policy: &ForwardedPolicy,
        marks: &Marks,
        rng: &mut fastrand::Rng,
    ) -> Option<IpAddr> {
        let ForwardedPolicy { trusted, rfc7239 } = policy;
        let has_nothing = trusted.networks.is_empty() && !trusted.unix && !rfc7239;
        if has_nothing && marks.request_id.is_none() && !marks.traceparent && !self.introduced {
            return self.peer;
        }
        self.introduced = true;
        if self.believed {
            self.believed = false;
            self.client = Text::from_slice(client_text(self.peer).as_bytes());
            self.forwarded_for = self.client.clone();
            self.forwarded_proto = self.scheme;
        }
        self.own.clear();
        self.owned.clear();
        self.id.clear();
        self.trace.clear();
        let mut client = self.peer;
        let mut elements = Vec::new();
        if trusted.has(self.peer) {
            let claims = origin::claims(head, self.peer, trusted);
            client = claims.client;
            self.believed = true;
            self.client = Text::from_slice(client_text(client).as_bytes());
            let peer = std::mem::replace(&mut self.forwarded_for, Text::from_vec(claims.chain));
            if !self.forwarded_for.is_empty() && !peer.is_empty() {
                self.forwarded_for.extend_from_slice(b", ");
            }
            self.forwarded_for.extend_from_slice(&peer);
            self.forwarded_proto = claims.scheme.unwrap_or(self.scheme);
            if let Some(host) = claims.host {
                self.forwarded_host = Text::from_slice(host);
            }
            elements = claims.forwarded;
        }
        if *rfc7239 || !elements.is_empty() {
            if !elements.is_empty() {
                elements.extend_from_slice(b", ");
            }
            origin::put_element(&mut elements, self.peer, self.forwarded_proto, &self.forwarded_host);
            put(&mut self.own, &[b"Forwarded: ", &elements, b"\r\n"]);
        }
        self.mark(head, marks, rng);
        client
    }

    /// What cannot be read says nothing about who it is from: the peer, which is returned.
    pub(super) fn unmark(&mut self) -> Option<IpAddr> {
        self.id.clear();
        self.trace.clear();
        self.peer
    }

    /// Gives the request a number and a trace, where they are asked for and it has none that is believed.
    fn mark(&mut self, head: &Head<'_>, marks: &Marks, rng: &mut fastrand::Rng) {
        let field = |name: &str| {
            let mut named = head.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name.as_bytes()));
            named.next().map(|field| field.value)
        };
        if let Some(name) = &marks.request_id {
            match field(name).filter(|id| self.believed && origin::is_request_id(id)) {
                Some(id) => self.id.extend_from_slice(id),
                None => self.number(rng),
            }
            self.owned.add(name);
            put(&mut self.own, &[name.as_bytes(), b": ", &self.id, b"\r\n"]);
        }
        if marks.traceparent && !field("traceparent").is_some_and(origin::is_traceparent) {
            let (trace, parent) = (rng.u128(1..), rng.u64(1..));
            // What another has said about a trace that is not this one goes with it.
            self.owned.add("traceparent");
            self.owned.add("tracestate");
            write!(Writer(&mut self.trace), "{trace:032x}").expect("a vector takes every byte");
            put(&mut self.own, &[format!("traceparent: 00-{trace:032x}-{parent:016x}-01\r\n").as_bytes()]);
        }
    }

    /// Gives the request a number that no other has.
    fn number(&mut self, rng: &mut fastrand::Rng) {
        write!(Writer(&mut self.id), "{:032x}", rng.u128(..)).expect("a vector takes every byte");
    }

    /// Makes what the rules of its route make of the request, instead of those of a route before.
    pub(super) fn follow(
        &mut self,
        rules: Option<&RouteRules>,
        facts: &Facts<'_>,
        rng: &mut fastrand::Rng,
    ) -> Result<(), TooLong> {
        if self.made.is_empty() && self.ruled.is_empty() && rules.is_none() {
            return Ok(());
        }
        self.ruled.clear();
        self.made.clear();
        if matches!(self.host, Host::Route) {
            self.host = Host::Kept;
        }
        let Some(rules) = rules else { return Ok(()) };
        self.ruled.add_all(&rules.request);
        if self.ruled.has(b"host") {
            self.host = Host::Route;
        }
        if self.id.is_empty() && rules.names(Placeholder::RequestId) {
            self.introduced = true;
            self.number(rng);
        }
        self.made.make(rules, &Parts::new(facts, &self.client, self.forwarded_proto, &self.id))
    }

    /// The number of the request; empty if it has none.
    pub(super) fn id(&self) -> &[u8] {
        &self.id
    }

    /// The trace that was made for it; empty if none was.
    pub(super) fn trace(&self) -> &[u8] {
        &self.trace
    }

    /// Makes an answer without an upstream.
    pub(super) fn answer_with(&mut self, lines: &[u8], body: &[u8]) {
        self.made.clear();
        self.made.answer.extend_from_slice(lines);
        self.made.body.extend_from_slice(body);
    }

    /// The scheme in which the client has asked, as it is believed.
    pub(super) fn forwarded_proto(&self) -> Scheme {
        self.forwarded_proto
    }

    /// What the rules of its route make of the request.
    pub(super) fn made(&self) -> &Made {
        &self.made
    }

    /// The upstream of the next attempt: its address stands for a Host that the client did not send.
    pub fn aim(&mut self, upstream: &Address) {
        if let Host::Upstream(text) = &mut self.host {
            text.clear();
            match upstream {
                // Without the zone of a link-local address, which means nothing to the upstream (RFC 6874, section 1).
                Address::Inet(SocketAddr::V6(v6)) => {
                    write!(Writer(text), "[{}]:{}", v6.ip(), v6.port()).expect("a vector takes every byte");
                }
                Address::Inet(_) | Address::Name { .. } => {
                    write!(Writer(text), "{upstream}").expect("a vector takes every byte");
                }
                Address::Unix(_) => text.extend_from_slice(b"localhost"),
            }
        }
    }

    /// The request is not to switch protocols.
    pub(super) fn refuse_upgrade(&mut self) {
        self.upgrade = None;
    }

    /// The target to send instead of the one in the head.
    pub fn target(&self) -> Option<&str> {
        self.made.target.as_deref().or(self.target.as_deref())
    }

    /// Whether every field of this name is left out. Ask before setting [`RequestEdits::sets`].
    pub fn drops(&self, field: &Field<'_>) -> bool {
        match field.known {
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::Te
            | Known::Upgrade
            | Known::Http2Settings
            | Known::ProxyAuth => true,
            Known::Forwarded => !self.believed || is_replaced(field.name) || self.ruled.has(field.name),
            Known::Expect => self.drop_expect,
            // They frame the body and name the host; `judge` has made sure that Connection names none of these.
            Known::ContentLength | Known::TransferEncoding => false,
            Known::Host | Known::Authorization | Known::Cookie => self.ruled.has(field.name),
            Known::Underscored | Known::Other => {
                self.named.has(field.name) || self.ruled.has(field.name) || self.owned.has(field.name)
            }
        }
    }

    /// The fields to set: none of them is left in the head after [`RequestEdits::drops`].
    pub fn sets(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let host: &[u8] = match &self.host {
            Host::Kept | Host::Route => b"",
            Host::Target(text) | Host::Upstream(text) => text,
        };
        let connection: &[u8] = if self.upgrade.is_some() { b"Upgrade" } else { b"" };
        [
            ("Host", host),
            ("X-Forwarded-For", self.forwarded_for.as_slice()),
            ("X-Forwarded-Proto", self.forwarded_proto.as_str().as_bytes()),
            ("X-Forwarded-Host", self.forwarded_host.as_slice()),
            ("Connection", connection),
            ("Upgrade", self.upgrade.as_ref().map_or(&b""[..], Protocol::as_bytes)),
        ]
        .into_iter()
        .filter(|(name, value)| !value.is_empty() && !self.ruled.has(name.as_bytes()))
    }

    /// Further fields to set, which most requests do not have.
    pub fn more_sets(&self) -> impl Iterator<Item = (&str, &[u8])> {
        lines(&self.own).filter(|(name, _)| !self.ruled.has(name.as_bytes())).chain(lines(&self.made.request))
    }

    fn has_more(&self) -> bool {
        !self.own.is_empty() || !self.made.request.is_empty()
    }

    /// Appends the whole edited head in HTTP/1.1, for lanes that copy bytes.
    pub fn write_to(&self, head: &Head<'_>, out: &mut impl BufMut) {
        put(out, &[head.method.as_bytes(), b" ", self.target().unwrap_or(head.target).as_bytes(), b" HTTP/1.1\r\n"]);
        for (name, value) in self.sets() {
            put(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
        }
        if self.has_more() {
            for (name, value) in self.more_sets() {
                put(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
            }
        }
        head.fields.write_kept(out, |field| match field.known {
            // In the case that every server knows: one that did not know `Chunked` would take the body for a request.
            Known::TransferEncoding if field.value != b"chunked" => Keep::Value(b"chunked"),
            _ => Keep::unless(self.drops(field)),
        });
        out.put_slice(b"\r\n");
    }
}

impl ResponseEdits {
    /// The changes to a response with this status. `connection`: the values of its Connection fields.
    pub(super) fn new<'a>(
        status: u16,
        connection: impl Iterator<Item = &'a [u8]>,
        delivery: Delivery,
    ) -> ResponseEdits {
        let Delivery { hidden, unframed, chunked, close, length, offers, keeps, switch } = delivery;
        let mut named = Named::default();
        named.collect(connection);
        let set = Vec::new();
        ResponseEdits { named, set, status, switch, hidden, unframed, chunked, close, length, offers, keeps }
    }

    /// Adds those of the rules of a route, with the lines to set as they were made for the request.
    pub(super) fn follow(&mut self, edits: &FieldEdits, set: &[u8]) {
        self.named.add_all(edits);
        self.set.extend_from_slice(set);
    }

    /// Adds this field line.
    pub(super) fn add(&mut self, line: &str) {
        self.set.extend_from_slice(line.as_bytes());
    }

    /// Whether the client must not see this interim answer: it speaks HTTP/1.0 (RFC 9110, 15.2).
    pub fn hidden(&self) -> bool {
        self.hidden
    }

    /// Whether the client connection must close after this answer, because nothing else tells where it ends: its length is
    /// not known, and the client speaks HTTP/1.0 and knows no chunks.
    pub fn close(&self) -> bool {
        self.close
    }

    /// For how long the connection of this answer may be kept, once it has ended by its framing: `idle_timeout`, or less
    /// where the upstream says so. `None`: it must not be used again (RFC 9112, 9.3).
    pub fn keeps_upstream(&self, idle_timeout: Duration) -> Option<Duration> {
        self.keeps.map(|keeps| keeps.min(idle_timeout)).filter(|keeps| !keeps.is_zero())
    }

    /// Whether the body reaches the client in chunks. Otherwise it is written as data, up to its length or the end of the
    /// connection.
    pub fn in_chunks(&self, framing: ResponseFraming) -> bool {
        !self.unframed && matches!(framing, ResponseFraming::Chunked | ResponseFraming::UntilClose)
    }

    /// Whether every field of this name is left out.
    pub fn drops(&self, field: &Field<'_>) -> bool {
        let bodyless = self.is_bodyless();
        match field.known {
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::Te
            | Known::Http2Settings
            | Known::ProxyAuth => true,
            Known::Upgrade => !self.offers,
            // They say where the answer ends, so Connection cannot name them.
            Known::ContentLength => bodyless || !matches!(self.length, Length::Kept),
            Known::TransferEncoding => bodyless || self.unframed,
            Known::Host
            | Known::Expect
            | Known::Authorization
            | Known::Cookie
            | Known::Forwarded
            | Known::Underscored
            | Known::Other => self.named.has(field.name),
        }
    }

    /// The fields to set after dropping: those of a switch of protocols, or a length in canonical form.
    pub fn sets(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let switch = self.switch.as_ref().map(|to| [("Connection", &b"Upgrade"[..]), ("Upgrade", to.as_bytes())]);
        let length = match &self.length {
            Length::Set(digits) if !self.is_bodyless() => Some(("Content-Length", digits.as_slice())),
            Length::Set(_) | Length::Kept => None,
        };
        let coding = self.chunked.then_some(("Transfer-Encoding", &b"chunked"[..]));
        switch.into_iter().flatten().chain(length).chain(coding)
    }

    /// Further fields to set, which most responses do not have.
    pub fn more_sets(&self) -> impl Iterator<Item = (&str, &[u8])> {
        lines(&self.set)
    }

    /// Where there is no body, what frames it only confuses (RFC 9110, 8.6; RFC 9112, 6.1).
    fn is_bodyless(&self) -> bool {
        self.status < 200 || self.status == 204
    }

    /// Appends the whole edited head in HTTP/1.1, for lanes that copy bytes. `close`: the client connection does not go
    /// on; `version`: the client's, which is told that it does where that is not implied; `date`: for a final answer without a
    /// `Date` of its own (RFC 9110, 6.6.1).
    pub fn write_to(
        &self,
        head: &ResponseHead<'_>,
        version: Version,
        close: bool,
        date: HttpDate,
        out: &mut impl BufMut,
    ) {
        put(out, &[b"HTTP/1.1 ", &digits(head.status), b" ", head.reason, b"\r\n"]);
        let mut dated = self.status < 200;
        head.write_kept(out, |field| {
            let kept = !self.drops(field);
            dated |= kept && field.name.eq_ignore_ascii_case(b"date");
            match field.known {
                // No other coding is passed on; it is written as every client knows it.
                Known::TransferEncoding if kept && field.value != b"chunked" => Keep::Value(b"chunked"),
                _ => Keep::unless(!kept),
            }
        });
        if !dated {
            put(out, &[b"Date: ", date.as_bytes(), b"\r\n"]);
        }
        for (name, value) in self.sets() {
            put(out, &[name.as_bytes(), b": ", value, b"\r\n"]);
        }
        out.put_slice(&self.set);
        let connection: &[u8] = match (self.offers, close, version) {
            _ if self.status < 200 => b"",
            (false, true, _) => b"Connection: close\r\n",
            (false, false, Version::Http10) => b"Connection: keep-alive\r\n",
            (false, false, Version::Http11) => b"",
            (true, true, _) => b"Connection: upgrade, close\r\n",
            (true, false, Version::Http10) => b"Connection: upgrade, keep-alive\r\n",
            (true, false, Version::Http11) => b"Connection: upgrade\r\n",
        };
        put(out, &[connection, b"\r\n"]);
    }
}

/// Whether what we say replaces or extends this field of a trusted peer. One with `_` is what others may take for it.
fn is_replaced(name: &[u8]) -> bool {
    let ours = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"];
    name.contains(&b'_') || ours.iter().any(|our| name.eq_ignore_ascii_case(our.as_bytes()))
}

/// Names of fields, joined by commas: those that Connection lists, or those that a route changes.
#[derive(Debug, Clone, Default)]
struct Named(Text);

impl Named {
    /// Those of these values, instead of those before.
    fn collect<'a>(&mut self, values: impl Iterator<Item = &'a [u8]>) {
        self.0.clear();
        for value in values {
            put_text(&mut self.0, value);
        }
    }

    /// Adds the names of fields that are set or taken out.
    fn add_all(&mut self, edits: &FieldEdits) {
        let FieldEdits { set, remove } = edits;
        set.iter().map(|(name, _)| name).chain(remove).for_each(|name| self.add(name));
    }

    fn add(&mut self, name: &str) {
        if !self.0.is_empty() {
            self.0.push(b',');
        }
        self.0.extend_from_slice(name.as_bytes());
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    fn has(&self, name: &[u8]) -> bool {
        !self.0.is_empty() && self.lists(name)
    }

    /// Most heads name nothing.
    #[cold]
    fn lists(&self, name: &[u8]) -> bool {
        list(&self.0).any(|named| named.eq_ignore_ascii_case(name))
    }
}

/// Adds what Connection lists, but the two options that name no field and stand in nearly every one.
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

/// A status as three digits.
pub(super) fn digits(status: u16) -> [u8; 3] {
    [100, 10, 1].map(|place| b'0' + (status / place % 10) as u8)
}

#[cfg(test)]
mod tests {
    use super::super::judge::{Method, judge};
    use super::super::response::{Asked, judge_response};
    use super::*;
    use crate::http1::{HeadReader, Limits, ResponseReader};

    /// The head that goes upstream, to 10.0.0.7:80, for a client at 192.0.2.1.
    fn sent(head: &str) -> String {
        let head = format!("{head}\r\n\r\n");
        let mut reader = HeadReader::default();
        let head = reader.read(head.as_bytes(), &Limits::REQUEST).unwrap().unwrap();
        let facts = judge(&head).unwrap();
        let mut edits = RequestEdits::of_client(Some("::ffff:192.0.2.1".parse().unwrap()), Scheme::Http);
        edits.begin(&head, &facts);
        edits.aim(&"10.0.0.9:80".parse().unwrap());
        edits.aim(&"10.0.0.7:80".parse().unwrap());
        let mut out = Vec::new();
        edits.write_to(&head, &mut out);
        String::from_utf8(out).unwrap()
    }

    const FORWARDED: &str = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n";

    #[test]
    fn hop_by_hop_fields_and_claims_about_the_client_do_not_go_upstream() {
        for dropped in [
            "Connection: keep-alive",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "TE: trailers",
            "Upgrade: h2c",
            "HTTP2-Settings: AAA",
            "Proxy-Authorization: Basic x",
            "X-Forwarded-For: 6.6.6.6",
            "x-forwarded-proto: https",
            "X-Forwarded-Host: evil",
            "X-Forwarded-Port: 1",
            "X_Forwarded_For: 6.6.6.6",
            "Forwarded: for=6.6.6.6",
            "X-Real-IP: 6.6.6.6",
            "x_real_ip: 6.6.6.6",
            "Expect: 100-continue",
            "Connection: X-Mine, close\r\nX-Mine: 1\r\nx-mine: 2",
            "X-Mine: 1\r\nConnection: close\r\nConnection: other, x-mine",
        ] {
            let want = format!("GET /x HTTP/1.1\r\n{FORWARDED}Host: a\r\nA: b\r\n\r\n");
            assert_eq!(sent(&format!("GET /x HTTP/1.1\r\nHost: a\r\n{dropped}\r\nA: b")), want, "{dropped}");
        }
    }

    #[test]
    fn the_coding_goes_upstream_in_lower_case() {
        for coding in ["chunked", "Chunked", "CHUNKED", " chunked\t"] {
            let sent = sent(&format!("POST /x HTTP/1.1\r\nHost: a\r\ntransfer-encoding: {coding}"));
            assert!(sent.contains("\r\ntransfer-encoding: chunked\r\n"), "{coding:?}: {sent}");
        }
    }

    #[test]
    fn what_belongs_to_the_request_goes_as_it_came() {
        for kept in [
            "Content-Length: 5",
            "Transfer-Encoding: chunked",
            "Content-Length: 5\r\nExpect: 100-continue",
            "Authorization: Bearer x",
            "Cookie: a=b\r\nCookie: c=d",
            "Trailer: X-Sum",
            "Sec-WebSocket-Key: x",
            "Via: 1.1 x",
            "Date: today",
            "x-MixedCase: \u{e9}",
        ] {
            let want = format!("POST /%7e?q HTTP/1.1\r\n{FORWARDED}Host: a\r\n{kept}\r\n\r\n");
            assert_eq!(sent(&format!("POST /%7e?q HTTP/1.1\r\nHost: a\r\n{kept}")), want);
        }
    }

    #[test]
    fn there_is_always_one_host_and_a_path() {
        let (for_, proto) = ("X-Forwarded-For: 192.0.2.1\r\n", "X-Forwarded-Proto: http\r\n");
        for (head, want) in [
            // Without a Host nobody can say which one the client meant.
            ("GET / HTTP/1.0", format!("GET / HTTP/1.1\r\nHost: 10.0.0.7:80\r\n{for_}{proto}\r\n")),
            ("GET / HTTP/1.0\r\nHost: a", format!("GET / HTTP/1.1\r\n{FORWARDED}Host: a\r\n\r\n")),
            ("GET http://a:81/x HTTP/1.0", {
                format!("GET /x HTTP/1.1\r\nHost: a:81\r\n{for_}{proto}X-Forwarded-Host: a:81\r\n\r\n")
            }),
            ("GET http://a?q HTTP/1.1\r\nHost: a", format!("GET /?q HTTP/1.1\r\n{FORWARDED}Host: a\r\n\r\n")),
        ] {
            assert_eq!(sent(head), want, "{head:?}");
        }
        let mut reader = HeadReader::default();
        let head = reader.read(b"GET / HTTP/1.0\r\n\r\n", &Limits::REQUEST).unwrap().unwrap();
        let mut edits = RequestEdits::of_client(None, Scheme::Https);
        edits.begin(&head, &judge(&head).unwrap());
        for (upstream, host) in [
            ("unix:/run/a.sock", "localhost"),
            ("[2001:db8::1]:81", "[2001:db8::1]:81"),
            ("[fe80::1%3]:81", "[fe80::1]:81"),
            ("api:7100", "api:7100"),
        ] {
            edits.aim(&upstream.parse().unwrap());
            let sets: Vec<_> = edits.sets().collect();
            let want = [("Host", host.as_bytes()), ("X-Forwarded-Proto", b"https")];
            assert_eq!(sets, want, "{upstream}; a unix client has no address");
        }
    }

    #[test]
    fn a_websocket_is_asked_for_in_our_own_words() {
        let asked = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade, X-Mine\r\nUpgrade: WebSocket\r\nX-Mine: 1\r\n\
                     Sec-WebSocket-Key: x";
        let want = format!(
            "GET /ws HTTP/1.1\r\n{FORWARDED}Connection: Upgrade\r\nUpgrade: websocket\r\nHost: a\r\nSec-WebSocket-Key: x\r\n\r\n"
        );
        assert_eq!(sent(asked), want);
        let other = "OPTIONS / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: TLS/1.0";
        let want =
            format!("OPTIONS / HTTP/1.1\r\n{FORWARDED}Connection: Upgrade\r\nUpgrade: TLS/1.0\r\nHost: a\r\n\r\n");
        assert_eq!(sent(other), want, "others as they are written");
    }

    /// What the client sees of an answer.
    fn delivered(answer: &str, method: Method, version: Version) -> String {
        dated(answer, method, version).replace("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "")
    }

    /// The same with the `Date` that was added.
    fn dated(answer: &str, method: Method, version: Version) -> String {
        let answer = format!("{answer}\r\n\r\n");
        let mut reader = ResponseReader::default();
        let head = reader.read(answer.as_bytes()).unwrap().unwrap();
        let asked = Asked { method, version, upgrade: Some(Protocol::new(b"websocket")) };
        let (_, edits) = judge_response(&asked, head.version, head.status, head.fields()).unwrap();
        let mut out = Vec::new();
        edits.write_to(&head, version, edits.close(), HttpDate::of(784_111_777), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hop_by_hop_fields_do_not_reach_the_client() {
        for dropped in [
            "Connection: close",
            "Keep-Alive: timeout=5",
            "Proxy-Connection: close",
            "Proxy-Authenticate: Basic",
            "Proxy-Authentication-Info: x",
            "Upgrade: h2,h2c",
            "TE: x",
            "Connection: X-Mine, Content-Length\r\nX-Mine: 1",
        ] {
            let answer = format!(
                "HTTP/1.0 200 Fine\r\nServer: x\r\n{dropped}\r\nContent-Length: 5\r\nSet-Cookie: a\r\nSet-Cookie: b"
            );
            let want = "HTTP/1.1 200 Fine\r\nServer: x\r\nContent-Length: 5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n";
            assert_eq!(delivered(&answer, Method::Get, Version::Http11), want, "{dropped}");
        }
    }

    #[test]
    fn a_final_answer_has_one_date_and_the_upstreams_own_comes_first() {
        let ours = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        for (answer, want) in [
            ("200 OK\r\nContent-Length: 0", format!("200 OK\r\nContent-Length: 0\r\n{ours}")),
            ("204 None", format!("204 None\r\n{ours}")),
            ("304 Same\r\nEtag: x", format!("304 Same\r\nEtag: x\r\n{ours}")),
            ("502 Bad\r\nContent-Length: 0\r\nX-Date: x", {
                format!("502 Bad\r\nContent-Length: 0\r\nX-Date: x\r\n{ours}")
            }),
            ("200 OK\r\ndate: today\r\nContent-Length: 0", "200 OK\r\ndate: today\r\nContent-Length: 0\r\n".to_owned()),
            ("204 None\r\nDate:", "204 None\r\nDate: \r\n".to_owned()),
            // Its own was only for us.
            ("204 None\r\nConnection: Date\r\nDate: today", format!("204 None\r\n{ours}")),
            ("103 Early\r\nLink: x", "103 Early\r\nLink: x\r\n".to_owned()),
            ("100 Continue", "100 Continue\r\n".to_owned()),
        ] {
            let got = dated(&format!("HTTP/1.1 {answer}"), Method::Get, Version::Http11);
            assert_eq!(got, format!("HTTP/1.1 {want}\r\n"), "{answer:?}");
        }
    }

    #[test]
    fn a_426_says_which_protocols_it_wants() {
        use Version::{Http10, Http11};
        for (answer, version, want) in [
            ("426 Up\r\nUpgrade: foo/2, websocket\r\nConnection: Upgrade\r\nContent-Length: 0", Http11, {
                "426 Up\r\nUpgrade: foo/2, websocket\r\nContent-Length: 0\r\nConnection: upgrade\r\n"
            }),
            ("426 Up\r\nUpgrade: a\r\nUpgrade: b\r\nContent-Length: 0", Http10, {
                "426 Up\r\nUpgrade: a\r\nUpgrade: b\r\nContent-Length: 0\r\nConnection: upgrade, keep-alive\r\n"
            }),
            ("426 Up\r\nUpgrade: a", Http10, "426 Up\r\nUpgrade: a\r\nConnection: upgrade, close\r\n"),
            ("426 Up\r\nContent-Length: 0", Http11, "426 Up\r\nContent-Length: 0\r\n"),
            ("200 OK\r\nUpgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 0", Http11, {
                "200 OK\r\nContent-Length: 0\r\n"
            }),
        ] {
            let got = delivered(&format!("HTTP/1.1 {answer}"), Method::Get, version);
            assert_eq!(got, format!("HTTP/1.1 {want}\r\n"), "{answer:?}");
        }
    }

    #[test]
    fn the_client_can_always_tell_where_the_answer_ends() {
        use Version::{Http10, Http11};
        for (answer, method, version, want) in [
            ("200 OK\r\nTransfer-Encoding: chunked", Method::Get, Http11, "200 OK\r\nTransfer-Encoding: chunked\r\n"),
            ("200 OK\r\nTransfer-Encoding: chunked", Method::Get, Http10, "200 OK\r\nConnection: close\r\n"),
            (
                "200 OK\r\nContent-Length: 5",
                Method::Get,
                Http10,
                "200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n",
            ),
            ("200 OK", Method::Get, Http11, "200 OK\r\nTransfer-Encoding: chunked\r\n"),
            ("200 OK", Method::Head, Http11, "200 OK\r\n"),
            ("200 OK\r\nContent-Length: 5", Method::Head, Http11, "200 OK\r\nContent-Length: 5\r\n"),
            ("204 None\r\nContent-Length: 5", Method::Get, Http11, "204 None\r\n"),
            ("204 None\r\nTransfer-Encoding: chunked", Method::Get, Http11, "204 None\r\n"),
            ("304 Same\r\nContent-Length: 5", Method::Get, Http11, "304 Same\r\nContent-Length: 5\r\n"),
            // One length, in one form.
            (
                "200 OK\r\nContent-Length: 5\r\nA: b\r\ncontent-length: 5",
                Method::Get,
                Http11,
                "200 OK\r\nA: b\r\nContent-Length: 5\r\n",
            ),
            ("200 OK\r\nContent-Length: 05", Method::Head, Http11, "200 OK\r\nContent-Length: 5\r\n"),
            ("304 Same\r\nContent-Length: 5, 5", Method::Get, Http11, "304 Same\r\nContent-Length: 5\r\n"),
            ("204 None\r\nContent-Length: 5, 5", Method::Get, Http11, "204 None\r\n"),
            ("200 OK\r\nTransfer-Encoding: chunked", Method::Get, Http11, "200 OK\r\nTransfer-Encoding: chunked\r\n"),
            ("103 Early\r\nLink: x\r\nContent-Length: 5", Method::Get, Http11, "103 Early\r\nLink: x\r\n"),
            (
                "101 Switch\r\nConnection: x, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: y",
                Method::Get,
                Http11,
                "101 Switch\r\nSec-WebSocket-Accept: y\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
            ),
        ] {
            let got = delivered(&format!("HTTP/1.1 {answer}"), method, version);
            assert_eq!(got, format!("HTTP/1.1 {want}\r\n"), "{answer:?}");
        }
    }
}
