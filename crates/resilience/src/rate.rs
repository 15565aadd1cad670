//! Local rate limits.
//!
//! Uses the generic cell rate algorithm (ITU-T I.371): a bucket is one word, the time at which it
//! will be full again. `governor` implements the same, but its keyed limiter bounds neither the
//! number of keys nor which keys a new one may displace, and it needs a clock of its own.
//! Invariant: at most [`CLIENTS_MAX`] buckets per limit exist, however many clients there are, and
//! a client cannot get a fresh bucket by displacing its own.

mod bucket;
mod clients;

use std::time::{Duration, Instant};

use ambit_model::{
    Spiffe,
    bound::{RateLimit, RateLimitScope},
};

pub(crate) use bucket::{Bucket, Pace};
use clients::Clients;

/// A rate limit was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rate limit admits the next request in {} ms", after.as_millis())]
pub struct Limited {
    /// Time until the next request is admitted.
    pub after: Duration,
}

/// The rate limits of a service or route.
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
    /// Admits nothing; the value is the interval to report.
    Closed(Duration),
}

impl RateLimits {
    /// Starts with full buckets; `clock` is the reference point of all times.
    pub fn new(limits: &[RateLimit], clock: Instant) -> Self {
        let rules = limits.iter().map(Rule::new).collect();
        Self { limits: limits.to_vec(), rules, clock }
    }

    /// The limits this was created from. While they stay the same, keep this object to keep the
    /// state of its buckets.
    pub fn limits(&self) -> &[RateLimit] {
        &self.limits
    }

    /// Takes one request from every bucket, or from none.
    ///
    /// # Errors
    /// [`Limited`] by the first exhausted limit.
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
