//! Takes a request target apart: origin-form, absolute-form, or `*`. What is sent upstream has the bytes that came; what
//! is routed by has the normal form; what some parser could read as another resource is refused.

use std::borrow::Cow;

use super::answer::Refusal;
use super::authority::Authority;
use super::judge::Method;
use crate::http1::TargetPart;
use crate::route::{PathError, normalise};

/// A request target taken apart.
pub(super) struct Target<'a> {
    /// Of an absolute-form target, with the default port of its scheme.
    pub(super) authority: Option<(Authority<'a>, u16)>,
    /// In the normal form, for routing.
    pub(super) path: Cow<'a, str>,
    /// What goes upstream.
    pub(super) sent: Cow<'a, str>,
}

impl<'a> Target<'a> {
    /// Reads any of the three forms that a request other than CONNECT may have (RFC 9112, 3.2).
    pub(super) fn read(target: &'a str, method: Method) -> Result<Target<'a>, Refusal> {
        if target.starts_with('/') {
            let (path, _) = path_and_query(target)?;
            return Ok(Target { authority: None, path: normal(path)?, sent: Cow::Borrowed(target) });
        }
        if target == "*" && method == Method::Options {
            return Ok(Target { authority: None, path: Cow::Borrowed("*"), sent: Cow::Borrowed("*") });
        }
        Target::absolute(target, method)
    }

    /// `http://authority/path?query`. The path may be missing, even before a query.
    fn absolute(target: &'a str, method: Method) -> Result<Target<'a>, Refusal> {
        let bad = Refusal::malformed("a target that is neither a path nor an http URI");
        let strip = |scheme: &str| {
            let (start, rest) = target.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then_some(rest)
        };
        let (rest, default) =
            strip("http://").map(|rest| (rest, 80)).or_else(|| strip("https://").map(|rest| (rest, 443))).ok_or(bad)?;
        let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let authority = Some((Authority::parse(authority.as_bytes()).ok_or(bad)?, default));
        let (path, _) = path_and_query(rest)?;
        match (path, rest) {
            // RFC 9112, 3.2.4: the last proxy sends `OPTIONS http://host` as `OPTIONS *`.
            ("", "") if method == Method::Options => {
                Ok(Target { authority, path: Cow::Borrowed("*"), sent: Cow::Borrowed("*") })
            }
            ("", _) => Ok(Target { authority, path: Cow::Borrowed("/"), sent: Cow::Owned(format!("/{rest}")) }),
            (path, _) => Ok(Target { authority, path: normal(path)?, sent: Cow::Borrowed(rest) }),
        }
    }
}

/// Splits at the first `?`. A query may contain every visible character but `#`, which would begin a fragment.
fn path_and_query(text: &str) -> Result<(&str, &str), Refusal> {
    let (path, query) = text.split_at(memchr::memchr(b'?', text.as_bytes()).unwrap_or(text.len()));
    if query.contains('#') {
        return Err(Refusal::byte(b'#', TargetPart::Query));
    }
    Ok((path, query))
}

/// The path in the form in which routes are compared. Characters that RFC 3986 wants escaped (`"<>^{|}` and the backtick)
/// are allowed as in other proxies; only a raw `\` is refused, because some upstreams read it as `/`.
fn normal(path: &str) -> Result<Cow<'_, str>, Refusal> {
    if path.contains('\\') {
        return Err(Refusal::byte(b'\\', TargetPart::Path));
    }
    normalise(path.as_bytes()).map_err(|error| match error {
        PathError::NotAbsolute => Refusal::malformed("a path that does not begin with /"),
        PathError::DotSegment => Refusal::malformed("a dot segment in the path"),
        PathError::Nul => Refusal::malformed("a NUL in the path"),
        PathError::Escape => Refusal::malformed("a % in the path without two hex digits"),
        PathError::Byte(byte) => Refusal::byte(byte, TargetPart::Path),
    })
}
