//! Secrets that have changed on disk since they were read: compared on a thread of its own, when a check fails or somebody asks
//! why. The checker never waits for it; a file that cannot be read for a while (a network file system that is gone) costs the
//! hint and nothing else. Says which file has changed, never what it holds.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::load::read_bounded;
use crate::model::policy::FileSecret;
use crate::pool::SecretFiles;

/// Questions that wait; what comes beyond goes without an answer.
const QUESTIONS_MAX: usize = 1_024;
/// The most that is read of a file: more than a secret may have.
const FILE_BYTES_MAX: usize = 64 << 10;
/// A thread that reads for this long stands still: nobody waits for it any more.
const STANDS_STILL: Duration = Duration::from_secs(1);
/// How long somebody who asks waits.
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
        let stands_still = self.busy_since.lock().is_some_and(|since| since.elapsed() > STANDS_STILL);
        let Some(questions) = self.questions.get_or_init(|| start(self.busy_since.clone())) else { return then(None) };
        if secrets.is_empty() || stands_still {
            return then(None);
        }
        match questions.try_send(Question { secrets, then }) {
            Ok(()) => {}
            Err(TrySendError::Full(question) | TrySendError::Disconnected(question)) => (question.then)(None),
        }
    }
}

impl DiskSecrets {
    /// The sentence itself, or `None` where it is not there within 0.2 s. Blocks for as long.
    pub fn compare_now(&self, secrets: Vec<FileSecret>) -> Option<String> {
        if secrets.is_empty() {
            return None;
        }
        let (answer, answered) = sync_channel(1);
        // Whoever asked may have left.
        self.compare(secrets, Box::new(move |sentence| drop(answer.try_send(sentence))));
        answered.recv_timeout(ANSWER_MAX).ok()?
    }
}

/// Starts the thread, which ends when nobody can ask any more.
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
    let mut said: Vec<String> = vec![];
    for FileSecret { what, secret } in secrets {
        let Some(file) = secret.file() else { continue };
        let sentence = match read_bounded(Path::new(file), FILE_BYTES_MAX) {
            Ok(content) if std::str::from_utf8(&content).is_ok_and(|text| secret.is_held_by(text)) => continue,
            Ok(_) => format!("{what} is read from {file}, which has changed since; reload to read it"),
            Err(problem) => format!("{what} was read from {file}, which {problem}"),
        };
        if !said.contains(&sentence) {
            said.push(sentence);
        }
    }
    (!said.is_empty()).then(|| said.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    /// The answer, however long it takes.
    fn compared(files: &DiskSecrets, secrets: Vec<FileSecret>) -> Option<String> {
        let (answer, answered) = sync_channel(1);
        files.compare(secrets, Box::new(move |sentence| answer.send(sentence).expect("somebody waits")));
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
        assert_eq!(asked(), Some(want), "and nobody waits for its writer");
    }

    #[test]
    fn a_thread_that_stands_still_costs_the_hint_and_nothing_else() {
        let files = DiskSecrets::default();
        let Some(stood_still) = Instant::now().checked_sub(2 * STANDS_STILL) else { return };
        *files.busy_since.lock() = Some(stood_still);
        let dir = tempfile::tempdir().expect("a directory");
        let gone = secret(&dir.path().join("none"), "hunter2");
        assert_eq!(compared(&files, vec![gone]), None);
        assert!(files.busy_since.lock().is_some(), "the thread was not asked");
    }
}
