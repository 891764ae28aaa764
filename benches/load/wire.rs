//! One connection and the bytes on it: a request, a response with a known end, a WebSocket message. Reads no more of HTTP
//! than the loads need; whatever it does not expect is an error, so that no broken response counts as a good one.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The key of RFC 6455 section 1.3. With a fixed key the origin needs no SHA-1 for the answer that the RFC gives there.
pub const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The payload of a message, in bytes.
pub const MESSAGE_BYTES: usize = 1024;

/// How long a connection waits for the other side.
const PATIENCE: Duration = Duration::from_secs(10);
const BUFFER_BYTES: usize = 16 * 1024;

pub struct Connection {
    pub stream: TcpStream,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Connection {
    pub fn open(to: SocketAddr) -> io::Result<Connection> {
        Connection::over(TcpStream::connect(to)?, Some(PATIENCE))
    }

    /// `patience` bounds each read and write; `None` waits for ever.
    pub fn over(stream: TcpStream, patience: Option<Duration>) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(patience)?;
        stream.set_write_timeout(patience)?;
        Ok(Connection { stream, buffer: vec![0; BUFFER_BYTES].into(), start: 0, end: 0 })
    }

    /// Sends a request and reads its response, of which the body has a length and fits the buffer. Anything but a 200 is an
    /// error.
    pub fn exchange(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request)?;
        let head = self.head()?.ok_or_else(|| fault("closed before the response"))?;
        let text = std::str::from_utf8(&self.buffer[self.start..self.start + head]).map_err(|_| fault("not text"))?;
        if status(text) != Some(200) {
            return Err(fault(text.lines().next().unwrap_or_default()));
        }
        let length: usize = field(text, "content-length")
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| fault("a response without a length"))?;
        self.fill(head + length)?;
        self.start += head + length;
        Ok(())
    }

    /// Asks for an upgrade to WebSocket.
    pub fn upgrade(&mut self, path: &str, host: SocketAddr) -> io::Result<()> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes())?;
        let text = self.take_head()?.ok_or_else(|| fault("closed before the response"))?;
        if status(&text) != Some(101) || field(&text, "sec-websocket-accept") != Some(WEBSOCKET_ACCEPT) {
            return Err(fault(text.lines().next().unwrap_or_default()));
        }
        Ok(())
    }

    /// The next head as text, without what follows it. `None` when the other side closed before its first byte.
    pub fn take_head(&mut self) -> io::Result<Option<String>> {
        let Some(length) = self.head()? else { return Ok(None) };
        let head = self.buffer[self.start..self.start + length].to_vec();
        self.start += length;
        String::from_utf8(head).map(Some).map_err(|_| fault("not text"))
    }

    /// Reads until a whole head is in the buffer, and returns its length.
    fn head(&mut self) -> io::Result<Option<usize>> {
        loop {
            let bytes = &self.buffer[self.start..self.end];
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                return Ok(Some(end + 4));
            }
            if self.read_more()? == 0 {
                return if self.start == self.end { Ok(None) } else { Err(fault("closed within a head")) };
            }
        }
    }

    /// Reads to the end of the stream and returns how many bytes came in all.
    pub fn drain(&mut self) -> io::Result<usize> {
        let mut total = 0;
        loop {
            total += self.end - self.start;
            self.start = self.end;
            if self.read_more()? == 0 {
                return Ok(total);
            }
        }
    }

    /// The next binary message, which is `masked` if a client sent it. `None` at the end of the stream.
    pub fn message(&mut self, masked: bool) -> io::Result<Option<&mut [u8]>> {
        let head = if masked { 8 } else { 4 };
        if self.start == self.end && self.read_more()? == 0 {
            return Ok(None);
        }
        self.fill(head + MESSAGE_BYTES)?;
        let frame = &mut self.buffer[self.start..self.start + head + MESSAGE_BYTES];
        self.start += head + MESSAGE_BYTES;
        let (head, payload) = frame.split_at_mut(head);
        if head[..4] != frame_head(masked) {
            return Err(fault("not the expected frame"));
        }
        if masked {
            let mask = [head[4], head[5], head[6], head[7]];
            payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        }
        Ok(Some(payload))
    }

    /// Reads until `wanted` bytes are in the buffer.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        while self.end - self.start < wanted {
            if self.read_more()? == 0 {
                return Err(fault("closed within a response"));
            }
        }
        Ok(())
    }

    fn read_more(&mut self) -> io::Result<usize> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            return Err(fault("more than the buffer holds"));
        }
        let count = self.stream.read(&mut self.buffer[self.end..])?;
        self.end += count;
        Ok(count)
    }
}

/// A binary message. A client's must be masked (RFC 6455 section 5.3).
pub fn frame(payload: &[u8; MESSAGE_BYTES], masked: bool) -> Vec<u8> {
    let mut frame = frame_head(masked).to_vec();
    if masked {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    } else {
        frame.extend(payload);
    }
    frame
}

fn frame_head(masked: bool) -> [u8; 4] {
    let [high, low] = (MESSAGE_BYTES as u16).to_be_bytes();
    [0x82, if masked { 0x80 | 126 } else { 126 }, high, low]
}

pub fn status(head: &str) -> Option<u16> {
    head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

pub fn fault(what: &str) -> io::Error {
    io::Error::other(what.to_owned())
}
