//! The promise on the real program: nothing is sent to an upstream that has not passed, and a reload drops nothing.

use std::time::Duration;

use crate::load::{Load, Plan, failures};
use crate::origin::{Origin, refusing_address};
use crate::program::{Program, QUICK, pool};

const PATIENCE: Duration = Duration::from_secs(10);

fn http_check() -> String {
    format!("type = \"http\"\npath = \"/healthz\"\n{QUICK}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_whose_check_fails_gets_nothing_from_the_start() {
    let good = Origin::plain("good").await;
    let sick = Origin::new().on("/healthz").reply(503).start().await;
    let dead = refusing_address().to_string();
    let text = pool("api", &[&good.text(), &sick.text(), &dead], &http_check());
    let program = Program::start_ready(&text).await;
    let load = Load::start(program.web, &Plan::post(8, 400));
    program.wait_for_state("api", &sick.text(), "unhealthy", PATIENCE).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let outcomes = load.stop().await;
    assert!(outcomes.len() > 100, "{}", outcomes.len());
    assert_eq!(failures(&outcomes), Vec::<String>::new());
    assert_eq!(sick.count("/"), 0, "the sick one answered its traffic port all the while");
    assert_eq!(program.upstream("api", &dead).await.expect("it is there").requests_total, 0);
    program.assert_no_panic();
}
