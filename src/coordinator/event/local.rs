//! What the box itself finds: of outputs, and of the way to the disk.

use crate::ids::ReservationId;
use crate::time::Time;

/// Room on the way to the disk. Below its high-water mark there is enough for all; above it the rest is kept for what
/// live reservations still write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreRoom {
    /// Enough.
    Open,
    /// The disk is behind: nothing new starts.
    Behind,
}

/// What closing an output found.
#[derive(Debug, Clone, Copy)]
pub struct Revoked {
    /// Whose output.
    pub reservation: ReservationId,
    /// Chunks that an attended client took.
    pub delivered: u32,
    /// Chunks that had been written.
    pub written: u32,
    /// Tokens that had been written, as the box counts them, else bytes.
    pub written_tokens: u32,
}

/// What an output looked like when a progress deadline was due.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Whose output.
    pub reservation: ReservationId,
    /// Chunks written so far.
    pub written: u32,
    /// When the last one was written; `None` while there is none.
    pub last_at: Option<Time>,
}
