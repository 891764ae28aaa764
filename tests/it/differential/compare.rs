//! Compares what the two lanes have done. What they may do differently is [`ALLOWED`], with the reason.

use roundsman::model::policy::Lane;

use super::origin::Request;
use super::run::Seen;
use crate::lanes::differences::Difference;

/// Makes what the lanes may do differently the same, on both sides.
pub struct Allowed {
    /// What it is, and why.
    pub difference: Difference,
    apply: fn(&mut Outcome),
}

/// What the lanes may do differently here. Where [`Difference::ClosesHttp10`] ends one of them, nothing after it is compared.
pub const ALLOWED: &[Allowed] = &[
    Allowed { difference: Difference::ReplacesDate, apply: |outcome| outcome.without("date") },
    Allowed { difference: Difference::DropsTrailers, apply: |outcome| outcome.without("trailer") },
    Allowed {
        difference: Difference::DropsEmptyChunks,
        apply: |outcome| outcome.requests.iter_mut().for_each(leave_out_empty_chunks),
    },
    Allowed {
        difference: Difference::SendsHeadsFirst,
        apply: |outcome| outcome.requests.retain(|request| request.whole),
    },
    Allowed {
        difference: Difference::SaysKeepAlive,
        apply: |outcome| {
            for answer in &mut outcome.answers {
                answer.fields.retain(|(name, value)| (&name[..], &value[..]) != ("connection", "keep-alive"));
            }
        },
    },
];

/// As pingora does, when it sends a request again too.
pub fn leave_out_empty_chunks(request: &mut Request) {
    if request.body.is_empty() {
        request.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("transfer-encoding"));
    }
}

/// What client and origin have seen, in comparable form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub answers: Vec<Answer>,
    pub requests: Vec<Request>,
}

/// One response as the client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub reason: String,
    /// Names in lower case, sorted by name.
    pub fields: Vec<(String, String)>,
    /// Without framing.
    pub body: Vec<u8>,
    pub whole: bool,
}

impl Outcome {
    fn new(seen: &Seen) -> Result<Outcome, String> {
        let mut requests = seen.requests.clone();
        for request in &mut requests {
            // How often a connection is used, and how a body is split into chunks, is left to each lane.
            (request.connection, request.raw) = (0, Vec::new());
            let is_origin = |(name, value): &&mut (String, String)| name == "Host" && *value == seen.origin;
            request.fields.iter_mut().filter(is_origin).for_each(|(_, value)| "the origin".clone_into(value));
            request.fields.iter_mut().for_each(|(name, _)| name.make_ascii_lowercase());
            request.fields.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let mut outcome = Outcome { answers: answers(seen)?, requests };
        for allowed in ALLOWED {
            (allowed.apply)(&mut outcome);
        }
        Ok(outcome)
    }

    fn without(&mut self, name: &str) {
        let fields = self.answers.iter_mut().map(|answer| &mut answer.fields);
        fields
            .chain(self.requests.iter_mut().map(|r| &mut r.fields))
            .for_each(|fields| fields.retain(|(n, _)| n != name));
    }
}

/// Says what differs. Where the general lane closes the client's connection and express keeps it, what follows is not
/// compared: [`Difference::ClosesHttp10`].
pub fn compare(express: &Seen, general: &Seen) -> Result<(), String> {
    let (mut express, mut general) = (Outcome::new(express)?, Outcome::new(general)?);
    let closes =
        |answer: &Answer| answer.fields.iter().any(|(name, value)| (&name[..], &value[..]) == ("connection", "close"));
    let mut both = express.answers.iter().zip(&general.answers);
    if Difference::ClosesHttp10.is_in(Lane::General)
        && let Some(at) = both.position(|(ours, theirs)| closes(theirs) && !closes(ours))
    {
        let last = general.requests.len();
        general.answers[at].fields.retain(|(name, value)| (&name[..], &value[..]) != ("connection", "close"));
        general.answers[at].whole = express.answers[at].whole;
        general.answers.truncate(at + 1);
        express.answers.truncate(at + 1);
        express.requests.truncate(last);
    }
    let pairs = express.answers.iter().zip(&general.answers);
    if let Some((ours, theirs)) = pairs.into_iter().find(|(ours, theirs)| ours != theirs) {
        return Err(format!("the client gets {}, in general {}", short(ours), short(theirs)));
    }
    if express.answers.len() != general.answers.len() {
        let (ours, theirs) = (express.answers.len(), general.answers.len());
        return Err(format!("the client gets {ours} responses, in general {theirs}"));
    }
    let pairs = express.requests.iter().zip(&general.requests);
    if let Some((ours, theirs)) = pairs.into_iter().find(|(ours, theirs)| ours != theirs) {
        return Err(format!("the origin gets {ours:?}, in general {theirs:?}"));
    }
    if express.requests.len() != general.requests.len() {
        let (ours, theirs) = (express.requests.len(), general.requests.len());
        return Err(format!("the origin gets {ours} requests, in general {theirs}"));
    }
    Ok(())
}

fn short(answer: &Answer) -> String {
    let Answer { status, reason, fields, body, whole } = answer;
    let shown = body[..body.len().min(80)].escape_ascii();
    format!("{status} {reason:?} {fields:?}, {} bytes {shown}, whole: {whole}", body.len())
}

/// The responses that a client has got. No body of these tests contains a status line, so that it shows where the next one
/// begins, whatever the request was.
pub fn answers(seen: &Seen) -> Result<Vec<Answer>, String> {
    let starts: Vec<usize> = (0..seen.client.len()).filter(|at| is_status_line(&seen.client[*at..])).collect();
    if !seen.client.is_empty() && starts.first() != Some(&0) {
        return Err(format!("bytes before the first response: {}", seen.client.escape_ascii()));
    }
    let ends = starts.iter().copied().skip(1).chain([seen.client.len()]);
    let pieces: Vec<&[u8]> = starts.iter().zip(ends).map(|(start, end)| &seen.client[*start..end]).collect();
    let last = pieces.len().saturating_sub(1);
    pieces.iter().enumerate().map(|(number, piece)| answer(piece, number == last, seen.reset)).collect()
}

fn is_status_line(bytes: &[u8]) -> bool {
    bytes.starts_with(b"HTTP/1.1 ") && bytes.get(9..12).is_some_and(|status| status.iter().all(u8::is_ascii_digit))
}

fn answer(bytes: &[u8], last: bool, reset: bool) -> Result<Answer, String> {
    let malformed = |why: &str| format!("the client got {why}: {}", bytes[..bytes.len().min(600)].escape_ascii());
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Err(malformed("half a head"));
    };
    let (head, body) = (&bytes[..end], &bytes[end + 4..]);
    let head: String = head.iter().map(|b| char::from(*b)).collect();
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let status = line.get(9..12).and_then(|digits| digits.parse().ok()).ok_or(malformed("no status"))?;
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or(malformed("a field that is not canonical"))?;
        if line.contains(['\r', '\n', '\0']) || name.is_empty() || name.contains([' ', '\t']) {
            return Err(malformed("a field that is not canonical"));
        }
        fields.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    let all = |name: &str| fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect::<Vec<_>>();
    let reason = line.get(13..).unwrap_or_default().to_owned();
    let (body, whole) = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        // Without a body: to HEAD, or by its status.
        (_, _) if body.is_empty() && (!last || status < 200 || matches!(status, 204 | 304)) => (Vec::new(), true),
        ([length], []) => {
            let length: usize = length.parse().map_err(|_| malformed("a length"))?;
            match body.len() {
                have if have > length => return Err(malformed("more than its length")),
                have => (body.to_vec(), have == length),
            }
        }
        ([], [coding]) if coding == "chunked" => unchunk(body).map_err(|why| malformed(&why))?,
        ([], []) if last => (body.to_vec(), !reset),
        _ => return Err(malformed("a response whose end is not clear")),
    };
    Ok(Answer { status, reason, fields, body, whole })
}

/// The data of chunks, and whether they have ended. Trailers are left out: only one lane may pass them on.
fn unchunk(mut rest: &[u8]) -> Result<(Vec<u8>, bool), String> {
    let mut data = Vec::new();
    loop {
        let Some(at) = rest.windows(2).position(|window| window == b"\r\n") else { return Ok((data, false)) };
        let digits = std::str::from_utf8(&rest[..at]).map_err(|_| "a chunk's size".to_owned())?;
        let size = usize::from_str_radix(digits, 16).map_err(|_| format!("a chunk of size {digits:?}"))?;
        rest = &rest[at + 2..];
        if size == 0 {
            loop {
                let Some(at) = rest.windows(2).position(|window| window == b"\r\n") else { return Ok((data, false)) };
                rest = &rest[at + 2..];
                match at {
                    0 if rest.is_empty() => return Ok((data, true)),
                    0 => return Err("bytes after the last chunk".to_owned()),
                    _ => {}
                }
            }
        }
        if rest.len() < size + 2 {
            data.extend_from_slice(&rest[..rest.len().min(size)]);
            return Ok((data, false));
        }
        data.extend_from_slice(&rest[..size]);
        if &rest[size..size + 2] != b"\r\n" {
            return Err("a chunk that is longer than its size".to_owned());
        }
        rest = &rest[size + 2..];
    }
}
