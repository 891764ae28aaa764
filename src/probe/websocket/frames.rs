//! WebSocket frames (RFC 6455, section 5), as far as a probe needs them: short ones to send, and an inbox that finds pongs
//! and closes among a bounded number of other frames. Pure.

/// Opcodes of the frames sent.
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// Bytes of payload of a control frame.
const CONTROL_BYTES_MAX: u64 = 125;
/// Bytes that may arrive before the pong.
const BYTES_MAX: u64 = 1 << 20;

/// A final frame of a client: masked, with at most 125 bytes of payload.
pub(super) fn frame(opcode: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).ok().filter(|n| u64::from(*n) <= CONTROL_BYTES_MAX);
    let length = length.expect("what is sent is short");
    let mut out = vec![0x80 | opcode, 0x80 | length];
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// A received frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A pong with this payload.
    Pong(Vec<u8>),
    /// The peer closes.
    Close {
        /// The close code.
        code: Option<u16>,
        /// The reason text.
        reason: Vec<u8>,
    },
    /// Anything else.
    Other,
}

/// Parses what a server sends, in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Not parsed yet.
    pending: Vec<u8>,
    /// Bytes of payload still to discard.
    skip: u64,
    total: u64,
    pongs: u32,
}

impl Inbox {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let skipped = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        self.skip -= skipped as u64;
        self.total += bytes.len() as u64;
        self.pending.extend_from_slice(&bytes[skipped..]);
    }

    /// The number of pongs received.
    pub(super) fn pongs(&self) -> u32 {
        self.pongs
    }

    /// The next frame; `None`: more bytes are needed.
    ///
    /// # Errors
    /// A description of the violation.
    pub(super) fn next(&mut self) -> Result<Option<Event>, &'static str> {
        if self.total > BYTES_MAX {
            return Err("1 MiB of other messages");
        }
        let Some((head, length)) = head_of(&self.pending)? else { return Ok(None) };
        if head.opcode < CLOSE {
            self.throw_away(head.bytes, length);
            return Ok(Some(Event::Other));
        }
        // At most 125: wait for the rest of the frame.
        let end = head.bytes + usize::try_from(length).expect("a control frame is short");
        let Some(payload) = self.pending.get(head.bytes..end) else { return Ok(None) };
        let event = match head.opcode {
            PONG => {
                self.pongs += 1;
                Event::Pong(payload.to_vec())
            }
            CLOSE => match payload {
                [a, b, reason @ ..] => {
                    Event::Close { code: Some(u16::from_be_bytes([*a, *b])), reason: reason.to_vec() }
                }
                _ => Event::Close { code: None, reason: Vec::new() },
            },
            _ => Event::Other,
        };
        self.pending.drain(..end);
        Ok(Some(event))
    }

    fn throw_away(&mut self, head_bytes: usize, length: u64) {
        let there = self.pending.len() - head_bytes;
        let now = there.min(usize::try_from(length).unwrap_or(usize::MAX));
        self.pending.drain(..head_bytes + now);
        self.skip = length - now as u64;
    }
}

struct Head {
    opcode: u8,
    bytes: usize,
}

/// The header of the first frame and the length of its payload (RFC 6455, section 5.2); `None`: it is incomplete.
fn head_of(bytes: &[u8]) -> Result<Option<(Head, u64)>, &'static str> {
    let [first, second, after @ ..] = bytes else { return Ok(None) };
    let opcode = first & 0x0f;
    let is_final = first & 0x80 != 0;
    if first & 0x70 != 0 {
        return Err("a frame with reserved bits");
    }
    if second & 0x80 != 0 {
        return Err("a masked frame");
    }
    let short = u64::from(second & 0x7f);
    match opcode {
        0x0..=0x2 => {}
        CLOSE | PING | PONG if is_final && short <= CONTROL_BYTES_MAX => {}
        CLOSE | PING | PONG => return Err("a control frame that is long or in pieces"),
        _ => return Err("a frame of an unknown kind"),
    }
    let length = match (short, after) {
        (126, [a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
        (126 | 127, _) => return Ok(None),
        (short, _) => (2, short),
    };
    match length {
        (_, length) if length > BYTES_MAX => Err("1 MiB of other messages"),
        (bytes, length) => Ok(Some((Head { opcode, bytes }, length))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The frames in `bytes`, fed in pieces of `size`.
    fn events(bytes: &[u8], size: usize) -> Result<Vec<Event>, &'static str> {
        let mut inbox = Inbox::default();
        let mut events = Vec::new();
        for piece in bytes.chunks(size) {
            inbox.push(piece);
            while let Some(event) = inbox.next()? {
                events.push(event);
            }
        }
        Ok(events)
    }

    #[test]
    fn a_frame_of_a_client_is_masked() {
        // RFC 6455, section 5.7: a masked "Hello", here as a ping.
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let expected = [0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(frame(PING, b"Hello", mask), expected);
    }

    #[test]
    fn pongs_and_closes_are_found_between_other_frames_in_pieces_of_any_size() {
        let mut bytes = b"\x81\x05Hello\x01\x03Hel\x89\x00\x80\x02lo\x8a\x05Hello\x82\x7e\x01\x00".to_vec();
        bytes.extend([7; 256]);
        bytes.extend(b"\x82\x7f\0\0\0\0\0\x01\0\0");
        bytes.extend([0x8a; 65_536]);
        bytes.extend(b"\x8a\x00\x88\x06\x03\xf0busy");
        for size in [1, 2, 3, 7, 100, 4096, bytes.len()] {
            let events = events(&bytes, size).unwrap();
            let relevant: Vec<_> = events.iter().filter(|event| **event != Event::Other).collect();
            let close = Event::Close { code: Some(1008), reason: b"busy".to_vec() };
            assert_eq!(relevant, [&Event::Pong(b"Hello".to_vec()), &Event::Pong(Vec::new()), &close], "{size}");
            assert_eq!(events.len(), 9, "{size}");
        }
        assert_eq!(events(b"\x88\x00", 1).unwrap(), [Event::Close { code: None, reason: Vec::new() }]);
    }

    #[test]
    fn invalid_server_frames_are_rejected() {
        for (bytes, what) in [
            (&b"\x8a\x80\0\0\0\0"[..], "a masked frame"),
            (b"\xca\x00", "a frame with reserved bits"),
            (b"\x83\x00", "a frame of an unknown kind"),
            (b"\x8b\x00", "a frame of an unknown kind"),
            (b"\x0a\x00", "a control frame that is long or in pieces"),
            (b"\x8a\x7e\x00\x80", "a control frame that is long or in pieces"),
            (b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", "1 MiB of other messages"),
        ] {
            assert_eq!(events(bytes, 1), Err(what), "{bytes:x?}");
        }
    }

    #[test]
    fn endless_messages_are_rejected_in_constant_memory() {
        let mut inbox = Inbox::default();
        let message = [&b"\x82\x7e\xff\xff"[..], &[0; 65_535]].concat();
        let mut pushed = 0;
        let error = loop {
            inbox.push(&message);
            pushed += 1;
            assert!(pushed < 100);
            match std::iter::from_fn(|| inbox.next().transpose()).find(Result::is_err) {
                Some(Err(what)) => break what,
                Some(Ok(_)) | None => assert!(inbox.pending.capacity() < 256 << 10),
            }
        };
        assert_eq!((error, pushed), ("1 MiB of other messages", 16));
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_inbox_and_pieces_do_not_matter(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            size in 1_usize..50,
        ) {
            prop_assert_eq!(events(&bytes, size), events(&bytes, 300));
        }
    }
}
