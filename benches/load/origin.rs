//! The origin for what nginx cannot answer from a configuration: chunked responses of eight chunks, written in three ways,
//! and WebSocket echo. One blocking thread per connection.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::wire::{Connection, MESSAGE_BYTES, WEBSOCKET_ACCEPT, WEBSOCKET_KEY, field, frame};

const STACK_BYTES: usize = 128 * 1024;
/// More connections than any case opens; one more is closed at once.
const CONNECTIONS_MAX: usize = 2_000;
const CHUNKS: usize = 8;
const CHUNK_BYTES: usize = 512;
const END: &[u8] = b"0\r\n\r\n";
/// Between the chunks of `/chunks-apart`: longer than any proxy needs for a chunk, so that each must be passed on alone.
const PAUSE: Duration = Duration::from_millis(2);

/// Accepts until accepting fails.
pub fn serve(listener: &TcpListener) -> io::Result<()> {
    let connections = Arc::new(());
    loop {
        let (stream, _) = listener.accept()?;
        if Arc::strong_count(&connections) > CONNECTIONS_MAX {
            continue;
        }
        let counted = Arc::clone(&connections);
        let serve = move || {
            // Clients and proxies close whenever they like; the load generator counts what went wrong.
            let _ = serve_connection(stream);
            drop(counted);
        };
        thread::Builder::new().stack_size(STACK_BYTES).spawn(serve)?;
    }
}

fn serve_connection(stream: TcpStream) -> io::Result<()> {
    let mut connection = Connection::over(stream, None)?;
    while let Some(head) = connection.take_head()? {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let stream = &mut connection.stream;
        match path {
            "/chunks" => write_chunks(stream, Duration::ZERO)?,
            "/chunks-apart" => write_chunks(stream, PAUSE)?,
            "/chunks-at-once" => stream.write_all(&[chunked_head(), &chunk().repeat(CHUNKS), END].concat())?,
            "/echo" if field(&head, "sec-websocket-key") == Some(WEBSOCKET_KEY) => return echo(connection),
            "/" | "/close" => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")?,
            _ => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?,
        }
        let close = field(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if close || path == "/close" {
            return Ok(());
        }
    }
    Ok(())
}

/// Nine writes, as of an application that flushes after each piece: the head with the first chunk, seven chunks, the end.
fn write_chunks(stream: &mut TcpStream, pause: Duration) -> io::Result<()> {
    stream.write_all(&[chunked_head(), &chunk()].concat())?;
    for _ in 1..CHUNKS {
        if !pause.is_zero() {
            thread::sleep(pause);
        }
        stream.write_all(&chunk())?;
    }
    stream.write_all(END)
}

fn chunked_head() -> &'static [u8] {
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
}

fn chunk() -> Vec<u8> {
    let mut chunk = format!("{CHUNK_BYTES:x}\r\n").into_bytes();
    chunk.extend(b"0123456789abcdef".repeat(CHUNK_BYTES / 16));
    chunk.extend(b"\r\n");
    chunk
}

fn echo(mut connection: Connection) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {WEBSOCKET_ACCEPT}\r\n\r\n"
    );
    connection.stream.write_all(head.as_bytes())?;
    while let Some(payload) = connection.message(true)? {
        let payload: [u8; MESSAGE_BYTES] = payload.try_into().map_err(io::Error::other)?;
        connection.stream.write_all(&frame(&payload, false))?;
    }
    Ok(())
}
