//! Checks in steps against scripted servers: SMTP with STARTTLS, Redis, PostgreSQL and MySQL, as far as a check goes.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use roundsman::app::load::load_file;
use roundsman::model::policy::ProbeSpec;
use roundsman::model::{Address, Code, ProbeReport};
use roundsman::probe::probe;

use super::{LONG, SHORT, SLACK};
use crate::origin::tls::{CERTIFICATES, TlsOrigin};
use crate::support::assert_eventually;

/// What a scripted server does on a connection.
#[derive(Debug, Clone)]
enum Line {
    Sends(&'static [u8]),
    /// Reads this many bytes; the script ends if they are others.
    Reads(&'static [u8]),
    /// Relays the connection to this address.
    Relays(Address),
}

fn act(connection: &mut TcpStream, script: &[Line]) -> io::Result<()> {
    connection.set_read_timeout(Some(SLACK * 10))?;
    connection.set_nodelay(true)?;
    for line in script {
        match line {
            Line::Sends(bytes) => connection.write_all(bytes)?,
            Line::Reads(bytes) => {
                let mut received = vec![0; bytes.len()];
                connection.read_exact(&mut received)?;
                if received != *bytes {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
            Line::Relays(address) => {
                let other = TcpStream::connect(address.to_string())?;
                let (mut from, mut to) = (connection.try_clone()?, other.try_clone()?);
                std::thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
                let mut other = other;
                io::copy(&mut other, connection)?;
            }
        }
    }
    // Until the check closes, so that the server does not end it.
    io::copy(connection, &mut io::sink()).map(drop)
}

fn serve(script: Vec<Line>) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().map_while(Result::ok) {
            let script = script.clone();
            std::thread::spawn(move || drop(act(&mut connection, &script)));
        }
    });
    Address::Inet(address)
}

/// The check of a configuration file, as `config` makes it.
fn check(directory: &Path, health: &str) -> Arc<ProbeSpec> {
    let file = directory.join("roundsman.toml");
    let ca = CERTIFICATES.ca.pem.display();
    let text = format!(
        "[listeners.web]\naddress = \"127.0.0.1:1\"\npool = \"a\"\n[pools.a]\nupstreams = [\"127.0.0.1:2\"]\n\
         [pools.a.health]\ntype = \"tcp\"\n{}\n",
        health.replace("CA", &ca.to_string())
    );
    std::fs::write(&file, text).unwrap();
    let loaded = load_file(&file).unwrap_or_else(|error| panic!("{}", error.render(false)));
    loaded.config.pools[0].checks[0].spec.clone()
}

async fn talk(health: &str, script: Vec<Line>, timeout: Duration) -> ProbeReport {
    let directory = tempfile::tempdir().unwrap();
    let spec = check(directory.path(), health);
    let target = serve(script);
    probe(&target, &target, &spec, timeout).await
}

const SMTP: &str = r#"
steps = [
  { expect = "220 " },
  { send = "EHLO lb\r\n" },
  { matches = "^250 ", fail_on = ["421", "550"] },
  { send = "STARTTLS\r\n" },
  { expect = "220", fail_on = ["454"] },
  { starttls = true },
  { send = "EHLO lb\r\n" },
  { matches = "^250 " },
  { send = "QUIT\r\n" },
]
tls = { server_name = "api.internal", ca_file = "CA" }
"#;

/// A mail server up to the answer to STARTTLS, which is `answer`.
fn smtp(answer: &'static [u8]) -> Vec<Line> {
    vec![
        Line::Sends(b"220-mx.example\r\n"),
        Line::Sends(b"220 ready\r\n"),
        Line::Reads(b"EHLO lb\r\n"),
        Line::Sends(b"250-mx.example\r\n250-SIZE\r\n250 STARTTLS\r\n"),
        Line::Reads(b"STARTTLS\r\n"),
        Line::Sends(answer),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smtp_steps_pass_over_starttls() {
    let inside = serve(vec![
        Line::Reads(b"EHLO lb\r\n"),
        Line::Sends(b"250-mx.example\r\n"),
        Line::Sends(b"250 AUTH PLAIN\r\n"),
        Line::Reads(b"QUIT\r\n"),
        Line::Sends(b"221 bye\r\n"),
    ]);
    let tls = TlsOrigin::with(&CERTIFICATES.good).before_address(&inside).start();
    let script = [smtp(b"220 2.0.0 go ahead\r\n"), vec![Line::Relays(tls.address())]].concat();
    let report = talk(SMTP, script, LONG).await;
    assert_eq!((report.code, report.hint), (Code::L7Ok, None), "{}", report.sentence());
    let trace = report.trace;
    assert_eq!(trace.dialogue.len(), 9);
    assert!(trace.dialogue.iter().all(|step| step.done_in.is_some_and(|at| at <= report.duration)));
    assert_eq!(&*trace.dialogue[0].received, b"220-mx.example\r\n220 ");
    let shaken = trace.tls.expect("a handshake was made");
    assert!(shaken.verified && shaken.done_in >= trace.dialogue[4].done_in);
    assert_eq!(tls.handshakes()[0].server_name.as_deref(), Some("api.internal"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unexpected_smtp_response_fails_with_its_step() {
    let stranger = TlsOrigin::with(&CERTIFICATES.wrong_name).start();
    let strange = [smtp(b"220 go\r\n"), vec![Line::Relays(stranger.address())]].concat();
    let cut = smtp(b"220 go\r\n").into_iter().chain([Line::Reads(b"\x16\x03\x01"), Line::Reads(b"no TLS")]).collect();
    for (name, script, code, says) in [
        (
            "no TLS now",
            smtp(b"454 TLS not available\r\n"),
            Code::L7Rsp,
            r#"step 5 of 9: got "454", which fails the check: "454 TLS not available""#,
        ),
        (
            "injected",
            smtp(b"220 go\r\n250 injected\r\n"),
            Code::L7Rsp,
            r#"step 6 of 9: unexpected data before TLS: " go\r\n250 injected\r\n""#,
        ),
        (
            "busy",
            vec![Line::Sends(b"421 too busy\r\n")],
            Code::L7Tout,
            r#"step 1 of 9: expected "220 ", got "421 too busy\r\n" within 300ms"#,
        ),
        (
            "silent after EHLO",
            vec![Line::Sends(b"220 a\r\n"), Line::Reads(b"EHLO lb\r\n")],
            Code::L7Tout,
            r#"step 3 of 9: expected a match of "^250 ", got "a\r\n" within 300ms"#,
        ),
        ("no handshake", smtp(b"220 go\r\n"), Code::L6Tout, "no TLS handshake within 300ms"),
        ("a closed handshake", cut, Code::L6Rsp, "connection "),
        ("another's certificate", strange, Code::L6Rsp, "certificate"),
    ] {
        let timeout = if matches!(code, Code::L7Tout | Code::L6Tout) { SHORT } else { LONG };
        let report = talk(SMTP, script, timeout).await;
        assert_eq!(report.code, code, "{name}: {}", report.sentence());
        assert!(report.reason.contains(says), "{name}: {}", report.reason);
        assert!(timeout == SHORT || report.duration < LONG / 2, "{name}: {:?}", report.duration);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_postgresql_and_mysql_steps_pass_and_fail() {
    const REDIS: &str = r#"steps = [{ send = "PING\r\n" }, { expect = "+PONG", fail_on = ["-LOADING", "-NOAUTH"] }]"#;
    const POSTGRES: &str =
        r#"steps = [{ send_hex = "00 00 00 08 04 d2 16 2f" }, { expect_hex = "53", fail_on = ["N"] }]"#;
    const MYSQL: &str = r#"steps = [{ expect_hex = "00 0a", fail_on = ["Too many connections"] }, { expect = "8." }]"#;
    let redis = |answer| vec![Line::Reads(b"PING\r\n"), Line::Sends(answer)];
    let postgres = |answer| vec![Line::Reads(b"\0\0\0\x08\x04\xd2\x16\x2f"), Line::Sends(answer)];
    for (health, script, code, says) in [
        (REDIS, redis(b"+PONG\r\n"), Code::L7Ok, "answered as expected in "),
        (
            REDIS,
            redis(b"-LOADING Redis is loading the dataset in memory\r\n"),
            Code::L7Rsp,
            r#"step 2 of 2: got "-LOADING", which fails the check: "-LOADING Redis is loading the dataset in memory""#,
        ),
        (REDIS, redis(b"-NOAUTH Authentication required.\r\n"), Code::L7Rsp, "step 2 of 2: got \"-NOAUTH\""),
        (
            REDIS,
            redis(b"-ERR unknown\r\n"),
            Code::L7Tout,
            r#"step 2 of 2: expected "+PONG", got "-ERR unknown\r\n" within 300ms"#,
        ),
        (POSTGRES, postgres(b"S"), Code::L7Ok, "answered as expected in "),
        (POSTGRES, postgres(b"N"), Code::L7Rsp, "step 2 of 2: got \"N\", which fails the check"),
        (POSTGRES, postgres(b"E"), Code::L7Tout, "step 2 of 2: expected hex 53, got hex 45 within 300ms"),
        (MYSQL, vec![Line::Sends(b"J\0\0\0\x0a8.0.36\0\x08\0\0\0salt")], Code::L7Ok, "answered as expected in "),
        (
            MYSQL,
            vec![Line::Sends(b"\x17\0\0\0\xff\x10\x04Too many connections")],
            Code::L7Rsp,
            "step 1 of 2: got \"Too many connections\", which fails the check",
        ),
    ] {
        let timeout = if code == Code::L7Tout { SHORT } else { LONG };
        let report = talk(health, script, timeout).await;
        assert_eq!(report.code, code, "{}", report.sentence());
        assert!(report.reason.contains(says), "{}", report.reason);
        assert!(timeout == SHORT || report.duration < LONG / 2, "{:?}: {}", report.duration, report.reason);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_starttls_step_the_whole_check_uses_tls() {
    let inside = serve(vec![Line::Reads(b"PING\r\n"), Line::Sends(b"+PONG\r\n")]);
    let tls = TlsOrigin::with(&CERTIFICATES.good).before_address(&inside).start();
    for words in [
        r#"steps = [{ send = "PING\r\n" }, { expect = "+PONG" }]"#,
        "send = \"PING\\r\\n\"\nexpect = { contains = \"+PONG\" }",
    ] {
        let health = format!("{words}\ntls = {{ server_name = \"api.internal\", ca_file = \"CA\" }}");
        let report = talk(&health, vec![Line::Relays(tls.address())], LONG).await;
        assert_eq!(report.code, Code::L7Ok, "{}", report.sentence());
        assert!(report.trace.tls.is_some_and(|tls| tls.verified));
    }
    // The origin may notice the end of the last one after we do.
    assert_eventually("both used TLS", LONG, || tls.handshakes().len() == 2).await;
}

/// The real program sends a secret and never shows it, not even where the server sends it back.
#[test]
fn secrets_are_sent_and_never_shown() {
    const SECRET: &str = "s3cr3t-f0r-steps";
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("text"), format!("{SECRET}\n")).unwrap();
    std::fs::write(directory.path().join("hex"), "de ad be ef 01 02\n").unwrap();
    let target = serve(vec![
        Line::Reads(b"AUTH s3cr3t-f0r-steps\r\n"),
        Line::Sends(b"-ERR s3cr3t-f0r-steps and \xde\xad\xbe\xef\x01\x02 are wrong\r\n"),
        Line::Reads(b"\0\xde\xad\xbe\xef\x01\x02\xff"),
        Line::Sends(b"\xde\xad\xbe\xef\x01\x02 again\r\n"),
    ]);
    let file = directory.path().join("r.toml");
    let at = directory.path().display();
    let text = format!(
        "[listeners.web]\naddress = \"unix:{at}/web.sock\"\npool = \"api\"\n[pools.api]\nupstreams = [\"{target}\"]\n\
         [pools.api.health]\ntimeout = \"300ms\"\nsteps = [\n\
         {{ send = {{ file = \"{at}/text\", prefix = \"AUTH \", suffix = \"\\r\\n\" }} }},\n{{ expect = \"-ERR\" }},\n\
         {{ send_hex = {{ file = \"{at}/hex\", prefix = \"00\", suffix = \"ff\" }} }},\n{{ expect = \"again\" }},\n\
         {{ expect = \"never\" }}]\n"
    );
    std::fs::write(&file, text).unwrap();
    let target = target.to_string();
    for more in [&[][..], &["--json"]] {
        let arguments = [&["probe", "api", &target, "--config", file.to_str().unwrap()], more].concat();
        let output = crate::commands::roundsman(&arguments);
        let shown = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(1), "{shown}");
        let steps = ["step 1 of 5: 23 bytes sent (not shown)", "step 3 of 5: 8 bytes sent", "step 5 of 5: "];
        assert!(steps.iter().all(|step| shown.contains(step)), "{shown}");
        assert!(shown.contains("*** and *** are wrong") && shown.contains("L7TOUT"), "{shown}");
        for secret in [SECRET, "de ad be ef", "xde", "xbe", "beef"] {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
    }
}
