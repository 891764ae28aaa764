//! Each hint against real answers of several systems: it must be true for all that send such an answer.

use super::*;

const PLAIN: Asked<'_> = Asked { method: "GET", has_host: false, has_credentials: false, is_tls: false };

#[test]
fn a_status_has_a_hint_only_where_it_means_the_same_everywhere() {
    let host = Asked { has_host: true, ..PLAIN };
    let tls = Asked { is_tls: true, ..PLAIN };
    for (asked, status, body, hint) in [
        // Django's ALLOWED_HOSTS; nginx and a plain request on its TLS port.
        (PLAIN, 400, "<h1>Bad Request (400)</h1>", Some("it may not accept the address as Host: set host")),
        (host, 400, "<h1>Bad Request (400)</h1>", None),
        (PLAIN, 400, "The plain HTTP request was sent to HTTPS port", Some("this port speaks TLS")),
        (PLAIN, 400, "Client sent an HTTP request to an HTTPS server.", Some("this port speaks TLS")),
        // A proxy ends TLS, and the server behind it requires TLS too: the port does speak TLS.
        (tls, 400, "The plain HTTP request was sent to HTTPS port", None),
        (PLAIN, 401, "", Some("needs credentials")),
        (Asked { has_credentials: true, ..PLAIN }, 401, "", Some(WRONG_CREDENTIALS_HINT)),
        (Asked { has_credentials: true, ..PLAIN }, 403, "", Some(REFUSED_HINT)),
        // The hosts of Rails, Tomcat's addresses, an Origin, credentials without the right.
        (PLAIN, 403, "Blocked hosts: 127.0.0.1:24211", Some(REFUSED_HINT)),
        (PLAIN, 404, "", Some("path wrong, endpoint disabled, or another Host is expected")),
        (PLAIN, 405, "", Some("it does not accept this method")),
        (Asked { method: "HEAD", ..PLAIN }, 405, "", Some("it does not accept HEAD: use GET")),
        (PLAIN, 301, "", Some("redirects are not followed: check the final path, or list the status")),
        (PLAIN, 308, "", Some("redirects are not followed: check the final path, or list the status")),
        (PLAIN, 304, "", None),
        (PLAIN, 421, "", Some("it does not serve this Host: check host")),
        (tls, 421, "", Some("it does not serve this Host on this connection: check host and tls.server_name")),
        // Vault: standby, performance standby, not initialized, sealed; and a rate limit with the same status.
        (PLAIN, 429, "", None),
        (PLAIN, 473, "", None),
        (PLAIN, 501, "", None),
        (PLAIN, 503, "", None),
        (PLAIN, 500, "", None),
        (PLAIN, 200, "", None),
    ] {
        assert_eq!(status_hint(asked, status, body.as_bytes()), hint, "{asked:?} {status} {body}");
    }
}

#[test]
fn a_certificate_that_was_asked_for_explains_a_refusal() {
    let asked = Some("it asked for a client certificate, which it may need: set tls.client_cert and tls.client_key");
    for (status, hint, expected) in [
        (Some(400), None, asked),
        (Some(496), None, asked),
        (Some(403), Some("x"), asked),
        (Some(401), Some("x"), asked),
        // The answer itself has the reason.
        (Some(403), None, None),
        (Some(404), Some("x"), Some("x")),
        (Some(503), None, None),
        (None, Some("x"), Some("x")),
    ] {
        assert_eq!(certificate_hint(status, hint), expected, "{status:?} {hint:?}");
    }
}

/// Inside TLS no hint doubts that the port speaks TLS, or the protocol that ALPN has negotiated.
#[test]
fn no_hint_contradicts_a_handshake() {
    let hello: &[u8] = &[0x16, 3, 3, 0, 1];
    let noises: [&[u8]; 5] = [hello, b"\x15\x03\x01", b"SSH-2.0-x", b"HTTP/9", b"\0\0\0\x04\0\0\0\0\0"];
    let cuts = [Cutoff::Closed, Cutoff::Deadline, Cutoff::Broke(Errno::ECONNRESET)];
    let reasons = (0..16_u32).map(h2::Reason::from);
    let mut hints: Vec<&str> = vec![no_answer_hint(true), closed_hint(true, false), closed_hint(true, true)];
    hints.extend(noises.iter().filter_map(|noise| protocol_hint(noise, true)));
    hints.extend(noises.iter().filter_map(|noise| not_http2_hint(noise, false, true)));
    hints.extend(noises.iter().filter_map(|noise| text_hint(None, true, true, noise, true)));
    hints.extend(cuts.iter().filter_map(|cut| text_hint(Some(*cut), true, true, b"", true)));
    hints.extend(cuts.iter().map(|cut| handshake_hint(*cut, true)));
    hints.extend(reasons.filter_map(|reason| http2_hint(reason, false, true)));
    for hint in &hints {
        assert!(!hint.contains("this port"), "{hint}");
        assert!(
            !hint.contains("may speak TLS") && !hint.contains("may not speak") && *hint != "it requires TLS",
            "{hint}"
        );
    }
    assert!(hints.len() > 10);
    assert!(!closed_hint(true, true).contains("HTTP/1"), "h2 was settled");
}

#[test]
fn other_protocols_are_recognised() {
    for (seen, hint) in [
        (&b"\x15\x03\x01\0\x02"[..], Some("this port speaks TLS")),
        (b"\0\0\x12\x04\0\0\0\0\0", Some("it speaks HTTP/2: set version = \"h2\"")),
        (b"SSH-2.0-OpenSSH", Some("this port speaks another protocol than HTTP")),
        // An answer after other bytes: it is HTTP.
        (b"  HTTP/1.1 200 OK\r\n", None),
    ] {
        assert_eq!(protocol_hint(seen, false), hint, "{seen:?}");
    }
}
