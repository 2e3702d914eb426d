//! Every bound of the HTTP surface. Each has its unit last; the defaults are what a public server needs.

use std::time::Duration;

/// What a listener lets in, and how long it waits for whom.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections_max: u32,
    /// Connections at once from one address (an IPv6 /64 counts as one).
    pub connections_per_ip_max: u32,
    /// The same from this very machine, where every program has the same address.
    pub connections_per_loopback_max: u32,
    /// From the first look at a connection, or from its last answer, to a whole request head.
    pub header_read_timeout_ms: u64,
    /// Header lines of a request.
    pub headers_max: usize,
    /// Bytes that hyper buffers of a connection. A request head that is longer, by up to one read, is answered 431.
    pub head_bytes_max: usize,
    /// Bytes of a JSON body.
    pub body_bytes_max: u64,
    /// Bytes of all bodies that are being read or parsed.
    pub bodies_in_flight_bytes_max: u64,
    /// Between two pieces of a body.
    pub body_idle_timeout_ms: u64,
    /// For a whole body.
    pub body_timeout_ms: u64,
    /// How long a client may leave what we send unread.
    pub client_stall_ms: u64,
    /// Silence on a stream after which a comment keeps proxies from closing it; also how long a stream may take
    /// to its first byte before it commits to status 200.
    pub keepalive_ms: u64,
    /// How long a job waits for a node unless its client says less.
    pub ttl_default_ms: u64,
    /// Jobs of one namespace that may wait: the core's bound, shown in `x-ratelimit-*`.
    pub namespace_queue_jobs_max: u64,
    /// Requests that may wait for the end of a job (`?wait=`) at once; half of them of one namespace.
    pub job_waiters_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            connections_per_ip_max: 64,
            connections_per_loopback_max: 3_584,
            header_read_timeout_ms: 10_000,
            headers_max: 64,
            head_bytes_max: 64 << 10,
            body_bytes_max: 4 << 20,
            bodies_in_flight_bytes_max: 256 << 20,
            body_idle_timeout_ms: 15_000,
            body_timeout_ms: 60_000,
            client_stall_ms: 30_000,
            keepalive_ms: 10_000,
            ttl_default_ms: 600_000,
            namespace_queue_jobs_max: 5_000,
            job_waiters_max: 1_024,
        }
    }
}

impl Limits {
    pub(super) fn header_read_timeout(&self) -> Duration {
        Duration::from_millis(self.header_read_timeout_ms)
    }

    pub(super) fn client_stall(&self) -> Duration {
        Duration::from_millis(self.client_stall_ms)
    }

    pub(super) fn keepalive(&self) -> Duration {
        Duration::from_millis(self.keepalive_ms)
    }
}
