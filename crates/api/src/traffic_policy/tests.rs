use serde_json::json;

use super::*;

#[test]
fn what_a_user_left_out_is_what_kubectl_explain_says() {
    let spec: TrafficPolicySpec = serde_json::from_value(json!({
        "targetRefs": [{"kind": "Service", "name": "cart"}],
        "fault": [{"abort": {"httpStatus": 503}}],
        "outlierDetection": {"consecutiveFailures": 5, "successRate": {}},
        "loadBalancing": {"consistentHash": {"sourceIP": {}}},
        "rateLimit": [{"requests": 10}],
        "retryBudget": {}
    }))
    .unwrap();
    assert_eq!(spec.fault[0].abort.unwrap().percentage, 100);
    let outliers = spec.outlier_detection.unwrap();
    assert_eq!((outliers.max_ejection_percent, outliers.interval.as_str()), (10, "10s"));
    assert_eq!(outliers.success_rate.unwrap().stdev_factor, "1.9");
    assert_eq!(spec.load_balancing.unwrap().consistent_hash.unwrap().source_ip, Some(Empty {}));
    assert_eq!(
        (spec.rate_limit[0].per, spec.rate_limit[0].interval.as_str()),
        (RateLimitScope::Service, "1s")
    );
    assert_eq!(spec.retry_budget.unwrap(), RetryBudget { percent: 20, min_per_second: 10 });
    assert!(spec.circuit_breaker.is_none());
}

#[test]
fn a_target_is_written_with_the_kinds_own_spelling() {
    for kind in [TrafficTargetKind::Service, TrafficTargetKind::HttpRoute, TrafficTargetKind::GrpcRoute] {
        assert_eq!(serde_json::to_value(kind).unwrap(), json!(kind.as_str()));
    }
}
