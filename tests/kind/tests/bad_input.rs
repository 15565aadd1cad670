//! Does bad input get a clear error, and change nothing?

use std::time::Duration;

use ambit_kind_tests::{Result, kubectl, mesh, wait};
use anyhow::bail;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);
const NAMESPACE: &str = "bad-input-test";

fn policy_condition(name: &str) -> Result<(String, String, String)> {
    let (condition, _) = wait::until(&format!("a condition of {name}"), LIMIT, || {
        let policy =
            kubectl::json(&["get", "authorizationpolicies.security.istio.io", "-n", NAMESPACE, name])?;
        let conditions =
            policy.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        let found = conditions.into_iter().find(|c| kubectl::text(c, "/type") == "ZtunnelAccepted");
        let field = |c: &Value, name: &str| kubectl::text(c, name).to_owned();
        Ok(found.map(|c| (field(&c, "/status"), field(&c, "/reason"), field(&c, "/message"))))
    })?;
    Ok(condition)
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_mesh_that_is_not_named_default_is_refused_with_the_reason() {
    let error =
        kubectl::apply("{apiVersion: ambit.dev/v1alpha1, kind: Mesh, metadata: {name: other}, spec: {}}")
            .unwrap_err();
    assert!(error.to_string().contains("default"), "{error}");
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_trust_domain_cannot_change_once_certificates_were_issued() {
    mesh::require_ready().unwrap();
    let domain = mesh::trust_domain().unwrap();
    let patch = |domain: &str| {
        let patch = format!("{{\"spec\":{{\"trust\":{{\"domain\":\"{domain}\"}}}}}}");
        kubectl::run(&["patch", "meshes.ambit.dev", "default", "--type=merge", "-p", &patch])
    };
    patch("other.example").unwrap();
    let accepted = wait::until("the change to be refused", LIMIT, || {
        let (status, reason, message) = mesh::condition("Accepted")?;
        if status == "False" { Ok(Some((reason, message))) } else { bail!("Accepted is {status}") }
    });
    patch(&domain).unwrap();
    mesh::until_condition("Ready", "True").unwrap();
    let ((reason, message), _) = accepted.unwrap();
    assert_eq!(reason, "TrustDomainImmutable");
    assert!(message.contains(&domain), "{message}");
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_missing_ca_secret_is_named_and_the_old_certificates_stay() {
    mesh::require_ready().unwrap();
    let patch = |ca: &str| {
        let patch = format!("{{\"spec\":{{\"trust\":{{\"ca\":{ca}}}}}}}");
        kubectl::run(&["patch", "meshes.ambit.dev", "default", "--type=merge", "-p", &patch])
    };
    patch("{\"secret\":{\"name\":\"no-such-secret\"},\"selfSigned\":null}").unwrap();
    let refused = wait::until("TrustReady to say so", LIMIT, || {
        let (status, reason, message) = mesh::condition("TrustReady")?;
        if status == "False" {
            Ok(Some((reason, message)))
        } else {
            bail!("TrustReady is {status}: {reason}")
        }
    });
    patch("null").unwrap();
    mesh::until_condition("Ready", "True").unwrap();
    let ((reason, message), _) = refused.unwrap();
    assert_eq!(reason, "CANotFound");
    assert!(message.contains("no-such-secret"), "{message}");
}

#[test]
#[ignore = "needs a cluster with the mesh: make test"]
fn a_policy_that_cannot_be_enforced_as_written_says_what_is_enforced() {
    mesh::require_ready().unwrap();
    mesh::namespace(NAMESPACE, "").unwrap();
    let policy = |name: &str, spec: &str| {
        format!(
            "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: {name}, namespace: {NAMESPACE}}}, spec: {spec}}}"
        )
    };
    let cases = [
        (
            "bad-cidr",
            "{action: ALLOW, rules: [{from: [{source: {ipBlocks: [10.0.0.0/99]}}]}]}",
            "False",
            "10.0.0.0/99",
        ),
        ("l7-allow", "{action: ALLOW, rules: [{to: [{operation: {paths: [/x]}}]}]}", "", "paths"),
        ("l7-deny", "{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}", "False", "methods"),
        ("good", "{action: ALLOW, rules: [{from: [{source: {namespaces: [shop]}}]}]}", "True", ""),
    ];
    for (name, spec, status, word) in cases {
        kubectl::apply(&policy(name, spec)).unwrap();
        let (is, reason, message) = policy_condition(name).unwrap();
        assert!(status.is_empty() || is == status, "{name}: {is} {reason} {message}");
        assert!(message.contains(word), "{name}: {is} {reason} {message}");
        kubectl::delete(&policy(name, spec)).unwrap();
    }
    kubectl::run(&["delete", "namespace", NAMESPACE, "--timeout=60s"]).unwrap();
}
