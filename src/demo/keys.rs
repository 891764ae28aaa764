//! Single keys from a terminal. The terminal is put back as it was when this is dropped.

use std::io::{IsTerminal as _, Read as _};
use std::os::fd::AsFd;

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};
use tokio::sync::mpsc;

/// Whether standard input is a terminal whose keys are for us. In the background of a shell they are not, and reading or
/// changing the terminal would stop the process.
pub fn ours() -> bool {
    let stdin = std::io::stdin();
    stdin.is_terminal() && tcgetpgrp(stdin.as_fd()).map_or(true, |group| group == getpgrp())
}

/// A terminal that gives each key as it is pressed.
pub struct Keys {
    before: Termios,
    keys: mpsc::Receiver<u8>,
}

impl Keys {
    /// Takes the terminal; `None` if standard input is not one.
    pub fn take() -> Option<Keys> {
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd()).ok()?;
        let mut raw = before.clone();
        // ISIG too: an interrupt that ended us at once would leave the terminal without echo.
        raw.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).ok()?;
        let (sender, keys) = mpsc::channel(16);
        // A thread of its own: a read from a terminal cannot be cancelled, and must not hold up the end of a runtime.
        std::thread::spawn(move || {
            for key in std::io::stdin().lock().bytes().map_while(Result::ok) {
                if sender.blocking_send(key).is_err() {
                    return;
                }
            }
        });
        Some(Keys { before, keys })
    }

    /// The next key; `q` when the terminal is gone. Cancel-safe.
    pub async fn next(&mut self) -> u8 {
        self.keys.recv().await.unwrap_or(b'q')
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, &self.before);
    }
}
