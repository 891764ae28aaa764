//! Reads the response to a check from pieces of any size: interim responses, the head, and the body by its framing. What a
//! head may look like, where a body ends and what chunks are is for `http1`, as with the responses to requests. Pure; keeps
//! nothing but a head that has not come whole; what comes is handed to a [`Sink`] at once.

use smallvec::SmallVec;

use crate::http1::limits::INTERIM_ANSWERS;
use crate::http1::{Chunked, Fault, Field, Reading, ResponseFraming, ResponseReader, Step, framing};

/// Takes what a response consists of, as it comes.
pub(super) trait Sink {
    /// A head that is not interim, as it came, or as much of one as was read before a fault.
    fn on_raw_head(&mut self, head: &[u8]);
    /// The final head.
    fn on_head(&mut self, status: u16, fields: &[Field<'_>]) -> Flow;
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

/// How far a response has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// In a head, of which this many bytes have come; none of the very first: no answer yet.
    Head(usize),
    /// In a body: how many bytes have come, and how many it has if it said so.
    Body(u64, Option<u64>),
    /// In a body that only the end of the connection ends: how many bytes have come.
    UntilClose(u64),
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
    head: ResponseReader,
    /// Heads and ends come from another framing, that of HTTP/2.
    framed: bool,
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
        let (pending, head) = (Vec::new(), ResponseReader::default());
        Reader { state: State::Head, to_head, interim: 0, pending, head, framed: false }
    }

    /// How far it has come, to say what is missing when no more comes.
    pub(super) fn stage(&self) -> Stage {
        match &self.state {
            State::Head => Stage::Head(self.pending.len()),
            State::Length { total, left } => Stage::Body(total - left, Some(*total)),
            State::Chunked(chunked) => Stage::Body(chunked.data_bytes(), None),
            State::UntilClose { bytes } if self.framed => Stage::Body(*bytes, None),
            State::UntilClose { bytes } => Stage::UntilClose(*bytes),
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
    pub(super) fn feed(&mut self, input: &mut &[u8], sink: &mut impl Sink) -> Result<Flow, Fault> {
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
                    Step::More => Flow::Continue,
                    Step::Data(piece) => sink.on_body(piece),
                    Step::End => self.on_end(Flow::Continue, sink),
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

    fn on_head_bytes(&mut self, input: &mut &[u8], sink: &mut impl Sink) -> Result<Flow, Fault> {
        let known = self.pending.len();
        let mut pending = std::mem::take(&mut self.pending);
        // A head that comes at once is not copied.
        let bytes = match known {
            0 => *input,
            _ => {
                pending.extend_from_slice(input);
                &pending[..]
            }
        };
        let mut reader = std::mem::take(&mut self.head);
        let head = match reader.read(bytes) {
            Ok(Some(head)) => head,
            Ok(None) => {
                (self.head, self.pending) = (reader, if known == 0 { input.to_vec() } else { pending });
                *input = &[];
                return Ok(Flow::Continue);
            }
            Err(fault) => {
                if fault != Fault::NotHttp {
                    sink.on_raw_head(&bytes[..reader.position()]);
                }
                if known > 0 {
                    self.pending = pending;
                    *input = &[];
                }
                return Err(fault);
            }
        };
        *input = &input[head.len - known..];
        if !matches!(head.status, 100 | 102..200) {
            sink.on_raw_head(&bytes[..head.len]);
        }
        let fields: SmallVec<[_; 32]> = head.fields().collect();
        self.on_head(head.status, &fields, sink)
    }

    /// Takes a head that somebody else has read: that of HTTP/2, whose body then goes through [`Reader::feed`] and ends
    /// with its length or [`Reader::on_close`].
    pub(super) fn on_parsed_head(
        &mut self,
        status: u16,
        fields: &[Field<'_>],
        sink: &mut impl Sink,
    ) -> Result<Flow, Fault> {
        self.framed = true;
        self.on_head(status, fields, sink)
    }

    fn on_head(&mut self, status: u16, fields: &[Field<'_>], sink: &mut impl Sink) -> Result<Flow, Fault> {
        let interim = (100..200).contains(&status) && status != 101;
        self.interim += u32::from(interim);
        if self.interim > INTERIM_ANSWERS {
            return Err(Fault::Interim);
        }
        let ending = framing::ending(self.to_head, status, fields.iter().copied())?;
        if interim {
            return Ok(Flow::Continue);
        }
        if status == 101 {
            return Err(Fault::Switch);
        }
        self.state = match ending.framing {
            ResponseFraming::None | ResponseFraming::Length(0) => State::End,
            ResponseFraming::Length(total) => State::Length { total, left: total },
            ResponseFraming::Chunked => State::Chunked(Chunked::new(Reading::Answer)),
            ResponseFraming::UntilClose => State::UntilClose { bytes: 0 },
        };
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
