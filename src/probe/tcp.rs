//! `type = "tcp"`: connects and closes. The close is an orderly one: nothing was sent and nothing is waited for.

use tokio::time::{Instant, timeout_at};

use super::connect::dial;
use super::finding::Finding;
use crate::model::Address;

/// One TCP probe, over by `deadline`.
pub(super) async fn run(target: &Address, deadline: Instant) -> Finding<'static> {
    match timeout_at(deadline, dial(target)).await {
        Ok(Ok(_socket)) => Finding::Connected,
        Ok(Err(fault)) => Finding::NotConnected(fault),
        Err(_elapsed) => Finding::ConnectTimeout,
    }
}
