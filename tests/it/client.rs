//! A client that keeps one connection, over TCP or a unix socket, and sees heads as well as bodies.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

/// The longest wait for a response.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

/// A response.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The header fields.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as text, without its last line end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end_matches('\n').to_owned()
    }
}

impl Client {
    /// Connects; panics if nothing listens there.
    pub async fn connect(address: SocketAddr) -> Client {
        Client::try_connect(address).await.unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    /// Connects, or says why not.
    pub async fn try_connect(address: SocketAddr) -> Result<Client, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        Client::over(stream).await
    }

    /// Connects to a unix socket.
    pub async fn connect_unix(path: &Path) -> Client {
        let stream = UnixStream::connect(path).await.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Client::over(stream).await.expect("a handshake needs no peer")
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Client, String> {
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, driver) = handshake.map_err(|error| error.to_string())?;
        // How the connection ended shows in the response, or in its absence.
        let driver = tokio::spawn(async move { drop(driver.await) });
        Ok(Client { sender, driver })
    }

    /// A GET; panics when there is no answer.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[]).await.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// A request with these fields beside Host.
    pub async fn send(&mut self, method: &str, path: &str, fields: &[(&str, &str)]) -> Result<Answer, String> {
        let exchange = async {
            self.sender.ready().await.map_err(|error| format!("{error:?}"))?;
            let mut request = hyper::Request::builder().method(method).uri(path).header("host", "127.0.0.1");
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let request = request.body(Full::<Bytes>::default()).expect("a good request");
            let response = self.sender.send_request(request).await.map_err(|error| format!("{error:?}"))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| format!("body: {error:?}"))?.to_bytes();
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| Err(format!("no answer in {PATIENCE:?}")))
    }

    /// Waits until the peer has closed the connection; panics if it does not.
    pub async fn wait_for_close(self, within: Duration) {
        let Client { sender, driver } = self;
        assert!(tokio::time::timeout(within, driver).await.is_ok(), "the connection is open after {within:?}");
        drop(sender);
    }

    /// Whether it is open: the peer has not closed it.
    pub fn is_open(&self) -> bool {
        !self.driver.is_finished()
    }
}

/// One GET on a new connection, with its head.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    Client::connect(address).await.get(path).await
}
