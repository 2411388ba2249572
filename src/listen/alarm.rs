//! `Alarm`: a deadline that moves with every request, at the price of almost no timer work.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer of a connection. When the deadline moves later, the timer is left alone: it rings early, sees that it is
/// too early, and sets itself anew. So a busy keep-alive connection touches its timer once per idle time, not twice
/// per request.
#[derive(Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready once `deadline` has passed.
    pub(super) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if deadline <= sleep.deadline() || deadline <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_deadline_may_move_both_ways() {
        let mut alarm = Alarm::default();
        let start = Instant::now();
        let mut ring = async |seconds: u64| {
            let deadline = start + Duration::from_secs(seconds);
            poll_fn(|cx| alarm.poll(deadline, cx)).await;
            start.elapsed().as_secs()
        };
        assert_eq!(ring(10).await, 10);
        assert_eq!(ring(5).await, 10, "in the past: at once");
        assert_eq!(ring(70).await, 70);

        let mut alarm = Alarm::default();
        let later = Instant::now() + Duration::from_secs(60);
        assert!(futures_now(&mut alarm, later).await.is_pending());
        let sooner = Instant::now() + Duration::from_secs(1);
        poll_fn(|cx| alarm.poll(sooner, cx)).await;
        assert!(Instant::now() < later);
    }

    async fn futures_now(alarm: &mut Alarm, deadline: Instant) -> Poll<()> {
        poll_fn(|cx| Poll::Ready(alarm.poll(deadline, cx))).await
    }
}
