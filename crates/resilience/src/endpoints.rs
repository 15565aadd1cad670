//! The endpoints of one destination, and load balancing.
//!
//! Invariant: a set is immutable. A change creates a new set, in which endpoints with the same uid
//! keep their statistics. As long as any endpoint exists, one is selected.

mod choice;
mod tier;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ambit_model::bound::{Balancer, DestinationPolicy};

use crate::{
    hash::hash,
    latency::Latency,
    outlier::{Detector, Health, Ledger},
};

use tier::Tier;

pub use choice::Choice;

/// Minimum latency recorded for a lost request: an endpoint that refuses at once must not look
/// fast.
const LOST_LATENCY: Duration = Duration::from_secs(1);

/// One endpoint as the caller describes it.
#[derive(Clone, Debug)]
pub struct Member<T> {
    /// Identifies the endpoint across changes.
    pub uid: Arc<str>,
    /// Load balancing weight; 0 receives no traffic.
    pub weight: u32,
    /// Higher tiers are used only when no endpoint of a lower one is usable.
    pub tier: u32,
    /// The caller's data for reaching it.
    pub target: T,
}

/// How a request ended for its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response other than 5xx.
    Good,
    /// A 5xx response.
    Bad,
    /// No response: unreachable, reset or timed out.
    Lost,
}

/// Statistics of an endpoint.
#[derive(Debug, Default)]
struct Vitals {
    under_way: AtomicU32,
    latency: Latency,
    health: Arc<Health>,
}

/// One endpoint of a set.
#[derive(Debug)]
pub struct Endpoint<T> {
    /// Identifies the endpoint across changes.
    pub uid: Arc<str>,
    /// The caller's data for reaching it.
    pub target: T,
    weight: u32,
    hash: u64,
    vitals: Arc<Vitals>,
    clock: Instant,
    detector: Option<Arc<Detector>>,
}

/// The endpoints of one destination, best tier first.
#[derive(Debug)]
pub struct Endpoints<T> {
    clock: Instant,
    balancer: Balancer,
    endpoints: Vec<Endpoint<T>>,
    tiers: Vec<Tier>,
    by_uid: HashMap<Arc<str>, usize>,
    ledger: Arc<Ledger>,
    turn: Arc<AtomicU64>,
}

/// What every set of a destination shares.
#[derive(Default)]
struct SharedState {
    ledger: Arc<Ledger>,
    turn: Arc<AtomicU64>,
}

impl<T> Endpoints<T> {
    /// The first set of a destination; `clock` is the reference point of all times.
    pub fn new(policy: &DestinationPolicy, members: Vec<Member<T>>, clock: Instant) -> Self {
        Self::build(policy, members, clock, SharedState::default(), |_| None)
    }

    /// The next set after a change; endpoints with the same uid keep their statistics.
    #[must_use]
    pub fn changed<U>(&self, policy: &DestinationPolicy, members: Vec<Member<U>>) -> Endpoints<U> {
        let kept = |uid: &str| self.get(uid).map(|endpoint| endpoint.vitals.clone());
        let shared = SharedState { ledger: self.ledger.clone(), turn: self.turn.clone() };
        Endpoints::build(policy, members, self.clock, shared, kept)
    }

    fn build(
        policy: &DestinationPolicy,
        mut members: Vec<Member<T>>,
        clock: Instant,
        SharedState { ledger, turn }: SharedState,
        kept: impl Fn(&str) -> Option<Arc<Vitals>>,
    ) -> Self {
        members.retain(|member| member.weight > 0);
        members.sort_by_key(|member| member.tier);
        let vitals: Vec<_> = members.iter().map(|member| kept(&member.uid).unwrap_or_default()).collect();
        let detector = policy.outliers.map(|policy| {
            let healths = vitals.iter().map(|vitals| vitals.health.clone()).collect();
            Arc::new(Detector { policy, ledger: ledger.clone(), healths })
        });
        let tiers = Tier::of(members.iter().map(|member| (member.tier, member.weight)));
        let by_uid = members.iter().enumerate().map(|(at, member)| (member.uid.clone(), at)).collect();
        let endpoints = members.into_iter().zip(vitals).map(|(member, vitals)| Endpoint {
            hash: hash(member.uid.as_bytes()),
            uid: member.uid,
            target: member.target,
            weight: member.weight,
            vitals,
            clock,
            detector: detector.clone(),
        });
        let endpoints = endpoints.collect();
        Self { clock, balancer: policy.balancer.clone(), endpoints, tiers, by_uid, ledger, turn }
    }

    /// The endpoint with this uid, if it still exists.
    pub fn get(&self, uid: &str) -> Option<&Endpoint<T>> {
        self.endpoints.get(*self.by_uid.get(uid)?)
    }

    /// All endpoints, best tier first.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint<T>> {
        self.endpoints.iter()
    }

    /// Number of outlier ejections since the first set.
    pub fn ejections(&self) -> u64 {
        self.ledger.ejections()
    }
}

impl<T> Endpoint<T> {
    /// Counts a request that starts.
    pub fn begin(&self, now: Instant) -> UnderWay {
        self.vitals.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay {
            vitals: self.vitals.clone(),
            detector: self.detector.clone(),
            clock: self.clock,
            begun: now,
        }
    }

    /// Whether it is ejected as an outlier.
    pub fn is_ejected(&self, now: Instant) -> bool {
        self.ejected(now.saturating_duration_since(self.clock))
    }

    /// Number of requests in flight.
    pub fn under_way(&self) -> u32 {
        self.vitals.under_way.load(Ordering::Relaxed)
    }

    fn ejected(&self, now: Duration) -> bool {
        self.detector.is_some() && self.vitals.health.is_ejected(now)
    }
}

/// A request to an endpoint; counted as in flight until dropped.
#[derive(Debug)]
#[must_use = "the request counts as under way only while this lives"]
pub struct UnderWay {
    vitals: Arc<Vitals>,
    detector: Option<Arc<Detector>>,
    clock: Instant,
    begun: Instant,
}

impl UnderWay {
    /// Records the outcome, once the response headers have arrived or cannot arrive any more. Not
    /// called for a request that the client cancelled. Returns how many endpoints were ejected
    /// because of it.
    pub fn record(&self, outcome: Outcome, now: Instant) -> u64 {
        let took = now.saturating_duration_since(self.begun);
        let now = now.saturating_duration_since(self.clock);
        match outcome {
            Outcome::Good => self.vitals.latency.observe(took, now),
            // Responses of a failing endpoint say nothing about its speed.
            Outcome::Bad => {}
            Outcome::Lost => self.vitals.latency.observe(took.max(LOST_LATENCY), now),
        }
        let Some(detector) = &self.detector else { return 0 };
        detector.record(&self.vitals.health, outcome == Outcome::Good, now)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.vitals.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
