//! An origin that records every request and reads it as strictly as it can: what a proxy sends must be canonical, so that no
//! server could read it in another way.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::answers::{Answers, Ending};
use crate::fuzzing::strict::{self, Framing};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub connection: usize,
    pub line: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Its body has ended.
    pub whole: bool,
    /// Every byte of it.
    pub raw: Vec<u8>,
}

/// Everything that has come.
#[derive(Debug, Default)]
pub struct Log {
    pub requests: Vec<Request>,
    /// What was not canonical.
    pub faults: Vec<String>,
    /// Bytes received and sent: whether anything still happens.
    pub moved: usize,
    /// Connections that wait for a request.
    pub idle: usize,
    tries: HashMap<(String, usize), usize>,
}

/// Where requests are recorded, and what they get.
#[derive(Clone)]
pub struct Book {
    pub log: Arc<Mutex<Log>>,
    pub answers: Arc<Answers>,
    /// Each time this changes, every idle connection sends poison.
    pub speak: tokio::sync::watch::Receiver<u32>,
}

/// Serves until the runtime ends.
pub async fn serve(listener: TcpListener, book: Book) {
    for number in 0.. {
        let Ok((stream, _)) = listener.accept().await else { return };
        // What is sent is there at once, and not only after an acknowledgement.
        stream.set_nodelay(true).expect("it is TCP");
        tokio::spawn(Connection { stream, number, read: vec![], book: book.clone() }.run());
    }
}

struct Connection {
    stream: TcpStream,
    number: usize,
    read: Vec<u8>,
    book: Book,
}

impl Connection {
    async fn run(mut self) {
        loop {
            let Some(end) = self.head().await else { return };
            let head: Vec<u8> = self.read.drain(..end).collect();
            let parsed = strict::request(&head).and_then(|parsed| Ok((parsed.framing()?, parsed)));
            let (framing, strict::Head { line, fields }) = match parsed {
                Ok(parsed) => parsed,
                Err(why) => return self.fault(&why, &head),
            };
            let request =
                Request { connection: self.number, line, fields, body: vec![], whole: false, raw: head.clone() };
            let (tag, number, method) = (request.tag(), request.number(), request.method().to_owned());
            let (tries, index) = {
                let mut log = self.book.log.lock();
                log.requests.push(request);
                let index = log.requests.len() - 1;
                let tries = log.tries.entry((tag.clone(), number)).or_default();
                *tries += 1;
                (*tries - 1, index)
            };
            match self.body(framing, index).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(why) => return self.fault(&why, &head),
            }
            let answers = self.book.answers.clone();
            let answer = answers.of(number, tries);
            let bytes = answer.bytes(&tag, &method);
            // What comes after the end comes with it: later it could not be told from the next response.
            let mut room = bytes.len().saturating_sub(answer.after() + 1);
            let mut rest = &bytes[..];
            for cut in answer.cuts.iter().copied().chain([usize::MAX]) {
                let length = if cut <= room { cut } else { rest.len() };
                room -= length.min(room);
                let (piece, after) = rest.split_at(length);
                rest = after;
                if piece.is_empty() {
                    break;
                }
                if self.stream.write_all(piece).await.is_err() {
                    return;
                }
                self.book.log.lock().moved += piece.len();
                // A connection that closes does so at once, before another request can be on its way.
                if !rest.is_empty() {
                    super::run::settle().await;
                }
            }
            match answer.ending {
                Ending::Keep => {}
                Ending::Close => {
                    let _ = self.stream.shutdown().await;
                    while self.fill().await {}
                    return;
                }
                Ending::Reset => {
                    let _ = SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO));
                    return;
                }
            }
        }
    }

    fn fault(&self, why: &str, bytes: &[u8]) {
        self.book.log.lock().faults.push(format!("{why}: {}", bytes.escape_ascii()));
    }

    /// False at the end of the connection.
    async fn fill(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        let read = self.stream.read(&mut piece).await.unwrap_or(0);
        self.read.extend_from_slice(&piece[..read]);
        self.book.log.lock().moved += read;
        read > 0
    }

    /// The length of the next head; `None`: the connection has ended.
    async fn head(&mut self) -> Option<usize> {
        self.book.log.lock().idle += 1;
        let mut speak = self.book.speak.clone();
        speak.mark_unchanged();
        let head = loop {
            if let Some(at) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break Some(at + 4);
            }
            tokio::select! {
                biased;
                more = self.fill() => if !more { break None },
                changed = speak.changed() => {
                    if changed.is_err() {
                        // The world has ended.
                        return None;
                    }
                    if self.read.is_empty() {
                        let poison = b"HTTP/1.1 200 poison\r\nContent-Length: 6\r\n\r\npoison";
                        let _ = self.stream.write_all(poison).await;
                        self.book.log.lock().moved += poison.len();
                    }
                }
            }
        };
        self.book.log.lock().idle -= 1;
        if head.is_none() && !self.read.is_empty() {
            // A head that does not end is no request: what it lacks can only be less.
            let bytes = std::mem::take(&mut self.read);
            self.fault("half a head", &bytes);
        }
        head
    }

    /// Reads the body into the log; false at the end of the connection.
    async fn body(&mut self, framing: Option<Framing>, index: usize) -> Result<bool, String> {
        let mut left = match framing {
            None => 0,
            Some(Framing::Length(length)) => usize::try_from(length).map_err(|error| error.to_string())?,
            Some(Framing::Chunked) => return self.chunks(index).await,
        };
        while left > 0 {
            if self.read.is_empty() && !self.fill().await {
                return Ok(false);
            }
            let n = left.min(self.read.len());
            let piece: Vec<u8> = self.read.drain(..n).collect();
            let mut log = self.book.log.lock();
            log.requests[index].raw.extend_from_slice(&piece);
            log.requests[index].body.extend(piece);
            left -= n;
        }
        self.book.log.lock().requests[index].whole = true;
        Ok(true)
    }

    async fn chunks(&mut self, index: usize) -> Result<bool, String> {
        loop {
            let Some(line) = self.line(index).await? else { return Ok(false) };
            let size = usize::try_from(strict::chunk_size(&line)?).map_err(|error| error.to_string())?;
            if size == 0 {
                break;
            }
            let end = size.checked_add(2).ok_or("a huge chunk")?;
            while self.read.len() < end {
                if !self.fill().await {
                    let bytes = std::mem::take(&mut self.read);
                    let mut log = self.book.log.lock();
                    log.requests[index].body.extend_from_slice(&bytes[..bytes.len().min(size)]);
                    log.requests[index].raw.extend(bytes);
                    return Ok(false);
                }
            }
            let piece: Vec<u8> = self.read.drain(..end).collect();
            if !piece.ends_with(b"\r\n") {
                return Err("a chunk that is longer than its size".to_owned());
            }
            let mut log = self.book.log.lock();
            log.requests[index].raw.extend_from_slice(&piece);
            log.requests[index].body.extend_from_slice(&piece[..size]);
        }
        loop {
            match self.line(index).await? {
                None => return Ok(false),
                Some(line) if line.is_empty() => break,
                Some(line) => drop(strict::field(&line)?),
            }
        }
        self.book.log.lock().requests[index].whole = true;
        Ok(true)
    }

    /// The next line of a body, without its end; `None` at the end of the connection.
    async fn line(&mut self, index: usize) -> Result<Option<String>, String> {
        loop {
            if let Some(at) = self.read.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.read.drain(..=at).collect();
                self.book.log.lock().requests[index].raw.extend_from_slice(&line);
                return match line.strip_suffix(b"\r\n") {
                    Some(line) if !line.contains(&b'\r') => Ok(Some(strict::latin(line))),
                    Some(_) | None => Err(format!("a line that does not end in CRLF: {}", line.escape_ascii())),
                };
            }
            if !self.fill().await {
                let bytes = std::mem::take(&mut self.read);
                self.book.log.lock().requests[index].raw.extend(bytes);
                return Ok(None);
            }
        }
    }
}

impl Request {
    pub fn method(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }

    pub fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    /// The first step of the path.
    pub fn tag(&self) -> String {
        let step = self.target().split('/').nth(1).unwrap_or_default();
        // As long as a tag: lengths in answers count on it.
        if step.len() == 2 && step.is_ascii() { step.to_owned() } else { "--".to_owned() }
    }

    /// The second step of the path; that of no answer if it is not a number.
    pub fn number(&self) -> usize {
        let step = self.target().split('/').nth(2).unwrap_or_default();
        step.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(99)
    }
}
