//! The files that a check was made from: secrets that it sends, certificates and keys of its TLS. Each knows what its file
//! held when it was read, so that a change on disk can be found. Reading the files is left to `app`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::{CheckPolicy, HeaderText, ProbeSpec};
use crate::model::{Code, Secret};

/// A file that a check was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckFile {
    /// Its use, such as `Authorization` or `tls.ca_file`.
    pub what: String,
    /// What was read from it.
    pub read: ReadFile,
}

/// What was read from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFile {
    /// A secret; the line end after it does not matter.
    Secret(Secret),
    /// Anything else.
    Content(FileMark),
}

impl CheckFile {
    /// Its path as the configuration has it; `None` for a secret that is not from a file.
    pub fn path(&self) -> Option<&str> {
        match &self.read {
            ReadFile::Secret(secret) => secret.file(),
            ReadFile::Content(mark) => Some(&mark.path),
        }
    }

    /// Whether a file with this content would give the same check.
    pub fn is_held_by(&self, content: &[u8]) -> bool {
        match &self.read {
            ReadFile::Secret(secret) => std::str::from_utf8(content).is_ok_and(|text| secret.is_held_by(text)),
            ReadFile::Content(mark) => *mark == FileMark::new(&mark.path, content),
        }
    }
}

/// A file and a hash of its content, which is not kept: a bundle of CAs has 250 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMark {
    path: Arc<str>,
    bytes: usize,
    hash: u64,
}

impl FileMark {
    /// Marks a file that holds `content`.
    pub fn new(path: &str, content: &[u8]) -> FileMark {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        FileMark { path: path.into(), bytes: content.len(), hash: hasher.finish() }
    }
}

impl CheckPolicy {
    /// The files that may be why a probe ended with `code`: none if it did not come to use them.
    pub fn suspect_files(&self, code: Code) -> Vec<CheckFile> {
        suspect_files(&self.spec, &self.tls_files, code)
    }
}

/// [`CheckPolicy::suspect_files`] for a check of this definition.
pub fn suspect_files(spec: &ProbeSpec, tls_files: &[CheckFile], code: Code) -> Vec<CheckFile> {
    match code {
        Code::L4Con | Code::L4Tout | Code::L6Tout | Code::NoRes | Code::Panic => Vec::new(),
        Code::L4Ok | Code::L6Ok | Code::L7Ok => Vec::new(),
        Code::L6Rsp => tls_files.to_vec(),
        Code::L7Tout | Code::L7Rsp | Code::L7Sts => spec.file_secrets().chain(tls_files.iter().cloned()).collect(),
    }
}

impl ProbeSpec {
    /// The secrets that a probe sends and that were read from files, each with its use.
    fn file_secrets(&self) -> impl Iterator<Item = CheckFile> {
        let headers = self.kind.headers().iter().filter_map(|(name, value)| match value {
            HeaderText::Secret(secret) => Some((&**name, secret)),
            HeaderText::Plain(_) => None,
        });
        let sent = self.kind.dialogue().map(|tcp| tcp.secrets().map(|secret| ("the text that is sent", secret)));
        let read = headers.chain(sent.into_iter().flatten()).filter(|(_, secret)| secret.file().is_some());
        read.map(|(what, secret)| CheckFile { what: what.to_owned(), read: ReadFile::Secret(secret.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::policy::{Expect, HttpProbe, PortRule, ProbeKind};

    #[test]
    fn a_file_is_compared_by_its_content() {
        let mark = |content: &[u8]| CheckFile {
            what: "tls.ca_file".to_owned(),
            read: ReadFile::Content(FileMark::new("ca.pem", content)),
        };
        let ca = mark(b"-----BEGIN\n");
        assert_eq!(ca.path(), Some("ca.pem"));
        assert!(ca.is_held_by(b"-----BEGIN\n"));
        for other in [&b""[..], b"-----BEGIN", b"-----BEGIN\r\n", b"-----BEGIX\n", b"\xff"] {
            assert!(!ca.is_held_by(other), "{other:?}");
        }
        let secret = Secret::new("hunter2").from_file("token", "hunter2\n");
        let secret = CheckFile { what: "Authorization".to_owned(), read: ReadFile::Secret(secret) };
        assert!(secret.is_held_by(b"hunter2\r\n") && !secret.is_held_by(b"hunter3") && !secret.is_held_by(b"\xff"));
    }

    #[test]
    fn only_files_that_a_failed_probe_came_to_use_are_suspect() {
        let secret = HeaderText::Secret(Secret::new("hunter2").from_file("token", "hunter2"));
        let http =
            HttpProbe { headers: vec![("Authorization".into(), secret)], ..HttpProbe::get("/", Expect::default()) };
        let spec = ProbeSpec { port: PortRule::Same, tls: None, kind: ProbeKind::Http(http), max_duration: None };
        let mark = ReadFile::Content(FileMark::new("ca.pem", b""));
        let ca = [CheckFile { what: "tls.ca_file".to_owned(), read: mark }];
        for code in Code::ALL {
            let uses: Vec<String> = suspect_files(&spec, &ca, code).into_iter().map(|file| file.what).collect();
            let want: &[&str] = match code.as_str() {
                "L6RSP" => &["tls.ca_file"],
                "L7TOUT" | "L7RSP" | "L7STS" => &["Authorization", "tls.ca_file"],
                _ => &[],
            };
            assert_eq!(uses, want, "{code}");
        }
    }
}
