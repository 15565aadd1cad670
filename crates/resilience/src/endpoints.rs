//! The endpoints of one destination and the choice among them.
//!
//! Invariant: a set is immutable; a change makes a new one, in which an endpoint of the same uid keeps what is known
//! of it. As long as there is an endpoint at all, one is chosen.

mod choice;

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

pub use choice::Choice;

/// How long a lost request counts to have taken at least: an endpoint that refuses at once must not look fast.
const LOST_LATENCY: Duration = Duration::from_secs(1);

/// One endpoint as the caller knows it.
#[derive(Clone, Debug)]
pub struct Member<T> {
    /// What it is recognized by, later and by others.
    pub uid: Arc<str>,
    /// Its share; 0 takes nothing.
    pub weight: u32,
    /// Tiers with a higher number serve only when no endpoint of a lower one can.
    pub tier: u32,
    /// What the caller needs to reach it.
    pub target: T,
}

/// How a request ended, as far as its endpoint is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered, and not with a 5xx.
    Good,
    /// Answered with a 5xx.
    Bad,
    /// Not answered: unreachable, reset or too late.
    Lost,
}

/// What is known of an endpoint.
#[derive(Debug, Default)]
struct Vitals {
    under_way: AtomicU32,
    latency: Latency,
    health: Arc<Health>,
}

/// One endpoint of a set.
#[derive(Debug)]
pub struct Endpoint<T> {
    /// What it is recognized by.
    pub uid: Arc<str>,
    /// What the caller needs to reach it.
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
    tiers: Vec<choice::Tier>,
    by_uid: HashMap<Arc<str>, usize>,
    ledger: Arc<Ledger>,
    turn: Arc<AtomicU64>,
}

impl<T> Endpoints<T> {
    /// The first set of a destination; `clock` is the moment that all others are measured from.
    pub fn new(policy: &DestinationPolicy, members: Vec<Member<T>>, clock: Instant) -> Self {
        Self::build(policy, members, clock, (Arc::default(), Arc::default()), |_| None)
    }

    /// The set that follows this one.
    #[must_use]
    pub fn changed<U>(&self, policy: &DestinationPolicy, members: Vec<Member<U>>) -> Endpoints<U> {
        let kept = |uid: &str| self.get(uid).map(|endpoint| endpoint.vitals.clone());
        Endpoints::build(policy, members, self.clock, (self.ledger.clone(), self.turn.clone()), kept)
    }

    fn build(
        policy: &DestinationPolicy,
        mut members: Vec<Member<T>>,
        clock: Instant,
        (ledger, turn): (Arc<Ledger>, Arc<AtomicU64>),
        kept: impl Fn(&str) -> Option<Arc<Vitals>>,
    ) -> Self {
        members.retain(|member| member.weight > 0);
        members.sort_by_key(|member| member.tier);
        let vitals: Vec<_> = members.iter().map(|member| kept(&member.uid).unwrap_or_default()).collect();
        let detector = policy.outliers.map(|policy| {
            let healths = vitals.iter().map(|vitals| vitals.health.clone()).collect();
            Arc::new(Detector { policy, ledger: ledger.clone(), healths })
        });
        let tiers = choice::Tier::of(members.iter().map(|member| (member.tier, member.weight)));
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

    /// An endpoint of a session, if it is still there.
    pub fn get(&self, uid: &str) -> Option<&Endpoint<T>> {
        self.endpoints.get(*self.by_uid.get(uid)?)
    }

    /// All endpoints, best tier first.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint<T>> {
        self.endpoints.iter()
    }

    /// Ejections of outliers since the first set.
    pub fn ejections(&self) -> u64 {
        self.ledger.ejections()
    }
}

impl<T> Endpoint<T> {
    /// A request goes there.
    pub fn begin(&self, now: Instant) -> UnderWay {
        self.vitals.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay {
            vitals: self.vitals.clone(),
            detector: self.detector.clone(),
            clock: self.clock,
            begun: now,
        }
    }

    /// Whether it is left out as an outlier.
    pub fn is_ejected(&self, now: Instant) -> bool {
        self.ejected(now.saturating_duration_since(self.clock))
    }

    /// Requests under way.
    pub fn under_way(&self) -> u32 {
        self.vitals.under_way.load(Ordering::Relaxed)
    }

    fn ejected(&self, now: Duration) -> bool {
        self.detector.is_some() && self.vitals.health.is_ejected(now)
    }
}

/// A request to an endpoint; it counts as under way while this lives.
#[derive(Debug)]
#[must_use = "the request counts as under way only while this lives"]
pub struct UnderWay {
    vitals: Arc<Vitals>,
    detector: Option<Arc<Detector>>,
    clock: Instant,
    begun: Instant,
}

impl UnderWay {
    /// The head of the answer is there, or there will be none. A request that the client gave up is not recorded. Says
    /// how many endpoints are left out from now on because of it.
    pub fn record(&self, outcome: Outcome, now: Instant) -> u64 {
        let took = now.saturating_duration_since(self.begun);
        let now = now.saturating_duration_since(self.clock);
        match outcome {
            Outcome::Good => self.vitals.latency.observe(took, now),
            // An endpoint that fails fast is not a fast endpoint.
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
