//! The decision by a table, and over random histories.

use proptest::prelude::*;

use super::*;

/// One look a second. A letter is ten requests since the look before and the state of the checks: `.` all succeed, `x` all
/// get a 5xx, `b` all break, `c` all are without a connection, `m` five get a 5xx and four break, `8` eight get a 5xx, `h`
/// five do; `X` as `x` while checks fail; `o` as `x`, but no check has ended since; ` ` no request; `-` no request for five
/// minutes; `_` no request for one minute.
struct Watched {
    traffic: Traffic,
    total: Requests,
    now: Instant,
    checked: Instant,
}

impl Watched {
    fn new() -> Watched {
        let now = Instant::now();
        Watched { traffic: Traffic::new(now), total: Requests::default(), now, checked: now }
    }

    fn look(&mut self, letter: char) -> Option<Report> {
        self.now += match letter {
            '-' => WINDOW_MAX,
            '_' => REPORT_EVERY,
            _ => Duration::from_secs(1),
        };
        let (server_errors, broken, connect_failures) = match letter {
            'x' | 'X' | 'o' => (10, 0, 0),
            '8' => (8, 0, 0),
            'h' => (5, 0, 0),
            'm' => (5, 4, 0),
            'b' => (0, 10, 0),
            'c' => (0, 0, 10),
            _ => (0, 0, 0),
        };
        self.total.ended += if matches!(letter, ' ' | '-' | '_') { 0 } else { 10 };
        self.total.server_errors += server_errors;
        self.total.broken += broken;
        self.total.connect_failures += connect_failures;
        if letter != 'o' {
            self.checked = self.now;
        }
        let look = Look { requests: self.total, passes: letter != 'X', checked: Some(self.checked) };
        self.traffic.observe(&look, self.now)
    }
}

/// The reports: `+` with the window, `=` succeeds, `!` fails checks, `?` few requests.
fn reports(history: &str) -> String {
    let mut watched = Watched::new();
    let reports = history.chars().filter_map(|letter| watched.look(letter));
    let words = reports.map(|report| match report {
        Report::Began(window) => format!("+{}/{}", window.failed(), window.ended),
        Report::Ended(Over::Succeeds, _) => "=".to_owned(),
        Report::Ended(Over::NoLongerPasses, _) => "!".to_owned(),
        Report::Ended(Over::FewRequests, _) => "?".to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_fails_requests_and_passes_its_checks_is_reported_once() {
    for (history, want) in [
        ("....", ""),
        // Twice in a row, with a check that passed after the first.
        ("x", ""),
        ("xx", "+10/10"),
        ("xxxxxx", "+10/10"),
        ("x.x.x", ""),
        ("bb", "+10/10"),
        ("cc", "+10/10"),
        ("mm", "+9/10"),
        ("8888", ""),
        // It ends when half of the requests succeed.
        ("xx8h", "+10/10 ="),
        ("xx.", "+10/10 ="),
        // Without a new check, the old verdict counts after a minute.
        ("xooo", ""),
        ("xooox", "+10/10"),
        ("xo_o", "+10/10"),
        // What fails its checks is reported by them.
        ("XXXX", ""),
        ("xX", ""),
        ("xxX", "+10/10 !"),
        ("xxXX.", "+10/10 !"),
        // Few requests are collected, but not for ever.
        ("x    x", "+10/10"),
        ("xx----", "+10/10 ?"),
        ("x-x", ""),
        ("x-xx", "+10/10"),
        // Once a minute.
        ("xx.xxxx", "+10/10 ="),
        ("xx.xx_x", "+10/10 = +10/10"),
        ("xx._xx", "+10/10 = +10/10"),
    ] {
        assert_eq!(reports(history), want, "{history:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_request_that_failed_in_two_ways_counts_once() {
    let both = Requests { ended: 10, server_errors: 10, broken: 10, connect_failures: 0 };
    assert_eq!(both.failed(), 10);
    let most = Requests { ended: u64::MAX, server_errors: u64::MAX, broken: 5, connect_failures: u64::MAX };
    assert!(most.nearly_all_failed() && !most.half_succeeded());
    // Counters are read one after the other, so a later one may be ahead.
    assert_eq!(Requests::default().since(&both), Requests::default());
}

proptest! {
    /// Over any history: begins and ends alternate, nothing is reported of one whose checks fail, and no two begins are
    /// less than a minute apart.
    #[test]
    fn begins_and_ends_alternate(history in "[.xXobcm8h _-]{0,80}") {
        let (mut watched, mut failing, mut last) = (Watched::new(), false, None);
        for letter in history.chars() {
            match watched.look(letter) {
                Some(Report::Began(window)) => {
                    prop_assert!(!std::mem::replace(&mut failing, true));
                    prop_assert!(letter != 'X' && window.ended >= REQUESTS_MIN && window.failed() * 10 >= window.ended * 9);
                    let early = last.is_some_and(|at| watched.now - at < REPORT_EVERY);
                    prop_assert!(!early, "twice within a minute: {:?}", history);
                    last = Some(watched.now);
                }
                Some(Report::Ended(..)) => prop_assert!(std::mem::replace(&mut failing, false)),
                None => {}
            }
            prop_assert!(!failing || letter != 'X', "its checks fail");
        }
    }
}
