//! When which key set is fetched.
//!
//! Invariant: pure; an address is fetched by one task at a time, and one that fails is tried ever less often.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ambit_runtime::Backoff;
use tokio::time::Instant;

/// Pause between fetches that succeed.
pub const REFRESH: Duration = Duration::from_secs(20 * 60);
/// Pauses between fetches that fail.
pub const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5 * 60));
/// Fetches under way at a time.
pub const FETCHES_MAX: usize = 4;

/// What is fetched when.
#[derive(Debug, Default)]
pub struct Schedule(BTreeMap<Arc<str>, Entry>);

#[derive(Debug)]
struct Entry {
    /// None while it is fetched.
    due: Option<Instant>,
    backoff: Backoff,
}

impl Schedule {
    /// Takes over what is wanted: what is new is due at once, what is no longer wanted is forgotten.
    pub fn want(&mut self, wanted: &BTreeSet<Arc<str>>, now: Instant) {
        self.0.retain(|address, _| wanted.contains(address));
        for address in wanted {
            let new = || Entry { due: Some(now), backoff: Backoff::new(RETRY.0, RETRY.1) };
            self.0.entry(address.clone()).or_insert_with(new);
        }
    }

    /// What is to be fetched now; it counts as being fetched.
    pub fn take(&mut self, now: Instant) -> Vec<Arc<str>> {
        let room = FETCHES_MAX.saturating_sub(self.fetching());
        let due = self.0.iter_mut().filter(|(_, entry)| entry.due.is_some_and(|due| due <= now)).take(room);
        due.map(|(address, entry)| {
            entry.due = None;
            address.clone()
        })
        .collect()
    }

    /// A fetch ended. Whether anybody still wants to know.
    pub fn done(&mut self, address: &str, is_fine: bool, now: Instant) -> bool {
        let Some(entry) = self.0.get_mut(address) else { return false };
        let pause = if is_fine {
            entry.backoff.reset();
            REFRESH
        } else {
            entry.backoff.pause()
        };
        entry.due = Some(now + pause);
        true
    }

    /// When something is due next; never while as much as may be is under way.
    pub fn next(&self) -> Option<Instant> {
        if self.fetching() >= FETCHES_MAX {
            return None;
        }
        self.0.values().filter_map(|entry| entry.due).min()
    }

    fn fetching(&self) -> usize {
        self.0.values().filter(|entry| entry.due.is_none()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(addresses: &[&str]) -> BTreeSet<Arc<str>> {
        addresses.iter().map(|address| Arc::from(*address)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_address_is_due_at_once_and_again_after_the_refresh() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.want(&set(&["a"]), now);
        assert_eq!(schedule.take(now), [Arc::from("a")]);
        assert_eq!((schedule.take(now).len(), schedule.next()), (0, None), "one task at a time");
        assert!(schedule.done("a", true, now));
        assert_eq!(schedule.next(), Some(now + REFRESH));
        assert_eq!(schedule.take(now + REFRESH).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_fails_is_tried_ever_less_often_and_soon_after_a_success() {
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        schedule.want(&set(&["a"]), now);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            schedule.take(now);
            schedule.done("a", false, now);
            let next = schedule.next().unwrap();
            pauses.push(next - now);
            now = next;
        }
        assert!(pauses[0] < RETRY.0 * 2 && pauses[11] > RETRY.1 / 2 && pauses[11] <= RETRY.1, "{pauses:?}");
        schedule.take(now);
        schedule.done("a", true, now);
        schedule.take(now + REFRESH);
        schedule.done("a", false, now);
        assert!(schedule.next().unwrap() - now < RETRY.0 * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn few_are_fetched_at_a_time_and_none_that_nobody_wants() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        schedule.want(&set(&["a", "b", "c", "d", "e", "f"]), now);
        assert_eq!(schedule.take(now).len(), FETCHES_MAX);
        schedule.want(&set(&["e", "f"]), now);
        assert!(!schedule.done("a", true, now));
        assert_eq!(schedule.take(now).len(), 2);
    }
}
