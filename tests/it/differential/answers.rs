//! What an origin answers: for each number in a target and each try, valid responses of every framing, and invalid ones.

use std::fmt;

use fastrand::Rng;

use super::stream::{cuts, pick};

/// What must not reach any client: it comes after the end of a response.
pub const POISON: &str = "poison";
/// Numbers of requests that have their own answers; others share one.
const NUMBERS: usize = 6;
/// Tries that have their own answers.
const TRIES: usize = 2;

/// How a response ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Keep,
    Close,
    Reset,
}

/// One response: its bytes but for the tag, which stands for `@` in them.
#[derive(Debug, Clone)]
pub struct Answer {
    head: String,
    /// Left out when it answers HEAD.
    body: Vec<u8>,
    /// After it, whatever was asked.
    after: Vec<u8>,
    pub ending: Ending,
    pub cuts: Vec<usize>,
}

/// All of them.
#[derive(Clone)]
pub struct Answers {
    /// By number, then by try.
    of: Vec<[Answer; TRIES]>,
    other: Answer,
}

impl Answers {
    pub fn new(rng: &mut Rng) -> Answers {
        let of = (0..NUMBERS).map(|_| [Answer::random(rng), Answer::random(rng)]).collect();
        Answers { of, other: Answer::plain() }
    }

    /// Only valid ones, each followed by poison now and then.
    pub fn valid(rng: &mut Rng) -> Answers {
        let valid = |rng: &mut Rng| {
            let mut answer = Answer::valid(rng);
            if rng.u8(..6) == 0 && answer.ending == Ending::Keep {
                answer.poison();
            }
            answer
        };
        Answers { of: (0..NUMBERS).map(|_| [valid(rng), valid(rng)]).collect(), other: Answer::plain() }
    }

    /// The answer to this try (from 0) of this number.
    pub fn of(&self, number: usize, tries: usize) -> &Answer {
        self.of.get(number).map_or(&self.other, |tried| &tried[tries.min(TRIES - 1)])
    }
}

impl Answer {
    /// Its bytes, for a request with this tag and method.
    pub fn bytes(&self, tag: &str, method: &str) -> Vec<u8> {
        let mut bytes = self.head.clone().into_bytes();
        if method != "HEAD" {
            bytes.extend(&self.body);
        }
        bytes.extend(&self.after);
        let tagged = String::from_utf8(bytes).expect("they are text").replace('@', tag);
        tagged.into_bytes()
    }

    /// Bytes after its end.
    pub fn after(&self) -> usize {
        self.after.len()
    }

    fn plain() -> Answer {
        Answer::sized(200, "", "@ other", Ending::Keep)
    }

    fn sized(status: u16, fields: &str, body: &str, ending: Ending) -> Answer {
        // `@` is as long as the tag: two bytes.
        let length = body.len() + body.matches('@').count();
        let head = format!("HTTP/1.1 {status} X\r\n{fields}Content-Length: {length}\r\n\r\n");
        Answer { head, body: body.into(), after: vec![], ending, cuts: vec![] }
    }

    /// A second response, for which nobody asked.
    fn poison(&mut self) {
        self.after = format!("HTTP/1.1 200 {POISON}\r\nContent-Length: 6\r\n\r\n{POISON}").into_bytes();
    }

    fn valid(rng: &mut Rng) -> Answer {
        let body = "@ ".repeat(match rng.u8(..10) {
            0 => 0,
            1 => rng.usize(1..9_000),
            _ => rng.usize(1..40),
        });
        let fields = match rng.u8(..8) {
            0 => "X-Tag: @\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
            1 => "Set-Cookie: a=@\r\nSet-Cookie: b=@\r\n",
            2 => "Connection: X-Mine\r\nX-Mine: @\r\n",
            3 => "Keep-Alive: timeout=5\r\nServer: @\r\n",
            _ => "",
        };
        let close = rng.u8(..8) == 0;
        let (ending, closing) = if close { (Ending::Close, "Connection: close\r\n") } else { (Ending::Keep, "") };
        let head = |rest: &str| format!("HTTP/1.1 200 OK\r\n{fields}{closing}{rest}\r\n");
        let mut answer = Answer::sized(pick(rng, &[200, 200, 404, 500]), fields, &body, Ending::Keep);
        (answer.head, answer.ending) = (answer.head.replacen("\r\n", &format!("\r\n{closing}"), 1), ending);
        answer = match rng.u8(..12) {
            0..2 => Answer { head: head("Transfer-Encoding: chunked\r\n"), body: chunks(&body, rng), ..answer },
            2 => Answer { head: head(""), body: body.into(), ending: Ending::Close, ..answer },
            3 => Answer { head: "HTTP/1.0 200 OK\r\n\r\n".into(), body: body.into(), ending: Ending::Close, ..answer },
            4 => {
                let status = pick(rng, &["204 No Content", "304 Not Modified", "204 X\r\nX-Tag: @"]);
                Answer { head: format!("HTTP/1.1 {status}\r\n{fields}{closing}\r\n"), body: vec![], ..answer }
            }
            5 => Answer {
                head: format!("HTTP/1.1 103 Early\r\nLink: @\r\n\r\nHTTP/1.1 100 Go on\r\n\r\n{}", answer.head),
                ..answer
            },
            6 => Answer { head: answer.head.replacen("1.1", "1.0", 1), ending: Ending::Close, ..answer },
            _ => answer,
        };
        answer.cuts = cuts(200, rng);
        answer
    }

    /// Valid, or in one way not.
    fn random(rng: &mut Rng) -> Answer {
        let mut answer = Answer::valid(rng);
        if rng.u8(..100) < 70 {
            return answer;
        }
        let framed = answer.head.contains("Content-Length") || answer.head.contains("chunked");
        match rng.u8(..14) {
            0..3 if answer.ending == Ending::Keep && framed => answer.poison(),
            3 => answer.ending = Ending::Close,
            4 => {
                answer.body.truncate(answer.body.len() / 2);
                answer.ending = pick(rng, &[Ending::Close, Ending::Reset]);
            }
            5 => {
                answer.head.truncate(answer.head.len() / 2);
                answer.body.clear();
                answer.ending = Ending::Close;
            }
            6 => {
                (answer.head, answer.body) = (String::new(), vec![]);
                answer.ending = pick(rng, &[Ending::Close, Ending::Reset]);
            }
            _ => {
                let malformed = pick(
                    rng,
                    &[
                        "Content-Length: 4\r\nContent-Length: 5\r\n",
                        "Content-Length: x\r\n",
                        "Transfer-Encoding: gzip\r\n",
                        "X-Folded: @\r\n @\r\n",
                        "X-Space : @\r\n",
                        "X-Lf: @\n",
                        "X-Cr: @\rX: @\r\n",
                        "X-Control: \x01\r\n",
                        "no colon\r\n",
                        ": @\r\n",
                        "Connection: close\r\n",
                        "Connection: keep-alive\r\n",
                    ],
                );
                // Pingora removes a length beside chunks: the table of `lanes` has that.
                let beside = malformed.starts_with("Content-Length") && answer.head.contains("chunked");
                let malformed = if beside { "no colon\r\n" } else { malformed };
                answer.head = answer.head.replacen("\r\n", &format!("\r\n{malformed}"), 1);
                // An origin that says that it closes does.
                answer.ending = Ending::Close;
            }
        }
        answer
    }
}

fn chunks(body: &str, rng: &mut Rng) -> Vec<u8> {
    let (mut out, mut rest) = (String::new(), body);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rng.usize(1..=rest.len()));
        rest = after;
        let extension = pick(rng, &["", "", "", ";a=b", " ; a", ";"]);
        let length = piece.len() + piece.matches('@').count();
        out += &format!("{length:x}{extension}\r\n{piece}\r\n");
    }
    out += "0\r\n";
    if rng.u8(..4) == 0 {
        out += "X-Sum: @\r\n";
    }
    (out + "\r\n").into_bytes()
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, tried) in self.of.iter().enumerate() {
            for (tries, answer) in tried.iter().enumerate() {
                let mut bytes = answer.bytes("--", "GET");
                let length = bytes.len();
                bytes.truncate(400);
                let bytes = bytes.escape_ascii();
                writeln!(f, "{number}, try {tries}: {length} bytes, {:?}: {bytes}", answer.ending)?;
            }
        }
        Ok(())
    }
}
