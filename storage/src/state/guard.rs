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

/// Calls `produce` ahead in a thread of its own, and gives `consume` what it makes, until it makes nothing.
pub(crate) fn pieces<T: Send + 'static>(
    patience: Duration,
    mut produce: impl FnMut() -> Option<T> + Send + 'static,
    mut consume: impl FnMut(T),
) -> Result<(), Failure> {
    const AHEAD: usize = 2;
    let (send, made) = sync_channel(AHEAD);
    let spawned = std::thread::Builder::new().name("state-guard".into()).spawn(move || {
        loop {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut produce));
            let piece = caught.map_err(|panic| message_of(&*panic));
            let last = !matches!(piece, Ok(Some(_)));
            // Nobody may wait any more.
            if send.send(piece).is_err() || last {
                return;
            }
        }
    });
    if let Err(error) = spawned {
        return Err(Failure::Panicked(format!("no thread for it: {error}")));
    }
    loop {
        match made.recv_timeout(patience) {
            Ok(Ok(Some(piece))) => consume(piece),
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(message)) => return Err(Failure::Panicked(message)),
            Err(RecvTimeoutError::Timeout) => return Err(Failure::Hung(patience)),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::Panicked("its thread is gone".into()));
            }
        }
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

    #[test]
    fn pieces_come_in_order_until_there_are_none_or_it_panics() {
        let (mut n, mut seen) = (0, Vec::new());
        let count = move || {
            n += 1;
            assert!(n < 8, "oh");
            (n < 6).then_some(n)
        };
        assert_eq!(pieces(Duration::from_secs(60), count, |n| seen.push(n)), Ok(()));
        assert_eq!(seen, [1, 2, 3, 4, 5]);
        let mut n = 0;
        let panics = move || {
            n += 1;
            assert!(n < 3, "oh {n}");
            Some(n)
        };
        let failed = pieces(Duration::from_secs(60), panics, |_| ());
        assert_eq!(failed, Err(Failure::Panicked("oh 3".into())));
    }
}
