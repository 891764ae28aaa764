//! The client against the real admin server, over real sockets, with a fake host.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::Failure;
use super::client::{self, Ask};
use super::locate::Target;
use crate::admin::json::{EventsReply, OrderReply, ReloadReply, StatusReply};
use crate::admin::testing::{FakeHost, mistake, pool};
use crate::admin::{Handle, bind};
use crate::model::HealthState::{Healthy, Unhealthy};
use crate::model::policy::AdminPolicy;
use crate::model::{Address, AdminState, Secret};

fn serve(address: Address) -> (Target, Arc<FakeHost>, Handle) {
    let host = FakeHost::with(vec![pool("api", &[Healthy, Unhealthy])]);
    let bound = bind(&AdminPolicy { address, written: true, token: None }).expect("it can be bound");
    let target = Target { address: bound.address().clone(), token: None, named_by: "--admin".into() };
    let handle = bound.spawn(host.clone()).expect("a thread");
    (target, host, handle)
}

fn loopback() -> Address {
    Address::Inet(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn message(result: Result<client::Answer, Failure>) -> String {
    result.expect_err("a failure").to_string()
}

#[test]
fn answers_are_read_over_tcp_and_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let unix: Address = format!("unix:{}", dir.path().join("a.sock").display()).parse().unwrap();
    for address in [loopback(), unix] {
        let (target, host, _handle) = serve(address);
        let answer = client::ask_now(&target, Ask::get("/api/v1/status")).unwrap();
        let status: StatusReply = answer.json(&[StatusCode::OK]).unwrap();
        assert_eq!(status.pools.get("api").map(|pool| pool.total), Some(2));

        let events = client::ask_now(&target, Ask::get("/api/v1/events?after=0&wait=0")).unwrap();
        assert_eq!(events.json::<EventsReply>(&[StatusCode::OK]).unwrap().last, 0);

        let path = "/api/v1/pools/api/upstreams/10.0.0.1:80/drain";
        let ask = Ask { body: r#"{"reason":"upgrade"}"#.into(), ..Ask::post(path) };
        let reply: OrderReply = client::ask_now(&target, ask).unwrap().json(&[StatusCode::OK]).unwrap();
        assert_eq!(reply.admin, AdminState::Draining);
        assert_eq!(host.replies.lock().orders[0].reason, "upgrade");

        host.replies.lock().diagnostics = vec![mistake()];
        let refused = client::ask_now(&target, Ask::post("/api/v1/reload")).unwrap();
        let reply: ReloadReply = refused.json(&[StatusCode::OK, StatusCode::UNPROCESSABLE_ENTITY]).unwrap();
        assert_eq!(reply.errors, [mistake()]);
    }
}

#[test]
fn a_process_is_found_by_a_host_name() {
    let (target, _host, _handle) = serve(loopback());
    let port = target.address.port().expect("a port");
    for host in ["localhost", "LOCALHOST"] {
        let named = Target { address: format!("{host}:{port}").parse().expect("an address"), ..target.clone() };
        let answer = client::ask_now(&named, Ask::get("/api/v1/status")).expect("it answers");
        assert!(answer.json::<StatusReply>(&[StatusCode::OK]).is_ok(), "{host}");
    }
    let unknown = Target { address: format!("nosuch.invalid:{port}").parse().expect("an address"), ..target };
    let said = message(client::ask_now(&unknown, Ask::get("/api/v1/status")));
    let want =
        format!("cannot connect to roundsman at nosuch.invalid:{port} (--admin): nosuch.invalid does not resolve: ");
    assert!(said.starts_with(&want), "{said}");
}

#[test]
fn a_token_is_sent_and_a_missing_one_is_explained() {
    let (mut target, host, _handle) = serve(loopback());
    host.replies.lock().token = Some(Secret::new("0123456789abcdef"));
    let refused = client::ask_now(&target, Ask::get("/health")).unwrap();
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let error = refused.json::<StatusReply>(&[StatusCode::OK]).unwrap_err().to_string();
    assert!(error.contains("--token-file"), "{error}");
    target.token = Some(Secret::new("0123456789abcdef"));
    assert_eq!(client::ask_now(&target, Ask::get("/health")).unwrap().status, StatusCode::OK);
}

#[test]
fn the_error_message_of_the_process_is_shown() {
    let (target, _host, _handle) = serve(loopback());
    let answer = client::ask_now(&target, Ask::post("/api/v1/pools/none/upstreams/10.0.0.1:80/drain")).unwrap();
    let error = answer.json::<OrderReply>(&[StatusCode::OK]).unwrap_err().to_string();
    assert_eq!(error, "there is no pool \"none\"; the only pool is api");
}

#[test]
fn a_closed_port_a_silent_server_and_a_foreign_server_are_errors_within_the_timeout() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    let target = Target { address: Address::Inet(address), token: None, named_by: "--admin".into() };

    let silent = message(client::ask_now(&target, Ask::get("/").within(Duration::from_millis(200))));
    assert!(silent.contains("within"), "{silent}");

    let (silent, _) = free.accept().unwrap();
    for speaks_first in [true, false] {
        let foreign = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = free.accept().unwrap();
                if !speaks_first {
                    let _ = stream.read(&mut [0; 1_024]);
                }
                let _ = stream.write_all(b"220 mail ready\r\n");
                // Until the client closes, however slow it is.
                let _ = stream.read_to_end(&mut Vec::new());
            });
            message(client::ask_now(&target, Ask::get("/")))
        });
        let want = format!("{address} is not the admin address of a roundsman (its answer is not HTTP)\n");
        assert!(foreign.starts_with(&want) && foreign.contains("--admin ADDRESS"), "{foreign}");
    }
    drop(silent);

    // Bound, so that nobody else gets the port, and without a listener.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = closed.local_addr().unwrap();
    let target = Target { address: Address::Inet(address), ..target };
    let refused = message(client::ask_now(&target, Ask::get("/")));
    let want = format!("cannot connect to roundsman at {address} (--admin): Connection refused (os error 111)\n");
    assert!(refused.starts_with(&want) && refused.contains("`roundsman run FILE`"), "{refused}");
}
