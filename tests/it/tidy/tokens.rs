//! Reads a Rust file as tokens and lists the paths, methods and attributes in it, each with its line and whether only
//! tests compile it. Decides nothing; comments and string literals are not searched for names.

use std::iter::Peekable;
use std::vec::IntoIter;

use proc_macro2::{Delimiter, LexError, TokenStream, TokenTree};

/// One name as the code uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `std::time::Instant`; groups of imports are written out, and `self` and `super` resolved to `crate::…`.
    pub path: Vec<String>,
    pub kind: Kind,
    pub line: usize,
    /// Under `#[cfg(test)]` or in a file that is.
    pub test: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Path,
    /// `path!`
    Macro,
    /// `.name`
    Method,
    /// The name of an attribute.
    Attribute,
    /// `mod tests;`
    TestModule,
}

/// Everything seen in `text`, a file whose module is `module` (empty for the root of the crate).
pub fn read(text: &str, module: &[String], test: bool) -> Result<Vec<Seen>, LexError> {
    let stream: TokenStream = text.parse()?;
    let mut reader = Reader { module: module.to_vec(), test, seen: Vec::new() };
    reader.stream(stream);
    Ok(reader.seen)
}

struct Reader {
    module: Vec<String>,
    test: bool,
    seen: Vec<Seen>,
}

type Tokens = Peekable<IntoIter<TokenTree>>;

impl Reader {
    fn stream(&mut self, stream: TokenStream) {
        let mut tokens = stream.into_iter().collect::<Vec<_>>().into_iter().peekable();
        let mut dots = 0;
        while let Some(token) = tokens.next() {
            let dots_before = std::mem::take(&mut dots);
            match token {
                TokenTree::Punct(p) if p.as_char() == '.' => dots = dots_before + 1,
                TokenTree::Punct(p) if p.as_char() == '#' => self.attribute(&mut tokens),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                TokenTree::Group(group) => self.stream(group.stream()),
                // `a.b` is a method or field; `..b` is a range.
                TokenTree::Ident(name) if dots_before == 1 => {
                    self.push(vec![name.to_string()], Kind::Method, name.span().start().line);
                }
                TokenTree::Ident(name) if name == "mod" => self.inline_module(&mut tokens),
                TokenTree::Ident(name) => self.path(vec![], name, &mut tokens),
            }
        }
    }

    /// After a `#`: records the attribute; if only tests compile what follows, reads that as test code.
    fn attribute(&mut self, tokens: &mut Tokens) {
        let Some(group) = take_group(tokens, Delimiter::Bracket) else { return };
        let (text, line) = (group.to_string().replace(' ', ""), group_line(&group));
        for name in ["ignore"] {
            if text == name || text.starts_with(&format!("{name}=")) || text.contains(&format!(",{name}")) {
                self.push(vec![name.to_owned()], Kind::Attribute, line);
            }
        }
        self.stream(group);
        if text == "cfg(test)" || text.starts_with("cfg(all(test,") {
            let item = take_item(tokens);
            let outer = std::mem::replace(&mut self.test, true);
            self.stream(item);
            self.test = outer;
        }
    }

    fn inline_module(&mut self, tokens: &mut Tokens) {
        let Some(TokenTree::Ident(name)) = tokens.next() else { return };
        if let Some(body) = take_group(tokens, Delimiter::Brace) {
            self.module.push(name.to_string());
            self.stream(body);
            self.module.pop();
        } else if name == "tests" {
            self.push(vec![name.to_string()], Kind::TestModule, name.span().start().line);
        }
    }

    /// Reads a path from its first name, or from the first name of a branch in a group of imports.
    fn path(&mut self, prefix: Vec<String>, first: proc_macro2::Ident, tokens: &mut Tokens) {
        let line = first.span().start().line;
        let mut path = prefix;
        path.push(first.to_string());
        while take_colons(tokens) {
            match tokens.peek() {
                Some(TokenTree::Ident(name)) => {
                    path.push(name.to_string());
                    tokens.next();
                }
                Some(TokenTree::Punct(p)) if p.as_char() == '*' => {
                    path.push("*".to_owned());
                    tokens.next();
                }
                _ => match take_group(tokens, Delimiter::Brace) {
                    Some(branches) => return self.branches(&path, branches),
                    None => break,
                },
            }
        }
        let is_macro = matches!(tokens.peek(), Some(TokenTree::Punct(p)) if p.as_char() == '!')
            && tokens.clone().nth(1).is_some_and(|next| matches!(next, TokenTree::Group(_)));
        self.push(path, if is_macro { Kind::Macro } else { Kind::Path }, line);
    }

    fn branches(&mut self, prefix: &[String], branches: TokenStream) {
        let mut tokens = branches.into_iter().collect::<Vec<_>>().into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(name) if name == "as" => drop(tokens.next()),
                TokenTree::Ident(name) => self.path(prefix.to_vec(), name, &mut tokens),
                TokenTree::Punct(p) if p.as_char() == '*' => {
                    let path = [prefix, &["*".to_owned()]].concat();
                    self.push(path, Kind::Path, p.span().start().line);
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) | TokenTree::Group(_) => {}
            }
        }
    }

    fn push(&mut self, path: Vec<String>, kind: Kind, line: usize) {
        let path = if kind == Kind::Path || kind == Kind::Macro { self.resolve(path) } else { path };
        self.seen.push(Seen { path, kind, line, test: self.test });
    }

    /// Resolves `self::…`, `super::…` and `self::super::…` to paths from the root of the crate.
    fn resolve(&self, mut path: Vec<String>) -> Vec<String> {
        let own = path.len() > 1 && path[0] == "self";
        let relative = path.split_off(usize::from(own));
        let ups = relative.iter().take_while(|part| *part == "super").count();
        if ups == 0 && !own {
            return relative;
        }
        let base = &self.module[..self.module.len().saturating_sub(ups)];
        [&["crate".to_owned()], base, &relative[ups..]].concat()
    }
}

fn group_line(stream: &TokenStream) -> usize {
    stream.clone().into_iter().next().map_or(0, |token| token.span().start().line)
}

fn take_group(tokens: &mut Tokens, delimiter: Delimiter) -> Option<TokenStream> {
    // An inner attribute has a `!` between the `#` and its brackets.
    if delimiter == Delimiter::Bracket && matches!(tokens.peek(), Some(TokenTree::Punct(p)) if p.as_char() == '!') {
        tokens.next();
    }
    match tokens.peek() {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => {
            let stream = group.stream();
            tokens.next();
            Some(stream)
        }
        _ => None,
    }
}

fn take_colons(tokens: &mut Tokens) -> bool {
    let mut ahead = tokens.clone();
    let two = (0..2).all(|_| matches!(ahead.next(), Some(TokenTree::Punct(p)) if p.as_char() == ':'));
    if two {
        tokens.nth(1);
    }
    two
}

/// What an attribute applies to: up to a `;` or a comma outside `<…>`, or a block in braces.
fn take_item(tokens: &mut Tokens) -> TokenStream {
    let mut item = Vec::new();
    let (mut angles, mut minus) = (0i32, false);
    for token in tokens {
        let ends = match &token {
            TokenTree::Punct(p) => {
                match p.as_char() {
                    '<' => angles += 1,
                    '>' if !minus => angles -= 1,
                    _ => {}
                }
                minus = p.as_char() == '-';
                p.as_char() == ';' || (p.as_char() == ',' && angles <= 0)
            }
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            TokenTree::Ident(_) | TokenTree::Literal(_) => false,
        };
        item.push(token);
        if ends {
            break;
        }
    }
    item.into_iter().collect()
}
