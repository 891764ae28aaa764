//! Why there is no TLS connection: the sentence, and what may be done about it.

use std::fmt;
use std::io;
use std::net::IpAddr;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
use rustls_pki_types::ServerName;

use super::words::{self, Rejected};

/// Why there is no TLS connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// This machine has no roots to verify with; what was said when they were looked for.
    NoRoots(Option<Box<str>>),
    /// None of the configured roots can be used.
    BadRoots,
    /// Our certificate or its key cannot be used.
    Identity(Box<str>),
    /// This can be no name of a certificate.
    Name(Box<str>),
    /// The peer's certificate was not accepted.
    Certificate(Rejected),
    /// The peer said something that is not TLS: its first bytes.
    NotTls(Box<[u8]>),
    /// The peer refused us.
    Refused {
        /// What it said.
        alert: AlertDescription,
        /// Whether we have a certificate to show.
        identified: bool,
        /// The name we asked for.
        name: Box<str>,
    },
    /// The peer knows no version of TLS that we speak.
    Version,
    /// Anything else, in the library's words.
    Protocol(Box<str>),
}

impl Failure {
    /// What `error` of a handshake means, when `first` is what the peer said first.
    pub(super) fn of_handshake(error: &Error, first: &[u8], identified: bool, name: &ServerName<'_>) -> Failure {
        match error {
            Error::InvalidCertificate(CertificateError::Other(other)) => match other.0.downcast_ref::<Rejected>() {
                Some(rejected) => Failure::Certificate(rejected.clone()),
                None => Failure::Protocol(words::plain(&error.to_string())),
            },
            Error::AlertReceived(AlertDescription::ProtocolVersion)
            | Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => Failure::Version,
            Error::AlertReceived(alert) => Failure::refused(*alert, identified, name),
            _ if !first.is_empty() && !is_tls(first) => Failure::NotTls(first.into()),
            error => Failure::Protocol(words::plain(&error.to_string())),
        }
    }

    pub(super) fn refused(alert: AlertDescription, identified: bool, name: &ServerName<'_>) -> Failure {
        Failure::Refused { alert, identified, name: words::plain(&name.to_str()) }
    }

    pub(super) fn identity(error: &Error) -> Failure {
        Failure::Identity(match error {
            Error::InconsistentKeys(_) => "its key is that of another certificate".into(),
            error => words::plain(&error.to_string()),
        })
    }

    /// The certificate it is about, in words.
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

    /// What the peer said instead of TLS.
    pub fn heard(&self) -> Option<&[u8]> {
        match self {
            Failure::NotTls(first) => Some(first),
            _ => None,
        }
    }

    /// What the operator may want to try.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Failure::NoRoots(_) => Some("install ca-certificates, or set tls.ca_file"),
            Failure::BadRoots => Some("tls.ca_file holds no certificate that can be used"),
            Failure::Identity(_) => Some("check tls.client_cert and tls.client_key"),
            Failure::Name(_) => Some("set tls.server_name"),
            Failure::Certificate(rejected) => rejected.hint,
            Failure::NotTls(first) if first.starts_with(b"HTTP/") => Some("this port speaks plain HTTP: leave TLS out"),
            Failure::NotTls(_) => Some("this port does not speak TLS"),
            Failure::Refused { alert, identified, name } => {
                // No name is sent for an address (RFC 6066, section 3).
                refusal_hint(*alert, *identified, name.parse::<IpAddr>().is_ok())
            }
            Failure::Version => Some("it is too old, or limited to versions that are broken"),
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
            Failure::Name(name) => write!(f, "no TLS: {name} can be no name of a certificate"),
            Failure::Certificate(rejected) => write!(f, "{rejected}"),
            Failure::NotTls(first) if first.starts_with(b"HTTP/") => {
                f.write_str("plain HTTP answered the TLS handshake")
            }
            Failure::NotTls(_) => f.write_str("the answer to the TLS handshake is not TLS"),
            Failure::Refused { alert, name, .. } => write_refusal(f, *alert, name),
            Failure::Version => f.write_str("TLS refused: it speaks neither TLS 1.2 nor 1.3"),
            Failure::Protocol(text) => write!(f, "TLS failed: {text}"),
        }
    }
}

/// The alert that broke a connection behind its handshake. With TLS 1.3 that is where a peer refuses our certificate, or
/// that we have none.
pub fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// The first byte of a record is its type, then comes 3 (RFC 8446, section 5.1).
fn is_tls(first: &[u8]) -> bool {
    matches!(first, [0x14..=0x18] | [0x14..=0x18, 0x03, ..])
}

fn write_refusal(f: &mut fmt::Formatter<'_>, alert: AlertDescription, name: &str) -> fmt::Result {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            f.write_str("TLS refused: it requires a client certificate")
        }
        AlertDescription::UnrecognisedName => {
            write!(f, "TLS refused: it does not know the name {name}")
        }
        AlertDescription::NoApplicationProtocol => f.write_str("TLS refused: it speaks none of the protocols offered"),
        alert => write!(f, "TLS refused by the peer: alert {}", alert_words(alert)),
    }
}

/// The names of RFC 8446, section 6.
fn alert_words(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::UnexpectedMessage => "unexpected_message",
        AlertDescription::BadRecordMac => "bad_record_mac",
        AlertDescription::HandshakeFailure => "handshake_failure",
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
        AlertDescription::InsufficientSecurity => "insufficient_security",
        AlertDescription::InternalError => "internal_error",
        AlertDescription::UserCanceled => "user_canceled",
        AlertDescription::MissingExtension => "missing_extension",
        AlertDescription::UnsupportedExtension => "unsupported_extension",
        AlertDescription::UnrecognisedName => "unrecognized_name",
        _ => "of another kind",
    }
}

fn refusal_hint(alert: AlertDescription, identified: bool, nameless: bool) -> Option<&'static str> {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            Some("set tls.client_cert and tls.client_key")
        }
        AlertDescription::InternalError if nameless => Some("it may need to be asked for by name: set tls.server_name"),
        AlertDescription::UnrecognisedName => Some("set tls.server_name to a name that it serves"),
        AlertDescription::NoApplicationProtocol => Some("it may speak another version of HTTP: set version"),
        AlertDescription::HandshakeFailure | AlertDescription::BadCertificate | AlertDescription::AccessDenied
            if !identified =>
        {
            Some("it may want a client certificate or a server name, or has no cipher suite in common with us")
        }
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            Some("it has no cipher suite in common with us")
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied
            if identified =>
        {
            Some("it does not accept our client certificate")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_told_from_anything_else() {
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

    #[test]
    fn a_refusal_says_what_may_be_done() {
        for (alert, identified, name, sentence, hint) in [
            (
                AlertDescription::CertificateRequired,
                false,
                "a.example",
                "TLS refused: it requires a client certificate",
                Some("set tls.client_cert and tls.client_key"),
            ),
            (
                AlertDescription::UnrecognisedName,
                false,
                "a.example",
                "TLS refused: it does not know the name a.example",
                Some("set tls.server_name to a name that it serves"),
            ),
            (
                AlertDescription::InternalError,
                false,
                "10.0.0.1",
                "TLS refused by the peer: alert internal_error",
                Some("it may need to be asked for by name: set tls.server_name"),
            ),
            (
                AlertDescription::InternalError,
                false,
                "a.example",
                "TLS refused by the peer: alert internal_error",
                None,
            ),
            (
                AlertDescription::HandshakeFailure,
                false,
                "a.example",
                "TLS refused by the peer: alert handshake_failure",
                Some("it may want a client certificate or a server name, or has no cipher suite in common with us"),
            ),
            (
                AlertDescription::HandshakeFailure,
                true,
                "a.example",
                "TLS refused by the peer: alert handshake_failure",
                Some("it has no cipher suite in common with us"),
            ),
            (
                AlertDescription::UnknownCA,
                true,
                "a.example",
                "TLS refused by the peer: alert unknown_ca",
                Some("it does not accept our client certificate"),
            ),
            (AlertDescription::UnknownCA, false, "a.example", "TLS refused by the peer: alert unknown_ca", None),
            (AlertDescription::from(200), false, "a.example", "TLS refused by the peer: alert of another kind", None),
        ] {
            let failure = Failure::refused(alert, identified, &ServerName::try_from(name).unwrap());
            assert_eq!((failure.to_string().as_str(), failure.hint()), (sentence, hint));
        }
    }
}
