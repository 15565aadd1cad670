//! Validation of the spec.
//!
//! Invariant: a valid spec needs no further checks, and all violations are reported at once by
//! field.

use std::{fmt, time::Duration};

use ambit_api::{
    MeshSpec,
    conditions::reason,
    mesh::{Replicas, Resources},
    parse_duration,
};

/// Shortest lifetime of a workload certificate.
pub(crate) const CERTIFICATE_TTL_MIN: Duration = Duration::from_secs(10 * 60);
/// Longest lifetime of a workload certificate.
pub(crate) const CERTIFICATE_TTL_MAX: Duration = Duration::from_secs(90 * 86_400);
/// Shortest lifetime of a root.
pub(crate) const ROOT_TTL_MIN: Duration = Duration::from_secs(30 * 86_400);
/// Longest lifetime of a root.
pub(crate) const ROOT_TTL_MAX: Duration = Duration::from_secs(36_500 * 86_400);
/// Largest number of pods per waypoint.
pub(crate) const WAYPOINT_REPLICAS_MAX: i32 = 1000;

/// Source of the authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CaSource {
    /// Created by the operator.
    SelfSigned {
        /// Lifetime of its root.
        root_ttl: Duration,
    },
    /// A Secret with this name.
    Secret(String),
}

/// A valid spec.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ValidMesh {
    /// The spec as written.
    pub spec: MeshSpec,
    /// Current trust domain.
    pub trust_domain: String,
    /// Lifetime of workload certificates.
    pub certificate_ttl: Duration,
    /// Source of the authority.
    pub ca: CaSource,
}

/// A violation in the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Reason of the condition.
    pub reason: &'static str,
    /// Path of the field.
    pub field: &'static str,
    /// What is wrong, and what to write.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Validates a spec. `issued_in` is the trust domain of certificates that were already issued.
///
/// # Errors
/// All violations.
pub(crate) fn validate(spec: &MeshSpec, issued_in: Option<&str>) -> Result<ValidMesh, Vec<Violation>> {
    let mut violations = Vec::new();
    let trust_domain = trust_domain(spec, issued_in, &mut violations);
    let certificate_ttl = duration(
        "spec.trust.certificateTTL",
        &spec.trust.certificate_ttl,
        CERTIFICATE_TTL_MIN..=CERTIFICATE_TTL_MAX,
        "between 10m and 90d",
        &mut violations,
    );
    let ca = ca(spec, &mut violations);
    for (field, resources) in [
        ("spec.dataPlane.ztunnel.resources", &spec.data_plane.ztunnel.resources),
        ("spec.dataPlane.nodeAgent.resources", &spec.data_plane.node_agent.resources),
        ("spec.waypoints.resources", &spec.waypoints.resources),
    ] {
        let wrong = wrong_quantities(resources);
        violations.extend(wrong.map(|message| Violation { reason: reason::INVALID_SPEC, field, message }));
    }
    if let Some(message) = wrong_replicas(spec.waypoints.replicas) {
        violations.push(Violation {
            reason: reason::INVALID_SPEC,
            field: "spec.waypoints.replicas",
            message,
        });
    }
    if let Some(message) = wrong_namespace(&spec.policy.root_namespace) {
        violations.push(Violation {
            reason: reason::INVALID_SPEC,
            field: "spec.policy.rootNamespace",
            message,
        });
    }
    if let Some(tracing) = &spec.observability.tracing
        && !is_collector(&tracing.endpoint)
    {
        violations.push(Violation {
            reason: reason::INVALID_SPEC,
            field: "spec.observability.tracing.endpoint",
            message: format!(
                "{:?} is not the address of a collector; write http://host:port",
                tracing.endpoint
            ),
        });
    }
    match (certificate_ttl, ca) {
        (Some(certificate_ttl), Some(ca)) if violations.is_empty() => {
            Ok(ValidMesh { spec: spec.clone(), trust_domain, certificate_ttl, ca })
        }
        (_, _) => Err(violations),
    }
}

fn trust_domain(spec: &MeshSpec, issued_in: Option<&str>, violations: &mut Vec<Violation>) -> String {
    let wanted = &spec.trust.domain;
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    if wanted.is_empty() || wanted.len() > 253 || !wanted.chars().all(is_name) {
        violations.push(Violation {
            reason: reason::INVALID_TRUST,
            field: "spec.trust.domain",
            message: format!(
                "{wanted:?} is not a trust domain; write lower-case letters, digits, dots, dashes"
            ),
        });
    }
    match issued_in {
        Some(issued) if issued != wanted => {
            violations.push(Violation {
                reason: reason::TRUST_DOMAIN_IMMUTABLE,
                field: "spec.trust.domain",
                message: format!(
                    "certificates were issued in {issued:?}, which stays in force; write {issued:?} again, or delete the Mesh first"
                ),
            });
            issued.to_owned()
        }
        Some(_) | None => wanted.clone(),
    }
}

fn ca(spec: &MeshSpec, violations: &mut Vec<Violation>) -> Option<CaSource> {
    match (&spec.trust.ca.self_signed, &spec.trust.ca.secret) {
        (own, None) => {
            let own = own.clone().unwrap_or_default();
            let ttl = duration(
                "spec.trust.ca.selfSigned.rootTTL",
                &own.root_ttl,
                ROOT_TTL_MIN..=ROOT_TTL_MAX,
                "between 30d and 36500d",
                violations,
            );
            ttl.map(|root_ttl| CaSource::SelfSigned { root_ttl })
        }
        (None, Some(secret)) => Some(CaSource::Secret(secret.name.clone())),
        (Some(_), Some(_)) => {
            violations.push(Violation {
                reason: reason::INVALID_TRUST,
                field: "spec.trust.ca",
                message: "give at most one of selfSigned and secret".into(),
            });
            None
        }
    }
}

fn duration(
    field: &'static str,
    text: &str,
    range: std::ops::RangeInclusive<Duration>,
    limits: &str,
    violations: &mut Vec<Violation>,
) -> Option<Duration> {
    let mut wrong = |message| {
        violations.push(Violation { reason: reason::INVALID_TRUST, field, message });
        None
    };
    match parse_duration(text) {
        Ok(duration) if range.contains(&duration) => Some(duration),
        Ok(_) => wrong(format!("{text} is not {limits}")),
        Err(error) => wrong(error.to_string()),
    }
}

/// Invalid quantities in `resources`.
pub(crate) fn wrong_quantities(resources: &Resources) -> impl Iterator<Item = String> {
    let all = resources.requests.iter().chain(&resources.limits).flatten();
    all.filter(|(_, quantity)| !is_quantity(quantity)).map(|(name, quantity)| {
        format!("{name}: {quantity:?} is not a quantity; write for example 100m or 128Mi")
    })
}

/// Why a number of waypoint pods is invalid.
pub(crate) fn wrong_replicas(replicas: Replicas) -> Option<String> {
    let Replicas { min, max } = replicas;
    if (1..=WAYPOINT_REPLICAS_MAX).contains(&min) && (min..=WAYPOINT_REPLICAS_MAX).contains(&max) {
        return None;
    }
    Some(format!(
        "min {min} and max {max} are not a valid range; write at least 1, at most {WAYPOINT_REPLICAS_MAX}, and min no more than max"
    ))
}

/// Why the name of a namespace is invalid as a DNS label (RFC 1123).
fn wrong_namespace(name: &str) -> Option<String> {
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_label = (1..=63).contains(&name.len())
        && name.bytes().all(is_inner)
        && !name.starts_with('-')
        && !name.ends_with('-');
    (!is_label).then(|| {
        format!(
            "{name:?} is not a valid name of a namespace; write lower-case letters, digits and dashes, for example istio-system"
        )
    })
}

/// Whether it is `http://` followed only by an authority with a port.
fn is_collector(endpoint: &str) -> bool {
    let authority = endpoint.strip_prefix("http://").unwrap_or_default();
    let (host, port) = authority.rsplit_once(':').unwrap_or_default();
    let is_host = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
    is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// The syntax of Kubernetes quantities: a decimal number, then a suffix or an exponent.
fn is_quantity(text: &str) -> bool {
    let number = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, suffix) = text.split_at(number);
    let is_number = digits.bytes().any(|b| b.is_ascii_digit()) && digits.matches('.').count() <= 1;
    let suffixes = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let exponent = suffix.strip_prefix(['e', 'E']).map(|e| e.trim_start_matches(['+', '-']));
    let is_exponent = exponent.is_some_and(|e| !e.is_empty() && e.bytes().all(|b| b.is_ascii_digit()));
    is_number && (suffixes.contains(&suffix) || is_exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> MeshSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn an_empty_spec_is_valid() {
        let valid = validate(&MeshSpec::default(), None).unwrap();
        assert_eq!((valid.trust_domain.as_str(), valid.certificate_ttl.as_secs()), ("cluster.local", 86_400));
        assert!(matches!(valid.ca, CaSource::SelfSigned { .. }));
    }

    #[test]
    fn every_violation_is_named_by_field_and_all_at_once() {
        let bad = spec(serde_json::json!({
            "trust": {"domain": "Bad Domain", "certificateTTL": "1m", "ca": {"selfSigned": {"rootTTL": "1d"}}},
            "dataPlane": {"ztunnel": {"resources": {"requests": {"cpu": "a lot"}}}},
            "waypoints": {"replicas": {"min": 3, "max": 2}, "resources": {"limits": {"memory": "1GiB"}}},
            "policy": {"rootNamespace": "Istio.System"},
            "observability": {"tracing": {"endpoint": "http://collector"}}
        }));
        let fields: Vec<_> = validate(&bad, None).unwrap_err().iter().map(|v| v.field).collect();
        assert_eq!(
            fields,
            [
                "spec.trust.domain",
                "spec.trust.certificateTTL",
                "spec.trust.ca.selfSigned.rootTTL",
                "spec.dataPlane.ztunnel.resources",
                "spec.waypoints.resources",
                "spec.waypoints.replicas",
                "spec.policy.rootNamespace",
                "spec.observability.tracing.endpoint"
            ]
        );
    }

    #[test]
    fn the_trust_domain_cannot_change_once_certificates_were_issued() {
        let changed = spec(serde_json::json!({"trust": {"domain": "example.org"}}));
        assert!(validate(&changed, None).is_ok());
        assert!(validate(&changed, Some("example.org")).is_ok());
        let violations = validate(&changed, Some("cluster.local")).unwrap_err();
        assert_eq!(violations.len(), 1);
        assert_eq!(violations[0].reason, reason::TRUST_DOMAIN_IMMUTABLE);
    }

    #[test]
    fn a_collector_is_a_host_and_a_port() {
        for good in ["http://otel.observability:4317", "http://10.0.0.1:4317", "http://[fd00::1]:4317"] {
            assert!(is_collector(good), "{good}");
        }
        for bad in ["", "otel:4317", "http://otel", "http://otel:4317/v1", "https://otel:4317", "http://:1"] {
            assert!(!is_collector(bad), "{bad}");
        }
    }

    #[test]
    fn quantities_follow_the_grammar() {
        for good in ["1", "100m", "1.5", "128Mi", "1e3", "2E", "0.5G", ".5"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "m", "1 Mi", "1mi", "-1x", "1.2.3", "e3", "1e"] {
            assert!(!is_quantity(bad), "{bad}");
        }
    }
}
