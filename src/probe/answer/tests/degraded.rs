//! Answers that pass and say that the upstream is worse than others.

use std::sync::Arc;

use super::*;
use crate::model::Ratio;
use crate::model::policy::{Degraded, HeaderMatch, HeaderRule, JsonMatch, JsonPath, JsonRule};

fn json(path: &str, value: &str) -> JsonRule {
    let path = JsonPath::try_new(path).expect("a path");
    JsonRule { path, value: JsonMatch::Equals(value.into()), missing_passes: false }
}

fn worse(expect: Expect, of: HttpProbe) -> HttpProbe {
    HttpProbe { degraded: Some(Arc::new(Degraded { expect, weight: Ratio::percent(25) })), ..of }
}

fn any() -> Expect {
    Expect { status: StatusRule::Any, ..Expect::default() }
}

/// Whether it passes, and says so.
#[track_caller]
fn is_degraded(probe: &HttpProbe, answer: &str, end: Stop) -> Option<bool> {
    let whole = report(probe, [answer.as_bytes()], end);
    let dripped = report(probe, answer.as_bytes().chunks(1), end);
    assert_alike(&whole, &dripped);
    assert_eq!(whole.sentence().contains(", degraded"), whole.degraded.is_some(), "{}", whole.sentence());
    (whole.code == Code::L7Ok).then(|| whole.degraded.is_some())
}

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nX-Load: high\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn an_answer_says_so_if_it_passes_and_meets_every_further_rule() {
    let by_json = || Expect { json: vec![json("$.status", "Degraded")], ..any() };
    let by_body = |text: &str| Expect { body: vec![BodyRule::Contains(text.into())], ..any() };
    let by_field = Expect {
        headers: vec![HeaderRule { name: "x-load".into(), value: HeaderMatch::Equals("high".into()) }],
        ..any()
    };
    let by_status = Expect { status: StatusRule::In(vec![(203, 203)]), ..any() };
    let both = Expect { headers: by_field.headers.clone(), ..by_json() };
    for (probe, text, want) in [
        (worse(by_json(), get(None)), answer("{\"status\": \"Degraded\"}"), Some(true)),
        (worse(by_json(), get(None)), answer("{\"status\": \"Healthy\"}"), Some(false)),
        (worse(by_json(), get(None)), answer("no JSON"), Some(false)),
        (worse(by_json(), get(None)), answer(""), Some(false)),
        (worse(by_json(), contains("status")), answer("{\"status\": \"Degraded\"}"), Some(true)),
        (worse(by_json(), contains("missing")), answer("{\"status\": \"Degraded\"}"), None),
        (worse(by_body("slow"), get(None)), answer("very slow"), Some(true)),
        (worse(by_body("slow"), get(None)), answer("fast"), Some(false)),
        (worse(by_body("slow"), equals("very slow")), answer("very slow"), Some(true)),
        (worse(by_field.clone(), get(None)), answer("x"), Some(true)),
        (worse(by_field, get(None)), "HTTP/1.1 200 OK\r\n\r\n".to_owned(), Some(false)),
        (worse(by_status.clone(), get(None)), "HTTP/1.1 203 So\r\n\r\n".to_owned(), Some(true)),
        (worse(by_status, get(None)), "HTTP/1.1 200 OK\r\n\r\n".to_owned(), Some(false)),
        (worse(both.clone(), get(None)), answer("{\"status\": \"Degraded\"}"), Some(true)),
        (worse(both, get(None)), answer("{\"status\": \"Degraded\"}").replace("high", "low"), Some(false)),
        (worse(by_json(), get(None)), "HTTP/1.1 503 No\r\n\r\n".to_owned(), None),
    ] {
        assert_eq!(is_degraded(&probe, &text, Stop::Closed), want, "{text:?}");
    }
}

#[test]
fn an_answer_that_passes_and_breaks_off_passes_and_says_nothing() {
    let probe = worse(Expect { json: vec![json("$.status", "Degraded")], ..any() }, get(None));
    let text = answer("{\"status\": \"Degraded\"}");
    for end in [Stop::Closed, Stop::Deadline, Stop::Broke(Fault::Theirs(Errno::ECONNRESET))] {
        for cut in [1, 5, 20] {
            assert_eq!(is_degraded(&probe, &text[..text.len() - cut], end), Some(false), "{end:?} {cut}");
        }
    }
    let broken = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense";
    assert_eq!(is_degraded(&probe, broken, Stop::Closed), Some(false));
}

#[test]
fn of_a_long_body_the_start_is_compared() {
    let slow = worse(Expect { body: vec![BodyRule::Contains("slow".into())], ..any() }, get(None));
    let long = format!("slow{}", "x".repeat(2 * BODY_BYTES_MAX));
    let late = format!("{}slow", "x".repeat(2 * BODY_BYTES_MAX));
    for (body, want) in [(long, true), (late, false)] {
        let whole = report(&slow, [answer(&body).as_bytes()], Stop::Closed);
        assert_eq!((whole.code, whole.degraded.is_some()), (Code::L7Ok, want));
    }
}
