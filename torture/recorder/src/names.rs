//! Making, renaming and removing names.

use std::ffi::{c_char, c_int, c_uint};

use crate::files::status;
use crate::gate::{Kind, On, failed, pass};
use crate::log::{Record, append, order};
use crate::place::named;
use crate::setup::{Setup, setup};

/// Does what changes names, and logs it if it was done.
fn logged(setup: &Setup, path: &str, call: impl Fn() -> c_int, log: impl FnOnce(&Setup)) -> c_int {
    let _order = order();
    if let Err(error) = pass(setup, Kind::Name, &On::Path(path)) {
        return failed(error);
    }
    let done = call();
    if done == 0 {
        log(setup);
    }
    done
}

/// The inode of a directory that was just made.
unsafe fn inode_of(at: c_int, name: *const c_char) -> Option<u64> {
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: the caller gives a string; the file is closed again.
    unsafe {
        let fd = libc::syscall(libc::SYS_openat, at, name, flags, 0) as c_int;
        let stat = status(fd);
        libc::syscall(libc::SYS_close, fd);
        stat.map(|stat| stat.st_ino)
    }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn mkdirat(at: c_int, name: *const c_char, mode: c_uint) -> c_int {
    // SAFETY: the caller's arguments, as the system call takes them.
    let call = || unsafe { libc::syscall(libc::SYS_mkdirat, at, name, mode) as c_int };
    let Some(setup) = setup() else { return call() };
    // SAFETY: the caller gives a string.
    let path = unsafe { named(setup, at, name) };
    // The directory itself is where a recording begins.
    let Some(path) = path.filter(|path| !path.is_empty()) else { return call() };
    logged(setup, &path, call, |setup| {
        // SAFETY: as above.
        match unsafe { inode_of(at, name) } {
            Some(inode) => append(setup, &Record::Made { inode, directory: 1, name: &path }),
            None => append(setup, &Record::Untrue { error: libc::ENOENT }),
        }
    })
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn mkdir(name: *const c_char, mode: c_uint) -> c_int {
    // SAFETY: the caller's word.
    unsafe { mkdirat(libc::AT_FDCWD, name, mode) }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn renameat2(
    from_at: c_int,
    from: *const c_char,
    to_at: c_int,
    to: *const c_char,
    flags: c_uint,
) -> c_int {
    // SAFETY: the caller's arguments, as the system call takes them.
    let call = || unsafe { libc::syscall(libc::SYS_renameat2, from_at, from, to_at, to, flags) as c_int };
    let Some(setup) = setup() else { return call() };
    // SAFETY: the caller gives strings.
    let (from, to) = unsafe { (named(setup, from_at, from), named(setup, to_at, to)) };
    match (from, to) {
        (Some(from), Some(to)) => logged(setup, &to, call, |setup| {
            append(setup, &Record::Renamed { from: &from, to: &to });
        }),
        (None, None) => call(),
        // In or out of the directory: nothing does that.
        _ => failed(libc::EXDEV),
    }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn renameat(from_at: c_int, from: *const c_char, to_at: c_int, to: *const c_char) -> c_int {
    // SAFETY: the caller's word.
    unsafe { renameat2(from_at, from, to_at, to, 0) }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller's word.
    unsafe { renameat2(libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn unlinkat(at: c_int, name: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's arguments, as the system call takes them.
    let call = || unsafe { libc::syscall(libc::SYS_unlinkat, at, name, flags) as c_int };
    let Some(setup) = setup() else { return call() };
    // SAFETY: the caller gives a string.
    let Some(path) = (unsafe { named(setup, at, name) }) else { return call() };
    logged(setup, &path, call, |setup| append(setup, &Record::Removed { name: &path }))
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn unlink(name: *const c_char) -> c_int {
    // SAFETY: the caller's word.
    unsafe { unlinkat(libc::AT_FDCWD, name, 0) }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn rmdir(name: *const c_char) -> c_int {
    // SAFETY: the caller's word.
    unsafe { unlinkat(libc::AT_FDCWD, name, libc::AT_REMOVEDIR) }
}
