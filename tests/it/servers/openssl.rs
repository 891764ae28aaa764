//! `openssl s_server` as a peer that our libraries cannot be: with a key that is too small, with TLS 1.1 and 1.0 only,
//! and with another way to refuse a client without a certificate.

use std::process::Command;
use std::sync::Arc;

use roundsman::model::policy::{Certificate, PortRule, ProbeKind, ProbeSpec, TlsPolicy};
use roundsman::model::{Address, Code, ProbeReport};
use roundsman::probe::probe;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tempfile::TempDir;

use super::{Server, TIMEOUT, directory, installed};
use crate::program::free_address;

const OPENSSL: &str = "/usr/bin/openssl";

/// A directory with a self-signed certificate for 127.0.0.1 and its key of this many bits.
fn certified(bits: u32) -> TempDir {
    let dir = directory();
    let made = Command::new(OPENSSL)
        .current_dir(dir.path())
        .args(["req", "-x509", "-nodes", "-newkey", &format!("rsa:{bits}"), "-keyout", "key.pem", "-out", "cert.pem"])
        .args(["-subj", "/CN=small", "-days", "2", "-addext", "subjectAltName=IP:127.0.0.1"])
        .output()
        .expect("run openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    dir
}

/// The report of a handshake with `s_server ARGUMENTS`; `verify`: with its own certificate as the root.
async fn shaken(bits: u32, arguments: &[&str], verify: bool) -> ProbeReport {
    let dir = certified(bits);
    let root = CertificateDer::from_pem_file(dir.path().join("cert.pem")).expect("its certificate");
    let address = free_address();
    let mut command = Command::new(OPENSSL);
    command.args([
        "s_server",
        "-accept",
        &address.to_string(),
        "-cert",
        "cert.pem",
        "-key",
        "key.pem",
        "-www",
        "-quiet",
    ]);
    let _server = Server::start(command.args(arguments), dir).listening(address).await;
    let roots = Some(vec![Certificate(Arc::from(&root[..]))]);
    let tls = Some(TlsPolicy { verify, server_name: None, roots, client: None });
    let target = Address::Inet(address);
    probe(
        &target,
        &target,
        &Arc::new(ProbeSpec { port: PortRule::Same, tls, kind: ProbeKind::Tls, max_duration: None }),
        TIMEOUT,
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_too_small_key_is_reported_with_its_certificate() {
    if installed(OPENSSL, "openssl").is_none() {
        return;
    }
    for version in ["-tls1_2", "-tls1_3"] {
        for verify in [true, false] {
            let report = shaken(1024, &[version, "-cipher", "DEFAULT:@SECLEVEL=0"], verify).await;
            let reason = "certificate not accepted: its key is RSA with 1024 bits: at least 2048 are required";
            assert_eq!((report.code, &*report.reason), (Code::L6Rsp, reason), "{version}, verify = {verify}");
            let shown = report.trace.tls.and_then(|tls| tls.certificate).expect("the certificate is shown");
            assert!(shown.starts_with("CN=small; names 127.0.0.1; issuer CN=small; until "), "{shown}");
        }
    }
    let report = shaken(2048, &["-tls1_3"], true).await;
    assert_eq!(report.code, Code::L6Ok, "{}", report.sentence());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_old_tls_versions_only_is_reported() {
    if installed(OPENSSL, "openssl").is_none() {
        return;
    }
    for version in ["-tls1_1", "-tls1"] {
        let report = shaken(2048, &[version, "-cipher", "ALL:@SECLEVEL=0"], false).await;
        assert_eq!(report.code, Code::L6Rsp, "{version}: {}", report.sentence());
        assert!(report.reason.starts_with("TLS refused: it speaks only TLS 1."), "{version}: {}", report.reason);
        assert!(report.reason.ends_with(", and a check needs TLS 1.2 or 1.3"), "{version}: {}", report.reason);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_client_certificate_is_reported() {
    if installed(OPENSSL, "openssl").is_none() {
        return;
    }
    for version in ["-tls1_2", "-tls1_3"] {
        let required = shaken(2048, &[version, "-Verify", "1"], true).await;
        let lack = "it asked for a client certificate and the check has none";
        assert_eq!(required.code, Code::L6Rsp, "{version}: {}", required.sentence());
        assert!(required.reason.ends_with(lack), "{version}: {}", required.reason);
        let optional = shaken(2048, &[version, "-verify", "1"], true).await;
        assert_eq!((optional.code, optional.hint), (Code::L6Ok, None), "{version}: {}", optional.sentence());
    }
}
