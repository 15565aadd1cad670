//! The current authority: its source, and problems with it.
//!
//! Invariant: a loaded authority is kept until another one is loaded. A Secret that disappears or
//! becomes invalid affects no proxy, only the status.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ambit_api::{Mesh, conditions::reason, labels};
use ambit_identity::authority::{Authority, Parts};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use sha2::{Digest, Sha256};

use super::{
    settings::issued_in,
    validate::{self, CaSource},
};
use crate::names;

/// Remaining validity of an authority below which the status warns.
pub(crate) const EXPIRING: Duration = Duration::from_secs(30 * 86_400);
/// Default lifetime of workload certificates.
const CERTIFICATE_TTL: Duration = Duration::from_secs(86_400);

/// The current authority.
#[derive(Clone)]
pub(crate) struct Trust {
    /// Signs certificates.
    pub authority: Arc<Authority>,
    /// Trust domain of its certificates.
    pub domain: Arc<str>,
    /// Lifetime of workload certificates.
    pub certificate_ttl: Duration,
    /// Name of its Secret.
    pub secret: String,
    /// Resource version of its Secret.
    pub version: String,
}

/// The trust settings of the spec, as far as they can be used: trust continues under an invalid
/// spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Source of the authority.
    pub source: CaSource,
    /// Current trust domain.
    pub domain: String,
    /// Lifetime of workload certificates.
    pub certificate_ttl: Duration,
}

/// Why there is no authority, or not the requested one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrustProblem {
    /// Reason of the condition.
    pub reason: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

/// The trust settings of the spec.
pub(crate) fn wanted(mesh: &Mesh) -> Option<Wanted> {
    let issued = issued_in(mesh);
    let mut spec = mesh.spec.clone();
    spec.trust.domain = issued.unwrap_or(&mesh.spec.trust.domain).to_owned();
    match validate::validate(&spec, issued) {
        Ok(valid) => Some(Wanted {
            source: valid.ca,
            domain: valid.trust_domain,
            certificate_ttl: valid.certificate_ttl,
        }),
        // A spec with errors elsewhere still selects an authority to keep, but never a new one.
        Err(_) => {
            let source = match &mesh.spec.trust.ca.secret {
                Some(secret) => CaSource::Secret(secret.name.clone()),
                None => CaSource::SelfSigned { root_ttl: validate::ROOT_TTL_MIN },
            };
            issued.map(|domain| Wanted {
                source,
                domain: domain.to_owned(),
                certificate_ttl: CERTIFICATE_TTL,
            })
        }
    }
}

impl Wanted {
    /// Name of the authority's Secret.
    pub(crate) fn secret(&self) -> &str {
        match &self.source {
            CaSource::SelfSigned { .. } => names::CA_SECRET,
            CaSource::Secret(name) => name,
        }
    }

    /// Loads the authority from the Secrets of our namespace.
    ///
    /// # Errors
    /// When the Secret does not exist or cannot be used.
    pub(crate) fn load(&self, secrets: &[Arc<Secret>], now: SystemTime) -> Result<Trust, TrustProblem> {
        let name = self.secret();
        let secret = secrets.iter().find(|s| s.metadata.name.as_deref() == Some(name)).ok_or_else(|| {
            TrustProblem {
                reason: reason::CA_NOT_FOUND,
                message: format!(
                    "Secret {}/{name} does not exist; create it, or change spec.trust.ca",
                    names::NAMESPACE
                ),
            }
        })?;
        let invalid = |error: ambit_identity::Error| TrustProblem {
            reason: reason::CA_INVALID,
            message: format!("Secret {}/{name} cannot be used: {error}", names::NAMESPACE),
        };
        let empty = BTreeMap::new();
        let data: BTreeMap<String, &[u8]> = secret
            .data
            .as_ref()
            .unwrap_or(&empty)
            .iter()
            .map(|(key, value)| (key.clone(), value.0.as_slice()))
            .collect();
        let parts = Parts::from_secret(&data).map_err(invalid)?;
        let authority = Authority::from_pem(parts, now).map_err(invalid)?;
        Ok(Trust {
            authority: Arc::new(authority),
            domain: self.domain.as_str().into(),
            certificate_ttl: self.certificate_ttl,
            secret: name.to_owned(),
            version: version(secret),
        })
    }

    /// Whether `trust` equals the result of [`Self::load`].
    pub(crate) fn is_loaded(&self, trust: &Trust, secrets: &[Arc<Secret>]) -> bool {
        let secret = secrets.iter().find(|s| s.metadata.name.as_deref() == Some(self.secret()));
        secret.is_some_and(|secret| {
            trust.secret == self.secret()
                && trust.version == version(secret)
                && *trust.domain == *self.domain
                && trust.certificate_ttl == self.certificate_ttl
        })
    }

    /// The Secret to create for a self-signed authority that has none: the current authority, or a
    /// new one.
    ///
    /// # Errors
    /// When no key can be generated.
    pub(crate) fn new_secret(
        &self,
        in_force: Option<&Trust>,
        now: SystemTime,
    ) -> Result<Option<Secret>, ambit_identity::Error> {
        let CaSource::SelfSigned { root_ttl } = self.source else { return Ok(None) };
        let parts = match in_force.filter(|trust| trust.secret == names::CA_SECRET) {
            Some(trust) => trust.authority.to_pem().clone(),
            None => Authority::self_signed(&self.domain, root_ttl, now)?.to_pem().clone(),
        };
        let data = [
            ("ca-cert.pem", parts.cert),
            ("ca-key.pem", parts.key),
            ("cert-chain.pem", parts.chain),
            ("root-cert.pem", parts.root),
        ];
        Ok(Some(Secret {
            metadata: ObjectMeta {
                name: Some(names::CA_SECRET.into()),
                namespace: Some(names::NAMESPACE.into()),
                labels: Some(BTreeMap::from([
                    (labels::MANAGED_BY.to_owned(), labels::FIELD_MANAGER.to_owned()),
                    (labels::MESH.to_owned(), labels::MESH_NAME.to_owned()),
                ])),
                ..ObjectMeta::default()
            },
            data: Some(data.map(|(key, pem)| (key.to_owned(), ByteString(pem.into_bytes()))).into()),
            ..Secret::default()
        }))
    }
}

fn version(secret: &Secret) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&secret.metadata.uid), part(&secret.metadata.resource_version))
}

/// Fingerprint of a PEM bundle, for the status.
pub(crate) fn fingerprint(pem: &str) -> String {
    Sha256::digest(pem.trim().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn self_signed() -> Wanted {
        Wanted {
            source: CaSource::SelfSigned { root_ttl: validate::ROOT_TTL_MIN },
            domain: "cluster.local".into(),
            certificate_ttl: CERTIFICATE_TTL,
        }
    }

    #[test]
    fn a_new_secret_can_be_loaded_and_is_written_down_again_with_the_same_root() {
        let (wanted, now) = (self_signed(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let secret = wanted.new_secret(None, now).unwrap().unwrap();
        let trust = wanted.load(&[Arc::new(secret.clone())], now).unwrap();
        assert!(wanted.is_loaded(&trust, &[Arc::new(secret.clone())]));
        let again = wanted.new_secret(Some(&trust), now).unwrap().unwrap();
        assert_eq!(again.data, secret.data);
    }

    #[test]
    fn a_secret_that_is_missing_or_broken_says_which_and_why() {
        let wanted = Wanted { source: CaSource::Secret("cacerts".into()), ..self_signed() };
        let now = SystemTime::UNIX_EPOCH;
        let missing = wanted.load(&[], now).err().unwrap();
        assert_eq!(missing.reason, reason::CA_NOT_FOUND);
        assert!(missing.message.contains("ambit-system/cacerts"), "{}", missing.message);
        let mut secret = Secret::default();
        secret.metadata.name = Some("cacerts".into());
        let broken = wanted.load(&[Arc::new(secret)], now).err().unwrap();
        assert_eq!(broken.reason, reason::CA_INVALID);
        assert!(wanted.new_secret(None, now).unwrap().is_none(), "a Secret that a user brings is never made");
    }

    #[test]
    fn an_invalid_spec_keeps_the_authority_in_force_and_starts_none() {
        let mut mesh = Mesh::new("default", ambit_api::MeshSpec::default());
        mesh.spec.trust.certificate_ttl = "soon".into();
        assert_eq!(super::wanted(&mesh), None);
        mesh.status =
            serde_json::from_value(serde_json::json!({"trust": {"phase": "Stable", "domain": "old"}}))
                .unwrap();
        assert_eq!(super::wanted(&mesh).unwrap().domain, "old");
    }
}
