//! Names of cookies.

use std::sync::Arc;

use super::Text;
use super::http::is_token;

/// The name of a cookie that roundsman sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieName(pub Arc<str>);

impl Text for CookieName {
    fn what() -> String {
        "the name of a cookie, such as \"rm_affinity\"".to_owned()
    }

    fn parse(text: &str) -> Result<CookieName, String> {
        match text {
            _ if !is_token(text) || text.len() > 256 => Err(" is not the name of a cookie".to_owned()),
            // RFC 6265bis: browsers take one only with attributes that ours does not have over plain HTTP.
            _ if ["__secure-", "__host-"].iter().any(|prefix| text.to_ascii_lowercase().starts_with(prefix)) => {
                Err(" is a name that browsers take over TLS alone".to_owned())
            }
            _ => Ok(CookieName(Arc::from(text))),
        }
    }

    fn pattern() -> Option<&'static str> {
        Some(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}$")
    }
}
