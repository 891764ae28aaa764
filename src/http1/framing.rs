//! Where the body of a message ends (RFC 9112, section 6.3).

use super::fields::{Known, list, trim};
use super::{Fault, Field};

/// What is wrong with a Content-Length. Pingora does not say which, and a check must name the same fault as a request.
pub const NOT_ONE_LENGTH: &str = "not one number of at most 64 bits";

/// How a response ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFraming {
    /// It has no body.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// The end of the connection.
    UntilClose,
}

/// How a response ends, and its declared length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// What ends it.
    pub framing: ResponseFraming,
    /// Its Content-Length, also where no body follows.
    pub length: Option<u64>,
}

/// A single Content-Length: decimal digits that fit into 64 bits; no sign, no list.
pub fn content_length(value: &[u8]) -> Result<u64, Fault> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Length(NOT_ONE_LENGTH));
    }
    let digit = |n: u64, b: &u8| n.checked_mul(10)?.checked_add(u64::from(b - b'0'));
    value.iter().try_fold(0, digit).ok_or(Fault::Length(NOT_ONE_LENGTH))
}

/// Accepts exactly `chunked`. Other codings before it are valid but not supported; without `chunked` a body has no end.
pub fn transfer_coding(value: &[u8]) -> Result<(), Fault> {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    if is_chunked(value) {
        return Ok(());
    }
    if !list(value).last().is_some_and(is_chunked) {
        return Err(Fault::Coding("the last coding is not chunked"));
    }
    match list(value).filter(|coding| is_chunked(coding)).count() {
        1 => Err(Fault::OtherCoding),
        _ => Err(Fault::Coding("chunked is given twice")),
    }
}

/// How the response with this status and these fields ends. `to_head`: the request was HEAD.
///
/// Equal lengths count as one (RFC 9110, 8.6). A length beside chunks is a fault: the next reader may believe the other one
/// (RFC 9112, 6.3). Pingora removes the length before we see it.
pub fn ending<'a>(to_head: bool, status: u16, fields: impl Iterator<Item = Field<'a>>) -> Result<Ending, Fault> {
    // Beyond 599 there is no class, but a recipient can treat it as 5xx (RFC 9110, 15).
    if !(100..=999).contains(&status) {
        return Err(Fault::Status(status));
    }
    let mut length = Ok(None);
    let mut is_chunked = false;
    for field in fields {
        match field.known {
            Known::ContentLength => length = length.and_then(|known| lengths(known, field.value)),
            Known::TransferEncoding if is_chunked => return Err(Fault::Coding("chunked is given twice")),
            Known::TransferEncoding => {
                transfer_coding(field.value)?;
                is_chunked = true;
            }
            Known::Host
            | Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::Te
            | Known::Upgrade
            | Known::Http2Settings
            | Known::Expect
            | Known::ProxyAuth
            | Known::Authorization
            | Known::Cookie
            | Known::Forwarded
            | Known::Underscored
            | Known::Other => {}
        }
    }
    let length = length?;
    if is_chunked && length.is_some() {
        return Err(Fault::Length("beside Transfer-Encoding"));
    }
    let framing = match (length, is_chunked) {
        _ if to_head || status < 200 || status == 204 || status == 304 => ResponseFraming::None,
        (_, true) => ResponseFraming::Chunked,
        (Some(length), false) => ResponseFraming::Length(length),
        (None, false) => ResponseFraming::UntilClose,
    };
    Ok(Ending { framing, length })
}

/// Whether a 101 with these fields switches to this protocol and to nothing else. Several Upgrade fields are a list of
/// offers, which a 101 must not have.
pub fn switches_to<'a>(protocol: &[u8], fields: impl Iterator<Item = Field<'a>>) -> bool {
    let mut upgrades = fields.filter(|field| field.known == Known::Upgrade);
    upgrades.next().is_some_and(|field| field.value.eq_ignore_ascii_case(protocol)) && upgrades.next().is_none()
}

/// The single length of a list and of the fields before it.
fn lengths(mut known: Option<u64>, value: &[u8]) -> Result<Option<u64>, Fault> {
    for item in value.split(|b| *b == b',').map(trim) {
        let length = content_length(item)?;
        if known.replace(length).is_some_and(|known| known != length) {
            return Err(Fault::Length(NOT_ONE_LENGTH));
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(to_head: bool, status: u16, fields: &[(&str, &str)]) -> Result<ResponseFraming, Fault> {
        let fields = fields.iter().map(|(name, value)| Field::new(name.as_bytes(), value.as_bytes()));
        ending(to_head, status, fields).map(|ending| ending.framing)
    }

    #[test]
    fn a_response_has_one_ending() {
        use ResponseFraming::{Chunked, Length, None, UntilClose};
        let (length, chunked) = (("Content-Length", "5"), ("Transfer-Encoding", "chunked"));
        let other = ("content-length", "6");
        for (to_head, status, fields, want) in [
            (false, 200, &[][..], Ok(UntilClose)),
            (false, 200, &[length], Ok(Length(5))),
            (false, 200, &[chunked], Ok(Chunked)),
            (false, 404, &[("content-length", "0")], Ok(Length(0))),
            (true, 200, &[length], Ok(None)),
            (true, 200, &[chunked], Ok(None)),
            (true, 200, &[], Ok(None)),
            (false, 204, &[length], Ok(None)),
            (false, 304, &[chunked], Ok(None)),
            (false, 100, &[], Ok(None)),
            (false, 103, &[length], Ok(None)),
            // Lengths.
            (false, 200, &[length, length], Ok(Length(5))),
            (false, 200, &[("Content-Length", "5, 5"), ("Content-Length", "05\t,5")], Ok(Length(5))),
            (false, 200, &[length, other], Err(Fault::Length(NOT_ONE_LENGTH))),
            (false, 200, &[("Content-Length", "5, 6")], Err(Fault::Length(NOT_ONE_LENGTH))),
            (false, 204, &[("Content-Length", "5, 6")], Err(Fault::Length(NOT_ONE_LENGTH))),
            (false, 200, &[("Content-Length", "5,")], Err(Fault::Length(NOT_ONE_LENGTH))),
            (false, 200, &[("Content-Length", "")], Err(Fault::Length(NOT_ONE_LENGTH))),
            (false, 200, &[("Content-Length", "+5")], Err(Fault::Length(NOT_ONE_LENGTH))),
            (false, 200, &[("Content-Length", "0x5")], Err(Fault::Length(NOT_ONE_LENGTH))),
            (false, 200, &[("Content-Length", "5 5")], Err(Fault::Length(NOT_ONE_LENGTH))),
            (true, 200, &[("Content-Length", "x")], Err(Fault::Length(NOT_ONE_LENGTH))),
            (false, 200, &[("Content-Length", "18446744073709551615")], Ok(Length(u64::MAX))),
            (false, 200, &[("Content-Length", "18446744073709551616")], Err(Fault::Length(NOT_ONE_LENGTH))),
            // Codings.
            (false, 200, &[length, chunked], Err(Fault::Length("beside Transfer-Encoding"))),
            (false, 200, &[chunked, ("Content-Length", "x")], Err(Fault::Length(NOT_ONE_LENGTH))),
            (true, 200, &[chunked, length], Err(Fault::Length("beside Transfer-Encoding"))),
            (false, 200, &[("Transfer-Encoding", "CHUNKED")], Ok(Chunked)),
            (false, 200, &[chunked, chunked], Err(Fault::Coding("chunked is given twice"))),
            (false, 200, &[("Transfer-Encoding", "chunked, chunked")], Err(Fault::Coding("chunked is given twice"))),
            (false, 200, &[("Transfer-Encoding", "gzip, chunked")], Err(Fault::OtherCoding)),
            (false, 200, &[("Transfer-Encoding", "gzip")], Err(Fault::Coding("the last coding is not chunked"))),
            (false, 200, &[("Transfer-Encoding", "")], Err(Fault::Coding("the last coding is not chunked"))),
            (
                false,
                200,
                &[length, ("Transfer-Encoding", "identity")],
                Err(Fault::Coding("the last coding is not chunked")),
            ),
            // Statuses.
            (false, 99, &[], Err(Fault::Status(99))),
            (false, 0, &[length], Err(Fault::Status(0))),
            (false, 600, &[length], Ok(Length(5))),
            (false, 999, &[], Ok(UntilClose)),
            (false, 1_000, &[length], Err(Fault::Status(1_000))),
        ] {
            assert_eq!(framing(to_head, status, fields), want, "{to_head} {status} {fields:?}");
        }
    }
}
