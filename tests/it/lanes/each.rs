//! Runs a test once in each lane that carries requests: `in_each_lane!(name)` above `async fn name()` makes the tests
//! `name::express` and `name::general`. What such a test builds ([`Rig`], [`Program`]) asks [`current`] for the lane.
//!
//! [`Rig`]: crate::http::rig::Rig
//! [`Program`]: crate::program::Program

use roundsman::model::policy::Lane;

tokio::task_local! {
    static LANE: Lane;
}

/// Makes two tests of an `async fn` without arguments, one in each lane. What follows the name is for `tokio::test`.
macro_rules! in_each_lane {
    ($body:ident $(, $($how:tt)*)?) => {
        mod $body {
            use roundsman::model::policy::Lane;

            #[tokio::test$(($($how)*))?]
            async fn express() {
                $crate::lanes::each::run(Lane::Auto, super::$body()).await;
            }

            #[tokio::test$(($($how)*))?]
            async fn general() {
                $crate::lanes::each::run(Lane::General, super::$body()).await;
            }
        }
    };
}

/// One test of an `async fn`, in the express lane: for what goes through no lane, like an upgrade, and for what would take too
/// long in both.
macro_rules! once {
    ($body:ident $(, $($how:tt)*)?) => {
        mod $body {
            #[tokio::test$(($($how)*))?]
            async fn once() {
                $crate::lanes::each::run(roundsman::model::policy::Lane::Auto, super::$body()).await;
            }
        }
    };
}

pub(crate) use {in_each_lane, once};

/// Runs the body of a test in this lane.
pub async fn run<T>(lane: Lane, body: impl Future<Output = T>) -> T {
    LANE.scope(lane, body).await
}

/// The lane of the test that runs here; `None` outside [`in_each_lane`], and in tasks that a test spawns.
pub fn current() -> Option<Lane> {
    LANE.try_with(|lane| *lane).ok()
}

/// Puts the lane of the test that runs here into a configuration file.
pub fn configured(text: &str) -> String {
    let Some(Lane::General) = current() else { return text.to_owned() };
    let lane = "lane = \"general\"\n";
    match text.find("[runtime]\n") {
        Some(at) => {
            let (before, after) = text.split_at(at + "[runtime]\n".len());
            format!("{before}{lane}{after}")
        }
        None => format!("{text}\n[runtime]\n{lane}"),
    }
}
