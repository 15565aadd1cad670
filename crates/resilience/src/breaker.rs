//! Circuit breaker limits of one destination in this process: beyond a limit, failing at once is
//! better than queueing.
//!
//! Invariant: what a [`Permit`] represents is counted exactly as long as the permit lives, even if
//! the limits change.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use ambit_model::bound::{CircuitBreaker, DestinationPolicy};

use crate::{budget, rate::Bucket};

/// Represents no limit.
const UNLIMITED: u32 = u32::MAX;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Connections to endpoints.
    Connection,
    /// Requests waiting for a connection.
    Pending,
    /// Requests in flight.
    Request,
    /// Retries in flight.
    Retry,
}

impl Resource {
    /// All resources, in the order of [`Breaker`]'s counters.
    pub const ALL: [Self; 4] = [Self::Connection, Self::Pending, Self::Request, Self::Retry];

    /// The value of a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connections",
            Self::Pending => "pending_requests",
            Self::Request => "requests",
            Self::Retry => "retries",
        }
    }
}

/// The limit of this resource is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the destination has as many {} as its TrafficPolicy allows", .0.as_str())]
pub struct Overflow(pub Resource);

#[derive(Debug)]
struct Count {
    limit: AtomicU32,
    used: AtomicU32,
    overflowed: AtomicU64,
}

impl Count {
    fn new(limit: Option<u32>) -> Self {
        let limit = AtomicU32::new(limit.unwrap_or(UNLIMITED));
        Self { limit, used: AtomicU32::new(0), overflowed: AtomicU64::new(0) }
    }

    fn take(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let one_more = |used: u32| (used < limit).then(|| used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    fn overflow(&self) {
        self.overflowed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Connections and requests in flight to one destination.
#[derive(Debug)]
pub struct Breaker {
    connections: Count,
    pending: Count,
    requests: Count,
    retries: Count,
    budget_percent: AtomicU32,
    /// The retries per second that do not count against the budget.
    reserve: Bucket,
    reserve_per_second: AtomicU32,
    clock: Instant,
}

impl Breaker {
    /// Nothing in flight; `clock` is the reference point of all times.
    pub fn new(policy: &DestinationPolicy, clock: Instant) -> Arc<Self> {
        let CircuitBreaker { max_connections, max_pending_requests, max_requests, max_retries } =
            policy.breaker;
        let budget = policy.retry_budget.unwrap_or_default();
        Arc::new(Self {
            connections: Count::new(max_connections),
            pending: Count::new(max_pending_requests),
            requests: Count::new(max_requests),
            retries: Count::new(max_retries),
            budget_percent: AtomicU32::new(budget.percent),
            reserve: Bucket::default(),
            reserve_per_second: AtomicU32::new(budget.min_per_second),
            clock,
        })
    }

    /// Applies new limits; what already exceeds them is left to end.
    pub fn change(&self, policy: &DestinationPolicy) {
        let limits = &policy.breaker;
        let limits =
            [limits.max_connections, limits.max_pending_requests, limits.max_requests, limits.max_retries];
        for (resource, limit) in Resource::ALL.into_iter().zip(limits) {
            self.count(resource).limit.store(limit.unwrap_or(UNLIMITED), Ordering::Relaxed);
        }
        let budget = policy.retry_budget.unwrap_or_default();
        self.budget_percent.store(budget.percent, Ordering::Relaxed);
        self.reserve_per_second.store(budget.min_per_second, Ordering::Relaxed);
    }

    /// Takes a permit for a connection.
    ///
    /// # Errors
    /// [`Overflow`] at the limit.
    pub fn connection(self: &Arc<Self>) -> Result<Permit, Overflow> {
        self.permit(Resource::Connection)
    }

    /// Takes a permit for a connection, if one is available. `None` is not counted as an overflow,
    /// because the caller may wait.
    pub fn free_connection(self: &Arc<Self>) -> Option<Permit> {
        self.connections.take().then(|| Permit { breaker: self.clone(), resource: Resource::Connection })
    }

    /// Takes a permit to wait for a connection.
    ///
    /// # Errors
    /// [`Overflow`] at the limit.
    pub fn pending(self: &Arc<Self>) -> Result<Permit, Overflow> {
        self.permit(Resource::Pending)
    }

    /// Takes a permit for a request and its retries.
    ///
    /// # Errors
    /// [`Overflow`] at the limit.
    pub fn request(self: &Arc<Self>) -> Result<Permit, Overflow> {
        self.permit(Resource::Request)
    }

    /// Takes a permit for a retry, which must be within the limit and the budget.
    ///
    /// # Errors
    /// [`Overflow`] at the limit.
    pub fn retry(self: &Arc<Self>, now: Instant) -> Result<Permit, Overflow> {
        let permit = self.permit(Resource::Retry)?;
        let percent = self.budget_percent.load(Ordering::Relaxed);
        let (requests, retries) = (self.used(Resource::Request), self.used(Resource::Retry));
        let reserve = self.reserve_per_second.load(Ordering::Relaxed);
        let now = now.saturating_duration_since(self.clock);
        if budget::covers(percent, requests, retries) || budget::reserve(&self.reserve, reserve, now) {
            return Ok(permit);
        }
        self.retries.overflow();
        Err(Overflow(Resource::Retry))
    }

    /// Current number in use.
    pub fn used(&self, resource: Resource) -> u32 {
        self.count(resource).used.load(Ordering::Relaxed)
    }

    /// Number of rejections so far.
    pub fn overflowed(&self, resource: Resource) -> u64 {
        self.count(resource).overflowed.load(Ordering::Relaxed)
    }

    fn permit(self: &Arc<Self>, resource: Resource) -> Result<Permit, Overflow> {
        let count = self.count(resource);
        if count.take() {
            return Ok(Permit { breaker: self.clone(), resource });
        }
        count.overflow();
        Err(Overflow(resource))
    }

    fn count(&self, resource: Resource) -> &Count {
        match resource {
            Resource::Connection => &self.connections,
            Resource::Pending => &self.pending,
            Resource::Request => &self.requests,
            Resource::Retry => &self.retries,
        }
    }
}

/// One connection, request or retry; counted until dropped.
#[derive(Debug)]
#[must_use = "it is counted only while this lives"]
pub struct Permit {
    breaker: Arc<Breaker>,
    resource: Resource,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.breaker.count(self.resource).used.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ambit_model::bound::RetryBudget;

    use super::*;

    fn policy(limit: u32) -> DestinationPolicy {
        DestinationPolicy {
            breaker: CircuitBreaker {
                max_connections: Some(limit),
                max_pending_requests: Some(limit),
                max_requests: Some(limit),
                max_retries: Some(limit),
            },
            retry_budget: Some(RetryBudget { percent: 100, min_per_second: 1000 }),
            ..DestinationPolicy::default()
        }
    }

    type Take = fn(&Arc<Breaker>) -> Result<Permit, Overflow>;

    const TAKES: [(Resource, Take); 4] = [
        (Resource::Connection, |breaker| breaker.connection()),
        (Resource::Pending, |breaker| breaker.pending()),
        (Resource::Request, |breaker| breaker.request()),
        (Resource::Retry, |breaker| breaker.retry(breaker.clock)),
    ];

    #[test]
    fn each_limit_holds_for_itself_and_refusals_are_counted() {
        for (resource, take) in TAKES {
            let breaker = Breaker::new(&policy(2), Instant::now());
            let held = [take(&breaker).unwrap(), take(&breaker).unwrap()];
            assert_eq!(take(&breaker).unwrap_err(), Overflow(resource));
            assert_eq!((breaker.used(resource), breaker.overflowed(resource)), (2, 1));
            for other in Resource::ALL.into_iter().filter(|other| *other != resource) {
                assert_eq!((breaker.used(other), breaker.overflowed(other)), (0, 0), "{other:?}");
            }
            drop(held);
            assert_eq!(breaker.used(resource), 0);
            assert!(take(&breaker).is_ok());
        }
    }

    #[test]
    fn no_room_is_no_refusal_for_those_who_may_wait() {
        let breaker = Breaker::new(&policy(1), Instant::now());
        let held = breaker.free_connection().unwrap();
        assert!(breaker.free_connection().is_none());
        let counts = [breaker.used(Resource::Connection).into(), breaker.overflowed(Resource::Connection)];
        assert_eq!(counts, [1, 0]);
        drop(held);
        assert!(breaker.free_connection().is_some());
    }

    #[test]
    fn without_a_policy_nothing_is_limited() {
        let breaker = Breaker::new(&DestinationPolicy::default(), Instant::now());
        let held: Vec<_> = (0..5000).map(|_| breaker.request().unwrap()).collect();
        assert_eq!(breaker.used(Resource::Request), held.len() as u32);
    }

    #[test]
    fn a_lower_limit_leaves_what_is_under_way_and_refuses_the_next() {
        let breaker = Breaker::new(&policy(3), Instant::now());
        let mut held: Vec<_> = (0..3).map(|_| breaker.request().unwrap()).collect();
        breaker.change(&policy(1));
        assert_eq!(breaker.used(Resource::Request), 3);
        held.truncate(1);
        assert!(breaker.request().is_err());
        held.clear();
        assert!(breaker.request().is_ok());
    }

    #[test]
    fn retries_beyond_the_budget_are_refused_though_the_limit_allows_them() {
        let budget = RetryBudget { percent: 20, min_per_second: 2 };
        let policy = DestinationPolicy { retry_budget: Some(budget), ..DestinationPolicy::default() };
        let clock = Instant::now();
        let breaker = Breaker::new(&policy, clock);
        let _requests: Vec<_> = (0..10).map(|_| breaker.request().unwrap()).collect();
        // A fifth of ten, and two from this second's reserve.
        let held: Vec<_> = (0..4).map(|_| breaker.retry(clock).unwrap()).collect();
        assert_eq!(breaker.retry(clock).unwrap_err(), Overflow(Resource::Retry));
        assert_eq!((breaker.used(Resource::Retry), breaker.overflowed(Resource::Retry)), (4, 1));
        // Half a second later the reserve has one more.
        let later = clock + Duration::from_millis(500);
        let one_more = breaker.retry(later).unwrap();
        assert!(breaker.retry(later).is_err());
        drop((held, one_more));
        assert!(breaker.retry(later).is_ok());
    }

    #[test]
    fn many_threads_never_exceed_a_limit() {
        let breaker = Breaker::new(&policy(3), Instant::now());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let permit = breaker.request();
                        assert!(breaker.used(Resource::Request) <= 3);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(breaker.used(Resource::Request), 0);
    }
}
