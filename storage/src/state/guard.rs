//! Calls into sled while it isn't known to be sound: it may panic, and it may spin for ever.

use std::any::Any;
use std::fmt;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// Why a guarded call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It panicked, with this message.
    Panicked(String),
    /// It didn't come back in time. Its thread is left behind.
    Hung(Duration),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(message) => write!(f, "it panicked: {message}"),
            Self::Hung(patience) => write!(f, "it gave no answer within {} s", patience.as_secs()),
        }
    }
}

/// The result of `call`, run in a thread of its own.
pub(crate) fn call<T: Send + 'static>(
    patience: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let (send, result) = sync_channel(1);
    let spawned = std::thread::Builder::new().name("state-guard".into()).spawn(move || {
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
        // Nobody may wait any more.
        let _ = send.send(caught.map_err(|panic| message_of(&*panic)));
    });
    if let Err(error) = spawned {
        return Err(Failure::Panicked(format!("no thread for it: {error}")));
    }
    match result.recv_timeout(patience) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(message)) => Err(Failure::Panicked(message)),
        Err(RecvTimeoutError::Timeout) => Err(Failure::Hung(patience)),
        Err(RecvTimeoutError::Disconnected) => Err(Failure::Panicked("its thread is gone".into())),
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no message)").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_panics_and_silence_are_told_apart() {
        assert_eq!(call(Duration::from_secs(60), || 7), Ok(7));
        let panicked = call(Duration::from_secs(60), || panic!("oh {}", 7));
        assert_eq!(panicked, Err::<(), _>(Failure::Panicked("oh 7".into())));
        let (send, wait) = std::sync::mpsc::channel::<()>();
        let hung = call(Duration::from_millis(1), move || wait.recv());
        assert_eq!(hung, Err(Failure::Hung(Duration::from_millis(1))));
        drop(send);
    }
}
