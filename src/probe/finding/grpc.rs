//! Sentences for answers to gRPC health checks, and for answers that are not gRPC.

use std::fmt::{self, Write};

use super::Circumstances;
use super::answer::{Cutoff, cutoff_words, write_excerpt};
use super::hints::{Asked, closed_hint, grpc_hint, no_answer_hint, status_hint};
use super::words::Bytes;
use crate::model::Code;
use crate::model::policy::{GrpcProbe, have_credentials};
use crate::model::quote::{Excerpt, Quoted};
use crate::model::units::Measured;

/// The outcome of one call of `grpc.health.v1.Health/Check`.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) struct GrpcCall<'p> {
    pub probe: &'p GrpcProbe,
    /// The status of the HTTP answer below it.
    pub status: Option<u16>,
    pub outcome: GrpcAnswer,
}

/// The answer to a call.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::probe) enum GrpcAnswer {
    /// A health status, by its number in `grpc.health.v1`.
    Health(i32),
    /// An error of gRPC.
    Error { code: u32, message: Excerpt },
    /// An HTTP status other than 200.
    Http { location: Option<Excerpt>, body: Excerpt },
    /// An answer that is not gRPC, with its content type if any.
    NotGrpc { content_type: Option<Excerpt>, body: Excerpt },
    /// An answer that ended without a grpc-status.
    NoStatus,
    /// An answer that violates gRPC.
    Violation(Violation),
    /// An incomplete answer.
    CutShort { cut: Cutoff, interim: u32, received: Received },
}

/// The received part of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::probe) enum Received {
    None,
    /// This many bytes, its prefix included.
    Part(usize),
    Whole,
}

/// How an answer can violate gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::probe) enum Violation {
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

/// The status codes of gRPC with special sentences.
const NOT_FOUND: u32 = 5;
const UNIMPLEMENTED: u32 = 12;

impl GrpcCall<'_> {
    pub(super) fn code(&self) -> Code {
        match &self.outcome {
            GrpcAnswer::Health(health::SERVING) => Code::L7Ok,
            GrpcAnswer::Health(_) | GrpcAnswer::Error { .. } | GrpcAnswer::Http { .. } => Code::L7Sts,
            GrpcAnswer::CutShort { cut: Cutoff::Deadline, .. } => Code::L7Tout,
            GrpcAnswer::NotGrpc { .. }
            | GrpcAnswer::NoStatus
            | GrpcAnswer::Violation(_)
            | GrpcAnswer::CutShort { .. } => Code::L7Rsp,
        }
    }

    pub(super) fn write_sentence(&self, out: &mut String, context: &Circumstances<'_>) -> fmt::Result {
        match &self.outcome {
            GrpcAnswer::Health(health::SERVING) => write!(out, "SERVING in {}", Measured(context.took)),
            GrpcAnswer::Health(number) => {
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
            GrpcAnswer::Error { code, message } => {
                match *code {
                    UNIMPLEMENTED => out.push_str("no health service: grpc-status UNIMPLEMENTED (12)"),
                    NOT_FOUND if self.probe.service.is_empty() => {
                        out.push_str("no health status of the whole server: grpc-status NOT_FOUND (5)");
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
            GrpcAnswer::Http { location, body } => {
                write!(out, "status {}, expected 200", self.status.unwrap_or_default())?;
                if let Some(location) = location {
                    write!(out, "; location: {}", Quoted(location.bytes()))?;
                }
                write_excerpt(out, body)
            }
            GrpcAnswer::NotGrpc { content_type, body } => {
                match content_type {
                    Some(value) => write!(out, "content-type {}, expected application/grpc", Quoted(value.bytes()))?,
                    None => out.push_str("no content-type, expected application/grpc"),
                }
                write_excerpt(out, body)
            }
            GrpcAnswer::NoStatus => {
                out.push_str("the answer ended without a grpc-status");
                Ok(())
            }
            GrpcAnswer::Violation(wrong) => write!(out, "{wrong}"),
            GrpcAnswer::CutShort { cut, interim, received } => {
                self.write_cutoff(out, context, *cut, *interim, *received)
            }
        }
    }

    fn write_cutoff(
        &self,
        out: &mut String,
        context: &Circumstances<'_>,
        cut: Cutoff,
        interim: u32,
        received: Received,
    ) -> fmt::Result {
        match (cut, self.status) {
            (Cutoff::Deadline, None) if interim > 0 => {
                write!(out, "no final answer within {:?}: {interim} interim received", context.timeout)?;
            }
            (Cutoff::Deadline, None) => write!(out, "no answer within {:?}", context.timeout)?,
            (Cutoff::Deadline, Some(_)) => match received {
                Received::None => write!(out, "no message within {:?}", context.timeout)?,
                Received::Part(bytes) => {
                    write!(
                        out,
                        "no complete message within {:?}: {} of it received",
                        context.timeout,
                        Bytes(bytes as u64)
                    )?;
                }
                Received::Whole => {
                    write!(out, "no grpc-status within {:?}: only its message was received", context.timeout)?
                }
            },
            (Cutoff::Closed | Cutoff::Broke(_), None) => write!(out, "{} without an answer", cutoff_words(cut))?,
            (Cutoff::Closed | Cutoff::Broke(_), Some(_)) => write!(out, "{} inside the answer", cutoff_words(cut))?,
        }
        match (cut, context.connected_in) {
            (Cutoff::Deadline, Some(connected_in)) => write!(out, " (connected in {})", Measured(connected_in)),
            (Cutoff::Deadline | Cutoff::Closed | Cutoff::Broke(_), _) => Ok(()),
        }
    }

    fn write_service(&self, out: &mut String) -> fmt::Result {
        match &*self.probe.service {
            "" => Ok(()),
            service => write!(out, " for {}", Quoted(service.as_bytes())),
        }
    }

    pub(super) fn hint(&self, context: &Circumstances<'_>) -> Option<&'static str> {
        let has_credentials = have_credentials(&self.probe.headers);
        match &self.outcome {
            GrpcAnswer::Health(health::UNKNOWN) => Some("it has set no status yet: it may still be starting"),
            GrpcAnswer::Health(health::NOT_SERVING) => Some("it runs, but reports that it is not ready"),
            GrpcAnswer::Health(health::SERVICE_UNKNOWN) => Some(SERVICE_HINT),
            GrpcAnswer::Health(_) => None,
            GrpcAnswer::Error { code: UNIMPLEMENTED, .. } => {
                Some("register grpc.health.v1.Health in its server; type = \"tcp\" sees only whether the port is open")
            }
            GrpcAnswer::Error { code: NOT_FOUND, .. } if self.probe.service.is_empty() => {
                Some("set `service` to the full name of one that it has")
            }
            GrpcAnswer::Error { code: NOT_FOUND, .. } => Some(SERVICE_HINT),
            GrpcAnswer::Error { code, .. } => grpc_hint(*code, has_credentials),
            GrpcAnswer::Http { body, .. } => match self.status {
                Some(404 | 405 | 415) => Some(NOT_GRPC_HINT),
                status => {
                    let (has_host, is_tls) = (self.probe.host.is_some(), context.is_tls());
                    let asked = Asked { method: "POST", has_host, has_credentials, is_tls };
                    status_hint(asked, status.unwrap_or_default(), body.bytes())
                }
            },
            GrpcAnswer::NotGrpc { .. } => Some(NOT_GRPC_HINT),
            GrpcAnswer::NoStatus => Some("a proxy in front of it may drop trailers"),
            GrpcAnswer::Violation(_) => None,
            GrpcAnswer::CutShort { cut: Cutoff::Deadline, .. } if self.status.is_none() => {
                Some(no_answer_hint(context.is_tls()))
            }
            GrpcAnswer::CutShort { cut: Cutoff::Deadline, .. } => Some("it answers too slowly for this timeout"),
            GrpcAnswer::CutShort { .. } if self.status.is_none() => Some(closed_hint(context.is_tls(), true)),
            GrpcAnswer::CutShort { .. } => None,
        }
    }
}

const SERVICE_HINT: &str = "check `service`: a full name such as package.Service, or leave it out for the whole server";

const NOT_GRPC_HINT: &str = "this port speaks HTTP/2 but not gRPC, or a proxy there does not forward gRPC";

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
