//! What a JSONPath costs on the largest document that is read, and whether a check may take that long. A path that
//! walks the document within a walk of the document, or that selects every node again and again, would let one answer
//! of 64 KiB stop the checker for minutes. Takes the text of a path that the parser has accepted.

use super::Problem;
use crate::model::policy::JSON_VALUES_MAX;

/// Every value of the largest document.
const ALL: u64 = JSON_VALUES_MAX as u64;
/// How many steps a path may take: as many as 32 visits to every value.
const STEPS_MAX: u64 = 32 * ALL;
/// The extra cost of comparing two values that may both be large: they are compared in full, and nested values once for
/// each value around them.
const DEEP_COMPARISON: u64 = 7;

/// Refuses a path that costs too much.
pub(super) fn affordable(path: &str) -> Result<(), Problem> {
    let mut scan = Scan { text: path.as_bytes(), at: 1, descends: false, steps: 0 };
    scan.query(Reach { width: 1, copies: 1 })
}

/// The worst case of a list of nodes.
#[derive(Debug, Clone, Copy)]
struct Reach {
    /// How many nodes.
    width: u64,
    /// How often it may hold the same node.
    copies: u64,
}

impl Reach {
    /// Every value, as often as it may occur.
    fn all(self) -> u64 {
        self.copies.saturating_mul(ALL)
    }
}

/// The selectors between the brackets of a step.
#[derive(Debug, Default)]
struct Selectors<'t> {
    count: u64,
    /// Whether one of them takes more than one child.
    wide: bool,
    /// Whether two of them may take the same child.
    overlap: bool,
    seen: Vec<&'t [u8]>,
}

impl<'t> Selectors<'t> {
    fn one(wide: bool) -> Selectors<'t> {
        Selectors { count: 1, wide, ..Selectors::default() }
    }

    /// One that takes a single child. An index from the end may be any index, a name with an escape any name.
    fn single(&mut self, written: &'t [u8]) {
        self.overlap |= self.seen.contains(&written) || written.contains(&b'\\') || written.starts_with(b"-");
        self.seen.push(written);
    }

    fn reach(&self, from: Reach) -> Reach {
        let copies = if (self.overlap || self.wide) && self.count > 1 { self.count } else { 1 };
        let to = Reach { width: from.width.saturating_mul(self.count), copies: from.copies.saturating_mul(copies) };
        Reach { width: if self.wide { to.all() } else { to.width.min(to.all()) }, ..to }
    }
}

struct Scan<'t> {
    text: &'t [u8],
    at: usize,
    /// Whether there was a `..`.
    descends: bool,
    steps: u64,
}

impl<'t> Scan<'t> {
    /// The steps after `$` or `@`. Without a second `..`, a node is reached from one start only: all starts are on one
    /// level, or all ways from them have one length.
    fn query(&mut self, mut reach: Reach) -> Result<(), Problem> {
        loop {
            let end = self.at;
            self.space();
            let dots = self.text[self.at..].iter().take_while(|&&byte| byte == b'.').count();
            if dots == 0 && self.peek() != Some(b'[') {
                self.at = end;
                return Ok(());
            }
            if dots > 1 {
                if std::mem::replace(&mut self.descends, true) {
                    return Err(Problem::inside(
                        "a path may hold one `..`: a second would walk a document once for each of its nodes",
                        self.at..self.at + 2,
                    ));
                }
                reach.width = reach.all();
                self.charge(reach.width.saturating_mul(2))?;
            }
            self.at += dots;
            reach = self.step(reach)?;
        }
    }

    fn step(&mut self, reach: Reach) -> Result<Reach, Problem> {
        let selectors = match self.peek() {
            Some(b'[') => self.selectors(reach)?,
            Some(b'*') => {
                self.at += 1;
                Selectors::one(true)
            }
            _ => {
                self.at += self.run(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii());
                Selectors::one(false)
            }
        };
        let each = if selectors.wide { reach.all() } else { reach.width };
        self.charge(each.saturating_mul(selectors.count))?;
        Ok(selectors.reach(reach))
    }

    /// `[…]`.
    fn selectors(&mut self, reach: Reach) -> Result<Selectors<'t>, Problem> {
        let mut selectors = Selectors::default();
        loop {
            self.at += 1;
            self.space();
            selectors.count += 1;
            match self.peek() {
                Some(b'\'' | b'"') => {
                    let name = self.string();
                    selectors.single(name);
                }
                Some(b'?') => {
                    selectors.wide = true;
                    self.filter(reach)?;
                }
                _ => {
                    let length = self.run(|byte| !matches!(byte, b',' | b']'));
                    let written = self.text[self.at..self.at + length].trim_ascii();
                    self.at += length;
                    if written.contains(&b':') || written == b"*" {
                        selectors.wide = true;
                    } else {
                        selectors.single(written);
                    }
                }
            }
            self.space();
            if self.peek() != Some(b',') {
                self.at = self.text.len().min(self.at + 1);
                return Ok(selectors);
            }
        }
    }

    /// `?…`, which is evaluated for every child.
    fn filter(&mut self, reach: Reach) -> Result<(), Problem> {
        let children = Reach { width: reach.all(), ..reach };
        self.charge(children.width)?;
        let mut open = 0_usize;
        let mut after_node = false;
        while let Some(byte) = self.peek() {
            match byte {
                b',' | b']' if open == 0 => break,
                b'@' => {
                    self.at += 1;
                    self.charge(children.width)?;
                    self.query(children)?;
                    after_node = true;
                    continue;
                }
                b'$' => {
                    return Err(Problem::inside(
                        "a filter may not hold `$`: the document would be searched again for each of its nodes",
                        self.at..self.at + 1,
                    ));
                }
                b'\'' | b'"' => {
                    let length = self.string().len() as u64;
                    self.charge(children.width.saturating_mul(1 + length / 256))?;
                    after_node = false;
                    continue;
                }
                b'(' => {
                    open += 1;
                    self.charge(children.width)?;
                }
                b')' => {
                    open = open.saturating_sub(1);
                    after_node = true;
                }
                b'=' | b'<' | b'>' => {
                    self.at += self.run(|byte| matches!(byte, b'=' | b'<' | b'>'));
                    self.space();
                    let deep = if after_node && self.is_node() { DEEP_COMPARISON } else { 0 };
                    self.charge(children.width.saturating_mul(1 + deep))?;
                    after_node = false;
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Whether a path or the result of a function follows.
    fn is_node(&self) -> bool {
        let rest = &self.text[self.at..];
        let constant = [&b"true"[..], b"false", b"null"].iter().any(|word| rest.starts_with(word));
        rest.first().is_some_and(|byte| *byte == b'@' || byte.is_ascii_alphabetic()) && !constant
    }

    /// The text between quotes.
    fn string(&mut self) -> &'t [u8] {
        let quote = self.text[self.at];
        let begin = self.at + 1;
        let mut end = begin;
        while end < self.text.len() && self.text[end] != quote {
            end += if self.text[end] == b'\\' { 2 } else { 1 };
        }
        let end = end.min(self.text.len());
        self.at = self.text.len().min(end + 1);
        &self.text[begin..end]
    }

    fn charge(&mut self, steps: u64) -> Result<(), Problem> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps <= STEPS_MAX {
            return Ok(());
        }
        Err(Problem::whole("the path takes too many steps on a large document; several rules may take as many each"))
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        self.at += self.run(|byte| byte.is_ascii_whitespace());
    }

    fn run(&self, takes: impl Fn(u8) -> bool) -> usize {
        self.text[self.at..].iter().take_while(|&&byte| takes(byte)).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::model::policy::{JSON_DEPTH_MAX, JsonPath};

    fn cost_of(path: &str) -> Result<(), (String, Option<usize>)> {
        assert!(JsonPath::try_new(path).is_ok(), "{path}");
        affordable(path).map_err(|problem| (problem.message, problem.at.map(|at| at.start)))
    }

    #[test]
    fn paths_of_real_checks_are_affordable() {
        let names: Vec<String> = (0..200).map(|i| format!("'n{i}'")).collect();
        for path in [
            "$",
            "$.a.b.c.d.e.f.g[0][-1]['x y'].h",
            "$..status",
            "$.components.*.details[*].status",
            "$..x[?@.a == 1 && (@.b || @.c)]",
            "$[0,1:2]",
            "$.a['x','y','z'].status",
            "$.items[?@.status == 'x' || @.name == \"a..b\"].value",
            "$.items[?@..status]",
            "$.items[?count(@.parts[*]) > 2]",
            "$.items[?@.used == @.total]",
            "$['..']['$..']..['a..b']",
            &format!("$[{}]", names.join(",")),
        ] {
            assert_eq!(cost_of(path), Ok(()), "{path}");
        }
    }

    #[test]
    fn a_walk_within_a_walk_is_refused_at_its_place() {
        for (path, at) in [
            ("$..*..*..*", 4),
            ("$..a..b", 4),
            ("$.a..['b']..[0]", 10),
            ("$..[?@..a]", 6),
            ("$[?@..a || @..b]", 12),
            ("$[?@.a[?@..b]]..c", 14),
            ("$['a..b']..c..d", 12),
        ] {
            assert!(
                matches!(cost_of(path), Err((why, Some(place))) if why.contains("one `..`") && place == at),
                "{path}"
            );
        }
        for (path, at) in [("$.a[?@.b == $.c]", 12), ("$[?$.*]", 3), ("$..[?length($.a) > 1]", 12), ("$[?@[?$.a]]", 6)]
        {
            assert!(matches!(cost_of(path), Err((why, Some(place))) if why.contains("`$`") && place == at), "{path}");
        }
    }

    #[test]
    fn steps_that_multiply_are_refused() {
        for path in [
            format!("${}", "[*,*]".repeat(60)),
            format!("${}", "[0,0]".repeat(60)),
            format!("${}", "[0,-1]".repeat(60)),
            format!("${}", "['a','\\u0061']".repeat(60)),
            format!("${}", "[:,:]".repeat(60)),
            format!("${}", "[?@,?@]".repeat(20)),
            format!("$..[{}]", vec!["'a'"; 100].join(",")),
            format!("$[?{}]", vec!["@.a"; 100].join("||")),
            format!("$[?{}]", vec!["1==1"; 100].join("||")),
            format!("$[?{}]", ["@==@"; 5].join("&&")),
            format!("$..[?length('{}')==1]", "a".repeat(3_900)).replace("$..", "$..*[*,*]"),
            format!("$..{}", "[*]".repeat(40)),
        ] {
            assert!(cost_of(&path).is_err(), "{path}");
        }
    }

    /// The largest documents that are read, of several shapes.
    fn documents() -> Vec<Value> {
        let chain = |depth: usize, leaf: Value| (1..depth).fold(leaf, |inner, _| json!([inner]));
        let named = (1..JSON_DEPTH_MAX).fold(json!({}), |inner, _| json!({ "a": inner }));
        let flat = || Value::Array(vec![json!(1); JSON_VALUES_MAX - JSON_DEPTH_MAX]);
        vec![
            flat(),
            chain(JSON_DEPTH_MAX, flat()),
            Value::Array(vec![chain(JSON_DEPTH_MAX - 1, json!([])); JSON_VALUES_MAX / JSON_DEPTH_MAX]),
            Value::Array(vec![named; JSON_VALUES_MAX / JSON_DEPTH_MAX - 1]),
            (1..13).fold(json!([]), |inner, _| json!([inner, inner])),
        ]
    }

    fn step() -> impl Strategy<Value = String> {
        let selector =
            prop::sample::select(vec!["*", "0", "-1", "'a'", "\"a\"", ":", "0:9", "::-1", "?@", "?@.*", "?@.a==@"]);
        let bracket = prop::collection::vec(selector, 1..4).prop_map(|list| format!("[{}]", list.join(",")));
        prop_oneof![
            3 => bracket.clone(),
            1 => prop::sample::select(vec![".*", ".a", "..*", "..a", "..[0]"]).prop_map(str::to_owned),
            1 => bracket.prop_map(|bracket| format!("..{bracket}")),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
        #[test]
        fn an_affordable_path_selects_no_more_than_its_steps(steps in prop::collection::vec(step(), 1..6)) {
            let path = format!("${}", steps.concat());
            prop_assume!(affordable(&path).is_ok());
            let parsed = JsonPath::try_new(&path).unwrap();
            for document in documents() {
                let selected = parsed.select(&document).len() as u64;
                prop_assert!(selected <= STEPS_MAX, "{path} selects {selected}");
            }
        }
    }
}
