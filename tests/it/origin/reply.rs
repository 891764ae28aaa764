//! The replies of an origin: a well-formed response, or a list of acts for everything else.

use std::time::Duration;

/// One reply. `200.into()` is a well-formed one with a small body.
#[derive(Debug, Clone)]
pub struct Reply {
    pub(super) plan: Plan,
    pub(super) delay: Duration,
    pub(super) before_body: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Plan {
    Proper(Proper),
    Acts(Vec<Act>),
    /// These bytes, and the next request may follow.
    Raw(Vec<u8>),
    /// Gives the request body back.
    Echo,
    /// 101, then every byte back.
    UpgradeEcho,
}

#[derive(Debug, Clone)]
pub(super) struct Proper {
    pub(super) status: u16,
    pub(super) reason: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Body,
    pub(super) interim: Vec<u16>,
    pub(super) body_delay: Duration,
    /// Pieces of so many bytes, with so much time between them.
    pub(super) pace: Option<(usize, Duration)>,
    pub(super) close: bool,
    /// Ends the connection in the last segment of the response, without `Connection: close`.
    pub(super) silent_close: bool,
    /// Unrequested bytes, in one write with the response.
    pub(super) surplus: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    /// `hello from NAME`.
    Name,
    /// The target of the request.
    Target,
    Sized(Vec<u8>),
    /// So many bytes of `x`, made as they are sent.
    Big(u64),
    Chunked(Vec<Vec<u8>>),
    UntilClose(Vec<u8>),
}

/// A step of a reply that is not well-formed.
#[derive(Debug, Clone)]
pub enum Act {
    /// All at once.
    Write(Vec<u8>),
    /// A byte at a time.
    Drip(Vec<u8>, Duration),
    /// Again and again until the peer is gone.
    Endless(Vec<u8>),
    /// One byte at a time, again and again, with this interval.
    EndlessDrip(Vec<u8>, Duration),
    /// Nothing for this long.
    Wait(Duration),
    /// Nothing until the peer is gone.
    Hang,
    /// FIN; then reads what the peer still sends, so that no RST follows.
    Close,
    /// RST.
    Reset,
    /// Echoes every byte until the peer closes.
    Echo,
    /// Reads HTTP/2 until a request is complete; see [`super::frames`].
    AwaitRequest,
}

impl From<u16> for Reply {
    fn from(status: u16) -> Reply {
        Reply::status(status)
    }
}

impl Reply {
    /// A well-formed reply with this status, and `hello from NAME` as its body (none for 204 and 304).
    pub fn status(status: u16) -> Reply {
        let reason = reason_phrase(status).to_owned();
        Reply::plan(Plan::Proper(Proper {
            status,
            reason,
            fields: Vec::new(),
            body: Body::Name,
            interim: Vec::new(),
            body_delay: Duration::ZERO,
            pace: None,
            close: false,
            silent_close: false,
            surplus: Vec::new(),
        }))
    }

    /// 200 with this body.
    pub fn ok(body: impl AsRef<[u8]>) -> Reply {
        Reply::status(200).body(body)
    }

    /// 200 with the target of the request as its body.
    pub fn target() -> Reply {
        let mut reply = Reply::status(200);
        reply.proper().body = Body::Target;
        reply
    }

    /// These bytes unchanged, then a clean close.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Reply {
        Reply::acts(vec![Act::Write(bytes.as_ref().to_vec())])
    }

    /// These bytes unchanged, then the next request.
    pub fn raw_kept(bytes: impl AsRef<[u8]>) -> Reply {
        Reply::plan(Plan::Raw(bytes.as_ref().to_vec()))
    }

    /// These acts, then a clean close.
    pub fn acts(acts: Vec<Act>) -> Reply {
        Reply::plan(Plan::Acts(acts))
    }

    /// Reads the request and never answers.
    pub fn hang() -> Reply {
        Reply::acts(vec![Act::Hang])
    }

    /// RST instead of an answer.
    pub fn reset() -> Reply {
        Reply::acts(vec![Act::Reset])
    }

    /// FIN instead of an answer.
    pub fn close() -> Reply {
        Reply::acts(vec![])
    }

    /// The request body back, with its Content-Length.
    pub fn echo() -> Reply {
        Reply::plan(Plan::Echo)
    }

    /// 101 with `Upgrade` as asked, then every byte back.
    pub fn upgrade_echo() -> Reply {
        Reply::plan(Plan::UpgradeEcho)
    }

    fn plan(plan: Plan) -> Reply {
        Reply { plan, delay: Duration::ZERO, before_body: false }
    }

    /// Waits this long between the request and the first byte.
    pub fn delay(mut self, delay: Duration) -> Reply {
        self.delay = delay;
        self
    }

    /// Answers before the request body is read; it is read afterwards.
    pub fn before_body(mut self) -> Reply {
        self.before_body = true;
        self
    }

    /// One more field.
    pub fn header(mut self, name: &str, value: &str) -> Reply {
        self.proper().fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// This body, with its Content-Length.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Reply {
        self.proper().body = Body::Sized(body.as_ref().to_vec());
        self
    }

    /// A body of so many bytes of `x`, with its Content-Length.
    pub fn big(mut self, bytes: u64) -> Reply {
        self.proper().body = Body::Big(bytes);
        self
    }

    /// This body in these chunks.
    pub fn chunked<B: AsRef<[u8]>>(mut self, chunks: impl IntoIterator<Item = B>) -> Reply {
        self.proper().body = Body::Chunked(chunks.into_iter().map(|c| c.as_ref().to_vec()).collect());
        self
    }

    /// This body, ended by the end of the connection.
    pub fn until_close(mut self, body: impl AsRef<[u8]>) -> Reply {
        self.proper().body = Body::UntilClose(body.as_ref().to_vec());
        self
    }

    /// One more interim response before it, such as 103.
    pub fn interim(mut self, status: u16) -> Reply {
        self.proper().interim.push(status);
        self
    }

    /// Waits this long between head and body.
    pub fn body_delay(mut self, delay: Duration) -> Reply {
        self.proper().body_delay = delay;
        self
    }

    /// Sends the body in pieces of so many bytes with so much time between them.
    pub fn pace(mut self, piece_bytes: usize, every: Duration) -> Reply {
        self.proper().pace = Some((piece_bytes, every));
        self
    }

    /// Sends `Connection: close` and closes.
    pub fn closing(mut self) -> Reply {
        self.proper().close = true;
        self
    }

    /// Closes without `Connection: close`: its FIN is in the last segment of the response, so that the peer gets both
    /// at once.
    pub fn closing_silently(mut self) -> Reply {
        self.proper().silent_close = true;
        self
    }

    /// With these bytes after the response, in one write with it.
    pub fn with_surplus(mut self, bytes: impl AsRef<[u8]>) -> Reply {
        self.proper().surplus = bytes.as_ref().to_vec();
        self
    }

    /// Then these bytes.
    pub fn then_write(self, bytes: impl AsRef<[u8]>) -> Reply {
        self.then(Act::Write(bytes.as_ref().to_vec()))
    }

    /// Then one more act (after `raw`, `hang`, `acts`).
    pub fn then(mut self, act: Act) -> Reply {
        match &mut self.plan {
            Plan::Acts(acts) => acts.push(act),
            plan => panic!("only acts can follow acts, not {plan:?}"),
        }
        self
    }

    /// Then a reset.
    pub fn then_reset(self) -> Reply {
        self.then(Act::Reset)
    }

    /// Then nothing until the peer is gone.
    pub fn then_hang(self) -> Reply {
        self.then(Act::Hang)
    }

    /// Then these bytes again and again.
    pub fn then_endless(self, bytes: impl AsRef<[u8]>) -> Reply {
        self.then(Act::Endless(bytes.as_ref().to_vec()))
    }

    fn proper(&mut self) -> &mut Proper {
        match &mut self.plan {
            Plan::Proper(proper) => proper,
            plan => panic!("only a well-formed reply has fields and a body, not {plan:?}"),
        }
    }
}

fn reason_phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Status")
}
