//! How long a client may be silent before its request, and an upstream during it. The lane reports what moves, and asks now
//! and then what the silence means or whether the upstream is overdue, saying whose turn it is; setting a timer for every
//! byte would cost more than the look.

use std::time::Duration;

use tokio::time::Instant;

use super::answer::Refusal;
use super::limits::STOP_GRACE;
use crate::model::policy::{ClientTimeouts, UpstreamTimeouts};

/// A client of which no whole request head has come.
#[derive(Debug, Clone, Copy)]
pub struct Listening {
    /// It has had no request yet.
    pub first: bool,
    /// When its last response ended, or when it was accepted.
    pub since: Instant,
    /// When the first bytes of the head came, if any have. An empty line begins nothing.
    pub begun: Option<Instant>,
}

/// What the silence of a client means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// It has more time.
    Wait,
    /// It has begun a head and not ended it in time.
    Refused(Refusal),
    /// It has sent nothing for too long, or may send nothing more: its connection closes without a word.
    Over {
        /// It has never sent anything.
        silent: bool,
    },
}

impl Listening {
    /// How long nothing may come: [`ClientTimeouts::header`] after it was accepted, [`ClientTimeouts::keep_alive`] later.
    pub fn patience(first: bool, timeouts: &ClientTimeouts) -> Duration {
        if first { timeouts.header } else { timeouts.keep_alive }
    }

    /// Until when a quiet connection stays that would stay until `end`, once its listener takes no further request.
    pub fn stays_until(end: Instant, now: Instant) -> Instant {
        end.min(now + STOP_GRACE)
    }

    /// What follows now. `stopping`: the listener takes no further request; one that has begun is still taken.
    pub fn judge(&self, timeouts: &ClientTimeouts, stopping: bool, now: Instant) -> Silence {
        let is_over = |since: Instant, limit: Duration| since + limit <= now;
        match self.begun {
            Some(begun) if is_over(begun, timeouts.header) => Silence::Refused(Refusal::HEAD_TOO_SLOW),
            Some(_) => Silence::Wait,
            None => match is_over(self.since, Listening::patience(self.first, timeouts)) {
                true => Silence::Over { silent: self.first },
                false if stopping => Silence::Over { silent: false },
                false => Silence::Wait,
            },
        }
    }
}

/// How long a client may pause during a request.
#[derive(Debug, Clone, Copy)]
pub struct ClientClock {
    idle: Duration,
    expects: bool,
}

impl ClientClock {
    /// A request begins. `expects`: its client waits for 100 before it sends the body; `idle`:
    /// [`ClientTimeouts::body_idle`].
    pub fn start(expects: bool, idle: Duration) -> ClientClock {
        ClientClock { idle, expects }
    }

    /// The client is told to send its body.
    pub fn on_continue(&mut self) {
        self.expects = false;
    }

    /// Whether the client waits for 100, after so many bytes of its body.
    pub fn awaits_continue(&self, body_read: u64) -> bool {
        self.expects && body_read == 0
    }

    /// How long nothing of the body may come, after so many bytes of it: then [`Refusal::BODY_TOO_SLOW`]. `None`: as long as
    /// the upstream takes.
    pub fn sends_within(&self, body_read: u64) -> Option<Duration> {
        (!self.awaits_continue(body_read)).then_some(self.idle)
    }

    /// How long the client may take nothing of what is written: then it counts as gone.
    pub fn takes_within(&self) -> Duration {
        self.idle
    }
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Its client: to send more of the request, or to take more of the answer. Its time is not the upstream's, but that of the
    /// whole request ([`UpstreamTimeouts::request`]).
    Client,
    /// The upstream takes what is there of the request: [`UpstreamTimeouts::idle`].
    Taking,
    /// The upstream sends its response head: [`UpstreamTimeouts::first_byte`] from the last byte of the request. An interim
    /// head changes nothing. A client that waits for 100 before it sends its body waits for the upstream.
    Head,
    /// The upstream sends more of its response body: [`UpstreamTimeouts::idle`].
    Body,
}

impl Turn {
    /// Before the response head. `unsent`: bytes of the request are there that the upstream has not taken; `whole`: the
    /// client has sent all of it; `awaits_continue`: its client waits for 100 before it sends the body.
    pub fn before_head(unsent: bool, whole: bool, awaits_continue: bool) -> Turn {
        match (unsent, whole || awaits_continue) {
            (true, _) => Turn::Taking,
            (false, true) => Turn::Head,
            (false, false) => Turn::Client,
        }
    }
}

/// The clock of one attempt, from the first byte that is sent.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamClock {
    timeouts: UpstreamTimeouts,
    deadline: Option<Instant>,
    moved: Instant,
}

impl UpstreamClock {
    /// The attempt begins to be sent. `deadline`: when the request must have ended.
    pub fn start(timeouts: UpstreamTimeouts, deadline: Option<Instant>, now: Instant) -> UpstreamClock {
        UpstreamClock { timeouts, deadline, moved: now }
    }

    /// When the request must have ended, whatever moves.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Bytes have moved between the upstream and us: of the request, or of the response body. Bytes of a response head are
    /// no progress, or an upstream could send one for ever.
    pub fn on_progress(&mut self, now: Instant) {
        self.moved = now;
    }

    /// Until when the response head must be there, if nothing else moves.
    pub fn head_due(&self) -> Instant {
        self.moved + self.timeouts.first_byte
    }

    /// Until when the upstream has its turn; `None`: it is the client's.
    pub fn due(&self, turn: Turn) -> Option<Instant> {
        match turn {
            Turn::Client => None,
            Turn::Taking | Turn::Body => Some(self.moved + self.timeouts.idle),
            Turn::Head => Some(self.head_due()),
        }
    }

    /// Whether the upstream has let its turn pass, or the time of the whole request is over. While the turn is the client's,
    /// the upstream's time does not run.
    pub fn overdue(&mut self, turn: Turn, now: Instant) -> bool {
        let is_over = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let due = self.due(turn);
        if due.is_none() {
            self.moved = now;
        }
        is_over(due) || is_over(self.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What happens after so many seconds.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        Progress(u64),
        Look(u64, Turn),
    }

    use Event::{Look, Progress};
    use Turn::{Body, Client, Head, Taking};

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_whole_request_ends_whoever_has_the_turn_and_whatever_moves() {
        let timeouts = UpstreamTimeouts { first_byte: 10 * SECOND, idle: 4 * SECOND, ..UpstreamTimeouts::default() };
        let began = Instant::now();
        let mut clock = UpstreamClock::start(timeouts, Some(began + 6 * SECOND), began);
        assert_eq!(clock.deadline(), Some(began + 6 * SECOND));
        for (turn, after, want) in
            [(Client, 3, false), (Body, 5, false), (Client, 6, true), (Body, 6, true), (Head, 6, true)]
        {
            let now = began + after * SECOND;
            assert_eq!(clock.overdue(turn, now), want, "{turn:?} after {after} s");
            clock.on_progress(now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_has_its_time_from_its_last_progress_and_the_client_takes_none_of_it() {
        let timeouts = UpstreamTimeouts { first_byte: 10 * SECOND, idle: 4 * SECOND, ..UpstreamTimeouts::default() };
        // The events, and whether each look says that the upstream is overdue.
        for (events, overdue) in [
            // The request was sent at once.
            (&[Look(9, Head), Look(10, Head)][..], &[false, true][..]),
            // Each piece of it starts the time anew.
            (&[Progress(9), Look(18, Head), Progress(18), Look(27, Head), Look(28, Head)], &[false, false, true]),
            // It takes no more of the request.
            (&[Look(3, Taking), Look(4, Taking)], &[false, true]),
            (&[Progress(3), Look(6, Taking), Look(7, Taking)], &[false, true]),
            // Its client sends slowly: that time is not the upstream's, and its own begins after it.
            (&[Look(30, Client), Look(33, Taking), Look(34, Taking)], &[false, false, true]),
            (&[Look(30, Client), Look(39, Head), Look(40, Head)], &[false, false, true]),
            // Its client does not read.
            (&[Progress(1), Look(50, Client), Look(53, Body), Look(54, Body)], &[false, false, true]),
            (&[Progress(1), Look(4, Body), Progress(4), Look(7, Body), Look(8, Body)], &[false, false, true]),
        ] {
            let began = Instant::now();
            let mut clock = UpstreamClock::start(timeouts, None, began);
            let mut got = Vec::new();
            for event in events {
                match *event {
                    Progress(at) => clock.on_progress(began + SECOND * at as u32),
                    Look(at, turn) => got.push(clock.overdue(turn, began + SECOND * at as u32)),
                }
            }
            assert_eq!(got, overdue, "{events:?}");
        }
    }

    #[test]
    fn a_client_has_its_time_for_a_head_from_its_first_byte_and_for_that_byte_from_the_last_response() {
        let timeouts = ClientTimeouts { header: 10 * SECOND, keep_alive: 30 * SECOND, ..ClientTimeouts::DEFAULT };
        let (wait, late) = (Silence::Wait, Silence::Refused(Refusal::HEAD_TOO_SLOW));
        let over = |silent| Silence::Over { silent };
        let now = Instant::now() + 100 * SECOND;
        // Its first request, seconds since it may send, seconds since the head began; what that means, also in a stop.
        for (first, since, begun, want, stopping) in [
            (true, 9, None, wait, over(false)),
            (true, 10, None, over(true), over(true)),
            (false, 29, None, wait, over(false)),
            (false, 30, None, over(false), over(false)),
            (true, 19, Some(9), wait, wait),
            (true, 19, Some(10), late, late),
            (false, 90, Some(9), wait, wait),
            (false, 90, Some(10), late, late),
        ] {
            let ago = |seconds: u32| now - SECOND * seconds;
            let listening = Listening { first, since: ago(since), begun: begun.map(ago) };
            let got = [false, true].map(|stop| listening.judge(&timeouts, stop, now));
            assert_eq!(got, [want, stopping], "{first} {since} {begun:?}");
        }
    }

    #[test]
    fn a_client_that_waits_for_100_has_no_time_limit_until_it_may_send_or_sends() {
        let (told, limit) = (true, Some(4 * SECOND));
        // It expects 100, it has been told to send, bytes of its body that were read; how long it may pause.
        for (expects, told, body_read, want) in [
            (false, !told, 0, limit),
            (false, !told, 1, limit),
            (true, !told, 0, None),
            (true, !told, 1, limit),
            (true, told, 0, limit),
        ] {
            let mut clock = ClientClock::start(expects, 4 * SECOND);
            if told {
                clock.on_continue();
            }
            assert_eq!(clock.sends_within(body_read), want, "{expects} {told} {body_read}");
            assert_eq!(clock.awaits_continue(body_read), want.is_none(), "{expects} {told} {body_read}");
            assert_eq!(clock.takes_within(), 4 * SECOND);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_shortens_the_wait_of_a_quiet_connection_and_never_lengthens_it() {
        let now = Instant::now();
        for (end, want) in [(now + 60 * SECOND, now + STOP_GRACE), (now, now), (now + STOP_GRACE, now + STOP_GRACE)] {
            assert_eq!(Listening::stays_until(end, now), want);
        }
    }

    #[test]
    fn the_upstream_owes_a_head_for_a_whole_request_or_to_a_client_that_waits_for_100() {
        for (unsent, whole, awaits_continue, want) in [
            (true, false, false, Taking),
            (true, true, false, Taking),
            (true, false, true, Taking),
            (false, true, false, Head),
            (false, false, true, Head),
            (false, false, false, Client),
        ] {
            let got = Turn::before_head(unsent, whole, awaits_continue);
            assert_eq!(got, want, "{unsent} {whole} {awaits_continue}");
        }
    }
}
