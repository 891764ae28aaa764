//! The origin of a request, as text for events: the address of its connection, and whether it is one of our own
//! commands.

use std::sync::Arc;

use http::HeaderMap;
use http::header::USER_AGENT;

/// The peer of an admin connection, as text: `127.0.0.1:4711`, or `unix socket, uid 0, pid 4711`.
#[derive(Debug, Clone)]
pub struct Peer(pub Arc<str>);

/// `command from 127.0.0.1:4711`, `admin API, client 127.0.0.1:4711`. Contains no text from the client.
pub fn asker(headers: &HeaderMap, peer: Option<&Peer>) -> String {
    // Our own commands send this. A client may fake it, but that changes only one word.
    let own = headers.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"roundsman/"));
    let from = peer.map_or("unknown", |peer| &peer.0);
    if own { format!("command from {from}") } else { format!("admin API, client {from}") }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn our_commands_are_distinguished_from_other_clients() {
        let peer = Peer("127.0.0.1:4711".into());
        for (agent, want) in [
            (None, "admin API, client 127.0.0.1:4711"),
            (Some("curl/8.0\u{e9}"), "admin API, client 127.0.0.1:4711"),
            (Some("roundsman/0.1.0"), "command from 127.0.0.1:4711"),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(agent) = agent {
                headers.insert(USER_AGENT, HeaderValue::from_bytes(agent.as_bytes()).unwrap());
            }
            assert_eq!(asker(&headers, Some(&peer)), want);
        }
    }
}
