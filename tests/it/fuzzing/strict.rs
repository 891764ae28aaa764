//! The strictest reader of HTTP/1.1 that we can write, apart from the product's: what we send must pass it, so that no other
//! parser can read it in another way. Shared with the fuzz targets and with the origin of `differential`.

/// A canonical head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The first line.
    pub line: String,
    /// Name and value of each field, in order. Each byte is the character of its value.
    pub fields: Vec<(String, String)>,
}

/// What ends a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// This many bytes; a request without any framing has 0.
    Length(u64),
    Chunked,
}

impl Head {
    /// The values of a name in lower case.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// What frames a body; `None`: nothing does.
    pub fn framing(&self) -> Result<Option<Framing>, String> {
        match (&self.all("content-length")[..], &self.all("transfer-encoding")[..]) {
            ([], []) => Ok(None),
            ([digits], []) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().map(|length| Some(Framing::Length(length))).map_err(|error| format!("{error}: {digits}"))
            }
            ([], ["chunked"]) => Ok(Some(Framing::Chunked)),
            (lengths, codings) => Err(format!("lengths {lengths:?}, codings {codings:?}")),
        }
    }
}

/// The head of a request: all of `bytes`.
pub fn request(bytes: &[u8]) -> Result<Head, String> {
    let head = head(bytes)?;
    let words: Vec<&str> = head.line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { return Err(format!("the line {:?}", head.line)) };
    let visible = target.chars().all(|c| ('!'..='~').contains(&c)) && (target.starts_with('/') || target == "*");
    if method.is_empty() || !method.chars().all(is_token) || !visible {
        return Err(format!("the line {:?}", head.line));
    }
    match head.all("host").len() {
        1 => Ok(head),
        hosts => Err(format!("{hosts} Hosts")),
    }
}

/// The head of a response: all of `bytes`.
pub fn response(bytes: &[u8]) -> Result<Head, String> {
    let head = head(bytes)?;
    let status = head.line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let is_status = status.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0'));
    if !is_status || head.line.as_bytes().get(12).is_some_and(|b| *b != b' ') || !is_value(&head.line) {
        return Err(format!("the line {:?}", head.line));
    }
    Ok(head)
}

fn head(bytes: &[u8]) -> Result<Head, String> {
    let text = bytes.strip_suffix(b"\r\n\r\n").ok_or("a head without an end")?;
    let text = latin(text);
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let fields = lines.map(field).collect::<Result<_, _>>()?;
    if line.contains(['\r', '\n']) { Err(format!("the line {line:?}")) } else { Ok(Head { line, fields }) }
}

/// A line `Name: value`.
pub fn field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(": ").ok_or_else(|| format!("the field {line:?}"))?;
    let clean = !value.starts_with([' ', '\t']) && !value.ends_with([' ', '\t']);
    if name.is_empty() || !name.chars().all(is_token) || !clean || !is_value(value) {
        return Err(format!("the field {line:?}"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// The size in the first line of a chunk, without its end.
pub fn chunk_size(line: &str) -> Result<u64, String> {
    let digits = line.split(';').next().unwrap_or_default();
    let hex = !digits.is_empty() && digits.len() <= 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let size = if hex && is_value(line) { u64::from_str_radix(digits, 16).ok() } else { None };
    size.ok_or_else(|| format!("a chunk of size {line:?}"))
}

/// Chunks at the front of `bytes`: their data, and how many bytes they take. `None`: they do not end.
pub fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut data, mut at) = (Vec::new(), 0);
    let line = |at: usize| -> Result<Option<(String, usize)>, String> {
        let Some(end) = bytes[at..].iter().position(|b| *b == b'\n') else { return Ok(None) };
        let line = &bytes[at..at + end];
        match line.strip_suffix(b"\r") {
            Some(line) if !line.contains(&b'\r') => Ok(Some((latin(line), at + end + 1))),
            Some(_) | None => Err(format!("the line {}", line.escape_ascii())),
        }
    };
    loop {
        let Some((size, after)) = line(at)? else { return Ok(None) };
        let size = chunk_size(&size)?;
        at = after;
        if size == 0 {
            break;
        }
        // The largest sizes reach beyond what can be counted.
        let Ok(size) = usize::try_from(size) else { return Ok(None) };
        let Some((chunk, rest)) = bytes[at..].split_at_checked(size) else { return Ok(None) };
        let Some((ending, _)) = rest.split_at_checked(2) else { return Ok(None) };
        if ending != b"\r\n" {
            return Err("a chunk that is longer than its size".to_owned());
        }
        data.extend_from_slice(chunk);
        at += size + 2;
    }
    loop {
        match line(at)? {
            None => return Ok(None),
            Some((trailer, after)) if trailer.is_empty() => return Ok(Some((data, after))),
            Some((_, after)) => at = after,
        }
    }
}

/// Each byte as the character of its value.
pub fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

fn is_value(text: &str) -> bool {
    text.chars().all(|c| c == '\t' || (c >= ' ' && c != '\x7f'))
}
