//! Selection of one endpoint.
//!
//! Consistent hashing uses weighted rendezvous: every endpoint computes a score for the key, and
//! the highest wins. Unlike a ring it needs no table, spreads keys evenly, and moves only the keys
//! of an endpoint that leaves (or joins, or is ejected). A score costs a nanosecond or two.
//! Invariant: endpoints that are ejected or were already tried are selected only when no others are
//! left. The order is: usable ones by tier, then tried ones, and if all are ejected, any (panic
//! mode).

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use ambit_model::bound::Balancer;

use super::{Endpoint, Endpoints, tier::Tier};
use crate::hash::score;

/// Round robin: how many turns of ejected endpoints are skipped in a row before the next usable
/// endpoint takes such a turn.
const TURNS_MAX: u32 = 8;
/// Loads that differ by less than this factor count as equal: latency is noisy, and the slightly
/// slower of two good endpoints must not starve. One request compared with none exceeds it.
const ALIKE: f32 = 1.5;
/// 2^64 divided by the golden ratio: its multiples visit every part of a range evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// Assumed latency in microseconds while nothing is known and a first request is in flight.
const UNKNOWN_MICROS: f32 = 1_000_000.0;

/// The inputs of a selection.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// Current time.
    pub now: Instant,
    /// Uniformly distributed random number.
    pub random: u64,
    /// [`crate::hash()`] of the key, if the algorithm uses one and the request has it.
    pub key: Option<u64>,
    /// Uids of endpoints where this request already failed.
    pub tried: &'a [std::sync::Arc<str>],
}

impl<T> Endpoints<T> {
    /// Selects the endpoint for one try of a request; `None` only when there are no endpoints.
    pub fn choose(&self, choice: &Choice<'_>) -> Option<&Endpoint<T>> {
        self.choose_among(choice, |_| true)
    }

    /// Selects among the endpoints for which `meant` is true, and never another one.
    pub fn choose_among(&self, choice: &Choice<'_>, meant: impl Fn(&T) -> bool) -> Option<&Endpoint<T>> {
        let now = choice.now.saturating_duration_since(self.clock);
        let is_new = |endpoint: &Endpoint<T>| !choice.tried.contains(&endpoint.uid);
        let is_in = |endpoint: &Endpoint<T>| !endpoint.ejected(now);
        let meant = |endpoint: &Endpoint<T>| meant(&endpoint.target);
        self.choose_where(choice, |endpoint| is_in(endpoint) && is_new(endpoint) && meant(endpoint))
            .or_else(|| self.choose_where(choice, |endpoint| is_in(endpoint) && meant(endpoint)))
            .or_else(|| self.choose_where(choice, |endpoint| is_new(endpoint) && meant(endpoint)))
            .or_else(|| self.choose_where(choice, meant))
    }

    fn choose_where(
        &self,
        choice: &Choice<'_>,
        usable: impl Fn(&Endpoint<T>) -> bool,
    ) -> Option<&Endpoint<T>> {
        self.tiers.iter().find_map(|tier| {
            let endpoints = self.endpoints.get(tier.range.clone())?;
            match (&self.balancer, choice.key) {
                (Balancer::ConsistentHash(_), Some(key)) => highest(tier, endpoints, key, &usable),
                (Balancer::RoundRobin, _) => self.next_in_turn(tier, endpoints, &usable),
                (Balancer::LeastLoaded | Balancer::ConsistentHash(_), _) => {
                    let now = choice.now.saturating_duration_since(self.clock);
                    less_loaded(tier, endpoints, choice.random, now, &usable)
                }
            }
        })
    }

    fn next_in_turn<'a>(
        &self,
        tier: &Tier,
        endpoints: &'a [Endpoint<T>],
        usable: &impl Fn(&Endpoint<T>) -> bool,
    ) -> Option<&'a Endpoint<T>> {
        let mut first = 0;
        for _ in 0..TURNS_MAX {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            first = match tier.cumulative.is_empty() {
                true => remainder(turn, endpoints.len()),
                false => tier.at(turn.wrapping_mul(GOLDEN)),
            };
            if let Some(endpoint) = endpoints.get(first).filter(|endpoint| usable(endpoint)) {
                return Some(endpoint);
            }
        }
        from(endpoints, first).find(|endpoint| usable(endpoint))
    }
}

/// Every endpoint once, starting at index `first`.
fn from<T>(endpoints: &[Endpoint<T>], first: usize) -> impl Iterator<Item = &Endpoint<T>> {
    let (before, rest) = endpoints.split_at_checked(first).unwrap_or((&[], endpoints));
    rest.iter().chain(before)
}

fn remainder(number: u64, of: usize) -> usize {
    usize::try_from(number % (of.max(1) as u64)).unwrap_or(0)
}

/// The better of two random endpoints.
fn less_loaded<'a, T>(
    tier: &Tier,
    endpoints: &'a [Endpoint<T>],
    random: u64,
    now: Duration,
    usable: &impl Fn(&Endpoint<T>) -> bool,
) -> Option<&'a Endpoint<T>> {
    let first = tier.at(random);
    // A draw uses the high bits, so the multiple is as good as a new random number.
    let again = random.wrapping_mul(GOLDEN).rotate_left(32);
    let second = match tier.cumulative.is_empty() {
        true => remainder((first as u64) + 1 + again % (endpoints.len().max(2) as u64 - 1), endpoints.len()),
        false => tier.at(again),
    };
    let one = from(endpoints, first).find(|endpoint| usable(endpoint))?;
    let other = from(endpoints, second).find(|endpoint| usable(endpoint) && !std::ptr::eq(*endpoint, one));
    match other {
        Some(other) if other.load(now) * ALIKE < one.load(now) => Some(other),
        _ => Some(one),
    }
}

fn highest<'a, T>(
    tier: &Tier,
    endpoints: &'a [Endpoint<T>],
    key: u64,
    usable: &impl Fn(&Endpoint<T>) -> bool,
) -> Option<&'a Endpoint<T>> {
    let mut best: Option<(f64, &Endpoint<T>)> = None;
    for endpoint in endpoints.iter().filter(|endpoint| usable(endpoint)) {
        let score = score(key, endpoint.hash);
        let value = if tier.cumulative.is_empty() { score as f64 } else { weighted(score, endpoint.weight) };
        if best.is_none_or(|(highest, _)| value > highest) {
            best = Some((value, endpoint));
        }
    }
    best.map(|(_, endpoint)| endpoint)
}

/// The highest `-weight / ln(score)` wins in proportion to the weight (logarithmic rendezvous
/// hashing).
fn weighted(score: u64, weight: u32) -> f64 {
    // Strictly between 0 and 1, so that the logarithm is finite and not zero.
    let score = ((score >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    -f64::from(weight) / score.ln()
}

impl<T> Endpoint<T> {
    /// Expected cost of one more request, in microseconds divided by weight.
    fn load(&self, now: Duration) -> f32 {
        let under_way = self.under_way() as f32;
        let micros = match self.vitals.latency.micros(now) {
            Some(micros) => micros * (under_way + 1.0),
            // The first request measures; until it returns, others should go elsewhere.
            None => UNKNOWN_MICROS * under_way,
        };
        micros / self.weight as f32
    }
}
