//! Turns sled's `sync_file_range` into `fdatasync`.
//!
//! sled 0.34.7 makes its log durable with `sync_file_range(2)`, which writes no metadata and doesn't flush the disk's
//! write cache: after a power cut it may have lost what it had called stable for weeks. It calls the function through
//! libc, so a symbol of this name in the program wins. Whether it did depends on how the program was linked, so
//! [`calls`] is compared around a flush at every start, and a program without the shim refuses to run.

use std::ffi::c_int;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk;

static CALLS: AtomicU64 = AtomicU64::new(0);

/// How often something asked for `sync_file_range` and got `fdatasync`.
pub(crate) fn calls() -> u64 {
    // Naming the function keeps the linker from dropping it.
    std::hint::black_box(sync_file_range as *const ());
    CALLS.load(Ordering::Relaxed)
}

/// `fdatasync(fd)`, whatever the range. An error ends the process: sled would carry on, and what it carries on with
/// may not be on disk.
#[unsafe(no_mangle)]
extern "C" fn sync_file_range(fd: c_int, _offset: i64, _bytes: i64, _flags: u32) -> c_int {
    CALLS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the caller's file stays open for the duration of its own call.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    disk::or_die("the state store can't be synced", rustix::fs::fdatasync(fd));
    0
}
