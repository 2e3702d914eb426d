//! Writing to files and changing their length.

use std::ffi::{c_int, c_void};

use crate::files::status;
use crate::gate::{Kind, On, failed, pass};
use crate::log::{Record, append, order};
use crate::place::is_inside;
use crate::setup::{Setup, setup};

/// Does a write that is logged first: a process that dies between the two leaves a log that says too much, never too
/// little.
fn logged(setup: &Setup, fd: c_int, offset: Option<i64>, bytes: &[u8], call: impl Fn() -> i64) -> i64 {
    let _order = order();
    if let Err(error) = pass(setup, Kind::Write, &On::Fd(fd)) {
        return failed(error).into();
    }
    let Some(stat) = status(fd) else { return call() };
    let offset = offset.unwrap_or_else(|| end_or_place(fd, stat.st_size));
    append(setup, &Record::Written { inode: stat.st_ino, offset: offset as u64, bytes });
    let done = call();
    if done != bytes.len() as i64 {
        append(setup, &Record::Untrue { error: libc::EIO });
    }
    done
}

/// Where a write without an offset goes.
fn end_or_place(fd: c_int, length: i64) -> i64 {
    // SAFETY: no memory is involved.
    unsafe {
        let flags = libc::syscall(libc::SYS_fcntl, fd, libc::F_GETFL) as c_int;
        let at = libc::syscall(libc::SYS_lseek, fd, 0i64, libc::SEEK_CUR);
        if flags & libc::O_APPEND != 0 { length } else { at }
    }
}

unsafe fn write_at(
    number: i64,
    fd: c_int,
    bytes: *const c_void,
    length: usize,
    offset: Option<i64>,
) -> isize {
    // SAFETY: the caller's arguments, as the system call takes them.
    let call = || unsafe { libc::syscall(number, fd, bytes, length, offset.unwrap_or(0)) };
    let Some(setup) = setup().filter(|_| is_inside(fd)) else { return call() as isize };
    // SAFETY: the caller gives so many bytes.
    let written = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) };
    logged(setup, fd, offset, written, call) as isize
}

unsafe fn write_pieces_at(
    number: i64,
    fd: c_int,
    pieces: *const libc::iovec,
    count: c_int,
    offset: Option<i64>,
) -> isize {
    // SAFETY: the caller's arguments, as the system call takes them.
    let call = || unsafe { libc::syscall(number, fd, pieces, count, offset.unwrap_or(0), 0) };
    let Some(setup) = setup().filter(|_| is_inside(fd)) else { return call() as isize };
    // SAFETY: the caller gives so many pieces, each with so many bytes.
    let written: Vec<u8> = unsafe {
        let pieces = std::slice::from_raw_parts(pieces, usize::try_from(count).unwrap_or(0));
        let of = |piece: &libc::iovec| std::slice::from_raw_parts(piece.iov_base.cast::<u8>(), piece.iov_len);
        pieces.iter().filter(|piece| piece.iov_len > 0).flat_map(of).copied().collect()
    };
    logged(setup, fd, offset, &written, call) as isize
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, length: usize) -> isize {
    // SAFETY: the caller's word.
    unsafe { write_at(libc::SYS_write, fd, bytes, length, None) }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, bytes: *const c_void, length: usize, offset: i64) -> isize {
    // SAFETY: the caller's word.
    unsafe { write_at(libc::SYS_pwrite64, fd, bytes, length, Some(offset)) }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, length: usize, offset: i64) -> isize {
    // SAFETY: the caller's word.
    unsafe { write_at(libc::SYS_pwrite64, fd, bytes, length, Some(offset)) }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn writev(fd: c_int, pieces: *const libc::iovec, count: c_int) -> isize {
    // SAFETY: the caller's word.
    unsafe { write_pieces_at(libc::SYS_writev, fd, pieces, count, None) }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev(fd: c_int, pieces: *const libc::iovec, count: c_int, offset: i64) -> isize {
    // SAFETY: the caller's word.
    unsafe { write_pieces_at(libc::SYS_pwritev, fd, pieces, count, Some(offset)) }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwritev64(fd: c_int, pieces: *const libc::iovec, count: c_int, offset: i64) -> isize {
    // SAFETY: the caller's word.
    unsafe { write_pieces_at(libc::SYS_pwritev, fd, pieces, count, Some(offset)) }
}

/// Sets a file's length, or sees to it that it is at least so long.
fn set_length(fd: c_int, length: impl Fn(u64) -> u64, call: impl Fn() -> i64) -> c_int {
    let Some(setup) = setup().filter(|_| is_inside(fd)) else { return call() as c_int };
    let _order = order();
    if let Err(error) = pass(setup, Kind::Write, &On::Fd(fd)) {
        return failed(error);
    }
    let before = status(fd);
    let done = call();
    if let Some(stat) = before.filter(|_| done == 0) {
        let length = length(stat.st_size as u64);
        if length != stat.st_size as u64 {
            append(setup, &Record::Length { inode: stat.st_ino, length });
        }
    }
    done as c_int
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate(fd: c_int, length: i64) -> c_int {
    // SAFETY: no memory is involved.
    let call = || unsafe { libc::syscall(libc::SYS_ftruncate, fd, length) };
    set_length(fd, |_| length as u64, call)
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(fd: c_int, length: i64) -> c_int {
    ftruncate(fd, length)
}

#[unsafe(no_mangle)]
extern "C" fn fallocate(fd: c_int, mode: c_int, offset: i64, length: i64) -> c_int {
    // SAFETY: no memory is involved.
    let call = || unsafe { libc::syscall(libc::SYS_fallocate, fd, mode, offset, length) };
    let grows = mode & libc::FALLOC_FL_KEEP_SIZE == 0;
    set_length(fd, |before| if grows { before.max((offset + length) as u64) } else { before }, call)
}

#[unsafe(no_mangle)]
extern "C" fn fallocate64(fd: c_int, mode: c_int, offset: i64, length: i64) -> c_int {
    fallocate(fd, mode, offset, length)
}
