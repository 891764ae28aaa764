//! Builds answers. Every answer leaves through here, so every one carries the same guards for browsers: no sniffing, no
//! storing, no foreign sites.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

use super::json::ErrorReply;

/// An answer with its whole body, which others may be given too.
pub type Reply = Response<Bytes>;

/// What a page of ours may load: nothing but its own style.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A JSON answer.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            build(status, "application/json", body.into())
        }
        Err(error) => build(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", error.to_string().into()),
    }
}

/// A JSON answer that is rendered already.
pub fn json_text(body: Bytes) -> Reply {
    build(StatusCode::OK, "application/json", body)
}

/// The value as the text of a JSON answer.
pub fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    let mut body = serde_json::to_vec(value).unwrap_or_else(|error| {
        tracing::error!(%error, "An answer cannot be written as JSON");
        b"null".to_vec()
    });
    body.push(b'\n');
    body
}

/// The answer of a connection that is closed after it.
pub fn closing(reply: Reply) -> Reply {
    with(reply, header::CONNECTION, "close")
}

/// There is no room now; the sentence says for what.
pub fn busy(message: &str) -> Reply {
    with(error(StatusCode::SERVICE_UNAVAILABLE, message), header::RETRY_AFTER, "1")
}

/// A JSON answer that says what went wrong.
pub fn error(status: StatusCode, message: impl Into<String>) -> Reply {
    json(status, &ErrorReply { error: message.into() })
}

/// A plain answer of this type.
pub fn text(content_type: &'static str, body: Bytes) -> Reply {
    build(StatusCode::OK, content_type, body)
}

/// A page.
pub fn page(body: Bytes) -> Reply {
    let reply = build(StatusCode::OK, "text/html; charset=utf-8", body);
    with(reply, header::CONTENT_SECURITY_POLICY, PAGE_POLICY)
}

/// The answer with one more field.
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
