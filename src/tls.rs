//! The TLS client side: a client made from a [`TlsPolicy`] and a name, its handshake, and messages for its failures.
//!
//! Verification is on unless the policy turns it off: a client that cannot verify (no roots, no usable name) does not
//! connect. Sessions are never resumed, so every connection sees the peer's certificate. The cryptography is always
//! aws-lc-rs, whatever the default of the process.
//!
//! [`server_name`] decides which name is sent and verified. Callers set deadlines and outcome codes.

mod failure;
mod fault;
mod recorder;
mod seen;
mod verify;
mod warm;
mod words;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;
use rustls::client::{Resumption, danger::ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use rustls_native_certs::CertificateResult;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::model::policy::{Certificate, ClientIdentity, TlsPolicy};
use crate::model::{Address, TlsTrace};
use failure::{ClientCertificate, Refusal};
pub use failure::{Failure, alert};
use recorder::Recorder;
pub use seen::Seen;
use verify::Verifier;
pub use warm::warm_up;

/// A TLS connection over `S`.
pub type Stream<S> = tokio_rustls::client::TlsStream<Recorder<S>>;

/// Makes TLS connections to one name under one policy. Cheap to keep: clients of equal policies share everything but the
/// name.
#[derive(Debug, Clone)]
pub struct Client {
    setup: Arc<Setup>,
    name: ServerName<'static>,
    alpn: &'static [&'static str],
    verifies: bool,
    identified: bool,
}

/// What clients of equal policies share.
#[derive(Debug)]
struct Setup {
    config: ClientConfig,
    /// That of `config`, which does not hand it out.
    verifier: Arc<dyn ServerCertVerifier>,
}

/// Why a handshake failed.
#[derive(Debug)]
pub enum Broken {
    /// The connection under TLS failed or was closed (`UnexpectedEof`).
    Io(io::Error),
    /// One side rejected the other.
    Tls(Box<Failure>),
}

impl Client {
    /// A client that verifies under `policy` that the peer is `name`, and offers the protocols `alpn` (RFC 7301), the
    /// preferred first.
    ///
    /// # Errors
    /// There are no roots to verify with, or the client certificate cannot be used.
    pub fn try_new(
        policy: &TlsPolicy,
        name: ServerName<'static>,
        alpn: &'static [&'static str],
    ) -> Result<Client, Failure> {
        let setup = shared_setup(policy, alpn)?;
        Ok(Client { setup, name, alpn, verifies: policy.verify, identified: policy.client.is_some() })
    }

    /// Makes the handshake over `socket`, without a deadline, and records in `seen` what the peer does. Cancel-safe:
    /// dropping the future drops the socket.
    ///
    /// # Errors
    /// See [`Broken`].
    pub async fn handshake<S>(&self, socket: S, seen: &Arc<Seen>) -> Result<Box<Stream<S>>, Broken>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // The configuration is shared: a copy (some reference counts) shows what happens on this connection.
        let config = seen::watched(&self.setup.config, &self.setup.verifier, seen);
        let connect = TlsConnector::from(config).connect(self.name.clone(), Recorder::new(socket, seen.clone()));
        match connect.into_fallible().await {
            Ok(stream) => Ok(Box::new(stream)),
            Err((error, socket)) => Err(self.broken(error, socket.first(), seen)),
        }
    }

    /// Whether the peer asked for a client certificate and the policy has none.
    pub fn lacks_certificate(&self, seen: &Seen) -> bool {
        self.client_certificate(seen) == ClientCertificate::Lacking
    }

    fn client_certificate(&self, seen: &Seen) -> ClientCertificate {
        match (seen.was_asked(), self.identified) {
            (false, _) => ClientCertificate::NotAsked,
            (true, false) => ClientCertificate::Lacking,
            (true, true) => ClientCertificate::Shown,
        }
    }

    /// What the handshake of `stream` negotiated. The caller sets `done_in`.
    pub fn trace<S>(&self, stream: &Stream<S>) -> TlsTrace {
        let (_, connection) = stream.get_ref();
        let leaf = connection.peer_certificates().and_then(|chain| chain.first());
        let (certificate, expires) = leaf.map(|leaf| words::describe(leaf)).unzip();
        let alpn = connection.alpn_protocol().map(|name| words::plain(&String::from_utf8_lossy(name)));
        TlsTrace {
            done_in: None,
            version: connection
                .protocol_version()
                .and_then(|v| v.as_str())
                .map(version_words)
                .unwrap_or_default()
                .into(),
            alpn,
            verified: self.verifies,
            certificate,
            expires: expires.flatten(),
        }
    }

    /// What is known after a handshake that failed with `failure`, or without one: the connection ended.
    pub fn trace_of_failure(&self, failure: Option<&Failure>, seen: &Seen) -> TlsTrace {
        // The description of what was rejected also says what is wrong with it.
        let rejected = failure.and_then(|failure| Some((failure.certificate()?.into(), failure.certificate_expiry())));
        let accepted = rejected.is_none().then(|| seen.proved()).flatten();
        let (certificate, expires) = rejected.or_else(|| seen.certificate().map(|leaf| words::describe(leaf))).unzip();
        TlsTrace {
            done_in: None,
            version: accepted.unwrap_or_default().into(),
            alpn: None,
            verified: self.verifies && accepted.is_some(),
            certificate,
            expires: expires.flatten(),
        }
    }

    /// The failure when the peer sends `alert` after the handshake recorded in `seen`.
    pub fn refusal(&self, alert: AlertDescription, seen: &Seen) -> Failure {
        Failure::refused(self.refused(alert, seen))
    }

    fn refused(&self, alert: AlertDescription, seen: &Seen) -> Refusal {
        Refusal {
            alert,
            certificate: self.client_certificate(seen),
            name: words::plain(&self.name.to_str()),
            offered: self.alpn.first().copied(),
        }
    }

    fn broken(&self, error: io::Error, first: &[u8], seen: &Seen) -> Broken {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => Broken::Tls(Box::new(self.refusal(*alert, seen))),
            Some(tls) => Broken::Tls(Box::new(Failure::of_handshake(tls, first))),
            None => Broken::Io(error),
        }
    }
}

/// As `openssl` writes it: `TLSv1.3`.
fn version_words(name: &'static str) -> &'static str {
    match name {
        "TLSv1_2" => "TLSv1.2",
        "TLSv1_3" => "TLSv1.3",
        name => name,
    }
}

/// The name that is sent and verified: that of the policy, else `host` (a Host field; its port is ignored), else `name`,
/// else the address dialled; `localhost` for a unix socket.
///
/// # Errors
/// It cannot be a name in a certificate.
pub fn server_name(
    policy: &TlsPolicy,
    host: Option<&str>,
    name: Option<&str>,
    target: &Address,
) -> Result<ServerName<'static>, Failure> {
    let given = policy.server_name.as_deref().or_else(|| host.map(without_port)).or(name);
    match (given, target) {
        (Some(text), _) => parse_name(text),
        (None, Address::Inet(address)) => Ok(ServerName::from(address.ip())),
        (None, Address::Unix(_)) => parse_name("localhost"),
        (None, Address::Name { host, .. }) => parse_name(host),
    }
}

fn parse_name(text: &str) -> Result<ServerName<'static>, Failure> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(ServerName::from(ip));
    }
    // A final dot is not part of a name in a certificate (RFC 6066, section 3).
    let relative = text.strip_suffix('.').unwrap_or(text);
    ServerName::try_from(relative).map(|name| name.to_owned()).map_err(|_| Failure::Name(words::plain(text)))
}

/// `api.internal` of `api.internal:8443`, `[::1]` of `[::1]:8443`.
fn without_port(host: &str) -> &str {
    if host.parse::<IpAddr>().is_ok() {
        return host;
    }
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));

type Key = (TlsPolicy, &'static [&'static str]);

/// The configurations in use: thousands of upstreams have one policy.
static SETUPS: LazyLock<Mutex<HashMap<Key, Weak<Setup>>>> = LazyLock::new(Mutex::default);

fn shared_setup(policy: &TlsPolicy, alpn: &'static [&'static str]) -> Result<Arc<Setup>, Failure> {
    // A configuration is independent of the name.
    let key = (TlsPolicy { server_name: None, ..policy.clone() }, alpn);
    let mut setups = SETUPS.lock();
    if let Some(setup) = setups.get(&key).and_then(Weak::upgrade) {
        return Ok(setup);
    }
    let setup = Arc::new(make_setup(policy, alpn)?);
    setups.retain(|_, setup| setup.strong_count() > 0);
    setups.insert(key, Arc::downgrade(&setup));
    Ok(setup)
}

fn make_setup(policy: &TlsPolicy, alpn: &[&str]) -> Result<Setup, Failure> {
    let verifier = verifier(policy)?;
    let builder = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs has suites for TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone());
    let mut config = match &policy.client {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = read_identity(identity)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| Failure::identity(&error))?
        }
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Setup { config, verifier })
}

fn verifier(policy: &TlsPolicy) -> Result<Arc<dyn ServerCertVerifier>, Failure> {
    if !policy.verify {
        return Ok(Arc::new(Verifier::trusting(&PROVIDER)));
    }
    let Some(own) = &policy.roots else {
        return Ok(Arc::new(Verifier::strict(system_roots()?, PROVIDER.clone(), None)));
    };
    let own: Box<[CertificateDer<'static>]> = own.iter().map(der).collect();
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(own.iter().cloned());
    if store.is_empty() {
        return Err(Failure::BadRoots);
    }
    Ok(Arc::new(Verifier::strict(Arc::new(store), PROVIDER.clone(), Some(own))))
}

fn der(certificate: &Certificate) -> CertificateDer<'static> {
    CertificateDer::from(certificate.0.to_vec())
}

fn read_identity(identity: &ClientIdentity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Failure> {
    let key = PrivateKeyDer::from_pem_slice(identity.key.expose().as_bytes())
        .map_err(|_| Failure::Identity("its key is not a PEM private key".into()))?;
    Ok((identity.chain.iter().map(der).collect(), key))
}

/// The roots of this machine, read once. If there are none, the next call looks again.
fn system_roots() -> Result<Arc<RootCertStore>, Failure> {
    static ROOTS: Mutex<Option<Arc<RootCertStore>>> = Mutex::new(None);
    let mut roots = ROOTS.lock();
    if let Some(store) = &*roots {
        return Ok(store.clone());
    }
    let store = store_of(rustls_native_certs::load_native_certs())?;
    Ok(roots.insert(Arc::new(store)).clone())
}

fn store_of(found: CertificateResult) -> Result<RootCertStore, Failure> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found.certs);
    match store.is_empty() {
        true => Err(Failure::NoRoots(found.errors.first().map(|error| words::plain(&error.to_string())))),
        false => Ok(store),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: Option<&str>) -> TlsPolicy {
        TlsPolicy { verify: true, server_name: name.map(Into::into), roots: None, client: None }
    }

    #[test]
    fn the_name_is_the_policys_then_the_hosts_then_the_upstreams_then_the_address() {
        for (policy_name, host, name, target, expected) in [
            (Some("a.example"), Some("b.example"), Some("c.example"), "10.0.0.1:1", "a.example"),
            (None, Some("b.example:8443"), Some("c.example"), "10.0.0.1:1", "b.example"),
            (None, Some("[::1]:8443"), None, "10.0.0.1:1", "::1"),
            (None, Some("::1"), None, "10.0.0.1:1", "::1"),
            (None, Some("10.9.0.1"), None, "10.0.0.1:1", "10.9.0.1"),
            (None, None, Some("c.example."), "10.0.0.1:1", "c.example"),
            (None, None, None, "10.0.0.1:1", "10.0.0.1"),
            (None, None, None, "[fe80::1%3]:1", "fe80::1"),
            (None, None, None, "unix:/run/a.sock", "localhost"),
        ] {
            let got = server_name(&policy(policy_name), host, name, &target.parse().unwrap()).unwrap();
            assert_eq!(got.to_str(), expected);
        }
    }

    #[test]
    fn invalid_names_are_rejected() {
        let target = "10.0.0.1:1".parse().unwrap();
        for bad in ["", "a b", "*.example", "naïve.example", "-"] {
            let got = server_name(&policy(Some(bad)), None, None, &target);
            assert!(matches!(&got, Err(Failure::Name(name)) if **name == *bad), "{bad:?}: {got:?}");
        }
    }

    #[test]
    fn equal_policies_share_a_configuration_and_others_do_not() {
        let unverified = TlsPolicy { verify: false, ..policy(None) };
        let named = TlsPolicy { server_name: Some("a.example".into()), ..unverified.clone() };
        let client =
            |policy: &TlsPolicy, alpn| Client::try_new(policy, parse_name("a.example").unwrap(), alpn).unwrap();
        let first = client(&unverified, &["http/1.1"]);
        assert!(Arc::ptr_eq(&first.setup, &client(&named, &["http/1.1"]).setup));
        assert!(!Arc::ptr_eq(&first.setup, &client(&unverified, &["h2"]).setup));
    }

    #[test]
    fn a_machine_without_roots_is_reported() {
        let mut found = CertificateResult::default();
        found.certs.push(CertificateDer::from_slice(b"garbage"));
        let failure = store_of(found).unwrap_err();
        assert_eq!(failure, Failure::NoRoots(None));
        assert_eq!(failure.to_string(), "no TLS: this machine has no root certificates to verify with");
        assert_eq!(failure.hint(), Some("install ca-certificates, or set tls.ca_file"));
        let key = rcgen::KeyPair::generate().unwrap();
        let root = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        let mut found = CertificateResult::default();
        found.certs.push(root.der().clone());
        assert_eq!(store_of(found).unwrap().len(), 1);
    }

    #[test]
    fn roots_and_keys_that_cannot_be_used_are_failures() {
        let name = parse_name("a.example").unwrap();
        let garbage = Certificate(b"garbage"[..].into());
        let roots = TlsPolicy { roots: Some(vec![garbage.clone()]), ..policy(None) };
        assert_eq!(Client::try_new(&roots, name.clone(), &[]).unwrap_err(), Failure::BadRoots);
        let identity = ClientIdentity { chain: vec![garbage], key: crate::model::Secret::new("no key") };
        let client = TlsPolicy { verify: false, client: Some(identity), ..policy(None) };
        let failure = Client::try_new(&client, name, &[]).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "no TLS: the client certificate cannot be used: its key is not a PEM private key"
        );
    }
}
