//! Hostile upstreams of requests: what breaks, stalls or never ends, at each step of a response, costs its own request and
//! nothing else, and ends by its deadline.

use std::time::Duration;

use roundsman::model::Address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::rig::{Answer, Client, Rig, SOON, get, within};
use crate::lanes::differences::Difference;
use crate::lanes::each::in_each_lane;
use crate::origin::{Act, Origin, Reply};
use crate::support::assert_eventually;

const RESPONSE: &str = "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;a=b\r\nlo\r\n0\r\n\r\n";

/// The final response; `None`: the connection ended before it.
async fn final_answer(client: &mut Client) -> Option<Answer> {
    loop {
        match client.try_answer().await {
            Some(answer) if answer.status < 200 => {}
            answer => return answer,
        }
    }
}

in_each_lane!(an_upstream_that_breaks_after_any_byte_costs_its_own_request_only);
async fn an_upstream_that_breaks_after_any_byte_costs_its_own_request_only() {
    let origin = Origin::plain("a").await;
    let rig = Rig::over(&[&origin]);
    for response in [RESPONSE, CHUNKED] {
        let head = response.rfind("\r\n\r\n").filter(|_| response == RESPONSE).map_or(47, |at| at + 4);
        for bytes in 0..response.len() {
            for end in [Act::Close, Act::Reset] {
                let case = format!("{bytes} bytes of {response:?}, then {end:?}");
                // After a moment, so that the bytes arrive before the reset.
                let reply = Reply::raw(&response[..bytes]).then(Act::Wait(Duration::from_millis(2))).then(end);
                origin.set("/x", reply);
                let mut client = rig.connect().await;
                client.send(get("/x")).await;
                match final_answer(&mut client).await {
                    Some(answer) if bytes < head => assert_eq!(answer.status, 502, "{case}"),
                    Some(answer) => assert!(answer.status == 200 && !answer.whole, "{case}: {answer:?}"),
                    None => panic!("{case}: no response"),
                }
                if bytes < head {
                    client.send(get("/good")).await;
                    assert_eq!(client.answer().await.status, 200, "{case}: the client's connection goes on");
                }
            }
        }
    }
    assert_eq!(rig.ask(get("/good")).await.status, 200);
}

in_each_lane!(an_upstream_that_never_ends_a_head_is_a_502_after_little_of_it);
async fn an_upstream_that_never_ends_a_head_is_a_502_after_little_of_it() {
    for (what, reply) in [
        ("an endless field", Reply::raw("HTTP/1.1 200 OK\r\nX: ").then_endless("x".repeat(4_096))),
        ("endless fields", Reply::raw("HTTP/1.1 200 OK\r\n").then_endless("X: y\r\n")),
        ("an endless status line", Reply::raw("HTTP/1.1 200 ").then_endless("x")),
        ("endless empty lines", Reply::acts(vec![Act::Endless(b"\r\n".to_vec())])),
        ("endless noise", Reply::acts(vec![Act::Endless(b"x".repeat(4_096))])),
        ("endless interim responses", Reply::acts(vec![Act::Endless(b"HTTP/1.1 103 H\r\nA: b\r\n\r\n".to_vec())])),
        ("1,000 interim responses", Reply::raw("HTTP/1.1 103 H\r\n\r\n".repeat(1_000) + CHUNKED)),
    ] {
        let origin = Origin::new().on("/x").reply(reply).start().await;
        let rig = Rig::over(&[&origin]);
        let mut client = rig.connect().await;
        client.send(get("/x")).await;
        let answer = final_answer(&mut client).await.unwrap_or_else(|| panic!("{what}: no response"));
        assert!(answer.status == 502 && answer.text().ends_with("(bad_response)\n"), "{what}: {answer:?}");
        client.send(get("/good")).await;
        assert_eq!(client.answer().await.status, 200, "{what}: the client's connection goes on");
        // Both kernels hold some of it; our own part is bounded by the size of a head.
        assert!(origin.bytes_written() < 32 << 20, "{what}: {} bytes", origin.bytes_written());
    }
}

in_each_lane!(an_upstream_that_stalls_at_any_step_ends_by_its_deadline);
async fn an_upstream_that_stalls_at_any_step_ends_by_its_deadline() {
    let tick = Duration::from_millis(5);
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (what, reply, status) in [
        ("nothing", Reply::hang(), 504),
        ("half a status line", Reply::raw("HTTP/1.1 2").then_hang(), 504),
        ("half a head", Reply::raw("HTTP/1.1 200 OK\r\nX: y\r\n").then_hang(), 504),
        ("a head, byte by byte", Reply::raw("HTTP/1.1 200 OK\r\nX: ").then(Act::EndlessDrip(b"y".to_vec(), tick)), 504),
        ("an interim response", Reply::raw("HTTP/1.1 103 H\r\n\r\n").then_hang(), 504),
        ("an interim response and half a head", Reply::raw("HTTP/1.1 103 H\r\n\r\nHTTP/1.1 ").then_hang(), 504),
        ("a head", Reply::raw(length).then_hang(), 200),
        ("half a body", Reply::raw(format!("{length}hel")).then_hang(), 200),
        ("half a chunk's size", Reply::raw(format!("{chunked}1")).then_hang(), 200),
        ("half a chunk", Reply::raw(format!("{chunked}5\r\nhel")).then_hang(), 200),
        ("a last chunk without the end", Reply::raw(format!("{chunked}0\r\n")).then_hang(), 200),
    ] {
        if status == 200 && Difference::TimesBodiesItself.is_here() {
            continue;
        }
        let origin = Origin::new().on("/x").reply(reply).start().await;
        let rig = Rig::build(&[origin.address()], Handle::current(), 100);
        let mut client = rig.connect().await;
        client.send(get("/x")).await;
        assert_eventually(what, SOON, || origin.count("/x") == 1).await;
        if status == 200 {
            // What has come of the response; the origin does not run on the paused clock.
            within(client.stream.readable()).await.unwrap();
        }
        tokio::time::pause();
        let began = Instant::now();
        let answer = final_answer(&mut client).await.unwrap_or_else(|| panic!("{what}: no response"));
        assert_eq!((answer.status, answer.whole), (status, status == 504), "{what}: {answer:?}");
        let took = began.elapsed().as_secs();
        assert!((58..125).contains(&took), "{what}: after {took} s");
        tokio::time::resume();
    }
}

/// An upstream that answers each connection before anybody asks, and each request too; reports what it has answered.
async fn early_origin(listener: TcpListener, answered: mpsc::UnboundedSender<String>) {
    let answer = |text: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
    while let Ok((mut stream, _)) = listener.accept().await {
        let answered = answered.clone();
        tokio::spawn(async move {
            stream.write_all(answer("early").as_bytes()).await?;
            let mut seen = Vec::new();
            loop {
                while !seen.ends_with(b"\r\n\r\n") {
                    let mut piece = [0; 1024];
                    match stream.read(&mut piece).await? {
                        0 => return std::io::Result::Ok(()),
                        n => seen.extend_from_slice(&piece[..n]),
                    }
                }
                let target = String::from_utf8_lossy(&seen).split(' ').nth(1).unwrap_or_default().to_owned();
                seen.clear();
                stream.write_all(answer(&target).as_bytes()).await?;
                let _ = answered.send(target);
            }
        });
    }
}

in_each_lane!(an_answer_before_the_request_reaches_no_other_request);
async fn an_answer_before_the_request_reaches_no_other_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Inet(listener.local_addr().unwrap());
    let (answered, mut has_answered) = mpsc::unbounded_channel();
    let serving = tokio::spawn(early_origin(listener, answered));
    let rig = Rig::build(&[address], Handle::current(), 100);
    let mut clients = [rig.connect().await, rig.connect().await];
    for number in 0..6 {
        let target = format!("/{number}");
        let client = &mut clients[number % 2];
        client.send(get(&target)).await;
        let answer = client.answer().await;
        assert!(["early", &target].contains(&answer.text().as_str()), "request {number} got {answer:?}");
        // Its own answer has come as well before the next request is sent.
        while within(has_answered.recv()).await.as_ref() != Some(&target) {}
    }
    serving.abort();
}

in_each_lane!(the_rest_of_a_body_after_an_early_answer_is_no_request);
async fn the_rest_of_a_body_after_an_early_answer_is_no_request() {
    let origin = Origin::new().on("/early").reply(Reply::ok("early").before_body()).start().await;
    let rig = Rig::over(&[&origin]);
    let rest = get("/evil");
    let chunk = format!("3\r\nabc\r\n{:x}\r\n", rest.len());
    for (fields, start, end) in [
        (format!("Content-Length: {}", 3 + rest.len()), "abc", ""),
        ("Transfer-Encoding: chunked".to_owned(), chunk.as_str(), "\r\n0\r\n\r\n"),
    ] {
        let mut client = rig.connect().await;
        client.send(format!("POST /early HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{start}")).await;
        let answer = client.answer().await;
        assert_eq!(answer.text(), "early", "{fields}");
        client.send(rest.clone() + end + &get("/next")).await;
        if let Some(next) = client.try_answer().await {
            assert_eq!(next.text(), format!("hello from {}\n", origin.name()), "{fields}");
        }
        assert_eq!(rig.ask(get("/good")).await.status, 200, "{fields}");
    }
    assert_eq!((origin.count("/evil"), origin.count("/early")), (0, 2));
}

in_each_lane!(a_client_that_waits_for_a_100_does_not_wait_for_ever);
async fn a_client_that_waits_for_a_100_does_not_wait_for_ever() {
    let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    // The upstream is silent; and it asks for a body that does not come.
    for (reply, goes_on, status) in [(Reply::hang(), false, 504), (Reply::raw(go_on).then_hang(), true, 408)] {
        let origin = Origin::new().on("/x").reply(reply.before_body()).start().await;
        let rig = Rig::build(&[origin.address()], Handle::current(), 100);
        let mut client = rig.connect().await;
        client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
        assert_eventually("the request is at the upstream", SOON, || origin.count("/x") == 1).await;
        if goes_on {
            assert_eq!(client.answer().await.status, 100);
        }
        tokio::time::pause();
        let began = Instant::now();
        let answer = final_answer(&mut client).await.expect("a response");
        let took = began.elapsed().as_secs();
        assert!(answer.status == status && (58..125).contains(&took), "after {took} s: {answer:?}");
        tokio::time::resume();
    }
}
