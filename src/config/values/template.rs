//! Texts with parts of the request in them: paths, places to be sent to, bodies. Decides which of them could make a head
//! that two parsers read differently, whatever the request.

use super::Text;
use super::http::host_problem;
use crate::model::path::{PathError, normalise};
use crate::model::template::{Piece, Placeholder, Template};

/// The longest body of a fixed answer, in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;
/// The longest other template, in bytes.
const BYTES_MAX: usize = 8 << 10;

/// `rewrite`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate(pub Template);

impl Text for PathTemplate {
    fn what() -> String {
        format!("a path such as \"/v2{{path}}\"; {}", parts())
    }

    fn parse(text: &str) -> Result<PathTemplate, String> {
        let template = read(text)?;
        refuse_invisible(text)?;
        if !matches!(template.pieces().first(), Some(Piece::Part(Placeholder::Path)))
            && !template
                .pieces()
                .first()
                .is_some_and(|first| matches!(first, Piece::Text(text) if text.starts_with('/')))
        {
            return Err(" does not begin with / or {path}".to_owned());
        }
        if text.contains('#') {
            return Err(" has a fragment, which no request has".to_owned());
        }
        for sample in samples(&template) {
            path(sample.split_once('?').map_or(&*sample, |(path, _)| path))?;
        }
        // A query may hold what no path may.
        let before_query = text.split_once('?').map_or(text, |(path, _)| path);
        if before_query.contains("{query}") {
            return Err(" has the query in the path; write it after a ?".to_owned());
        }
        Ok(PathTemplate(template))
    }
}

/// `redirect.to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceTemplate(pub Template);

impl Text for PlaceTemplate {
    fn what() -> String {
        format!("a path or an http URI, such as \"https://{{host}}{{path}}\"; {}", parts())
    }

    fn parse(text: &str) -> Result<PlaceTemplate, String> {
        let template = read(text)?;
        refuse_invisible(text)?;
        let after_scheme = ["http://", "https://", "{scheme}://"].into_iter().find_map(|scheme| {
            let start = text.get(..scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then(|| &text[scheme.len()..])
        });
        match after_scheme {
            Some(rest) => {
                let ends = [rest.find(['/', '?', '#']), rest.find("{path}")];
                let end = ends.into_iter().flatten().min().unwrap_or(rest.len());
                authority(&rest[..end])?;
            }
            None if text.starts_with('/') || text.starts_with("{path}") => {}
            None => return Err(" is neither a path nor an http URI".to_owned()),
        }
        Ok(PlaceTemplate(template))
    }

    fn suggest(text: &str) -> Option<String> {
        // What nginx, HAProxy and Caddy write.
        let ours = text
            .replace("$scheme", "{scheme}")
            .replace("$host", "{host}")
            .replace("$request_uri", "{path}")
            .replace("$uri", "{path}")
            .replace("{uri}", "{path}");
        let ours = if ours.contains("://") || ours.starts_with(['/', '{']) { ours } else { format!("https://{ours}") };
        (ours != text && PlaceTemplate::parse(&ours).is_ok()).then(|| format!("{ours:?}"))
    }
}

/// `respond.body`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyTemplate(pub Template);

impl Text for BodyTemplate {
    fn what() -> String {
        format!("a text; {}", parts())
    }

    fn parse(text: &str) -> Result<BodyTemplate, String> {
        if text.len() > BODY_BYTES_MAX {
            return Err(" is longer than 64 KiB".to_owned());
        }
        Template::parse(text).map(BodyTemplate).map_err(|error| format!(": {error}"))
    }
}

/// The parts that a text may name.
pub(super) fn parts() -> String {
    let names: Vec<String> = Placeholder::ALL.iter().map(|part| format!("{{{}}}", part.as_str())).collect();
    format!("it may name {}", names.join(" "))
}

/// A template of usual length.
pub(super) fn read(text: &str) -> Result<Template, String> {
    if text.len() > BYTES_MAX {
        return Err(" is longer than 8 KiB".to_owned());
    }
    Template::parse(text).map_err(|error| format!(": {error}"))
}

/// What has no place in a target.
fn refuse_invisible(text: &str) -> Result<(), String> {
    match text.bytes().find(|b| !b.is_ascii_graphic() || *b == b'\\') {
        Some(b' ') => Err(" holds a space; write it as %20".to_owned()),
        Some(_) => Err(" holds a character that no URI has; write it as %XX".to_owned()),
        None => Ok(()),
    }
}

/// The texts that a template can become, as far as dot segments and slashes are concerned.
fn samples(template: &Template) -> impl Iterator<Item = String> {
    ["/", "/x", "/x/"]
        .into_iter()
        .flat_map(|path| ["", "x"].map(|other| (path, other)))
        .map(|(path, other)| template.fill(|part| if part == Placeholder::Path { path } else { other }))
}

fn path(path: &str) -> Result<(), String> {
    match normalise(path.as_bytes()) {
        Ok(_) => Ok(()),
        Err(PathError::DotSegment) => Err(" has a dot segment, or can have one".to_owned()),
        Err(other) => Err(format!(": {other}")),
    }
}

/// What stands between the scheme and the path of a URI.
fn authority(text: &str) -> Result<(), String> {
    let sample = text.replace("{host}", "x").replace("{client_ip}", "x");
    let (host, port) = match sample.rsplit_once(':') {
        Some((host, port)) if !sample.ends_with(']') => (host, Some(port)),
        _ => (sample.as_str(), None),
    };
    if sample.contains(['{', '}']) {
        return Err(" has something else than {host} as its host".to_owned());
    }
    if host_problem(host).is_some() || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(" has no host that can be".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_no_dot_segment_and_no_query_in_it_whatever_the_request() {
        for good in [
            "/",
            "/v2{path}",
            "{path}",
            "{path}?a=1&{query}",
            "/{host}{path}",
            "/x?from={client_ip}",
            "/%2F",
            "/a.{path}",
        ] {
            assert_eq!(PathTemplate::parse(good).map(|path| path.0.to_string()), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("", "begin"),
            ("v2{path}", "begin"),
            ("{host}/x", "begin"),
            ("/{uri}", "no part"),
            ("/.{path}", "dot"),
            ("/..", "dot"),
            ("{path}.", "dot"),
            ("{path}..{host}", "dot"),
            ("/%2e%2E{path}", "dot"),
            ("/x{query}", "after a ?"),
            ("/a b", "%20"),
            ("/ä", "%XX"),
            ("/a\\b", "%XX"),
            ("/a\r\nX: y", "%XX"),
            ("/a#b", "fragment"),
            ("/%zz", "hex"),
        ] {
            let problem = PathTemplate::parse(bad).unwrap_err();
            assert!(problem.contains(why), "{bad:?}: {problem}");
        }
    }

    #[test]
    fn a_client_is_sent_to_a_path_or_to_an_http_uri() {
        for good in [
            "/new",
            "/new{path}",
            "{path}",
            "https://{host}{path}",
            "HTTPS://{host}",
            "{scheme}://www.{host}:8443/x?q#f",
            "https://a.example{path}?{query}",
            "http://[::1]:80/",
            "//cdn.example{path}",
        ] {
            assert_eq!(PlaceTemplate::parse(good).map(|place| place.0.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "new",
            "ftp://a/",
            "javascript:alert(1)",
            "https://",
            "https://{path}",
            "https://{query}/",
            "https://a b/",
            "https://a:99999/",
            "{host}/x",
            "/a\r\nb",
            "https://{uri}/",
            "https://a@b/",
        ] {
            assert!(PlaceTemplate::parse(bad).is_err(), "{bad:?}");
        }
        for (text, want) in [
            ("https://$host$request_uri", "\"https://{host}{path}\""),
            ("https://{host}{uri}", "\"https://{host}{path}\""),
            ("www.example.com/x", "\"https://www.example.com/x\""),
        ] {
            assert_eq!(PlaceTemplate::suggest(text).as_deref(), Some(want));
        }
    }
}
