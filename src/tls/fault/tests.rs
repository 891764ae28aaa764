//! Certificates with every kind of fault, rejected by the real verifier. Those that rcgen cannot make are files in
//! `tests/certificates`, made by its `make.sh`.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, CustomExtension, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree as Subtree, IsCa, Issuer, KeyPair, NameConstraints,
};
use rustls::client::danger::ServerCertVerifier;
use rustls::{Error, OtherError, RootCertStore};
use rustls_pki_types::pem::PemObject;

use super::super::verify::Verifier;
use super::super::words::{Rejected, reject};
use super::*;

fn name() -> ServerName<'static> {
    ServerName::try_from("api.internal").unwrap()
}

/// In 2030.
fn now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(1_900_000_000))
}

/// How a verifier that trusts `root` rejects `leaf` and `chain`.
fn refused(
    leaf: &CertificateDer<'static>,
    chain: &[CertificateDer<'static>],
    root: &CertificateDer<'static>,
) -> Option<Rejected> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let verifier = Verifier::strict(Arc::new(roots), provider, Some(Box::new([root.clone()])));
    match verifier.verify_server_cert(leaf, chain, &name(), &[], now()) {
        Ok(_) => None,
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(rejected)))) => {
            Some(rejected.downcast_ref::<Rejected>().expect("in words").clone())
        }
        Err(other) => panic!("not in words: {other}"),
    }
}

#[track_caller]
fn check(rejected: Option<Rejected>, sentence: &str, hint: Option<&str>) {
    let rejected = rejected.expect("it is not accepted");
    assert_eq!((rejected.sentence.as_str(), rejected.hint), (sentence, hint));
    assert!(rejected.certificate.contains("; until 20"), "the certificate is shown: {}", rejected.certificate);
}

fn file(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

macro_rules! file {
    ($name:literal) => {
        file(include_str!(concat!("../../../tests/certificates/", $name, ".pem")))
    };
}

#[test]
fn weak_signatures_and_old_versions_are_named() {
    let digest = Some("reissue it, signed with SHA-256 or better");
    let good = file!("good");
    for (leaf, sentence, hint) in [
        (
            file!("sha1"),
            "certificate not accepted: it is signed with SHA-1 and RSA: at least SHA-256 with RSA or ECDSA is required",
            digest,
        ),
        (
            file!("md5"),
            "certificate not accepted: it is signed with MD5 and RSA: at least SHA-256 with RSA or ECDSA is required",
            digest,
        ),
        (
            file!("version-1"),
            "certificate not accepted: it is of X.509 version 1: version 3 is required",
            Some("reissue it with extensions: without them, tools write version 1"),
        ),
    ] {
        check(refused(&leaf, &[], &good), sentence, hint);
    }
}

#[test]
fn a_key_that_is_too_small_or_unsupported_is_named() {
    let good = file!("good");
    for (leaf, clause) in [
        (file!("rsa-1024"), "its key is RSA with 1024 bits: at least 2048 are required"),
        (file!("secp256k1"), "its key is EC on the curve secp256k1: P-256, P-384 and P-521 are accepted"),
        (file!("ed448"), "its key is Ed448: RSA, EC and Ed25519 are accepted"),
    ] {
        // The chain is valid: the key is used only in the handshake.
        assert_eq!(refused(&leaf, &[], &good), None, "{clause}");
        let rejected = reject(&CertificateError::BadSignature, &Shown::in_handshake(&leaf));
        assert_eq!(rejected.sentence, format!("certificate not accepted: {clause}"));
        assert!(rejected.hint.unwrap().contains("2048 bits (RSA)"));
        assert!(rejected.certificate.contains("issuer CN=CA good"), "{}", rejected.certificate);
    }
    // Trusting the certificate, or another name, would not help: the key comes first.
    let (leaf, wanted) = (file!("rsa-1024"), name());
    for (problem, roots) in [
        (CertificateError::UnknownIssuer, None),
        (CertificateError::UnknownIssuer, Some(std::slice::from_ref(&good))),
        (CertificateError::NotValidForName, None),
        (CertificateError::Other(OtherError(Arc::new(std::io::Error::other("CaUsedAsEndEntity")))), None),
    ] {
        let rejected = reject(&problem, &Shown { leaf: &leaf, chain: &[], roots, name: Some(&wanted) });
        let clause = "certificate not accepted: its key is RSA with 1024 bits: at least 2048 are required";
        assert_eq!(rejected.sentence, clause, "{problem:?}");
        assert!(rejected.hint.unwrap().starts_with("give it a key"), "{problem:?}");
    }
    // So does a signature that no CA in the file would make acceptable.
    let rejected = refused(&file!("sha1"), &[], &file!("small-ca")).unwrap();
    assert!(rejected.sentence.contains("signed with SHA-1 and RSA"), "{}", rejected.sentence);
    assert_eq!(rejected.hint, Some("reissue it, signed with SHA-256 or better"));
    let forged = reject(&CertificateError::BadSignature, &Shown::in_handshake(&good));
    assert_eq!(
        (forged.sentence.as_str(), forged.hint),
        ("the handshake is not signed with the key of its certificate", None)
    );
    check(
        refused(&file!("by-small-ca"), &[], &file!("small-ca")),
        "CA certificate CN=CA small-ca not accepted: its key is RSA with 1024 bits: at least 2048 are required",
        Some("give it a key of at least 2048 bits (RSA), or one on P-256, P-384 or P-521 (EC)"),
    );
}

#[test]
fn bits_are_those_of_the_number() {
    for (number, expected) in [
        (&[0, 0x80, 0][..], 16),
        (&[0x01, 0], 9),
        (&[0], 0),
        (&[], 0),
        (&[[0].as_slice(), &[0xff; 256]].concat(), 2048),
        (&[0x7f; 256], 2047),
    ] {
        assert_eq!(bits(number), expected, "{number:?}");
    }
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["api.internal".to_owned()]).unwrap();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, common_name);
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2090, 1, 1));
    params
}

fn authority(common_name: &str) -> CertificateParams {
    with(params(common_name), |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        p.subject_alt_names = vec![];
    })
}

fn with(mut params: CertificateParams, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    change(&mut params);
    params
}

/// How `leaf`, signed by `between`, signed by `root`, is rejected.
fn chained(root: CertificateParams, between: Option<CertificateParams>, leaf: CertificateParams) -> Option<Rejected> {
    let key = || KeyPair::generate().unwrap();
    let (root_key, between_key, leaf_key) = (key(), key(), key());
    let issuer = Issuer::from_params(&root, &root_key);
    let root_certificate = root.self_signed(&root_key).unwrap();
    let (chain, leaf) = match &between {
        None => (vec![], leaf.signed_by(&leaf_key, &issuer).unwrap()),
        Some(params) => {
            let signed = params.signed_by(&between_key, &issuer).unwrap();
            let between = Issuer::from_params(params, &between_key);
            (vec![signed.der().clone()], leaf.signed_by(&leaf_key, &between).unwrap())
        }
    };
    refused(leaf.der(), &chain, root_certificate.der())
}

#[test]
fn faults_are_named_with_their_values() {
    let usages =
        |usages: &[ExtendedKeyUsagePurpose]| with(params("a leaf"), |p| p.extended_key_usages = usages.to_vec());
    let serve = Some("its extended key usage needs serverAuth");
    check(
        chained(
            authority("root"),
            None,
            usages(&[ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 4, 1, 7])]),
        ),
        "certificate not accepted: it is not for servers: its extended key usage is clientAuth, 1.3.6.1.4.1.7",
        serve,
    );
    let client_ca = with(authority("client CA"), |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    check(
        chained(authority("root"), Some(client_ca), params("a leaf")),
        "CA certificate CN=client CA not accepted: it is not for servers: its extended key usage is clientAuth",
        serve,
    );
    let critical = |oids: &[&[u64]]| {
        let extensions = oids.iter().map(|oid| {
            let mut extension = CustomExtension::from_oid_content(oid, vec![5, 0]);
            extension.set_criticality(true);
            extension
        });
        with(params("a leaf"), |p| p.custom_extensions = extensions.collect())
    };
    check(
        chained(authority("root"), None, critical(&[&[1, 2, 3, 4], &[2, 5, 29, 32]])),
        "certificate not accepted: it has a critical extension that is not supported: 1.2.3.4, \
         certificate policies (2.5.29.32)",
        None,
    );
    let ca = with(params("a leaf"), |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    check(
        chained(authority("root"), None, ca),
        "certificate not accepted: it is a CA certificate, and a server needs its own",
        Some("issue one for the server, or set tls.ca_file to this certificate"),
    );
    let no_ca = with(authority("no CA"), |p| p.is_ca = IsCa::ExplicitNoCa);
    check(
        chained(authority("root"), Some(no_ca), params("a leaf")),
        "CA certificate CN=no CA not accepted: it is not a CA certificate",
        None,
    );
    let constrained = with(authority("narrow CA"), |p| {
        p.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![
                Subtree::DnsName("example.org".into()),
                Subtree::IpAddress(CidrSubnet::V4([10, 0, 0, 0], [255, 0, 0, 0])),
            ],
            excluded_subtrees: vec![Subtree::DnsName("internal".into())],
        })
    });
    check(
        chained(authority("root"), Some(constrained), params("a leaf")),
        "CA certificate CN=narrow CA not accepted: it may issue only for example.org, 10.0.0.0/255.0.0.0, and not for \
         internal",
        None,
    );
    let backwards = with(params("a leaf"), |p| p.not_after = rcgen::date_time_ymd(2019, 1, 1));
    check(
        chained(authority("root"), None, backwards),
        "certificate not accepted: it ends on 2019-01-01T00:00:00Z, before it begins on 2020-01-01T00:00:00Z",
        None,
    );
    assert_eq!(chained(authority("root"), Some(authority("between")), params("a leaf")), None);
}

#[test]
fn a_signature_of_another_ca_with_the_same_name_is_distinguished_from_an_unknown_one() {
    let (one, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root = authority("twice").self_signed(&one).unwrap();
    let signer = authority("twice");
    let leaf =
        params("a leaf").signed_by(&KeyPair::generate().unwrap(), &Issuer::from_params(&signer, &other)).unwrap();
    check(
        refused(leaf.der(), &[], root.der()),
        "certificate is not signed with the key of its issuer CN=twice",
        Some("tls.ca_file may hold an older or newer CA of the same name"),
    );
}

#[test]
fn a_fault_higher_in_the_chain_is_not_attributed_to_the_peers_certificate() {
    let leaf = params("a.example").self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
    let name = name();
    let shown = Shown { leaf: &leaf, chain: &[], roots: None, name: Some(&name) };
    let at = |seconds: i64| UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(seconds).unwrap()));
    let own_end = rcgen::date_time_ymd(2090, 1, 1).unix_timestamp();
    for (not_after, sentence) in [
        (at(own_end), "certificate expired at 2090-01-01T00:00:00Z"),
        (at(0), "a certificate above the peer's expired at 1970-01-01T00:00:00Z"),
    ] {
        let problem = CertificateError::ExpiredContext { time: now(), not_after };
        assert_eq!(reject(&problem, &shown).sentence, sentence);
    }
    let garbage = CertificateDer::from_slice(b"garbage");
    let unread = reject(&CertificateError::BadEncoding, &Shown { leaf: &garbage, ..shown });
    assert_eq!((&*unread.sentence, &*unread.certificate), ("certificate cannot be read", ""));
}

#[test]
fn the_common_name_of_a_certificate_without_names_does_not_count() {
    let nameless = with(params("a leaf"), |p| p.subject_alt_names = vec![]);
    check(
        chained(authority("root"), None, nameless),
        "certificate is not for api.internal: it has no names",
        Some("the certificate needs a subject alternative name: the common name does not count"),
    );
}

/// The library names the rarer faults itself; the tests above verify only some of those names.
#[test]
fn an_unknown_fault_is_shown_with_the_librarys_name() {
    #[derive(Debug)]
    struct Named(&'static str);
    impl std::fmt::Display for Named {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }
    impl std::error::Error for Named {}
    let leaf = file!("good");
    let name = name();
    let shown = Shown { leaf: &leaf, chain: &[], roots: None, name: Some(&name) };
    for (fault, sentence) in [
        (
            "PathLenConstraintViolated",
            "certificate not accepted: there are more CAs above it than one of them allows (path length)",
        ),
        ("InvalidSerialNumber", "certificate not accepted: its serial number is negative or longer than 20 bytes"),
        ("MaximumPathDepthExceeded", "certificate not accepted: its chain is too long to verify"),
        ("Odd\u{202e}", "certificate not accepted: Odd\\u{202e}"),
    ] {
        let problem = CertificateError::Other(OtherError(Arc::new(Named(fault))));
        assert_eq!(reject(&problem, &shown).sentence, sentence);
    }
}
