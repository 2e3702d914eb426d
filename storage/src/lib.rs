//! What Switchbox keeps on disk; knows nothing of jobs.
