//! Single keys from a terminal. Dropping [`Keys`] restores the mode of the terminal.

use std::io::{IsTerminal as _, Read as _};
use std::os::fd::AsFd;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};
use tokio::sync::mpsc;

/// Whether stdin is a terminal and this process is in its foreground. In the background, reading or changing the
/// terminal would stop the process.
pub fn ours() -> bool {
    let stdin = std::io::stdin();
    stdin.is_terminal() && tcgetpgrp(stdin.as_fd()).map_or(true, |group| group == getpgrp())
}

/// A terminal that delivers each key at once.
pub struct Keys {
    before: Termios,
    keys: mpsc::Receiver<u8>,
}

impl Keys {
    /// Changes the mode of the terminal; `None` if stdin is not a terminal.
    pub fn take() -> Option<Keys> {
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd()).ok()?;
        let mut raw = before.clone();
        // ISIG too: a process ended by an interrupt would leave the terminal without echo.
        raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).ok()?;
        let (sender, keys) = mpsc::channel(16);
        // A separate thread: a read from a terminal cannot be cancelled and must not delay the end of the runtime.
        std::thread::spawn(move || {
            for key in std::io::stdin().lock().bytes().map_while(Result::ok) {
                if sender.blocking_send(key).is_err() {
                    return;
                }
            }
        });
        Some(Keys { before, keys })
    }

    /// The next key; `q` if the terminal is closed. Cancel-safe.
    pub async fn next(&mut self) -> u8 {
        self.keys.recv().await.unwrap_or(b'q')
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, &self.before);
    }
}
