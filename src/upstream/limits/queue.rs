//! `Queue`: where requests wait, first come first served, while their upstream takes no more.
//!
//! The queue has no places to give away: whoever is in front asks for one again whenever one may have become free. So one
//! queue serves every kind of limit at once, those of the upstream, of its servers, and one that moves. One that cannot take
//! just any place, as a session that sticks to a server, does not keep those behind it waiting: when it asks in vain, the
//! next in line asks. A request that leaves, at whatever point, is forgotten as its future is dropped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::observe::QueueStats;
use crate::upstream::refusal::Refusal;

/// The waiting requests of one upstream. Kept over reloads, so that those of before and after stand in one line.
#[derive(Debug, Default)]
pub struct Queue {
    /// As many as stand in the line, to be read without it.
    waiting: AtomicU32,
    line: Mutex<Line>,
    stats: Arc<QueueStats>,
}

#[derive(Debug, Default)]
struct Line {
    waiters: BTreeMap<u64, Arc<Waiter>>,
    next: u64,
    choosy: usize,
}

#[derive(Debug)]
struct Waiter {
    called: Notify,
    /// Changes only with the line's own count.
    choosy: AtomicBool,
}

/// How a request waits.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// It waits only if fewer than this wait already.
    pub places: u32,
    /// It gives up then.
    pub until: Instant,
    /// It cannot take just any place.
    pub choosy: bool,
}

impl Queue {
    /// An empty queue that tells its length to `stats`.
    pub fn new(stats: Arc<QueueStats>) -> Self {
        Self { stats, ..Self::default() }
    }

    /// Whether nobody waits. Who comes then may ask for a place at once; else that would be pushing in.
    pub fn is_empty(&self) -> bool {
        self.waiting.load(Relaxed) == 0
    }

    /// A place may have become free. To be said after it has.
    pub fn freed(&self) {
        // Whoever asked in vain stood in line before (see `wait`): of the two, at least one sees the other.
        fence(SeqCst);
        if !self.is_empty() {
            self.call(0);
        }
    }

    /// Waits in line until `attempt` gives a place, or refuses with anything but [`Refusal::Full`].
    pub async fn wait<T>(&self, terms: Terms, mut attempt: impl FnMut() -> Result<T, Refusal>) -> Result<T, Refusal> {
        let place = self.enter(terms)?;
        let turn = async {
            if !place.first {
                place.waiter.called.notified().await;
            }
            loop {
                fence(SeqCst);
                match attempt() {
                    Err(Refusal::Full) => {}
                    settled => return settled,
                }
                if place.waiter.choosy.load(Relaxed) {
                    self.call(place.ticket + 1);
                }
                place.waiter.called.notified().await;
            }
        };
        timeout_at(terms.until, turn).await.unwrap_or(Err(Refusal::QueueTimeout))
    }

    fn enter(&self, terms: Terms) -> Result<Place<'_>, Refusal> {
        let mut line = self.line();
        if line.waiters.len() >= terms.places as usize {
            return Err(Refusal::QueueFull);
        }
        let (ticket, first) = (line.next, line.waiters.is_empty());
        let waiter = Arc::new(Waiter { called: Notify::new(), choosy: AtomicBool::new(terms.choosy) });
        line.next += 1;
        line.choosy += usize::from(terms.choosy);
        // What those in front cannot take may be free, and this one has not been asked.
        let asks = line.choosy > usize::from(terms.choosy);
        line.waiters.insert(ticket, Arc::clone(&waiter));
        self.waiting.fetch_add(1, SeqCst);
        self.stats.length.inc();
        drop(line);
        if asks {
            self.call(0);
        }
        Ok(Place { queue: self, ticket, waiter, first })
    }

    /// From now on others come that can take other places than those who wait already: none of these keeps anybody waiting.
    pub fn part(&self) {
        let mut line = self.line();
        for waiter in line.waiters.values() {
            waiter.choosy.store(true, Relaxed);
        }
        line.choosy = line.waiters.len();
        drop(line);
        self.call(0);
    }

    /// Tells the first in line from this ticket on to ask. Being told is remembered until it does.
    fn call(&self, from: u64) {
        if let Some((_, waiter)) = self.line().waiters.range(from..).next() {
            waiter.called.notify_one();
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits, until it is dropped.
struct Place<'a> {
    queue: &'a Queue,
    ticket: u64,
    waiter: Arc<Waiter>,
    /// Whether nobody stood before it when it came.
    first: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = self.queue.line();
        if let Some(waiter) = line.waiters.remove(&self.ticket) {
            line.choosy -= usize::from(waiter.choosy.load(Relaxed));
        }
        self.queue.waiting.fetch_sub(1, SeqCst);
        self.queue.stats.length.dec();
        drop(line);
        // It may have been called before it left, or there is room for more than this one.
        self.queue.call(0);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Mutex as Lock;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use super::*;

    /// So many places, and a queue before them.
    struct Room {
        limit: u32,
        taken: AtomicU32,
        most: AtomicU32,
        queue: Queue,
    }

    impl Room {
        fn of(limit: u32) -> Arc<Self> {
            Arc::new(Self { limit, taken: AtomicU32::new(0), most: AtomicU32::new(0), queue: Queue::default() })
        }

        fn take(&self) -> Result<(), Refusal> {
            let next = |taken| (taken < self.limit).then_some(taken + 1);
            let before = self.taken.fetch_update(Relaxed, Relaxed, next).map_err(|_| Refusal::Full)?;
            self.most.fetch_max(before + 1, Relaxed);
            Ok(())
        }

        fn give_back(&self) {
            self.taken.fetch_sub(1, Relaxed);
            self.queue.freed();
        }

        async fn wait(&self, places: u32, patience: Duration) -> Result<(), Refusal> {
            self.queue.wait(terms(places, patience), || self.take()).await
        }
    }

    fn terms(places: u32, patience: Duration) -> Terms {
        Terms { places, until: Instant::now() + patience, choosy: false }
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn who_comes_first_goes_first() {
        let room = Room::of(1);
        room.take().unwrap();
        let order = Arc::new(Lock::new(Vec::new()));
        let waiting: Vec<_> = (0..100)
            .map(|number| {
                let (room, order) = (Arc::clone(&room), Arc::clone(&order));
                tokio::spawn(async move {
                    room.wait(100, LONG).await.unwrap();
                    order.lock().unwrap().push(number);
                    room.give_back();
                })
            })
            .collect();
        while room.queue.waiting.load(Relaxed) < 100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(room.queue.stats.length.get(), 100);
        room.give_back();
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
        assert!(room.queue.is_empty() && room.queue.stats.length.get() == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_at_its_time_and_not_before() {
        let room = Room::of(0);
        let began = Instant::now();
        let refused = room.wait(1, Duration::from_secs(2)).await;
        assert_eq!((refused, began.elapsed()), (Err(Refusal::QueueTimeout), Duration::from_secs(2)));
        assert!(room.queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_may_wait() {
        let room = Room::of(0);
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let room = Arc::clone(&room);
                tokio::spawn(async move { room.wait(3, LONG).await })
            })
            .collect();
        while room.queue.waiting.load(Relaxed) < 3 {
            tokio::task::yield_now().await;
        }
        assert_eq!(room.wait(3, LONG).await, Err(Refusal::QueueFull));
        assert_eq!(room.wait(0, LONG).await, Err(Refusal::QueueFull));
        for task in tasks {
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert!(room.queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_matter_of_room_ends_the_wait() {
        let queue = Queue::default();
        let mut asked = 0;
        let refused = queue.wait(terms(1, LONG), || {
            asked += 1;
            Err::<(), _>(Refusal::NoHealthyBackend)
        });
        assert_eq!(refused.await, Err(Refusal::NoHealthyBackend));
        assert_eq!(asked, 1);
    }

    /// Polls a future once.
    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_leaves_after_it_was_called_passes_the_call_on() {
        let room = Room::of(1);
        room.take().unwrap();
        let mut second = pin!(room.wait(9, LONG));
        {
            let mut first = pin!(room.wait(9, LONG));
            assert!(poll(first.as_mut()).is_none() && poll(second.as_mut()).is_none());
            room.give_back();
            // The first was called, and goes before it has heard.
        }
        assert_eq!(poll(second.as_mut()), Some(Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_free_before_anybody_listens_is_not_lost() {
        let room = Room::of(1);
        room.take().unwrap();
        let mut given_back = false;
        // It becomes free between asking in vain and waiting to hear of it.
        let waited = room.queue.wait(terms(1, LONG), || {
            let taken = room.take();
            if taken.is_err() && !std::mem::replace(&mut given_back, true) {
                room.give_back();
            }
            taken
        });
        assert_eq!(waited.await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_cannot_take_any_place_keeps_nobody_waiting() {
        let room = Room::of(1);
        room.take().unwrap();
        let choosy = Terms { choosy: true, ..terms(9, LONG) };
        let mut session = pin!(room.queue.wait(choosy, || Err::<(), _>(Refusal::Full)));
        let (mut second, mut third) = (pin!(room.wait(9, LONG)), pin!(room.wait(9, LONG)));
        for waiting in [&mut second, &mut third] {
            assert!(poll(session.as_mut()).is_none() && poll(waiting.as_mut()).is_none());
        }
        room.give_back();
        assert!(poll(session.as_mut()).is_none());
        assert_eq!(poll(second.as_mut()), Some(Ok(())));
        // A place that was free all the time is found by whoever comes.
        room.taken.store(0, Relaxed);
        assert!(poll(third.as_mut()).is_none());
        let mut fourth = pin!(room.wait(9, LONG));
        assert!(poll(fourth.as_mut()).is_none() && poll(session.as_mut()).is_none());
        assert_eq!(poll(third.as_mut()), Some(Ok(())));
    }

    #[test]
    fn under_stress_nobody_is_forgotten_and_the_limit_holds() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        runtime.block_on(async {
            let room = Room::of(3);
            let tasks: Vec<_> = (0..64_u64)
                .map(|seed| {
                    let room = Arc::clone(&room);
                    tokio::spawn(async move {
                        let mut random = fastrand::Rng::with_seed(seed);
                        let mut served = 0;
                        while served < 300 {
                            let entered = if room.queue.is_empty() { room.take() } else { Err(Refusal::Full) };
                            let entered = match entered {
                                // Some lose patience while they wait, most do not.
                                Err(_) if random.u8(..8) == 0 => {
                                    let patience = Duration::from_micros(random.u64(..200));
                                    match tokio::time::timeout(patience, room.wait(64, LONG)).await {
                                        Ok(waited) => waited.is_ok(),
                                        Err(_) => false,
                                    }
                                }
                                Err(_) if random.u8(..8) == 0 => {
                                    // Takes only every other place that it could have.
                                    let takes = || if random.bool() { room.take() } else { Err(Refusal::Full) };
                                    let choosy = Terms { choosy: true, ..terms(64, Duration::from_millis(1)) };
                                    room.queue.wait(choosy, takes).await.is_ok()
                                }
                                Err(_) => room.wait(64, LONG).await.is_ok(),
                                Ok(()) => true,
                            };
                            if entered {
                                if random.bool() {
                                    tokio::task::yield_now().await;
                                }
                                served += 1;
                                room.give_back();
                            }
                        }
                    })
                })
                .collect();
            let all = async {
                for task in tasks {
                    task.await.unwrap();
                }
            };
            tokio::time::timeout(Duration::from_secs(60), all).await.expect("nobody waits for ever");
            assert_eq!((room.taken.load(Relaxed), room.queue.is_empty()), (0, true));
            assert_eq!(room.most.load(Relaxed), 3);
        });
    }
}
