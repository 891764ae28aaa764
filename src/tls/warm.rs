//! What a process does once before its first handshake: starts the cryptography (aws-lc gathers entropy for 50 ms and more)
//! and reads the roots of this machine. Whoever measures a handshake calls [`warm_up`] first, so that neither counts.

use rustls::client::ClientConnection;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use super::{make_config, parse_name, system_roots};
use crate::model::policy::TlsPolicy;

static CRYPTOGRAPHY: OnceCell<()> = OnceCell::const_new();
static ROOTS: OnceCell<()> = OnceCell::const_new();

/// Does what the first handshake under `policy` would do for the whole process. It runs on a thread of its own, once; those
/// that come meanwhile wait for it, those that come later pass. Cancel-safe.
pub async fn warm_up(policy: &TlsPolicy) {
    CRYPTOGRAPHY.get_or_init(|| beside(start_cryptography)).await;
    if policy.verify && policy.roots.is_none() {
        // A machine without roots is asked again by each client.
        ROOTS.get_or_init(|| beside(|| drop(system_roots()))).await;
    }
}

async fn beside(work: fn()) {
    // A panic of it is met, and reported, by the handshake that needs the same.
    let _ = spawn_blocking(work).await;
}

/// Makes the first message of a handshake, key shares included, and throws it away.
fn start_cryptography() {
    let policy = TlsPolicy { verify: false, server_name: None, roots: None, client: None };
    let (Ok(config), Ok(name)) = (make_config(&policy, &[]), parse_name("localhost")) else { return };
    if let Ok(mut connection) = ClientConnection::new(config.into(), name) {
        let _ = connection.write_tls(&mut std::io::sink());
    }
}
