//! Every operation passes here first: it is counted, and the planned one is killed or failed.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::place::path_of;
use crate::setup::Setup;

/// What becomes of the planned operation.
#[derive(Clone, Copy)]
pub(crate) enum Action {
    /// The process is killed before it.
    Kill,
    /// It fails with this error.
    Fail(i32),
}

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Makes what was written stay.
    Sync,
    /// Changes what is in a file.
    Write,
    /// Changes what a directory lists.
    Name,
}

/// On what.
pub(crate) enum On<'a> {
    /// An open file.
    Fd(i32),
    /// A name, relative to the directory.
    Path(&'a str),
}

/// Whether the one planned operation has come.
static HAPPENED: AtomicBool = AtomicBool::new(false);

/// Counts an operation. An error is what it must fail with.
pub(crate) fn pass(setup: &Setup, kind: Kind, on: &On<'_>) -> Result<(), i32> {
    let number = setup.counters[0].fetch_add(1, Ordering::SeqCst) + 1;
    let Some(planned) = &setup.planned else { return Ok(()) };
    if number < planned.at || planned.kind.is_some_and(|wanted| wanted != kind) {
        return Ok(());
    }
    if let Some(part) = &planned.on {
        let fits = |path: &str| match part.strip_suffix('$') {
            Some(end) => path.ends_with(end),
            None => path.contains(part.as_str()),
        };
        let is_there = match on {
            On::Fd(fd) => path_of(setup, *fd).is_some_and(|path| fits(&path)),
            On::Path(path) => fits(path),
        };
        if !is_there {
            return Ok(());
        }
    }
    if HAPPENED.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    tell(planned.told, setup, kind, on);
    match planned.action {
        Action::Fail(error) => Err(error),
        Action::Kill => {
            // SAFETY: no memory is involved.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            loop {
                // SAFETY: as above. The signal is on its way to this very thread.
                unsafe { libc::pause() };
            }
        }
    }
}

/// Says which operation it was: its kind, a space, its path.
fn tell(told: i32, setup: &Setup, kind: Kind, on: &On<'_>) {
    if told < 0 {
        return;
    }
    let path = match on {
        On::Fd(fd) => path_of(setup, *fd).unwrap_or_default(),
        On::Path(path) => (*path).to_owned(),
    };
    let word = match kind {
        Kind::Sync => "sync",
        Kind::Write => "write",
        Kind::Name => "name",
    };
    let text = format!("{word} {path}");
    // SAFETY: the bytes live through the call.
    unsafe { libc::syscall(libc::SYS_write, told, text.as_ptr(), text.len()) };
}

/// What a failed call returns.
pub(crate) fn failed(error: i32) -> i32 {
    // SAFETY: the thread's own error number.
    unsafe { *libc::__errno_location() = error };
    -1
}
