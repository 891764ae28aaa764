//! Builds answers. Every answer leaves through here, so every one carries the same guards for browsers: no sniffing, no
//! storing, no foreign sites.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::json::ErrorReply;

/// An answer with its whole body.
pub type Reply = Response<Full<Bytes>>;

/// What a page of ours may load: nothing but its own style.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A JSON answer.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Reply {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            build(status, "application/json", body)
        }
        Err(error) => build(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", error.to_string().into()),
    }
}

/// A JSON answer that says what went wrong.
pub fn error(status: StatusCode, message: impl Into<String>) -> Reply {
    json(status, &ErrorReply { error: message.into() })
}

/// A plain answer of this type.
pub fn text(content_type: &'static str, body: String) -> Reply {
    build(StatusCode::OK, content_type, body.into())
}

/// A page.
pub fn page(body: String) -> Reply {
    let reply = build(StatusCode::OK, "text/html; charset=utf-8", body.into());
    with(reply, header::CONTENT_SECURITY_POLICY, PAGE_POLICY)
}

/// The answer with one more field.
pub fn with(mut reply: Reply, name: HeaderName, value: &str) -> Reply {
    let value = HeaderValue::from_str(value).expect("our own field values are printable");
    reply.headers_mut().insert(name, value);
    reply
}

fn build(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Reply {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::CACHE_CONTROL, "no-store")
        .header(header::REFERRER_POLICY, "no-referrer")
        .header(header::X_FRAME_OPTIONS, "DENY")
        .body(Full::new(Bytes::from(body)))
        .expect("our own fields are good")
}
