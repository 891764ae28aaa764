//! Files of TLS: certificates and private keys in PEM, read through `Env` and parsed here, so that a file that is missing,
//! empty or of another kind is a mistake in the configuration, before the first handshake.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::{Error as PemError, PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use schemars::{Schema, SchemaGenerator, json_schema};

use super::Text;
use super::http::host_problem;
use super::secret::FilePath;
use crate::config::read::{Node, Reader, Value};
use crate::model::Secret;
use crate::model::policy::{Certificate, FileMark};

/// How many certificates a file may hold: the bundles of systems have about 150.
const CERTIFICATES_MAX: usize = 1_000;

/// A PEM file of certificates, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    /// In the order of the file.
    pub list: Vec<Certificate>,
    /// The file as it was read.
    pub mark: FileMark,
}

impl Value for Certificates {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Certificates> {
        read_file(node, reader, "a PEM file of certificates", |path, reader| {
            let bytes = |all: &Certificates| all.list.iter().map(|certificate| certificate.0.len()).sum();
            let env = reader.env();
            let make = || {
                let pem = env.read_file(Path::new(path))?;
                Ok(Certificates { list: certificates(&pem)?, mark: FileMark::new(path, pem.as_bytes()) })
            };
            reader.store.certificates.get_or_make(path, bytes, make, str::to_owned)
        })
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

/// A PEM file with one private key; the text of that key alone is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateKey {
    /// In PEM.
    pub secret: Secret,
    /// The file as it was read.
    pub mark: FileMark,
}

impl Value for PrivateKey {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<PrivateKey> {
        read_file(node, reader, "a PEM file with a private key", |path, reader| {
            let pem = reader.env().read_file(Path::new(path))?;
            Ok(PrivateKey { secret: private_key(&pem)?, mark: FileMark::new(path, pem.as_bytes()) })
        })
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

/// Reads the file that `node` names. Messages name the file and never quote it: it may be a key.
fn read_file<T>(
    node: &Node<'_>,
    reader: &mut Reader<'_>,
    expected: &str,
    read: impl FnOnce(&str, &mut Reader<'_>) -> Result<T, String>,
) -> Option<T> {
    let path = FilePath::read(node, reader)?;
    match read(&path.0, reader) {
        Ok(value) => Some(value),
        Err(problem) => {
            reader.mistake(node.span(), format!("the file {:?} {problem}", path.0)).expected(expected).done();
            None
        }
    }
}

fn certificates(pem: &str) -> Result<Vec<Certificate>, String> {
    if pem.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    let mut out = Vec::new();
    for (index, certificate) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
        let number = index + 1;
        let der = certificate.map_err(|error| broken(&error))?;
        let whole = x509_parser::parse_x509_certificate(&der).is_ok_and(|(rest, _)| rest.is_empty());
        match (whole, number > CERTIFICATES_MAX) {
            (false, _) => return Err(format!("holds a certificate (number {number}) that cannot be parsed")),
            (true, true) => return Err(format!("holds more than {CERTIFICATES_MAX} certificates")),
            (true, false) => out.push(Certificate(Arc::from(der.as_ref()))),
        }
    }
    match out.is_empty() {
        true => Err(format!("holds no certificate{}", holds_instead(pem))),
        false => Ok(out),
    }
}

fn private_key(pem: &str) -> Result<Secret, String> {
    if pem.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    let mut keys = PrivateKeyDer::pem_slice_iter(pem.as_bytes());
    match (keys.next(), keys.next()) {
        (None, _) if pem.contains("BEGIN ENCRYPTED PRIVATE KEY") => {
            Err("holds a private key that needs a password; only one without is supported".to_owned())
        }
        (None, _) => Err(format!("holds no private key{}", holds_instead(pem))),
        (Some(Err(error)), _) | (_, Some(Err(error))) => Err(broken(&error)),
        (Some(Ok(_)), Some(Ok(_))) => Err("holds several private keys".to_owned()),
        (Some(Ok(_)), None) => Ok(Secret::new(pem)),
    }
}

fn broken(error: &PemError) -> String {
    let problem = match error {
        PemError::MissingSectionEnd { .. } => "a section has no end",
        PemError::IllegalSectionStart { .. } => "a section has no proper start",
        PemError::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be read",
    };
    format!("is not valid PEM: {problem}")
}

/// What a file of the wrong kind holds instead, as a phrase after what is missing.
fn holds_instead(pem: &str) -> &'static str {
    let sections: Vec<SectionKind> =
        <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()).filter_map(|s| s.ok().map(|(kind, _)| kind)).collect();
    let has = |kinds: &[SectionKind]| sections.iter().any(|kind| kinds.contains(kind));
    match () {
        () if has(&[SectionKind::Certificate]) => ", only a certificate",
        () if has(&[SectionKind::PrivateKey, SectionKind::RsaPrivateKey, SectionKind::EcPrivateKey]) => {
            ", only a private key"
        }
        () if has(&[SectionKind::Csr]) => ", only a certificate request",
        () => "",
    }
}

/// A name that a certificate can be made for: a host or an IP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsName(pub Arc<str>);

impl Text for TlsName {
    fn what() -> String {
        "a host name or an IP address, without a port".to_owned()
    }

    fn parse(text: &str) -> Result<TlsName, String> {
        if text.parse::<std::net::IpAddr>().is_err()
            && let Some(problem) = host_problem(text)
        {
            return Err(problem.to_owned());
        }
        match ServerName::try_from(text) {
            Ok(_) => Ok(TlsName(Arc::from(text))),
            Err(_) => Err(" cannot be the name of a certificate".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["a.internal".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn certificates_are_read_and_other_files_are_refused() {
        let (certificate, key) = pair();
        assert_eq!(certificates(&certificate).unwrap().len(), 1);
        assert_eq!(certificates(&format!("{certificate}some text\n{certificate}{key}")).unwrap().len(), 2);
        let cut = &certificate[..certificate.len() / 2];
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (bad, problem) in [
            ("", "is empty"),
            (" \n", "is empty"),
            ("hello", "holds no certificate"),
            (&key, "holds no certificate, only a private key"),
            (cut, "is not valid PEM: a section has no end"),
            (garbage, "holds a certificate (number 1) that cannot be parsed"),
        ] {
            assert_eq!(certificates(bad).unwrap_err(), problem, "{bad}");
        }
    }

    #[test]
    fn a_key_is_read_and_other_files_are_refused_without_showing_them() {
        let (certificate, key) = pair();
        assert_eq!(private_key(&key).unwrap().expose(), key);
        assert_eq!(private_key(&format!("{certificate}{key}")).map(|_| ()), Ok(()));
        let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for (bad, problem) in [
            ("", "is empty"),
            (&*certificate, "holds no private key, only a certificate"),
            (&*format!("{key}{key}"), "holds several private keys"),
            (locked, "holds a private key that needs a password; only one without is supported"),
        ] {
            assert_eq!(private_key(bad).unwrap_err(), problem, "{bad}");
        }
    }

    #[test]
    fn a_name_is_one_that_a_certificate_can_hold() {
        for good in ["a", "api.internal", "10.0.0.1", "::1", "2001:db8::1"] {
            assert!(TlsName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a:443", "https://a", "*.a", "a b", "-", "[::1]", "ä"] {
            assert!(TlsName::parse(bad).is_err(), "{bad}");
        }
    }
}
