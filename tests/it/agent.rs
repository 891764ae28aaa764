//! Agents of upstreams on the real program: HAProxy's agent protocol.

use std::time::Duration;

use serde_json::Value;

use crate::client::get;
use crate::origin::{Origin, Reply, Twin};
use crate::program::{Program, pool_of};

/// The longest wait, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A check every 50 ms; two results in a row change the state.
const QUICK: &str = "type = \"agent\"\ninterval = \"50ms\"\ntimeout = \"50ms\"\nfast_interval = \"50ms\"\n\
                     healthy_threshold = 2\nunhealthy_threshold = 2\njitter = 0\n";

/// A server with its agent, where its checks go: that answers each connection with its line.
struct Node(Twin);

impl Node {
    async fn new(name: &str) -> Node {
        let node = Node(Twin::start(name).await);
        node.says("up\n");
        node
    }

    fn says(&self, line: &str) {
        self.0.health.set_on_accept(Some(Reply::raw(line)));
    }

    async fn shown(&self, program: &Program) -> Value {
        let info = program.upstream("api", &self.0.traffic.text()).await.expect("it is there");
        serde_json::to_value(info).expect("it is JSON")
    }

    /// Waits until a key of its status is this.
    async fn wait(&self, program: &Program, key: &str, want: Value) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let info = self.shown(program).await;
            if info[key] == want {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{key} is not {want}: {info}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn share(program: &Program, node: &Node, requests: u64) -> u64 {
    let before = node.0.traffic.count("/x");
    for _ in 0..requests {
        assert_eq!(get(program.web, "/x").await.status, 200);
    }
    node.0.traffic.count("/x") - before
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_gives_a_share_drains_disables_and_fails_its_upstream() {
    let (one, two) = (Node::new("one").await, Node::new("two").await);
    let program = Program::start_ready(&pool_of("api", &[one.0.entry(), two.0.entry()], QUICK)).await;
    for node in [&one, &two] {
        program.wait_for_state("api", &node.0.traffic.text(), "healthy", PATIENCE).await;
    }
    assert_eq!(share(&program, &one, 40).await, 20);

    one.says("up 50% # backup runs\r\n");
    one.wait(&program, "degraded", 0.5.into()).await;
    assert_eq!(share(&program, &one, 60).await, 20, "a third of the requests");

    one.says("drain # kernel upgrade\n");
    one.wait(&program, "admin", "draining".into()).await;
    let info = one.shown(&program).await;
    let says = "the agent says \"drain # kernel upgrade\"";
    assert_eq!((&info["state"], &info["eligible"]), (&"healthy".into(), &false.into()), "{info}");
    assert_eq!((&info["why"], &info["agent"]), (&format!("draining: {says}").into(), &says.into()));
    assert_eq!(share(&program, &one, 10).await, 0);
    assert_eq!(one.0.traffic.open_connections(), 0, "idle connections to it close at once");
    let (_, said, _) = program.command(&["explain", "api", &one.0.traffic.text()]).await;
    assert!(said.contains(&format!("it is draining, because {says}; another answer of its agent ends that")), "{said}");
    let (code, out, err) = program.command(&["undrain", "api", &one.0.traffic.text()]).await;
    assert!(code == Some(1) && err.contains("the agent of the upstream takes it out, not an order"), "{out}{err}");

    one.says("maint\n");
    one.wait(&program, "admin", "disabled".into()).await;
    one.says("down # disk full\n");
    one.wait(&program, "state", "unhealthy".into()).await;
    let why = one.shown(&program).await["why"].clone();
    assert_eq!(why, "disabled: the agent says \"maint\"; L7STS: the agent says \"down # disk full\"");

    one.says("up\n");
    one.wait(&program, "eligible", true.into()).await;
    assert_eq!(one.shown(&program).await["degraded"], Value::Null);
    assert_eq!(share(&program, &one, 40).await, 20);
    let address = one.0.traffic.text();
    let texts: Vec<String> = program.events(0).await.events.into_iter().map(|event| event.text).collect();
    for text in [
        format!("api {address}  degraded: healthy, with 50 % of its weight"),
        format!("api {address}  now draining (its agent): {says}"),
        format!("api {address}  now disabled (its agent): the agent says \"maint\""),
        format!("api {address}  now enabled (its agent): the agent says \"up\""),
    ] {
        assert!(texts.contains(&text), "{text} is not in {texts:#?}");
    }
    program.assert_no_panic();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_no_agent_is_never_used_and_says_what_is_wrong() {
    let (web, agent) = (Origin::plain("web").await, Node::new("agent").await);
    let entry = format!("{{ address = \"{0}\", health_address = \"{0}\" }}", web.text());
    web.set_on_accept(Some(Reply::raw("SSH-2.0-OpenSSH_9.2\r\n")));
    let program = Program::start_ready(&pool_of("api", &[entry, agent.0.entry()], QUICK)).await;
    program.wait_for_state("api", &web.text(), "unhealthy", PATIENCE).await;
    let why = program.upstream("api", &web.text()).await.and_then(|info| info.why).unwrap_or_default();
    assert!(why.starts_with("L7RSP: the agent says \"SSH-2.0-OpenSSH_9.2\", which means nothing"), "{why}");
    // `probe` shows the same.
    let url = format!("tcp://{}", web.text());
    let (code, out, err) = program.command(&["probe", "--url", &url, "--type", "agent"]).await;
    assert!(code == Some(1) && out.contains("which means nothing"), "{out}{err}");
    let url = format!("tcp://{}", agent.0.health.text());
    let (code, out, err) = program.command(&["probe", "--url", &url, "--type", "agent", "--body", "web1\n"]).await;
    assert!(code == Some(0) && out.contains("the agent says \"up\""), "{out}{err}");
    assert_eq!(get(program.web, "/x").await.text(), "hello from agent");
    program.assert_no_panic();
}
