//! Translation of the fields of a TrafficPolicy.

use std::{sync::Arc, time::Duration};

use ambit_api::{
    parse_duration,
    traffic_policy::{self as api, TrafficPolicySpec},
};
use ambit_model::bound::{
    Balancer, CircuitBreaker, DestinationPolicy, Fault, FaultAbort, FaultDelay, Fraction, HashKey,
    HeaderMatch, OutlierDetection, RateLimit, RateLimitScope, RequestPolicy, RetryBudget, SuccessRate,
    ValueMatch,
};

use crate::{policies::header_name, routes::table::expression_problem};

/// Longest delay of a fault.
const FAULT_DELAY_MAX: Duration = Duration::from_secs(3600);

pub(super) fn requests(spec: &TrafficPolicySpec) -> Result<RequestPolicy, String> {
    Ok(RequestPolicy {
        faults: spec.fault.iter().map(fault).collect::<Result<_, _>>()?,
        rate_limits: spec.rate_limit.iter().map(rate_limit).collect::<Result<_, _>>()?,
    })
}

pub(super) fn destination(spec: &TrafficPolicySpec) -> Result<DestinationPolicy, String> {
    Ok(DestinationPolicy {
        breaker: spec.circuit_breaker.as_ref().map_or(Ok(CircuitBreaker::default()), breaker)?,
        outliers: spec.outlier_detection.as_ref().map(outliers).transpose()?,
        balancer: spec.load_balancing.as_ref().map_or(Ok(Balancer::default()), balancer)?,
        retry_budget: spec.retry_budget.as_ref().map(budget).transpose()?,
    })
}

fn fault(fault: &api::FaultInjection) -> Result<Fault, String> {
    let delay = |delay: &api::FaultDelay| {
        let pause = duration("fault.delay.duration", &delay.duration)?;
        if pause > FAULT_DELAY_MAX {
            return Err("fault.delay.duration is longer than 1h".to_owned());
        }
        Ok(FaultDelay { duration: pause, fraction: percent("fault.delay.percentage", delay.percentage)? })
    };
    let abort = |abort: &api::FaultAbort| {
        let status = u16::try_from(abort.http_status).ok().filter(|status| (200..=599).contains(status));
        Ok::<_, String>(FaultAbort {
            status: status.ok_or("fault.abort.httpStatus is not between 200 and 599")?,
            fraction: percent("fault.abort.percentage", abort.percentage)?,
        })
    };
    Ok(Fault {
        headers: fault.headers.iter().map(header).collect::<Result<_, _>>()?,
        delay: fault.delay.as_ref().map(delay).transpose()?,
        abort: fault.abort.as_ref().map(abort).transpose()?,
    })
}

fn header(matched: &api::HeaderMatch) -> Result<HeaderMatch, String> {
    let value = match matched.kind {
        api::MatchKind::Exact => ValueMatch::Exact(matched.value.as_str().into()),
        api::MatchKind::RegularExpression => match expression_problem(&matched.value) {
            None => ValueMatch::Regex(matched.value.as_str().into()),
            Some(why) => return Err(format!("fault.headers: {why}")),
        },
    };
    let name = name("fault.headers.name", &matched.name)?;
    Ok(HeaderMatch { name, value })
}

fn rate_limit(limit: &api::RateLimit) -> Result<RateLimit, String> {
    let requests = count("rateLimit.requests", limit.requests, 1)?;
    let interval = interval("rateLimit.interval", &limit.interval)?;
    Ok(RateLimit {
        scope: match limit.per {
            api::RateLimitScope::Service => RateLimitScope::Service,
            api::RateLimitScope::Client => RateLimitScope::Client,
        },
        requests,
        interval,
        burst: limit.burst.map_or(Ok(requests), |burst| count("rateLimit.burst", burst, 1))?,
    })
}

fn breaker(breaker: &api::CircuitBreaker) -> Result<CircuitBreaker, String> {
    let limit = |field: &str, value: Option<i32>, min: u32| {
        value.map(|value| count(&format!("circuitBreaker.{field}"), value, min)).transpose()
    };
    Ok(CircuitBreaker {
        max_connections: limit("maxConnections", breaker.max_connections, 1)?,
        max_pending_requests: limit("maxPendingRequests", breaker.max_pending_requests, 0)?,
        max_requests: limit("maxRequests", breaker.max_requests, 1)?,
        max_retries: limit("maxRetries", breaker.max_retries, 0)?,
    })
}

fn outliers(outliers: &api::OutlierDetection) -> Result<OutlierDetection, String> {
    let success_rate = |rate: &api::SuccessRate| {
        Ok::<_, String>(SuccessRate {
            minimum_hosts: count("outlierDetection.successRate.minimumHosts", rate.minimum_hosts, 1)?,
            request_volume: count("outlierDetection.successRate.requestVolume", rate.request_volume, 1)?,
            stdev_factor_milli: thousandths(&rate.stdev_factor)
                .ok_or("outlierDetection.successRate.stdevFactor is not a decimal number")?,
        })
    };
    let max_ejected = count("outlierDetection.maxEjectionPercent", outliers.max_ejection_percent, 0)?;
    Ok(OutlierDetection {
        consecutive_failures: outliers
            .consecutive_failures
            .map(|failures| count("outlierDetection.consecutiveFailures", failures, 1))
            .transpose()?,
        success_rate: outliers.success_rate.as_ref().map(success_rate).transpose()?,
        interval: interval("outlierDetection.interval", &outliers.interval)?,
        base_ejection: interval("outlierDetection.baseEjectionTime", &outliers.base_ejection_time)?,
        max_ejection: interval("outlierDetection.maxEjectionTime", &outliers.max_ejection_time)?,
        max_ejected_percent: max_ejected.min(100),
    })
}

fn balancer(balancing: &api::LoadBalancing) -> Result<Balancer, String> {
    match (&balancing.least_loaded, &balancing.round_robin, &balancing.consistent_hash) {
        (Some(_), None, None) => Ok(Balancer::LeastLoaded),
        (None, Some(_), None) => Ok(Balancer::RoundRobin),
        (None, None, Some(hash)) => Ok(Balancer::ConsistentHash(hash_key(hash)?)),
        (_, _, _) => Err("loadBalancing must have exactly one of its fields".into()),
    }
}

fn hash_key(hash: &api::ConsistentHash) -> Result<HashKey, String> {
    match (&hash.header, &hash.cookie, &hash.source_ip) {
        (Some(header), None, None) => {
            Ok(HashKey::Header(name("loadBalancing.consistentHash.header", header)?))
        }
        (None, Some(cookie), None) => Ok(HashKey::Cookie(cookie.as_str().into())),
        (None, None, Some(_)) => Ok(HashKey::SourceIp),
        (_, _, _) => Err("loadBalancing.consistentHash must have exactly one of its fields".into()),
    }
}

fn budget(budget: &api::RetryBudget) -> Result<RetryBudget, String> {
    Ok(RetryBudget {
        percent: count("retryBudget.percent", budget.percent, 0)?,
        min_per_second: count("retryBudget.minPerSecond", budget.min_per_second, 0)?,
    })
}

fn name(field: &str, text: &str) -> Result<Arc<str>, String> {
    header_name(text).ok_or_else(|| format!("{field} {text:?} is not a valid header name"))
}

fn percent(field: &str, value: i32) -> Result<Fraction, String> {
    let numerator = count(field, value, 0)?;
    if numerator > 100 {
        return Err(format!("{field} is more than 100"));
    }
    Ok(Fraction { numerator, denominator: 100 })
}

fn count(field: &str, value: i32, min: u32) -> Result<u32, String> {
    u32::try_from(value)
        .ok()
        .filter(|value| *value >= min)
        .ok_or_else(|| format!("{field} is {value}; write at least {min}"))
}

fn interval(field: &str, text: &str) -> Result<Duration, String> {
    match duration(field, text)? {
        Duration::ZERO => Err(format!("{field} is zero")),
        interval => Ok(interval),
    }
}

/// Parses a decimal number: `1.9` becomes 1900.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || decimals.len() > 3 || !is_digits(whole) || !is_digits(decimals) {
        return None;
    }
    format!("{whole}{decimals:0<3}").parse().ok()
}

fn duration(field: &str, text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| format!("{field}: {error}"))
}
