//! Texts of a route with parts of the request in them: `https://{host}{path}`.

use std::fmt;
use std::sync::Arc;

/// A part of a request that a text may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder {
    /// The client's address; empty on a unix socket.
    ClientIp,
    /// The host, without its port; empty where the request has none.
    Host,
    /// The path as it came, without the query.
    Path,
    /// The query, without the `?`; empty where there is none.
    Query,
    /// `http` or `https`.
    Scheme,
    /// The number of the request.
    RequestId,
}

impl Placeholder {
    /// Every one.
    pub const ALL: [Placeholder; 6] = [
        Placeholder::ClientIp,
        Placeholder::Host,
        Placeholder::Path,
        Placeholder::Query,
        Placeholder::Scheme,
        Placeholder::RequestId,
    ];

    /// Its name between the braces.
    pub fn as_str(self) -> &'static str {
        match self {
            Placeholder::ClientIp => "client_ip",
            Placeholder::Host => "host",
            Placeholder::Path => "path",
            Placeholder::Query => "query",
            Placeholder::Scheme => "scheme",
            Placeholder::RequestId => "request_id",
        }
    }
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// This text.
    Text(Arc<str>),
    /// A part of the request.
    Part(Placeholder),
}

/// A text with parts of the request in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Arc<[Piece]>);

/// There is no such part: the name between the braces.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{{{0}}} is no part of a request")]
pub struct UnknownPlaceholder(pub String);

impl Template {
    /// Reads `{name}` in a text. Braces with anything but a word between them are themselves, so that a text may be JSON.
    ///
    /// # Errors
    /// A word between braces that is no [`Placeholder`].
    pub fn parse(text: &str) -> Result<Template, UnknownPlaceholder> {
        let mut pieces = Vec::new();
        let (mut rest, mut literal) = (text, String::new());
        while let Some((before, after)) = rest.split_once('{') {
            literal.push_str(before);
            match word(after) {
                Some((name, after)) => {
                    let part = Placeholder::ALL.into_iter().find(|part| part.as_str() == name);
                    let part = part.ok_or_else(|| UnknownPlaceholder(name.to_owned()))?;
                    if !literal.is_empty() {
                        pieces.push(Piece::Text(Arc::from(std::mem::take(&mut literal))));
                    }
                    pieces.push(Piece::Part(part));
                    rest = after;
                }
                None => {
                    literal.push('{');
                    rest = after;
                }
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(Arc::from(literal)));
        }
        Ok(Template(pieces.into()))
    }

    /// Its pieces in order. No text is empty.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// Whether it names this part.
    pub fn names(&self, part: Placeholder) -> bool {
        self.0.contains(&Piece::Part(part))
    }

    /// The text, if it names no part.
    pub fn literal(&self) -> Option<&str> {
        match &*self.0 {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text for these parts.
    pub fn fill<'v>(&self, part: impl Fn(Placeholder) -> &'v str) -> String {
        self.0.iter().fold(String::new(), |mut text, piece| {
            text.push_str(match piece {
                Piece::Text(literal) => literal,
                Piece::Part(named) => part(*named),
            });
            text
        })
    }
}

/// The word before the closing brace, and what follows.
fn word(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.split_once('}')?;
    let is_word = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    is_word.then_some((name, after))
}

/// As it is written.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Part(part) => write!(f, "{{{}}}", part.as_str()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_the_parts_that_it_names() {
        let text = |text: &str| Piece::Text(text.into());
        let part = Piece::Part;
        for (template, want) in [
            ("", vec![]),
            ("/x", vec![text("/x")]),
            ("{path}", vec![part(Placeholder::Path)]),
            (
                "{scheme}://{host}{path}?a={query}",
                vec![
                    part(Placeholder::Scheme),
                    text("://"),
                    part(Placeholder::Host),
                    part(Placeholder::Path),
                    text("?a="),
                    part(Placeholder::Query),
                ],
            ),
            ("{client_ip}{request_id}", vec![part(Placeholder::ClientIp), part(Placeholder::RequestId)]),
            ("{\"a\": {\"b\": 1}}", vec![text("{\"a\": {\"b\": 1}}")]),
            ("{} { path} {Path} {", vec![text("{} { path} {Path} {")]),
            ("{{path}}", vec![text("{"), part(Placeholder::Path), text("}")]),
        ] {
            let parsed = Template::parse(template).unwrap();
            assert_eq!(parsed.pieces(), want, "{template}");
            assert_eq!(parsed.to_string(), template);
            assert_eq!(parsed.literal().is_some(), !want.iter().any(|piece| matches!(piece, Piece::Part(_))));
        }
        assert_eq!(Template::parse("/{uri}/{path}"), Err(UnknownPlaceholder("uri".to_owned())));
    }

    #[test]
    fn a_template_is_filled_with_the_parts_of_a_request() {
        let template = Template::parse("{scheme}://{host}{path}").unwrap();
        assert_eq!(template.fill(|part| part.as_str()), "scheme://hostpath");
        assert!(template.names(Placeholder::Host) && !template.names(Placeholder::Query));
    }
}
