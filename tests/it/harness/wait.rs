//! Waiting for an event with a deadline, never for a while.

use std::time::{Duration, Instant};

/// How long any single wait may last before the test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(8);

/// Waits until `holds` does; panics with `what` when it does not within the deadline.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    await_some(what, || holds().then_some(()));
}

/// Waits until `find` finds something; panics with `what` when it does not within the deadline.
#[track_caller]
pub(crate) fn await_some<T>(what: &str, find: impl FnMut() -> Option<T>) -> T {
    match within(DEADLINE, find) {
        Some(found) => found,
        None => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// What `find` finds within this time.
pub(crate) fn within<T>(limit: Duration, mut find: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = find() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        // Only the pause between two looks: the loop ends by the event or the deadline.
        std::thread::sleep(Duration::from_millis(5));
    }
}
