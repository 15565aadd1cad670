//! Metric series whose labels come from traffic: lock-free lookup, a bounded number, and removal
//! when unused.
//!
//! Invariant: there are at most as many label sets as the limit, plus one per kind of overflow. A
//! series is removed only when it has no user and has been unused for a while, and nothing is ever
//! counted in a removed one.

use std::{
    collections::{HashMap, hash_map::Entry as Slot},
    fmt,
    hash::Hash,
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Series that one worker caches.
const CACHE_MAX: usize = 4096;

/// The labels of one series.
pub trait Labels: Eq + Hash {
    /// The labels of the series that counts everything beyond the limit.
    #[must_use]
    fn overflow(&self) -> Self;
}

/// The counters of one label set, and its users.
#[derive(Debug, Default)]
struct Series<S> {
    counts: S,
    users: AtomicU64,
    retired: AtomicBool,
    /// Last use, in milliseconds since the table was created.
    used_at: AtomicU64,
}

/// A series in use: it is not removed before this is dropped.
#[derive(Debug)]
pub struct InUse<S> {
    series: Arc<Series<S>>,
    epoch: Instant,
}

impl<S> Deref for InUse<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.series.counts
    }
}

impl<S> Drop for InUse<S> {
    fn drop(&mut self) {
        self.series.used_at.store(millis(self.epoch), Ordering::Relaxed);
        self.series.users.fetch_sub(1, Ordering::SeqCst);
    }
}

fn millis(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
}

type ByLabels<L, S> = HashMap<Arc<L>, Arc<Series<S>>>;

/// All series of one kind. Clones share the table.
pub struct Table<L, S> {
    series: Arc<Mutex<ByLabels<L, S>>>,
    max: usize,
    epoch: Instant,
}

impl<L, S> Clone for Table<L, S> {
    fn clone(&self) -> Self {
        Self { series: self.series.clone(), max: self.max, epoch: self.epoch }
    }
}

impl<L, S> fmt::Debug for Table<L, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("series", &self.lock().len()).field("max", &self.max).finish()
    }
}

impl<L, S> Table<L, S> {
    fn lock(&self) -> MutexGuard<'_, ByLabels<L, S>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: Labels, S: Default> Table<L, S> {
    /// A table for at most `max` label sets.
    pub fn new(max: usize) -> Self {
        Self { series: Arc::default(), max, epoch: Instant::now() }
    }

    /// A cache for one worker. `K` is the worker's key of a series; `P` is kept alive as long as
    /// the key, for keys that contain addresses of objects.
    pub fn cache<K: Clone + Eq + Hash, P>(&self) -> Cache<K, P, L, S> {
        Cache { table: self.clone(), known: HashMap::new() }
    }

    /// Removes series that have been unused for at least `unused`.
    pub fn sweep(&self, unused: Duration) {
        let limit = u64::try_from(unused.as_millis()).unwrap_or(u64::MAX);
        let now = millis(self.epoch);
        self.lock().retain(|_, series| {
            if now.saturating_sub(series.used_at.load(Ordering::Relaxed)) < limit {
                return true;
            }
            // A new user first increments `users` and then checks `retired`.
            series.retired.store(true, Ordering::SeqCst);
            if series.users.load(Ordering::SeqCst) == 0 {
                return false;
            }
            series.retired.store(false, Ordering::SeqCst);
            true
        });
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are no series.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// All current series for a scrape, in no particular order. Reading does not count as use.
    pub fn rows(&self) -> Vec<Row<L, S>> {
        let row = |(labels, series): (&Arc<L>, &Arc<Series<S>>)| Row {
            labels: labels.clone(),
            series: series.clone(),
        };
        self.lock().iter().map(row).collect()
    }

    /// The labels of a series in use: those it was acquired with, or the overflow labels. Slow:
    /// searches all series.
    pub fn labels(&self, of: &InUse<S>) -> Option<Arc<L>> {
        let table = self.lock();
        table.iter().find(|(_, series)| Arc::ptr_eq(series, &of.series)).map(|(labels, _)| labels.clone())
    }

    /// The series of `labels`, marked as in use.
    fn series(&self, labels: L) -> Arc<Series<S>> {
        let labels = Arc::new(labels);
        let mut table = self.lock();
        let has_room = table.len() < self.max || table.contains_key(&labels);
        let labels = if has_room { labels } else { Arc::new(labels.overflow()) };
        let series = match table.entry(labels) {
            Slot::Occupied(slot) => slot.get().clone(),
            Slot::Vacant(slot) => slot.insert(Arc::default()).clone(),
        };
        // Under the lock, so that `sweep` cannot retire it in between.
        series.users.fetch_add(1, Ordering::SeqCst);
        series
    }
}

/// A series in a scrape.
#[derive(Debug)]
pub struct Row<L, S> {
    /// The labels.
    pub labels: Arc<L>,
    series: Arc<Series<S>>,
}

impl<L, S> Row<L, S> {
    /// The counters.
    pub fn counts(&self) -> &S {
        &self.series.counts
    }
}

/// A worker's cache of series: no lock once a series is cached.
#[derive(Debug)]
pub struct Cache<K, P, L, S> {
    table: Table<L, S>,
    known: HashMap<K, (P, Arc<Series<S>>)>,
}

impl<K: Clone + Eq + Hash, P, L: Labels, S: Default> Cache<K, P, L, S> {
    /// The series for `key`; if it is not cached, `missing` returns its labels.
    pub fn acquire(&mut self, key: &K, missing: impl FnOnce() -> (P, L)) -> InUse<S> {
        let epoch = self.table.epoch;
        if let Some((_, series)) = self.known.get(key) {
            series.users.fetch_add(1, Ordering::SeqCst);
            if !series.retired.load(Ordering::SeqCst) {
                return InUse { series: series.clone(), epoch };
            }
            series.users.fetch_sub(1, Ordering::SeqCst);
        }
        let (pinned, labels) = missing();
        let series = self.table.series(labels);
        if self.known.len() >= CACHE_MAX {
            self.known.clear();
        }
        self.known.insert(key.clone(), (pinned, series.clone()));
        InUse { series, epoch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Labels for &'static str {
        fn overflow(&self) -> Self {
            "overflow"
        }
    }

    type Names = Table<&'static str, AtomicU64>;

    fn shown(table: &Names) -> Vec<(&'static str, u64)> {
        let mut rows: Vec<_> =
            table.rows().iter().map(|row| (*row.labels, row.counts().load(Ordering::Relaxed))).collect();
        rows.sort_unstable();
        rows
    }

    fn count(cache: &mut Cache<&'static str, (), &'static str, AtomicU64>, name: &'static str) {
        cache.acquire(&name, || ((), name)).fetch_add(1, Ordering::Relaxed);
    }

    #[test]
    fn workers_count_into_one_series_and_ask_for_labels_once() {
        let table = Names::new(10);
        let mut caches = [table.cache(), table.cache()];
        caches.iter_mut().for_each(|cache| count(cache, "a"));
        caches[0].acquire(&"a", || unreachable!("it is known")).fetch_add(1, Ordering::Relaxed);
        assert_eq!(shown(&table), [("a", 3)]);
    }

    #[test]
    fn what_finds_no_room_is_counted_as_overflow_and_what_has_a_series_keeps_it() {
        let table = Names::new(2);
        let mut cache = table.cache();
        for name in ["a", "b", "c", "d", "a"] {
            count(&mut cache, name);
        }
        assert_eq!(shown(&table), [("a", 2), ("b", 1), ("overflow", 2)]);
    }

    #[test]
    fn a_series_is_dropped_only_when_nobody_uses_it_and_begins_anew() {
        let table = Names::new(10);
        let mut cache: Cache<_, (), _, _> = table.cache();
        let used = cache.acquire(&"used", || ((), "used"));
        count(&mut cache, "unused");
        table.sweep(Duration::from_secs(3600));
        assert_eq!(table.len(), 2, "both were used a moment ago");
        table.sweep(Duration::ZERO);
        assert_eq!(shown(&table), [("used", 0)]);
        drop(used);
        table.sweep(Duration::ZERO);
        assert!(table.is_empty());
        // A worker whose cached series was removed gets a new one.
        count(&mut cache, "unused");
        assert_eq!(shown(&table), [("unused", 1)]);
    }

    #[test]
    fn nothing_is_lost_while_workers_count_and_a_sweep_runs() {
        const EACH: u64 = 20_000;
        let table = Names::new(10);
        let held = table.cache::<_, ()>().acquire(&"a", || ((), "a"));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut cache = table.cache();
                    (0..EACH).for_each(|_| count(&mut cache, "a"));
                });
            }
            (0..1000).for_each(|_| table.sweep(Duration::ZERO));
        });
        assert_eq!(held.load(Ordering::Relaxed), 2 * EACH);
    }
}
