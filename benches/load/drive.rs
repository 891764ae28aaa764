//! The kinds of load. Each runs one thread per connection and adds up what the threads counted. A request is counted once
//! its whole response has come; anything else is an error, and after ten errors a thread gives up.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::wire::{Connection, MESSAGE_BYTES, fault, field, frame, status};

const STACK_BYTES: usize = 128 * 1024;
const ERRORS_MAX: u64 = 10;

/// Where the load goes.
pub struct Load {
    pub to: SocketAddr,
    pub path: String,
    pub connections: usize,
}

#[derive(Default)]
pub struct Report {
    pub requests: u64,
    pub errors: u64,
    pub seconds: f64,
    /// The first error, in words.
    fault: Option<String>,
    /// From the time a request was due until its response was complete.
    latencies: Vec<Duration>,
    /// From the time a request was due until it was sent.
    delays: Vec<Duration>,
}

impl Report {
    pub fn json(&self) -> String {
        let micros = |times: &[Duration], share: f64| quantile(times, share).as_nanos() as f64 / 1e3;
        let plain = |c: &char| (c.is_ascii_graphic() || *c == ' ') && !matches!(c, '"' | '\\');
        let fault: String = self.fault.iter().flat_map(|text| text.chars()).filter(plain).collect();
        format!(
            "{{\"requests\":{},\"errors\":{},\"seconds\":{:.6},\"p50_us\":{:.1},\"p99_us\":{:.1},\"p999_us\":{:.1},\
             \"late_p50_us\":{:.1},\"late_p99_us\":{:.1},\"fault\":\"{}\"}}",
            self.requests,
            self.errors,
            self.seconds,
            micros(&self.latencies, 0.5),
            micros(&self.latencies, 0.99),
            micros(&self.latencies, 0.999),
            micros(&self.delays, 0.5),
            micros(&self.delays, 0.99),
            fault
        )
    }

    fn good(&mut self, latency: Duration) {
        self.requests += 1;
        self.latencies.push(latency);
    }

    /// Whether the thread should go on after an error.
    fn bad(&mut self, error: &io::Error) -> bool {
        self.errors += 1;
        self.fault.get_or_insert_with(|| error.to_string());
        self.errors < ERRORS_MAX
    }

    fn add(&mut self, other: Report) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.fault = self.fault.take().or(other.fault);
        self.latencies.extend(other.latencies);
        self.delays.extend(other.delays);
    }
}

/// The time that this share of the sorted times does not exceed; zero if there are none.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Runs `work` in one thread per connection, and adds up what the threads report.
fn in_threads<T: Send>(connections: impl IntoIterator<Item = T>, work: impl Fn(T) -> Report + Sync) -> Report {
    let begin = Instant::now();
    let mut total = Report::default();
    thread::scope(|scope| {
        let work = &work;
        let spawn = |connection| {
            let builder = thread::Builder::new().stack_size(STACK_BYTES);
            builder.spawn_scoped(scope, move || work(connection)).expect("a thread per connection")
        };
        let threads: Vec<_> = connections.into_iter().map(spawn).collect();
        threads.into_iter().for_each(|thread| total.add(thread.join().expect("it does not panic")));
    });
    total.seconds = begin.elapsed().as_secs_f64();
    total.latencies.sort_unstable();
    total.delays.sort_unstable();
    total
}

/// A new connection per request. The request says `Connection: close`, and the thread reads until the server has closed:
/// the server is the side that keeps the port in TIME_WAIT. At least one request per connection.
pub fn fresh(load: &Load, time: Duration) -> Report {
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", load.path, load.to);
    let end = Instant::now() + time;
    in_threads(0..load.connections, |_| {
        let mut report = Report::default();
        loop {
            let begin = Instant::now();
            match once(load.to, request.as_bytes()) {
                Ok(()) => report.good(begin.elapsed()),
                Err(error) => {
                    if !report.bad(&error) {
                        return report;
                    }
                }
            }
            if Instant::now() >= end {
                return report;
            }
        }
    })
}

fn once(to: SocketAddr, request: &[u8]) -> io::Result<()> {
    let mut connection = Connection::open(to)?;
    connection.stream.write_all(request)?;
    let head = connection.take_head()?.ok_or_else(|| fault("closed before the response"))?;
    let body = connection.drain()?;
    let length = field(&head, "content-length").and_then(|value| value.parse::<usize>().ok());
    // A chunked body is not read further: that it ended is enough.
    let whole = length.map_or(field(&head, "transfer-encoding") == Some("chunked"), |length| length == body);
    if status(&head) != Some(200) || !whole {
        return Err(fault(&format!("{} with {body} bytes of body", head.lines().next().unwrap_or_default())));
    }
    Ok(())
}

/// WebSocket messages that must come back as they were, one in flight per connection. At least one message each; a
/// connection ends at its first error.
pub fn echo(load: &Load, time: Duration) -> Report {
    let payload: [u8; MESSAGE_BYTES] = std::array::from_fn(|index| index as u8);
    let message = frame(&payload, true);
    let end = Instant::now() + time;
    in_threads(0..load.connections, |_| {
        let mut report = Report::default();
        let mut talk = || -> io::Result<()> {
            let mut connection = Connection::open(load.to)?;
            connection.upgrade(&load.path, load.to)?;
            loop {
                let begin = Instant::now();
                connection.stream.write_all(&message)?;
                match connection.message(false)? {
                    Some(back) if back == payload => report.good(begin.elapsed()),
                    Some(_) => return Err(fault("another message came back")),
                    None => return Err(fault("closed before the message came back")),
                }
                if Instant::now() >= end {
                    return Ok(());
                }
            }
        };
        if let Err(error) = talk() {
            report.bad(&error);
        }
        report
    })
}

/// `total` requests at `rate` per second over all connections, each due at its own time whatever happened to those before.
/// A latency counts from the time the request was due, so that a request that had to wait for its connection, or for this
/// program to be scheduled, is not forgotten. Every connection has had one response before the first request is due.
pub fn rate(load: &Load, rate: f64, total: u64) -> Report {
    // Linux rounds a sleep up by 50 us otherwise, which is what a whole exchange takes. New threads inherit this.
    let _ = fs::write("/proc/self/timerslack_ns", "1");
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", load.path, load.to);
    let opened: Vec<(usize, io::Result<Connection>)> = (0..load.connections)
        .map(|number| {
            let opened = Connection::open(load.to).and_then(|mut connection| {
                connection.exchange(request.as_bytes())?;
                Ok(connection)
            });
            (number, opened)
        })
        .collect();
    let begin = Instant::now() + Duration::from_millis(5);
    let mut report = in_threads(opened, |(number, mut connection)| {
        let mut report = Report::default();
        for request_number in (number as u64..total).step_by(load.connections) {
            let due = begin + Duration::from_secs_f64(request_number as f64 / rate);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            report.delays.push(due.elapsed());
            let done = match &mut connection {
                Ok(connection) => connection.exchange(request.as_bytes()),
                Err(error) => Err(fault(&error.to_string())),
            };
            match done {
                Ok(()) => report.good(due.elapsed()),
                Err(error) => {
                    if !report.bad(&error) {
                        return report;
                    }
                    connection = Connection::open(load.to);
                }
            }
        }
        report
    });
    report.seconds = begin.elapsed().as_secs_f64();
    report
}

/// Opens the connections one after the other, each with one request, then calls `wait`. A connection that the server has
/// closed by then is an error.
pub fn idle(load: &Load, wait: impl FnOnce()) -> Report {
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", load.path, load.to);
    let begin = Instant::now();
    let mut report = Report::default();
    let mut open = Vec::new();
    for _ in 0..load.connections {
        let opened = Connection::open(load.to).and_then(|mut connection| {
            connection.exchange(request.as_bytes())?;
            // Only the socket stays: the buffers of thousands of connections would crowd out what is measured.
            connection.stream.set_nonblocking(true)?;
            Ok(connection.stream)
        });
        match opened {
            Ok(stream) => open.push(stream),
            Err(error) => {
                if !report.bad(&error) {
                    break;
                }
            }
        }
    }
    wait();
    for stream in &open {
        match stream.peek(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => report.requests += 1,
            Err(error) => drop(report.bad(&error)),
            Ok(count) => drop(report.bad(&fault(if count == 0 { "closed while idle" } else { "unasked bytes" }))),
        }
    }
    report.seconds = begin.elapsed().as_secs_f64();
    report
}
