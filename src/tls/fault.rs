//! Messages for certificate faults, with the values: which certificate of the chain it is, what it has, and what is
//! required. The library reports only the kind of the fault; the values are read from the certificates here.

use rustls::CertificateError;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::Oid;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, GeneralSubtree};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::X509Version;

use super::words::{date, date_of, ip_words, listed, names, plain};

/// Bits of an RSA key that the library accepts.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
const KEY_HINT: Option<&str> = Some("give it a key of at least 2048 bits (RSA), or one on P-256, P-384 or P-521 (EC)");
const DIGEST_HINT: Option<&str> = Some("reissue it, signed with SHA-256 or better");
/// Certificates of a chain that are examined.
const CHAIN_MAX: usize = 16;

/// What a peer sent, and what it was verified against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) leaf: &'a CertificateDer<'a>,
    /// The certificates sent with it.
    pub(super) chain: &'a [CertificateDer<'a>],
    /// The roots of the file, if it has any.
    pub(super) roots: Option<&'a [CertificateDer<'static>]>,
    /// The name it must have; `None`: the fault is in the signature of the handshake.
    pub(super) name: Option<&'a ServerName<'a>>,
}

impl<'a> Shown<'a> {
    /// A certificate whose key signed the handshake.
    pub(super) fn in_handshake(leaf: &'a CertificateDer<'a>) -> Shown<'a> {
        Shown { leaf, chain: &[], roots: None, name: None }
    }

    /// The certificates above the peer's own that can be read.
    fn above(&self) -> impl Iterator<Item = X509Certificate<'a>> {
        let roots = self.roots.unwrap_or_default().iter().map(AsRef::as_ref);
        let all = self.chain.iter().map(AsRef::as_ref).chain(roots).take(CHAIN_MAX);
        all.filter_map(|der: &'a [u8]| X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate))
    }

    /// The first certificate with a fault, and the fault: the peer's own, then those above it.
    fn first(
        &self,
        leaf: &X509Certificate<'_>,
        fault: impl Fn(&X509Certificate<'_>) -> Option<String>,
    ) -> Option<String> {
        if let Some(fault) = fault(leaf) {
            return Some(format!("certificate not accepted: {fault}"));
        }
        self.first_above(fault)
    }

    fn first_above(&self, fault: impl Fn(&X509Certificate<'_>) -> Option<String>) -> Option<String> {
        self.above().find_map(|above| {
            let fault = fault(&above)?;
            Some(format!("CA certificate {} not accepted: {fault}", plain(&above.subject().to_string())))
        })
    }
}

/// The message for `problem` with `leaf`, which is `shown.leaf`, and the hint.
pub(super) fn words(
    problem: &CertificateError,
    leaf: &X509Certificate<'_>,
    shown: &Shown<'_>,
) -> (String, Option<&'static str>) {
    let whose = |at: &UnixTime, of_leaf: i64| {
        if i64::try_from(at.as_secs()) == Ok(of_leaf) { "certificate" } else { "a certificate above the peer's" }
    };
    // With such a key every handshake fails, whatever is done about another fault.
    if let Some(fault) = key_fault(leaf) {
        return (format!("certificate not accepted: {fault}"), KEY_HINT);
    }
    let dates = leaf.validity();
    match problem {
        CertificateError::ExpiredContext { not_after, .. } => {
            let whose = whose(not_after, dates.not_after.timestamp());
            (format!("{whose} expired at {}", date(not_after)), Some("renew it, or check this machine's clock"))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            let whose = whose(not_before, dates.not_before.timestamp());
            (format!("{whose} not yet valid until {}", date(not_before)), Some("check the clocks of both machines"))
        }
        // The library's error for dates in the wrong order.
        CertificateError::Expired => {
            let sentence = shown.first(leaf, |certificate| {
                let dates = certificate.validity();
                let (from, until) = (dates.not_before.timestamp(), dates.not_after.timestamp());
                (from > until).then(|| format!("it ends on {}, before it begins on {}", date_of(until), date_of(from)))
            });
            (sentence.unwrap_or_else(|| "certificate expired".to_owned()), None)
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => name_words(leaf, shown),
        CertificateError::UnknownIssuer => issuer_words(leaf, shown),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            let sentence = shown.first(leaf, purpose_fault);
            let sentence = sentence.unwrap_or_else(|| "certificate is not for servers".to_owned());
            (sentence, Some("its extended key usage needs serverAuth"))
        }
        CertificateError::Revoked => ("certificate is revoked".to_owned(), None),
        CertificateError::BadSignature => signature_words(leaf, shown),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. } => {
            let sentence = shown.first(leaf, digest_fault);
            (sentence.unwrap_or_else(|| other_words(problem)), DIGEST_HINT)
        }
        CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            (shown.first(leaf, key_fault).unwrap_or_else(|| other_words(problem)), None)
        }
        CertificateError::BadEncoding => ("certificate not accepted: it is not valid DER".to_owned(), None),
        CertificateError::Other(other) => library_words(&other.0.to_string(), leaf, shown),
        other => (other_words(other), None),
    }
}

fn other_words(problem: &CertificateError) -> String {
    format!("certificate not accepted: {}", plain(&problem.to_string()))
}

fn name_words(leaf: &X509Certificate<'_>, shown: &Shown<'_>) -> (String, Option<&'static str>) {
    let names = names(leaf);
    let hint = match names.is_empty() {
        false => "set tls.server_name to a name that the certificate has",
        true => "the certificate needs a subject alternative name: the common name does not count",
    };
    let has = if names.is_empty() { "no names".to_owned() } else { names };
    let wanted = shown.name.map(|name| plain(&name.to_str())).unwrap_or_default();
    (format!("certificate is not for {wanted}: it has {has}"), Some(hint))
}

fn issuer_words(leaf: &X509Certificate<'_>, shown: &Shown<'_>) -> (String, Option<&'static str>) {
    if is_self_signed(leaf) {
        let hint = match shown.roots {
            Some(_) => {
                "tls.ca_file does not hold this certificate: add it, or use one that a CA in that file has issued"
            }
            None => "set tls.ca_file to this certificate, or tls.verify = false",
        };
        return (format!("self-signed certificate ({})", plain(&leaf.subject().to_string())), Some(hint));
    }
    // With its CA in the file, the signature would be the next fault.
    if let Some(fault) = digest_fault(leaf) {
        return (format!("certificate not accepted: {fault}"), DIGEST_HINT);
    }
    let hint = match shown.roots {
        Some(_) => "tls.ca_file does not hold its CA, or the server does not send the intermediate certificates",
        None => "set tls.ca_file to its CA, or make the server send the intermediate certificates",
    };
    (format!("certificate of an unknown issuer: {}", plain(&leaf.issuer().to_string())), Some(hint))
}

/// A wrong signature, or one made with a key that the library does not accept: it reports both alike.
fn signature_words(leaf: &X509Certificate<'_>, shown: &Shown<'_>) -> (String, Option<&'static str>) {
    let found = match shown.name {
        None => shown.first(leaf, key_fault),
        Some(_) => shown.first_above(key_fault),
    };
    match (found, shown.name) {
        (Some(sentence), _) => (sentence, KEY_HINT),
        (None, None) => ("the handshake is not signed with the key of its certificate".to_owned(), None),
        (None, Some(_)) => {
            let issuer = plain(&leaf.issuer().to_string());
            let hint = shown.roots.map(|_| "tls.ca_file may hold an older or newer CA of the same name");
            (format!("certificate is not signed with the key of its issuer {issuer}"), hint)
        }
    }
}

/// Faults without a variant in rustls, by their names in its certificate library. An unknown name is shown as it is.
fn library_words(name: &str, leaf: &X509Certificate<'_>, shown: &Shown<'_>) -> (String, Option<&'static str>) {
    let here = |text: &str| (format!("certificate not accepted: {text}"), None);
    match name {
        "CaUsedAsEndEntity" if is_self_signed(leaf) => issuer_words(leaf, shown),
        "CaUsedAsEndEntity" => (
            "certificate not accepted: it is a CA certificate, and a server needs its own".to_owned(),
            Some("issue one for the server, or set tls.ca_file to this certificate"),
        ),
        "EndEntityUsedAsCa" => {
            let fault = |above: &X509Certificate<'_>| (!above.is_ca()).then(|| "it is not a CA certificate".to_owned());
            (
                shown
                    .first_above(fault)
                    .unwrap_or_else(|| "a certificate above the peer's is not a CA certificate".to_owned()),
                None,
            )
        }
        "NameConstraintViolation" => (
            shown.first_above(constraint_fault).unwrap_or_else(|| {
                "a CA above the certificate may not issue for its names (name constraints)".to_owned()
            }),
            None,
        ),
        "PathLenConstraintViolated" => here("there are more CAs above it than one of them allows (path length)"),
        "UnsupportedCertVersion" => {
            let version = |certificate: &X509Certificate<'_>| {
                let version = certificate.version();
                (version != X509Version::V3)
                    .then(|| format!("it is of X.509 version {}: version 3 is required", u64::from(version.0) + 1))
            };
            let sentence = shown.first(leaf, version);
            (
                sentence.unwrap_or_else(|| "certificate not accepted: it is not of X.509 version 3".to_owned()),
                Some("reissue it with extensions: without them, tools write version 1"),
            )
        }
        "UnsupportedCriticalExtension" => match shown.first(leaf, extension_fault) {
            Some(sentence) => (sentence, None),
            None => here("it has a critical extension that is not supported"),
        },
        "EmptyEkuExtension" => here("its extended key usage is empty"),
        "InvalidSerialNumber" => here("its serial number is negative or longer than 20 bytes"),
        "SignatureAlgorithmMismatch" => here("it names two different signature algorithms"),
        "MalformedExtensions" | "ExtensionValueInvalid" => here("its extensions are malformed"),
        "MalformedDnsIdentifier" => here("one of its names is malformed"),
        "MalformedNameConstraint" | "InvalidNetworkMaskConstraint" => here("a name constraint above it is malformed"),
        "MaximumPathDepthExceeded"
        | "MaximumPathBuildCallsExceeded"
        | "MaximumSignatureChecksExceeded"
        | "MaximumNameConstraintComparisonsExceeded" => here("its chain is too long to verify"),
        other => here(&plain(other)),
    }
}

fn is_self_signed(leaf: &X509Certificate<'_>) -> bool {
    leaf.issuer().as_raw() == leaf.subject().as_raw()
}

/// A key that the library does not verify with.
fn key_fault(certificate: &X509Certificate<'_>) -> Option<String> {
    let key = certificate.public_key();
    match key.parsed().ok()? {
        PublicKey::RSA(rsa) => {
            let bits = bits(rsa.modulus);
            match bits {
                _ if RSA_BITS.contains(&bits) => None,
                _ if bits < *RSA_BITS.start() => {
                    Some(format!("its key is RSA with {bits} bits: at least {} are required", RSA_BITS.start()))
                }
                _ => Some(format!("its key is RSA with {bits} bits: at most {} are accepted", RSA_BITS.end())),
            }
        }
        PublicKey::EC(_) => {
            let curve = key.algorithm.parameters.as_ref().and_then(|any| any.clone().oid().ok());
            let name = match curve.as_ref().map(Oid::to_id_string).as_deref() {
                Some("1.2.840.10045.3.1.7" | "1.3.132.0.34" | "1.3.132.0.35") => return None,
                Some("1.2.840.10045.3.1.1") => "P-192".to_owned(),
                Some("1.3.132.0.33") => "P-224".to_owned(),
                Some("1.3.132.0.10") => "secp256k1".to_owned(),
                Some("1.3.36.3.3.2.8.1.1.7") => "brainpoolP256r1".to_owned(),
                Some("1.3.36.3.3.2.8.1.1.11") => "brainpoolP384r1".to_owned(),
                Some("1.3.36.3.3.2.8.1.1.13") => "brainpoolP512r1".to_owned(),
                Some(other) => plain(other).into_string(),
                None => "that is not named".to_owned(),
            };
            Some(format!("its key is EC on the curve {name}: P-256, P-384 and P-521 are accepted"))
        }
        PublicKey::DSA(_) => Some("its key is DSA: RSA, EC and Ed25519 are accepted".to_owned()),
        PublicKey::GostR3410(_) | PublicKey::GostR3410_2012(_) => {
            Some("its key is GOST R 34.10: RSA, EC and Ed25519 are accepted".to_owned())
        }
        PublicKey::Unknown(_) => {
            let name = match key.algorithm.algorithm.to_id_string().as_str() {
                "1.3.101.112" => return None,
                "1.3.101.113" => "Ed448".to_owned(),
                "1.2.840.113549.1.1.10" => "RSA for RSASSA-PSS only".to_owned(),
                other => format!("of the kind {}", plain(other)),
            };
            Some(format!("its key is {name}: RSA, EC and Ed25519 are accepted"))
        }
    }
}

/// Bits of a number, most significant byte first.
fn bits(number: &[u8]) -> usize {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    let rest = &number[start..];
    8 * rest.len() - rest.first().map_or(0, |first| first.leading_zeros() as usize)
}

/// A signature over the certificate that the library does not verify.
fn digest_fault(certificate: &X509Certificate<'_>) -> Option<String> {
    // The signature of a root is not verified: roots are trusted.
    if is_self_signed(certificate) {
        return None;
    }
    let name = match certificate.signature_algorithm.algorithm.to_id_string().as_str() {
        // SHA-256, 384 and 512 with RSA, RSASSA-PSS, ECDSA, and Ed25519.
        "1.2.840.113549.1.1.11" | "1.2.840.113549.1.1.12" | "1.2.840.113549.1.1.13" | "1.2.840.113549.1.1.10" => {
            return None;
        }
        "1.2.840.10045.4.3.2" | "1.2.840.10045.4.3.3" | "1.2.840.10045.4.3.4" | "1.3.101.112" => return None,
        "1.2.840.113549.1.1.2" => "MD2 and RSA".to_owned(),
        "1.2.840.113549.1.1.4" => "MD5 and RSA".to_owned(),
        "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" => "SHA-1 and RSA".to_owned(),
        "1.2.840.113549.1.1.14" => "SHA-224 and RSA".to_owned(),
        "1.2.840.10045.4.1" => "SHA-1 and ECDSA".to_owned(),
        "1.2.840.10045.4.3.1" => "SHA-224 and ECDSA".to_owned(),
        "1.2.840.10040.4.3" => "SHA-1 and DSA".to_owned(),
        "2.16.840.1.101.3.4.3.2" => "SHA-256 and DSA".to_owned(),
        "1.3.101.113" => "Ed448".to_owned(),
        other => format!("the algorithm {}", plain(other)),
    };
    Some(format!("it is signed with {name}: at least SHA-256 with RSA or ECDSA is required"))
}

/// The critical extensions that the library does not support; it must reject them (RFC 5280, section 4.2).
fn extension_fault(certificate: &X509Certificate<'_>) -> Option<String> {
    let known =
        |oid: &str| matches!(oid, "2.5.29.15" | "2.5.29.17" | "2.5.29.19" | "2.5.29.30" | "2.5.29.31" | "2.5.29.37");
    let critical = certificate.extensions().iter().filter(|extension| extension.critical);
    let unknown = critical.map(|extension| extension.oid.to_id_string()).filter(|oid| !known(oid));
    let unknown = listed(unknown.map(|oid| match oid.as_str() {
        "2.5.29.32" => format!("certificate policies ({oid})"),
        "2.5.29.36" => format!("policy constraints ({oid})"),
        "1.3.6.1.5.5.7.1.24" => format!("TLS feature ({oid})"),
        _ => plain(&oid).into_string(),
    }));
    (!unknown.is_empty()).then(|| format!("it has a critical extension that is not supported: {unknown}"))
}

/// An extended key usage without serverAuth.
fn purpose_fault(certificate: &X509Certificate<'_>) -> Option<String> {
    let usage = certificate.extended_key_usage().ok()??.value;
    if usage.server_auth {
        return None;
    }
    Some(format!("it is not for servers: its extended key usage is {}", purposes(usage)))
}

fn purposes(usage: &ExtendedKeyUsage<'_>) -> String {
    let named = [
        (usage.any, "anyExtendedKeyUsage"),
        (usage.client_auth, "clientAuth"),
        (usage.code_signing, "codeSigning"),
        (usage.email_protection, "emailProtection"),
        (usage.time_stamping, "timeStamping"),
        (usage.ocsp_signing, "OCSPSigning"),
    ];
    let named = named.into_iter().filter(|(has, _)| *has).map(|(_, name)| name.to_owned());
    listed(named.chain(usage.other.iter().map(|oid| plain(&oid.to_id_string()).into_string())))
}

/// A CA that may issue only for some names.
fn constraint_fault(certificate: &X509Certificate<'_>) -> Option<String> {
    let constraints = certificate.name_constraints().ok()??.value;
    let list = |subtrees: &Option<Vec<GeneralSubtree<'_>>>| {
        listed(subtrees.iter().flatten().filter_map(|subtree| match &subtree.base {
            GeneralName::DNSName(name) => Some(plain(name).into_string()),
            GeneralName::IPAddress(bytes) => network(bytes),
            GeneralName::DirectoryName(name) => Some(plain(&name.to_string()).into_string()),
            _ => None,
        }))
    };
    let (permitted, excluded) = (list(&constraints.permitted_subtrees), list(&constraints.excluded_subtrees));
    match (permitted.is_empty(), excluded.is_empty()) {
        (true, true) => None,
        (false, true) => Some(format!("it may issue only for {permitted}")),
        (true, false) => Some(format!("it may not issue for {excluded}")),
        (false, false) => Some(format!("it may issue only for {permitted}, and not for {excluded}")),
    }
}

/// `10.0.0.0/255.0.0.0`: an address followed by its mask (RFC 5280, section 4.2.1.10).
fn network(bytes: &[u8]) -> Option<String> {
    let (address, mask) = bytes.split_at_checked(bytes.len() / 2)?;
    Some(format!("{}/{}", ip_words(address)?, ip_words(mask)?))
}

#[cfg(test)]
mod tests;
