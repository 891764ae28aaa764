//! What an operator may want to try: the one table of hints.

use nix::errno::Errno;

use super::Cut;

/// For a connection on which nothing comes.
pub(super) const NO_ANSWER_HINT: &str =
    "it accepts connections but does not answer: overloaded, stopped, or another protocol";
/// For an answer that only the end of its connection would have ended.
pub(super) const UNENDED_HINT: &str =
    "it must send Content-Length or chunks, or close as asked; a rule with contains passes without the end";
/// For one that is closed instead of an answer in HTTP/2.
pub(super) const CLOSED_HINT_HTTP2: &str =
    "this port may speak HTTP/1 only, TLS or another protocol, or its server is going down";

pub(super) fn connect_hint(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::ECONNREFUSED | Errno::ENOENT => Some("nothing listens there"),
        Errno::EHOSTUNREACH | Errno::ENETUNREACH => Some("no route from this machine"),
        Errno::EACCES | Errno::EPERM => {
            Some("this process may not connect: permissions of the socket, or a local firewall")
        }
        Errno::ETIMEDOUT => Some("the host is down, or a firewall drops what is sent to it"),
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

/// What servers say to a plain request on their TLS port: nginx, Go, Apache, Tomcat.
const TLS_WORDS: [&str; 4] = ["HTTPS port", "HTTPS server", "SSL-enabled server port", "requires TLS"];

pub(super) fn status_hint(method: &str, status: u16, body: &[u8]) -> Option<&'static str> {
    let says_tls = || {
        let text = String::from_utf8_lossy(body);
        TLS_WORDS.iter().any(|words| text.contains(words))
    };
    match status {
        400 if says_tls() => Some("this port speaks TLS"),
        300..400 => Some("redirects are not followed: check the final path, or list the status"),
        401 | 403 => Some("needs credentials"),
        404 => Some("path wrong or endpoint disabled"),
        405 if method == "HEAD" => Some("it does not take HEAD: use GET"),
        405 | 501 => Some("it does not take this method"),
        421 => Some("it serves other host names: set host"),
        426 => Some("it wants another protocol on this path"),
        429 => Some("it limits how often it is asked: raise the interval"),
        _ => None,
    }
}

pub(super) fn protocol_hint(seen: &[u8]) -> Option<&'static str> {
    match seen {
        [0x15 | 0x16, 0x03, ..] => Some("this port speaks TLS"),
        // A SETTINGS frame on stream 0, or GOAWAY: what an HTTP/2 server sends first.
        [0, 0, _, 0x04 | 0x07, _, 0, 0, 0, 0, ..] => Some("this port speaks HTTP/2 only"),
        [b'H', b'T', b'T', b'P', b'/', ..] => Some("another version of HTTP than 1.0 or 1.1"),
        _ => Some("this port speaks another protocol than HTTP"),
    }
}

/// Of a TLS handshake that was cut off.
pub(super) fn handshake_hint(cut: Cut) -> &'static str {
    match cut {
        Cut::Deadline => "this port may not speak TLS, or its server is overloaded or stopped",
        Cut::Closed | Cut::Broke(_) => "this port may not speak TLS, or its server is going down",
    }
}

/// Of a text that did not come (`expects`), or could not be sent; `sends`: one is sent first.
pub(super) fn unheard_hint(cut: Option<Cut>, expects: bool, sends: bool, heard: &[u8]) -> Option<&'static str> {
    match (cut, heard.len()) {
        (_, 1..) if matches!(heard, [0x15 | 0x16, 0x03, ..]) => Some("this port speaks TLS"),
        (Some(Cut::Deadline), 0) if !expects => Some("it takes connections but does not read: overloaded or stopped"),
        (Some(Cut::Deadline), 0) if sends => Some("it accepts connections but does not answer what was sent"),
        (Some(Cut::Deadline), 0) => Some("it accepts connections but says nothing: it may wait for a text first"),
        (Some(Cut::Closed | Cut::Broke(_)), 0) => Some("this port may speak TLS or another protocol"),
        (Some(_) | None, _) => None,
    }
}

/// For a port that was to speak HTTP/2 and said `seen`.
pub(super) fn not_http2_hint(seen: &[u8], grpc: bool) -> Option<&'static str> {
    match seen {
        [0x15 | 0x16, 0x03, ..] => Some("this port speaks TLS"),
        [b'H', b'T', b'T', b'P', b'/', ..] if grpc => Some("this port speaks HTTP/1 only, and gRPC needs HTTP/2"),
        [b'H', b'T', b'T', b'P', b'/', ..] => Some("this port speaks HTTP/1 only: leave version = \"h2\" out"),
        _ => Some("this port speaks another protocol than HTTP/2"),
    }
}

/// For a connection or stream that the peer has ended with an error code (RFC 9113, section 7).
pub(super) fn http2_hint(reason: h2::Reason, grpc: bool) -> Option<&'static str> {
    match reason {
        h2::Reason::NO_ERROR => Some("its server is going down"),
        h2::Reason::INTERNAL_ERROR => Some("its own log says why"),
        h2::Reason::REFUSED_STREAM => Some("it takes no requests now: overloaded or going down"),
        h2::Reason::ENHANCE_YOUR_CALM => Some("it limits how often it is asked: raise the interval"),
        h2::Reason::INADEQUATE_SECURITY => Some("it wants TLS, or a better version of it"),
        h2::Reason::HTTP_1_1_REQUIRED if grpc => Some("it wants HTTP/1.1 here, and gRPC needs HTTP/2"),
        h2::Reason::HTTP_1_1_REQUIRED => Some("it wants HTTP/1.1 here: leave version = \"h2\" out"),
        _ => None,
    }
}

/// For a status code of gRPC.
pub(super) fn grpc_hint(code: u32) -> Option<&'static str> {
    match code {
        4 => Some("it gave up by itself: what its health depends on is slow"),
        7 | 16 => Some("needs credentials"),
        8 => Some("it limits how often it is asked: raise the interval"),
        14 => Some("it is starting or going down, or a proxy before it reaches no server"),
        2 | 13 => Some("its own log says why"),
        _ => None,
    }
}
