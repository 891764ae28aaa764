//! What a handshake shows of the peer besides its result: whether it speaks TLS, and whether it asked for a client
//! certificate. A server that requires one and gets none may send an alert, close without one, or do either only after the
//! handshake (TLS 1.3); in every case it has asked before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};

/// What one handshake has shown so far. Shared, so that it outlives a handshake that a deadline drops.
#[derive(Debug, Default)]
pub struct Seen {
    asked: AtomicBool,
    spoke: AtomicBool,
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

    pub(super) fn note_tls(&self) {
        self.spoke.store(true, Ordering::Relaxed);
    }
}

/// `config` for one handshake that records in `seen` when the peer asks for a certificate.
pub(super) fn watched(config: &ClientConfig, seen: &Arc<Seen>) -> Arc<ClientConfig> {
    let mut config = config.clone();
    let inner = config.client_auth_cert_resolver;
    config.client_auth_cert_resolver = Arc::new(Watched { inner, seen: seen.clone() });
    Arc::new(config)
}

/// The library resolves a client certificate only when the peer has asked for one.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn ResolvesClientCert>,
    seen: Arc<Seen>,
}

impl ResolvesClientCert for Watched {
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
