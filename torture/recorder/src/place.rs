//! Which open files and names lie in the directory.

use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::setup::Setup;

/// Files beyond this number aren't seen; a box under the rig has far fewer.
const FILES_MAX: usize = 1 << 16;

const ELSEWHERE: u8 = 0;
const INSIDE: u8 = 1;

static FILES: [AtomicU8; FILES_MAX] = [const { AtomicU8::new(ELSEWHERE) }; FILES_MAX];

/// Notes that an open file is one of the directory's.
pub(crate) fn opened(fd: i32) {
    if let Some(place) = usize::try_from(fd).ok().and_then(|fd| FILES.get(fd)) {
        place.store(INSIDE, Ordering::SeqCst);
    }
}

/// Notes that it is about to be closed.
pub(crate) fn closing(fd: i32) {
    if let Some(place) = usize::try_from(fd).ok().and_then(|fd| FILES.get(fd)) {
        place.store(ELSEWHERE, Ordering::SeqCst);
    }
}

/// Whether an open file is one of the directory's.
pub(crate) fn is_inside(fd: i32) -> bool {
    let place = usize::try_from(fd).ok().and_then(|fd| FILES.get(fd));
    place.is_some_and(|place| place.load(Ordering::SeqCst) == INSIDE)
}

/// Where an open file is now, relative to the directory; empty for itself.
pub(crate) fn path_of(setup: &Setup, fd: i32) -> Option<String> {
    let link = format!("/proc/self/fd/{fd}\0");
    let mut target = [0u8; 4096];
    // SAFETY: a string that ends with zero and a buffer of that length, for the time of the call.
    let length =
        unsafe { libc::syscall(libc::SYS_readlink, link.as_ptr(), target.as_mut_ptr(), target.len()) };
    let path = std::str::from_utf8(target.get(..usize::try_from(length).ok()?)?).ok()?;
    relative(setup, path).map(str::to_owned)
}

/// A name given with a directory, as system calls take it, relative to the recorded one; none if it lies elsewhere.
///
/// # Safety
/// `name` is a string that ends with zero.
pub(crate) unsafe fn named(setup: &Setup, at: i32, name: *const c_char) -> Option<String> {
    // SAFETY: the caller's word.
    let name = unsafe { CStr::from_ptr(name) }.to_str().ok()?;
    if name.starts_with('/') {
        return relative(setup, name).map(str::to_owned);
    }
    if at == libc::AT_FDCWD || !is_inside(at) {
        // The box's data directory is given as an absolute path.
        return None;
    }
    let parent = path_of(setup, at)?;
    Some(if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") })
}

fn relative<'p>(setup: &Setup, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix(setup.dir.as_str())?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}
