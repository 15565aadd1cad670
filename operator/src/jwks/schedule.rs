//! Schedules the fetching of key sets.
//!
//! Invariant: pure. Each URI is fetched by one task at a time, and failures are retried ever less
//! often. Namespaces take turns, and none has more than [`FETCHES_PER_NAMESPACE_MAX`] fetches in
//! flight, so URIs that never answer delay nobody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ambit_index::request_authentication::WantedKeySet;
use ambit_runtime::Backoff;
use tokio::time::Instant;

/// Interval after a successful fetch.
pub(crate) const REFRESH: Duration = Duration::from_secs(20 * 60);
/// First and longest pause after a failed fetch.
pub(crate) const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5 * 60));
/// Concurrent fetches.
pub(crate) const FETCHES_MAX: usize = 16;
/// Concurrent fetches per namespace.
pub(crate) const FETCHES_PER_NAMESPACE_MAX: usize = 2;

/// The key sets that policies reference, by URI.
pub(crate) type Wanted = BTreeMap<Arc<str>, WantedKeySet>;

/// The schedule.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    entries: BTreeMap<Arc<str>, Entry>,
    /// Sequence number of a namespace's last turn; those without one come first.
    turns: BTreeMap<Arc<str>, u64>,
    turn: u64,
}

#[derive(Debug)]
struct Entry {
    namespaces: BTreeSet<Arc<str>>,
    state: State,
    backoff: Backoff,
}

#[derive(Debug)]
enum State {
    Due(Instant),
    /// Being fetched on behalf of this namespace.
    Fetching(Arc<str>),
}

impl Schedule {
    /// Updates the wanted key sets: new ones are due at once, others are dropped.
    pub(crate) fn want(&mut self, wanted: &Wanted, now: Instant) {
        self.entries.retain(|address, _| wanted.contains_key(address));
        for (address, WantedKeySet { namespaces, .. }) in wanted {
            let new = || Entry {
                namespaces: BTreeSet::new(),
                state: State::Due(now),
                backoff: Backoff::new(RETRY.0, RETRY.1),
            };
            self.entries.entry(address.clone()).or_insert_with(new).namespaces.clone_from(namespaces);
        }
        let known: BTreeSet<_> = wanted.values().flat_map(|wanted| &wanted.namespaces).collect();
        self.turns.retain(|namespace, _| known.contains(namespace));
    }

    /// Takes the key sets that are due; they count as being fetched.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<Arc<str>> {
        let mut taken = Vec::new();
        while let Some((address, namespace)) = self.next_turn(now) {
            if let Some(entry) = self.entries.get_mut(&address) {
                entry.state = State::Fetching(namespace.clone());
            }
            self.turn += 1;
            self.turns.insert(namespace, self.turn);
            taken.push(address);
        }
        taken
    }

    /// Records the end of a fetch. Returns whether the key set is still wanted.
    pub(crate) fn done(&mut self, address: &str, is_fine: bool, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(address) else { return false };
        let pause = if is_fine {
            entry.backoff.reset();
            REFRESH
        } else {
            entry.backoff.pause()
        };
        entry.state = State::Due(now + pause);
        true
    }

    /// When the next fetch may be due; `None` while all slots are in use.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.candidates().map(|(due, _, _)| due).min()
    }

    fn next_turn(&self, now: Instant) -> Option<(Arc<str>, Arc<str>)> {
        let due = self.candidates().filter(|(due, _, _)| *due <= now);
        let first = due.min_by_key(|(due, namespace, _)| (self.turns.get(*namespace), *due));
        first.map(|(_, namespace, address)| (address.clone(), namespace.clone()))
    }

    /// Possible fetches: time, namespace, URI.
    fn candidates(&self) -> impl Iterator<Item = (Instant, &Arc<str>, &Arc<str>)> {
        let mut fetching: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for entry in self.entries.values() {
            if let State::Fetching(namespace) = &entry.state {
                *fetching.entry(namespace).or_default() += 1;
            }
        }
        let has_room = fetching.values().sum::<usize>() < FETCHES_MAX;
        let entries = self.entries.iter().filter(move |_| has_room);
        let waiting = entries.filter_map(|(address, entry)| match entry.state {
            State::Due(due) => Some((address, entry, due)),
            State::Fetching(_) => None,
        });
        waiting.flat_map(move |(address, entry, due)| {
            let is_free = |namespace: &&Arc<str>| {
                fetching.get(namespace).is_none_or(|fetching| *fetching < FETCHES_PER_NAMESPACE_MAX)
            };
            let free: Vec<_> = entry.namespaces.iter().filter(is_free).collect();
            free.into_iter().map(move |namespace| (due, namespace, address))
        })
    }
}

#[cfg(test)]
mod tests {
    use ambit_index::request_authentication::TIMEOUT;

    use super::*;

    /// URIs wanted by one namespace.
    fn set(addresses: &[&str]) -> Wanted {
        of("shop", addresses.iter().map(|address| (*address).to_owned()))
    }

    fn of(namespace: &str, addresses: impl Iterator<Item = String>) -> Wanted {
        let wanted = || WantedKeySet { namespaces: BTreeSet::from([Arc::from(namespace)]), timeout: TIMEOUT };
        addresses.map(|address| (address.into(), wanted())).collect()
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
        assert_eq!(schedule.take(now).len(), FETCHES_PER_NAMESPACE_MAX);
        assert_eq!(schedule.next(), None, "the namespace has all it may");
        schedule.want(&set(&["e", "f"]), now);
        assert!(!schedule.done("a", true, now));
        assert_eq!(schedule.take(now).len(), 2);
        let mut many = Wanted::new();
        for namespace in 0..2 * FETCHES_MAX {
            many.extend(of(&namespace.to_string(), std::iter::once(format!("{namespace}/keys"))));
        }
        let mut schedule = Schedule::default();
        schedule.want(&many, now);
        assert_eq!((schedule.take(now).len(), schedule.next()), (FETCHES_MAX, None));
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_never_answer_delay_no_other_namespace() {
        let (mut schedule, mut now) = (Schedule::default(), Instant::now());
        let hostile = of("b", (0..150).map(|n| format!("http://10.0.0.1:81/?{n}")));
        let mut wanted = hostile.clone();
        wanted.extend(of("shop", std::iter::once("https://idp.example/keys".to_owned())));
        schedule.want(&hostile, now);
        let mut black_holes = schedule.take(now);
        schedule.want(&wanted, now);
        assert_eq!(schedule.take(now), [Arc::from("https://idp.example/keys")], "at once");
        schedule.done("https://idp.example/keys", true, now);
        // Each fetch takes its full time, until the others are due again; those are then fetched.
        let due = now + REFRESH;
        while now < due {
            now += Duration::from_secs(10);
            for address in &black_holes {
                assert!(schedule.done(address, false, now));
            }
            black_holes = schedule.take(now);
            assert!(black_holes.len() <= FETCHES_PER_NAMESPACE_MAX + usize::from(now >= due));
        }
        assert!(black_holes.iter().any(|address| address.starts_with("https://idp")), "{black_holes:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_two_namespaces_want_is_fetched_in_the_turn_of_either() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let mut wanted = of("b", ["http://b/1", "http://b/2", "http://b/3"].map(str::to_owned).into_iter());
        schedule.want(&wanted, now);
        assert_eq!(schedule.take(now).len(), FETCHES_PER_NAMESPACE_MAX);
        wanted.get_mut("http://b/3").unwrap().namespaces.insert("shop".into());
        schedule.want(&wanted, now);
        assert_eq!(schedule.take(now), [Arc::from("http://b/3")]);
    }
}
