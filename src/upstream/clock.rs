//! The clock of the balancer: microseconds since the process began, small enough for an atomic.
//!
//! What changes with time takes the time as an argument, so that tests set it.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Microseconds since the process began.
pub type Micros = u64;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The time now.
pub fn now() -> Micros {
    at(Instant::now())
}

/// A moment on this clock; 0 for what was before it began.
pub fn at(moment: Instant) -> Micros {
    micros(moment.saturating_duration_since(*START))
}

/// A span of time in microseconds.
pub const fn micros(span: Duration) -> Micros {
    // 584,000 years fit.
    span.as_secs().saturating_mul(1_000_000).saturating_add(span.subsec_micros() as u64)
}
