//! Whether a check uses TLS, and with which settings. A key that would do nothing is refused.

use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::raw;
use crate::config::read::{At, Field};
use crate::config::report::{Found, Report};
use crate::config::values::{Kind, Scheme};
use crate::model::policy::{Certificate, CheckFile, ClientIdentity, FileMark, ReadFile, TlsPolicy};

/// The TLS settings of a check of `kind`; `None` without TLS. `steps` refuses `tls` for a tcp check that exchanges
/// nothing.
pub fn tls(raw: &raw::Probe, kind: Kind, key: &str, report: &mut Report) -> Option<TlsPolicy> {
    let scheme = raw.scheme.value().map(|scheme| scheme.0);
    let wanted = match (kind, scheme) {
        (Kind::Tcp, _) => !raw.tls.is_absent(),
        (Kind::Tls, _) | (_, Some(Scheme::Https)) => true,
        (_, None) => !raw.tls.is_absent(),
        (_, Some(Scheme::Http)) => {
            if let Some(at) = raw.tls.get() {
                let found =
                    Found::error(at.span.clone(), format!("{key}.tls"), "cannot be combined with scheme = \"http\"");
                report.add(found.expected("scheme = \"https\", or no `tls`"));
            }
            false
        }
    };
    wanted.then(|| policy(raw.tls.value(), &format!("{key}.tls"), report))
}

/// The files that the settings were read from.
pub fn files(raw: &raw::Probe) -> Arc<[CheckFile]> {
    let Some(tls) = raw.tls.value() else { return Arc::default() };
    let marks = [
        ("tls.ca_file", tls.ca_file.value().map(|file| &file.mark)),
        ("tls.client_cert", tls.client_cert.value().map(|file| &file.mark)),
        ("tls.client_key", tls.client_key.value().map(|file| &file.mark)),
    ];
    let file = |what: &str, mark: &FileMark| CheckFile { what: what.to_owned(), read: ReadFile::Content(mark.clone()) };
    marks.into_iter().filter_map(|(what, mark)| Some(file(what, mark?))).collect()
}

fn policy(raw: Option<&raw::Tls>, key: &str, report: &mut Report) -> TlsPolicy {
    let Some(raw) = raw else { return TlsPolicy { verify: true, server_name: None, roots: None, client: None } };
    let verify = raw.verify.value().copied().unwrap_or(true);
    if let (false, Some(at)) = (verify, raw.ca_file.get()) {
        let found = Found::error(at.span.clone(), format!("{key}.ca_file"), "does nothing beside verify = false");
        report.add(found.expected("one of `ca_file` and verify = false"));
    }
    TlsPolicy {
        verify,
        server_name: raw.server_name.value().map(|name| name.0.clone()),
        roots: raw.ca_file.value().map(|certificates| certificates.list.clone()),
        client: client(raw, key, report),
    }
}

fn client(raw: &raw::Tls, key: &str, report: &mut Report) -> Option<ClientIdentity> {
    let (chain, secret) = match (&raw.client_cert, &raw.client_key) {
        (Field::Good(chain), Field::Good(secret)) => (chain, secret),
        // One of the two may be misspelt.
        _ if raw.others => return None,
        (Field::Good(At { span, .. }), Field::Absent) => {
            let found = Found::error(span.clone(), format!("{key}.client_cert"), "needs `client_key`");
            report.add(found.expected("`client_key` beside it"));
            return None;
        }
        (Field::Absent, Field::Good(At { span, .. })) => {
            let found = Found::error(span.clone(), format!("{key}.client_key"), "needs `client_cert`");
            report.add(found.expected("`client_cert` beside it"));
            return None;
        }
        (Field::Bad | Field::Absent, _) | (Field::Good(_), Field::Bad) => return None,
    };
    if let Some(problem) = mismatch(&chain.value.list, secret.value.secret.expose()) {
        let found = Found::error(secret.span.clone(), format!("{key}.client_key"), problem);
        report.add(found.expected("the key of the first certificate of `client_cert`"));
        return None;
    }
    Some(ClientIdentity { chain: chain.value.list.clone(), key: secret.value.secret.clone() })
}

/// Why a key cannot be used with a certificate.
fn mismatch(chain: &[Certificate], key: &str) -> Option<&'static str> {
    let chain = chain.iter().map(|certificate| CertificateDer::from(certificate.0.to_vec())).collect();
    let Ok(key) = PrivateKeyDer::from_pem_slice(key.as_bytes()) else { return Some("holds no private key") };
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    match rustls::sign::CertifiedKey::from_der(chain, key, &provider) {
        Ok(_) => None,
        Err(rustls::Error::InconsistentKeys(_)) => Some("the key does not belong to the certificate"),
        Err(_) => Some("the key is of a kind that cannot be used, or broken"),
    }
}
