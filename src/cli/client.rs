//! Client of the admin API of a running process: one request on one connection, bounded in time and size, over TCP or a
//! unix socket. A host name is resolved, and each of its addresses tried.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::Failure;
use super::locate::Target;
use crate::admin::json::ErrorReply;
use crate::discovery::{Resolver, SystemResolver};
use crate::model::Address;

/// How long most requests may take.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reload may take.
pub const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest response that is read: 10,000 upstreams need about 8 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Addresses of a host name that are tried.
const ADDRESSES_MAX: usize = 8;
/// Begins the paths of requests about a pool: only these can be answered with 404, as a pool or upstream may not exist.
const POOLS: &str = "/api/v1/pools/";
/// The operator's next step where no roundsman answers.
const FIND_IT: &str = "  Is it running? `roundsman run FILE` starts it.\n  \
    If it runs with another configuration file, give that with -c FILE, or its admin address with --admin ADDRESS.";

/// A request.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// GET or POST.
    pub method: Method,
    /// Path and query.
    pub path: &'a str,
    /// JSON, or nothing.
    pub body: Bytes,
    /// How long it may take, connecting included.
    pub timeout: Duration,
}

impl<'a> Ask<'a> {
    /// A GET request.
    pub fn get(path: &'a str) -> Ask<'a> {
        Ask { method: Method::GET, path, body: Bytes::new(), timeout: TIMEOUT }
    }

    /// A POST request without a body.
    pub fn post(path: &'a str) -> Ask<'a> {
        Ask { method: Method::POST, ..Ask::get(path) }
    }

    /// The same with another timeout.
    pub fn within(self, timeout: Duration) -> Ask<'a> {
        Ask { timeout, ..self }
    }
}

/// A response.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Where it comes from.
    pub address: Address,
    /// What it answers: `GET /api/v1/status`.
    pub request: String,
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("cannot connect to roundsman at {address} ({named_by}): {source}\n{}", next_step(.source))]
    Connect {
        /// The address.
        address: Address,
        /// What named it.
        named_by: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It took too long.
    #[error("no response from {address} within {seconds} s")]
    Timeout {
        /// The address.
        address: Address,
        /// The timeout.
        seconds: u64,
    },
    /// The response is not HTTP.
    #[error("{}", foreign(.address, "its answer is not HTTP"))]
    NotHttp {
        /// The address.
        address: Address,
    },
    /// The connection broke.
    #[error("no complete response from {address}: {reason}\n{FIND_IT}")]
    Broken {
        /// The address.
        address: Address,
        /// What the library said.
        reason: String,
    },
}

/// Another program answers at this address; `why` says how that shows.
fn foreign(address: &Address, why: &str) -> String {
    format!("{address} is not the admin address of a roundsman ({why})\n{FIND_IT}")
}

/// The operator's next step after a failed connection.
fn next_step(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => FIND_IT,
        ErrorKind::PermissionDenied => "  Run this command as the user that roundsman runs as, or as root.",
        _ => "  For another admin address use --admin ADDRESS, for another configuration file -c FILE.",
    }
}

impl Answer {
    /// Parses the JSON of a response.
    ///
    /// # Errors
    /// The status is not one of `good` (then [`Answer::failure`]), or the JSON does not have the expected shape.
    pub fn json<T: DeserializeOwned>(&self, good: &[StatusCode]) -> Result<T, Failure> {
        if !good.contains(&self.status) {
            return Err(self.failure());
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            if !error.is_data() {
                return self.foreign("and a body that is not JSON");
            }
            let Answer { address, request, .. } = self;
            Failure::Runtime(format!(
                "{address} answers {request} with JSON that this version does not expect ({error}): it is another program, \
                 or a roundsman of another version\n{FIND_IT}"
            ))
        })
    }

    /// The failure when another program has answered. `more` follows the status.
    fn foreign(&self, more: &str) -> Failure {
        let why = format!("it answers {} with {} {more}", self.request, self.status.as_u16());
        Failure::Runtime(foreign(&self.address, why.trim_end()))
    }

    /// The error message of a failed request. The kind of failure is the same for every command: a pool or upstream that
    /// does not exist, an argument that the process refuses, or a failure at run time, such as an answer that is not one of
    /// the admin API: its status says nothing about the arguments.
    pub fn failure(&self) -> Failure {
        let Ok(ErrorReply { error }) = serde_json::from_slice(&self.body) else { return self.foreign("") };
        match self.status {
            StatusCode::NOT_FOUND if !self.request.contains(POOLS) => self.foreign(""),
            StatusCode::NOT_FOUND => Failure::NotFound(error),
            StatusCode::BAD_REQUEST => Failure::Usage(error),
            StatusCode::UNAUTHORIZED => {
                Failure::Runtime(format!("{error}: give the file that holds it with --token-file FILE"))
            }
            _ => Failure::Runtime(error),
        }
    }
}

/// Sends a request and waits for the complete response.
pub async fn ask(target: &Target, ask: Ask<'_>) -> Result<Answer, ClientError> {
    let address = target.address.clone();
    let seconds = ask.timeout.as_secs();
    match tokio::time::timeout(ask.timeout, connect_and_exchange(target, ask)).await {
        Ok(result) => result,
        Err(_) => Err(ClientError::Timeout { address, seconds }),
    }
}

/// [`ask`], for code that is not async.
pub fn ask_now(target: &Target, request: Ask<'_>) -> Result<Answer, Failure> {
    let runtime = runtime()?;
    runtime.block_on(ask(target, request)).map_err(|error| Failure::Runtime(error.to_string()))
}

/// The runtime of a command.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Failure::Runtime(format!("start: {error}")))
}

async fn connect_and_exchange(target: &Target, ask: Ask<'_>) -> Result<Answer, ClientError> {
    let no_connection =
        |source| ClientError::Connect { address: target.address.clone(), named_by: target.named_by.clone(), source };
    match &target.address {
        Address::Inet(address) => {
            exchange(TcpStream::connect(address).await.map_err(no_connection)?, target, &target.address, ask).await
        }
        Address::Unix(path) => {
            exchange(UnixStream::connect(path).await.map_err(no_connection)?, target, &target.address, ask).await
        }
        Address::Name { host, port } => {
            let addresses = resolve(host, *port).await.map_err(no_connection)?;
            let (stream, address) = dial(&addresses, ask.timeout).await.map_err(no_connection)?;
            // Without a token the process answers to no host name: a web page could have its name resolve to this address.
            exchange(stream, target, &Address::Inet(address), ask).await
        }
    }
}

/// The addresses of a host name, in the order of the system's preference, each once.
async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = SystemResolver::default().resolve(host).await;
    let found = found.map_err(|error| io::Error::other(format!("{host} does not resolve: {error}")))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found.into_iter().map(|ip| SocketAddr::new(ip, port)) {
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Connects to the first address that accepts. All together get half of the time, each an equal share, so that one that
/// does not answer leaves time for the others and for the exchange.
async fn dial(addresses: &[SocketAddr], within: Duration) -> io::Result<(TcpStream, SocketAddr)> {
    let share = within / 2 / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut failures: Vec<(SocketAddr, io::Error)> = Vec::new();
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, *address)),
            Ok(Err(error)) => failures.push((*address, error)),
            Err(_) => failures.push((*address, io::Error::new(ErrorKind::TimedOut, "no answer"))),
        }
    }
    // A port where nothing listens says most about the process.
    let kinds = || failures.iter().map(|(_, error)| error.kind());
    let kind = kinds().find(|kind| *kind == ErrorKind::ConnectionRefused).or_else(|| kinds().next());
    let texts: Vec<String> = failures.iter().map(|(address, error)| format!("{address}: {error}")).collect();
    Err(io::Error::new(kind.unwrap_or(ErrorKind::AddrNotAvailable), texts.join("; ")))
}

/// Sends the request to the address `dialled`, and reads the response.
async fn exchange<S>(stream: S, target: &Target, dialled: &Address, ask: Ask<'_>) -> Result<Answer, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let address = || target.address.clone();
    let broken = |reason: String| ClientError::Broken { address: address(), reason };
    let failed = |error: hyper::Error| {
        if error.is_parse() { ClientError::NotHttp { address: address() } } else { broken(error.to_string()) }
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with the exchange, or when the whole future is dropped at the deadline.
    let mut driver = tokio::spawn(connection);
    // Without the query, which says nothing to people.
    let asked = format!("{} {}", ask.method, ask.path.split('?').next().unwrap_or_default());
    let request = request(target, dialled, ask).map_err(|error| broken(error.to_string()))?;
    let answered = async {
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            // The connection ended before the request was sent: a mail server, for example, speaks first.
            Err(error) if error.is_canceled() => match (&mut driver).await {
                Ok(Err(ended)) if ended.source().is_none() => return Err(ClientError::NotHttp { address: address() }),
                Ok(Err(ended)) => return Err(failed(ended)),
                Ok(Ok(())) | Err(_) => return Err(failed(error)),
            },
            Err(error) => return Err(failed(error)),
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| broken(error.to_string()))?;
        Ok(Answer { address: address(), request: asked, status: head.status, body: body.to_bytes() })
    }
    .await;
    driver.abort();
    answered
}

fn request(target: &Target, dialled: &Address, ask: Ask<'_>) -> http::Result<Request<Full<Bytes>>> {
    let host = match dialled {
        Address::Inet(_) | Address::Name { .. } => dialled.to_string(),
        Address::Unix(_) => "localhost".to_string(),
    };
    let mut request = Request::builder().method(ask.method).uri(ask.path).header(header::HOST, host);
    request = request.header(header::USER_AGENT, concat!("roundsman/", env!("CARGO_PKG_VERSION")));
    if let Some(token) = &target.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose()));
    }
    if !ask.body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request.body(Full::new(ask.body))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Answer {
        /// A response to `request` of the process at the default address.
        pub fn of(request: &str, status: StatusCode, body: impl Into<Bytes>) -> Answer {
            let address = "127.0.0.1:9900".parse().expect("an address");
            Answer { address, request: request.to_owned(), status, body: body.into() }
        }
    }

    #[test]
    fn a_failed_request_is_the_same_kind_of_failure_for_every_command() {
        let failure = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            Answer::of("GET /api/v1/pools/api/explain", status, body.to_owned()).failure()
        };
        let error = r#"{"error":"why"}"#;
        assert!(matches!(failure(404, error), Failure::NotFound(why) if why == "why"));
        assert!(matches!(failure(400, error), Failure::Usage(why) if why == "why"));
        for status in [403, 409, 422, 500, 503] {
            assert!(matches!(failure(status, error), Failure::Runtime(why) if why == "why"), "{status}");
        }
        assert!(matches!(failure(401, error), Failure::Runtime(why) if why.contains("--token-file")));
    }

    #[test]
    fn the_answer_of_another_program_is_recognized() {
        let html = "<html>";
        for (request, status, body, says) in [
            ("GET /api/v1/status", 404, html, "(it answers GET /api/v1/status with 404)\n"),
            ("GET /api/v1/status", 404, r#"{"error":"Not Found"}"#, "(it answers GET /api/v1/status with 404)\n"),
            ("GET /api/v1/pools/api/explain", 404, html, "(it answers GET /api/v1/pools/api/explain with 404)\n"),
            ("POST /api/v1/reload", 501, "", "(it answers POST /api/v1/reload with 501)\n"),
            ("GET /api/v1/status", 200, html, "(it answers GET /api/v1/status with 200 and a body that is not JSON)\n"),
            ("GET /api/v1/status", 200, "", "(it answers GET /api/v1/status with 200 and a body that is not JSON)\n"),
        ] {
            let answer = Answer::of(request, StatusCode::from_u16(status).expect("a status"), body);
            let failure = answer.json::<crate::admin::json::StatusReply>(&[StatusCode::OK]).expect_err("it is foreign");
            let want = format!("127.0.0.1:9900 is not the admin address of a roundsman {says}{FIND_IT}");
            assert!(matches!(&failure, Failure::Runtime(why) if *why == want), "{failure}");
        }
        let other = Answer::of("GET /api/v1/status", StatusCode::OK, r#"{"status":"ok"}"#);
        let failure =
            other.json::<crate::admin::json::StatusReply>(&[StatusCode::OK]).expect_err("no status").to_string();
        let says =
            "127.0.0.1:9900 answers GET /api/v1/status with JSON that this version does not expect (missing field ";
        assert!(failure.starts_with(says) && failure.ends_with(FIND_IT), "{failure}");
    }

    #[tokio::test]
    async fn every_address_of_a_name_is_tried() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let good = listener.local_addr().expect("an address");
        let free = || std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let (refusing, other) = (free(), free());
        let dialled = dial(&[refusing, good], TIMEOUT).await.expect("the second accepts").1;
        assert_eq!(dialled, good);
        let error = dial(&[refusing, other], TIMEOUT).await.expect_err("nothing listens");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let refused = "Connection refused (os error 111)";
        assert_eq!(error.to_string(), format!("{refusing}: {refused}; {other}: {refused}"));
        assert_eq!(dial(&[], TIMEOUT).await.expect_err("no address").kind(), ErrorKind::AddrNotAvailable);
        let unknown = resolve("nosuch.invalid", 1).await.expect_err("RFC 6761, section 6.4").to_string();
        assert!(unknown.starts_with("nosuch.invalid does not resolve: "), "{unknown}");
    }
}
