//! The ejection state of one endpoint. Pure.
//!
//! Invariant: an endpoint is ejected only from [`Stage::Serving`] and only within the limit, and
//! returns only by time. Each further ejection takes longer, up to the maximum; each interval
//! without ejection reduces the count by one.

use std::time::Duration;

use ambit_model::bound::OutlierDetection;

/// Width of a time in milliseconds: 34 years.
const MOMENT_BITS: u32 = 40;
const MOMENT_MAX: u64 = (1 << MOMENT_BITS) - 1;
const FAILURES_SHIFT: u32 = MOMENT_BITS + u8::BITS;
/// Largest count of failures.
const FAILURES_MAX: u16 = u16::MAX >> 1;
/// Distinguishes the two states.
const EJECTED_BIT: u64 = 1 << 63;

/// The ejection state. Times are milliseconds on the destination's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// Receives requests.
    Serving {
        /// Consecutive failures.
        failures: u16,
        /// Ejections that still count, as of `since`.
        ejections: u8,
        /// When it returned.
        since: u64,
    },
    /// Receives no requests.
    Ejected {
        /// Number of ejections, including this one.
        ejections: u8,
        /// When it returns.
        until: u64,
    },
}

/// An event of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Signal {
    /// A request succeeded.
    Success,
    /// A request failed.
    Failure,
    /// Its success rate is too far below that of the others.
    FarBelow,
}

impl Stage {
    /// The state after `signal` at `now`; `room` tells whether one more endpoint may be ejected.
    #[must_use]
    pub(crate) fn next(self, signal: Signal, now: Duration, policy: &OutlierDetection, room: bool) -> Self {
        let now = millis(now).min(MOMENT_MAX);
        let (failures, ejections, since) = match self {
            Self::Serving { failures, ejections, since } => (failures, ejections, since),
            Self::Ejected { ejections, until } if until <= now => (0, ejections, until),
            // Requests that were in flight, or sent because all endpoints are ejected, do not
            // prolong the ejection.
            Self::Ejected { .. } => return self,
        };
        let (failures, wanted) = match signal {
            Signal::Success => (0, false),
            Signal::Failure => match policy.consecutive_failures {
                Some(limit) => {
                    // Counting beyond the limit would make no difference.
                    let limit = u16::try_from(limit).unwrap_or(FAILURES_MAX).min(FAILURES_MAX);
                    let failures = failures.saturating_add(1).min(limit);
                    (failures, failures >= limit)
                }
                None => (failures, false),
            },
            Signal::FarBelow => (failures, true),
        };
        if wanted && room {
            return ejected(policy, ejections, since, now);
        }
        Self::Serving { failures, ejections, since }
    }

    /// Whether it receives no requests at `now`.
    pub(crate) fn is_ejected(self, now: Duration) -> bool {
        match self {
            Self::Serving { .. } => false,
            Self::Ejected { until, .. } => millis(now).min(MOMENT_MAX) < until,
        }
    }

    pub(super) fn pack(self) -> u64 {
        match self {
            Self::Serving { failures, ejections, since } => {
                u64::from(failures.min(FAILURES_MAX)) << FAILURES_SHIFT
                    | u64::from(ejections) << MOMENT_BITS
                    | since.min(MOMENT_MAX)
            }
            Self::Ejected { ejections, until } => {
                EJECTED_BIT | u64::from(ejections) << MOMENT_BITS | until.min(MOMENT_MAX)
            }
        }
    }

    pub(super) fn unpack(word: u64) -> Self {
        let moment = word & MOMENT_MAX;
        let ejections = u8::try_from(word >> MOMENT_BITS & 0xff).unwrap_or(u8::MAX);
        if word & EJECTED_BIT != 0 {
            return Self::Ejected { ejections, until: moment };
        }
        let failures = u16::try_from(word >> FAILURES_SHIFT).unwrap_or(FAILURES_MAX);
        Self::Serving { failures, ejections, since: moment }
    }
}

fn ejected(policy: &OutlierDetection, ejections: u8, since: u64, now: u64) -> Stage {
    let quiet = now.saturating_sub(since) / millis(policy.interval).max(1);
    let kept = ejections.saturating_sub(u8::try_from(quiet).unwrap_or(u8::MAX));
    let ejections = kept.saturating_add(1);
    let length = millis(policy.base_ejection).saturating_mul(u64::from(ejections));
    let ceiling = millis(policy.max_ejection.max(policy.base_ejection));
    Stage::Ejected { ejections, until: now.saturating_add(length.min(ceiling).max(1)).min(MOMENT_MAX) }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
