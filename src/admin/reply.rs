//! Builds responses. Every response is built here, so all have the same security fields for browsers: no sniffing, no
//! caching, no framing.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

use super::json::ErrorReply;

/// A response with its whole body, which may be shared.
pub type Reply = Response<Bytes>;

/// The page may load nothing and use only its inline style.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A JSON response.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            build(status, "application/json", body.into())
        }
        Err(error) => build(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", error.to_string().into()),
    }
}

/// A JSON response from rendered text.
pub fn json_text(body: Bytes) -> Reply {
    json_bytes(StatusCode::OK, body)
}

/// The same with this status.
pub fn json_bytes(status: StatusCode, body: Bytes) -> Reply {
    build(status, "application/json", body)
}

/// The value as the text of a JSON response; `null` and an error in the log if it cannot be serialised.
pub fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    let mut body = serde_json::to_vec(value).unwrap_or_else(|error| {
        tracing::error!(%error, "A response cannot be written as JSON");
        b"null".to_vec()
    });
    body.push(b'\n');
    body
}

/// The response with `Connection: close`.
pub fn closing(reply: Reply) -> Reply {
    with(reply, header::CONNECTION, "close")
}

/// 503 with `Retry-After: 1`; the message names the limit that was reached.
pub fn busy(message: &str) -> Reply {
    with(error(StatusCode::SERVICE_UNAVAILABLE, message), header::RETRY_AFTER, "1")
}

/// A JSON response with an error message.
pub fn error(status: StatusCode, message: impl Into<String>) -> Reply {
    json(status, &ErrorReply { error: message.into() })
}

/// A text response with this content type.
pub fn text(content_type: &'static str, body: Bytes) -> Reply {
    build(StatusCode::OK, content_type, body)
}

/// An HTML page with its content security policy.
pub fn page(body: Bytes) -> Reply {
    let reply = build(StatusCode::OK, "text/html; charset=utf-8", body);
    with(reply, header::CONTENT_SECURITY_POLICY, PAGE_POLICY)
}

/// The response with one more header field; panics if the value is not printable.
pub fn with(mut reply: Reply, name: HeaderName, value: &str) -> Reply {
    let value = HeaderValue::from_str(value).expect("our own field values are printable");
    reply.headers_mut().insert(name, value);
    reply
}

fn build(status: StatusCode, content_type: &'static str, body: Bytes) -> Reply {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::CACHE_CONTROL, "no-store")
        .header(header::REFERRER_POLICY, "no-referrer")
        .header(header::X_FRAME_OPTIONS, "DENY")
        .body(body)
        .expect("our own fields are good")
}
