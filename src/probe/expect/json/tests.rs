//! Every kind of JSON rule against documents of every kind.

use super::*;
use crate::model::policy::{JsonPath, NumberRange, Pattern};
use serde_json::json;

fn rule(path: &str, value: JsonMatch) -> JsonRule {
    JsonRule { path: JsonPath::try_new(path).unwrap(), value, missing_passes: false }
}

fn passes(rule: JsonRule, document: &Value) -> bool {
    json_miss(&[rule], document).is_none()
}

#[test]
fn equality_counts_types_and_values() {
    for (seen, wanted, equal) in [
        (json!("healthy"), json!("healthy"), true),
        (json!("unhealthy"), json!("healthy"), false),
        (json!("Healthy"), json!("healthy"), false),
        (json!("healthy "), json!("healthy"), false),
        (json!(true), json!(true), true),
        (json!("true"), json!(true), false),
        (json!(true), json!("true"), false),
        (json!(1), json!(true), false),
        (json!(1), json!("1"), false),
        (json!(1), json!(1.0), true),
        (json!(1.5), json!(1.5), true),
        (json!(1.5), json!(1), false),
        (json!(-0.0), json!(0), true),
        (json!(1e3), json!(1000), true),
        (json!(u64::MAX), json!(-1), false),
        (json!(u64::MAX), json!(u64::MAX), true),
        (json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992.0), false),
        (json!(1e300), json!(1e300), true),
        (json!(1e300), json!(1), false),
        (json!(null), json!(null), true),
        (json!(null), json!(false), false),
        (json!([1, 2]), json!([1.0, 2]), true),
        (json!([1, 2]), json!([2, 1]), false),
        (json!({"a": 1, "b": 2}), json!({"b": 2.0, "a": 1}), true),
        (json!({"a": 1}), json!({"a": 1, "b": null}), false),
        (json!({}), json!([]), false),
    ] {
        let document = json!({ "at": seen });
        assert_eq!(passes(rule("$.at", JsonMatch::Equals(wanted.clone())), &document), equal, "{seen} = {wanted}");
        assert_eq!(passes(rule("$.at", JsonMatch::NotEquals(wanted.clone())), &document), !equal, "{seen} != {wanted}");
        let one_of = JsonMatch::In(vec![json!("other"), wanted.clone()]);
        assert_eq!(passes(rule("$.at", one_of), &document), equal, "{seen} in {wanted}");
    }
}

#[test]
fn unhealthy_never_equals_healthy() {
    for status in ["unhealthy", "Unhealthy", "healthy\u{0}", "healthy\n", " healthy", "un healthy", "UNHEALTHY"] {
        let document = json!({ "status": status });
        for value in [JsonMatch::Equals(json!("healthy")), JsonMatch::In(vec![json!("healthy"), json!("ready")])] {
            assert!(!passes(rule("$.status", value), &document), "{status:?}");
        }
    }
}

#[test]
fn a_missing_node_passes_only_where_the_rule_allows_it() {
    let document = json!({ "status": "ok", "empty": {}, "null": null });
    let healthy = || JsonMatch::Equals(json!("healthy"));
    for path in ["$.clair.success", "$.empty.*", "$.status.deeper", "$[0]", "$..nothing"] {
        let pattern = Pattern::try_new("^up").unwrap();
        let range = NumberRange::try_new(Some(1.into()), None).unwrap();
        let values = [JsonMatch::Matches(pattern), JsonMatch::Within(range), JsonMatch::Is(JsonType::Null)];
        let others = [healthy(), JsonMatch::NotEquals(json!("down")), JsonMatch::In(vec![json!("up")])];
        for value in values.into_iter().chain(others) {
            let strict = rule(path, value);
            assert!(!passes(strict.clone(), &document), "{path}");
            assert!(passes(JsonRule { missing_passes: true, ..strict }, &document), "{path}");
        }
        assert!(!passes(rule(path, JsonMatch::Exists(true)), &document), "{path}");
        assert!(passes(rule(path, JsonMatch::Exists(false)), &document), "{path}");
        let soft = JsonRule { missing_passes: true, ..rule(path, JsonMatch::Exists(true)) };
        assert!(!passes(soft, &document), "`missing` does not soften `exists`: {path}");
    }
    assert!(passes(rule("$.null", JsonMatch::Exists(true)), &document), "null is there");
    assert!(!passes(rule("$.null", JsonMatch::Exists(false)), &document));
}

#[test]
fn every_node_must_hold_and_the_first_at_fault_is_named() {
    let document = json!({
        "components": { "api": "healthy", "redis": "unhealthy", "asr": "healthy", "license server": "down" },
        "Faulty CAPPs": ["a", "b"],
        "list": [{ "up": true }, { "up": false }],
    });
    let healthy = || JsonMatch::Equals(json!("healthy"));
    for (path, value, at, more) in [
        ("$.components.*", healthy(), "$.components.redis", 1),
        ("$.components['license server']", healthy(), "$.components['license server']", 0),
        ("$['Faulty CAPPs']", JsonMatch::Exists(false), "$['Faulty CAPPs']", 0),
        ("$['Faulty CAPPs'][*]", JsonMatch::Exists(false), "$['Faulty CAPPs'][0]", 1),
        ("$.list[*].up", JsonMatch::Equals(json!(true)), "$.list[1].up", 0),
        ("$..up", JsonMatch::Equals(json!(true)), "$.list[1].up", 0),
        ("$", JsonMatch::Equals(json!(1)), "$", 0),
    ] {
        let rules = [rule(path, value)];
        let miss = json_miss(&rules, &document).unwrap();
        assert_eq!((path_to(&document, miss.node.unwrap()).as_str(), miss.more), (at, more), "{path}");
    }
    assert!(passes(rule("$.components['api','asr']", healthy()), &document));
}

#[test]
fn all_rules_must_hold() {
    let document = json!({ "a": 1, "b": 2 });
    let one = |path| rule(path, JsonMatch::Equals(json!(1)));
    let rules = [one("$.a"), one("$.b"), one("$.c")];
    assert_eq!(json_miss(&rules, &document).unwrap().rule, &rules[1]);
    assert_eq!(json_miss(&rules[..1], &document), None);
    assert_eq!(json_miss(&[], &document), None);
}

#[test]
fn names_that_are_not_words_are_in_brackets() {
    let document = json!({ "it's": { "a\\b": { "1st": { "_x1": { "": 0 } } } } });
    let node = &document["it's"]["a\\b"]["1st"]["_x1"][""];
    assert_eq!(path_to(&document, node), r"$['it\'s']['a\\b']['1st']._x1['']");
}

#[test]
fn the_object_around_a_node_is_found() {
    let document = json!({ "database": { "success": false, "parts": [1, [2]] }, "ok": true });
    let database = &document["database"];
    for node in [&database["success"], &database["parts"], &database["parts"][0], &database["parts"][1][0]] {
        assert_eq!(enclosing(&document, node), Some(database));
    }
    assert_eq!(enclosing(&document, &document["ok"]), None, "the document itself is looked at first");
    assert_eq!(enclosing(&document, &document), None);
}

#[test]
fn no_answer_holds_more_nodes_than_are_read() {
    const BODY_BYTES: usize = 64 << 10;
    let chain = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let list = |item: &str| format!("[{}]", vec![item; (BODY_BYTES - 2) / (item.len() + 1)].join(","));
    for (body, read) in [
        (list(&chain(110)), Err(NotJson::TooDeep)),
        (list(&chain(64)), Err(NotJson::TooDeep)),
        (list(&chain(63)), Err(NotJson::TooMany)),
        (list("1"), Err(NotJson::TooMany)),
        (list("[]"), Err(NotJson::TooMany)),
        (list("{\"aaaa\":[]}"), Err(NotJson::TooMany)),
        (list("\"a string\""), Ok(1 + 5_957)),
        (list("{\"name\":\"a longer name\",\"status\":\"healthy\"}"), Ok(1 + 3 * 1_489)),
    ] {
        assert!(body.len() > BODY_BYTES - 256 && body.len() <= BODY_BYTES, "{body:.40}: {}", body.len());
        let every = JsonPath::try_new("$..*").unwrap();
        assert_eq!(parse(body.as_bytes()).map(|document| every.select(&document).len() + 1), read, "{body:.40}");
    }
}
