//! `Load`: how busy a backend is, and how fast it answers; `Total`: how busy all of an upstream are. Atomics only.
//!
//! The latency is a moving average that forgets with a time constant of ten seconds, but jumps up at once: a backend
//! that becomes slow is noticed by its first slow response. Without responses it fades towards 0, so that a backend which
//! nobody dares to ask any more is asked again after a while.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use super::clock::Micros;

/// The time after which 1/e of a latency is left.
const TAU: Duration = Duration::from_secs(10);

/// How busy a backend is. Alone on its cache lines (processors fetch them in pairs), for every request writes it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Load {
    /// Requests under way, and [`COUNTED`].
    inflight: AtomicU32,
    latency: AtomicU64,
    total: OnceLock<Arc<Total>>,
}

/// The bit that says that a total counts what begins and ends here. It lies in the number of requests, so that each of
/// them, whenever it began, is counted once.
const COUNTED: u32 = 1 << 31;

impl Load {
    /// Counts a request that begins; tells how many are under way with it.
    pub fn begin(&self) -> u32 {
        let before = self.inflight.fetch_add(1, Relaxed);
        self.count(before, 1);
        (before & !COUNTED) + 1
    }

    /// Counts a request that begins, unless `most` are under way already.
    pub fn try_begin(&self, most: u32) -> bool {
        let next = |inflight| (inflight & !COUNTED < most).then_some(inflight + 1);
        let Ok(before) = self.inflight.fetch_update(Relaxed, Relaxed, next) else { return false };
        self.count(before, 1);
        true
    }

    /// Counts a request that has ended.
    pub fn end(&self) {
        let before = self.inflight.fetch_sub(1, Relaxed);
        self.count(before, -1);
    }

    /// Requests under way.
    pub fn inflight(&self) -> u32 {
        self.inflight.load(Relaxed) & !COUNTED
    }

    fn count(&self, before: u32, by: i64) {
        // The total was set before the bit.
        if before & COUNTED != 0
            && let Some(total) = self.total.get()
        {
            total.inflight.fetch_add(by, Relaxed);
        }
    }

    /// Learns how long a response took to begin. A failure is told as a latency that is long for this backend.
    pub fn observe(&self, latency: Duration, now: Micros) {
        let latency = (latency.as_micros() as f32).max(1.0);
        let mut known = self.latency.load(Relaxed);
        while let Some(next) = Latency::unpack(known).with(latency, now) {
            match self.latency.compare_exchange_weak(known, next.pack(), Relaxed, Relaxed) {
                Ok(_) => return,
                Err(newer) => known = newer,
            }
        }
    }

    /// How long responses take to begin by now, in microseconds; 0: nobody knows.
    pub fn latency_us(&self, now: Micros) -> f32 {
        Latency::unpack(self.latency.load(Relaxed)).at(now)
    }
}

/// The requests under way at all backends of an upstream, for those policies alone that must know: every request writes it.
#[derive(Default)]
#[repr(align(128))]
pub struct Total {
    inflight: AtomicI64,
    parts: Mutex<Vec<Weak<Load>>>,
}

impl Total {
    /// Counts what is under way at `load`, from now on. False: another total does, and there can be one only.
    pub fn add(self: &Arc<Self>, load: &Arc<Load>) -> bool {
        if load.total.set(Arc::clone(self)).is_err() {
            return load.total.get().is_some_and(|total| Arc::ptr_eq(total, self));
        }
        self.parts().push(Arc::downgrade(load));
        // What began before is in the number; what begins or ends after sees the bit.
        let before = load.inflight.fetch_or(COUNTED, Relaxed);
        self.inflight.fetch_add(i64::from(before), Relaxed);
        true
    }

    /// Requests under way at all.
    pub fn inflight(&self) -> u64 {
        // A request may end before the one that began is added.
        u64::try_from(self.inflight.load(Relaxed)).unwrap_or(0)
    }

    /// What is counted here and is none of `loads`.
    pub fn others(&self, loads: &[Arc<Load>]) -> Vec<Arc<Load>> {
        let known: HashSet<*const Load> = loads.iter().map(Arc::as_ptr).collect();
        let mut parts = self.parts();
        parts.retain(|part| part.strong_count() > 0);
        parts.iter().filter_map(Weak::upgrade).filter(|part| !known.contains(&Arc::as_ptr(part))).collect()
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Load>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Total").field(&self.inflight()).finish()
    }
}

/// A latency and when it was right, in the two halves of one atomic.
#[derive(Clone, Copy)]
struct Latency {
    /// Microseconds; 0: unknown. A float, for many small steps would be lost in whole numbers.
    micros: f32,
    /// In ticks since the process began. They run over after twelve days; a latency that nothing was added to for so
    /// long counts as new for once.
    tick: u32,
}

impl Latency {
    /// A tick is 256 microseconds: of the responses within one only the first and the peaks count, which spares writing.
    const TICK: u64 = 256;

    fn unpack(bits: u64) -> Self {
        Self { micros: f32::from_bits((bits >> 32) as u32), tick: bits as u32 }
    }

    fn pack(self) -> u64 {
        u64::from(self.micros.to_bits()) << 32 | u64::from(self.tick)
    }

    /// How many ticks old it is. A thread may be some seconds behind another: that is no age of twelve days.
    fn age(self, now: Micros) -> u32 {
        const BEHIND: u32 = u32::MAX - u16::MAX as u32;
        let age = ((now / Self::TICK) as u32).wrapping_sub(self.tick);
        if age > BEHIND { 0 } else { age }
    }

    /// What time has left of it.
    fn at(self, now: Micros) -> f32 {
        match self.age(now) {
            0 => self.micros,
            age => self.micros * remains(age),
        }
    }

    /// It, with one more response; `None`: that changes nothing.
    fn with(self, latency: f32, now: Micros) -> Option<Self> {
        let age = self.age(now);
        let micros = if latency >= self.micros {
            latency
        } else if age == 0 {
            return None;
        } else {
            let old = remains(age);
            self.micros * old + latency * (1.0 - old)
        };
        Some(Self { micros, tick: (now / Self::TICK) as u32 })
    }
}

/// How much of a latency is left after this many ticks.
fn remains(ticks: u32) -> f32 {
    const TICKS: f32 = (TAU.as_micros() as u64 / Latency::TICK) as f32;
    (-(ticks as f32) / TICKS).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Micros = 1_000_000;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn latency_ms(load: &Load, now: Micros) -> f32 {
        (load.latency_us(now) / 1000.0).round()
    }

    #[test]
    fn requests_under_way_are_counted() {
        let load = Load::default();
        assert_eq!((load.begin(), load.begin(), load.inflight()), (1, 2, 2));
        load.end();
        load.end();
        assert_eq!(load.inflight(), 0);
    }

    #[test]
    fn no_more_begin_than_may_whether_a_total_counts_them_or_not() {
        let (total, load) = (Arc::<Total>::default(), Arc::<Load>::default());
        assert!(load.try_begin(2));
        assert!(total.add(&load) && load.try_begin(2) && !load.try_begin(2));
        assert_eq!((load.inflight(), total.inflight()), (2, 2));
        load.end();
        assert!(load.try_begin(2) && !load.try_begin(1));
        assert_eq!((load.inflight(), total.inflight()), (2, 2));
    }

    #[test]
    fn a_total_counts_what_is_under_way_whenever_it_began() {
        let (total, loads) = (Arc::<Total>::default(), [(); 3].map(|()| Arc::<Load>::default()));
        let [first, second, third] = &loads;
        first.begin();
        first.begin();
        for _ in 0..2 {
            assert!(total.add(first) && total.add(second));
        }
        assert!(!Arc::<Total>::default().add(first));
        second.begin();
        third.begin();
        assert_eq!((total.inflight(), first.inflight(), first.begin()), (3, 2, 3));
        (0..3).for_each(|_| first.end());
        assert_eq!(total.inflight(), 1);
        let others = total.others(&loads[..1]);
        assert!(others.len() == 1 && Arc::ptr_eq(&others[0], second));
        drop((others, loads));
        assert!(total.others(&[]).is_empty());
    }

    #[test]
    fn a_total_is_right_even_when_it_begins_amid_requests() {
        for _ in 0..20 {
            let (total, load) = (Arc::<Total>::default(), Arc::<Load>::default());
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        for _ in 0..2000 {
                            load.begin();
                            load.begin();
                            load.end();
                        }
                    });
                }
                scope.spawn(|| assert!(total.add(&load)));
            });
            assert_eq!((load.inflight(), total.inflight()), (4000, 4000));
        }
    }

    #[test]
    fn the_first_slow_response_counts_at_once_and_fast_ones_only_by_and_by() {
        let load = Load::default();
        assert_eq!(load.latency_us(5 * SECOND), 0.0);
        load.observe(ms(10), 5 * SECOND);
        assert_eq!(latency_ms(&load, 5 * SECOND), 10.0);
        load.observe(ms(1000), 5 * SECOND);
        assert_eq!(latency_ms(&load, 5 * SECOND), 1000.0);
        // A fast one each millisecond from then on: after the time constant 1/e of the difference is left.
        for step in 1..=10_000 {
            load.observe(ms(10), 5 * SECOND + step * 1000);
        }
        let left = latency_ms(&load, 15 * SECOND);
        assert!((360.0..390.0).contains(&left), "{left}");
    }

    #[test]
    fn a_latency_fades_when_nobody_asks() {
        let load = Load::default();
        load.observe(ms(1000), SECOND);
        for (seconds, left) in [(1, 1000.0), (11, 368.0), (21, 135.0), (71, 1.0), (1000, 0.0)] {
            assert_eq!(latency_ms(&load, seconds * SECOND), left, "after {seconds} s");
        }
    }

    #[test]
    fn a_clock_that_is_a_little_behind_is_no_great_age() {
        let load = Load::default();
        load.observe(ms(100), 50 * SECOND);
        assert_eq!(latency_ms(&load, 49 * SECOND), 100.0);
        load.observe(ms(10), 49 * SECOND);
        assert_eq!(latency_ms(&load, 50 * SECOND), 100.0);
    }

    #[test]
    fn a_backend_that_was_forgotten_for_days_is_learnt_anew() {
        let (load, day) = (Load::default(), 86_400 * SECOND);
        load.observe(ms(1000), 9 * day);
        load.observe(ms(10), 18 * day);
        assert_eq!(latency_ms(&load, 18 * day), 10.0);
    }

    #[test]
    fn the_ticks_may_run_over() {
        let load = Load::default();
        let end = (u64::from(u32::MAX) + 1) * Latency::TICK;
        load.observe(ms(1000), end - 5 * SECOND);
        assert_eq!(latency_ms(&load, end + 5 * SECOND), 368.0);
    }

    #[test]
    fn no_observation_is_lost_to_other_threads_when_it_is_the_peak() {
        let load = Load::default();
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let load = &load;
                scope.spawn(move || (1..=1000).for_each(|nth| load.observe(ms(thread * 1000 + nth), SECOND)));
            }
        });
        assert_eq!(latency_ms(&load, SECOND), 5000.0);
    }
}
