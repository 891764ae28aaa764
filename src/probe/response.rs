//! Reads the response to a check from pieces of any size: interim responses, the head, and the body by its framing. `http1`
//! parses heads, framing and chunks, as for responses to requests. Pure; buffers only an incomplete head, and passes
//! everything else to a [`Sink`] at once.

use smallvec::SmallVec;

use crate::http1::limits::INTERIM_ANSWERS;
use crate::http1::{Body, Fault, Field, ResponseFraming, ResponseReader, Step, framing};

/// Receives the parts of a response as they arrive.
pub(super) trait Sink {
    /// The bytes of a head that is not interim, or of its part before a fault.
    fn on_raw_head(&mut self, head: &[u8]);
    /// The final head.
    fn on_head(&mut self, status: u16, fields: &[Field<'_>]) -> Flow;
    /// The next piece of the body, decoded; never empty.
    fn on_body(&mut self, piece: &[u8]) -> Flow;
    /// The body is complete.
    fn on_end(&mut self);
}

/// Whether a reader continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    Stop,
}

/// The progress of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// In a head, with the bytes received of it; 0 in the first head: no answer yet.
    Head(usize),
    /// In a body: the bytes received, and its length if declared.
    Body(u64, Option<u64>),
    /// In a body that the end of the connection ends: the bytes received.
    UntilClose(u64),
    /// Complete.
    End,
}

/// Reads one response.
#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    /// The request was HEAD: no body follows, whatever the head declares.
    to_head: bool,
    interim: u32,
    /// The received part of a head that did not arrive in one piece.
    pending: Vec<u8>,
    head: ResponseReader,
    /// Heads and ends come from another parser, that of HTTP/2.
    framed: bool,
}

#[derive(Debug)]
enum State {
    Head,
    Body(Body),
    End,
}

impl Reader {
    pub(super) fn new(to_head: bool) -> Reader {
        let (pending, head) = (Vec::new(), ResponseReader::default());
        Reader { state: State::Head, to_head, interim: 0, pending, head, framed: false }
    }

    /// The progress, to name what is missing when the response ends early.
    pub(super) fn stage(&self) -> Stage {
        match &self.state {
            State::Head => Stage::Head(self.pending.len()),
            State::Body(Body::UntilClose { read }) if !self.framed => Stage::UntilClose(*read),
            State::Body(Body::Length { total, left }) => Stage::Body(total - left, Some(*total)),
            State::Body(body) => Stage::Body(body.data_bytes(), None),
            State::End => Stage::End,
        }
    }

    /// The number of interim responses received.
    pub(super) fn interim(&self) -> u32 {
        self.interim
    }

    /// The received part of an incomplete head.
    pub(super) fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// Consumes the next bytes of `input` and passes on their parts. `Stop`: the sink has enough, or the response has ended;
    /// feed no more bytes. Neither after an error, which leaves the unread bytes in `input`.
    pub(super) fn feed(&mut self, input: &mut &[u8], sink: &mut impl Sink) -> Result<Flow, Fault> {
        while !input.is_empty() {
            let flow = match &mut self.state {
                State::Head => self.on_head_bytes(input, sink)?,
                State::Body(body) => match body.next(input)? {
                    Step::More => Flow::Continue,
                    Step::Data(piece) => {
                        let flow = sink.on_body(piece);
                        // After the data of chunks their end follows.
                        let ended = matches!(body, Body::Length { left: 0, .. });
                        if ended { self.on_end(flow, sink) } else { flow }
                    }
                    Step::End => self.on_end(Flow::Continue, sink),
                },
                State::End => Flow::Stop,
            };
            if flow == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        Ok(Flow::Continue)
    }

    /// The peer has closed its side: a body without another end ends here.
    pub(super) fn on_close(&mut self, sink: &mut impl Sink) {
        if matches!(self.state, State::Body(Body::UntilClose { .. })) {
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
        // A head that arrives in one piece is not copied.
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
        // Not collected: that copies the whole array.
        let mut fields: SmallVec<[_; 32]> = SmallVec::new();
        fields.extend(head.fields());
        self.on_head(head.status, &fields, sink)
    }

    /// Takes a head that another parser has read: that of HTTP/2, whose body then goes through [`Reader::feed`] and ends with
    /// its length or [`Reader::on_close`].
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
            framing => State::Body(Body::response(framing)),
        };
        match sink.on_head(status, fields) {
            Flow::Stop => Ok(Flow::Stop),
            Flow::Continue if matches!(self.state, State::End) => Ok(self.on_end(Flow::Continue, sink)),
            Flow::Continue => Ok(Flow::Continue),
        }
    }
}
