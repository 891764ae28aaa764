//! A terminal for a program under test: what it shows, keys for it, and the mode that it is in.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};
use tokio::time::Instant;

/// The longest wait for a text.
const PATIENCE: Duration = Duration::from_secs(120);

/// Our side of a terminal.
pub struct Terminal {
    ours: File,
    /// A descriptor of the program's side, which shows the terminal's mode after the program has ended.
    theirs: OwnedFd,
    shown: Arc<Mutex<String>>,
    /// Ends the thread that reads.
    closed: Arc<AtomicBool>,
}

impl Terminal {
    /// A terminal with this many columns and rows.
    pub fn open(columns: u16, rows: u16) -> Terminal {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).expect("a terminal");
        let ours = File::from(pty.master);
        let mut reader = ours.try_clone().expect("a descriptor");
        let shown = Arc::new(Mutex::new(String::new()));
        let closed = Arc::new(AtomicBool::new(false));
        let (seen, stop) = (shown.clone(), closed.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !stop.load(Ordering::SeqCst) {
                let mut ready = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
                if poll(&mut ready, 20_u16) == Ok(0) {
                    continue;
                }
                let Ok(count @ 1..) = reader.read(&mut buffer) else { return };
                seen.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Terminal { ours, theirs: pty.slave, shown, closed }
    }

    /// Starts a program on it.
    pub fn run(&self, command: &mut Command) -> Child {
        let side = || Stdio::from(self.theirs.try_clone().expect("a descriptor"));
        command.stdin(side()).stdout(side()).stderr(side()).spawn().expect("it can be started")
    }

    /// Everything shown so far.
    pub fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    /// Waits until `text` has been shown `times` times, or panics with everything that was.
    #[track_caller]
    pub fn shows(&self, text: &str, times: usize) {
        let end = Instant::now() + PATIENCE;
        while self.shown().matches(text).count() < times {
            assert!(Instant::now() < end, "{text:?} was not shown {times} times:\n{}", self.shown());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.ours.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Whether it shows what is typed and takes lines, as a shell leaves it.
    pub fn is_cooked(&self) -> bool {
        let flags = tcgetattr(self.theirs.as_fd()).expect("the terminal's mode").local_flags;
        flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }

    /// Closes our descriptors, as when a window is closed.
    pub fn close(&mut self) {
        let null = || File::options().read(true).write(true).open("/dev/null").expect("/dev/null");
        self.closed.store(true, Ordering::SeqCst);
        self.ours = null();
        self.theirs = null().into();
    }
}
