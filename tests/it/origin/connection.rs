//! One connection of an origin: reads requests, follows the script, and records how it ended.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use roundsman::model::Address;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use super::reply::{Act, Body, Plan, Proper, Reply};
use super::{Ending, Seen, Shared, frames};

const HEAD_BYTES_MAX: usize = 1 << 20;
const BODY_BYTES_MAX: usize = 64 << 20;
const BODY_BYTES_LOGGED: usize = 64 << 10;
/// How long it reads after its FIN.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listening {
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Listening::Tcp(l) => {
                let (stream, _) = l.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Listening::Unix(l, _) => Ok(Stream::Unix(l.accept().await?.0)),
        }
    }

    pub(super) fn address(&self) -> Address {
        match self {
            Listening::Tcp(l) => Address::Inet(l.local_addr().expect("a bound socket has an address")),
            Listening::Unix(_, path) => Address::Unix(Arc::from(path.as_path())),
        }
    }
}

#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Serves one connection to its end.
/// The connection is created here and not in the task, so that a task that is cancelled before it runs ends it too.
pub(super) fn serve(stream: Stream, id: u64, shared: Arc<Shared>) -> impl Future<Output = ()> + Send {
    let ended = Ended { id, shared: shared.clone(), ending: Ending::Ours };
    let mut connection = Connection { stream, id, shared, buffer: Vec::new(), resets: false, ended };
    async move {
        let ending = connection.run().await.unwrap_or(Ending::Reset);
        // Read when it is dropped, which the compiler sees only through a reference.
        let ended = &mut connection.ended;
        ended.ending = ending;
    }
}

/// The order of the fields matters: the socket is closed before `ended` reports it to the test.
struct Connection {
    stream: Stream,
    id: u64,
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    resets: bool,
    ended: Ended,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if (self.resets || self.shared.resets.load(Ordering::SeqCst))
            && let Stream::Tcp(stream) = &self.stream
        {
            // Fails only if the peer is gone already.
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

struct Ended {
    id: u64,
    shared: Arc<Shared>,
    ending: Ending,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.shared.ended(self.id, self.ending);
    }
}

/// Whether the connection continues, or how it ended.
enum Next {
    Request,
    End(Ending),
}

impl Connection {
    async fn run(&mut self) -> io::Result<Ending> {
        let on_accept = self.shared.on_accept.lock().clone();
        if let Some(reply) = on_accept {
            sleep(reply.delay).await;
            let Plan::Acts(acts) = &reply.plan else { panic!("on accept: acts only") };
            return self.perform(acts).await;
        }
        loop {
            let Some(request) = self.read_head().await? else {
                return Ok(if self.buffer.is_empty() { Ending::Eof } else { Ending::EofInRequest });
            };
            match self.answer(request).await? {
                Next::Request => {}
                Next::End(ending) => return Ok(ending),
            }
        }
    }

    /// The next head, or `None` at the end of the stream.
    async fn read_head(&mut self) -> io::Result<Option<Head>> {
        let mut stopping = self.shared.stopping.subscribe();
        loop {
            if let Some(head) = Head::parse(&self.buffer)? {
                self.buffer.drain(..head.bytes.len());
                return Ok(Some(head));
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let idle = self.buffer.is_empty();
            tokio::select! {
                biased;
                read = self.fill() => {
                    if read? == 0 {
                        return Ok(None);
                    }
                }
                _ = stopping.wait_for(|stopping| *stopping), if idle => return Ok(None),
            }
        }
    }

    async fn answer(&mut self, head: Head) -> io::Result<Next> {
        let at = Instant::now();
        let reply = self.shared.reply_for(&head.target);
        let echo = head.method == "POST" && head.target == "/echo";
        let reply = reply.unwrap_or_else(|| Arc::new(if echo { Reply::echo() } else { Reply::status(200) }));
        let mut body = Vec::new();
        if !reply.before_body {
            body = match self.read_body(&head).await {
                Ok(body) => body,
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(Next::End(Ending::EofInRequest)),
                Err(e) => return Err(e),
            };
        }
        self.shared.log(Seen {
            method: head.method.clone(),
            target: head.target.clone(),
            fields: head.fields.clone(),
            head: head.bytes.clone(),
            body_bytes: body.len() as u64,
            body: body[..body.len().min(BODY_BYTES_LOGGED)].to_vec(),
            at,
            connection: self.id,
        });
        if !reply.delay.is_zero() && self.gone_within(reply.delay).await {
            return Ok(Next::End(Ending::EofInRequest));
        }
        let next = match &reply.plan {
            Plan::Acts(acts) => return Ok(Next::End(self.perform(acts).await?)),
            Plan::Raw(bytes) => {
                self.write(bytes).await?;
                Next::Request
            }
            Plan::Proper(proper) => self.respond(proper, &head).await?,
            Plan::Echo => {
                let Reply { plan: Plan::Proper(proper), .. } = Reply::ok(body) else { unreachable!("`ok` is proper") };
                self.respond(&proper, &head).await?
            }
            Plan::UpgradeEcho => return Ok(Next::End(self.upgrade(&head).await?)),
        };
        if reply.before_body {
            self.read_body(&head).await?;
        }
        Ok(next)
    }

    /// Writes a proper reply.
    async fn respond(&mut self, reply: &Proper, head: &Head) -> io::Result<Next> {
        for status in &reply.interim {
            let reason =
                http::StatusCode::from_u16(*status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Interim");
            self.write(format!("HTTP/1.1 {status} {reason}\r\nX-Interim: yes\r\n\r\n").as_bytes()).await?;
        }
        let bodyless = matches!(reply.status, 204 | 304);
        let stopping = *self.shared.stopping.borrow();
        let close = stopping || reply.close || head.wants_close || matches!(reply.body, Body::UntilClose(_));
        let mut text = format!("HTTP/1.1 {} {}\r\nX-Origin: {}\r\n", reply.status, reply.reason, self.shared.name);
        for (name, value) in &reply.fields {
            text += &format!("{name}: {value}\r\n");
        }
        let body = match &reply.body {
            Body::Name => format!("hello from {}\n", self.shared.name).into_bytes(),
            Body::Target => head.target.clone().into_bytes(),
            Body::Sized(body) | Body::UntilClose(body) => body.clone(),
            Body::Big(_) | Body::Chunked(_) => Vec::new(),
        };
        match &reply.body {
            _ if bodyless => {}
            Body::Name | Body::Target | Body::Sized(_) => text += &format!("Content-Length: {}\r\n", body.len()),
            Body::Big(bytes) => text += &format!("Content-Length: {bytes}\r\n"),
            Body::Chunked(_) => text += "Transfer-Encoding: chunked\r\n",
            Body::UntilClose(_) => {}
        }
        text += if close { "Connection: close\r\n\r\n" } else { "\r\n" };
        let mut out = text.into_bytes();
        if reply.silent_close {
            self.hold_back();
        }
        if !bodyless && head.method != "HEAD" {
            // A head and a small body are sent in one write, as real servers do.
            if reply.body_delay.is_zero() && reply.pace.is_none() {
                out.extend_from_slice(&body);
                out.extend_from_slice(&reply.surplus);
                self.write(&out).await?;
            } else {
                self.write(&out).await?;
                sleep(reply.body_delay).await;
                self.write_paced(&body, reply.pace).await?;
            }
            match &reply.body {
                Body::Big(bytes) => self.write_big(*bytes).await?,
                Body::Chunked(chunks) => self.write_chunks(chunks, reply.pace).await?,
                Body::Name | Body::Target | Body::Sized(_) | Body::UntilClose(_) => {}
            }
        } else {
            self.write(&out).await?;
        }
        if close || reply.silent_close {
            return Ok(Next::End(self.close().await?));
        }
        Ok(Next::Request)
    }

    /// From now on bytes are sent when a segment is full, or with the FIN.
    fn hold_back(&self) {
        if let Stream::Tcp(stream) = &self.stream {
            socket2::SockRef::from(stream).set_tcp_cork(true).expect("Linux can hold segments back");
        }
    }

    async fn write_paced(&mut self, body: &[u8], pace: Option<(usize, Duration)>) -> io::Result<()> {
        let Some((piece, every)) = pace else { return self.write(body).await };
        for piece in body.chunks(piece.max(1)) {
            self.write(piece).await?;
            sleep(every).await;
        }
        Ok(())
    }

    async fn write_big(&mut self, bytes: u64) -> io::Result<()> {
        let block = vec![b'x'; 64 << 10];
        let mut left = bytes;
        while left > 0 {
            let n = left.min(block.len() as u64) as usize;
            self.write(&block[..n]).await?;
            left -= n as u64;
        }
        Ok(())
    }

    async fn write_chunks(&mut self, chunks: &[Vec<u8>], pace: Option<(usize, Duration)>) -> io::Result<()> {
        for chunk in chunks.iter().filter(|c| !c.is_empty()) {
            let mut framed = format!("{:x}\r\n", chunk.len()).into_bytes();
            framed.extend_from_slice(chunk);
            framed.extend_from_slice(b"\r\n");
            self.write(&framed).await?;
            if let Some((_, every)) = pace {
                sleep(every).await;
            }
        }
        self.write(b"0\r\n\r\n").await
    }

    async fn upgrade(&mut self, head: &Head) -> io::Result<Ending> {
        let protocol = head.field("upgrade").unwrap_or("websocket").to_owned();
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
        self.write(answer.as_bytes()).await?;
        self.echo().await
    }

    async fn perform(&mut self, acts: &[Act]) -> io::Result<Ending> {
        for act in acts {
            match act {
                Act::Write(bytes) => self.write(bytes).await?,
                Act::Drip(bytes, every) => self.write_paced(bytes, Some((1, *every))).await?,
                Act::Endless(bytes) => loop {
                    self.write(bytes).await?;
                },
                Act::EndlessDrip(bytes, every) => loop {
                    self.write_paced(bytes, Some((1, *every))).await?;
                },
                Act::Wait(time) => sleep(*time).await,
                Act::Hang => return self.hang().await,
                Act::Close => return self.close().await,
                Act::Reset => {
                    self.resets = true;
                    return Ok(Ending::Ours);
                }
                Act::Echo => return self.echo().await,
                Act::AwaitRequest => {
                    while !frames::hold_a_request(&self.buffer) {
                        if self.fill().await? == 0 {
                            return Ok(Ending::EofInRequest);
                        }
                    }
                }
            }
        }
        self.close().await
    }

    async fn echo(&mut self) -> io::Result<Ending> {
        loop {
            let bytes = std::mem::take(&mut self.buffer);
            self.write(&bytes).await?;
            if self.fill().await? == 0 {
                return Ok(Ending::Eof);
            }
        }
    }

    /// Waits until the peer has closed the connection.
    async fn hang(&mut self) -> io::Result<Ending> {
        loop {
            self.buffer.clear();
            if self.fill().await? == 0 {
                return Ok(Ending::EofInRequest);
            }
        }
    }

    /// Waits; true if the peer closed during that time. Its pipelined bytes are kept.
    async fn gone_within(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while let Ok(read) = tokio::time::timeout_at(end, self.fill()).await {
            if matches!(read, Ok(0) | Err(_)) || self.buffer.len() > HEAD_BYTES_MAX {
                return true;
            }
        }
        false
    }

    /// Sends FIN, then reads what the peer still sends, so that unread bytes do not turn the FIN into an RST.
    async fn close(&mut self) -> io::Result<Ending> {
        self.wire().shutdown().await?;
        let _ = timeout(LINGER, async {
            while let Ok(1..) = self.fill().await {
                self.buffer.clear();
            }
        })
        .await;
        Ok(Ending::Ours)
    }

    /// The whole body of a request, decoded.
    async fn read_body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        if head.expects_continue && (head.chunked || head.content_length > 0) {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        if !head.chunked {
            return self.read_exactly(head.content_length).await;
        }
        let mut body = Vec::new();
        loop {
            let line = self.read_line().await?;
            let digits = line.split(|b| *b == b';').next().unwrap_or_default();
            let digits = std::str::from_utf8(digits).map_err(|_| io::ErrorKind::InvalidData)?;
            let size = usize::from_str_radix(digits.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
            if size == 0 {
                while !self.read_line().await?.is_empty() {}
                return Ok(body);
            }
            if body.len() + size > BODY_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            body.extend(self.read_exactly(size).await?);
            if !self.read_line().await?.is_empty() {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    async fn read_exactly(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        if bytes > BODY_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        while self.buffer.len() < bytes {
            self.fill_or_fail().await?;
        }
        Ok(self.buffer.drain(..bytes).collect())
    }

    async fn read_line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line = self.buffer[..end].to_vec();
                self.buffer.drain(..end + 2);
                return Ok(line);
            }
            self.fill_or_fail().await?;
        }
    }

    async fn fill_or_fail(&mut self) -> io::Result<()> {
        match self.fill().await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let mut block = [0; 16 << 10];
        let n = self.wire().read(&mut block).await?;
        self.shared.read(n);
        self.buffer.extend_from_slice(&block[..n]);
        Ok(n)
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            let n = self.wire().write(left).await?;
            self.shared.wrote(n);
            left = &left[n..];
        }
        Ok(())
    }

    fn wire(&mut self) -> &mut dyn Wire {
        match &mut self.stream {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }
}

/// The parts of a request head that the origin uses.
struct Head {
    bytes: Vec<u8>,
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    content_length: usize,
    chunked: bool,
    wants_close: bool,
    expects_continue: bool,
}

impl Head {
    fn parse(buffer: &[u8]) -> io::Result<Option<Head>> {
        let mut slots = [httparse::EMPTY_HEADER; 256];
        let mut request = httparse::Request::new(&mut slots);
        let parsed = request.parse(buffer).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let httparse::Status::Complete(length) = parsed else { return Ok(None) };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut head = Head {
            bytes: buffer[..length].to_vec(),
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            fields: request.headers.iter().map(|h| (h.name.to_owned(), text(h.value))).collect(),
            content_length: 0,
            chunked: false,
            wants_close: false,
            expects_continue: false,
        };
        if let Some(length) = head.field("content-length") {
            head.content_length = length.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
        }
        head.chunked = head.field("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().contains("chunked"));
        head.expects_continue = head.field("expect").is_some_and(|v| v.eq_ignore_ascii_case("100-continue"));
        let connection = head.field("connection").unwrap_or_default().to_ascii_lowercase();
        let keeps = request.version == Some(1) || connection.contains("keep-alive");
        head.wants_close = connection.contains("close") || !keeps;
        Ok(Some(head))
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}
