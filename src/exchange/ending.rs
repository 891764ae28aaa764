//! How a request ends for the two connections that carried it: whether the client's goes on and how it closes otherwise,
//! whether the upstream's may be used again, and what the end of one message means for the other.
//!
//! A response may end before its request. Then the rest of the request goes nowhere: the exchange is over, the upstream's
//! connection is not used again, and neither is the client's, because what it still sends cannot be told from its next
//! request for sure (RFC 9112, 9.3).

use super::judge::{Framing, Leftover, Method};
use super::machine::Exchange;
use super::{End, Facts};
use crate::http1::Version;

/// What of a judged request outlives its head.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// How its body is framed.
    pub framing: Framing,
    /// The client's version.
    pub version: Version,
    /// It is HEAD: the answer has no body.
    pub head_only: bool,
    /// Its client wants the connection to go on.
    pub keep_alive: bool,
    /// Its client waits for 100 before it sends the body.
    pub expects: bool,
    /// It asks to switch protocols, and may.
    pub upgrade: bool,
}

impl Request {
    /// What these facts say. `upgrade`: it may switch to the protocol that it asks for.
    pub fn new(facts: &Facts<'_>, upgrade: bool) -> Request {
        Request {
            framing: facts.framing,
            version: facts.version,
            head_only: facts.method == Method::Head,
            keep_alive: facts.keep_alive,
            expects: facts.expect_continue,
            upgrade,
        }
    }

    /// What is left of its body when an answer of our own begins. `body_read`: bytes of it that have been read; `cut`: no
    /// more of it comes, or it broke a rule; `more`: whether bytes have come that are not read as its body, asked where it
    /// matters.
    pub fn leftover(&self, body_read: u64, cut: bool, more: impl FnOnce() -> bool) -> Leftover {
        let cut = cut || self.is_followed(more);
        if cut { Leftover::Close } else { self.framing.leftover(self.expects, body_read) }
    }

    /// What is left of it when the answer of an upstream begins. `read`: all of it has been read; `more` as above.
    pub fn leftover_of_relayed(&self, read: bool, more: impl FnOnce() -> bool) -> Leftover {
        Leftover::of_relayed(read && !self.is_followed(more))
    }

    /// Whether bytes follow that may be of the protocol for which it asks: its client has not waited for the answer, which is
    /// not a switch. Where the pool does not allow that protocol, the request never asked for it.
    fn is_followed(&self, more: impl FnOnce() -> bool) -> bool {
        self.upgrade && more()
    }
}

impl Leftover {
    /// What is left of a request when the answer of an upstream is over. `read`: all of it has been read.
    pub fn of_relayed(read: bool) -> Leftover {
        if read { Leftover::Nothing } else { Leftover::Close }
    }
}

impl Exchange {
    /// Whether the client's connection goes on after the answer that is about to be sent, as the answer then says.
    /// `needs_close`: only the end of the connection ends the answer, or it is one of our own that closes; `stopping`: the
    /// connection takes no further request.
    pub fn goes_on(&self, request: &Request, needs_close: bool, leftover: Leftover, stopping: bool) -> bool {
        request.keep_alive && !needs_close && leftover != Leftover::Close && !stopping && !self.must_close()
    }
}

/// How far an exchange with an upstream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    /// All of the request has gone upstream.
    pub request_sent: bool,
    /// All of the answer has come.
    pub answer_ended: bool,
}

impl Course {
    /// What it means that the client sends no more of its request, or closes, before the end of the request.
    pub fn on_client_end(self) -> End {
        if self.answer_ended { End::Delivered } else { End::ClientLeft }
    }

    /// Whether nothing more of the request is to be read or sent, although it has not ended.
    pub fn drops_rest(self) -> bool {
        self.answer_ended && !self.request_sent
    }

    /// Whether the upstream's connection may carry another request, if its answer lets it ([`super::keeps_for`]).
    pub fn frees_upstream(self) -> bool {
        self.request_sent && self.answer_ended
    }
}

/// What is known when a request is over and everything that could be sent to its client was.
#[derive(Debug, Clone, Copy)]
pub struct Finish {
    /// How it ended.
    pub end: End,
    /// The answer has told its client that the connection goes on: [`Exchange::goes_on`].
    pub told: bool,
    /// Only the end of the connection ends the answer.
    pub until_close: bool,
    /// What is left of the request body.
    pub leftover: Leftover,
    /// The client has closed its side.
    pub client_ended: bool,
    /// Bytes have come that belong to no request yet, or may come.
    pub unread: bool,
    /// The client has taken all that was written.
    pub sent: bool,
}

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It takes the next request.
    Keep,
    /// It takes the next request, if what is left of this one ends within so many bytes and soon; otherwise as `Linger`.
    Drain(u64),
    /// It closes, once what the client still sends has been read for a while: closing on unread bytes resets a connection,
    /// and a reset may take our answer with it.
    Linger,
    /// It closes.
    Close,
    /// It is reset: nothing else can show that the answer is not whole.
    Reset,
}

/// What becomes of the client's connection after a request.
pub fn ending(finish: Finish) -> Ending {
    let Finish { end, told, until_close, leftover, client_ended, unread, sent } = finish;
    match end {
        End::ClientLeft => Ending::Close,
        // A clean end would make it whole. Elsewhere its length or its chunks show what is missing.
        End::Aborted if until_close || !sent => Ending::Reset,
        End::Aborted => Ending::Close,
        End::Delivered if client_ended || !sent => Ending::Close,
        End::Delivered => match leftover {
            Leftover::Nothing if told => Ending::Keep,
            Leftover::Drain(most) if told => Ending::Drain(most),
            Leftover::Nothing if !unread => Ending::Close,
            Leftover::Nothing | Leftover::Drain(_) | Leftover::Close => Ending::Linger,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use End::{Aborted, ClientLeft, Delivered};
    use Ending::{Close, Keep, Linger, Reset};

    const WHOLE: Finish = Finish {
        end: Delivered,
        told: true,
        until_close: false,
        leftover: Leftover::Nothing,
        client_ended: false,
        unread: false,
        sent: true,
    };

    #[test]
    fn a_connection_goes_on_or_ends_so_that_no_answer_is_lost_and_none_looks_whole_that_is_not() {
        let rest = Finish { leftover: Leftover::Close, ..WHOLE };
        let drain = Finish { leftover: Leftover::Drain(7), ..WHOLE };
        let told_close = Finish { told: false, ..WHOLE };
        for (finish, want) in [
            (WHOLE, Keep),
            (Finish { unread: true, ..WHOLE }, Keep),
            (Finish { client_ended: true, ..WHOLE }, Close),
            (Finish { sent: false, ..WHOLE }, Close),
            (told_close, Close),
            // Pipelined bytes must not turn the close into a reset.
            (Finish { unread: true, ..told_close }, Linger),
            (Finish { unread: true, client_ended: true, ..told_close }, Close),
            (Finish { until_close: true, ..told_close }, Close),
            (Finish { until_close: true, unread: true, ..told_close }, Linger),
            // The answer came before the end of the request.
            (rest, Linger),
            (Finish { told: false, ..rest }, Linger),
            (Finish { client_ended: true, ..rest }, Close),
            (Finish { sent: false, ..rest }, Close),
            (drain, Ending::Drain(7)),
            (Finish { told: false, ..drain }, Linger),
            (Finish { client_ended: true, ..drain }, Close),
            // The answer is not whole.
            (Finish { end: Aborted, ..WHOLE }, Close),
            (Finish { end: Aborted, until_close: true, ..WHOLE }, Reset),
            (Finish { end: Aborted, sent: false, ..WHOLE }, Reset),
            (Finish { end: Aborted, leftover: Leftover::Close, ..WHOLE }, Close),
            (Finish { end: ClientLeft, ..WHOLE }, Close),
            (Finish { end: ClientLeft, until_close: true, unread: true, ..rest }, Close),
        ] {
            assert_eq!(ending(finish), want, "{finish:?}");
        }
    }

    #[test]
    fn a_response_that_ends_first_ends_the_exchange_and_spends_the_connection() {
        for (request_sent, answer_ended, on_client_end, drops_rest, frees) in [
            (false, false, ClientLeft, false, false),
            (true, false, ClientLeft, false, false),
            (false, true, Delivered, true, false),
            (true, true, Delivered, false, true),
        ] {
            let course = Course { request_sent, answer_ended };
            let got = (course.on_client_end(), course.drops_rest(), course.frees_upstream());
            assert_eq!(got, (on_client_end, drops_rest, frees), "{course:?}");
        }
    }

    #[test]
    fn what_is_left_of_a_request_decides_whether_the_next_one_can_be_told_from_it() {
        let request = |framing, expects| Request {
            framing,
            version: Version::Http11,
            head_only: false,
            keep_alive: true,
            expects,
            upgrade: false,
        };
        for (framing, expects, body_read, cut, want) in [
            (Framing::None, false, 0, false, Leftover::Nothing),
            (Framing::None, false, 0, true, Leftover::Close),
            (Framing::Length(9), false, 2, false, Leftover::Drain(7)),
            (Framing::Length(9), false, 2, true, Leftover::Close),
            (Framing::Length(9), true, 0, false, Leftover::Close),
            (Framing::Length(9), true, 9, false, Leftover::Nothing),
        ] {
            let got = request(framing, expects).leftover(body_read, cut, || false);
            assert_eq!(got, want, "{framing:?} {expects} {body_read} {cut}");
        }
        for (upgrade, read, more, want) in [
            (false, true, false, Leftover::Nothing),
            // Another request.
            (false, true, true, Leftover::Nothing),
            (false, false, false, Leftover::Close),
            (true, true, false, Leftover::Nothing),
            (true, true, true, Leftover::Close),
            (true, false, true, Leftover::Close),
        ] {
            let request = Request { upgrade, ..request(Framing::None, false) };
            assert_eq!(request.leftover_of_relayed(read, || more), want, "{upgrade} {read} {more}");
            assert_eq!(request.leftover(0, !read, || more), want, "{upgrade} {read} {more}");
        }
        assert_eq!(Leftover::of_relayed(true), Leftover::Nothing);
        assert_eq!(Leftover::of_relayed(false), Leftover::Close);
    }
}
