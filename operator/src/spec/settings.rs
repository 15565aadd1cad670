//! The settings of the index from the `Mesh`. Total: an invalid spec still provides the excluded
//! namespaces.

use ambit_api::{
    Mesh, labels,
    mesh::{Mtls, TrustPhase},
};
use ambit_index::{Presence, Settings};
use ambit_model::Mode;

/// The trust domain in which certificates were already issued, if any.
pub(crate) fn issued_in(mesh: &Mesh) -> Option<&str> {
    let trust = mesh.status.as_ref()?.trust.as_ref()?;
    (trust.phase == TrustPhase::Stable && !trust.domain.is_empty()).then_some(trust.domain.as_str())
}

/// The settings for a Mesh, or for its absence.
pub(crate) fn settings(mesh: Option<&Mesh>) -> Settings {
    let Some(mesh) = mesh else { return Settings::default() };
    let is_leaving = mesh.metadata.deletion_timestamp.is_some();
    Settings {
        presence: if is_leaving { Presence::Leaving } else { Presence::Present },
        trust_domain: issued_in(mesh).unwrap_or(&mesh.spec.trust.domain).into(),
        trust_aliases: mesh.spec.trust.aliases.iter().map(|alias| alias.as_str().into()).collect(),
        mtls: match mesh.spec.mtls {
            Mtls::Strict => Mode::Strict,
            Mtls::Permissive => Mode::Permissive,
        },
        exclude_namespaces: mesh
            .spec
            .enrollment
            .exclude_namespaces
            .iter()
            .map(|n| n.as_str().into())
            .collect(),
        root_namespaces: [labels::SYSTEM_NAMESPACE, &mesh.spec.policy.root_namespace].map(Into::into).into(),
        failure_policy: mesh.spec.waypoints.failure_policy,
        extension_providers: mesh.spec.extension_providers.clone(),
        trusted_proxies: mesh.spec.waypoints.num_trusted_proxies,
        ..Settings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_of_issued_certificates_stays_in_force_and_deletion_is_leaving() {
        let mesh: Mesh = serde_json::from_value(serde_json::json!({
            "apiVersion": "ambit.dev/v1alpha1", "kind": "Mesh",
            "metadata": {"name": "default", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"mtls": "Strict", "policy": {"rootNamespace": "policies"}, "trust": {"domain": "new.example", "aliases": ["older.example"]}},
            "status": {"trust": {"phase": "Stable", "domain": "old.example"}}
        }))
        .unwrap();
        let found = settings(Some(&mesh));
        assert_eq!(
            (&*found.trust_domain, found.presence, found.mtls),
            ("old.example", Presence::Leaving, Mode::Strict)
        );
        assert_eq!(found.trust_aliases, ["older.example".into()]);
        assert_eq!(found.root_namespaces, ["ambit-system", "policies"].map(Into::into).into());
        assert_eq!(settings(None).presence, Presence::Absent);
    }
}
