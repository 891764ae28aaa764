//! Client of the admin API of a running process: one request on one connection, bounded in time and size, over TCP or a
//! unix socket.

use std::io::ErrorKind;
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
use crate::model::Address;

/// How long most requests may take.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reload may take.
pub const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest response that is read: 10,000 upstreams need about 8 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

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
    /// The connection broke, or the response is not HTTP.
    #[error("no complete response from {address}: {reason} (is this the admin address of roundsman?)")]
    Broken {
        /// The address.
        address: Address,
        /// What the library said.
        reason: String,
    },
}

/// The operator's next step after a failed connection.
fn next_step(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => {
            "  Is it running? `roundsman run FILE` starts it.\n  \
             If it runs with another configuration file, give that with -c FILE, or its admin address with --admin ADDRESS."
        }
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
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::Runtime(format!("the response is not what this version expects: {error}")))
    }

    /// The error message of a failed request, or its status if the body has none. The kind of failure is the same for
    /// every command: a pool or upstream that does not exist, an argument that the process refuses, or a failure at run
    /// time.
    pub fn failure(&self) -> Failure {
        let Ok(ErrorReply { error }) = serde_json::from_slice(&self.body) else {
            // Not an answer of the admin API: its status says nothing about the arguments.
            return Failure::Runtime(self.status.to_string());
        };
        match self.status {
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
            exchange(TcpStream::connect(address).await.map_err(no_connection)?, target, ask).await
        }
        Address::Unix(path) => exchange(UnixStream::connect(path).await.map_err(no_connection)?, target, ask).await,
        Address::Name { .. } => Err(no_connection(ErrorKind::AddrNotAvailable.into())),
    }
}

async fn exchange<S>(stream: S, target: &Target, ask: Ask<'_>) -> Result<Answer, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |reason: String| ClientError::Broken { address: target.address.clone(), reason };
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(error.to_string()))?;
    // Ends with the exchange, or when the whole future is dropped at the deadline.
    let driver = tokio::spawn(connection);
    let request = request(target, ask).map_err(|error| broken(error.to_string()))?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| broken(error.to_string()))?;
        Ok(Answer { status: head.status, body: body.to_bytes() })
    }
    .await;
    driver.abort();
    answered
}

fn request(target: &Target, ask: Ask<'_>) -> http::Result<Request<Full<Bytes>>> {
    let host = match &target.address {
        Address::Inet(_) | Address::Name { .. } => target.address.to_string(),
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

    #[test]
    fn a_failed_request_is_the_same_kind_of_failure_for_every_command() {
        let failure = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).expect("a status");
            Answer { status, body: Bytes::copy_from_slice(body.as_bytes()) }.failure()
        };
        let error = r#"{"error":"why"}"#;
        assert!(matches!(failure(404, error), Failure::NotFound(why) if why == "why"));
        assert!(matches!(failure(400, error), Failure::Usage(why) if why == "why"));
        for status in [403, 409, 422, 500, 503] {
            assert!(matches!(failure(status, error), Failure::Runtime(why) if why == "why"), "{status}");
        }
        assert!(matches!(failure(401, error), Failure::Runtime(why) if why.contains("--token-file")));
        // Another server, or a proxy in between.
        assert!(matches!(failure(404, "<html>"), Failure::Runtime(why) if why == "404 Not Found"));
    }
}
