//! Why there is no TLS connection: the message, and the hint for the operator.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::IpAddr;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::words::{self, Rejected};

/// Why there is no TLS connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// This machine has no roots to verify with; the first error of the search.
    NoRoots(Option<Box<str>>),
    /// None of the configured roots can be used.
    BadRoots,
    /// Our certificate or its key cannot be used.
    Identity(Box<str>),
    /// This cannot be a name in a certificate.
    Name(Box<str>),
    /// The peer's certificate was not accepted.
    Certificate(Rejected),
    /// The peer sent something that is not TLS: its first bytes.
    NotTls(Box<[u8]>),
    /// The peer rejected us.
    Refused(Refusal),
    /// The peer asked for a client certificate, the policy has none, and the connection ended: how it ended.
    Lacking(Box<str>),
    /// The peer supports no TLS version that we support; its newest version, where it sent one.
    Version(Option<&'static str>),
    /// Anything else, in the library's words.
    Protocol(Box<str>),
}

/// A rejection by the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub(super) alert: AlertDescription,
    pub(super) certificate: ClientCertificate,
    /// The name we asked for.
    pub(super) name: Box<str>,
    /// The protocol we offered first (RFC 7301).
    pub(super) offered: Option<&'static str>,
}

/// Whether a handshake used a client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientCertificate {
    /// The peer has not asked for one.
    NotAsked,
    /// The peer asked, and the policy has none.
    Lacking,
    /// The peer asked, and got ours.
    Shown,
}

impl Failure {
    /// The failure for `error` of a handshake in which the peer sent `first` first. For an alert see [`Failure::refused`].
    pub(super) fn of_handshake(error: &Error, first: &[u8]) -> Failure {
        match error {
            Error::InvalidCertificate(CertificateError::Other(other)) => match other.0.downcast_ref::<Rejected>() {
                Some(rejected) => Failure::Certificate(rejected.clone()),
                None => Failure::Protocol(words::plain(&error.to_string())),
            },
            Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => Failure::Version(version_of(first)),
            _ if !first.is_empty() && !is_tls(first) => Failure::NotTls(first.into()),
            error => Failure::Protocol(words::plain(&error.to_string())),
        }
    }

    /// The failure for an alert of the peer, in the handshake or after it.
    pub(super) fn refused(refusal: Refusal) -> Failure {
        match (refusal.alert, refusal.certificate) {
            (AlertDescription::ProtocolVersion, ClientCertificate::NotAsked) => Failure::Version(None),
            // Whatever the alert: servers use a dozen different ones for a missing certificate.
            (alert, ClientCertificate::Lacking) => {
                Failure::Lacking(format!("TLS refused with alert {}", alert_words(alert)).into_boxed_str())
            }
            (_, ClientCertificate::NotAsked | ClientCertificate::Shown) => Failure::Refused(refusal),
        }
    }

    /// The peer asked for a client certificate, the policy has none, and the connection ended without an alert, as `end`
    /// describes.
    pub fn lacking(end: &str) -> Failure {
        Failure::Lacking(end.into())
    }

    pub(super) fn identity(error: &Error) -> Failure {
        Failure::Identity(match error {
            Error::InconsistentKeys(_) => "its key is that of another certificate".into(),
            error => words::plain(&error.to_string()),
        })
    }

    /// A description of the certificate at fault.
    pub(super) fn certificate(&self) -> Option<&str> {
        match self {
            Failure::Certificate(rejected) if !rejected.certificate.is_empty() => Some(&rejected.certificate),
            _ => None,
        }
    }

    /// When that certificate ends, in seconds since 1970.
    pub(super) fn certificate_expiry(&self) -> Option<i64> {
        match self {
            Failure::Certificate(rejected) => rejected.expires,
            _ => None,
        }
    }

    /// What the peer sent instead of TLS.
    pub fn first_bytes(&self) -> Option<&[u8]> {
        match self {
            Failure::NotTls(first) => Some(first),
            _ => None,
        }
    }

    /// What the operator can try.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Failure::NoRoots(_) => Some("install ca-certificates, or set tls.ca_file"),
            Failure::BadRoots => Some("tls.ca_file holds no certificate that can be used"),
            Failure::Identity(_) => Some("check tls.client_cert and tls.client_key"),
            Failure::Name(_) => Some("set tls.server_name"),
            Failure::Certificate(rejected) => rejected.hint,
            Failure::NotTls(first) if first.starts_with(b"HTTP/") => {
                Some("this port speaks plain HTTP: remove TLS from the check")
            }
            Failure::NotTls(_) => Some("this port does not speak TLS"),
            Failure::Refused(refusal) => refusal.hint(),
            Failure::Lacking(_) => Some("set tls.client_cert and tls.client_key"),
            Failure::Version(_) => Some("enable TLS 1.2 or 1.3 in the server: older versions are not supported"),
            Failure::Protocol(_) => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NoRoots(None) => f.write_str("no TLS: this machine has no root certificates to verify with"),
            Failure::NoRoots(Some(error)) => {
                write!(f, "no TLS: this machine has no root certificates to verify with: {error}")
            }
            Failure::BadRoots => f.write_str("no TLS: the configured roots cannot be used"),
            Failure::Identity(why) => write!(f, "no TLS: the client certificate cannot be used: {why}"),
            Failure::Name(name) => write!(f, "no TLS: {name} cannot be a name in a certificate"),
            Failure::Certificate(rejected) => write!(f, "{rejected}"),
            Failure::NotTls(first) if first.starts_with(b"HTTP/") => {
                f.write_str("plain HTTP answered the TLS handshake")
            }
            Failure::NotTls(_) => f.write_str("the answer to the TLS handshake is not TLS"),
            Failure::Refused(refusal) => write!(f, "{refusal}"),
            Failure::Lacking(end) => write!(f, "{end}: it asked for a client certificate and the check has none"),
            Failure::Version(Some(newest)) => {
                write!(f, "TLS refused: it speaks only {newest} or older, and a check needs TLS 1.2 or 1.3")
            }
            Failure::Version(None) => {
                f.write_str("TLS refused: it speaks only TLS 1.1 or older, and a check needs TLS 1.2 or 1.3")
            }
            Failure::Protocol(text) => write!(f, "TLS failed: {text}"),
        }
    }
}

/// The alert that ended a connection after its handshake. With TLS 1.3 a peer rejects a client certificate, or a missing
/// one, only then.
pub fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// The first byte of a record is its type, then comes 3 (RFC 8446, section 5.1).
pub(super) fn is_tls(first: &[u8]) -> bool {
    matches!(first, [0x14..=0x18] | [0x14..=0x18, 0x03, ..])
}

/// The version of a ServerHello older than TLS 1.2: the newest that its sender speaks (RFC 5246, appendix E.1).
fn version_of(first: &[u8]) -> Option<&'static str> {
    match first {
        [0x16, 3, _, _, _, 2, _, _, _, 3, 0, ..] => Some("SSL 3.0"),
        [0x16, 3, _, _, _, 2, _, _, _, 3, 1, ..] => Some("TLS 1.0"),
        [0x16, 3, _, _, _, 2, _, _, _, 3, 2, ..] => Some("TLS 1.1"),
        _ => None,
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.alert, self.offered) {
            (AlertDescription::UnrecognisedName, _) => {
                write!(f, "TLS refused: it does not know the name {}", self.name)
            }
            (AlertDescription::NoApplicationProtocol, Some(offered)) => {
                write!(f, "TLS refused: it does not speak {offered}")
            }
            (alert, _) => write!(f, "TLS refused with alert {}", alert_words(alert)),
        }
    }
}

impl Refusal {
    fn hint(&self) -> Option<&'static str> {
        // No name is sent for an address (RFC 6066, section 3).
        let nameless = self.name.parse::<IpAddr>().is_ok();
        match self.alert {
            AlertDescription::CertificateRequired | AlertDescription::NoCertificate
                if self.certificate == ClientCertificate::NotAsked =>
            {
                Some("set tls.client_cert and tls.client_key")
            }
            AlertDescription::InternalError if nameless => Some("it may require a server name: set tls.server_name"),
            AlertDescription::UnrecognisedName => Some("set tls.server_name to a name that it serves"),
            AlertDescription::NoApplicationProtocol if self.offered == Some("h2") => {
                Some("it does not offer HTTP/2 on this port, which gRPC and version = \"h2\" need")
            }
            AlertDescription::NoApplicationProtocol => Some("it may speak HTTP/2 only: set version = \"h2\""),
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
                if self.certificate == ClientCertificate::Shown =>
            {
                Some("it does not accept our client certificate")
            }
            AlertDescription::HandshakeFailure | AlertDescription::DecryptError
                if self.certificate == ClientCertificate::Shown =>
            {
                Some("it may not accept our client certificate")
            }
            // The peer did not ask for a certificate, so a missing one is not the reason.
            AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity if nameless => Some(
                "it may require a server name (tls.server_name), or has no cipher suite, curve or kind of key in \
                 common with us",
            ),
            AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
                Some("it has no cipher suite, curve or kind of key in common with us, or does not serve this name")
            }
            _ => None,
        }
    }
}

/// The names of RFC 8446, section 6.
fn alert_words(alert: AlertDescription) -> Cow<'static, str> {
    Cow::Borrowed(match alert {
        AlertDescription::CloseNotify => "close_notify",
        AlertDescription::UnexpectedMessage => "unexpected_message",
        AlertDescription::BadRecordMac => "bad_record_mac",
        AlertDescription::RecordOverflow => "record_overflow",
        AlertDescription::HandshakeFailure => "handshake_failure",
        AlertDescription::NoCertificate => "no_certificate",
        AlertDescription::BadCertificate => "bad_certificate",
        AlertDescription::UnsupportedCertificate => "unsupported_certificate",
        AlertDescription::CertificateRevoked => "certificate_revoked",
        AlertDescription::CertificateExpired => "certificate_expired",
        AlertDescription::CertificateUnknown => "certificate_unknown",
        AlertDescription::IllegalParameter => "illegal_parameter",
        AlertDescription::UnknownCA => "unknown_ca",
        AlertDescription::AccessDenied => "access_denied",
        AlertDescription::DecodeError => "decode_error",
        AlertDescription::DecryptError => "decrypt_error",
        AlertDescription::ProtocolVersion => "protocol_version",
        AlertDescription::InsufficientSecurity => "insufficient_security",
        AlertDescription::InternalError => "internal_error",
        AlertDescription::InappropriateFallback => "inappropriate_fallback",
        AlertDescription::UserCanceled => "user_canceled",
        AlertDescription::NoRenegotiation => "no_renegotiation",
        AlertDescription::MissingExtension => "missing_extension",
        AlertDescription::UnsupportedExtension => "unsupported_extension",
        AlertDescription::UnrecognisedName => "unrecognized_name",
        AlertDescription::BadCertificateStatusResponse => "bad_certificate_status_response",
        AlertDescription::UnknownPSKIdentity => "unknown_psk_identity",
        AlertDescription::CertificateRequired => "certificate_required",
        AlertDescription::NoApplicationProtocol => "no_application_protocol",
        other => return Cow::Owned(u8::from(other).to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_distinguished_from_anything_else() {
        for (first, tls) in [
            (&b"\x16\x03\x01"[..], true),
            (b"\x15", true),
            (b"\x15\x03\x03\0\x02", true),
            (b"HTTP/1.1 400", false),
            (b"SSH-2.0", false),
            (b"\x15\x07", false),
            (b"\0", false),
        ] {
            assert_eq!(is_tls(first), tls, "{first:?}");
        }
    }

    fn refusal(alert: AlertDescription, certificate: ClientCertificate, name: &str) -> Refusal {
        Refusal { alert, certificate, name: name.into(), offered: Some("http/1.1") }
    }

    #[test]
    fn a_rejection_has_a_hint() {
        use ClientCertificate::{NotAsked, Shown};
        let in_common =
            Some("it has no cipher suite, curve or kind of key in common with us, or does not serve this name");
        for (alert, certificate, name, sentence, hint) in [
            (
                AlertDescription::UnrecognisedName,
                NotAsked,
                "a.example",
                "TLS refused: it does not know the name a.example",
                Some("set tls.server_name to a name that it serves"),
            ),
            (
                AlertDescription::InternalError,
                NotAsked,
                "10.0.0.1",
                "TLS refused with alert internal_error",
                Some("it may require a server name: set tls.server_name"),
            ),
            (AlertDescription::InternalError, NotAsked, "a.example", "TLS refused with alert internal_error", None),
            (
                AlertDescription::HandshakeFailure,
                NotAsked,
                "a.example",
                "TLS refused with alert handshake_failure",
                in_common,
            ),
            (
                AlertDescription::HandshakeFailure,
                NotAsked,
                "10.0.0.1",
                "TLS refused with alert handshake_failure",
                Some(
                    "it may require a server name (tls.server_name), or has no cipher suite, curve or kind of \
                     key in common with us",
                ),
            ),
            (
                AlertDescription::HandshakeFailure,
                Shown,
                "a.example",
                "TLS refused with alert handshake_failure",
                Some("it may not accept our client certificate"),
            ),
            (
                AlertDescription::UnknownCA,
                Shown,
                "a.example",
                "TLS refused with alert unknown_ca",
                Some("it does not accept our client certificate"),
            ),
            // It never asked for one: ours cannot be what it refuses.
            (AlertDescription::UnknownCA, NotAsked, "a.example", "TLS refused with alert unknown_ca", None),
            (AlertDescription::BadCertificate, NotAsked, "a.example", "TLS refused with alert bad_certificate", None),
            (
                AlertDescription::NoApplicationProtocol,
                NotAsked,
                "a.example",
                "TLS refused: it does not speak http/1.1",
                Some("it may speak HTTP/2 only: set version = \"h2\""),
            ),
            (AlertDescription::from(200), NotAsked, "a.example", "TLS refused with alert 200", None),
        ] {
            let failure = Failure::refused(refusal(alert, certificate, name));
            assert_eq!((failure.to_string().as_str(), failure.hint()), (sentence, hint));
        }
        let h2 =
            Refusal { offered: Some("h2"), ..refusal(AlertDescription::NoApplicationProtocol, NotAsked, "a.example") };
        assert_eq!(
            Failure::refused(h2).hint(),
            Some("it does not offer HTTP/2 on this port, which gRPC and version = \"h2\" need")
        );
    }

    #[test]
    fn a_missing_certificate_is_named_whatever_the_alert() {
        let hint = Some("set tls.client_cert and tls.client_key");
        let lack = "it asked for a client certificate and the check has none";
        for (alert, word) in [
            (AlertDescription::CertificateRequired, "certificate_required"),
            (AlertDescription::HandshakeFailure, "handshake_failure"),
            (AlertDescription::BadCertificate, "bad_certificate"),
            (AlertDescription::CertificateUnknown, "certificate_unknown"),
            (AlertDescription::AccessDenied, "access_denied"),
            (AlertDescription::InternalError, "internal_error"),
            (AlertDescription::ProtocolVersion, "protocol_version"),
        ] {
            let failure = Failure::refused(refusal(alert, ClientCertificate::Lacking, "a.example"));
            assert_eq!(failure.to_string(), format!("TLS refused with alert {word}: {lack}"));
            assert_eq!(failure.hint(), hint);
        }
        let closed = Failure::lacking("connection closed");
        assert_eq!((closed.to_string(), closed.hint()), (format!("connection closed: {lack}"), hint));
    }

    #[test]
    fn an_old_version_is_named_where_the_peer_sends_it() {
        let hello = |minor| [&[0x16, 3, minor, 0, 60, 2, 0, 0, 56, 3, minor][..], &[7; 40]].concat();
        let old = Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13);
        for (first, sentence) in [
            (hello(1), "TLS refused: it speaks only TLS 1.0 or older, and a check needs TLS 1.2 or 1.3"),
            (hello(2), "TLS refused: it speaks only TLS 1.1 or older, and a check needs TLS 1.2 or 1.3"),
            (hello(0), "TLS refused: it speaks only SSL 3.0 or older, and a check needs TLS 1.2 or 1.3"),
            (vec![0x16, 3], "TLS refused: it speaks only TLS 1.1 or older, and a check needs TLS 1.2 or 1.3"),
        ] {
            assert_eq!(Failure::of_handshake(&old, &first).to_string(), sentence);
        }
        let alert = refusal(AlertDescription::ProtocolVersion, ClientCertificate::NotAsked, "a.example");
        assert_eq!(Failure::refused(alert), Failure::Version(None));
    }
}
