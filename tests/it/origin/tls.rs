//! The scripted TLS origin: terminates TLS as the test says and relays to a plain [`Origin`]; and its certificates, of
//! every kind that a server may send.
//!
//! ```ignore
//! let certificates = certificates();
//! let front = TlsOrigin::with(&certificates.good).before(&origin).start();
//! // dial front.address(), trust certificates.ca.pem
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fs, io};

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use roundsman::model::Address;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use super::{Origin, RUNTIME};

/// A certificate with its key, in memory and as PEM files.
#[derive(Debug)]
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// The chain as a PEM file.
    pub pem: PathBuf,
    /// The key as a PEM file, PKCS#8.
    pub key_pem: PathBuf,
}

impl Identity {
    /// The certificate itself.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }
}

/// Certificates of every kind. All but `self_signed` are signed by `ca`.
#[derive(Debug)]
pub struct Certificates {
    pub directory: tempfile::TempDir,
    /// `CN=Test CA`.
    pub ca: Identity,
    /// Signs none of them.
    pub other_ca: Identity,
    /// For `localhost`, `api.internal`, 127.0.0.1 and ::1.
    pub good: Identity,
    /// As `good`, until 2021-02-03.
    pub expired: Identity,
    /// As `good`, from 2090-01-01.
    pub not_yet: Identity,
    /// For `wrong.example` and `*.wrong.example`.
    pub wrong_name: Identity,
    /// As `good`, but for clients only.
    pub for_clients: Identity,
    /// `CN=self.internal`, with the names of `good`; marked as a CA, as those of `openssl req -x509` are.
    pub self_signed: Identity,
    /// The certificate of a client.
    pub client: Identity,
}

/// Makes new ones, in their own directory.
pub fn certificates() -> Certificates {
    let directory = tempfile::tempdir().expect("a directory for certificates");
    let at = directory.path();
    let (ca_params, ca_key) = (authority("Test CA"), key());
    let ca_certificate = ca_params.self_signed(&ca_key).expect("a CA");
    let issuer = Issuer::from_params(&ca_params, &ca_key);
    let signed = |name: &str, params: CertificateParams| {
        let key = key();
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        identity(at, name, certificate.pem(), certificate.der().clone(), &key)
    };
    let alone = |name: &str, params: &CertificateParams, key: &KeyPair| {
        let certificate = params.self_signed(key).expect("a certificate");
        identity(at, name, certificate.pem(), certificate.der().clone(), key)
    };
    let expired = with(server("api.internal"), |p| p.not_after = rcgen::date_time_ymd(2021, 2, 3));
    let not_yet = with(server("api.internal"), |p| p.not_before = rcgen::date_time_ymd(2090, 1, 1));
    let wrong = ["wrong.example".to_owned(), "*.wrong.example".to_owned()];
    let wrong_name = named("wrong.example", CertificateParams::new(wrong).expect("names"));
    let client_only = |p: &mut CertificateParams| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let for_clients = with(server("api.internal"), client_only);
    let client = named("a client", CertificateParams::default());
    Certificates {
        ca: identity(at, "ca", ca_certificate.pem(), ca_certificate.der().clone(), &ca_key),
        other_ca: alone("other_ca", &authority("Other CA"), &key()),
        good: signed("good", server("api.internal")),
        expired: signed("expired", expired),
        not_yet: signed("not_yet", not_yet),
        wrong_name: signed("wrong_name", wrong_name),
        for_clients: signed("for_clients", for_clients),
        self_signed: alone(
            "self_signed",
            &with(server("self.internal"), |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            &key(),
        ),
        client: signed("client", with(client, client_only)),
        directory,
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn with(mut params: CertificateParams, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    change(&mut params);
    params
}

fn named(name: &str, mut params: CertificateParams) -> CertificateParams {
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2099, 1, 1);
    params
}

fn authority(name: &str) -> CertificateParams {
    with(named(name, CertificateParams::default()), |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
}

fn server(common_name: &str) -> CertificateParams {
    let names = ["localhost", "api.internal", "127.0.0.1", "::1"].map(str::to_owned);
    named(common_name, CertificateParams::new(names).expect("names"))
}

fn identity(at: &Path, name: &str, pem: String, der: CertificateDer<'static>, key: &KeyPair) -> Identity {
    let (pem_path, key_path) = (at.join(format!("{name}.pem")), at.join(format!("{name}.key")));
    fs::write(&pem_path, pem).expect("write a certificate");
    fs::write(&key_path, key.serialize_pem()).expect("write a key");
    let der_key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8");
    Identity { chain: vec![der], key: der_key, pem: pem_path, key_pem: key_path }
}

/// What a connection does once the origin has written its limit of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// It stays open and silent.
    Stall,
    /// It is reset.
    Reset,
    /// It is closed.
    Close,
}

/// One connection as the origin saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handshake {
    /// The name that was asked for (SNI).
    pub server_name: Option<String>,
    /// `Some`: complete, with this many bytes from the client inside TLS, unless it was relayed.
    pub done: bool,
    /// Whether the client sent a certificate.
    pub client_certificate: bool,
    /// Whether the session was resumed from an earlier one.
    pub resumed: bool,
    /// Whether the client sent `close_notify` before it closed; not known of relayed connections.
    pub close_notify: bool,
}

/// Builds a [`TlsOrigin`].
#[derive(Debug)]
pub struct TlsOriginBuilder<'a> {
    identity: &'a Identity,
    versions: Vec<&'static SupportedProtocolVersion>,
    client_ca: Option<&'a Identity>,
    client_optional: bool,
    silent_refusal: bool,
    leaves: bool,
    alpn: Vec<Vec<u8>>,
    backend: Option<Address>,
    limit: Option<(usize, Limit)>,
    at: SocketAddr,
}

impl<'a> TlsOriginBuilder<'a> {
    /// Listens on this address. Without it: on a free port of 127.0.0.1.
    pub fn at(mut self, address: SocketAddr) -> Self {
        self.at = address;
        self
    }

    /// Speaks only this version.
    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    /// Requires a certificate that `ca` has signed.
    pub fn requires_client(mut self, ca: &'a Identity) -> Self {
        self.client_ca = Some(ca);
        self
    }

    /// Requests a certificate that `ca` has signed, and accepts clients without one.
    pub fn asks_client(mut self, ca: &'a Identity) -> Self {
        (self.client_ca, self.client_optional) = (Some(ca), true);
        self
    }

    /// Sends nothing after its part of the handshake, not even an alert when it refuses: it closes.
    pub fn refusing_silently(mut self) -> Self {
        self.silent_refusal = true;
        self
    }

    /// Closes silently as soon as the handshake is complete.
    pub fn leaving(mut self) -> Self {
        self.leaves = true;
        self
    }

    /// Accepts these ALPN protocols, and refuses clients that offer none of them.
    pub fn alpn(mut self, names: &[&str]) -> Self {
        self.alpn = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// Relays what is inside TLS to this origin.
    pub fn before(self, origin: &Origin) -> Self {
        self.before_address(&origin.address())
    }

    /// Relays what is inside TLS to this address.
    pub fn before_address(mut self, address: &Address) -> Self {
        self.backend = Some(address.clone());
        self
    }

    /// After this many bytes on the wire, it does this.
    pub fn limited(mut self, bytes: usize, limit: Limit) -> Self {
        self.limit = Some((bytes, limit));
        self
    }

    /// Listens.
    pub fn start(self) -> TlsOrigin {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.versions)
            .expect("versions that the provider has");
        let builder = match self.client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add(ca.der().clone()).expect("a CA");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = if self.client_optional { verifier.allow_unauthenticated() } else { verifier };
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let (chain, key) = (self.identity.chain.clone(), self.identity.key.clone_key());
        let mut config = builder.with_single_cert(chain, key).expect("a certificate with its key");
        config.alpn_protocols = self.alpn;
        let listener = std::net::TcpListener::bind(self.at).expect("listen");
        listener.set_nonblocking(true).expect("a non-blocking socket");
        let address = listener.local_addr().expect("a bound socket has an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let ending = Ending { limit: self.limit, silent_refusal: self.silent_refusal, leaves: self.leaves };
        let serve = serve(listener, Arc::new(config), self.backend, ending, seen.clone());
        TlsOrigin { address, seen, task: RUNTIME.spawn(serve).abort_handle() }
    }
}

/// A running TLS origin; dropping it ends it and its connections.
#[derive(Debug)]
pub struct TlsOrigin {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Handshake>>>,
    task: AbortHandle,
}

impl TlsOrigin {
    /// Sends this certificate.
    pub fn with(identity: &Identity) -> TlsOriginBuilder<'_> {
        let versions = rustls::ALL_VERSIONS.to_vec();
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        TlsOriginBuilder {
            identity,
            versions,
            client_ca: None,
            client_optional: false,
            silent_refusal: false,
            leaves: false,
            alpn: vec![],
            backend: None,
            limit: None,
            at,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        Address::Inet(self.address)
    }

    /// The connections that have ended, in that order.
    pub fn handshakes(&self) -> Vec<Handshake> {
        self.seen.lock().clone()
    }
}

impl Drop for TlsOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a connection goes wrong.
#[derive(Debug, Clone, Copy)]
struct Ending {
    limit: Option<(usize, Limit)>,
    silent_refusal: bool,
    leaves: bool,
}

async fn serve(
    listener: std::net::TcpListener,
    config: Arc<ServerConfig>,
    backend: Option<Address>,
    ending: Ending,
    seen: Arc<Mutex<Vec<Handshake>>>,
) {
    let listener = TcpListener::from_std(listener).expect("a listener of this runtime");
    let acceptor = TlsAcceptor::from(config);
    // Its connections end with it.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        while connections.try_join_next().is_some() {}
        let (acceptor, backend, seen) = (acceptor.clone(), backend.clone(), seen.clone());
        let (left, limit) = ending.limit.unzip();
        let stream =
            Limited { inner: stream, left, limit, once: ending.silent_refusal, has_written: false, is_mute: false };
        connections.spawn(async move {
            let handshake = converse(stream, acceptor, backend, ending.leaves).await;
            seen.lock().push(handshake);
        });
    }
}

async fn converse(stream: Limited, acceptor: TlsAcceptor, backend: Option<Address>, leaves: bool) -> Handshake {
    let Ok(mut stream) = acceptor.accept(stream).await else { return Handshake::default() };
    let (_, connection) = stream.get_ref();
    let mut handshake = Handshake {
        server_name: connection.server_name().map(str::to_owned),
        done: true,
        client_certificate: connection.peer_certificates().is_some(),
        resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        close_notify: false,
    };
    match backend {
        _ if leaves => {}
        Some(Address::Inet(address)) => {
            if let Ok(mut plain) = TcpStream::connect(address).await {
                let _ = copy_bidirectional(&mut stream, &mut plain).await;
            }
        }
        Some(other @ (Address::Unix(_) | Address::Name { .. })) => panic!("{other} is not an Internet address"),
        None => {
            let mut rest = Vec::new();
            // An end without a close_notify is an error.
            handshake.close_notify = stream.read_to_end(&mut rest).await.is_ok();
            let _ = stream.shutdown().await;
        }
    }
    handshake
}

/// A socket that writes a limited number of bytes, or (`once`) nothing after it has written and then read: a handshake
/// without what follows it.
#[derive(Debug)]
struct Limited {
    inner: TcpStream,
    left: Option<usize>,
    limit: Option<Limit>,
    once: bool,
    has_written: bool,
    is_mute: bool,
}

impl AsyncRead for Limited {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        this.is_mute |= this.once && this.has_written && buf.filled().len() > before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Limited {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_mute {
            return Poll::Ready(Ok(bytes.len()));
        }
        this.has_written = true;
        let allowed = this.left.unwrap_or(usize::MAX).min(bytes.len());
        if allowed > 0 {
            let written = std::task::ready!(Pin::new(&mut this.inner).poll_write(cx, &bytes[..allowed]))?;
            this.left = this.left.map(|left| left - written);
            return Poll::Ready(Ok(written));
        }
        match this.limit {
            // It is never woken: the test drops it.
            None | Some(Limit::Stall) => Poll::Pending,
            Some(Limit::Close) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Some(Limit::Reset) => {
                socket2::SockRef::from(&this.inner).set_linger(Some(Duration::ZERO))?;
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
        }
    }

    /// The end of a handshake must go out in one write: the library does not try a second.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.limit {
            None if !self.once => Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, pieces),
            None | Some(_) => match pieces.iter().find(|piece| !piece.is_empty()) {
                Some(piece) => self.poll_write(cx, piece),
                None => Poll::Ready(Ok(0)),
            },
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// One set for the tests of a binary that only read it.
pub static CERTIFICATES: LazyLock<Certificates> = LazyLock::new(certificates);
