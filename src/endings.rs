//! Who waits for a job to end: told once by the step that ends it, instead of asking again and again.
//!
//! Whoever waits registers first and looks at the job then. An end before the look is seen by the look, one behind it
//! is told; so none is missed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::oneshot;

use crate::ids::JobId;
use crate::sync::lock;

/// Everybody who waits.
#[derive(Debug, Default)]
pub struct Endings {
    waiting: Mutex<HashMap<JobId, Vec<oneshot::Sender<()>>>>,
    /// How many wait: nobody, mostly, and then an end costs one load.
    count: AtomicU64,
}

/// One who waits; leaves when dropped.
#[derive(Debug)]
pub struct Waiter {
    endings: Arc<Endings>,
    job: JobId,
    told: oneshot::Receiver<()>,
}

impl Endings {
    /// Waits for a job's end. How many may is for others to say.
    pub fn wait_for(self: &Arc<Self>, job: JobId) -> Waiter {
        self.count.fetch_add(1, Ordering::AcqRel);
        let (tell, told) = oneshot::channel();
        lock(&self.waiting).entry(job).or_default().push(tell);
        Waiter { endings: Arc::clone(self), job, told }
    }

    /// A job has ended. Never waits for more than a moment.
    pub fn ended(&self, job: JobId) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let waiting = lock(&self.waiting).remove(&job);
        // Who left hears nothing.
        for waiter in waiting.into_iter().flatten() {
            let _ = waiter.send(());
        }
    }

    /// How many wait.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }
}

impl Waiter {
    /// Ready once the job has ended. What is to be known of it is still on its way to the disk then.
    pub async fn ended(&mut self) {
        // The sender goes only after having sent.
        let _ = (&mut self.told).await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.told.close();
        let mut waiting = lock(&self.endings.waiting);
        if let Some(others) = waiting.get_mut(&self.job) {
            others.retain(|waiter| !waiter.is_closed());
            if others.is_empty() {
                waiting.remove(&self.job);
            }
        }
        drop(waiting);
        self.endings.count.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(counter: u64) -> JobId {
        JobId { epoch: 1, counter }
    }

    fn is_told(waiter: &mut Waiter) -> bool {
        waiter.told.try_recv().is_ok()
    }

    #[test]
    fn who_waits_is_told_once_and_only_of_its_job() {
        let endings = Arc::new(Endings::default());
        let wait = |counter| endings.wait_for(job(counter));
        let (mut first, mut second, mut other) = (wait(1), wait(1), wait(2));
        assert_eq!(endings.count(), 3);
        endings.ended(job(1));
        endings.ended(job(7));
        assert_eq!((is_told(&mut first), is_told(&mut second), is_told(&mut other)), (true, true, false));
        drop(first);
        drop(second);
        assert_eq!(endings.count(), 1);
        drop(other);
        assert_eq!((endings.count(), lock(&endings.waiting).len()), (0, 0));
        drop(wait(1));
        assert!(lock(&endings.waiting).is_empty(), "who left is forgotten without an end");
    }
}
