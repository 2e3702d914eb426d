//! SIGTERM and SIGINT, on a thread of their own: the second one ends the process even when the io thread is stuck.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Exit code of a box that was not let finish.
const INTERRUPTED: i32 = 1;

/// Listens. What is returned is closed by the first signal; the second ends the process at once.
///
/// # Errors
/// When the system refuses the thread or the handlers.
pub fn listen() -> io::Result<watch::Receiver<()>> {
    let (stop, asked) = watch::channel(());
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let waiting = runtime.and_then(|runtime| {
            let _entered = runtime.enter();
            let signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            drop(_entered);
            Ok((runtime, signals))
        });
        match waiting {
            Ok((runtime, signals)) => {
                // Whoever started this waits for it.
                let _ = ready.send(Ok(()));
                runtime.block_on(wait(signals, stop));
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    })?;
    is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("the signals' thread ended")))?;
    Ok(asked)
}

async fn wait((mut terminate, mut interrupt): (Signal, Signal), stop: watch::Sender<()>) {
    next(&mut terminate, &mut interrupt).await;
    drop(stop);
    next(&mut terminate, &mut interrupt).await;
    eprintln!("switchbox: a second signal: ending at once");
    std::process::exit(INTERRUPTED);
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
