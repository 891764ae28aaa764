//! Hints: what an operator can try.

use nix::errno::Errno;

use super::Cutoff;

/// For a connection that is closed in HTTP/2 without an answer.
const CLOSED_HINT_HTTP2: &str = "this port may speak HTTP/1 only, TLS or another protocol, or its server is going down";

/// For an answer that only the end of its connection would end.
pub(super) const UNENDED_HINT: &str =
    "it must send Content-Length or chunks, or close when asked to; a contains rule passes without the end";

/// For a connection on which nothing is received.
pub(super) fn no_answer_hint(is_tls: bool) -> &'static str {
    match is_tls {
        true => "it accepts TLS connections but does not answer: overloaded, or another protocol inside TLS",
        false => "it accepts connections but does not answer: overloaded, stopped, or another protocol",
    }
}

/// For a connection that is closed without an answer.
pub(super) fn closed_hint(is_tls: bool, http2: bool) -> &'static str {
    match (is_tls, http2) {
        // TLS has negotiated h2 by then.
        (true, true) => "its server may be going down",
        (true, false) => "it may speak another protocol inside TLS, or its server is going down",
        (false, true) => CLOSED_HINT_HTTP2,
        (false, false) => "this port may speak TLS or another protocol, or its server is going down",
    }
}

/// For an answer with `status` of a peer that asked for a client certificate when the check has none; `hint` is the one for
/// the answer alone. Nginx and others accept the handshake and reject the request (400, or 495 and 496).
pub(in crate::probe) fn certificate_hint(status: Option<u16>, hint: Option<&'static str>) -> Option<&'static str> {
    const ASKED: &str = "it asked for a client certificate, which it may need: set tls.client_cert and tls.client_key";
    match (status, hint) {
        (Some(400 | 495 | 496), _) | (Some(401 | 403), Some(_)) => Some(ASKED),
        (_, hint) => hint,
    }
}

pub(super) fn connect_hint(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::ECONNREFUSED | Errno::ENOENT => Some("nothing listens there"),
        Errno::EHOSTUNREACH | Errno::ENETUNREACH => Some("no route from this machine"),
        Errno::EACCES | Errno::EPERM => {
            Some("this process may not connect: permissions of the socket, or a local firewall")
        }
        Errno::ETIMEDOUT => Some(
            "the host is down, a firewall drops what is sent to it, or its queue of new connections is full: overloaded or \
             stopped",
        ),
        Errno::EAGAIN => Some("it listens, but does not accept: overloaded or stopped"),
        _ => None,
    }
}

pub(super) fn resource_hint(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::EMFILE => Some("raise the limit of open files (ulimit -n, LimitNOFILE)"),
        Errno::EADDRNOTAVAIL => {
            Some("widen net.ipv4.ip_local_port_range, or give this machine an address of that family")
        }
        _ => None,
    }
}

/// Phrases in the answer to a plain request on a TLS port: nginx, Go, Apache, Tomcat.
const TLS_WORDS: [&str; 4] = ["HTTPS port", "HTTPS server", "SSL-enabled server port", "requires TLS"];

/// The parts of the request that affect the meaning of a status.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub method: &'a str,
    /// The check sets the Host itself.
    pub has_host: bool,
    /// Credentials were sent.
    pub has_credentials: bool,
    /// A TLS handshake has succeeded.
    pub is_tls: bool,
}

const WRONG_CREDENTIALS_HINT: &str = "it does not accept the credentials that the check sends";
pub(super) const REFUSED_HINT: &str = "it refuses the credentials, the Host, an Origin or our address";

/// For an unexpected status: only what is true for every system that sends it. A status that some systems use for their own
/// states (429 and 501 of Vault, 503 of most) has no hint.
pub(super) fn status_hint(asked: Asked<'_>, status: u16, body: &[u8]) -> Option<&'static str> {
    let says_tls = || {
        let text = String::from_utf8_lossy(body);
        TLS_WORDS.iter().any(|words| text.contains(words))
    };
    match status {
        400 if says_tls() => (!asked.is_tls).then_some("this port speaks TLS"),
        400 if !asked.has_host => Some("it may not accept the address as Host: set host"),
        // Not modified: no redirect.
        304 => None,
        300..400 => Some("redirects are not followed: check the final path, or list the status"),
        401 if asked.has_credentials => Some(WRONG_CREDENTIALS_HINT),
        401 => Some("needs credentials"),
        403 => Some(REFUSED_HINT),
        404 => Some("path wrong, endpoint disabled, or another Host is expected"),
        405 if asked.method == "HEAD" => Some("it does not accept HEAD: use GET"),
        405 => Some("it does not accept this method"),
        421 if asked.is_tls => Some("it does not serve this Host on this connection: check host and tls.server_name"),
        421 => Some("it does not serve this Host: check host"),
        426 => Some("it requires another protocol on this path"),
        _ => None,
    }
}

/// For bytes that are not an HTTP/1 answer.
pub(super) fn protocol_hint(seen: &[u8], is_tls: bool) -> Option<&'static str> {
    match seen {
        [0x15 | 0x16, 0x03, ..] => (!is_tls).then_some("this port speaks TLS"),
        // A SETTINGS frame on stream 0, or GOAWAY: what an HTTP/2 server sends first.
        [0, 0, _, 0x04 | 0x07, _, 0, 0, 0, 0, ..] => Some("it speaks HTTP/2: set version = \"h2\""),
        [b'H', b'T', b'T', b'P', b'/', ..] => Some("another version of HTTP than 1.0 or 1.1"),
        // There is an answer in it, after something else.
        _ if seen.windows(5).any(|window| window == b"HTTP/") => None,
        _ if is_tls => Some("it speaks another protocol than HTTP inside TLS"),
        _ => Some("this port speaks another protocol than HTTP"),
    }
}

/// For a TLS handshake that did not complete; `speaks_tls`: the peer sent a TLS record.
pub(super) fn handshake_hint(cut: Cutoff, speaks_tls: bool) -> &'static str {
    match (cut, speaks_tls) {
        (Cutoff::Deadline, true) => "its server is overloaded or stopped, or the network loses packets",
        (Cutoff::Deadline, false) => "this port may not speak TLS, or its server is overloaded or stopped",
        (Cutoff::Closed | Cutoff::Broke(_), true) => "its server may be going down",
        (Cutoff::Closed | Cutoff::Broke(_), false) => "this port may not speak TLS, or its server is going down",
    }
}

/// For a text that was not received (`expects`), or could not be sent; `sends`: one is sent first.
pub(super) fn text_hint(
    cut: Option<Cutoff>,
    expects: bool,
    sends: bool,
    received: &[u8],
    is_tls: bool,
) -> Option<&'static str> {
    match (cut, received.len()) {
        (_, 1..) if matches!(received, [0x15 | 0x16, 0x03, ..]) => (!is_tls).then_some("this port speaks TLS"),
        (Some(Cutoff::Deadline), 0) if !expects => {
            Some("it accepts connections but does not read: overloaded or stopped")
        }
        (Some(Cutoff::Deadline), 0) if sends => Some("it accepts connections but does not answer what was sent"),
        (Some(Cutoff::Deadline), 0) => {
            Some("it accepts connections but sends nothing: it may wait for the client to send first")
        }
        (Some(Cutoff::Closed | Cutoff::Broke(_)), 0) if is_tls => Some("it may speak another protocol inside TLS"),
        (Some(Cutoff::Closed | Cutoff::Broke(_)), 0) => Some("this port may speak TLS or another protocol"),
        (Some(_) | None, _) => None,
    }
}

/// For a port that should speak HTTP/2 and sent `seen`.
pub(super) fn not_http2_hint(seen: &[u8], grpc: bool, is_tls: bool) -> Option<&'static str> {
    match seen {
        [0x15 | 0x16, 0x03, ..] => (!is_tls).then_some("this port speaks TLS"),
        [b'H', b'T', b'T', b'P', b'/', ..] if grpc => Some("it answers in HTTP/1, and gRPC needs HTTP/2"),
        [b'H', b'T', b'T', b'P', b'/', ..] => Some("it answers in HTTP/1: remove version = \"h2\""),
        _ if is_tls => Some("it speaks another protocol than HTTP/2 inside TLS"),
        _ => Some("this port speaks another protocol than HTTP/2"),
    }
}

/// For a connection or stream that the peer has ended with an error code (RFC 9113, section 7).
pub(super) fn http2_hint(reason: h2::Reason, grpc: bool, is_tls: bool) -> Option<&'static str> {
    match reason {
        h2::Reason::NO_ERROR => Some("its server is going down"),
        h2::Reason::INTERNAL_ERROR => Some("see its log"),
        h2::Reason::REFUSED_STREAM => Some("it accepts no requests now: overloaded or going down"),
        h2::Reason::ENHANCE_YOUR_CALM => Some("it limits how often it is checked: raise the interval"),
        h2::Reason::INADEQUATE_SECURITY if is_tls => Some("it requires another TLS version or cipher suite"),
        h2::Reason::INADEQUATE_SECURITY => Some("it requires TLS"),
        h2::Reason::HTTP_1_1_REQUIRED if grpc => Some("it requires HTTP/1.1 here, and gRPC needs HTTP/2"),
        h2::Reason::HTTP_1_1_REQUIRED => Some("it requires HTTP/1.1 here: remove version = \"h2\""),
        _ => None,
    }
}

/// For a status code of gRPC: by its definition, which every server shares.
pub(super) fn grpc_hint(code: u32, has_credentials: bool) -> Option<&'static str> {
    match code {
        4 => Some("it, or a proxy in front of it, timed out: a dependency of its health check is slow"),
        7 => Some(REFUSED_HINT),
        8 => Some("a quota or another resource is exhausted"),
        14 => Some("it is starting or going down, or a proxy in front of it cannot reach a server"),
        16 if has_credentials => Some(WRONG_CREDENTIALS_HINT),
        16 => Some("needs credentials"),
        2 | 13 => Some("see its log"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
