use ambit_model::bound::{HashKey, OutlierDetection};
use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn member(name: &str, weight: u32, tier: u32) -> Member<()> {
    Member { uid: name.into(), weight, tier, target: () }
}

fn members(names: &str) -> Vec<Member<()>> {
    names.chars().map(|name| member(&name.to_string(), 1, 0)).collect()
}

fn policy(balancer: Balancer) -> DestinationPolicy {
    let outliers = OutlierDetection {
        consecutive_failures: Some(1),
        success_rate: None,
        interval: MS * 1000,
        base_ejection: MS * 1000,
        max_ejection: MS * 1000,
        max_ejected_percent: 100,
    };
    DestinationPolicy { balancer, outliers: Some(outliers), ..DestinationPolicy::default() }
}

fn by_hash() -> Balancer {
    Balancer::ConsistentHash(HashKey::SourceIp)
}

/// A good pseudo-random sequence.
fn draw(number: u64) -> u64 {
    hash(&number.to_le_bytes())
}

fn choose<'a, T>(endpoints: &'a Endpoints<T>, random: u64, tried: &[Arc<str>]) -> &'a str {
    let choice = Choice { now: endpoints.clock, random, key: Some(random), tried };
    endpoints.choose(&choice).map_or("", |endpoint| &endpoint.uid)
}

/// Number of selections per endpoint uid.
fn counts<T>(endpoints: &Endpoints<T>, draws: u64) -> HashMap<String, u64> {
    let mut counts = HashMap::new();
    (0..draws).for_each(|i| *counts.entry(choose(endpoints, draw(i), &[]).to_owned()).or_default() += 1);
    counts
}

fn eject(endpoints: &Endpoints<()>, names: &str) {
    for name in names.chars() {
        let endpoint = endpoints.get(&name.to_string()).unwrap();
        endpoint.begin(endpoints.clock).record(Outcome::Bad, endpoints.clock);
        assert!(endpoint.is_ejected(endpoints.clock), "{name}");
    }
}

const BALANCERS: [fn() -> Balancer; 3] = [|| Balancer::LeastLoaded, || Balancer::RoundRobin, by_hash];

#[test]
fn every_balancer_spreads_evenly_over_equals_and_by_weight_over_others() {
    for balancer in BALANCERS {
        let policy = policy(balancer());
        let equals = Endpoints::new(&policy, members("abcd"), Instant::now());
        for (name, count) in counts(&equals, 4000) {
            assert!((900..1100).contains(&count), "{:?} {name} {count}", policy.balancer);
        }
        let weighted = vec![member("a", 1, 0), member("b", 3, 0), member("c", 0, 0)];
        let counts = counts(&Endpoints::new(&policy, weighted, Instant::now()), 4000);
        assert!((900..1100).contains(&counts["a"]) && counts["a"] + counts["b"] == 4000, "{counts:?}");
    }
}

#[test]
fn the_first_tier_serves_until_it_has_no_usable_endpoint() {
    for balancer in BALANCERS {
        let tiers = vec![member("x", 1, 7), member("a", 1, 0), member("b", 1, 0), member("y", 1, 7)];
        let endpoints = Endpoints::new(&policy(balancer()), tiers, Instant::now());
        let chosen = || {
            let mut names: Vec<_> = counts(&endpoints, 100).into_keys().collect();
            names.sort();
            names.concat()
        };
        assert_eq!(chosen(), "ab");
        eject(&endpoints, "a");
        assert_eq!(chosen(), "b");
        eject(&endpoints, "b");
        assert_eq!(chosen(), "xy");
        eject(&endpoints, "xy");
        assert_eq!(chosen(), "ab", "panic: when all are out, all are used");
    }
}

#[test]
fn a_retry_goes_elsewhere_while_there_is_an_elsewhere() {
    for balancer in BALANCERS {
        let endpoints = Endpoints::new(&policy(balancer()), members("ab"), Instant::now());
        for i in 0..100 {
            let first: Arc<str> = choose(&endpoints, draw(i), &[]).into();
            let second: Arc<str> = choose(&endpoints, draw(i), std::slice::from_ref(&first)).into();
            assert_ne!(first, second);
            assert_ne!(choose(&endpoints, draw(i), &[first, second]), "", "all were tried: any will do");
        }
        eject(&endpoints, "a");
        assert_eq!(
            choose(&endpoints, 1, &["b".into()]),
            "b",
            "better one that was tried than one that is out"
        );
    }
}

#[test]
fn without_endpoints_nothing_is_chosen() {
    let endpoints = Endpoints::new(&policy(Balancer::LeastLoaded), members(""), Instant::now());
    assert_eq!(choose(&endpoints, 5, &[]), "");
}

#[test]
fn ejections_count_only_while_outliers_are_detected() {
    let endpoints = Endpoints::new(&policy(Balancer::RoundRobin), members("ab"), Instant::now());
    eject(&endpoints, "a");
    assert_eq!(endpoints.ejections(), 1);
    let off = DestinationPolicy { outliers: None, ..policy(Balancer::RoundRobin) };
    assert_eq!(counts(&endpoints.changed(&off, members("ab")), 10).len(), 2);
}

#[test]
fn what_is_known_of_an_endpoint_outlives_a_change_of_the_set() {
    let policy = policy(Balancer::LeastLoaded);
    let old = Endpoints::new(&policy, members("ab"), Instant::now());
    let request = old.get("a").unwrap().begin(old.clock);
    eject(&old, "b");
    let new = old.changed(&policy, members("bca"));
    assert_eq!(new.get("a").unwrap().under_way(), 1);
    assert!(new.get("b").unwrap().is_ejected(new.clock) && !new.get("c").unwrap().is_ejected(new.clock));
    request.record(Outcome::Bad, new.clock);
    drop(request);
    let vitals = new.get("a").unwrap();
    assert!(
        vitals.under_way() == 0 && vitals.is_ejected(new.clock),
        "the old set's request counts in the new"
    );
    let gone = new.changed(&policy, members("b"));
    assert!(gone.get("a").is_none());
}

#[test]
fn the_endpoint_with_less_under_way_or_quicker_answers_is_preferred() {
    let endpoints = Endpoints::new(&policy(Balancer::LeastLoaded), members("ab"), Instant::now());
    let at = |name| endpoints.get(name).unwrap();
    let answered = |name, took: u32, outcome| {
        at(name).begin(endpoints.clock).record(outcome, endpoints.clock + MS * took)
    };
    let all = |name: &str| counts(&endpoints, 50).get(name) == Some(&50);
    // Without latency data, the idle one wins.
    let busy = at("a").begin(endpoints.clock);
    assert!(all("b"));
    answered("a", 10, Outcome::Good);
    answered("b", 12, Outcome::Good);
    assert!(all("b"), "alike but for the request under way");
    drop(busy);
    assert_eq!(counts(&endpoints, 50).len(), 2, "nearly alike is alike");
    answered("b", 40, Outcome::Good);
    assert!(all("a"));
    answered("a", 1, Outcome::Lost);
    assert!(all("b"), "an endpoint that is quick to refuse is not quick");
}

#[test]
fn a_failure_that_came_fast_does_not_attract_requests() {
    let off = DestinationPolicy::default();
    let endpoints = Endpoints::new(&off, members("ab"), Instant::now());
    for (name, took) in [("a", 10), ("b", 10)] {
        endpoints
            .get(name)
            .unwrap()
            .begin(endpoints.clock)
            .record(Outcome::Good, endpoints.clock + MS * took);
    }
    let later = endpoints.clock + MS * 2000;
    endpoints.get("a").unwrap().begin(later).record(Outcome::Bad, later);
    assert_eq!(counts(&endpoints, 100).len(), 2);
}

#[test]
fn turns_of_an_ejected_endpoint_are_shared_by_all_others() {
    let endpoints = Endpoints::new(&policy(Balancer::RoundRobin), members("abcd"), Instant::now());
    eject(&endpoints, "b");
    for (name, count) in counts(&endpoints, 300) {
        assert_eq!(count, 100, "{name}");
    }
}

#[test]
fn the_balance_holds_under_many_threads_and_nothing_stays_under_way() {
    let endpoints = Endpoints::new(&DestinationPolicy::default(), members("abcd"), Instant::now());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let endpoints = &endpoints;
            scope.spawn(move || {
                for i in 0..2000 {
                    let choice = Choice {
                        now: endpoints.clock,
                        random: draw(thread << 32 | i),
                        key: None,
                        tried: &[],
                    };
                    let request = endpoints.choose(&choice).unwrap().begin(endpoints.clock);
                    request.record(Outcome::Good, endpoints.clock + MS);
                }
            });
        }
    });
    assert!(endpoints.iter().all(|endpoint| endpoint.under_way() == 0));
}

fn owners<T>(endpoints: &Endpoints<T>, keys: u64) -> Vec<String> {
    (0..keys).map(|key| choose(endpoints, draw(key), &[]).to_owned()).collect()
}

#[test]
fn a_key_stays_where_it_is_however_the_endpoints_are_listed() {
    let one = Endpoints::new(&policy(by_hash()), members("abcdef"), Instant::now());
    let other = Endpoints::new(&policy(by_hash()), members("fdbeca"), Instant::now());
    assert_eq!(owners(&one, 1000), owners(&other, 1000));
}

#[test]
fn a_key_moves_only_from_the_ejected_endpoint_and_back() {
    let endpoints = Endpoints::new(&policy(by_hash()), members("abcdef"), Instant::now());
    let before = owners(&endpoints, 1000);
    eject(&endpoints, "c");
    for (before, after) in before.iter().zip(owners(&endpoints, 1000)) {
        assert!((*before == after) != (before == "c"), "{before} to {after}");
    }
}

#[test]
fn without_a_key_the_hash_gives_way_to_load() {
    let endpoints = Endpoints::new(&policy(by_hash()), members("ab"), Instant::now());
    let _busy = endpoints.get("a").unwrap().begin(endpoints.clock);
    let choice = |random| Choice { now: endpoints.clock, random, key: None, tried: &[] };
    assert!((0..50).all(|i| &*endpoints.choose(&choice(draw(i))).unwrap().uid == "b"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_new_endpoint_takes_its_share_and_no_other_key_moves(
        weights in prop::collection::vec(1..5_u32, 1..20),
        added in 1..5_u32,
    ) {
        const KEYS: u64 = 4000;
        let mut list: Vec<_> =
            weights.iter().enumerate().map(|(i, weight)| member(&format!("pod-{i}"), *weight, 0)).collect();
        let old = Endpoints::new(&policy(by_hash()), list.clone(), Instant::now());
        list.push(member("new", added, 0));
        let new = old.changed(&policy(by_hash()), list);
        let mut moved = 0;
        for (before, after) in owners(&old, KEYS).into_iter().zip(owners(&new, KEYS)) {
            if before != after {
                prop_assert_eq!(&after, "new");
                moved += 1;
            }
        }
        let share = f64::from(added) / f64::from(added + weights.iter().sum::<u32>());
        let expected = share * KEYS as f64;
        let spread = 5.0 * (expected * (1.0 - share)).sqrt();
        prop_assert!((f64::from(moved) - expected).abs() <= spread, "{moved} of {expected} moved");
    }

    #[test]
    fn while_there_is_an_endpoint_one_is_chosen_and_it_is_the_best_kind_there_is(
        kinds in prop::collection::vec((0..3_u32, any::<bool>(), any::<bool>()), 1..12),
        random: u64,
        which in 0..3_usize,
    ) {
        let list: Vec<_> =
            kinds.iter().enumerate().map(|(i, (tier, ..))| member(&i.to_string(), 1, *tier)).collect();
        let endpoints = Endpoints::new(&policy(BALANCERS[which]()), list, Instant::now());
        let mut tried: Vec<Arc<str>> = Vec::new();
        for (i, (_, ejected, was_tried)) in kinds.iter().enumerate() {
            if *ejected {
                let endpoint = endpoints.get(&i.to_string()).unwrap();
                endpoint.begin(endpoints.clock).record(Outcome::Lost, endpoints.clock);
            }
            if *was_tried {
                tried.push(i.to_string().into());
            }
        }
        let chosen: usize = choose(&endpoints, random, &tried).parse().unwrap();
        // Ejected counts more than tried, and tried more than the tier.
        let rank = |(tier, ejected, tried): (u32, bool, bool)| match (ejected, tried) {
            (false, false) => (0, tier),
            (false, true) => (1, tier),
            (true, false) => (2, tier),
            (true, true) => (3, tier),
        };
        let best = kinds.iter().map(|kind| rank(*kind)).min().unwrap();
        prop_assert_eq!(rank(kinds[chosen]), best);
    }
}
