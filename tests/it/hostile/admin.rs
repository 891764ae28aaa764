//! The admin API under clients that only occupy connections: they send nothing, a head byte by byte, or no body.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use tokio::time::Instant;

use crate::client::{Client, get};
use crate::origin::Origin;
use crate::program::{Program, http_check, pool};

/// Ten times what a busy machine needs, and far below the minute that it took before connections were limited.
const PATIENCE: Duration = Duration::from_secs(5);

async fn probes_answer(program: &Program) {
    for path in ["/livez", "/readyz"] {
        let begin = Instant::now();
        let answer = tokio::time::timeout(Duration::from_secs(60), get(program.admin, path)).await.expect("an answer");
        assert_eq!(answer.status, 200, "{path}");
        assert!(begin.elapsed() < PATIENCE, "{path} took {:?}", begin.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_slow_admin_connections_do_not_delay_livez_and_readyz() {
    let origin = Origin::plain("a").await;
    let check = http_check();
    let program = Program::start_ready(&pool("api", &[&origin.text()], &check)).await;
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(program.admin).expect("it listens")).collect();
    probes_answer(&program).await;
    let drips: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(program.admin).expect("it listens");
            stream.write_all(b"GET /livez HTTP/1.1\r\nX: ").expect("the bytes are accepted");
            stream
        })
        .collect();
    probes_answer(&program).await;
    for mut stream in &drips {
        // The oldest have been closed.
        let _ = stream.write_all(b"y");
    }
    probes_answer(&program).await;
    // A head that announces a body, and most of the body.
    let before = program.descriptors();
    let bodies: Vec<_> = (0..400)
        .map(|n| {
            let mut stream = TcpStream::connect(program.admin).expect("it listens");
            let what = if n % 2 == 0 { "POST /api/v1/reload" } else { "GET /api/v1/status" };
            let head = format!("{what} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n");
            // It may be closed already.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&[b' '; 30_000]));
            stream
        })
        .collect();
    probes_answer(&program).await;
    let more = program.descriptors().saturating_sub(before);
    assert!(more < 200, "{more} more descriptors for 400 incomplete requests");
    assert_eq!(program.status().await.pools.0.len(), 1);
    drop((silent, drips, bodies));
    program.assert_no_panic();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_of_a_scraper_is_kept_and_idle_ones_are_closed_to_make_room() {
    let origin = Origin::plain("a").await;
    let check = http_check();
    let program = Program::start_ready(&pool("api", &[&origin.text()], &check)).await;
    let mut scraper = Client::connect(program.admin).await;
    let mut others = Vec::new();
    for _ in 0..70 {
        let mut other = Client::connect(program.admin).await;
        assert_eq!(other.get("/livez").await.status, 200);
        others.push(other);
        // It sends requests now and then, so it is never the one that is idle for longest.
        assert_eq!(scraper.get("/metrics").await.status, 200, "after {} others", others.len());
    }
    let open = others.iter().filter(|other| other.is_open()).count();
    assert!((1..70).contains(&open), "{open} of 70 idle ones are kept");
    assert!(scraper.is_open());
    probes_answer(&program).await;
    program.assert_no_panic();
}
