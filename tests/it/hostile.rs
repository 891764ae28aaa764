//! Hostile and malformed responses: each probe ends within 50 ms of its timeout, reads a bounded number of bytes and
//! frees its memory; no response redirects a probe or reveals a secret ([`secrets`]). The sentences for each response
//! are tested in `probe` and beside `probe::answer`.
//!
//! A busy machine wakes timers late. Timers that are due with the deadline of a probe run beside it; the probe may be
//! as late as the latest of them, and no later.

mod admin;
mod layers;
mod long;
mod malformed;
mod noise;
mod secrets;

use std::sync::Arc;
use std::time::Duration;

use roundsman::model::policy::{BodyRule, Expect, HttpProbe, PortRule, ProbeKind, ProbeSpec};
use roundsman::model::{Code, ProbeReport};
use roundsman::probe::probe;
use tokio::time::Instant;

use crate::origin::{Act, BlackHole, Origin, Reply};
use crate::support::assert_eventually;

/// The deadline of a probe here.
const TIMEOUT: Duration = Duration::from_millis(150);
/// What a probe may take beyond its deadline.
const GRACE: Duration = Duration::from_millis(50);
/// How long it may take until a closed socket is noticed.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most that the kernel buffers on both sides of one connection, and a probe reads of a body.
const BYTES_TAKEN_MAX: u64 = 16 << 20;

/// The text that every check here looks for, and that none of these upstreams sends.
const WANTED: &str = "ready";

/// One hostile upstream.
pub struct Hostile {
    name: &'static str,
    /// What it does to a client that connects or sends a request.
    does: Does,
    /// The code of a probe of it.
    code: Code,
}

enum Does {
    /// Its response to every request.
    Answer(Reply),
    /// What it does on a connection before it reads.
    OnAccept(Reply),
}

impl Hostile {
    fn start(&self) -> Origin {
        match &self.does {
            Does::Answer(reply) => Origin::new().named("x").on("*").reply(reply.clone()).start_blocking(),
            Does::OnAccept(reply) => Origin::new().named("x").on_accept(reply.clone()).start_blocking(),
        }
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\n";

/// All of them.
pub fn all_hostile() -> Vec<Hostile> {
    let answer = |name, code, reply| Hostile { name, does: Does::Answer(reply), code };
    let accept = |name, code, reply| Hostile { name, does: Does::OnAccept(reply), code };
    let (late, bad) = (Code::L7Tout, Code::L7Rsp);
    let tick = Duration::from_millis(10);
    let drip = |text: &str| Act::Drip(text.as_bytes().to_vec(), tick);
    let chunked = |chunks: &str| Reply::raw(format!("{OK}Transfer-Encoding: chunked\r\n\r\n{chunks}")).then_hang();
    let sized = |body: &str| Reply::raw(format!("{OK}Content-Length: 10737418240\r\n\r\n{body}"));
    let settle = Act::Wait(Duration::from_millis(20));
    vec![
        answer("never answers", late, Reply::hang()),
        accept("never reads", late, Reply::acts(vec![Act::Wait(TIMEOUT * 4)])),
        answer("drips its head", late, Reply::acts(vec![drip(&format!("{OK}Content-Length: 5\r\n\r\nready"))])),
        answer("drips its body", late, Reply::raw(format!("{OK}\r\n")).then(Act::EndlessDrip(b"x".to_vec(), tick))),
        answer("sends its body too late", late, late_body()),
        answer("drips chunks", late, Reply::acts(drip_chunks(tick))),
        answer("drips fields (slowloris)", late, Reply::raw(OK).then(Act::EndlessDrip(b"A: b\r\n".to_vec(), tick))),
        answer("drips interim answers", late, drip_interim(tick)),
        answer("stops inside a body", late, sized("rea").then_hang()),
        answer("10 GiB of body", bad, sized("").then_endless([b'x'; 64 << 10])),
        answer("endless chunks", bad, endless_chunks()),
        answer("an endless first line", bad, Reply::raw("HTTP/1.1 200 ").then_endless([b'x'; 4 << 10])),
        answer("an endless head", bad, Reply::raw(OK).then_endless("A: b\r\n".repeat(1_000))),
        answer("1,000 fields", bad, Reply::raw(format!("{OK}{}\r\nready", "A: b\r\n".repeat(1_000))).then_hang()),
        answer("a field of 1 MB", bad, Reply::raw(format!("{OK}A: {}\r\n\r\nready", "x".repeat(1 << 20))).then_hang()),
        answer("endless interim answers", bad, Reply::acts(vec![]).then_endless("HTTP/1.1 100 Continue\r\n\r\n")),
        answer("garbage", bad, Reply::raw(garbage(64 << 10)).then_hang()),
        answer("endless zeros", bad, Reply::acts(vec![]).then_endless([0; 64 << 10])),
        accept("a banner", bad, Reply::raw("220 mail.example ESMTP\r\n").then_hang()),
        answer("a gzip bomb", bad, Reply::raw(gzip_bomb_answer()).then_hang()),
        answer("a chunk size that is not a number", bad, chunked("zz\r\nready\r\n0\r\n\r\n")),
        answer("a chunk size beyond 64 bits", bad, chunked("fffffffffffffffff\r\nready")),
        answer("a negative chunk size", bad, chunked("-5\r\nready\r\n0\r\n\r\n")),
        answer("a chunk without its line end", bad, chunked("2\r\nreXXady\r\n0\r\n\r\n")),
        answer("two lengths", bad, Reply::raw(format!("{OK}Content-Length: 5\r\nContent-Length: 6\r\n\r\nready"))),
        answer("a length that is not a number", bad, Reply::raw(format!("{OK}Content-Length: 5x\r\n\r\nready"))),
        accept("closes at once", bad, Reply::close()),
        accept("resets at once", bad, Reply::reset()),
        answer("resets after the request", bad, Reply::reset()),
        answer("resets inside its head", bad, Reply::raw(OK).then(settle.clone()).then_reset()),
        answer("resets inside its body", bad, sized("rea").then(settle.clone()).then_reset()),
        answer("resets inside a chunk", bad, resetting_chunk(settle)),
    ]
}

fn drip_interim(tick: Duration) -> Reply {
    let acts = (0..10).flat_map(|_| [Act::Write(b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec()), Act::Wait(tick * 2)]);
    Reply::acts(acts.chain([Act::Hang]).collect())
}

fn late_body() -> Reply {
    Reply::raw(format!("{OK}\r\n")).then(Act::Wait(TIMEOUT * 2)).then_write(WANTED)
}

fn drip_chunks(tick: Duration) -> Vec<Act> {
    let head = Act::Write(format!("{OK}Transfer-Encoding: chunked\r\n\r\n").into_bytes());
    vec![head, Act::EndlessDrip(b"1\r\nx\r\n".to_vec(), tick)]
}

fn endless_chunks() -> Reply {
    Reply::raw(format!("{OK}Transfer-Encoding: chunked\r\n\r\n")).then_endless("1\r\nx\r\n".repeat(4 << 10))
}

fn resetting_chunk(settle: Act) -> Reply {
    Reply::raw(format!("{OK}Transfer-Encoding: chunked\r\n\r\n9\r\nrea")).then(settle).then_reset()
}

/// Bytes that look random and are the same in every run.
fn garbage(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(bytes).collect()
}

/// `bomb` is the name of the compressed file: a check of the raw bytes finds it.
fn gzip_bomb_answer() -> Vec<u8> {
    let bomb = gzip_bomb(1 << 20);
    let mut answer = format!("{OK}Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", bomb.len()).into_bytes();
    answer.extend(bomb);
    answer
}

/// A gzip file of at least this many bytes that unpacks to 150 times as much: one zero, then copies of it 258 at a time
/// (RFC 1951, fixed codes: length 258 is 11000101, distance 1 is 00000; codes go in from their first bit).
fn gzip_bomb(bytes: usize) -> Vec<u8> {
    let mut out = b"\x1f\x8b\x08\x08\0\0\0\0\0\x03bomb\0".to_vec();
    let (mut byte, mut filled) = (0u8, 0);
    let mut put = |bits: &[u8], out: &mut Vec<u8>| {
        for bit in bits {
            byte |= bit << filled;
            filled += 1;
            if filled == 8 {
                out.push(std::mem::take(&mut byte));
                filled = 0;
            }
        }
    };
    // The last block, of fixed codes; the literal 0 is 00110000.
    put(&[1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0], &mut out);
    while out.len() < bytes {
        put(&[1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0], &mut out);
    }
    out
}

fn contains(text: &str) -> Arc<ProbeSpec> {
    let body = vec![BodyRule::Contains(text.into())];
    Arc::new(ProbeSpec {
        port: PortRule::Same,
        tls: None,
        kind: ProbeKind::Http(HttpProbe::get("/healthz", Expect { body, ..Expect::default() })),
        max_duration: None,
    })
}

/// The lateness of the latest of some timers that are due at the deadline of a probe begun now.
async fn lateness() -> Duration {
    let due = Instant::now() + TIMEOUT;
    let timers = (0..4).map(|_| {
        tokio::spawn(async move {
            tokio::time::sleep_until(due).await;
            due.elapsed()
        })
    });
    let late = futures_util::future::join_all(timers).await.into_iter().map(|late| late.expect("a timer"));
    late.max().unwrap_or_default()
}

/// Probes at most three times, until one probe ends in time: a machine that stalls between the probe's timer and its
/// end is not the probe's fault, and does not stall three times in a row.
async fn within_its_time(name: &str, origin: &roundsman::model::Address, spec: &Arc<ProbeSpec>) -> ProbeReport {
    let mut overdue = Vec::new();
    for _ in 0..3 {
        let started = Instant::now();
        let probing = async { (probe(origin, origin, spec, TIMEOUT).await, started.elapsed()) };
        let ((report, took), late) = tokio::join!(probing, lateness());
        if took <= TIMEOUT + GRACE + late {
            return report;
        }
        overdue.push((took, late));
    }
    panic!("{name}: a probe with {TIMEOUT:?} took (beside timers that were late by) {overdue:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_of_any_hostile_answer_ends_within_50_ms_of_its_timeout_and_reads_little() {
    let spec = contains(WANTED);
    for hostile in all_hostile() {
        let name = hostile.name;
        let origin = hostile.start();
        let report = within_its_time(name, &origin.address(), &spec).await;
        // A reset at once may come before our side knows that it is connected.
        let early = name == "resets at once" && report.code == Code::L4Con;
        assert!(early || report.code == hostile.code, "{name}: {} {}", report.code, report.sentence());
        assert!(report.reason.len() <= 2_048, "{name}: a reason of {} bytes", report.reason.len());
        assert_eventually(&format!("{name}: closed"), PATIENCE, || origin.open_connections() == 0).await;
        let (taken, probes) = (origin.bytes_written(), origin.accepted());
        assert!(taken <= BYTES_TAKEN_MAX * probes, "{name}: {taken} bytes were taken in {probes} probes");
    }
    let hole = BlackHole::start();
    let report = within_its_time("a black hole", &hole.address(), &spec).await;
    assert_eq!(report.code, Code::L4Tout, "{}", report.sentence());
}

/// Nothing is unpacked: the bytes of the body are compared as received.
#[tokio::test]
async fn a_compressed_body_is_compared_as_raw_bytes() {
    let origin = Origin::new().on("*").reply(Reply::raw(gzip_bomb_answer())).start().await;
    let at = origin.address();
    let report = probe(&at, &at, &contains("bomb"), PATIENCE).await;
    assert_eq!(report.code, Code::L7Ok, "{}", report.sentence());
    let report = probe(&at, &at, &contains("\0\0\0\0\0\0\0\0\0\0"), PATIENCE).await;
    assert_eq!(report.code, Code::L7Rsp, "{}", report.sentence());
    assert!(
        report.reason.contains(r#"body: "\u{1f}"#) || report.reason.contains(r#"body: "\x1f"#),
        "{}",
        report.reason
    );
}
