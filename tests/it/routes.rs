//! Routes by parts of the request, and routes to several pools, on the real program.

use std::collections::HashMap;
use std::time::Duration;

use crate::client::Client;
use crate::lanes::each::in_each_lane;
use crate::origin::Origin;
use crate::program::{Program, pool};

/// The longest wait, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One check a minute; one pass is enough.
const RARE: &str = "type = \"http\"\npath = \"/healthz\"\ninterval = \"60s\"\ntimeout = \"10s\"\nfast_interval = \"100ms\"\n\
                    healthy_threshold = 1\nunhealthy_threshold = 1\njitter = 0\n";

/// Origins `api`, `one` and `two` in pools of the same names.
struct Three([Origin; 3]);

impl Three {
    async fn start() -> Three {
        Three([Origin::plain("api").await, Origin::plain("one").await, Origin::plain("two").await])
    }

    /// The pools, and these routes.
    fn text(&self, routes: &str) -> String {
        let Three([api, one, two]) = self;
        let pools =
            [("api", api), ("one", one), ("two", two)].map(|(name, origin)| pool(name, &[&origin.text()], RARE));
        pools.concat() + routes
    }

    async fn program(&self, routes: &str) -> Program {
        let program = Program::start_ready(&self.text(routes)).await;
        for (name, origin) in ["api", "one", "two"].into_iter().zip(&self.0) {
            program.wait_for_state(name, &origin.text(), "healthy", PATIENCE).await;
        }
        program
    }
}

/// The name of the origin that answers.
async fn origin_of(client: &mut Client, path: &str, fields: &[(&str, &str)]) -> String {
    let answer = client.send("GET", path, fields).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().trim_start_matches("hello from ").to_owned()
}

in_each_lane!(a_request_goes_by_its_fields_its_query_and_its_cookies, flavor = "multi_thread");
async fn a_request_goes_by_its_fields_its_query_and_its_cookies() {
    let three = Three::start().await;
    let program = three
        .program(
            "[[routes]]\nheader = { X-Beta = \"1\" }\npool = \"one\"\n\
             [[routes]]\nheader = { X-Beta = { present = true } }\ncookie = { group = \"b\" }\npool = \"two\"\n\
             [[routes]]\npath = \"/v\"\nquery = { v = \"2 a\" }\npool = \"two\"\n",
        )
        .await;
    let mut client = Client::connect(program.web).await;
    for (path, fields, want) in [
        ("/", &[][..], "api"),
        ("/", &[("x-beta", "1")], "one"),
        ("/", &[("X-BETA", "2")], "api"),
        ("/", &[("x-beta", "2"), ("cookie", "a=b; group=b")], "two"),
        ("/", &[("x-beta", "1"), ("cookie", "group=b")], "two"),
        ("/", &[("cookie", "group=b")], "api"),
        ("/v/x?v=2%20a", &[], "two"),
        ("/v/x?w=1&v=2+a", &[("x-beta", "1")], "two"),
        ("/v?v=2", &[("x-beta", "1")], "one"),
        ("/w?v=2+a", &[], "api"),
    ] {
        assert_eq!(origin_of(&mut client, path, fields).await, want, "{path} {fields:?}");
    }
    program.assert_no_panic();
}

in_each_lane!(several_pools_share_the_requests_of_a_route_by_weight, flavor = "multi_thread");
async fn several_pools_share_the_requests_of_a_route_by_weight() {
    let three = Three::start().await;
    let shared = |api: u32, one: u32, two: u32| {
        format!(
            "[[routes]]\npath = \"/\"\npool = [{{ name = \"api\", weight = {api} }}, {{ name = \"one\", weight = {one} }}, \
             {{ name = \"two\", weight = {two} }}]\n"
        )
    };
    let program = three.program(&shared(70, 20, 10)).await;
    let mut client = Client::connect(program.web).await;
    let mut count = async || {
        let mut seen: HashMap<String, u32> = HashMap::new();
        for _ in 0..2_000 {
            *seen.entry(origin_of(&mut client, "/", &[]).await).or_default() += 1;
        }
        ["api", "one", "two"].map(|name| seen.get(name).copied().unwrap_or(0))
    };
    // Five standard deviations, rounded up.
    let [api, one, two] = count().await;
    assert!(api.abs_diff(1_400) < 105 && one.abs_diff(400) < 90 && two.abs_diff(200) < 70, "{api} {one} {two}");
    assert_eq!(program.reload(&three.text(&shared(0, 1, 1))).await.0, 200);
    let [api, one, two] = count().await;
    assert!(api == 0 && one.abs_diff(two) < 230, "{api} {one} {two}");
    program.assert_no_panic();
}
