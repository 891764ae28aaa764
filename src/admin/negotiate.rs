//! Content negotiation by the `Accept` and `Accept-Encoding` fields of a request (RFC 9110, section 12.5), and the only
//! offered coding: gzip.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

/// Whether OpenMetrics is accepted by name; wildcards get the older Prometheus text.
pub fn accepts_open_metrics(headers: &HeaderMap) -> bool {
    quality(headers, ACCEPT, &["application/openmetrics-text"]).is_some_and(|q| q > 0)
}

/// Whether a gzip response is accepted, and an uncompressed one is not preferred.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    // `x-gzip` is the same (RFC 9110, section 8.4.1.3); `*` is every coding that is not named.
    let any = quality(headers, ACCEPT_ENCODING, &["*"]);
    let gzip = quality(headers, ACCEPT_ENCODING, &["gzip", "x-gzip"]).or(any).unwrap_or(0);
    gzip > 0 && gzip >= quality(headers, ACCEPT_ENCODING, &["identity"]).unwrap_or(0)
}

/// Compresses the text at the fastest level, which is enough for the repetitive text of metrics.
pub fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    let written = encoder.write_all(text).and_then(|()| encoder.finish());
    written.expect("a Vec takes everything")
}

/// The highest weight, in thousandths, that a field gives to one of these names; `None` if it has none of them. An
/// invalid weight counts as 0.
fn quality(headers: &HeaderMap, field: HeaderName, names: &[&str]) -> Option<u16> {
    let values = headers.get_all(field);
    let members = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let weights = members.filter_map(|member| {
        let mut parts = member.split(';').map(str::trim);
        let name = parts.next()?;
        names.iter().any(|known| known.eq_ignore_ascii_case(name)).then(|| {
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            weight.map_or(1_000, |weight| thousandths(weight).unwrap_or(0))
        })
    });
    weights.max()
}

/// `0.5` as 500: at most three digits after the point, at most 1 (RFC 9110, section 12.4.2).
fn thousandths(weight: &str) -> Option<u16> {
    let (whole, part) = weight.split_once('.').unwrap_or((weight, ""));
    let digits = part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    let part: u16 = if digits { format!("{part:0<3}").parse().ok()? } else { return None };
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn gzip_is_sent_only_if_accepted() {
        for (values, accepted) in [
            (&["gzip"][..], true),
            (&["GZIP"], true),
            (&["x-gzip"], true),
            (&["gzip, deflate, br"], true),
            (&["deflate", "br;q=1.0, gzip;q=0.8"], true),
            (&["*"], true),
            (&["*;q=0.1"], true),
            (&["deflate, *"], true),
            (&["gzip;q=0.001"], true),
            (&["gzip ; q=1.000"], true),
            (&["gzip;Q=0.5"], true),
            (&["identity, gzip"], true),
            (&["identity;q=0, gzip;q=0.5"], true),
            (&[], false),
            (&[""], false),
            (&["identity"], false),
            (&["br, deflate"], false),
            (&["gzip;q=0"], false),
            (&["gzip;q=0.000"], false),
            (&["gzip; q=0, *"], false),
            (&["*;q=0"], false),
            (&["gzip;q=nonsense"], false),
            (&["gzip;q=2"], false),
            (&["gzip;q=-1"], false),
            (&["gzip;q=0.0001"], false),
            (&["gzipped"], false),
            (&["identity, gzip;q=0.5"], false),
        ] {
            assert_eq!(accepts_gzip(&headers(ACCEPT_ENCODING, values)), accepted, "{values:?}");
        }
    }

    #[test]
    fn open_metrics_is_sent_only_if_named() {
        for (value, accepted) in [
            ("application/openmetrics-text", true),
            ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1", true),
            ("application/openmetrics-text;q=0, text/plain", false),
            ("text/plain", false),
            ("*/*", false),
        ] {
            assert_eq!(accepts_open_metrics(&headers(ACCEPT, &[value])), accepted, "{value}");
        }
    }

    #[test]
    fn compressed_text_decompresses_to_the_original() {
        for text in [String::new(), "roundsman_up 1\n".repeat(100_000)] {
            let packed = gzip(text.as_bytes());
            assert!(packed.len() <= text.len() / 8 + 64);
            let mut back = String::new();
            flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut back).unwrap();
            assert_eq!(back, text);
        }
    }
}
