//! A backend that can be killed: its listener closes and every connection is reset, as after `kill -9`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

/// The delay of a slow backend's responses: longer than the check's timeout.
pub const SLOW: Duration = Duration::from_millis(900);
/// A head larger than this is not from our proxy.
const HEAD_MAX: usize = 16 * 1024;

/// How a backend behaves while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Answers at once.
    Well = 0,
    /// Answers late.
    Slow = 1,
    /// Answers its check with 500, everything else with 200.
    Sick = 2,
}

/// One backend.
#[derive(Debug)]
pub struct Backend {
    /// Where it listens, dead or alive.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    alive: Mutex<Option<watch::Sender<bool>>>,
}

#[derive(Debug)]
struct Shared {
    name: usize,
    mood: AtomicU8,
    served: AtomicU64,
}

impl Backend {
    /// A living backend on a free port.
    pub async fn start(name: usize) -> io::Result<Backend> {
        let listener = listen(([127, 0, 0, 1], 0).into())?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { name, mood: AtomicU8::new(0), served: AtomicU64::new(0) });
        let backend = Backend { address, shared, alive: Mutex::new(None) };
        backend.live(listener);
        Ok(backend)
    }

    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        self.alive.lock().is_some()
    }

    /// Closes its listener and resets every connection.
    pub fn kill(&self) {
        *self.alive.lock() = None;
    }

    /// Listens again on the same address.
    pub async fn revive(&self) -> io::Result<()> {
        if self.is_alive() {
            return Ok(());
        }
        // The old listener closes when its task is dropped, which takes a moment.
        for _ in 0..200 {
            match listen(self.address) {
                Ok(listener) => {
                    self.live(listener);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// Changes how it behaves.
    pub fn set(&self, mood: Mood) {
        self.shared.mood.store(mood as u8, Ordering::Relaxed);
    }

    /// How it behaves.
    pub fn mood(&self) -> Mood {
        self.shared.mood()
    }

    /// Requests it answered, checks not counted.
    pub fn served(&self) -> u64 {
        self.shared.served.load(Ordering::Relaxed)
    }

    fn live(&self, listener: TcpListener) {
        let (alive, dead) = watch::channel(true);
        *self.alive.lock() = Some(alive);
        tokio::spawn(accept(listener, self.shared.clone(), dead));
    }
}

impl Shared {
    fn mood(&self) -> Mood {
        match self.mood.load(Ordering::Relaxed) {
            1 => Mood::Slow,
            2 => Mood::Sick,
            _ => Mood::Well,
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1_024)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut dead: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            _ = dead.changed() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let (shared, mut dead) = (shared.clone(), dead.clone());
        tokio::spawn(async move {
            let mut stream = stream;
            let killed = tokio::select! {
                _ = dead.changed() => true,
                _ = serve(&mut stream, &shared) => false,
            };
            if killed {
                // Closing with a linger time of zero sends a reset.
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
        });
    }
}

async fn serve(stream: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buf = Vec::with_capacity(1_024);
    loop {
        let Some(end) = buf.windows(4).position(|window| window == b"\r\n\r\n") else {
            if buf.len() > HEAD_MAX || stream.read_buf(&mut buf).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let is_check = buf.starts_with(b"GET /healthz ");
        let close = buf[..end].windows(17).any(|window| window.eq_ignore_ascii_case(b"connection: close"));
        buf.drain(..end + 4);
        let mood = shared.mood();
        if mood == Mood::Slow {
            tokio::time::sleep(SLOW).await;
        }
        let (status, body) = match (is_check, mood) {
            (true, Mood::Sick) => {
                ("500 Internal Server Error", "{\"status\":\"unhealthy\",\"reason\":\"demo\"}".into())
            }
            (true, Mood::Well | Mood::Slow) => ("200 OK", "{\"status\":\"healthy\"}".into()),
            (false, _) => {
                shared.served.fetch_add(1, Ordering::Relaxed);
                ("200 OK", format!("hello from backend {}\n", shared.name))
            }
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await?;
        if close {
            return Ok(());
        }
    }
}
