//! Preloaded (`LD_PRELOAD`) under a box: sees every operation that changes or syncs files of one directory.
//!
//! | variable | what |
//! |---|---|
//! | `RECORDER_DIR` | the directory, absolute; what lies elsewhere isn't looked at |
//! | `RECORDER_LOG` | operations are appended to this file, bytes and all ([`log`]); outside the directory |
//! | `RECORDER_COUNTER` | a file of 16 bytes: operations and log records so far, for whoever watches |
//! | `RECORDER_AT`, `RECORDER_ACTION` | at this operation (from 1): `kill`, `EIO` or `ENOSPC` |
//! | `RECORDER_ON` | ... or the first one from there on whose path has this part (with `$` behind it: this end) |
//! | `RECORDER_KIND` | ... and that is a `sync`, `write` or `name` |
//! | `RECORDER_TOLD` | a file that is told the kind and the path of the operation that went wrong |
//!
//! There is one counter for all threads. What changes a file is done and logged under one lock, so the log has the
//! kernel's order; a sync is logged as its begin and its end and done between the two without the lock, so that
//! others go on as they would.
//!
//! Calls go to the kernel directly and not to the C library's functions of the same names: these are they.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("the recorder knows the system calls of Linux on x86-64 only");

mod files;
mod gate;
mod log;
mod names;
mod place;
mod setup;
mod writes;
