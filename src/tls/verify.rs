//! The certificate verifier: strict, with a message for each fault, or trusting, for `verify = false`.
//!
//! The library verifies (RFC 5280, RFC 6125), with one addition: a certificate that is itself among the roots of the file
//! is trusted. `openssl req -x509` makes server certificates that are marked as CAs; an operator who puts one into
//! `ca_file` trusts it. Its name and its dates are still verified.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::fault::Shown;
use super::words;

/// Verifies that the peer has the key of its certificate and, if strict, that the certificate is trusted.
#[derive(Debug)]
pub(super) struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    trust: Option<Trust>,
}

/// Trusts certificates whose chain ends at a root.
#[derive(Debug)]
struct Trust {
    library: Arc<WebPkiServerVerifier>,
    /// The roots of the file, if it has any.
    own: Option<Box<[CertificateDer<'static>]>>,
}

impl Verifier {
    /// A strict verifier. `roots` must not be empty; `own` are those of the file, if it has any.
    pub(super) fn strict(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        own: Option<Box<[CertificateDer<'static>]>>,
    ) -> Verifier {
        let algorithms = provider.signature_verification_algorithms;
        let library = WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .expect("the roots are not empty, and there are no revocation lists");
        Verifier { algorithms, trust: Some(Trust { library, own }) }
    }

    /// A verifier that trusts every certificate.
    pub(super) fn trusting(provider: &CryptoProvider) -> Verifier {
        Verifier { algorithms: provider.signature_verification_algorithms, trust: None }
    }
}

impl Trust {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let Err(error) = self.library.verify_server_cert(leaf, chain, name, &[], now) else { return Ok(()) };
        let about_trust =
            matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::Other(_)));
        let is_own = self.own.as_deref().is_some_and(|own| own.contains(leaf));
        if about_trust && is_own {
            rustls::client::verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
            return words::check_dates(leaf, now).map_err(Error::InvalidCertificate);
        }
        Err(error)
    }

    fn shown<'a>(
        &'a self,
        leaf: &'a CertificateDer<'a>,
        chain: &'a [CertificateDer<'a>],
        name: &'a ServerName<'a>,
    ) -> Shown<'a> {
        Shown { leaf, chain, roots: self.own.as_deref(), name: Some(name) }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trust) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        match trust.check(end_entity, intermediates, server_name, now) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(error) => Err(in_words(error, &trust.shown(end_entity, intermediates, server_name))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = verify_tls12_signature(message, cert, dss, &self.algorithms);
        verified.map_err(|error| in_words(error, &Shown::in_handshake(cert)))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = verify_tls13_signature(message, cert, dss, &self.algorithms);
        verified.map_err(|error| in_words(error, &Shown::in_handshake(cert)))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// `error` with its message: after the handshake the certificates are no longer available.
fn in_words(error: Error, shown: &Shown<'_>) -> Error {
    match error {
        Error::InvalidCertificate(problem) => {
            let rejected = words::reject(&problem, shown);
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(rejected))))
        }
        error => error,
    }
}
