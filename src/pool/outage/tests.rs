//! The state machine by a table, and over random histories.

use proptest::prelude::*;

use super::*;

fn other(name: &str) -> Way {
    Way::OtherPool(Name::try_new(name).unwrap())
}

/// `.` serves, `w` waits, `r` refuses, `f` fails open, `a` and `b` use another pool; `,` serves with fewer than half,
/// `W` serves while warming, `R` refuses while warming.
fn seen(letter: char) -> Seen {
    let serving = match letter {
        '.' | ',' | 'W' => Serving::InOrder,
        'w' => Serving::Awaited,
        'r' | 'R' => Serving::Out(Way::Refuse),
        'f' => Serving::Out(Way::FailOpen),
        'a' | 'b' => Serving::Out(other(&letter.to_string())),
        _ => panic!("no such state: {letter}"),
    };
    Seen { serving, below_half: letter == ',', warming: matches!(letter, 'W' | 'R') }
}

/// A notice as a word: `+refuse`, `-refuse` (another way follows), `=refuse` (it serves again).
fn word(notice: &Notice) -> String {
    let name = |way: &Way| match way {
        Way::Refuse => "refuse".to_owned(),
        Way::FailOpen => "open".to_owned(),
        Way::OtherPool(name) => name.to_string(),
    };
    match notice {
        Notice::Began(way) => format!("+{}", name(way)),
        Notice::Ended { way, serves: false, .. } => format!("-{}", name(way)),
        Notice::Ended { way, serves: true, .. } => format!("={}", name(way)),
        Notice::BelowHalf(on) => if *on { "+half" } else { "-half" }.to_owned(),
        Notice::WarmingBegan => "+warm".to_owned(),
        Notice::WarmingEnded { well, .. } => if *well { "=warm" } else { "-warm" }.to_owned(),
    }
}

fn reported(history: &str) -> String {
    let (mut watch, now) = (Watch::default(), Instant::now());
    let notices = history.chars().flat_map(|letter| watch.observe(&seen(letter), now));
    notices.map(|notice| word(&notice)).collect::<Vec<_>>().join(" ")
}

#[tokio::test(start_paused = true)]
async fn each_change_of_the_service_of_a_pool_is_reported_once() {
    let table = [
        // At start, nothing is an outage before the wait for first verdicts ends, and beginning to serve is not
        // reported.
        ("ww.", ""),
        ("wr", "+refuse"),
        ("r", "+refuse"),
        (".rr.", "+refuse =refuse"),
        // Flapping: each transition is reported.
        (".r.r.", "+refuse =refuse +refuse =refuse"),
        // Waiting neither ends nor begins an outage.
        (".w.", ""),
        (".rwr.", "+refuse =refuse"),
        (".rw.", "+refuse =refuse"),
        // From one way to another.
        (".fr.", "+open -open +refuse =refuse"),
        (".abr.", "+a -a +b -b +refuse =refuse"),
        // Half: not reported while nothing serves, and reported again afterwards.
        (".,,.", "+half -half"),
        (".,r,.", "+half +refuse =refuse -half"),
        (".r,.", "+refuse =refuse +half -half"),
        (",r.", "+half +refuse =refuse -half"),
        // Warming.
        (".WW.", "+warm =warm"),
        (".Wr.", "+warm -warm +refuse =refuse"),
        (".Ww", "+warm -warm"),
        (".WRr.", "+warm +refuse -warm =refuse"),
        (".W,", "+warm =warm +half"),
    ];
    for (history, want) in table {
        assert_eq!(reported(history), want, "{history}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_says_how_long_it_lasted() {
    let (mut watch, start) = (Watch::default(), Instant::now());
    let mut ended = vec![];
    for (second, letter) in (0..).zip("...fffrrrr.".chars()) {
        let notices = watch.observe(&seen(letter), start + Duration::from_secs(second));
        ended.extend(notices.into_iter().filter_map(|notice| match notice {
            Notice::Ended { way, serves, lasted } => Some((way, serves, lasted.as_secs())),
            _ => None,
        }));
    }
    // The first is how long that way lasted, the second how long the pool did not serve normally.
    assert_eq!(ended, [(Way::FailOpen, false, 3), (Way::Refuse, true, 7)]);
}

proptest! {
    /// Over any history: every outage ends before the next begins, nothing ends that did not begin, the last report is
    /// the current state, and the same state again is not reported.
    #[test]
    fn begins_and_ends_alternate(history in "[.,wrfabWR]{0,60}") {
        let (mut watch, now) = (Watch::default(), Instant::now());
        let (mut way, mut half, mut warm) = (None, false, false);
        for letter in history.chars() {
            let seen = seen(letter);
            for notice in watch.observe(&seen, now) {
                match notice {
                    Notice::Began(begun) => prop_assert!(way.replace(begun).is_none(), "two begins"),
                    Notice::Ended { way: ended, .. } => prop_assert_eq!(way.take(), Some(ended)),
                    Notice::BelowHalf(on) => prop_assert_ne!(std::mem::replace(&mut half, on), on),
                    Notice::WarmingBegan => prop_assert!(!std::mem::replace(&mut warm, true)),
                    Notice::WarmingEnded { .. } => prop_assert!(std::mem::replace(&mut warm, false)),
                }
            }
            prop_assert_eq!(watch.outage().map(|outage| outage.way.clone()), way.clone());
            match seen.serving.clone() {
                Serving::InOrder => prop_assert!(way.is_none()),
                Serving::Out(now) => prop_assert_eq!(way.as_ref(), Some(&now)),
                Serving::Awaited => {}
            }
            prop_assert_eq!(warm, seen.warming);
            if seen.serving == Serving::InOrder && !seen.warming {
                prop_assert_eq!(half, seen.below_half);
            }
            prop_assert!(watch.observe(&seen, now).is_empty());
        }
    }
}
