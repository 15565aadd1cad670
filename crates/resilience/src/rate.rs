//! Local rate limits.
//!
//! The generic cell rate algorithm (ITU-T I.371): a bucket is one word, the moment at which it will be full again.
//! `governor` does the same; its keyed limiter bounds neither the number of keys nor what a new key may displace, and
//! it wants a clock of its own, which is most of what is here. Invariant: however many clients there are, at most
//! [`CLIENTS_MAX`] buckets per limit exist, and a client cannot get a fresh bucket by pushing out its own.

mod bucket;
mod clients;

use std::time::{Duration, Instant};

use ambit_model::{
    Spiffe,
    bound::{RateLimit, RateLimitScope},
};

pub use bucket::{Bucket, Pace};
pub use clients::CLIENTS_MAX;
use clients::Clients;

/// Refused by a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rate limit admits the next request in {} ms", after.as_millis())]
pub struct Limited {
    /// When the next request may come.
    pub after: Duration,
}

/// The limits of a service or route.
#[derive(Debug)]
pub struct RateLimits {
    limits: Vec<RateLimit>,
    rules: Vec<Rule>,
    clock: Instant,
}

#[derive(Debug)]
enum Rule {
    Service(Pace, Bucket),
    Client(Pace, Box<Clients>),
    /// Admits nothing.
    Closed(Duration),
}

impl RateLimits {
    /// Full buckets; `clock` is the moment that all others are measured from.
    pub fn new(limits: &[RateLimit], clock: Instant) -> Self {
        let rules = limits.iter().map(Rule::new).collect();
        Self { limits: limits.to_vec(), rules, clock }
    }

    /// What it was made of: while that stays the same, keep it, and with it what is left in the buckets.
    pub fn limits(&self) -> &[RateLimit] {
        &self.limits
    }

    /// Takes one request out of every bucket, or out of none.
    ///
    /// # Errors
    /// [`Limited`] by the first limit that is used up.
    pub fn admit(&self, client: Option<&Spiffe>, now: Instant) -> Result<(), Limited> {
        let now = now.saturating_duration_since(self.clock);
        for (at, rule) in self.rules.iter().enumerate() {
            if let Err(after) = rule.take(client, now) {
                self.rules.iter().take(at).for_each(|taken| taken.give_back(client, now));
                return Err(Limited { after });
            }
        }
        Ok(())
    }
}

impl Rule {
    fn new(limit: &RateLimit) -> Self {
        match (Pace::new(limit.requests, limit.interval, limit.burst), limit.scope) {
            (Some(pace), RateLimitScope::Service) => Self::Service(pace, Bucket::default()),
            (Some(pace), RateLimitScope::Client) => Self::Client(pace, Box::default()),
            (None, _) => Self::Closed(limit.interval),
        }
    }

    fn take(&self, client: Option<&Spiffe>, now: Duration) -> Result<(), Duration> {
        match self {
            Self::Service(pace, bucket) => bucket.take(pace, now),
            Self::Client(pace, clients) => clients.with(client, now, |bucket| bucket.take(pace, now)),
            Self::Closed(after) => Err(*after),
        }
    }

    fn give_back(&self, client: Option<&Spiffe>, now: Duration) {
        match self {
            Self::Service(pace, bucket) => bucket.give_back(pace),
            Self::Client(pace, clients) => clients.with(client, now, |bucket| bucket.give_back(pace)),
            Self::Closed(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
