//! Descriptions of certificates and of their faults. All text in a certificate comes from the peer: it is escaped and cut
//! at 256 bytes.

use std::error::Error as StdError;
use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use rustls::CertificateError;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::fault::{self, Shown};
use crate::model::date;

/// Bytes of each text.
const BYTES_MAX: usize = 256;
/// Names of a certificate that are shown.
const NAMES_MAX: usize = 5;

/// A certificate that was not accepted, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub(super) sentence: String,
    pub(super) hint: Option<&'static str>,
    pub(super) certificate: Box<str>,
    /// When it ends, in seconds since 1970.
    pub(super) expires: Option<i64>,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl StdError for Rejected {}

/// The message for `problem`.
pub(super) fn reject(problem: &CertificateError, shown: &Shown<'_>) -> Rejected {
    let parsed = X509Certificate::from_der(shown.leaf).ok().map(|(_, certificate)| certificate);
    let (sentence, hint) = match &parsed {
        Some(certificate) => fault::words(problem, certificate, shown),
        None => ("certificate cannot be read".to_owned(), None),
    };
    let expires = parsed.as_ref().map(not_after);
    Rejected { sentence, hint, certificate: parsed.map(|c| describe_parsed(&c)).unwrap_or_default(), expires }
}

/// Whether `now` is within the dates of `leaf`.
pub(super) fn check_dates(leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
    let unix = |seconds: i64| UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    let not_before = unix(leaf.validity().not_before.timestamp());
    let not_after = unix(leaf.validity().not_after.timestamp());
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before });
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after });
    }
    Ok(())
}

/// `CN=api.internal; names api.internal, 10.0.0.1; issuer CN=Our CA; until 2027-01-31T00:00:00Z`.
pub(super) fn describe(certificate: &CertificateDer<'_>) -> (Box<str>, Option<i64>) {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => (describe_parsed(&parsed), Some(not_after(&parsed))),
        Err(_) => ("cannot be read".into(), None),
    }
}

fn not_after(certificate: &X509Certificate<'_>) -> i64 {
    certificate.validity().not_after.timestamp()
}

fn describe_parsed(certificate: &X509Certificate<'_>) -> Box<str> {
    // The dates come last and must not be cut off.
    let mut out = String::with_capacity(160);
    push_plain(&mut out, &certificate.subject().to_string(), 64);
    for (label, text) in [("names", names(certificate)), ("issuer", certificate.issuer().to_string())] {
        if !text.is_empty() {
            out.push_str(if out.is_empty() { "" } else { "; " });
            out.push_str(label);
            out.push(' ');
            push_plain(&mut out, &text, 64);
        }
    }
    write!(out, "; until {}", date_of(not_after(certificate))).expect("writing to a string cannot fail");
    out.into_boxed_str()
}

/// The names it is for, escaped: `a.example, *.b.example, 10.0.0.1 and 3 more`.
pub(super) fn names(certificate: &X509Certificate<'_>) -> String {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return String::new() };
    let all = &extension.value.general_names;
    let names = all.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(plain(name).into_string()),
        GeneralName::IPAddress(bytes) => ip_words(bytes),
        _ => None,
    });
    listed(names)
}

/// The first of `items`, and how many more there are.
pub(super) fn listed(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    let mut out = items[..items.len().min(NAMES_MAX)].join(", ");
    if items.len() > NAMES_MAX {
        write!(out, " and {} more", items.len() - NAMES_MAX).expect("writing to a string cannot fail");
    }
    out
}

pub(super) fn ip_words(bytes: &[u8]) -> Option<String> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).to_string())
}

pub(super) fn date(at: &UnixTime) -> String {
    i64::try_from(at.as_secs()).map_or_else(|_| "a date out of range".to_owned(), date_of)
}

/// `2027-01-31T00:00:00Z`. Certificates may hold dates that are out of any calendar's range.
pub(super) fn date_of(seconds: i64) -> String {
    date::with_seconds(seconds).unwrap_or_else(|| "a date out of range".to_owned())
}

/// `text`, escaped and cut.
pub(super) fn plain(text: &str) -> Box<str> {
    let mut out = String::new();
    push_plain(&mut out, text, BYTES_MAX - '…'.len_utf8());
    out.into_boxed_str()
}

/// Appends `text`, escaped; more than `bytes` of it become an ellipsis.
fn push_plain(out: &mut String, text: &str, bytes: usize) {
    let end = out.len() + bytes;
    for c in text.chars() {
        let at = out.len();
        match c {
            '\'' | '"' => out.push(c),
            c => out.extend(c.escape_debug()),
        }
        if out.len() > end {
            out.truncate(at);
            out.push('…');
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(common_name: &str, names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name.remove(rcgen::DnType::CommonName);
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_is_described_with_its_names_and_its_end() {
        for (common_name, names, expected) in [
            (
                "a.example",
                &["a.example", "10.0.0.1", "fe80::1"][..],
                "CN=a.example; names a.example, 10.0.0.1, fe80::1; issuer CN=a.example; until 2030-01-01T00:00:00Z",
            ),
            ("none", &[], "CN=none; issuer CN=none; until 2030-01-01T00:00:00Z"),
            (
                "many",
                &["a", "b", "c", "d", "e", "f", "g"],
                "CN=many; names a, b, c, d, e and 2 more; issuer CN=many; until 2030-01-01T00:00:00Z",
            ),
        ] {
            assert_eq!(describe(&certificate(common_name, names)), (expected.into(), Some(1_893_456_000)));
        }
        assert_eq!(describe(&CertificateDer::from_slice(b"garbage")), ("cannot be read".into(), None));
    }

    #[test]
    fn a_hostile_certificate_is_escaped_and_cut_and_its_end_is_still_shown() {
        let long = format!("\u{1b}[2J\u{202e}{}", "ü".repeat(200));
        let names: Vec<String> = (0..100).map(|i| format!("{}{i}.example", "x".repeat(50))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (described, _) = describe(&certificate(&long, &names));
        assert!(described.len() <= 256, "{}: {described}", described.len());
        assert!(described.starts_with(r"CN=\u{1b}[2J\u{202e}üü"), "{described}");
        assert!(described.ends_with("…; until 2030-01-01T00:00:00Z"), "{described}");
        assert!(described.chars().all(|c| !c.is_control()), "{described}");
    }

    #[test]
    fn dates_hold_from_the_first_second_to_the_last() {
        let leaf = certificate("a.example", &[]);
        let second = |of: i64| UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(of).unwrap()));
        let first = rcgen::date_time_ymd(2020, 1, 1).unix_timestamp();
        let last = rcgen::date_time_ymd(2030, 1, 1).unix_timestamp();
        assert!(matches!(check_dates(&leaf, second(first - 1)), Err(CertificateError::NotValidYetContext { .. })));
        assert_eq!(check_dates(&leaf, second(first)), Ok(()));
        assert_eq!(check_dates(&leaf, second(last)), Ok(()));
        assert!(matches!(check_dates(&leaf, second(last + 1)), Err(CertificateError::ExpiredContext { .. })));
    }
}
