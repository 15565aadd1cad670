//! Where one endpoint stands. Pure.
//!
//! Invariant: an endpoint is ejected only from [`Stage::Serving`], only where there is room, and comes back by time
//! alone; each further ejection takes longer, up to the ceiling, until quiet intervals are forgiven one by one.

use std::time::Duration;

use ambit_model::bound::OutlierDetection;

use super::millis;

/// Width of a moment in milliseconds: 34 years.
const MOMENT_BITS: u32 = 40;
const MOMENT_MAX: u64 = (1 << MOMENT_BITS) - 1;
const FAILURES_SHIFT: u32 = MOMENT_BITS + u8::BITS;
/// Failures that are counted.
const FAILURES_MAX: u16 = u16::MAX >> 1;
/// Tells the two stages apart.
const EJECTED_BIT: u64 = 1 << 63;

/// Where an endpoint stands. Moments are milliseconds on the destination's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Takes requests.
    Serving {
        /// Failures in a row.
        failures: u16,
        /// Ejections not yet forgiven as of `since`.
        ejections: u8,
        /// When it came back.
        since: u64,
    },
    /// Takes none.
    Ejected {
        /// Ejections, this one included.
        ejections: u8,
        /// When it comes back.
        until: u64,
    },
}

/// What is heard of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// A request went well.
    Success,
    /// A request did not.
    Failure,
    /// Its success rate is too far below that of the others.
    FarBelow,
}

impl Stage {
    /// After `signal` at `now`; `room` says whether one more endpoint may be out.
    #[must_use]
    pub fn next(self, signal: Signal, now: Duration, policy: &OutlierDetection, room: bool) -> Self {
        let now = millis(now).min(MOMENT_MAX);
        let (failures, ejections, since) = match self {
            Self::Serving { failures, ejections, since } => (failures, ejections, since),
            Self::Ejected { ejections, until } if until <= now => (0, ejections, until),
            // What was under way, or sent there because all are out, does not prolong it.
            Self::Ejected { .. } => return self,
        };
        let (failures, wanted) = match signal {
            Signal::Success => (0, false),
            Signal::Failure => match policy.consecutive_failures {
                Some(limit) => {
                    // Counting on beyond the limit would tell nothing more.
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

    /// Whether it takes no requests at `now`.
    pub fn is_ejected(self, now: Duration) -> bool {
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
