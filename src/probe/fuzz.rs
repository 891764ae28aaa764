//! The entry point for fuzzing: bytes in, findings out. Pure; opens no socket. Not part of the interface: it may change at
//! any time.

use std::sync::LazyLock;
use std::time::Duration;

use super::answer::{Answer, Progress, Stop};
use super::finding::Circumstances;
use crate::model::Code;
use crate::model::policy::{
    BodyRule, Expect, HeaderMatch, HeaderRule, HttpProbe, JsonMatch, JsonPath, JsonRule, Pattern, StatusRule,
};

/// The reports of one answer for every check of a fixed set and every way in which a connection can end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading(Vec<(Code, Option<u16>, String, Box<[u8]>)>);

/// `bytes` in pieces whose lengths are `cuts`, repeated (a zero counts as one; no cuts: in one piece).
pub(super) fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> impl Iterator<Item = &'a [u8]> {
    let (mut rest, mut lengths) = (bytes, cuts.iter().cycle());
    std::iter::from_fn(move || {
        let length = lengths.next().map_or(rest.len(), |cut| (*cut).max(1)).min(rest.len());
        let (piece, after) = rest.split_at(length);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Reads `bytes` as the answer to a probe, in these [`pieces`]. Never panics, and the reading does not depend on `cuts`: the fuzzer tries to disprove both.
pub fn read_response(bytes: &[u8], cuts: &[usize]) -> Reading {
    let ends = [Stop::Closed, Stop::Deadline];
    Reading(PROBES.iter().flat_map(|probe| ends.map(|end| read(probe, bytes, cuts, end))).collect())
}

fn read(probe: &HttpProbe, bytes: &[u8], cuts: &[usize], end: Stop) -> (Code, Option<u16>, String, Box<[u8]>) {
    let mut answer = Answer::new(probe);
    let done = pieces(bytes, cuts).any(|piece| answer.feed(piece) == Progress::Done);
    let report = answer.finish(if done { Stop::Enough } else { end }).report(&Circumstances {
        took: Duration::from_millis(2),
        connected_in: Some(Duration::from_millis(1)),
        handshake_in: None,
        timeout: Duration::from_secs(1),
        elsewhere: None,
    });
    (report.code, report.status, report.sentence(), report.trace.head)
}

static PROBES: LazyLock<Vec<HttpProbe>> = LazyLock::new(|| {
    let probe = |method: &str, expect| HttpProbe { method: method.into(), ..HttpProbe::get("/", expect) };
    let json = |path: &str, missing_passes| JsonRule {
        path: JsonPath::try_new(path).expect("a literal"),
        value: JsonMatch::Equals("ready".into()),
        missing_passes,
    };
    let body = |rule| Expect { body: vec![rule], ..Expect::default() };
    vec![
        probe("GET", Expect::default()),
        probe("HEAD", Expect::default()),
        probe("GET", body(BodyRule::Contains("ready".into()))),
        probe("GET", body(BodyRule::Equals("ready".into()))),
        probe("GET", body(BodyRule::Matches(Pattern::try_new("rea?dy$").expect("a literal")))),
        probe("GET", Expect { json: vec![json("$.status", false), json("$.components.*", true)], ..Expect::default() }),
        probe(
            "GET",
            Expect {
                status: StatusRule::Any,
                headers: vec![HeaderRule { name: "x-app".into(), value: HeaderMatch::Equals("ready".into()) }],
                body: vec![BodyRule::Contains("ready".into()), BodyRule::NotContains("error".into())],
                json: vec![json("$..status", true)],
            },
        ),
    ]
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_of_different_answers_differ_and_cuts_do_not_matter() {
        let up = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready";
        let down = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstart";
        assert_ne!(read_response(up, &[]), read_response(down, &[]));
        for cuts in [&[1][..], &[0, 7], &[100]] {
            assert_eq!(read_response(up, &[]), read_response(up, cuts), "{cuts:?}");
        }
    }
}
