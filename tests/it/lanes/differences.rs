//! In what the lanes differ on purpose, and why: once, here. A test that meets a difference names its row of this table: the
//! responses that each lane accepts ([`super`]), the targets ([`super::requests`]), the heads of responses
//! ([`super::responses`]), and the comparison of random bytes ([`crate::differential`]).

use roundsman::model::policy::Lane;

use super::each::current;

/// Something that the general lane does and the express lane does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// `Connection: keep-alive` goes to clients of HTTP/1.1 too, also in place of `upgrade` in a 426.
    SaysKeepAlive,
    /// The `Date` of a response is the time at which it was forwarded.
    ReplacesDate,
    /// Trailers go no further, in either direction.
    DropsTrailers,
    /// Chunks without data are left out of a request whose method has no body as a rule.
    DropsEmptyChunks,
    /// A request whose body turns out to be broken, or whose client leaves, may have reached the upstream by then.
    SendsHeadsFirst,
    /// A connection of HTTP/1.0 that could go on may be closed.
    ClosesHttp10,
    /// Some characters in a target are answered with 400.
    RefusesCharacters,
    /// An absolute-form target whose authority is not spelled as in Host is answered with 400.
    ComparesAuthorities,
    /// White space that is dropped from a head does not count for its size.
    CountsNoWhiteSpace,
    /// A length beside chunks is dropped, whatever it says.
    DropsLengthsBesideChunks,
    /// An empty line is taken for the last chunk.
    TakesEmptyLastChunks,
    /// Of what is wrong with a response, less is reported.
    SaysLess,
    /// A request that got no response head in time is not sent again, whatever `retry.on` says.
    NeverRepeatsTimeouts,
    /// A request and a client that does not read take more memory.
    TakesMoreMemory,
    /// A response that stalls in its body ends by a timer that does not stop with the clock of a test.
    TimesBodiesItself,
}

use Difference::*;

impl Difference {
    /// Why it is so.
    pub fn why(self) -> &'static str {
        match self {
            SaysKeepAlive => "pingora writes the field itself",
            ReplacesDate => "pingora writes the field itself, as nginx does",
            DropsTrailers => "pingora passes on no field after a body",
            DropsEmptyChunks => "pingora frames the body of such a request when its first data come",
            SendsHeadsFirst => "pingora sends a head before it reads of the body",
            ClosesHttp10 => "pingora closes them after some responses",
            RefusesCharacters => "the `http` crate reads the target as a URI",
            ComparesAuthorities => "pingora compares them byte by byte",
            CountsNoWhiteSpace => "pingora has a buffer of its own for heads, and we see the fields only",
            DropsLengthsBesideChunks => "pingora removes the field before we see it",
            TakesEmptyLastChunks => "pingora's parser of chunks is laxer",
            SaysLess => "pingora's errors name the part of a head that is wrong, and not how",
            NeverRepeatsTimeouts => {
                "pingora has to be cancelled then, and with it goes what it has kept of the request"
            }
            TakesMoreMemory => "pingora holds several pieces of a body",
            TimesBodiesItself => "pingora times each read of a body, with a clock of its own",
        }
    }

    /// Whether this lane has it.
    pub fn is_in(self, lane: Lane) -> bool {
        lane == Lane::General
    }

    /// Whether the lane of the test that runs here has it.
    pub fn is_here(self) -> bool {
        current().is_some_and(|lane| self.is_in(lane))
    }
}

/// The `Connection` of a response after which the client's connection goes on.
pub fn keep_alive() -> Option<&'static str> {
    SaysKeepAlive.is_here().then_some("keep-alive")
}

/// The most memory, in bytes, for a client that does not read its response.
pub fn slow_reader() -> u64 {
    if TakesMoreMemory.is_here() { 600 << 10 } else { 64 << 10 }
}

/// The most memory, in bytes, for a request whose upstream is hostile: a head may have 64 KiB. Pingora reads up to 1 MiB before
/// it refuses one that does not end.
pub fn hostile_upstream() -> u64 {
    if TakesMoreMemory.is_here() { 1_280 << 10 } else { 192 << 10 }
}

/// The most memory, in bytes, for a client whose small body is not whole.
pub fn slow_body() -> u64 {
    if TakesMoreMemory.is_here() { 160 << 10 } else { 64 << 10 }
}
