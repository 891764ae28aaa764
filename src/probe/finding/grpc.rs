//! The words for what a gRPC health check answered, and for answers that are none.

use std::fmt::{self, Write};

use super::Circumstances;
use super::answer::{Cut, cut_words, write_excerpt};
use super::hints::{Asked, closed_hint, grpc_hint, no_answer_hint, status_hint};
use super::words::Bytes;
use crate::model::Code;
use crate::model::policy::GrpcProbe;
use crate::model::quote::{Excerpt, Quoted};
use crate::model::units::Measured;

/// What came of one call of `grpc.health.v1.Health/Check`.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) struct Called<'p> {
    pub probe: &'p GrpcProbe,
    /// The status of the HTTP answer below it.
    pub status: Option<u16>,
    pub said: Said,
}

/// What a call was answered.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) enum Said {
    /// A health, by its number in `grpc.health.v1`.
    Health(i32),
    /// An error of gRPC.
    Error { code: u32, message: Excerpt },
    /// An HTTP status that no gRPC server gives.
    Http { location: Option<Excerpt>, body: Excerpt },
    /// An answer that is not gRPC; its content type, where it has one.
    NotGrpc { content_type: Option<Excerpt>, body: Excerpt },
    /// An answer that ended without a grpc-status.
    NoStatus,
    /// An answer that breaks the rules of gRPC.
    Wrong(Wrong),
    /// The answer ended before it was whole.
    CutShort { cut: Cut, interim: u32, came: Came },
}

/// How much of a message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::probe) enum Came {
    Nothing,
    /// This many bytes, those of its prefix among them.
    Part(usize),
    Whole,
}

/// How an answer can break the rules of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::probe) enum Wrong {
    #[error("more than 16 interim answers")]
    Interim,
    #[error("malformed grpc-status")]
    Status,
    #[error("a compressed message, which was not asked for")]
    Compressed,
    #[error("malformed message: its first byte is {0:#04x}")]
    Flag(u8),
    #[error("a message of {0} bytes, of which at most 4 KiB are read")]
    Long(u32),
    #[error("more than one message")]
    Several,
    #[error("grpc-status OK without a message")]
    Missing,
    #[error("the message ended after {0} of {1} bytes")]
    Short(usize, usize),
    #[error("malformed message: not a HealthCheckResponse")]
    Undecodable,
}

/// The numbers of `grpc.health.v1.HealthCheckResponse.ServingStatus`.
mod health {
    pub(super) const UNKNOWN: i32 = 0;
    pub(super) const SERVING: i32 = 1;
    pub(super) const NOT_SERVING: i32 = 2;
    pub(super) const SERVICE_UNKNOWN: i32 = 3;
}

/// The codes of gRPC that have sentences of their own.
const NOT_FOUND: u32 = 5;
const UNIMPLEMENTED: u32 = 12;

impl Called<'_> {
    pub(super) fn code(&self) -> Code {
        match &self.said {
            Said::Health(health::SERVING) => Code::L7Ok,
            Said::Health(_) | Said::Error { .. } | Said::Http { .. } => Code::L7Sts,
            Said::CutShort { cut: Cut::Deadline, .. } => Code::L7Tout,
            Said::NotGrpc { .. } | Said::NoStatus | Said::Wrong(_) | Said::CutShort { .. } => Code::L7Rsp,
        }
    }

    pub(super) fn write_sentence(&self, out: &mut String, c: &Circumstances<'_>) -> fmt::Result {
        match &self.said {
            Said::Health(health::SERVING) => write!(out, "SERVING in {}", Measured(c.took)),
            Said::Health(number) => {
                match *number {
                    health::UNKNOWN => out.push_str("UNKNOWN"),
                    health::NOT_SERVING => out.push_str("NOT_SERVING"),
                    health::SERVICE_UNKNOWN => out.push_str("SERVICE_UNKNOWN"),
                    number => write!(out, "health status {number}")?,
                }
                self.write_service(out)?;
                out.push_str(", expected SERVING");
                Ok(())
            }
            Said::Error { code, message } => {
                match *code {
                    UNIMPLEMENTED => out.push_str("no health service there: grpc-status UNIMPLEMENTED (12)"),
                    NOT_FOUND if self.probe.service.is_empty() => {
                        out.push_str("no health of the server as a whole: grpc-status NOT_FOUND (5)");
                    }
                    NOT_FOUND => {
                        write!(out, "unknown service {}: ", Quoted(self.probe.service.as_bytes()))?;
                        out.push_str("grpc-status NOT_FOUND (5)");
                    }
                    code => write!(out, "grpc-status {}, expected OK", Named(code))?,
                }
                match message.bytes() {
                    [] => Ok(()),
                    bytes => write!(out, "; message: {}", Quoted(bytes)),
                }
            }
            Said::Http { location, body } => {
                write!(out, "status {}, expected 200", self.status.unwrap_or_default())?;
                if let Some(location) = location {
                    write!(out, "; location: {}", Quoted(location.bytes()))?;
                }
                write_excerpt(out, body)
            }
            Said::NotGrpc { content_type, body } => {
                match content_type {
                    Some(value) => write!(out, "content-type {}, expected application/grpc", Quoted(value.bytes()))?,
                    None => out.push_str("no content-type, expected application/grpc"),
                }
                write_excerpt(out, body)
            }
            Said::NoStatus => {
                out.push_str("the answer ended without a grpc-status");
                Ok(())
            }
            Said::Wrong(wrong) => write!(out, "{wrong}"),
            Said::CutShort { cut, interim, came } => self.write_cut(out, c, *cut, *interim, *came),
        }
    }

    fn write_cut(&self, out: &mut String, c: &Circumstances<'_>, cut: Cut, interim: u32, came: Came) -> fmt::Result {
        match (cut, self.status) {
            (Cut::Deadline, None) if interim > 0 => {
                write!(out, "no final answer within {:?}: {interim} interim came", c.timeout)?;
            }
            (Cut::Deadline, None) => write!(out, "no answer within {:?}", c.timeout)?,
            (Cut::Deadline, Some(_)) => match came {
                Came::Nothing => write!(out, "no message within {:?}", c.timeout)?,
                Came::Part(bytes) => {
                    write!(out, "no whole message within {:?}: {} of it came", c.timeout, Bytes(bytes as u64))?;
                }
                Came::Whole => write!(out, "no grpc-status within {:?}: its message came", c.timeout)?,
            },
            (Cut::Closed | Cut::Broke(_), None) => write!(out, "{} without an answer", cut_words(cut))?,
            (Cut::Closed | Cut::Broke(_), Some(_)) => write!(out, "{} inside the answer", cut_words(cut))?,
        }
        match (cut, c.connected_in) {
            (Cut::Deadline, Some(connected_in)) => write!(out, " (connected in {})", Measured(connected_in)),
            (Cut::Deadline | Cut::Closed | Cut::Broke(_), _) => Ok(()),
        }
    }

    fn write_service(&self, out: &mut String) -> fmt::Result {
        match &*self.probe.service {
            "" => Ok(()),
            service => write!(out, " for {}", Quoted(service.as_bytes())),
        }
    }

    pub(super) fn hint(&self, c: &Circumstances<'_>) -> Option<&'static str> {
        match &self.said {
            Said::Health(health::UNKNOWN) => Some("it has set no status yet: it may still be starting"),
            Said::Health(health::NOT_SERVING) => Some("it runs, but says of itself that it is not ready"),
            Said::Health(health::SERVICE_UNKNOWN) => Some(SERVICE_HINT),
            Said::Health(_) => None,
            Said::Error { code: UNIMPLEMENTED, .. } => {
                Some("register grpc.health.v1.Health in its server; type = \"tcp\" sees only whether the port is open")
            }
            Said::Error { code: NOT_FOUND, .. } if self.probe.service.is_empty() => {
                Some("set `service` to the full name of one that it has")
            }
            Said::Error { code: NOT_FOUND, .. } => Some(SERVICE_HINT),
            Said::Error { code, .. } => grpc_hint(*code),
            Said::Http { body, .. } => match self.status {
                Some(404 | 405 | 415) => Some(NOT_GRPC_HINT),
                status => {
                    let (has_host, is_tls) = (self.probe.host.is_some(), c.is_tls());
                    let asked = Asked { method: "POST", has_host, is_tls };
                    status_hint(asked, status.unwrap_or_default(), body.bytes())
                }
            },
            Said::NotGrpc { .. } => Some(NOT_GRPC_HINT),
            Said::NoStatus => Some("a proxy in front of it may drop trailers"),
            Said::Wrong(_) => None,
            Said::CutShort { cut: Cut::Deadline, .. } if self.status.is_none() => Some(no_answer_hint(c.is_tls())),
            Said::CutShort { cut: Cut::Deadline, .. } => Some("it answers too slowly for this timeout"),
            Said::CutShort { .. } if self.status.is_none() => Some(closed_hint(c.is_tls(), true)),
            Said::CutShort { .. } => None,
        }
    }
}

const SERVICE_HINT: &str = "check `service`: a full name such as package.Service, or none for the server as a whole";

const NOT_GRPC_HINT: &str = "this port speaks HTTP/2; what answers is not gRPC, or a proxy that does not pass it on";

/// The name and number of a status code of gRPC.
struct Named(u32);

const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(self.0 as usize) {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}
