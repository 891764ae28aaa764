//! In what the lanes differ on purpose, and why: once, here. A test that meets a difference asks this table; which responses
//! each lane accepts is the table of [`super`], which targets [`super::requests`], and how it changes heads
//! [`super::responses`].

use roundsman::model::policy::Lane;

use super::each::current;

/// Something that the general lane does and the express lane does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// `Connection: keep-alive` goes to clients of HTTP/1.1 too: pingora writes the field itself.
    SaysKeepAlive,
    /// A request and a client that does not read take more memory: pingora holds several pieces of a body.
    TakesMoreMemory,
    /// Trailers go no further, in either direction: pingora passes on no field after a body.
    DropsTrailers,
    /// A response that stalls in its body ends by a timer of pingora, which does not stop with the clock of a test.
    TimesBodiesItself,
}

use Difference::{DropsTrailers, SaysKeepAlive, TakesMoreMemory, TimesBodiesItself};

impl Difference {
    /// Whether the lane of the test that runs here has it.
    pub fn is_here(self) -> bool {
        match self {
            SaysKeepAlive | TakesMoreMemory | DropsTrailers | TimesBodiesItself => current() == Some(Lane::General),
        }
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

/// The most memory, in bytes, for a client whose small body is not whole.
pub fn slow_body() -> u64 {
    if TakesMoreMemory.is_here() { 160 << 10 } else { 64 << 10 }
}
