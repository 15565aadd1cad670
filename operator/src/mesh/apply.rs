//! Applies the objects that the `Mesh` needs in our own namespace, kind by kind.
//!
//! Invariant: a failed write does not prevent others.

use std::sync::Arc;

use kube::{Client, ResourceExt};

use super::{MeshWorld, desired::MeshObjects};
use crate::{
    apply::{Claim, Managed, is_ours, one, prune},
    error::Error,
};

/// Applies and prunes all objects in our own namespace.
///
/// # Errors
/// The first write that failed; the others were attempted too.
pub(crate) async fn apply(client: &Client, wanted: &MeshObjects, world: &MeshWorld) -> Result<(), Error> {
    let results = [
        all(client, &wanted.service_accounts, &world.service_accounts).await,
        all(client, &wanted.config_maps, &world.config_maps).await,
        all(client, &wanted.daemon_sets, &world.daemon_sets).await,
    ];
    results.into_iter().collect()
}

async fn all<K: Managed>(client: &Client, wanted: &[K], live: &[Arc<K>]) -> Result<(), Error> {
    let mut result = Ok(());
    for object in wanted {
        result = result.and(one(client, object, live, Claim::Namespace).await);
    }
    // Objects that wait for an input (roots, an address) were applied before and are kept.
    if !wanted.is_empty() {
        let is_wanted = |live: &K| {
            !is_ours(live.meta()) || wanted.iter().any(|wanted| wanted.name_any() == live.name_any())
        };
        result = result.and(prune(client, live, is_wanted).await);
    }
    result
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Script, account, failure};

    #[tokio::test]
    async fn only_what_differs_is_written_and_only_what_is_ours_is_pruned() {
        let script = Script::default();
        let wanted = MeshObjects {
            service_accounts: vec![account("same"), account("drifted")],
            ..MeshObjects::default()
        };
        let mut drifted = account("drifted");
        drifted.automount_service_account_token = Some(true);
        let mut foreign = account("foreign");
        foreign.metadata.labels = None;
        let live = [account("same"), drifted, account("old"), foreign];
        let world = MeshWorld { service_accounts: live.map(Arc::new).into(), ..MeshWorld::default() };
        apply(&script.client(), &wanted, &world).await.unwrap();
        let path = "/api/v1/namespaces/ambit-system/serviceaccounts";
        assert_eq!(script.requests(), [format!("PATCH {path}/drifted"), format!("DELETE {path}/old")]);
    }

    #[tokio::test]
    async fn a_refused_write_is_named_and_does_not_keep_others_from_being_written() {
        let script = Script::new([failure(403, "Forbidden"), (200, json!({"metadata": {}}))]);
        let wanted =
            MeshObjects { service_accounts: vec![account("a"), account("b")], ..MeshObjects::default() };
        let error = apply(&script.client(), &wanted, &MeshWorld::default()).await.unwrap_err().to_string();
        assert!(error.contains("ServiceAccount ambit-system/a"), "{error}");
        assert_eq!(script.requests().len(), 2);
    }
}
