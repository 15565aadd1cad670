//! Faults and rate limits of a service or of a rule of its routes.
//!
//! Invariant: what a rule sets replaces what its service sets, kind by kind; buckets stay as full as they were when
//! their limits did not change.

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

/// Compiled.
#[derive(Debug, Default)]
pub struct Rules {
    faults: Vec<Fault>,
    /// Of the faults, in their order; one that cannot be read holds for nothing.
    criteria: Vec<Option<HeaderCriteria>>,
    limits: Option<Arc<RateLimits>>,
}

impl Rules {
    /// Those of `owner`: the service, and the name of a rule or nothing.
    pub fn compile(policy: &RequestPolicy, owner: (&NamespacedName, &str), states: &mut States) -> Self {
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

    /// Those that hold for the requests of a rule.
    pub fn compile_for_route(rule: &HttpRule, bound: &BoundService, states: &mut States) -> Self {
        let of_service = &bound.requests;
        let Some(own) = &rule.requests else {
            return Self::compile(of_service, (&bound.key, ""), states);
        };
        let faults = if own.faults.is_empty() { &of_service.faults } else { &own.faults };
        let (limits, owner) = match own.rate_limits.is_empty() {
            true => (&of_service.rate_limits, ""),
            false => (&own.rate_limits, &*rule.name),
        };
        let merged = RequestPolicy { faults: faults.clone(), rate_limits: limits.clone() };
        Self::compile(&merged, (&bound.key, owner), states)
    }

    /// Takes a request out of every bucket.
    ///
    /// # Errors
    /// [`Limited`]
    pub fn admit(&self, client: &Spiffe, now: Instant) -> Result<(), Limited> {
        self.limits.as_ref().map_or(Ok(()), |limits| limits.admit(Some(client), now))
    }

    /// What is done to a request.
    pub fn inject(&self, head: &RequestHead<'_>, random: u64) -> Injection {
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

/// The `retry-after` of a limit: whole seconds, at least one.
pub fn retry_after_seconds(after: Duration) -> u64 {
    after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0)).max(1)
}
