//! Parses a request target: matches path segments against a pattern, reads the query, decodes percent-encoding. Pure
//! and strict: a segment that cannot be decoded does not match.

/// The decoded values of the `{}` segments of `pattern` in `path`, in order; `None` if the path does not match. Such a
/// segment must not be empty.
pub fn match_path(pattern: &str, path: &str) -> Option<Vec<String>> {
    let mut values = Vec::new();
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(values),
            (Some(pattern), Some(segment)) if pattern.starts_with('{') => {
                values.push(decode(segment, false).filter(|value| !value.is_empty())?);
            }
            (Some(pattern), Some(segment)) if pattern == segment => {}
            _ => return None,
        }
    }
}

/// The decoded value of `key` in a query; the last one if it is repeated.
pub fn query_value(query: Option<&str>, key: &str) -> Option<String> {
    let pairs = query?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let value = pairs.filter(|(name, _)| *name == key).map(|(_, value)| value).next_back()?;
    decode(value, true)
}

/// Percent-encodes everything except unreserved characters and `:`, so that an address is one segment:
/// `unix:%2Frun%2Fa.sock`.
pub fn encode_segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?);
                rest = &rest[2..];
            }
            b'+' if plus_is_space => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_only_its_paths() {
        let order = "/api/v1/pools/{pool}/upstreams/{address}/drain";
        let path = "/api/v1/pools/api/upstreams/unix:%2Frun%2Fa.sock/drain";
        assert_eq!(match_path(order, path).unwrap(), ["api", "unix:/run/a.sock"]);
        assert_eq!(match_path("/health", "/health"), Some(vec![]));
        for path in ["/health/", "/health", "/health/a/b", "/health/%zz", "/health/%ff", "/health/%+1", "health/a"] {
            assert_eq!(match_path("/health/{pool}", path), None, "{path}");
        }
    }

    #[test]
    fn an_encoded_segment_decodes_to_the_original() {
        for text in ["[::1]:80", "unix:/run/ä b%.sock", "10.0.0.1:80", "a/b?c#d"] {
            assert_eq!(match_path("/{x}", &format!("/{}", encode_segment(text))).unwrap(), [text]);
        }
        assert_eq!(encode_segment("unix:/run/a.sock"), "unix:%2Frun%2Fa.sock");
    }

    #[test]
    fn a_query_is_decoded_and_the_last_value_wins() {
        let query = Some("after=3&x&reason=a+b%26c&after=4");
        assert_eq!(query_value(query, "after").as_deref(), Some("4"));
        assert_eq!(query_value(query, "reason").as_deref(), Some("a b&c"));
        assert_eq!(query_value(query, "x").as_deref(), Some(""));
        assert_eq!(query_value(query, "y"), None);
        assert_eq!(query_value(None, "y"), None);
    }
}
