//! Finds secrets that have changed on disk since they were read. A separate thread compares them when a check fails and
//! for `explain`. The checker never waits for it: if a file cannot be read (a network file system that hangs), only the
//! hint is missing. Reports which file has changed, never its content.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::load::read_bounded;
use crate::model::policy::FileSecret;
use crate::pool::SecretFiles;

/// Questions that may wait; more get no answer.
const QUESTIONS_MAX: usize = 1_024;
/// The size limit of a file; larger than any valid secret.
const FILE_BYTES_MAX: usize = 64 << 10;
/// After this time of reading, the thread counts as blocked and gets no more questions.
const BLOCKED_AFTER: Duration = Duration::from_secs(1);
/// How long `compare_now` waits.
const ANSWER_MAX: Duration = Duration::from_millis(200);

/// Compares secrets with the files of this machine.
#[derive(Default)]
pub struct DiskSecrets {
    questions: OnceLock<Option<SyncSender<Question>>>,
    /// Since when the thread reads, while it does.
    busy_since: Arc<Mutex<Option<Instant>>>,
}

struct Question {
    secrets: Vec<FileSecret>,
    then: Box<dyn FnOnce(Option<String>) + Send>,
}

impl SecretFiles for DiskSecrets {
    fn compare(&self, secrets: Vec<FileSecret>, then: Box<dyn FnOnce(Option<String>) + Send>) {
        let blocked = self.busy_since.lock().is_some_and(|since| since.elapsed() > BLOCKED_AFTER);
        let Some(questions) = self.questions.get_or_init(|| start(self.busy_since.clone())) else { return then(None) };
        if secrets.is_empty() || blocked {
            return then(None);
        }
        match questions.try_send(Question { secrets, then }) {
            Ok(()) => {}
            Err(TrySendError::Full(question) | TrySendError::Disconnected(question)) => (question.then)(None),
        }
    }
}

impl DiskSecrets {
    /// The hint, or `None` if there is none within 0.2 s. Blocks meanwhile.
    pub fn compare_now(&self, secrets: Vec<FileSecret>) -> Option<String> {
        if secrets.is_empty() {
            return None;
        }
        let (answer, answered) = sync_channel(1);
        // The receiver may have timed out.
        self.compare(secrets, Box::new(move |sentence| drop(answer.try_send(sentence))));
        answered.recv_timeout(ANSWER_MAX).ok()?
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
    while let Ok(Question { secrets, then }) = asked.recv() {
        *busy_since.lock() = Some(Instant::now());
        let sentence = sentence(&secrets);
        *busy_since.lock() = None;
        then(sentence);
    }
}

/// `Authorization is read from /run/token, which has changed since; reload to read it`.
fn sentence(secrets: &[FileSecret]) -> Option<String> {
    let mut sentences: Vec<String> = vec![];
    for FileSecret { what, secret } in secrets {
        let Some(file) = secret.file() else { continue };
        let sentence = match read_bounded(Path::new(file), FILE_BYTES_MAX) {
            Ok(content) if std::str::from_utf8(&content).is_ok_and(|text| secret.is_held_by(text)) => continue,
            Ok(_) => format!("{what} is read from {file}, which has changed since; reload to read it"),
            Err(problem) => format!("{what} was read from {file}, which {problem}"),
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

    /// The answer, however long it takes.
    fn compared(files: &DiskSecrets, secrets: Vec<FileSecret>) -> Option<String> {
        let (answer, answered) = sync_channel(1);
        files.compare(secrets, Box::new(move |sentence| answer.send(sentence).expect("the test waits")));
        answered.recv_timeout(Duration::from_secs(60)).expect("an answer")
    }

    fn secret(file: &Path, read: &str) -> FileSecret {
        let secret = Secret::with_prefix("Bearer ", read).from_file(&file.display().to_string(), read);
        FileSecret { what: "Authorization".to_owned(), secret }
    }

    #[test]
    fn a_secret_that_has_changed_is_named_and_its_content_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("token");
        let (path, files) = (file.display(), DiskSecrets::default());
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
    fn a_blocked_thread_costs_only_the_hint() {
        let files = DiskSecrets::default();
        let Some(blocked_since) = Instant::now().checked_sub(2 * BLOCKED_AFTER) else { return };
        *files.busy_since.lock() = Some(blocked_since);
        let dir = tempfile::tempdir().expect("a directory");
        let gone = secret(&dir.path().join("none"), "hunter2");
        assert_eq!(compared(&files, vec![gone]), None);
        assert!(files.busy_since.lock().is_some(), "the thread was not asked");
    }
}
