//! `upgrades`: names of protocols to which requests may switch, in lower case.

use std::sync::Arc;

use crate::config::values::Text;
use crate::model::policy::{carries_http, is_protocol};

/// The name of a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol(pub Arc<str>);

impl Text for Protocol {
    fn what() -> String {
        "the name of a protocol, such as \"websocket\" or \"tls/1.0\"".to_owned()
    }

    fn parse(text: &str) -> Result<Protocol, String> {
        match text {
            _ if !is_protocol(text.as_bytes()) => Err(" is not the name of a protocol".to_owned()),
            _ if carries_http(text) => Err(" would carry requests that are not checked".to_owned()),
            _ => Ok(Protocol(Arc::from(text.to_ascii_lowercase()))),
        }
    }

    fn expected(text: &str) -> Option<String> {
        carries_http(text).then(|| "another protocol; HTTP/2 cannot be switched to".to_owned())
    }

    fn pattern() -> Option<&'static str> {
        Some(r"^[A-Za-z0-9!#$%&'*+.^_`|~/-]{1,64}$")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_compared_in_lower_case_and_http_is_none_of_them() {
        assert_eq!(Protocol::parse("WebSocket"), Ok(Protocol(Arc::from("websocket"))));
        assert_eq!(Protocol::parse("TLS/1.0"), Ok(Protocol(Arc::from("tls/1.0"))));
        for bad in ["", "h2c", "H2C", "HTTP/2.0", "h2", "a b", "a,b", "web socket", "a/b/c", "é"] {
            assert!(Protocol::parse(bad).is_err(), "{bad:?}");
        }
    }
}
