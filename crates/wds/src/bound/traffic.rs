//! Encoding of `ambit.waypoint.v1.RequestPolicy` and `DestinationPolicy`.
//!
//! Invariant: decoded values are safe for arithmetic: no denominator and no interval is zero.

use std::time::Duration;

use ambit_model::bound::{
    Balancer, CircuitBreaker, DestinationPolicy, Fault, FaultAbort, FaultDelay, HashKey, OutlierDetection,
    RateLimit, RateLimitScope, RequestPolicy, RetryBudget, SuccessRate,
};
use ambit_proto::waypoint as wire;

use super::matching::{decode_fraction, decode_header_match, encode_fraction, encode_header_match};
use crate::field::{self, Invalid, list};

pub(super) fn encode_requests(policy: &RequestPolicy) -> wire::RequestPolicy {
    let fault = |fault: &Fault| wire::Fault {
        headers: fault.headers.iter().map(encode_header_match).collect(),
        delay: fault.delay.map(|delay| wire::FaultDelay {
            duration_ms: field::millis(delay.duration),
            fraction: Some(encode_fraction(delay.fraction)),
        }),
        abort: fault.abort.map(|abort| wire::FaultAbort {
            status: abort.status.into(),
            fraction: Some(encode_fraction(abort.fraction)),
        }),
    };
    let limit = |limit: &RateLimit| wire::RateLimit {
        scope: match limit.scope {
            RateLimitScope::Service => wire::rate_limit::Scope::Service,
            RateLimitScope::Client => wire::rate_limit::Scope::Client,
        }
        .into(),
        requests: limit.requests,
        interval_ms: field::millis(limit.interval),
        burst: limit.burst,
    };
    wire::RequestPolicy {
        faults: policy.faults.iter().map(fault).collect(),
        rate_limits: policy.rate_limits.iter().map(limit).collect(),
    }
}

pub(super) fn decode_requests(message: wire::RequestPolicy) -> Result<RequestPolicy, Invalid> {
    Ok(RequestPolicy {
        faults: list(message.faults, decode_fault)?,
        rate_limits: list(message.rate_limits, decode_limit)?,
    })
}

fn decode_fault(message: wire::Fault) -> Result<Fault, Invalid> {
    let delay = |delay: wire::FaultDelay| {
        Ok(FaultDelay {
            duration: field::duration("faults.delay", delay.duration_ms)?,
            fraction: decode_fraction("faults.delay", delay.fraction)?,
        })
    };
    let abort = |abort: wire::FaultAbort| {
        Ok(FaultAbort {
            status: field::status("faults.abort", abort.status)?,
            fraction: decode_fraction("faults.abort", abort.fraction)?,
        })
    };
    Ok(Fault {
        headers: list(message.headers, |m| decode_header_match("faults.headers", m))?,
        delay: message.delay.map(delay).transpose()?,
        abort: message.abort.map(abort).transpose()?,
    })
}

fn decode_limit(message: wire::RateLimit) -> Result<RateLimit, Invalid> {
    if message.burst == 0 {
        return Err(Invalid::new("rate_limits.burst", "is zero, so that nothing would ever pass"));
    }
    Ok(RateLimit {
        scope: match field::enumeration("rate_limits.scope", message.scope)? {
            wire::rate_limit::Scope::Service => RateLimitScope::Service,
            wire::rate_limit::Scope::Client => RateLimitScope::Client,
        },
        requests: message.requests,
        interval: interval("rate_limits.interval_ms", message.interval_ms)?,
        burst: message.burst,
    })
}

pub(super) fn encode_policy(policy: &DestinationPolicy) -> wire::DestinationPolicy {
    let breaker = &policy.breaker;
    wire::DestinationPolicy {
        breaker: Some(wire::CircuitBreaker {
            max_connections: breaker.max_connections,
            max_pending_requests: breaker.max_pending_requests,
            max_requests: breaker.max_requests,
            max_retries: breaker.max_retries,
        }),
        outliers: policy.outliers.as_ref().map(encode_outliers),
        balancer: Some(encode_balancer(&policy.balancer)),
        retry_budget: policy.retry_budget.map(|budget| wire::RetryBudget {
            percent: budget.percent,
            min_per_second: budget.min_per_second,
        }),
    }
}

pub(super) fn decode_policy(message: wire::DestinationPolicy) -> Result<DestinationPolicy, Invalid> {
    let breaker = field::present("breaker", message.breaker)?;
    Ok(DestinationPolicy {
        breaker: CircuitBreaker {
            max_connections: breaker.max_connections,
            max_pending_requests: breaker.max_pending_requests,
            max_requests: breaker.max_requests,
            max_retries: breaker.max_retries,
        },
        outliers: message.outliers.map(decode_outliers).transpose()?,
        balancer: decode_balancer(field::present("balancer", message.balancer)?)?,
        retry_budget: message
            .retry_budget
            .map(|budget| RetryBudget { percent: budget.percent, min_per_second: budget.min_per_second }),
    })
}

fn encode_outliers(outliers: &OutlierDetection) -> wire::OutlierDetection {
    wire::OutlierDetection {
        consecutive_failures: outliers.consecutive_failures,
        success_rate: outliers.success_rate.map(|rate| wire::SuccessRate {
            minimum_hosts: rate.minimum_hosts,
            request_volume: rate.request_volume,
            stdev_factor_milli: rate.stdev_factor_milli,
        }),
        interval_ms: field::millis(outliers.interval),
        base_ejection_ms: field::millis(outliers.base_ejection),
        max_ejection_ms: field::millis(outliers.max_ejection),
        max_ejected_percent: outliers.max_ejected_percent,
    }
}

fn decode_outliers(message: wire::OutlierDetection) -> Result<OutlierDetection, Invalid> {
    if message.max_ejected_percent > 100 {
        let reason = format!("{} is more than 100 percent", message.max_ejected_percent);
        return Err(Invalid::new("outliers.max_ejected_percent", reason));
    }
    Ok(OutlierDetection {
        consecutive_failures: message.consecutive_failures,
        success_rate: message.success_rate.map(|rate| SuccessRate {
            minimum_hosts: rate.minimum_hosts,
            request_volume: rate.request_volume,
            stdev_factor_milli: rate.stdev_factor_milli,
        }),
        interval: interval("outliers.interval_ms", message.interval_ms)?,
        base_ejection: field::duration("outliers.base_ejection_ms", message.base_ejection_ms)?,
        max_ejection: field::duration("outliers.max_ejection_ms", message.max_ejection_ms)?,
        max_ejected_percent: message.max_ejected_percent,
    })
}

fn encode_balancer(balancer: &Balancer) -> wire::Balancer {
    use wire::balancer::Kind;
    let kind = match balancer {
        Balancer::LeastLoaded => Kind::LeastLoaded(wire::Empty {}),
        Balancer::RoundRobin => Kind::RoundRobin(wire::Empty {}),
        Balancer::ConsistentHash(key) => Kind::ConsistentHash(encode_hash_key(key)),
    };
    wire::Balancer { kind: Some(kind) }
}

fn decode_balancer(message: wire::Balancer) -> Result<Balancer, Invalid> {
    use wire::balancer::Kind;
    Ok(match field::present("balancer", message.kind)? {
        Kind::LeastLoaded(wire::Empty {}) => Balancer::LeastLoaded,
        Kind::RoundRobin(wire::Empty {}) => Balancer::RoundRobin,
        Kind::ConsistentHash(key) => Balancer::ConsistentHash(decode_hash_key(key)?),
    })
}

fn encode_hash_key(key: &HashKey) -> wire::HashKey {
    use wire::hash_key::Kind;
    let kind = match key {
        HashKey::Header(name) => Kind::Header(name.to_string()),
        HashKey::Cookie(name) => Kind::Cookie(name.to_string()),
        HashKey::SourceIp => Kind::SourceIp(wire::Empty {}),
    };
    wire::HashKey { kind: Some(kind) }
}

fn decode_hash_key(message: wire::HashKey) -> Result<HashKey, Invalid> {
    use wire::hash_key::Kind;
    Ok(match field::present("consistent_hash", message.kind)? {
        Kind::Header(name) => HashKey::Header(field::header("consistent_hash.header", name)?),
        Kind::Cookie(name) => HashKey::Cookie(field::required("consistent_hash.cookie", name)?),
        Kind::SourceIp(wire::Empty {}) => HashKey::SourceIp,
    })
}

fn interval(field: &'static str, millis: i64) -> Result<Duration, Invalid> {
    match field::duration(field, millis)? {
        Duration::ZERO => Err(Invalid::new(field, "is zero")),
        interval => Ok(interval),
    }
}
