//! Finds files of checks (secrets, certificates, keys) that have changed on disk since they were read. A separate thread
//! compares them when a check fails and for `explain`, `/health` and status. The checker never waits for it: if a file
//! cannot be read (a network file system that hangs), only the hint is missing. Reports which file has changed, never its
//! content.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::load::{REFERRED_BYTES_MAX, read_bounded};
use crate::model::policy::CheckFile;
use crate::pool::{CheckFiles, Explanation, Status};

/// Questions that may wait; more get no answer.
const QUESTIONS_MAX: usize = 1_024;
/// After this time of reading, the thread counts as blocked and gets no more questions.
const BLOCKED_AFTER: Duration = Duration::from_secs(1);
/// How long an explanation waits for the comparison of its files, and a status for that of all pools together.
const ANSWER_MAX: Duration = Duration::from_millis(200);

/// Compares the files of checks with those of this machine.
#[derive(Default)]
pub struct DiskFiles {
    questions: OnceLock<Option<SyncSender<Question>>>,
    /// Since when the thread reads, while it does.
    busy_since: Arc<Mutex<Option<Instant>>>,
}

struct Question {
    files: Vec<CheckFile>,
    then: Box<dyn FnOnce(Option<String>) + Send>,
}

impl CheckFiles for DiskFiles {
    fn compare(&self, files: Vec<CheckFile>, then: Box<dyn FnOnce(Option<String>) + Send>) {
        let blocked = self.busy_since.lock().is_some_and(|since| since.elapsed() > BLOCKED_AFTER);
        let Some(questions) = self.questions.get_or_init(|| start(self.busy_since.clone())) else { return then(None) };
        if files.is_empty() || blocked {
            return then(None);
        }
        match questions.try_send(Question { files, then }) {
            Ok(()) => {}
            Err(TrySendError::Full(question) | TrySendError::Disconnected(question)) => (question.then)(None),
        }
    }
}

impl DiskFiles {
    /// Adds the hints to the reasons of the explanation. Blocks for at most 0.2 s; what is not known then is left out.
    pub fn explain(&self, explanation: &mut Explanation) {
        explanation.add_file_hints(self.answers());
    }

    /// The same for every pool of a status, in 0.2 s for all together.
    pub fn add_hints(&self, status: &mut Status) {
        let mut answers = self.answers();
        for pool in &mut status.pools {
            if pool.add_file_hints(&mut answers).is_err() {
                return;
            }
        }
    }

    /// Compares files until the time is up.
    fn answers(&self) -> impl FnMut(Vec<CheckFile>) -> Result<Option<String>, RecvTimeoutError> + '_ {
        let until = Instant::now() + ANSWER_MAX;
        move |files| self.compare_within(files, until.saturating_duration_since(Instant::now()))
    }

    fn compare_within(&self, files: Vec<CheckFile>, time: Duration) -> Result<Option<String>, RecvTimeoutError> {
        if files.is_empty() {
            return Ok(None);
        }
        let (answer, answered) = sync_channel(1);
        // The receiver may have timed out.
        self.compare(files, Box::new(move |sentence| drop(answer.try_send(sentence))));
        answered.recv_timeout(time)
    }
}

/// Starts the thread, which ends when the sender is dropped.
fn start(busy_since: Arc<Mutex<Option<Instant>>>) -> Option<SyncSender<Question>> {
    let (questions, asked) = sync_channel(QUESTIONS_MAX);
    let thread = std::thread::Builder::new().name("secrets".into());
    thread.spawn(move || run(&asked, &busy_since)).ok()?;
    Some(questions)
}

fn run(asked: &Receiver<Question>, busy_since: &Mutex<Option<Instant>>) {
    while let Ok(Question { files, then }) = asked.recv() {
        *busy_since.lock() = Some(Instant::now());
        let sentence = sentence(&files);
        *busy_since.lock() = None;
        then(sentence);
    }
}

/// `Authorization is read from /run/token, which has changed since; reload to read it`.
fn sentence(files: &[CheckFile]) -> Option<String> {
    let mut sentences: Vec<String> = vec![];
    for file in files {
        let (what, Some(path)) = (&file.what, file.path()) else { continue };
        let sentence = match read_bounded(Path::new(path), REFERRED_BYTES_MAX) {
            Ok(content) if file.is_held_by(&content) => continue,
            Ok(_) => format!("{what} is read from {path}, which has changed since; reload to read it"),
            Err(problem) => format!("{what} was read from {path}, which {problem}"),
        };
        if !sentences.contains(&sentence) {
            sentences.push(sentence);
        }
    }
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;
    use crate::model::policy::{FileMark, ReadFile};

    /// The answer, however long it takes.
    fn compared(disk: &DiskFiles, files: Vec<CheckFile>) -> Option<String> {
        let (answer, answered) = sync_channel(1);
        disk.compare(files, Box::new(move |sentence| answer.send(sentence).expect("the test waits")));
        answered.recv_timeout(Duration::from_secs(60)).expect("an answer")
    }

    fn secret(file: &Path, read: &str) -> CheckFile {
        let secret = Secret::with_prefix("Bearer ", read).from_file(&file.display().to_string(), read);
        CheckFile { what: "Authorization".to_owned(), read: ReadFile::Secret(secret) }
    }

    #[test]
    fn a_secret_that_has_changed_is_named_and_its_content_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("token");
        let (path, files) = (file.display(), DiskFiles::default());
        let asked = || compared(&files, vec![secret(&file, "hunter2"), secret(&file, "hunter2")]);
        for same in ["hunter2", "hunter2\n"] {
            std::fs::write(&file, same).expect("write");
            assert_eq!(asked(), None);
        }
        for other in [&b"hunter3\n"[..], b"", b"\xff"] {
            std::fs::write(&file, other).expect("write");
            let want = format!("Authorization is read from {path}, which has changed since; reload to read it");
            assert_eq!(asked(), Some(want));
        }
        std::fs::remove_file(&file).expect("remove");
        let want = format!("Authorization was read from {path}, which cannot be read: No such file or directory");
        assert_eq!(asked(), Some(want));
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        let want = format!("Authorization was read from {path}, which is a FIFO, not a file");
        assert_eq!(asked(), Some(want), "without waiting for its writer");
    }

    #[test]
    fn a_certificate_that_has_changed_is_named_however_large_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("ca.pem");
        let (path, files, bundle) = (file.display(), DiskFiles::default(), "x".repeat(300 << 10));
        let mark = ReadFile::Content(FileMark::new(&path.to_string(), bundle.as_bytes()));
        let asked = || compared(&files, vec![CheckFile { what: "tls.ca_file".to_owned(), read: mark.clone() }]);
        std::fs::write(&file, &bundle).expect("write");
        assert_eq!(asked(), None);
        std::fs::write(&file, bundle.replacen('x', "y", 1)).expect("write");
        let want = format!("tls.ca_file is read from {path}, which has changed since; reload to read it");
        assert_eq!(asked(), Some(want));
    }

    #[test]
    fn a_blocked_thread_costs_only_the_hint() {
        let files = DiskFiles::default();
        let Some(blocked_since) = Instant::now().checked_sub(2 * BLOCKED_AFTER) else { return };
        *files.busy_since.lock() = Some(blocked_since);
        let dir = tempfile::tempdir().expect("a directory");
        let gone = secret(&dir.path().join("none"), "hunter2");
        assert_eq!(compared(&files, vec![gone]), None);
        assert!(files.busy_since.lock().is_some(), "the thread was not asked");
    }
}
