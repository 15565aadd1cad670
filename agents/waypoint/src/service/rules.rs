//! Faults and rate limits of a service or of a rule of its routes.
//!
//! Invariant: faults, or rate limits, of a producer's rule replace those of its service; those of a consumer's rule are
//! enforced in addition. A bucket keeps its fill while its limits do not change.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ambit_model::{
    BoundService, NamespacedName, Spiffe,
    bound::{Fault, HttpRule, RequestPolicy},
};
use ambit_resilience::{Injection, Limited, RateLimits, inject};
use ambit_route::{HeaderCriteria, RequestHead};

use super::States;

/// The compiled faults and rate limits.
#[derive(Debug, Default)]
pub struct Rules {
    own: Layer,
    /// Those of the service, if `own` are a consumer's.
    of_service: Option<Layer>,
}

/// The faults and rate limits of one policy.
#[derive(Debug, Default)]
struct Layer {
    faults: Vec<Fault>,
    /// The match of each fault, in the same order; `None` for an invalid one, which matches nothing.
    criteria: Vec<Option<HeaderCriteria>>,
    limits: Option<Arc<RateLimits>>,
}

impl Rules {
    /// Compiles those of `owner`: the service, and the name of a rule, which is empty for the service itself.
    pub fn compile(policy: &RequestPolicy, owner: (&NamespacedName, &str), states: &mut States) -> Self {
        Self { own: Layer::compile(policy, owner, states), of_service: None }
    }

    /// Compiles those of the requests of a rule.
    pub fn compile_for_route(rule: &HttpRule, bound: &BoundService, states: &mut States) -> Self {
        let of_service = &bound.requests;
        let Some(own) = &rule.requests else {
            return Self::compile(of_service, (&bound.key, ""), states);
        };
        if rule.is_consumer {
            let of_service = Layer::compile(of_service, (&bound.key, ""), states);
            let own = Layer::compile(own, (&bound.key, &*rule.name), states);
            return Self { own, of_service: Some(of_service) };
        }
        let faults = if own.faults.is_empty() { &of_service.faults } else { &own.faults };
        let (limits, owner) = match own.rate_limits.is_empty() {
            true => (&of_service.rate_limits, ""),
            false => (&own.rate_limits, &*rule.name),
        };
        let merged = RequestPolicy { faults: faults.clone(), rate_limits: limits.clone() };
        Self::compile(&merged, (&bound.key, owner), states)
    }

    /// Takes one request from every bucket. Those of a consumer come first: its refused requests take nothing from the
    /// buckets of the service.
    ///
    /// # Errors
    /// [`Limited`]
    pub fn admit(&self, client: &Spiffe, now: Instant) -> Result<(), Limited> {
        self.layers().rev().try_for_each(|layer| layer.admit(client, now))
    }

    /// The fault injected into a request: the service's, then the consumer's.
    pub fn inject(&self, head: &RequestHead<'_>, random: impl Fn() -> u64) -> Injection {
        let found = self.layers().map(|layer| layer.inject(head, random()));
        found.fold(Injection::default(), |all, one| Injection {
            delay: match (all.delay, one.delay) {
                (Some(first), Some(second)) => Some(first.saturating_add(second)),
                (first, second) => first.or(second),
            },
            abort: all.abort.or(one.abort),
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.layers().all(|layer| layer.faults.is_empty() && layer.limits.is_none())
    }

    fn layers(&self) -> impl DoubleEndedIterator<Item = &Layer> {
        self.of_service.iter().chain(std::iter::once(&self.own))
    }
}

impl Layer {
    fn compile(policy: &RequestPolicy, owner: (&NamespacedName, &str), states: &mut States) -> Self {
        let limits = &policy.rate_limits;
        Self {
            criteria: policy
                .faults
                .iter()
                .map(|fault| HeaderCriteria::compile(&fault.headers).ok())
                .collect(),
            faults: policy.faults.clone(),
            limits: (!limits.is_empty()).then(|| states.limits(owner, limits)),
        }
    }

    fn admit(&self, client: &Spiffe, now: Instant) -> Result<(), Limited> {
        self.limits.as_ref().map_or(Ok(()), |limits| limits.admit(Some(client), now))
    }

    fn inject(&self, head: &RequestHead<'_>, random: u64) -> Injection {
        if self.faults.is_empty() {
            return Injection::default();
        }
        inject(&self.faults, random, |fault| {
            let pairs = self.faults.iter().zip(&self.criteria);
            let mut criteria =
                pairs.filter_map(|(one, criteria)| std::ptr::eq(one, fault).then_some(criteria));
            criteria.next().and_then(Option::as_ref).is_some_and(|criteria| criteria.hold(head))
        })
    }
}

/// The `retry-after` of a rate limit, in whole seconds, at least one.
pub fn retry_after_seconds(after: Duration) -> u64 {
    after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0)).max(1)
}
