//! Fault injection, for tests. Pure.
//!
//! Invariant: only the first fault whose headers match applies, and its delay and abort are drawn
//! independently.

use std::time::Duration;

use ambit_model::bound::{Fault, Fraction};

/// What to inject into a request: first the delay, then the abort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injection {
    /// How long to delay it.
    pub delay: Option<Duration>,
    /// HTTP status to answer with, instead of forwarding.
    pub abort: Option<u16>,
}

/// What `faults` inject into a request; `holds` returns whether a fault's headers match.
pub fn inject(faults: &[Fault], random: u64, holds: impl Fn(&Fault) -> bool) -> Injection {
    let Some(fault) = faults.iter().find(|fault| holds(fault)) else { return Injection::default() };
    let delay = fault.delay.filter(|delay| is_drawn(delay.fraction, random));
    // Rotated, so that the other half of the bits decides.
    let abort = fault.abort.filter(|abort| is_drawn(abort.fraction, random.rotate_left(32)));
    Injection { delay: delay.map(|delay| delay.duration), abort: abort.map(|abort| abort.status) }
}

/// Whether a request belongs to the share; the high 32 bits of `random` decide.
pub fn is_drawn(share: Fraction, random: u64) -> bool {
    let draw = ((random >> 32) * u64::from(share.denominator)) >> 32;
    draw < u64::from(share.numerator)
}

#[cfg(test)]
mod tests {
    use ambit_model::bound::{FaultAbort, FaultDelay, HeaderMatch, ValueMatch};
    use proptest::prelude::*;

    use super::*;

    const ALWAYS: Fraction = Fraction { numerator: 1, denominator: 1 };
    const NEVER: Fraction = Fraction { numerator: 0, denominator: 1 };
    const PAUSE: Duration = Duration::from_millis(250);

    fn fault(header: &str, delay: Fraction, abort: Fraction) -> Fault {
        Fault {
            headers: vec![HeaderMatch { name: header.into(), value: ValueMatch::Exact("".into()) }],
            delay: Some(FaultDelay { duration: PAUSE, fraction: delay }),
            abort: Some(FaultAbort { status: 503, fraction: abort }),
        }
    }

    #[test]
    fn the_first_fault_that_holds_decides_alone() {
        let faults = [fault("a", NEVER, NEVER), fault("b", ALWAYS, NEVER), fault("c", ALWAYS, ALWAYS)];
        let none = Injection::default();
        for (holds, expected) in [
            ("a", none),
            ("b", Injection { delay: Some(PAUSE), abort: None }),
            ("bc", Injection { delay: Some(PAUSE), abort: None }),
            ("ac", none),
            ("c", Injection { delay: Some(PAUSE), abort: Some(503) }),
            ("", none),
        ] {
            let found = inject(&faults, 7, |fault| holds.contains(&*fault.headers[0].name));
            assert_eq!(found, expected, "{holds}");
        }
    }

    #[test]
    fn delay_and_abort_are_drawn_from_different_bits() {
        let half = Fraction { numerator: 1, denominator: 2 };
        let (low, high) = (0, u64::from(u32::MAX));
        for (delay, abort) in [(low, low), (low, high), (high, low), (high, high)] {
            let found = inject(&[fault("a", half, half)], delay << 32 | abort, |_| true);
            assert_eq!((found.delay.is_some(), found.abort.is_some()), (delay == low, abort == low));
        }
    }

    proptest! {
        #[test]
        fn a_share_is_met_by_evenly_spread_draws(denominator in 1..1000_u32, part in 0..=1000_u32) {
            let share = Fraction { numerator: part * denominator / 1000, denominator };
            let draws = 4096_u64;
            let drawn = (0..draws).filter(|draw| is_drawn(share, draw * (u64::MAX / draws))).count() as f64;
            let expected = draws as f64 * f64::from(share.numerator) / f64::from(denominator);
            prop_assert!((drawn - expected).abs() <= 1.0, "{drawn} of {expected}");
        }

        #[test]
        fn all_is_all_and_none_is_none(random: u64, denominator in 1..u32::MAX) {
            let share = |numerator| Fraction { numerator, denominator };
            prop_assert!(is_drawn(share(denominator), random));
            prop_assert!(!is_drawn(share(0), random));
        }
    }
}
