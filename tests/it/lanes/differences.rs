//! In what the lanes differ on purpose, and why: once, here. A test that meets a difference asks this table; which responses
//! each lane accepts is the table of [`super`].

use roundsman::model::policy::Lane;

use super::each::current;

/// Something that the general lane does and the express lane does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// `Connection: keep-alive` goes to clients of HTTP/1.1 too: pingora writes the field itself.
    SaysKeepAlive,
}

use Difference::SaysKeepAlive;

impl Difference {
    /// Whether the lane of the test that runs here has it.
    pub fn is_here(self) -> bool {
        match self {
            SaysKeepAlive => current() == Some(Lane::General),
        }
    }
}

/// The `Connection` of a response after which the client's connection goes on.
pub fn keep_alive() -> Option<&'static str> {
    SaysKeepAlive.is_here().then_some("keep-alive")
}
