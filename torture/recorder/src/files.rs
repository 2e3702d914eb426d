//! Opening, duplicating, closing and syncing.

use std::ffi::{c_char, c_int, c_uint};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::gate::{Kind, On, failed, pass};
use crate::log::{Record, append, order};
use crate::place::{closing, is_inside, named, opened};
use crate::setup::{Setup, setup};

/// What the system says of an open file; none if it says nothing.
pub(crate) fn status(fd: c_int) -> Option<libc::stat> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: memory of the right size; it is read only after the call filled it.
    unsafe {
        let done = libc::syscall(libc::SYS_fstat, fd, stat.as_mut_ptr());
        (done == 0).then(|| stat.assume_init())
    }
}

unsafe fn open_at(at: c_int, name: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's arguments, as the system call takes them.
    let call = || unsafe { libc::syscall(libc::SYS_openat, at, name, flags, mode) as c_int };
    let Some(setup) = setup() else { return call() };
    // SAFETY: the caller gives a string.
    let Some(path) = (unsafe { named(setup, at, name) }) else { return call() };
    let changes = flags & (libc::O_CREAT | libc::O_TRUNC) != 0 || flags & libc::O_ACCMODE != libc::O_RDONLY;
    if !changes {
        let fd = call();
        opened(fd);
        return fd;
    }
    let _order = order();
    if let Err(error) = pass(setup, Kind::Name, &On::Path(&path)) {
        return failed(error);
    }
    // SAFETY: as above.
    let existed = unsafe { libc::syscall(libc::SYS_faccessat, at, name, libc::F_OK) } == 0;
    let fd = call();
    if fd >= 0 {
        opened(fd);
        note_opened(setup, fd, &path, flags, existed.then_some(()));
    }
    fd
}

fn note_opened(setup: &Setup, fd: c_int, path: &str, flags: c_int, existed: Option<()>) {
    let Some(stat) = status(fd) else { return append(setup, &Record::Untrue { error: libc::EBADF }) };
    match existed {
        None => append(setup, &Record::Made { inode: stat.st_ino, directory: 0, name: path }),
        Some(()) if flags & libc::O_TRUNC != 0 => {
            append(setup, &Record::Length { inode: stat.st_ino, length: 0 });
        }
        Some(()) => {}
    }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn open(name: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's word.
    unsafe { open_at(libc::AT_FDCWD, name, flags, mode) }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn open64(name: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's word.
    unsafe { open_at(libc::AT_FDCWD, name, flags, mode) }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn openat(at: c_int, name: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's word.
    unsafe { open_at(at, name, flags, mode) }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn openat64(at: c_int, name: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's word.
    unsafe { open_at(at, name, flags, mode) }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn creat(name: *const c_char, mode: c_uint) -> c_int {
    let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
    // SAFETY: the caller's word.
    unsafe { open_at(libc::AT_FDCWD, name, flags, mode) }
}

#[unsafe(no_mangle)]
extern "C" fn close(fd: c_int) -> c_int {
    closing(fd);
    // SAFETY: no memory is involved.
    unsafe { libc::syscall(libc::SYS_close, fd) as c_int }
}

/// A second number of an open file is the same file.
fn duplicated(fd: c_int, copy: c_int) -> c_int {
    if is_inside(fd) {
        opened(copy);
    }
    copy
}

#[unsafe(no_mangle)]
extern "C" fn dup(fd: c_int) -> c_int {
    // SAFETY: no memory is involved.
    duplicated(fd, unsafe { libc::syscall(libc::SYS_dup, fd) as c_int })
}

#[unsafe(no_mangle)]
extern "C" fn dup2(fd: c_int, copy: c_int) -> c_int {
    closing(copy);
    // SAFETY: no memory is involved.
    duplicated(fd, unsafe { libc::syscall(libc::SYS_dup2, fd, copy) as c_int })
}

#[unsafe(no_mangle)]
extern "C" fn dup3(fd: c_int, copy: c_int, flags: c_int) -> c_int {
    closing(copy);
    // SAFETY: no memory is involved.
    duplicated(fd, unsafe { libc::syscall(libc::SYS_dup3, fd, copy, flags) as c_int })
}

#[unsafe(no_mangle)]
extern "C" fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the caller's arguments, as the system call takes them.
    let done = unsafe { libc::syscall(libc::SYS_fcntl, fd, command, argument) as c_int };
    if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) { duplicated(fd, done) } else { done }
}

#[unsafe(no_mangle)]
extern "C" fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    fcntl(fd, command, argument)
}

fn sync(number: i64, fd: c_int) -> c_int {
    // SAFETY: no memory is involved.
    let call = || unsafe { libc::syscall(number, fd) as c_int };
    let Some((setup, stat)) = setup().filter(|_| is_inside(fd)).zip(status(fd)) else { return call() };
    static TOKENS: AtomicU64 = AtomicU64::new(1);
    // Of another process' log, which this one may go on with, no token is used again.
    let token = u64::from(std::process::id()) << 32 | TOKENS.fetch_add(1, Ordering::SeqCst);
    let verdict = {
        let _order = order();
        let verdict = pass(setup, Kind::Sync, &On::Fd(fd));
        append(setup, &Record::SyncBegins { token, inode: stat.st_ino });
        if verdict.is_err() {
            append(setup, &Record::SyncEnded { token, failed: 1 });
        }
        verdict
    };
    if let Err(error) = verdict {
        return failed(error);
    }
    let done = call();
    let _order = order();
    match done {
        0 => append(setup, &Record::SyncEnded { token, failed: 0 }),
        _ => append(setup, &Record::Untrue { error: libc::EIO }),
    }
    done
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    sync(libc::SYS_fsync, fd)
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(libc::SYS_fdatasync, fd)
}

/// Reached only by a box that was linked without its own: then it makes nothing stay, and isn't logged as a sync.
#[unsafe(no_mangle)]
extern "C" fn sync_file_range(fd: c_int, offset: i64, bytes: i64, flags: c_uint) -> c_int {
    if let Some(setup) = setup().filter(|_| is_inside(fd))
        && let Err(error) = pass(setup, Kind::Sync, &On::Fd(fd))
    {
        return failed(error);
    }
    // SAFETY: no memory is involved.
    unsafe { libc::syscall(libc::SYS_sync_file_range, fd, offset, bytes, flags) as c_int }
}
