//! What a request costs in the steady state of the express lane: no allocation. `benches/compare --syscalls` counts its
//! system calls.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use roundsman::model::Address;
use roundsman::model::policy::Lane;
use roundsman::proxy::Workers;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::rig::Rig;

/// Requests before those that are counted: buffers have found their sizes.
const WARM_UP: usize = 200;
const COUNTED: usize = 10_000;

/// Answers every request on every connection with these bytes.
fn origin(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
                let mut stream = stream;
                while read_message(&mut reader) {
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Reads one message with a length, chunks that end in `0\r\n\r\n`, or no body; false at the end of the connection.
fn read_message(reader: &mut impl BufRead) -> bool {
    let (mut line, mut length, mut chunked) = (String::new(), 0, false);
    loop {
        line.clear();
        match reader.read_line(&mut line) {
            Ok(n) if n > 0 => {}
            _ => return false,
        }
        if line == "\r\n" {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap_or_default();
        match name {
            "Content-Length" => length = value.trim().parse().expect("a number"),
            "Transfer-Encoding" => chunked = true,
            _ => {}
        }
    }
    if chunked {
        while line != "0\r\n" {
            line.clear();
            if !matches!(reader.read_line(&mut line), Ok(n) if n > 0) {
                return false;
            }
        }
        length = 2;
    }
    reader.read_exact(&mut vec![0; length]).is_ok()
}

#[test]
fn ten_thousand_requests_on_a_kept_connection_allocate_nothing() {
    const HOST: &str = "Host: a\r\nUser-Agent: x/1\r\nAccept: */*\r\n";
    let get = format!("GET /path?query HTTP/1.1\r\n{HOST}\r\n");
    let post = format!("POST /path HTTP/1.1\r\n{HOST}Content-Length: 1024\r\n\r\n{}", "x".repeat(1_024));
    let chunked = format!("POST /path HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let short = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 5\r\n\r\nhello";
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n2\r\n, \r\n0\r\n\r\n";
    for (request, answer) in [(&get, short), (&get, chunks), (&post, short), (&chunked, chunks)] {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let upstream = Address::Inet(origin(answer));
        let rig =
            runtime.block_on(async { Rig::build_in(Lane::Auto, &[upstream], Workers::on(Handle::current()), 100) });
        let (warm, is_warm) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        let (address, sent) = (rig.address, request.clone());
        let client = thread::spawn(move || {
            let stream = TcpStream::connect(address).expect("it listens");
            let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
            let mut stream = stream;
            let mut ask = |times: usize| {
                for _ in 0..times {
                    stream.write_all(sent.as_bytes()).expect("it reads");
                    assert!(read_message(&mut reader), "it answers");
                }
            };
            ask(WARM_UP);
            warm.send(()).expect("somebody waits");
            ask(COUNTED);
            done.send(()).expect("somebody waits");
        });
        runtime.block_on(is_warm).expect("the client warms up");
        // On this thread, which is the worker's: client and origin have threads of their own.
        let counted = allocation_counter::measure(|| runtime.block_on(is_done).expect("the client ends"));
        client.join().expect("the client did not fail");
        assert_eq!(rig.upstreams[0].requests_total(), (WARM_UP + COUNTED) as u64);
        assert_eq!(counted.count_total, 0, "allocations, {} bytes in all: {request:?}", counted.bytes_total);
    }
}
