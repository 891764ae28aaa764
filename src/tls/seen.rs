//! What a handshake shows of the peer besides its result: whether it speaks TLS, its certificate, and whether it asked for
//! a client certificate. A server that requires one and gets none may send an alert, close without one, or do either only
//! after the handshake (TLS 1.3); in every case it has asked before, and has shown its own. The library does not hand over
//! a connection that failed, so this is recorded on the way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// What one handshake has shown so far. Shared, so that it outlives a handshake that a deadline drops.
#[derive(Debug, Default)]
pub struct Seen {
    asked: AtomicBool,
    spoke: AtomicBool,
    certificate: OnceLock<CertificateDer<'static>>,
    /// The version, once the peer has proved that it has the key of an accepted certificate.
    proved: OnceLock<&'static str>,
}

impl Seen {
    /// The peer sent a CertificateRequest (RFC 8446, section 4.3.2; RFC 5246, section 7.4.4).
    pub fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// The peer sent the head of a TLS record.
    pub fn speaks_tls(&self) -> bool {
        self.spoke.load(Ordering::Relaxed)
    }

    /// The peer sent its certificate.
    pub fn has_certificate(&self) -> bool {
        self.certificate.get().is_some()
    }

    /// The peer's certificate, whether it was accepted or not.
    pub(super) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.certificate.get()
    }

    /// The version of TLS if the peer's certificate and its signature with the key of it were accepted.
    pub(super) fn proved(&self) -> Option<&'static str> {
        self.proved.get().copied()
    }

    pub(super) fn note_tls(&self) {
        self.spoke.store(true, Ordering::Relaxed);
    }
}

/// `config`, whose verifier is `verifier`, for one handshake that records in `seen` what the peer shows.
pub(super) fn watched(
    config: &ClientConfig,
    verifier: &Arc<dyn ServerCertVerifier>,
    seen: &Arc<Seen>,
) -> Arc<ClientConfig> {
    let mut config = config.clone();
    let inner = config.client_auth_cert_resolver;
    config.client_auth_cert_resolver = Arc::new(Watched { inner, seen: seen.clone() });
    let verifier = Watched { inner: verifier.clone(), seen: seen.clone() };
    config.dangerous().set_certificate_verifier(Arc::new(verifier));
    Arc::new(config)
}

/// A part of the configuration that is called when the peer does something.
#[derive(Debug)]
struct Watched<T: ?Sized> {
    inner: Arc<T>,
    seen: Arc<Seen>,
}

/// The library resolves a client certificate only when the peer has asked for one.
impl ResolvesClientCert for Watched<dyn ResolvesClientCert> {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.seen.asked.store(true, Ordering::Relaxed);
        self.inner.resolve(issuers, schemes)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.inner.only_raw_public_keys()
    }

    fn has_certs(&self) -> bool {
        self.inner.has_certs()
    }
}

impl Watched<dyn ServerCertVerifier> {
    fn note(
        &self,
        version: &'static str,
        verified: Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        if verified.is_ok() {
            // There is one signature in a handshake.
            let _ = self.seen.proved.set(version);
        }
        verified
    }
}

impl ServerCertVerifier for Watched<dyn ServerCertVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // There is one certificate in a handshake.
        let _ = self.seen.certificate.set(end_entity.clone().into_owned());
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.note("TLSv1.2", self.inner.verify_tls12_signature(message, cert, dss))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.note("TLSv1.3", self.inner.verify_tls13_signature(message, cert, dss))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.inner.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.inner.root_hint_subjects()
    }
}
