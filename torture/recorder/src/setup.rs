//! What the environment asks for. Read once; does nothing but look and map.

use std::ffi::CString;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU64};

use crate::gate::{Action, Kind};

/// How a process is recorded.
pub(crate) struct Setup {
    /// The directory, without a slash at its end.
    pub(crate) dir: String,
    /// The open log; below zero if there is none.
    pub(crate) log: AtomicI32,
    /// Operations and log records so far.
    pub(crate) counters: &'static [AtomicU64; 2],
    /// What is to happen.
    pub(crate) planned: Option<Planned>,
}

/// One operation is to go wrong.
pub(crate) struct Planned {
    pub(crate) at: u64,
    pub(crate) action: Action,
    pub(crate) on: Option<String>,
    pub(crate) kind: Option<Kind>,
    /// An open file that is told what it was; below zero if there is none.
    pub(crate) told: i32,
}

static NOT_SHARED: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// The setup; none if nothing is to be recorded.
pub(crate) fn setup() -> Option<&'static Setup> {
    static SETUP: OnceLock<Option<Setup>> = OnceLock::new();
    SETUP.get_or_init(read).as_ref()
}

fn read() -> Option<Setup> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let dir = variable("RECORDER_DIR")?.trim_end_matches('/').to_owned();
    let log = variable("RECORDER_LOG").map_or(-1, |path| open_raw(&path, libc::O_APPEND));
    let counters = variable("RECORDER_COUNTER").map_or(&NOT_SHARED, |path| map_counters(&path));
    let planned = variable("RECORDER_AT").map(|at| Planned {
        at: at.parse().unwrap_or_else(|_| wrong("RECORDER_AT")),
        action: match variable("RECORDER_ACTION").as_deref() {
            Some("kill") => Action::Kill,
            Some("EIO") => Action::Fail(libc::EIO),
            Some("ENOSPC") => Action::Fail(libc::ENOSPC),
            _ => wrong("RECORDER_ACTION"),
        },
        on: variable("RECORDER_ON"),
        kind: variable("RECORDER_KIND").map(|kind| match kind.as_str() {
            "sync" => Kind::Sync,
            "write" => Kind::Write,
            "name" => Kind::Name,
            _ => wrong("RECORDER_KIND"),
        }),
        told: variable("RECORDER_TOLD").map_or(-1, |path| open_raw(&path, 0)),
    });
    Some(Setup { dir, log: AtomicI32::new(log), counters, planned })
}

/// Ends the process: what was asked for can't be done, and nothing must be taken for recorded that isn't.
pub(crate) fn wrong(what: &str) -> ! {
    let text = format!("recorder: {what} is wrong or can't be used\n");
    // SAFETY: the bytes live through the call; `_exit` doesn't return.
    unsafe {
        libc::syscall(libc::SYS_write, 2, text.as_ptr(), text.len());
        libc::_exit(99)
    }
}

fn open_raw(path: &str, flags: i32) -> i32 {
    let Ok(name) = CString::new(path) else { wrong(path) };
    let flags = flags | libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC;
    // SAFETY: a string that ends with zero, for the time of the call.
    let fd = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, name.as_ptr(), flags, 0o600) };
    if fd < 0 {
        wrong(path);
    }
    fd as i32
}

fn map_counters(path: &str) -> &'static [AtomicU64; 2] {
    let fd = open_raw(path, 0);
    let bytes = size_of::<[AtomicU64; 2]>();
    // SAFETY: a fresh shared mapping of a file that is made long enough first, never unmapped; any bytes are numbers.
    unsafe {
        libc::syscall(libc::SYS_ftruncate, fd, bytes);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let mapped = libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, fd, 0);
        libc::syscall(libc::SYS_close, fd);
        if mapped == libc::MAP_FAILED {
            wrong(path);
        }
        &*mapped.cast()
    }
}
