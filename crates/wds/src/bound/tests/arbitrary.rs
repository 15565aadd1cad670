//! Generates arbitrary valid bound services.

use std::time::Duration;

use ambit_model::{
    Action, Clause, Match, Policy, Rule, Scope, StringMatch,
    authorization::{Attribute, AttributeMatch, PathPattern, RequestMatch},
    bound::{
        Backend, Balancer, CheckBody, CheckProtocol, CheckProvider, CircuitBreaker, ClaimHeader, Cors,
        DestinationPolicy, ExternalCheck, Fault, FaultAbort, FaultDelay, Filter, Fraction, HashKey,
        HeaderChange, HeaderMatch, HttpCheck, HttpMatch, HttpRule, HttpTable, JwtProvider, Mirror,
        NamedStream, OutlierDetection, PathChange, PathMatch, QueryMatch, RateLimit, RateLimitScope,
        Redirect, RequestPolicy, RequestTimeouts, Retry, RetryBudget, Rewrite, SessionCookie,
        SessionLifetime, SessionPersistence, SuccessRate, TokenLocation, ValueMatch, WeightedBackend,
    },
};
use proptest::{
    collection::{btree_map, btree_set, vec},
    option,
    prelude::*,
    sample::select,
};

use super::*;

fn word() -> impl Strategy<Value = Arc<str>> + Clone {
    select(vec!["a", "shop", "x-header", "/p/{q}?r"]).prop_map(Arc::from)
}

fn text() -> impl Strategy<Value = Arc<str>> + Clone {
    select(vec!["", "a", "/p", "^.*$", "ü"]).prop_map(Arc::from)
}

fn key() -> impl Strategy<Value = NamespacedName> {
    (word(), word()).prop_map(|(namespace, name)| NamespacedName { namespace, name })
}

fn millis() -> impl Strategy<Value = Duration> + Clone {
    (1..10_000_000_u64).prop_map(Duration::from_millis)
}

fn destination() -> impl Strategy<Value = Destination> {
    (key(), 1..=u16::MAX).prop_map(|(service, port)| Destination { service, port })
}

fn fraction() -> impl Strategy<Value = Fraction> {
    (0..=100_u32).prop_map(|numerator| Fraction { numerator, denominator: 100 })
}

fn value() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![text().prop_map(ValueMatch::Exact), text().prop_map(ValueMatch::Regex)]
}

fn header_match() -> impl Strategy<Value = HeaderMatch> {
    (word(), value()).prop_map(|(name, value)| HeaderMatch { name, value })
}

fn path_change() -> impl Strategy<Value = PathChange> {
    prop_oneof![text().prop_map(PathChange::Full), text().prop_map(PathChange::Prefix)]
}

prop_compose! {
    fn change()(
        set in vec((word(), text()), 0..3), add in vec((word(), text()), 0..3), remove in vec(word(), 0..3),
    ) -> HeaderChange {
        HeaderChange { set, add, remove }
    }
}

prop_compose! {
    fn redirect()(
        scheme in option::of(select(vec!["http", "https"]).prop_map(Arc::from)),
        hostname in option::of(word()),
        path in option::of(path_change()),
        port in option::of(1..=u16::MAX),
        status in select(vec![301, 302, 303, 307, 308]),
        trusts_forwarded_proto in any::<bool>(),
    ) -> Redirect {
        Redirect { scheme, hostname, path, port, status, trusts_forwarded_proto }
    }
}

prop_compose! {
    fn cors()(
        lists in proptest::array::uniform4(vec(word(), 0..3)),
        allow_credentials in any::<bool>(),
        max_age in millis(),
    ) -> Cors {
        let [allow_origins, allow_methods, allow_headers, expose_headers] = lists;
        Cors { allow_origins, allow_credentials, allow_methods, allow_headers, expose_headers, max_age }
    }
}

fn filter() -> impl Strategy<Value = Filter> {
    prop_oneof![
        change().prop_map(Filter::RequestHeaders),
        change().prop_map(Filter::ResponseHeaders),
        redirect().prop_map(Filter::Redirect),
        (option::of(word()), option::of(path_change()))
            .prop_map(|(hostname, path)| Filter::Rewrite(Rewrite { hostname, path })),
        (destination(), option::of(fraction()))
            .prop_map(|(to, fraction)| Filter::Mirror(Mirror { to, fraction })),
        cors().prop_map(Filter::Cors),
    ]
}

fn backend() -> impl Strategy<Value = WeightedBackend> {
    let to = prop_oneof![destination().prop_map(Backend::Service), text().prop_map(Backend::Invalid)];
    (any::<u32>(), to, vec(filter(), 0..2)).prop_map(|(weight, backend, filters)| WeightedBackend {
        weight,
        backend,
        filters,
    })
}

prop_compose! {
    fn session()(
        name in word(),
        cookie in option::of(select(vec![SessionLifetime::Session, SessionLifetime::Permanent])),
        absolute_timeout in option::of(millis()),
        idle_timeout in option::of(millis()),
        route in key(),
    ) -> SessionPersistence {
        let cookie = cookie.map(|lifetime| SessionCookie { lifetime });
        SessionPersistence { name, cookie, absolute_timeout, idle_timeout, route }
    }
}

prop_compose! {
    fn requests()(
        faults in vec(
            (vec(header_match(), 0..2), option::of((millis(), fraction())), option::of((200..600_u16, fraction()))),
            0..2,
        ),
        limits in vec((any::<bool>(), any::<u32>(), millis(), 1..=u32::MAX), 0..2),
    ) -> RequestPolicy {
        let fault = |(headers, delay, abort): (_, Option<(_, _)>, Option<(_, _)>)| Fault {
            headers,
            delay: delay.map(|(duration, fraction)| FaultDelay { duration, fraction }),
            abort: abort.map(|(status, fraction)| FaultAbort { status, fraction }),
        };
        let limit = |(is_per_client, requests, interval, burst)| RateLimit {
            scope: if is_per_client { RateLimitScope::Client } else { RateLimitScope::Service },
            requests,
            interval,
            burst,
        };
        RequestPolicy {
            faults: faults.into_iter().map(fault).collect(),
            rate_limits: limits.into_iter().map(limit).collect(),
        }
    }
}

prop_compose! {
    fn rule()(
        name in text(),
        filters in vec(filter(), 0..3),
        backends in vec(backend(), 0..3),
        timeouts in proptest::array::uniform2(option::of(millis())),
        retry in option::of((vec(400..600_u16, 0..3), any::<u32>(), option::of(millis()))),
        session in option::of(session()),
        requests in option::of(requests()),
        is_consumer in any::<bool>(),
    ) -> HttpRule {
        let [request, backend] = timeouts;
        HttpRule {
            name,
            filters,
            backends,
            timeouts: RequestTimeouts { request, backend },
            retry: retry.map(|(codes, attempts, backoff)| Retry { codes, attempts, backoff }),
            session,
            requests: requests.map(Arc::new),
            is_consumer,
        }
    }
}

prop_compose! {
    fn http_match()(
        path in prop_oneof![
            text().prop_map(PathMatch::Exact),
            text().prop_map(PathMatch::Prefix),
            text().prop_map(PathMatch::Regex),
        ],
        method in option::of(word()),
        headers in vec(header_match(), 0..3),
        query in vec((word(), value()).prop_map(|(name, value)| QueryMatch { name, value }), 0..3),
    ) -> HttpMatch {
        HttpMatch { path, method, headers, query }
    }
}

fn table() -> impl Strategy<Value = HttpTable> {
    vec(rule(), 1..3).prop_flat_map(|rules| {
        vec((http_match(), 0..rules.len()), 0..4)
            .prop_map(move |matches| HttpTable { matches, rules: rules.clone() })
    })
}

fn routes() -> impl Strategy<Value = Routes> {
    let names = vec(select(vec!["a.example", "*.example"]).prop_map(Arc::from), 1..3);
    let named = (names, vec(backend(), 0..2)).prop_map(|(names, backends)| NamedStream { names, backends });
    (option::of(table()), option::of(vec(backend(), 0..2)), vec(named, 0..2))
        .prop_map(|(http, stream, named)| Routes { http: http.map(Arc::new), stream, named })
}

fn protocol() -> impl Strategy<Value = AppProtocol> {
    select(vec![
        AppProtocol::Detect,
        AppProtocol::Http,
        AppProtocol::Http2,
        AppProtocol::Tcp,
        AppProtocol::Tls,
    ])
}

prop_compose! {
    fn port()(
        port in 1..=u16::MAX,
        protocol in protocol(),
        routes in routes(),
        consumers in btree_map(word(), super::arbitrary::routes(), 0..2),
    ) -> BoundPort {
        BoundPort { port, protocol, routes, consumers }
    }
}

fn balancer() -> impl Strategy<Value = Balancer> {
    prop_oneof![
        Just(Balancer::LeastLoaded),
        Just(Balancer::RoundRobin),
        word().prop_map(|name| Balancer::ConsistentHash(HashKey::Header(name))),
        word().prop_map(|name| Balancer::ConsistentHash(HashKey::Cookie(name))),
        Just(Balancer::ConsistentHash(HashKey::SourceIp)),
    ]
}

prop_compose! {
    fn outliers()(
        consecutive_failures in option::of(any::<u32>()),
        rate in option::of(any::<[u32; 3]>()),
        times in [millis(), millis(), millis()],
        max_ejected_percent in 0..=100_u32,
    ) -> OutlierDetection {
        let [interval, base_ejection, max_ejection] = times;
        let success_rate = rate.map(|[minimum_hosts, request_volume, stdev_factor_milli]| SuccessRate {
            minimum_hosts,
            request_volume,
            stdev_factor_milli,
        });
        OutlierDetection {
            consecutive_failures, success_rate, interval, base_ejection, max_ejection, max_ejected_percent,
        }
    }
}

prop_compose! {
    fn settings()(
        protocol in protocol(),
        limits in proptest::array::uniform4(option::of(any::<u32>())),
        outliers in option::of(outliers()),
        balancer in balancer(),
        budget in option::of(any::<[u32; 2]>()),
    ) -> DestinationSettings {
        let [max_connections, max_pending_requests, max_requests, max_retries] = limits;
        let breaker = CircuitBreaker { max_connections, max_pending_requests, max_requests, max_retries };
        let retry_budget = budget.map(|[percent, min_per_second]| RetryBudget { percent, min_per_second });
        let policy = Arc::new(DestinationPolicy { breaker, outliers, balancer, retry_budget });
        DestinationSettings { protocol, policy }
    }
}

fn location() -> impl Strategy<Value = TokenLocation> {
    prop_oneof![
        (word(), text()).prop_map(|(name, prefix)| TokenLocation::Header { name, prefix }),
        word().prop_map(TokenLocation::Query),
        word().prop_map(TokenLocation::Cookie),
    ]
}

prop_compose! {
    fn provider()(
        issuer in word(),
        audiences in vec(word(), 0..2),
        jwks in option::of(text()),
        locations in vec(location(), 0..3),
        forward in any::<bool>(),
        payload_header in option::of(word()),
        claims in vec((word(), word()), 0..2),
        space_delimited in vec(word(), 0..2),
        any_issuer in any::<bool>(),
    ) -> JwtProvider {
        let issuer = if any_issuer { "".into() } else { issuer };
        let claim_headers = claims.into_iter().map(|(header, claim)| ClaimHeader { header, claim }).collect();
        JwtProvider { issuer, audiences, jwks, locations, forward, payload_header, claim_headers, space_delimited }
    }
}

fn string() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        word().prop_map(StringMatch::Exact),
        word().prop_map(StringMatch::Prefix),
        word().prop_map(StringMatch::Suffix),
        Just(StringMatch::Presence),
    ]
}

fn path() -> impl Strategy<Value = PathPattern> {
    let template = select(vec!["/a/{*}", "/a/{*}/b/{**}", "/{**}/c", "/{**}"]);
    prop_oneof![
        string().prop_map(PathPattern::Text),
        template.prop_map(|text| PathPattern::Template(text.parse().unwrap())),
    ]
}

fn attribute() -> impl Strategy<Value = Attribute> {
    prop_oneof![
        word().prop_map(Attribute::Header),
        word().prop_map(Attribute::HeaderMembers),
        Just(Attribute::Authority),
        Just(Attribute::Presenter),
        Just(Attribute::Audiences),
        vec(word(), 1..3).prop_map(Attribute::Claim),
        Just(Attribute::Sni),
    ]
}

prop_compose! {
    fn request_match()(
        strings in proptest::array::uniform6(vec(string(), 0..2)),
        paths in proptest::array::uniform2(vec(path(), 0..2)),
        nets in proptest::array::uniform2(vec(select(vec!["10.0.0.0/8", "fd00::/8"]), 0..2)),
        attributes in vec((attribute(), vec(string(), 0..2), vec(string(), 0..2)), 0..3),
        trusted_proxies in option::of(any::<u32>()),
    ) -> RequestMatch {
        let [hosts, not_hosts, methods, not_methods, principals, not_principals] = strings;
        let [paths, not_paths] = paths;
        let [remote_ips, not_remote_ips] =
            nets.map(|nets| nets.into_iter().map(|net| net.parse().unwrap()).collect());
        let attribute =
            |(attribute, values, not_values)| AttributeMatch { attribute, values, not_values };
        RequestMatch {
            hosts, not_hosts, methods, not_methods, paths, not_paths, principals, not_principals, remote_ips,
            not_remote_ips, trusted_proxies,
            attributes: attributes.into_iter().map(attribute).collect(),
        }
    }
}

prop_compose! {
    fn whole_match()(
        principals in vec(string(), 0..2),
        destination_ports in vec(1..=u16::MAX, 0..2),
        request in option::of(request_match()),
    ) -> Match {
        Match { principals, destination_ports, request: request.map(Box::new), ..Match::default() }
    }
}

prop_compose! {
    fn policy()(
        key in key(),
        scope in select(vec![Scope::Global, Scope::Namespace, Scope::WorkloadSelector]),
        action in select(vec![Action::Allow, Action::Deny, Action::Audit]),
        rules in vec(vec(vec(whole_match(), 0..2), 0..2), 0..2),
        dry_run in any::<bool>(),
    ) -> Policy {
        let clauses = |rule: Vec<_>| rule.into_iter().map(|matches| Clause { matches }).collect();
        let rules = rules.into_iter().map(|rule| Rule { clauses: clauses(rule) }).collect();
        Policy { key, scope, action, rules, dry_run }
    }
}

prop_compose! {
    fn http_check()(
        path_prefix in text(),
        strings in proptest::array::uniform4(vec(string(), 0..2)),
        additional_headers in vec((word(), text()), 0..2),
    ) -> HttpCheck {
        let [request_headers, upstream_on_allow, downstream_on_deny, downstream_on_allow] = strings;
        HttpCheck {
            path_prefix, request_headers, additional_headers, upstream_on_allow, downstream_on_deny,
            downstream_on_allow,
        }
    }
}

prop_compose! {
    fn check()(
        policy in policy(),
        name in word(),
        to in destination(),
        timeout_ms in 1..600_000_u64,
        fail_open in any::<bool>(),
        status_on_error in 400..600_u16,
        body in option::of((1..=u32::MAX, any::<bool>(), any::<bool>())),
        http in option::of(http_check()),
    ) -> ExternalCheck {
        let body = body.map(|(max_bytes, allow_partial, pack_as_bytes)| CheckBody { max_bytes, allow_partial, pack_as_bytes });
        let protocol = http.map_or(CheckProtocol::Grpc, |http| CheckProtocol::Http(Box::new(http)));
        let timeout = Duration::from_millis(timeout_ms);
        let provider = CheckProvider { name, to, timeout, fail_open, status_on_error, body, protocol };
        ExternalCheck { policy: Arc::new(Policy { action: Action::Deny, ..policy }), provider: Arc::new(provider) }
    }
}

prop_compose! {
    fn service()(
        key in key(),
        ports in vec(port(), 0..3),
        destinations in btree_map(destination(), settings(), 0..3),
        requests in requests(),
        authentication in vec(provider(), 0..2),
        authorization in vec(policy(), 0..2),
        checks in vec(check(), 0..2),
        unenforceable in vec((super::arbitrary::key(), text()), 0..2),
    ) -> BoundService {
        BoundService {
            key, ports, destinations,
            addressed: Addressed::Service,
            requests: Arc::new(requests),
            authentication,
            authorization: authorization.into_iter().map(Arc::new).collect(),
            checks,
            unenforceable,
        }
    }
}

/// A service, or pods with the same policies.
pub(super) fn bound_service() -> impl Strategy<Value = BoundService> {
    (service(), option::of(btree_set(word(), 0..3))).prop_map(|(service, pods)| match pods {
        None => service,
        Some(pods) => BoundService {
            key: NamespacedName { name: PODS.into(), ..service.key },
            addressed: Addressed::Pods(pods),
            ports: Vec::new(),
            ..service
        },
    })
}
