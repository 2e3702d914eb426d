//! What must hold of the output, whatever the interleaving. Included once for the real source and once for
//! each variant of it.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use loom::sync::Notify;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use super::output::{AppendError, Chunk, Output, Reader, Take};
use crate::tests::{Parked, explore};

fn output() -> Arc<Output> {
    Output::new(1_000)
}

fn chunk() -> Chunk {
    Chunk::text("x", 1)
}

/// Reads to the end, parked whenever there is nothing; a lost wake-up leaves it parked, which loom finds.
fn read_until_closed(mut reader: Reader) -> u32 {
    let parked = Arc::new(Parked(Notify::new()));
    let waker = Waker::from(Arc::clone(&parked));
    loop {
        match reader.poll_take(&mut Context::from_waker(&waker)) {
            Poll::Ready(Take::Chunk(_)) => {}
            Poll::Ready(Take::Closed) => return reader.cursor(),
            Poll::Pending => parked.0.wait(),
        }
    }
}

/// Closing against readers of two chunks: `delivered` is exact, and nothing is taken after `close` returned.
pub fn close_against_readers(preemptions: usize, readers: usize) {
    explore(preemptions, move || {
        let output = output();
        (0..2).for_each(|index| output.append(index, chunk(), 1).expect("room"));
        let closed = Arc::new(AtomicBool::new(false));
        let read = |_| {
            let (mut reader, closed) = (output.reader(), Arc::clone(&closed));
            thread::spawn(move || {
                while reader.cursor() < 2 {
                    let after = closed.load(Ordering::Acquire);
                    match reader.try_take() {
                        Some(Take::Chunk(_)) => assert!(!after, "a chunk was taken after close returned"),
                        Some(Take::Closed) => break,
                        None => panic!("the chunks were there"),
                    }
                }
                reader.cursor()
            })
        };
        let threads: Vec<_> = (0..readers).map(read).collect();
        let closing = output.close();
        closed.store(true, Ordering::Release);
        let taken = threads.into_iter().map(|thread| thread.join().expect("no panic")).max();
        assert_eq!(Some(closing.delivered), taken, "delivered isn't what the readers took");
        assert_eq!(output.close(), closing, "closing twice finds the same");
    });
}

/// A writer, a parked reader and a close: the reader is woken to its end, `delivered` is what it took, and
/// what the writer was told is what the extent says.
pub fn close_against_writer_and_reader(preemptions: usize, chunks: u32) {
    explore(preemptions, move || {
        let output = output();
        let reader = output.reader();
        let reader = thread::spawn(move || read_until_closed(reader));
        let writer = {
            let output = Arc::clone(&output);
            thread::spawn(move || {
                let mut written = 0;
                for index in 0..chunks {
                    match output.append(index, chunk(), 1) {
                        Ok(()) => written += 1,
                        Err(error) => {
                            assert_eq!(error, AppendError::Closed);
                            break;
                        }
                    }
                }
                written
            })
        };
        let closing = output.close();
        let taken = reader.join().expect("no panic");
        let written = writer.join().expect("no panic");
        assert_eq!(closing.delivered, taken, "delivered isn't what the reader took");
        assert_eq!(closing.extent.chunks, written, "the extent isn't what was accepted");
        assert_eq!(output.extent(), closing.extent, "the output grew after it was closed");
        assert_eq!(output.append(written, chunk(), 2), Err(AppendError::Closed));
    });
}

/// A reader that has seen nothing is woken by the append, without any close.
pub fn append_wakes(preemptions: usize, readers: usize) {
    explore(preemptions, move || {
        let output = output();
        let read = |_| {
            let mut reader = output.reader();
            thread::spawn(move || {
                let parked = Arc::new(Parked(Notify::new()));
                let waker = Waker::from(Arc::clone(&parked));
                while reader.poll_take(&mut Context::from_waker(&waker)).is_pending() {
                    parked.0.wait();
                }
                assert_eq!(reader.cursor(), 1);
            })
        };
        let threads: Vec<_> = (0..readers).map(read).collect();
        output.append(0, chunk(), 1).expect("room");
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        assert_eq!(output.close().delivered, 1);
    });
}

/// A reader that has seen nothing is woken by the close.
pub fn close_wakes(preemptions: usize) {
    explore(preemptions, || {
        let output = output();
        let reader = output.reader();
        let reader = thread::spawn(move || read_until_closed(reader));
        let closing = output.close();
        assert_eq!((closing.delivered, reader.join().expect("no panic")), (0, 0));
    });
}

/// Two writers of the same chunks, as after a reconnect: each chunk is there once.
pub fn repeated_writes(preemptions: usize) {
    explore(preemptions, || {
        let output = output();
        let write = |output: &Output| {
            (0..2).for_each(|index| output.append(index, chunk(), 1).expect("none is missing before it"));
        };
        let other = {
            let output = Arc::clone(&output);
            thread::spawn(move || write(&output))
        };
        write(&output);
        other.join().expect("no panic");
        assert_eq!((output.extent().chunks, output.extent().tokens), (2, 2));
    });
}
