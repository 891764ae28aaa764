//! Reads an HTTP/1.x response from pieces of any size: interim responses, the head, and the body by its framing
//! (RFC 9112, section 6.3). Pure, bounded in everything, and strict where leniency could hide a broken upstream. It
//! keeps nothing but a head that has not come whole; what comes is handed to a [`Sink`] at once.

mod chunked;

use std::mem::MaybeUninit;

use chunked::Chunked;

/// Bytes of one head, interim or final.
pub(super) const HEAD_BYTES_MAX: usize = 32 << 10;
/// Fields of one head.
pub(super) const HEAD_FIELDS_MAX: usize = 256;
/// Interim responses before the final one.
pub(super) const INTERIM_MAX: u32 = 16;

const PREFIX: &[u8] = b"HTTP/1.";

/// Takes what a response consists of, as it comes.
pub(super) trait Sink {
    /// A head that is not interim, as it came; it may still turn out to be malformed.
    fn on_raw_head(&mut self, head: &[u8]);
    /// The final head.
    fn on_head(&mut self, status: u16, fields: &[httparse::Header<'_>]) -> Flow;
    /// The next piece of the body, decoded; never empty.
    fn on_body(&mut self, piece: &[u8]) -> Flow;
    /// The body has ended whole.
    fn on_end(&mut self);
}

/// Whether a reader goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    Stop,
}

/// Why bytes are not a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("not an HTTP/1.1 answer")]
    NotHttp,
    #[error("malformed head: {0}")]
    Head(&'static str),
    #[error("the head is over 32 KiB")]
    HeadBytes,
    #[error("the head has more than 256 fields")]
    HeadFields,
    #[error("more than 16 interim answers")]
    Interim,
    #[error("answered 101 Switching Protocols, which was not asked for")]
    Switch,
    #[error("malformed Content-Length")]
    ContentLength,
    #[error("malformed chunk: {0}")]
    Chunk(&'static str),
}

/// How far a response has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// In a head, of which this many bytes have come; none of the very first: no answer yet.
    Head(usize),
    /// In a body: how many bytes have come, and how many it has if it said so.
    Body(u64, Option<u64>),
    /// It has ended whole.
    End,
}

/// Reads one response.
#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    /// The answer is to a HEAD request: no body follows, whatever the head says.
    to_head: bool,
    interim: u32,
    /// The part of a head that has come, where it did not come at once.
    pending: Vec<u8>,
    /// The last line of it is still empty.
    blank: bool,
}

#[derive(Debug)]
enum State {
    Head,
    Length { total: u64, left: u64 },
    Chunked(Chunked),
    UntilClose { bytes: u64 },
    End,
}

impl Reader {
    pub(super) fn new(to_head: bool) -> Reader {
        Reader { state: State::Head, to_head, interim: 0, pending: Vec::new(), blank: false }
    }

    /// How far it has come, to say what is missing when no more comes.
    pub(super) fn stage(&self) -> Stage {
        match &self.state {
            State::Head => Stage::Head(self.pending.len()),
            State::Length { total, left } => Stage::Body(total - left, Some(*total)),
            State::Chunked(chunked) => Stage::Body(chunked.body_bytes(), None),
            State::UntilClose { bytes } => Stage::Body(*bytes, None),
            State::End => Stage::End,
        }
    }

    /// How many interim responses have come.
    pub(super) fn interim(&self) -> u32 {
        self.interim
    }

    /// What has come of a head that is not whole.
    pub(super) fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// Takes the next bytes off `input` and hands on what they hold. `Stop`: the sink has enough, or the response has
    /// ended; more bytes must not follow. Neither must they after an error, which leaves in `input` what was not read.
    pub(super) fn feed(&mut self, input: &mut &[u8], sink: &mut impl Sink) -> Result<Flow, Malformed> {
        while !input.is_empty() {
            let flow = match &mut self.state {
                State::Head => self.on_head_bytes(input, sink)?,
                State::Length { left, .. } => {
                    let piece = take(input, *left);
                    *left -= piece.len() as u64;
                    let ended = *left == 0;
                    let flow = sink.on_body(piece);
                    if ended { self.on_end(flow, sink) } else { flow }
                }
                State::Chunked(chunked) => match chunked.next(input)? {
                    chunked::Step::More => Flow::Continue,
                    chunked::Step::Data(piece) => sink.on_body(piece),
                    chunked::Step::End => self.on_end(Flow::Continue, sink),
                },
                State::UntilClose { bytes } => {
                    *bytes += input.len() as u64;
                    sink.on_body(std::mem::take(input))
                }
                State::End => Flow::Stop,
            };
            if flow == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        Ok(Flow::Continue)
    }

    /// The peer has closed its side in good order: a body without another end ends here.
    pub(super) fn on_close(&mut self, sink: &mut impl Sink) {
        if matches!(self.state, State::UntilClose { .. }) {
            self.on_end(Flow::Continue, sink);
        }
    }

    fn on_end(&mut self, flow: Flow, sink: &mut impl Sink) -> Flow {
        self.state = State::End;
        if flow == Flow::Continue {
            sink.on_end();
        }
        Flow::Stop
    }

    fn on_head_bytes(&mut self, input: &mut &[u8], sink: &mut impl Sink) -> Result<Flow, Malformed> {
        check_prefix(self.pending.len(), input)?;
        let Some(length) = self.find_end(input) else {
            if self.pending.len() + input.len() > HEAD_BYTES_MAX {
                return Err(Malformed::HeadBytes);
            }
            self.pending.extend_from_slice(std::mem::take(input));
            return Ok(Flow::Continue);
        };
        let (last, rest) = input.split_at(length);
        *input = rest;
        self.blank = false;
        if self.pending.len() + last.len() > HEAD_BYTES_MAX {
            return Err(Malformed::HeadBytes);
        }
        if self.pending.is_empty() {
            return self.on_head(last, sink);
        }
        let mut head = std::mem::take(&mut self.pending);
        head.extend_from_slice(last);
        self.on_head(&head, sink)
    }

    /// Where the head ends in `input`: behind its first empty line.
    fn find_end(&mut self, input: &[u8]) -> Option<usize> {
        for (i, byte) in input.iter().enumerate() {
            match byte {
                b'\n' if self.blank => return Some(i + 1),
                b'\n' => self.blank = true,
                b'\r' => {}
                _ => self.blank = false,
            }
        }
        None
    }

    fn on_head(&mut self, head: &[u8], sink: &mut impl Sink) -> Result<Flow, Malformed> {
        let mut slots = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; HEAD_FIELDS_MAX];
        let mut response = httparse::Response::new(&mut []);
        let parsed =
            httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, head, &mut slots);
        if !matches!(response.code, Some(100 | 102..200)) {
            sink.on_raw_head(head);
        }
        match parsed {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(Malformed::Head("stray line end")),
            Err(httparse::Error::TooManyHeaders) => return Err(Malformed::HeadFields),
            Err(error) => return Err(Malformed::Head(head_error(error))),
        }
        self.on_parsed_head(response.code.unwrap_or_default(), response.headers, sink)
    }

    /// Takes a head that somebody else has read: that of HTTP/2, whose body then goes through [`Reader::feed`] and ends
    /// with its length or [`Reader::on_close`].
    pub(super) fn on_parsed_head(
        &mut self,
        status: u16,
        fields: &[httparse::Header<'_>],
        sink: &mut impl Sink,
    ) -> Result<Flow, Malformed> {
        match status {
            0..100 => return Err(Malformed::Head("invalid status")),
            101 => return Err(Malformed::Switch),
            100..200 => {
                self.interim += 1;
                return if self.interim > INTERIM_MAX { Err(Malformed::Interim) } else { Ok(Flow::Continue) };
            }
            200.. => {}
        }
        self.state = framing(status, self.to_head, fields)?;
        match sink.on_head(status, fields) {
            Flow::Stop => Ok(Flow::Stop),
            Flow::Continue if matches!(self.state, State::End) => Ok(self.on_end(Flow::Continue, sink)),
            Flow::Continue => Ok(Flow::Continue),
        }
    }
}

/// Cuts what belongs to a body of which `left` bytes are due off the front of `input`.
fn take<'i>(input: &mut &'i [u8], left: u64) -> &'i [u8] {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
    let (piece, rest) = input.split_at(length);
    *input = rest;
    piece
}

/// Refuses what cannot become a head at its first wrong byte: other protocols need not send a line end, ever.
fn check_prefix(seen: usize, input: &[u8]) -> Result<(), Malformed> {
    let due = PREFIX.get(seen..).unwrap_or_default();
    if due.iter().zip(input).all(|(a, b)| a == b) { Ok(()) } else { Err(Malformed::NotHttp) }
}

/// How the body ends (RFC 9112, section 6.3). A Transfer-Encoding overrides a Content-Length; this connection is used
/// once, so that nothing can be smuggled past it.
fn framing(status: u16, to_head: bool, fields: &[httparse::Header<'_>]) -> Result<State, Malformed> {
    let mut length: Option<u64> = None;
    let mut coding: Option<&[u8]> = None;
    for field in fields {
        if field.name.eq_ignore_ascii_case("content-length") {
            for item in field.value.split(|b| *b == b',') {
                let value = parse_length(item).ok_or(Malformed::ContentLength)?;
                if length.is_some_and(|known| known != value) {
                    return Err(Malformed::ContentLength);
                }
                length = Some(value);
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            coding = field.value.rsplit(|b| *b == b',').next();
        }
    }
    Ok(match (coding, length) {
        _ if to_head || matches!(status, 204 | 304) => State::End,
        (Some(last), _) if last.trim_ascii().eq_ignore_ascii_case(b"chunked") => State::Chunked(Chunked::new()),
        (Some(_), _) | (None, None) => State::UntilClose { bytes: 0 },
        (None, Some(0)) => State::End,
        (None, Some(total)) => State::Length { total, left: total },
    })
}

fn parse_length(item: &[u8]) -> Option<u64> {
    let digits = item.trim_ascii();
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| all_digits)?;
    text.parse().ok()
}

fn head_error(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "invalid field name",
        httparse::Error::HeaderValue => "invalid field value",
        httparse::Error::NewLine => "stray line end",
        httparse::Error::Status => "invalid status",
        httparse::Error::Token => "invalid character",
        httparse::Error::TooManyHeaders => "too many fields",
        httparse::Error::Version => "invalid version",
    }
}
