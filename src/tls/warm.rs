//! What a process does once before its first handshake: it starts the cryptography (aws-lc gathers entropy for 50 ms and
//! more) and reads the roots of this machine. Code that measures a handshake calls [`warm_up`] first, so that the time of
//! the handshake includes neither.

use rustls::client::ClientConnection;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use super::{make_setup, parse_name, system_roots};
use crate::model::policy::TlsPolicy;

static CRYPTOGRAPHY: OnceCell<()> = OnceCell::const_new();
static ROOTS: OnceCell<()> = OnceCell::const_new();

/// Does the work that the first handshake under `policy` would do for the whole process. The work runs once, on a blocking
/// thread; concurrent callers wait for it, later ones return at once. Cancel-safe.
pub async fn warm_up(policy: &TlsPolicy) {
    CRYPTOGRAPHY.get_or_init(|| on_blocking_thread(start_cryptography)).await;
    if policy.verify && policy.roots.is_none() {
        // Without roots, each client looks for them again.
        ROOTS.get_or_init(|| on_blocking_thread(|| drop(system_roots()))).await;
    }
}

async fn on_blocking_thread(work: fn()) {
    // If `work` panics, the handshake that does the same work reports the failure.
    let _ = spawn_blocking(work).await;
}

fn start_cryptography() {
    drop(first_message());
}

/// The first message of a handshake, key shares included: making them starts the cryptography. `None`: it cannot be made.
fn first_message() -> Option<Vec<u8>> {
    let policy = TlsPolicy { verify: false, server_name: None, roots: None, client: None };
    let (setup, name) = (make_setup(&policy, &[]).ok()?, parse_name("localhost").ok()?);
    let mut message = Vec::new();
    ClientConnection::new(setup.config.into(), name).ok()?.write_tls(&mut message).ok()?;
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_warm_up_makes_a_whole_client_hello() {
        let message = first_message().unwrap();
        // The head of a record, and the length of the message in it (RFC 8446, sections 4 and 5.1).
        let length = u32::from_be_bytes([0, message[6], message[7], message[8]]) as usize;
        assert_eq!((message[0], message[5], message.len()), (0x16, 0x01, 9 + length));
        assert!(length > 100, "it has key shares: {length} bytes");
        warm_up(&TlsPolicy { verify: true, server_name: None, roots: None, client: None }).await;
        assert!(CRYPTOGRAPHY.initialized() && ROOTS.initialized());
    }
}
