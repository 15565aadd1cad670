use proptest::prelude::*;

use super::{clients::CLIENTS_MAX, *};

const MS: Duration = Duration::from_millis(1);

fn limit(scope: RateLimitScope, requests: u32, burst: u32) -> RateLimit {
    RateLimit { scope, requests, interval: Duration::from_secs(1), burst }
}

fn client(name: usize) -> Spiffe {
    Spiffe {
        trust_domain: "cluster.local".into(),
        namespace: "shop".into(),
        service_account: format!("account-{name}").into(),
    }
}

/// How many of `count` requests at `at` are admitted.
fn admitted(limits: &RateLimits, client: Option<&Spiffe>, at: Instant, count: usize) -> usize {
    (0..count).filter(|_| limits.admit(client, at).is_ok()).count()
}

#[test]
fn a_burst_passes_at_once_and_then_one_each_step() {
    let start = Instant::now();
    let limits = RateLimits::new(&[limit(RateLimitScope::Service, 10, 3)], start);
    let found = [(0, 5, 3), (99, 1, 0), (100, 2, 1), (350, 5, 2), (10_000, 50, 3)]
        .map(|(at, count, _)| admitted(&limits, None, start + MS * at, count));
    assert_eq!(found, [3, 0, 1, 2, 3]);
}

#[test]
fn a_refusal_says_when_the_next_may_come() {
    let start = Instant::now();
    let limits = RateLimits::new(&[limit(RateLimitScope::Service, 10, 1)], start);
    limits.admit(None, start).unwrap();
    assert_eq!(limits.admit(None, start + MS * 40), Err(Limited { after: MS * 60 }));
    limits.admit(None, start + MS * 100).unwrap();
}

#[test]
fn each_identity_has_a_bucket_and_those_without_share_one() {
    let start = Instant::now();
    let limits = RateLimits::new(&[limit(RateLimitScope::Client, 1, 2)], start);
    assert_eq!(admitted(&limits, Some(&client(1)), start, 5), 2);
    assert_eq!(admitted(&limits, Some(&client(2)), start, 5), 2);
    assert_eq!(admitted(&limits, None, start, 5), 2);
    assert_eq!(admitted(&limits, None, start, 5), 0);
}

#[test]
fn a_request_refused_by_one_limit_costs_nothing_in_another() {
    let start = Instant::now();
    let both = [limit(RateLimitScope::Service, 1, 3), limit(RateLimitScope::Client, 1, 1)];
    let limits = RateLimits::new(&both, start);
    assert_eq!(admitted(&limits, Some(&client(1)), start, 10), 1);
    // The nine requests of the first client left two for the others.
    let others: usize = (2..9).map(|name| admitted(&limits, Some(&client(name)), start, 1)).sum();
    assert_eq!(others, 2);
    // Rejections by the service limit did not use up the other clients' buckets.
    assert_eq!(admitted(&limits, Some(&client(8)), start + MS * 1000, 2), 1);
}

#[test]
fn a_limit_of_zero_admits_nothing() {
    let limits = RateLimits::new(&[limit(RateLimitScope::Client, 0, 5)], Instant::now());
    assert_eq!(limits.admit(None, Instant::now()), Err(Limited { after: Duration::from_secs(1) }));
}

#[test]
fn clients_are_bounded_and_only_full_buckets_are_forgotten() {
    let clients = clients::Clients::default();
    let pace = Pace::new(1, Duration::from_secs(1), 1).unwrap();
    let take = |name, now| clients.with(Some(&client(name)), now, |bucket| bucket.take(&pace, now).is_ok());
    // All shards are out of space, and no bucket is full again within the second.
    let passed = (0..4 * CLIENTS_MAX).filter(|name| take(*name, Duration::ZERO)).count();
    assert_eq!(clients.len(), CLIENTS_MAX);
    // Clients with their own bucket, and one for each shard's shared bucket.
    assert_eq!(passed, CLIENTS_MAX + 16);
    assert!((0..4 * CLIENTS_MAX).all(|name| !take(name, Duration::ZERO)), "nobody got a fresh bucket");
    // Once those are full, the new clients replace them.
    assert!(
        (0..CLIENTS_MAX / 4)
            .map(|name| 4 * CLIENTS_MAX + name)
            .all(|name| take(name, Duration::from_secs(1)))
    );
    assert_eq!(clients.len(), CLIENTS_MAX);
}

#[test]
fn threads_together_get_no_more_than_the_burst() {
    let start = Instant::now();
    let limits = RateLimits::new(&[limit(RateLimitScope::Service, 1, 100)], start);
    let total: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| admitted(&limits, None, start, 1000))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(total, 100);
}

proptest! {
    #[test]
    fn never_admits_more_than_burst_and_pace_allow(
        requests in 1..50_u32,
        burst in 1..20_u32,
        gaps in prop::collection::vec(0..200_u32, 1..200),
    ) {
        let start = Instant::now();
        let limits = RateLimits::new(&[limit(RateLimitScope::Service, requests, burst)], start);
        let (mut at, mut passed) = (0, 0_u64);
        for gap in gaps {
            at += gap;
            passed += u64::from(limits.admit(None, start + MS * at).is_ok());
            let allowed = u64::from(burst) + u64::from(at) * u64::from(requests) / 1000;
            prop_assert!(passed <= allowed + 1, "{passed} of {allowed} after {at} ms");
        }
    }

    #[test]
    fn whoever_keeps_the_pace_is_never_refused(requests in 1..1000_u32, count in 1..100_u32) {
        let start = Instant::now();
        let limits = RateLimits::new(&[limit(RateLimitScope::Service, requests, 1)], start);
        let step = Duration::from_secs(1) / requests + Duration::from_nanos(1);
        for i in 0..count {
            prop_assert!(limits.admit(None, start + step * i).is_ok());
        }
    }
}
