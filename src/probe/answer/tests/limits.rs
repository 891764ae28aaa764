//! Negated rules, and rules over numbers, types and texts of JSON, on complete answers.

use super::rules::{answer, expecting, expecting_json, header, json};
use super::*;
use crate::model::policy::{HeaderMatch, JsonMatch, JsonType, NumberRange, Pattern};

fn pattern(text: &str) -> Pattern {
    Pattern::try_new(text).unwrap()
}

fn within(min: Option<i64>, max: Option<i64>) -> JsonMatch {
    JsonMatch::Within(NumberRange::try_new(min.map(Into::into), max.map(Into::into)).unwrap())
}

#[test]
fn a_field_may_be_unwanted_or_unequal() {
    let http = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n");
    let with = |value| expecting(Expect { headers: vec![header("X-Role", value)], ..Expect::default() });
    for (value, fields, code, sentence) in [
        (HeaderMatch::Absent, "", Code::L7Ok, OK),
        (HeaderMatch::Absent, "X-Role: a\r\n", Code::L7Rsp, r#"header X-Role is "a", expected none"#),
        (HeaderMatch::Absent, "x-role:\r\n", Code::L7Rsp, r#"header X-Role is "", expected none"#),
        (HeaderMatch::NotEquals("replica".into()), "X-Role: primary\r\n", Code::L7Ok, OK),
        (
            HeaderMatch::NotEquals("replica".into()),
            "X-Role: primary\r\nX-Role: replica\r\n",
            Code::L7Rsp,
            r#"header X-Role is "primary", "replica", expected another value than "replica""#,
        ),
        (
            HeaderMatch::NotEquals("replica".into()),
            "",
            Code::L7Rsp,
            r#"header X-Role is absent, expected another value than "replica""#,
        ),
    ] {
        check(&with(value), http(fields), Stop::Closed, code, sentence);
    }
}

#[test]
fn a_body_may_have_several_rules_and_some_that_must_not_hold() {
    let probe = expecting(Expect {
        body: vec![
            BodyRule::Contains("up".into()),
            BodyRule::NotContains("degraded".into()),
            BodyRule::NotMatches(pattern("(?i)error: [1-9]")),
        ],
        ..Expect::default()
    });
    for (body, code, sentence) in [
        ("up; error: 0", Code::L7Ok, OK),
        ("starting", Code::L7Rsp, r#"body does not contain "up"; body: "starting""#),
        ("up, degraded", Code::L7Rsp, r#"body contains "degraded", which it must not; body: "up, degraded""#),
        ("up; Error: 3", Code::L7Rsp, r#"body matches "(?i)error: [1-9]", which it must not; body: "up; Error: 3""#),
        // The first byte that breaks a rule decides, whatever the order of the rules.
        ("degraded", Code::L7Rsp, r#"body contains "degraded", which it must not; body: "degraded""#),
        ("", Code::L7Rsp, r#"body does not contain "up"; it is empty"#),
    ] {
        check(&probe, answer(200, body), Stop::Closed, code, sentence);
    }
}

#[test]
fn negated_rules_fail_over_the_cap() {
    let excluded = get(Some(BodyRule::NotContains("down".into())));
    let filler = |bytes: usize| ".".repeat(bytes);
    check(&excluded, answer(200, &filler(BODY_BYTES_MAX)), Stop::Closed, Code::L7Ok, OK);
    let long = report(&excluded, [answer(200, &filler(BODY_BYTES_MAX + 1)).as_bytes()], Stop::Closed);
    let said = r#"body may contain "down": only its first 64 KiB are read"#;
    assert!(long.code == Code::L7Rsp && long.reason.starts_with(said), "{}", long.sentence());
    let found = answer(200, &format!("down{}", filler(BODY_BYTES_MAX)));
    let found = report(&excluded, [found.as_bytes()], Stop::Closed);
    assert!(found.reason.starts_with(r#"body contains "down", which it must not"#), "{}", found.sentence());
    let unmatched = get(Some(BodyRule::NotMatches(pattern("^down"))));
    let long = report(&unmatched, [answer(200, &filler(BODY_BYTES_MAX + 1)).as_bytes()], Stop::Closed);
    let said = r#"body may match "^down": only its first 64 KiB are read"#;
    assert!(long.reason.starts_with(said), "{}", long.sentence());
    // Neither does an incomplete body pass.
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nup";
    let said = "body was cut short: connection closed, 2 of 9 bytes received; body: \"up\"";
    check(&excluded, cut, Stop::Closed, Code::L7Rsp, said);
}

#[test]
fn numbers_types_and_texts_of_json_are_checked() {
    let matches = |text: &str| JsonMatch::Matches(pattern(text));
    for (path, value, body, code, sentence) in [
        ("$.n", within(Some(1), Some(5)), r#"{"n":5}"#, Code::L7Ok, OK),
        ("$.n", within(Some(1), Some(5)), r#"{"n":5.0}"#, Code::L7Ok, OK),
        ("$.n", within(Some(1), Some(5)), r#"{"n":5.5}"#, Code::L7Rsp, "$.n is 5.5, expected a number: 1 to 5"),
        ("$.n", within(Some(1), None), r#"{"n":0}"#, Code::L7Rsp, "$.n is 0, expected a number: at least 1"),
        ("$.n", within(None, Some(5)), r#"{"n":6}"#, Code::L7Rsp, "$.n is 6, expected a number: at most 5"),
        (
            "$.n",
            within(Some(1), None),
            r#"{"n":"3"}"#,
            Code::L7Rsp,
            r#"$.n is "3", expected a number: at least 1 (port and path answer, but the value is a string and the rule expects a number)"#,
        ),
        (
            "$.n",
            within(Some(1), None),
            "{}",
            Code::L7Rsp,
            "$.n is missing, expected a number: at least 1; body: \"{}\"",
        ),
        (
            "$.lag[*]",
            within(None, Some(10)),
            r#"{"lag":[1,20,30]}"#,
            Code::L7Rsp,
            "$.lag[1] is 20, expected a number: at most 10; 1 more node fails",
        ),
        ("$.role", matches("^prim"), r#"{"role":"primary"}"#, Code::L7Ok, OK),
        (
            "$.role",
            matches("^prim"),
            r#"{"role":"replica"}"#,
            Code::L7Rsp,
            r#"$.role is "replica", expected a string that matches "^prim""#,
        ),
        (
            "$.role",
            matches("1"),
            r#"{"role":1}"#,
            Code::L7Rsp,
            r#"$.role is 1, expected a string that matches "1" (port and path answer, but the value is a number and the rule expects a string)"#,
        ),
        ("$.e", JsonMatch::Is(JsonType::Null), r#"{"e":null}"#, Code::L7Ok, OK),
        ("$.e", JsonMatch::Is(JsonType::Null), r#"{"e":"null"}"#, Code::L7Rsp, r#"$.e is "null", expected null"#),
        ("$.e", JsonMatch::Is(JsonType::Object), r#"{"e":[1]}"#, Code::L7Rsp, "$.e is [1], expected an object"),
        ("$.e", JsonMatch::Is(JsonType::Array), r#"{"e":[1]}"#, Code::L7Ok, OK),
        ("$.e", JsonMatch::Is(JsonType::Boolean), r#"{"e":false}"#, Code::L7Ok, OK),
        ("$.e", JsonMatch::Is(JsonType::String), r#"{"e":""}"#, Code::L7Ok, OK),
        ("$.e", JsonMatch::Is(JsonType::Number), r#"{"e":0}"#, Code::L7Ok, OK),
    ] {
        check(&expecting_json([json(path, value)]), answer(200, body), Stop::Closed, code, sentence);
    }
}
