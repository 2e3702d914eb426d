//! What is wrong and stops nothing yet: told to whoever asks, until it is mended.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What can't be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Task {
    /// Rows can't be moved into the state store.
    Checkpoint,
    /// A snapshot can't be made, so the journal can't be trimmed.
    Snapshot,
    /// Payloads can't be moved out of an old segment.
    Reclaim,
}

/// The newest trouble with each task.
#[derive(Debug, Default)]
pub(crate) struct Troubles(Mutex<BTreeMap<Task, String>>);

impl Troubles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Task, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(&self, task: Task, problem: String) {
        self.lock().insert(task, problem);
    }

    pub(crate) fn mended(&self, task: Task) {
        self.lock().remove(&task);
    }

    /// All of it in one line; none while all is well. Costs a lock that hardly anybody takes.
    pub(crate) fn text(&self) -> Option<String> {
        let troubles = self.lock();
        let texts: Vec<&str> = troubles.values().map(String::as_str).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}
