//! The log of operations: records one after another, each a kind, a length and so many bytes. Numbers are
//! little-endian, names relative to the directory.
//!
//! | kind | bytes | what |
//! |---|---|---|
//! | 1 | inode u64, directory u8, name | a file (0) or directory (1) was made |
//! | 2 | inode u64, length u64 | a file has this length now |
//! | 3 | inode u64, offset u64, bytes | they were written |
//! | 4 | inode u64, offset u64, length u64 | so many zeros were written |
//! | 5 | token u64, inode u64 | a sync of a file or directory begins |
//! | 6 | token u64, failed u8 | and has ended: well (0), or it was made to fail (1) |
//! | 7 | length of the first u32, two names | renamed |
//! | 8 | name | removed |
//! | 9 | error u32 | an operation didn't do what was logged: the log is worth nothing |
//!
//! A record is appended in one write, which a killed process leaves whole in the page cache.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::setup::{Setup, wrong};

/// Held while a file is changed and that is logged.
pub(crate) fn order() -> MutexGuard<'static, ()> {
    static ORDER: Mutex<()> = Mutex::new(());
    ORDER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that was done.
pub(crate) enum Record<'a> {
    Made { inode: u64, directory: u8, name: &'a str },
    Length { inode: u64, length: u64 },
    Written { inode: u64, offset: u64, bytes: &'a [u8] },
    SyncBegins { token: u64, inode: u64 },
    SyncEnded { token: u64, failed: u8 },
    Renamed { from: &'a str, to: &'a str },
    Removed { name: &'a str },
    Untrue { error: i32 },
}

/// Appends a record; the caller holds [`order`].
pub(crate) fn append(setup: &Setup, record: &Record<'_>) {
    let log = setup.log.load(Ordering::Relaxed);
    if log < 0 {
        return;
    }
    let mut bytes = vec![0; 5];
    bytes[0] = lay_out(record, &mut bytes);
    let length = (bytes.len() - 5) as u32;
    bytes[1..5].copy_from_slice(&length.to_le_bytes());
    // SAFETY: the bytes live through the call.
    let written = unsafe { libc::syscall(libc::SYS_write, log, bytes.as_ptr(), bytes.len()) };
    if written != bytes.len() as i64 {
        wrong("the log's disk");
    }
    setup.counters[1].fetch_add(1, Ordering::SeqCst);
}

fn lay_out(record: &Record<'_>, out: &mut Vec<u8>) -> u8 {
    let mut numbers = |numbers: &[u64]| numbers.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
    match record {
        Record::Made { inode, directory, name } => {
            numbers(&[*inode]);
            out.push(*directory);
            out.extend_from_slice(name.as_bytes());
            1
        }
        Record::Length { inode, length } => {
            numbers(&[*inode, *length]);
            2
        }
        Record::Written { inode, offset, bytes } if bytes.iter().all(|byte| *byte == 0) => {
            numbers(&[*inode, *offset, bytes.len() as u64]);
            4
        }
        Record::Written { inode, offset, bytes } => {
            numbers(&[*inode, *offset]);
            out.extend_from_slice(bytes);
            3
        }
        Record::SyncBegins { token, inode } => {
            numbers(&[*token, *inode]);
            5
        }
        Record::SyncEnded { token, failed } => {
            numbers(&[*token]);
            out.push(*failed);
            6
        }
        Record::Renamed { from, to } => {
            out.extend_from_slice(&(from.len() as u32).to_le_bytes());
            out.extend_from_slice(from.as_bytes());
            out.extend_from_slice(to.as_bytes());
            7
        }
        Record::Removed { name } => {
            out.extend_from_slice(name.as_bytes());
            8
        }
        Record::Untrue { error } => {
            out.extend_from_slice(&error.to_le_bytes());
            9
        }
    }
}
