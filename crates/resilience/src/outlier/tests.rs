use std::collections::HashSet;

use ambit_model::bound::SuccessRate;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn policy() -> OutlierDetection {
    OutlierDetection {
        consecutive_failures: Some(3),
        success_rate: None,
        interval: SECOND * 10,
        base_ejection: SECOND * 2,
        max_ejection: SECOND * 5,
        max_ejected_percent: 50,
    }
}

fn detector(endpoints: usize, policy: OutlierDetection) -> Detector {
    let healths = (0..endpoints).map(|_| Arc::default()).collect();
    Detector { policy, ledger: Arc::default(), healths }
}

fn out(detector: &Detector, now: Duration) -> Vec<bool> {
    detector.healths.iter().map(|health| health.is_ejected(now)).collect()
}

/// Records failures and returns the number of ejections.
fn fail(detector: &Detector, endpoint: usize, times: u32, now: Duration) -> u64 {
    (0..times).map(|_| detector.record(&detector.healths[endpoint], false, now)).sum()
}

#[test]
fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
    let detector = detector(4, policy());
    fail(&detector, 0, 2, SECOND);
    detector.record(&detector.healths[0], true, SECOND);
    assert_eq!(fail(&detector, 0, 2, SECOND), 0);
    assert_eq!(out(&detector, SECOND), [false; 4]);
    assert_eq!(fail(&detector, 0, 1, SECOND), 1);
    assert_eq!(out(&detector, SECOND), [true, false, false, false]);
    assert_eq!(detector.ledger.ejections(), 1);
    assert_eq!(out(&detector, SECOND * 3), [false; 4], "two seconds later it is back");
}

#[test]
fn each_ejection_is_longer_up_to_the_ceiling_and_quiet_intervals_are_forgiven() {
    let detector = detector(4, policy());
    let length = |at: Duration| {
        fail(&detector, 0, 3, at);
        (1..100).find(|seconds| !out(&detector, at + SECOND * *seconds)[0]).unwrap()
    };
    assert_eq!([10, 20, 26, 32].map(|at| length(SECOND * at)), [2, 4, 5, 5]);
    // It returns at 37; two intervals of ten seconds then reduce four ejections by two.
    assert_eq!([58, 200].map(|at| length(SECOND * at)), [5, 2]);
}

#[test]
fn no_more_than_the_share_is_out_but_one_always_may() {
    for (endpoints, percent, expected) in [(4, 50, 2), (4, 100, 4), (4, 0, 1), (3, 50, 1), (1, 10, 1)] {
        let detector = detector(endpoints, OutlierDetection { max_ejected_percent: percent, ..policy() });
        (0..endpoints).for_each(|endpoint| _ = fail(&detector, endpoint, 10, SECOND));
        let found = out(&detector, SECOND).into_iter().filter(|out| *out).count();
        assert_eq!(found, expected, "{percent} % of {endpoints}");
    }
}

#[test]
fn one_that_found_no_room_goes_at_its_next_failure_once_there_is() {
    let detector = detector(2, policy());
    fail(&detector, 0, 3, SECOND);
    fail(&detector, 1, 5, SECOND);
    assert_eq!(out(&detector, SECOND), [true, false]);
    fail(&detector, 1, 1, SECOND * 3);
    assert_eq!(out(&detector, SECOND * 3), [false, true]);
}

#[test]
fn success_rates_are_compared_once_an_interval_by_whoever_comes_first() {
    let compared = SuccessRate { minimum_hosts: 3, request_volume: 10, stdev_factor_milli: 1000 };
    let detector = detector(
        4,
        OutlierDetection { consecutive_failures: None, success_rate: Some(compared), ..policy() },
    );
    let round = |now: Duration| {
        for turn in 0..20 {
            for (endpoint, health) in detector.healths.iter().enumerate() {
                detector.record(health, endpoint != 2 || turn % 2 == 0, now);
            }
        }
    };
    round(SECOND);
    assert_eq!(out(&detector, SECOND), [false; 4], "the interval is not over");
    detector.record(&detector.healths[0], true, SECOND * 11);
    assert_eq!(out(&detector, SECOND * 11), [false, false, true, false]);
    // The next interval starts from zero: a few requests do not count.
    detector.record(&detector.healths[2], false, SECOND * 20);
    detector.record(&detector.healths[0], true, SECOND * 22);
    assert_eq!(out(&detector, SECOND * 22), [false; 4]);
}

#[test]
fn threads_together_never_eject_more_than_the_share() {
    let detector = detector(8, policy());
    std::thread::scope(|scope| {
        for endpoint in 0..8 {
            let detector = &detector;
            scope.spawn(move || fail(detector, endpoint, 1000, SECOND));
        }
    });
    assert!(out(&detector, SECOND).into_iter().filter(|out| *out).count() <= 4);
}

/// Exhaustive: two endpoints, every order of signals, time in steps of one second up to a horizon.
#[test]
fn in_every_reachable_world_the_rules_of_ejection_hold() {
    const HORIZON: u64 = 8;
    const SIGNALS: [Signal; 3] = [Signal::Success, Signal::Failure, Signal::FarBelow];
    let policy = OutlierDetection { consecutive_failures: Some(2), interval: SECOND * 3, ..policy() };
    let start = Stage::unpack(0);
    let mut seen = HashSet::new();
    let mut open = vec![(0_u64, [start, start])];
    while let Some(world) = open.pop() {
        if !seen.insert(world) || world.0 == HORIZON {
            continue;
        }
        let (at, stages) = world;
        let now = SECOND * u32::try_from(at).unwrap();
        open.push((at + 1, stages));
        for endpoint in 0..2 {
            let (own, other) = (stages[endpoint], stages[1 - endpoint]);
            let room = !own.is_ejected(now) && !other.is_ejected(now);
            for signal in SIGNALS {
                let next = own.next(signal, now, &policy, room);
                check(own, next, (signal, room), now, &policy);
                let mut stages = stages;
                stages[endpoint] = next;
                assert!(!stages.iter().all(|stage| stage.is_ejected(now)), "both are out in {world:?}");
                open.push((at, stages));
            }
        }
    }
    assert!(seen.len() > 1000, "{} worlds", seen.len());
}

fn check(own: Stage, next: Stage, (signal, room): (Signal, bool), now: Duration, policy: &OutlierDetection) {
    let step = format!("{own:?} {signal:?} room={room} at {now:?} became {next:?}");
    match (own.is_ejected(now), next.is_ejected(now)) {
        (true, _) => assert_eq!(own, next, "only time ends an ejection: {step}"),
        (false, true) => {
            assert!(room && signal != Signal::Success, "{step}");
            let Stage::Ejected { ejections, until } = next else { panic!("{step}") };
            let length = until - millis(now);
            let expected = (2000 * u64::from(ejections)).min(5000);
            assert!(ejections > 0 && length == expected, "{step}");
        }
        (false, false) => {
            let failures = |stage| match stage {
                Stage::Serving { failures, .. } => failures,
                Stage::Ejected { .. } => 0,
            };
            let expected = match signal {
                Signal::Success => 0,
                Signal::Failure => (failures(own) + 1).min(2),
                Signal::FarBelow => failures(own),
            };
            assert_eq!(failures(next), expected, "{step}");
            let reached = policy.consecutive_failures.is_some_and(|limit| u32::from(expected) >= limit);
            assert!(!(room && reached && signal == Signal::Failure), "it should be out: {step}");
        }
    }
}

proptest! {
    #[test]
    fn a_stage_survives_its_word(failures in 0..0x8000_u16, ejections: u8, moment in 0..1_u64 << 40) {
        for stage in [
            Stage::Serving { failures, ejections, since: moment },
            Stage::Ejected { ejections, until: moment },
        ] {
            prop_assert_eq!(Stage::unpack(stage.pack()), stage);
        }
    }
}
