use std::time::Duration;

use ambit_model::bound::{Balancer, Fraction, HashKey, RateLimitScope};
use serde_json::{Value, json};

use super::*;

fn facts(spec: Value) -> TrafficFacts {
    let policy = json!({"apiVersion": "ambit.dev/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"name": "p", "namespace": "shop"}, "spec": spec});
    read(&serde_json::from_value(policy).unwrap())
}

fn with(key: &str, value: Value) -> Value {
    let mut spec = json!({"targetRefs": [{"kind": "Service", "name": "cart"}]});
    spec[key] = value;
    spec
}

#[test]
fn every_field_reaches_the_waypoint() {
    let spec = json!({
        "targetRefs": [{"kind": "Service", "name": "cart"}],
        "fault": [{"headers": [{"name": "X-Test", "value": "a.*", "type": "RegularExpression"}],
                   "delay": {"duration": "250ms", "percentage": 50}, "abort": {"httpStatus": 503}}],
        "circuitBreaker": {"maxConnections": 1, "maxPendingRequests": 0, "maxRequests": 3, "maxRetries": 0},
        "outlierDetection": {"consecutiveFailures": 5, "successRate": {"minimumHosts": 3, "requestVolume": 10, "stdevFactor": "1.25"},
                             "interval": "1s", "baseEjectionTime": "2s", "maxEjectionTime": "3s", "maxEjectionPercent": 40},
        "loadBalancing": {"consistentHash": {"header": "X-User"}},
        "rateLimit": [{"per": "Client", "requests": 7, "interval": "1m", "burst": 9}],
        "retryBudget": {"percent": 5, "minPerSecond": 1}
    });
    let effects = facts(spec).content.content.unwrap();
    let fault = &effects.requests.faults[0];
    assert_eq!(&*fault.headers[0].name, "x-test");
    let delay = fault.delay.unwrap();
    assert_eq!(delay.duration, Duration::from_millis(250));
    assert_eq!(delay.fraction, Fraction { numerator: 50, denominator: 100 });
    assert_eq!((fault.abort.unwrap().status, fault.abort.unwrap().fraction.numerator), (503, 100));
    let limit = effects.requests.rate_limits[0];
    assert_eq!((limit.scope, limit.requests, limit.burst), (RateLimitScope::Client, 7, 9));
    assert_eq!(limit.interval, Duration::from_secs(60));
    let breaker = effects.destination.breaker;
    assert_eq!((breaker.max_connections, breaker.max_pending_requests), (Some(1), Some(0)));
    assert_eq!((breaker.max_requests, breaker.max_retries), (Some(3), Some(0)));
    let outliers = effects.destination.outliers.unwrap();
    assert_eq!(
        (outliers.interval, outliers.base_ejection, outliers.max_ejection),
        (Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(3))
    );
    assert_eq!((outliers.consecutive_failures, outliers.max_ejected_percent), (Some(5), 40));
    let rate = outliers.success_rate.unwrap();
    assert_eq!((rate.minimum_hosts, rate.request_volume, rate.stdev_factor_milli), (3, 10, 1250));
    assert_eq!(effects.destination.balancer, Balancer::ConsistentHash(HashKey::Header("x-user".into())));
    let budget = effects.destination.retry_budget.unwrap();
    assert_eq!((budget.percent, budget.min_per_second), (5, 1));
}

#[test]
fn a_burst_that_is_left_out_is_as_large_as_the_rate() {
    let effects = facts(with("rateLimit", json!([{"requests": 7}]))).content.content.unwrap();
    assert_eq!(effects.requests.rate_limits[0].burst, 7);
}

#[test]
fn a_value_that_cannot_be_read_takes_the_policy_out_of_force_and_is_named() {
    let delay = |duration: &str| json!([{"delay": {"duration": duration}}]);
    let header = json!([{"headers": [{"name": "a", "value": "(", "type": "RegularExpression"}], "abort": {"httpStatus": 500}}]);
    for (spec, named) in [
        (with("fault", delay("soon")), "fault.delay.duration"),
        (with("fault", delay("2h")), "fault.delay.duration"),
        (with("fault", header), "fault.headers"),
        (with("fault", json!([{"abort": {"httpStatus": 99}}])), "fault.abort.httpStatus"),
        (with("fault", json!([{"abort": {"httpStatus": 500, "percentage": 101}}])), "fault.abort.percentage"),
        (with("rateLimit", json!([{"requests": 0}])), "rateLimit.requests"),
        (with("rateLimit", json!([{"requests": 1, "interval": "0s"}])), "rateLimit.interval"),
        (with("circuitBreaker", json!({"maxConnections": 0})), "circuitBreaker.maxConnections"),
        (with("loadBalancing", json!({})), "loadBalancing"),
        (with("loadBalancing", json!({"roundRobin": {}, "leastLoaded": {}})), "loadBalancing"),
        (with("loadBalancing", json!({"consistentHash": {}})), "consistentHash"),
        (with("outlierDetection", json!({"successRate": {"stdevFactor": "1.2345"}})), "stdevFactor"),
    ] {
        let facts = facts(spec.clone());
        let judgement = facts.content.judge(|_| TrafficReach::NotBound);
        assert_eq!((judgement.holds, judgement.reason), (Holds::False, reason::INVALID), "{spec}");
        assert!(judgement.message.contains(named), "{}", judgement.message);
    }
}

#[test]
fn what_belongs_to_a_destination_is_refused_on_a_route() {
    let spec = json!({"targetRefs": [{"kind": "HTTPRoute", "name": "r"}], "retryBudget": {}});
    assert!(facts(spec).content.content.is_err());
    let spec = json!({"targetRefs": [{"kind": "HTTPRoute", "name": "r"}], "consumerRoutes": "Deny"});
    assert!(facts(spec).content.content.is_err());
    let spec = json!({"targetRefs": [{"kind": "HTTPRoute", "name": "r"}], "fault": [{"abort": {"httpStatus": 500}}]});
    assert!(facts(spec).content.content.is_ok());
}

#[test]
fn the_status_is_true_only_when_every_target_enforces_it() {
    let spec = json!({"targetRefs": [{"kind": "Service", "name": "a"}, {"kind": "GRPCRoute", "name": "b"}]});
    let facts = facts(spec);
    let bound = || TrafficReach::Bound(NamespacedName::new("shop", "w"));
    let taken = || TrafficReach::Taken(NamespacedName::new("shop", "old"));
    for (a, b, holds, why) in [
        (bound(), bound(), Holds::True, reason::ACCEPTED),
        (bound(), TrafficReach::NotFound, Holds::False, reason::PARTIALLY_INVALID),
        (TrafficReach::NotBound, TrafficReach::NotFound, Holds::False, reason::ANCESTOR_NOT_BOUND),
        (TrafficReach::NotFound, TrafficReach::NotFound, Holds::False, reason::TARGET_NOT_FOUND),
        (taken(), taken(), Holds::False, reason::CONFLICTED),
    ] {
        let judgement = facts.content.judge(|target| match target {
            TrafficTo::Service(_) => a.clone(),
            TrafficTo::Route(_) => b.clone(),
        });
        assert_eq!((judgement.holds, judgement.reason), (holds, why), "{}", judgement.message);
    }
}
